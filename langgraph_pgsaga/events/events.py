"""EventStore: the log of a tenant's events, and the aggregates that they are of."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Unpack
from uuid import UUID

from langgraph_pgsaga import _json
from langgraph_pgsaga._arguments import (
    LARGEST_INTEGER,
    checked_flag,
    checked_instance,
    checked_integer,
    checked_items,
    checked_text,
    checked_time,
    checked_work,
    shown,
)
from langgraph_pgsaga.database import Connection, Database, DatabaseOptions, load_statements
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.events.appending import Append
from langgraph_pgsaga.events.batch import ANY, Batch, Expected, stored_expected
from langgraph_pgsaga.events.condition import (
    Condition,
    checked_name,
    checked_tags,
    checked_types,
)
from langgraph_pgsaga.events.consumer import Consumer
from langgraph_pgsaga.events.consumer_info import (
    ConsumerInfo,
    Swap,
    forget,
    list_consumers,
    replace,
)
from langgraph_pgsaga.events.consumer_job import ConsumerJob, checked_consumers
from langgraph_pgsaga.events.data import encode_data
from langgraph_pgsaga.events.erasure import (
    Protection,
    current_keys,
    erase_subject,
    rewrap,
    rotate_subject_key,
)
from langgraph_pgsaga.events.event import AgentEvent, EventType
from langgraph_pgsaga.events.folding import Aggregate, Folded, StateT
from langgraph_pgsaga.events.handlers import Handlers
from langgraph_pgsaga.events.log_reader import LogReader
from langgraph_pgsaga.events.news import News
from langgraph_pgsaga.events.of_steps import TOLD_TYPES, StepEvents
from langgraph_pgsaga.events.place import EventPlace
from langgraph_pgsaga.events.proving import InclusionProof
from langgraph_pgsaga.events.row import EventPage, Lag, Matching
from langgraph_pgsaga.events.seal import SealedRoot
from langgraph_pgsaga.events.sealing import prove, seal_job, seal_log, sealed_root
from langgraph_pgsaga.events.snapshots import (
    Snapshot,
    SnapshotName,
    latest_snapshot,
    store_snapshot,
)
from langgraph_pgsaga.events.subjects import (
    MARK,
    SubjectKey,
    SubjectKeys,
    check_impersonal,
    check_unmarked,
)
from langgraph_pgsaga.events.upcasting import Upcaster, Upcasters
from langgraph_pgsaga.events.verifying import Verification, Verifier, VerifyProgress
from langgraph_pgsaga.tenants import Tenants, checked_tenant
from langgraph_pgsaga.work import Job, Retry, RunContext, Step, StepRecorder, written

_STATEMENTS = load_statements("events")
_MOST_PER_PAGE = 10_000


class EventStore:
    """A tenant's events in a database: appended to aggregates, read by aggregate or as one log.

    Methods with `conn` join that connection's transaction; without, they commit on their own, and
    are repeated when the connection is lost: an append of the same event ids stores them once.

    Args:
        db: the database.
        tenant: whose events they are. None is the tenant of the run that a call is part of, else
            the Database's.
        upcasters: bring event data of older forms up to date as it is read.
        subjects: which fields are personal data, and the master key of their encryption. A store
            without shows such fields as they are stored.

    Raises:
        MissingTenantError: from calls, where the Database requires a tenant and there is none.
    """

    def __init__(
        self,
        db: Database,
        *,
        tenant: str | None = None,
        upcasters: Iterable[Upcaster] = (),
        subjects: SubjectKeys | None = None,
    ) -> None:
        self.db = checked_instance("db", db, Database, "Pass a Database, such as saver.db")
        self._tenant = None if tenant is None else checked_tenant("tenant", tenant)
        self._tenants = Tenants(db.tenant, is_required=db.require_tenant)
        self._upcasters = Upcasters(upcasters)
        if subjects is not None:
            checked_instance("subjects", subjects, SubjectKeys, "Pass SubjectKeys(master_key=...)")
        self.subjects = subjects
        self._reader = LogReader(db, self._upcasters, subjects)
        self._handlers = Handlers(db, self._upcasters, subjects)
        self._news = News(db)
        self._tenant_id()  # a store of no tenant is refused at once, where one is required

    @classmethod
    def from_conn_string(cls, dsn: str, **options: Unpack[DatabaseOptions]) -> EventStore:
        """A store with a Database of its own, which takes the options: close `store.db` at the
        end."""
        return cls(Database(dsn, **options))

    async def initialize(self) -> None:
        """Makes or updates the tables, as `Database.setup` does."""
        await self.db.asetup()

    @property
    def step_recorder(self) -> StepRecorder:
        """What makes the events of a saver's calls: `PostgresSaver(db, events=store)` asks for it.

        They are of each thread's own tenant, whosever this store is.

        Raises:
            InvalidArgumentError: this store has personal fields for a type of these events, which
                don't say whom they are about.
        """
        check_impersonal(self.subjects, TOLD_TYPES, "a saver's threads")
        return StepEvents(self._handlers, self._news)

    # Appending

    async def append(
        self,
        aggregate_id: str,
        events: Iterable[AgentEvent],
        *,
        aggregate_type: str,
        expected_version: Expected = ANY,
        condition: Condition | None = None,
        conn: Connection | Step | None = None,
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
            conn: of a transaction that it joins, and leaves usable where it is refused. With
                this_step() it is done with the node's result; the events are returned at once,
                with no version, and what refuses them then ends the run.

        Raises:
            VersionConflictError: the aggregate has another version.
            ConditionFailedError: an event came that matches the condition.
            EventIdConflictError: one of the ids is stored with other content.
            InvalidArgumentError, UnstorableValueError: what can't be stored.
        """
        stored_expected(expected_version)
        if condition is not None:
            checked_instance(
                "condition", condition, Condition, "Pass Condition(types=..., tags=...)"
            )
        tenant_id = self._tenant_id()
        batch = Batch.of(tenant_id, aggregate_id, aggregate_type, events, expected_version)
        own = None if isinstance(conn, Step) else conn
        append = await self._prepared(batch, expected_version, condition, conn=own)
        # As they are now; those of the batch become what is stored.
        known = tuple(event.but() for event in batch.events) if isinstance(conn, Step) else ()
        return await written(conn, self.db, append, known=known)

    async def append_event(
        self, event: AgentEvent, *, conn: Connection | Step | None = None
    ) -> AgentEvent:
        """Appends one event to the aggregate that it names, and returns it as it is stored.

        With a `version` of n it is refused where the aggregate isn't at n - 1. Else as `append`.
        """
        checked_instance("event", event, AgentEvent, "Pass AgentEvent(event_type=..., ...)")
        expected: Expected = ANY
        if event.version is not None:
            expected = checked_integer("version", event.version, least=1) - 1
        [stored] = await self.append(
            event.aggregate_id,
            [event],
            aggregate_type=event.aggregate_type,
            expected_version=expected,
            conn=conn,
        )
        return stored

    async def guard(self, types: Iterable[EventType | str]) -> None:
        """Declares types of events that conditions may ask for; for good, and for every process.

        Who appends such an event waits for those who append one of the same type with a tag of
        the same, to the end of their transaction. For types that are declared already nothing is
        done; for others appends are waited for that are under way, and held up for that long, by
        a role that may lock the table, such as its owner.
        """
        names = checked_types("types", types)
        named = {"tenant_id": self._tenant_id(), "types": names}
        rows = await self.db.fetch(_STATEMENTS["list_guards"].bind(**named))
        if set(names) - {row["event_type"] for row in rows}:
            await self.db.fetch(_STATEMENTS["guard_events"].bind(**named))

    # Reading

    async def get_events(
        self,
        aggregate_id: str,
        from_version: int = 0,
        *,
        aggregate_type: str | None = None,
        to_version: int | None = None,
        conn: Connection | None = None,
    ) -> list[AgentEvent]:
        """An aggregate's events above `from_version`, up to `to_version`, in order.

        Raises:
            AmbiguousAggregateError: without `aggregate_type`, aggregates of several types have
                the id.
        """
        checked_name("aggregate_id", aggregate_id)
        version = checked_integer("from_version", from_version, least=0)
        last = LARGEST_INTEGER if to_version is None else checked_integer("to_version", to_version)
        if aggregate_type is None:
            aggregate_type = await self._reader.type_of(self._tenant_id(), aggregate_id, conn)
        else:
            checked_name("aggregate_type", aggregate_type)
        if aggregate_type is None:
            return []
        named = self._tenant_id(), aggregate_id, aggregate_type
        return (await self._reader.stream(*named, version, last, conn))[0]

    async def get_event(self, event_id: str) -> AgentEvent | None:
        """The event of an id, or None where there is none."""
        return await self._reader.event(self._tenant_id(), checked_name("event_id", event_id))

    async def read_all(
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
        checked_integer("limit", limit, least=1, most=_MOST_PER_PAGE)
        narrowed: dict[str, Any] = {
            "correlation_id": checked_text("correlation_id", correlation_id),
            "causation_id": checked_text("causation_id", causation_id),
            "since": checked_time("since", since),
            "until": checked_time("until", until),
        }
        asked, place = _asked(types, tags), EventPlace.of_cursor(after)
        return await self._reader.page(self._tenant_id(), place, asked, narrowed, limit)

    async def read_matching(
        self, condition: Condition, *, conn: Connection | None = None
    ) -> Matching:
        """What a decision is made from: the events that match a condition, after its position.

        All that are committed are there, also those that `read_all` doesn't show yet. Then append
        with `Condition(types=..., tags=..., after=found.position)`.
        """
        checked_instance("condition", condition, Condition, "Pass Condition(types=..., tags=...)")
        return await self._reader.matching(self._tenant_id(), condition, conn)

    def subscribe(
        self,
        *,
        after: str | None = None,
        types: Sequence[EventType | str] | None = None,
        tags: Sequence[str] | None = None,
    ) -> AsyncIterator[AgentEvent]:
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
        asked, place = _asked(types, tags), EventPlace.of_cursor(after)
        return self._reader.follow(self._tenant_id(), place, asked)

    async def latest(self) -> str:
        """The cursor of now: behind it comes what `read_all` doesn't show yet."""
        return (await self._reader.horizon()).cursor()

    async def lag(self, after: str | None = None) -> Lag:
        """How far a reader is behind who has read up to a cursor, and who holds it up."""
        return await self._reader.lag(self._tenant_id(), EventPlace.of_cursor(after))

    # Consumers

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
        self._handlers.register(event_type, handler, name, retry)

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
        tenant_id = self._tenant_id()
        if not consumers and self._handlers.consumers:
            return self._handlers.job(tenant_id)
        found = checked_consumers(consumers)
        count = sum(consumer.partitions for consumer in found)
        if concurrency is not None:
            count = checked_integer("concurrency", concurrency, least=1)
        return ConsumerJob(
            name=checked_name("name", name),
            db=self.db,
            tenant_id=tenant_id,
            consumers=found,
            upcasters=self._upcasters,
            subjects=self.subjects,
            concurrency=count,
        )

    async def list_consumers(self) -> list[ConsumerInfo]:
        """The consumers that there are, by name and partition, and how far behind each is."""
        return await list_consumers(self.db, self._tenant_id())

    async def forget_consumer(self, name: str) -> None:
        """Deletes a consumer's place and dead letters. A worker that has it must have ended.

        Raises:
            MissingConsumerError: there is none.
        """
        await forget(self.db, self._tenant_id(), checked_name("name", name))

    async def replace_consumer(self, old: str, new: str, *, swap: Swap | None = None) -> None:
        """Has one consumer take the place of another, which gets no more events.

        The new one must have come as far, while a worker ran both. `swap(conn)` is done in the
        same transaction, in which neither goes on: rename tables there, or change a view. It
        may be called again where the connection is lost.

        Raises:
            MissingConsumerError: there is no such consumer.
            ConsumerConflictError: one of them is retired.
            ProjectionBehindError: the new one hasn't come as far, or aggregates of it wait.
        """
        names = checked_name("old", old), checked_name("new", new)
        if swap is not None:
            checked_work("swap", swap)
        await replace(self.db, self._tenant_id(), *names, swap)

    # Snapshots

    async def save_snapshot(
        self,
        aggregate_id: str,
        aggregate_type: str,
        snapshot_data: Any,
        version: int,
        *,
        schema_version: int = 1,
        subjects: Iterable[str] = (),
        conn: Connection | None = None,
    ) -> None:
        """Stores what an aggregate's events up to a version add up to; again replaces it.

        Args:
            snapshot_data: a dict, a dataclass or a pydantic model.
            subjects: whose personal data is in it. It is encrypted, and passed over once one of
                them is forgotten.

        Raises:
            MissingVersionError: the aggregate has no event of that version. Nothing was stored.
        """
        checked_name("aggregate_id", aggregate_id)
        checked_name("aggregate_type", aggregate_type)
        keys = await self._keys_of(
            [checked_name("subjects", s) for s in checked_items("subjects", subjects)], conn
        )
        data = encode_data(snapshot_data, "snapshot_data")
        check_unmarked(_json.load(data) if MARK in data else {}, "snapshot_data")
        checked_integer("version", version, least=1)
        checked_integer("schema_version", schema_version, least=1)
        name = SnapshotName(aggregate_type, aggregate_id, version)
        await store_snapshot(self.db, self._tenant_id(), name, data, schema_version, keys, conn)

    async def get_latest_snapshot(
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
        found = await self._latest_snapshot(
            aggregate_id, aggregate_type, schema_version, LARGEST_INTEGER
        )
        return None if found is None else {"snapshot_data": found.data, "version": found.version}

    async def fold(
        self, aggregate: Aggregate[StateT], aggregate_id: str, *, to_version: int | None = None
    ) -> Folded[StateT]:
        """What an aggregate's events add up to, from the latest snapshot on; stores one as due."""
        checked_instance("aggregate", aggregate, Aggregate, "Pass Aggregate(aggregate_type=...)")
        last = LARGEST_INTEGER if to_version is None else checked_integer("to_version", to_version)
        kind, form = aggregate.aggregate_type, aggregate.schema_version
        snapshot = await self._latest_snapshot(aggregate_id, kind, form, last)
        state, version = aggregate.initial(), 0
        keys: Mapping[UUID, SubjectKey] = {}
        if snapshot is not None:
            state = aggregate.load(snapshot.data)
            version, keys = snapshot.version, snapshot.keys
        tenant_id = self._tenant_id()
        events, more_keys = await self._reader.stream(tenant_id, aggregate_id, kind, version, last)
        for event in events:
            state = aggregate.apply(state, event)
        version += len(events)
        if aggregate.snapshot_every is not None and len(events) >= aggregate.snapshot_every:
            # By the keys that it was made with: forgotten since, it is unreadable at once.
            data = encode_data(aggregate.dump(state), "snapshot_data")
            needed = list({**keys, **more_keys}.values())
            name = SnapshotName(kind, aggregate_id, version)
            await store_snapshot(self.db, tenant_id, name, data, form, needed)
        return Folded(state=state, version=version)

    # Seals

    async def seal(self) -> int:
        """Seals what `read_all` shows and isn't sealed yet; how many seals that took.

        A seal is a hash of up to 1,000 events and of the seal before. Any number of processes may
        seal at once. `seal_job` does it again and again.

        Raises:
            BrokenSealError: the last seal isn't as it was stored. Nothing is sealed behind it.
        """
        return await seal_log(self.db, self._tenant_id())

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
        scope = None if checked_flag("all_tenants", all_tenants) else self._tenant_id()
        return seal_job(self.db, scope, every_seconds=every_seconds, name=name)

    async def sealed_root(self) -> SealedRoot | None:
        """One hash of all that is sealed; None where nothing is. Keep its text elsewhere.

        Raises:
            BrokenSealError: the seals aren't as they were stored.
        """
        return await sealed_root(self.db, self._tenant_id())

    async def prove(
        self, event_id: str, *, root: SealedRoot | None = None
    ) -> InclusionProof | None:
        """A proof that an event is in the log that a root is of (None: of the log of now).

        None where there is no such event, or it isn't sealed, or was sealed later than that root.
        `check_proof` checks it without a database.

        Raises:
            BrokenSealError: the event, or a seal, isn't as it was, or the root is of another log.
        """
        checked_name("event_id", event_id)
        if root is not None:
            checked_instance("root", root, SealedRoot, "Pass SealedRoot.parse(text)")
        return await prove(self.db, self._tenant_id(), event_id, root)

    async def verify(
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
        if root is not None:
            checked_instance("root", root, SealedRoot, "Pass SealedRoot.parse(text)")
        return await Verifier(self.db, self._tenant_id(), root, on_progress).run()

    # Subjects

    async def forget_subject(self, subject: str, *, conn: Connection | None = None) -> int:
        """Erases a subject's personal data, by deleting its keys; how many keys that were.

        From the commit on every process reads None in those fields, and passes over snapshots
        that they went into. The events stay, and so do their seals. Copies of the keys in backups
        and archived WAL have to go by themselves. An event of the subject that is appended later
        begins a new key.
        """
        name = checked_name("subject", subject)
        return await erase_subject(self.db, self._tenant_id(), name, conn)

    async def rotate_subject(self, subject: str, *, conn: Connection | None = None) -> None:
        """Has the subject's next events encrypted by a new key; those that are stored stay as they
        are. Nothing is done for one that has no key."""
        name = checked_name("subject", subject)
        await rotate_subject_key(self.db, self._needed_subjects(), self._tenant_id(), name, conn)

    async def rewrap_keys(self) -> int:
        """Wraps the subjects' keys by the newest master key; how many that were.

        No event is touched. A master key is changed like this: every process gets the old one as
        `former_master_keys`, and then the new one as `master_key`; then this is called, once for
        each tenant; then the old one isn't needed any more.

        Raises:
            MasterKeyError: a key is wrapped by one that isn't among `former_master_keys`.
        """
        return await rewrap(self.db, self._needed_subjects(), self._tenant_id())

    # Inside

    async def _prepared(
        self,
        batch: Batch,
        expected: Expected = ANY,
        condition: Condition | None = None,
        *,
        conn: Connection | None = None,
    ) -> Callable[[Connection | None], Awaitable[tuple[AgentEvent, ...]]]:
        """What appends a batch, once or more."""
        await self._handlers.prepare(batch.tenant_id, conn)
        protection = Protection.of(self.subjects, batch)

        async def append(conn: Connection | None) -> tuple[AgentEvent, ...]:
            given = (self.db, batch, expected, condition, conn, protection)
            appended = await Append(*given).run()
            self._news.tell()
            self._handlers.wake(batch.tenant_id)
            return appended

        return append

    def _of_tenant(self, tenant_id: str) -> EventStore:
        """This store, whose calls are a tenant's."""
        found = copy.copy(self)
        found._tenant = tenant_id
        return found

    def _tenant_id(self) -> str:
        """The tenant of a call."""
        if self._tenant is not None:
            return self._tenants.of_call(self._tenant)
        run = RunContext.current()
        if run is not None and run.tenant_id:
            return checked_tenant("tenant_id", run.tenant_id)
        return self._tenants.of_call(None)

    def _needed_subjects(self) -> SubjectKeys:
        if self.subjects is None:
            problem = "this store has no keys: make it with EventStore(db, subjects=...)"
            raise InvalidArgumentError(argument="subjects", problem=problem)
        return self.subjects

    async def _keys_of(
        self, subjects: Sequence[str], conn: Connection | None
    ) -> Sequence[SubjectKey]:
        if not subjects:
            return ()
        keys, tenant_id = self._needed_subjects(), self._tenant_id()
        found = await current_keys(self.db, keys, tenant_id, subjects, conn)
        for subject in subjects:
            if subject not in found:
                problem = f"{shown(subject)} has no key: no event is of it, or it was forgotten"
                raise InvalidArgumentError(argument="subjects", problem=problem)
        return list(found.values())

    async def _latest_snapshot(
        self, aggregate_id: str, kind: str | None, form: int | None, last: int
    ) -> Snapshot | None:
        """The latest snapshot that can be read."""
        return await latest_snapshot(
            self.db,
            self.subjects,
            self._tenant_id(),
            checked_name("aggregate_id", aggregate_id),
            None if kind is None else checked_name("aggregate_type", kind),
            None if form is None else checked_integer("schema_version", form, least=1),
            last,
        )


def _asked(
    types: Sequence[EventType | str] | None, tags: Sequence[str] | None
) -> dict[str, list[str] | None]:
    """The filters as statements take them; None, and none of any, is no filter."""
    return {
        "types": None if types is None else checked_types("types", types),
        "tags": None if tags is None else (checked_tags("tags", tags) or None),
    }
