"""DeadLetters, EventStore for sync callers, made from `langgraph_pgsaga.events` by `make docs`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Unpack

from langgraph_pgsaga.database import Database, DatabaseOptions
from langgraph_pgsaga.events import (
    ANY,
    AgentEvent,
    Aggregate,
    Condition,
    Consumer,
    ConsumerInfo,
    DeadLetterPage,
    EventPage,
    EventType,
    Expected,
    Folded,
    InclusionProof,
    Lag,
    Matching,
    SealedRoot,
    StateT,
    SubjectKeys,
    Swap,
    Upcaster,
    Verification,
    VerifyProgress,
)
from langgraph_pgsaga.events import DeadLetters as AsyncDeadLetters
from langgraph_pgsaga.events import EventStore as AsyncEventStore
from langgraph_pgsaga.work import Job, Retry, Step, StepRecorder


class DeadLetters:
    """What a tenant's consumers couldn't handle: listed, tried again, or skipped.

    `langgraph_pgsaga.events.DeadLetters` for sync callers.
    """

    def __init__(self, db: Database, *, tenant: str | None = None) -> None:
        self._async = AsyncDeadLetters(db, tenant=tenant)
        self.db = self._async.db

    def list(
        self, consumer: str | None = None, *, after: str | None = None, limit: int = 100
    ) -> DeadLetterPage:
        """Those of a consumer, or of all, dead and still tried, a page of them.

        Args:
            after: the `next_cursor` of the page before.
            limit: at most 10,000.

        Raises:
            InvalidCursorError: `after` isn't a cursor of dead letters.
        """
        return self.db.portal.call(self._async.list, consumer, after=after, limit=limit)

    def retry(self, consumer: str, event_id: str | None = None) -> int:
        """Has an event tried again at once, with all attempts; without an id all of the
        consumer's. How many aggregates that are.

        Raises:
            MissingConsumerError: there is no such consumer.
            MissingDeadLetterError: no aggregate waits for this event.
        """
        return self.db.portal.call(self._async.retry, consumer, event_id)

    def skip(self, consumer: str, event_id: str) -> None:
        """Has the consumer never get an event; those of the aggregate that wait follow at once.

        Raises:
            MissingConsumerError: there is no such consumer.
            MissingDeadLetterError: no aggregate waits for this event.
        """
        self.db.portal.call(self._async.skip, consumer, event_id)


class EventStore:
    """A tenant's events in a database: appended to aggregates, read by aggregate or as one log.

    `langgraph_pgsaga.events.EventStore` for sync callers.
    """

    def __init__(
        self,
        db: Database,
        *,
        tenant: str | None = None,
        upcasters: Iterable[Upcaster] = (),
        subjects: SubjectKeys | None = None,
    ) -> None:
        self._async = AsyncEventStore(db, tenant=tenant, upcasters=upcasters, subjects=subjects)
        self.db = self._async.db
        self.subjects = self._async.subjects

    @classmethod
    def from_conn_string(cls, dsn: str, **options: Unpack[DatabaseOptions]) -> EventStore:
        """A store with a Database of its own, which takes the options: close `store.db` at the
        end."""
        made = cls.__new__(cls)
        made._async = AsyncEventStore.from_conn_string(dsn, **options)
        made.db = made._async.db
        made.subjects = made._async.subjects
        return made

    def initialize(self) -> None:
        """Makes or updates the tables, as `Database.setup` does."""
        self.db.portal.call(self._async.initialize)

    @property
    def step_recorder(self) -> StepRecorder:
        """What makes the events of a saver's calls: `PostgresSaver(db, events=store)` asks for it.

        They are of each thread's own tenant, whosever this store is.

        Raises:
            InvalidArgumentError: this store has personal fields for a type of these events, which
                don't say whom they are about.
        """
        return self._async.step_recorder

    def append(
        self,
        aggregate_id: str,
        events: Iterable[AgentEvent],
        *,
        aggregate_type: str,
        expected_version: Expected = ANY,
        condition: Condition | None = None,
        conn: Step | None = None,
    ) -> tuple[AgentEvent, ...]:
        """Appends events to an aggregate, all or none, and returns them as they are stored.

        Events whose ids are stored already, with the same content (type, data, schema version,
        metadata, tags), are returned as they were stored then, and nothing is added, whatever was
        expected.

        Args:
            events: 1 to 10,000.
            expected_version: the version that the aggregate has before: of its last event, 0
                for none; or ANY, NONE or EXISTS. With ANY it is appended after whatever is there,
                for up to 30 s.
            condition: no event that matches it may have come after its position.
            conn: this_step(), in a node: it is done with the node's result.

        Raises:
            VersionConflictError: the aggregate has another version.
            ConditionFailedError: an event came that matches the condition.
            EventIdConflictError: one of the ids is stored with other content.
            InvalidArgumentError, UnstorableValueError: what can't be stored.
        """
        return self.db.portal.call(
            self._async.append,
            aggregate_id,
            events,
            aggregate_type=aggregate_type,
            expected_version=expected_version,
            condition=condition,
            conn=conn,
        )

    def append_event(self, event: AgentEvent, *, conn: Step | None = None) -> AgentEvent:
        """Appends one event to the aggregate that it names, and returns it as it is stored.

        With a `version` of n it is refused where the aggregate isn't at n - 1. Else as `append`.
        """
        return self.db.portal.call(self._async.append_event, event, conn=conn)

    def guard(self, types: Iterable[EventType | str]) -> None:
        """Declares types of events that conditions may ask for; for good, and for every process.

        Who appends such an event waits for those who append one of the same type with a tag of
        the same, to the end of their transaction. For types that are declared already nothing is
        done; for others appends are waited for that are under way, and held up for that long, by
        a role that may lock the table, such as its owner.
        """
        self.db.portal.call(self._async.guard, types)

    def get_events(
        self,
        aggregate_id: str,
        from_version: int = 0,
        *,
        aggregate_type: str | None = None,
        to_version: int | None = None,
    ) -> list[AgentEvent]:
        """An aggregate's events above `from_version`, up to `to_version`, in order.

        Raises:
            AmbiguousAggregateError: without `aggregate_type`, aggregates of several types have
                the id.
        """
        return self.db.portal.call(
            self._async.get_events,
            aggregate_id,
            from_version,
            aggregate_type=aggregate_type,
            to_version=to_version,
        )

    def get_event(self, event_id: str) -> AgentEvent | None:
        """The event of an id, or None where there is none."""
        return self.db.portal.call(self._async.get_event, event_id)

    def read_all(
        self,
        *,
        after: str | None = None,
        types: Sequence[EventType | str] | None = None,
        tags: Sequence[str] | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 1000,
    ) -> EventPage:
        """A page of the events that all of the given fit, in the order that all readers see.

        Whatever was read, nothing comes in front of it later: events are read once every
        transaction that began before theirs has ended.

        Args:
            after: the `next_cursor` of the page before, or an event's `cursor`.
            types: of one of these.
            tags: with all of these.
            since: whose timestamp is then or later.
            until: whose timestamp is before then.
            limit: events per page, at most 10,000.

        Raises:
            InvalidCursorError: `after` isn't a cursor of events.
        """
        return self.db.portal.call(
            self._async.read_all,
            after=after,
            types=types,
            tags=tags,
            correlation_id=correlation_id,
            causation_id=causation_id,
            since=since,
            until=until,
            limit=limit,
        )

    def read_matching(self, condition: Condition) -> Matching:
        """What a decision is made from: the events that match a condition, after its position.

        All that are committed are there, also those that `read_all` doesn't show yet. Then append
        with `Condition(types=..., tags=..., after=found.position)`.
        """
        return self.db.portal.call(self._async.read_matching, condition)

    def subscribe(
        self,
        *,
        after: str | None = None,
        types: Sequence[EventType | str] | None = None,
        tags: Sequence[str] | None = None,
    ) -> Iterator[AgentEvent]:
        """Every event after a cursor (None: from the first on), as it comes, without an end.

        Each once, in the order of `read_all`. Where it was isn't stored: go on from the last
        event's `cursor`. All subscribers of a process have one reader and get the same objects,
        so don't change an event's data. It looks when there is news, and where none comes less
        and less often, to once a second. An
        open transaction that began to write before holds events back, those of other databases
        of the server, too; the log then says which, and so does `lag`.

        Args:
            types, tags: as in `read_all`.
        """
        return self.db.portal.iterate(self._async.subscribe, after=after, types=types, tags=tags)

    def latest(self) -> str:
        """The cursor of now: behind it comes what `read_all` doesn't show yet."""
        return self.db.portal.call(self._async.latest)

    def lag(self, after: str | None = None) -> Lag:
        """How far a reader is behind who has read up to a cursor, and who holds it up."""
        return self.db.portal.call(self._async.lag, after)

    def register_event_handler(
        self,
        event_type: EventType | str,
        handler: Callable[..., Any],
        *,
        name: str | None = None,
        retry: Retry | None = None,
    ) -> None:
        """Has `handler(event)` called with each event of a type that is appended from now on.

        After the commit, for an event in the order in which they were registered: in the
        background of the event loop that appended, or else, by a process that has registered
        it, too, in a worker with `job()` or at its next append. A sync one runs in a thread.
        An error fails no append: the event is tried again as `retry` says, then it is a dead
        letter.

        Args:
            name: what its place in the log is kept by; None is the type and the function's name.
        """
        self._async.register_event_handler(event_type, handler, name=name, retry=retry)

    def job(
        self, *consumers: Consumer, concurrency: int | None = None, name: str = "consumers"
    ) -> Job:
        """A job for a Worker: runs consumers and projections of this tenant's events.

        Without any it runs the handlers that are registered by now. Workers that have a consumer
        share it, partition by partition.

        Args:
            concurrency: how many partitions a worker has at once; None is all of them.
            name: for people, and the log; a Worker has each once.

        Raises:
            InvalidArgumentError: two of one name, or no handler.
        """
        return self._async.job(*consumers, concurrency=concurrency, name=name)

    def list_consumers(self) -> list[ConsumerInfo]:
        """The consumers that there are, by name and partition, and how far behind each is."""
        return self.db.portal.call(self._async.list_consumers)

    def forget_consumer(self, name: str) -> None:
        """Deletes a consumer's place and dead letters. A worker that has it must have ended.

        Raises:
            MissingConsumerError: there is none.
        """
        self.db.portal.call(self._async.forget_consumer, name)

    def replace_consumer(self, old: str, new: str, *, swap: Swap | None = None) -> None:
        """Has one consumer take the place of another, which gets no more events.

        The new one must have come as far, while a worker ran both. `swap(conn)` is done in the
        same transaction, in which neither goes on: rename tables there, or change a view. It
        may be called again where the connection is lost.

        Raises:
            MissingConsumerError: there is no such consumer.
            ConsumerConflictError: one of them is retired.
            ProjectionBehindError: the new one hasn't come as far, or aggregates of it wait.
        """
        self.db.portal.call(self._async.replace_consumer, old, new, swap=swap)

    def save_snapshot(
        self,
        aggregate_id: str,
        aggregate_type: str,
        snapshot_data: Any,
        version: int,
        *,
        schema_version: int = 1,
        subjects: Iterable[str] = (),
    ) -> None:
        """Stores what an aggregate's events up to a version add up to; again replaces it.

        Args:
            snapshot_data: a dict, a dataclass or a pydantic model.
            subjects: whose personal data is in it. It is encrypted, and passed over once one of
                them is forgotten.

        Raises:
            MissingVersionError: the aggregate has no event of that version. Nothing was stored.
        """
        self.db.portal.call(
            self._async.save_snapshot,
            aggregate_id,
            aggregate_type,
            snapshot_data,
            version,
            schema_version=schema_version,
            subjects=subjects,
        )

    def get_latest_snapshot(
        self,
        aggregate_id: str,
        *,
        aggregate_type: str | None = None,
        schema_version: int | None = None,
    ) -> dict[str, Any] | None:
        """`{"snapshot_data": ..., "version": ...}` of the greatest version, or None.

        Raises:
            AmbiguousAggregateError: without `aggregate_type`, there are some of several types.
        """
        return self.db.portal.call(
            self._async.get_latest_snapshot,
            aggregate_id,
            aggregate_type=aggregate_type,
            schema_version=schema_version,
        )

    def fold(
        self, aggregate: Aggregate[StateT], aggregate_id: str, *, to_version: int | None = None
    ) -> Folded[StateT]:
        """What an aggregate's events add up to, from the latest snapshot on; stores one as due."""
        return self.db.portal.call(self._async.fold, aggregate, aggregate_id, to_version=to_version)

    def seal(self) -> int:
        """Seals what `read_all` shows and isn't sealed yet; how many seals that took.

        A seal is a hash of up to 1,000 events and of the seal before. Any number of processes may
        seal at once. `seal_job` does it again and again.

        Raises:
            BrokenSealError: the last seal isn't as it was stored. Nothing is sealed behind it.
        """
        return self.db.portal.call(self._async.seal)

    def seal_job(
        self, *, every_seconds: float = 10.0, all_tenants: bool = False, name: str | None = None
    ) -> Job:
        """A job for a Worker: `seal()` again and again, in one process at a time.

        Args:
            every_seconds: how long after one time the next one comes.
            all_tenants: the logs of all tenants, instead of this store's.
            name: in the log and in `agent_jobs`; None is "seal events", with the tenant's name if
                there is one.
        """
        return self._async.seal_job(every_seconds=every_seconds, all_tenants=all_tenants, name=name)

    def sealed_root(self) -> SealedRoot | None:
        """One hash of all that is sealed; None where nothing is. Keep its text elsewhere.

        Raises:
            BrokenSealError: the seals aren't as they were stored.
        """
        return self.db.portal.call(self._async.sealed_root)

    def prove(self, event_id: str, *, root: SealedRoot | None = None) -> InclusionProof | None:
        """A proof that an event is in the log that a root is of (None: of the log of now).

        None where there is no such event, or it isn't sealed, or was sealed later than that root.
        `check_proof` checks it without a database.

        Raises:
            BrokenSealError: the event, or a seal, isn't as it was, or the root is of another log.
        """
        return self.db.portal.call(self._async.prove, event_id, root=root)

    def verify(
        self,
        *,
        root: SealedRoot | None = None,
        on_progress: Callable[[VerifyProgress], None] | None = None,
    ) -> Verification:
        """Compares every sealed event with its seal, and every seal with the one before.

        It reads the whole log, a page at a time. That somebody has sealed another log anew, from
        the first event or from some event on, shows only by a root that was kept elsewhere.

        Args:
            root: as `sealed_root` once gave it.
            on_progress: called after each seal.
        """
        return self.db.portal.call(self._async.verify, root=root, on_progress=on_progress)

    def forget_subject(self, subject: str) -> int:
        """Erases a subject's personal data, by deleting its keys; how many keys that were.

        From the commit on every process reads None in those fields, and passes over snapshots
        that they went into. The events stay, and so do their seals. Copies of the keys in backups
        and archived WAL have to go by themselves. An event of the subject that is appended later
        begins a new key.
        """
        return self.db.portal.call(self._async.forget_subject, subject)

    def rotate_subject(self, subject: str) -> None:
        """Has the subject's next events encrypted by a new key; those that are stored stay as they
        are. Nothing is done for one that has no key."""
        self.db.portal.call(self._async.rotate_subject, subject)

    def rewrap_keys(self) -> int:
        """Wraps the subjects' keys by the newest master key; how many that were.

        No event is touched. A master key is changed like this: every process gets the old one as
        `former_master_keys`, and then the new one as `master_key`; then this is called, once for
        each tenant; then the old one isn't needed any more.

        Raises:
            MasterKeyError: a key is wrapped by one that isn't among `former_master_keys`.
        """
        return self.db.portal.call(self._async.rewrap_keys)
