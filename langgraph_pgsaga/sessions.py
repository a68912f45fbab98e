"""The sessions of threads: who they belong to, where they stand, and how long they are kept."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from itertools import islice
from typing import Any, Final, Literal, TypeAlias, get_args
from uuid import UUID

import asyncpg

from langgraph_pgsaga import _json, _sql
from langgraph_pgsaga.checkpoint import retention
from langgraph_pgsaga.checkpoint.address import ThreadId, session_id_of, thread_id_text
from langgraph_pgsaga.database import Connection, Database
from langgraph_pgsaga.errors import (
    InvalidArgumentError,
    InvalidCursorError,
    MissingThreadError,
    SessionExistsError,
    UnstorableValueError,
)

_STATEMENTS = _sql.load("sessions")
_MOST_PER_PAGE = 10_000
_MOST_INTEGER = 2**31 - 1

SessionOrder: TypeAlias = Literal["activity", "priority", "created"]


class SessionStatus(Enum):
    """Where the latest run of a session left it, or what was set since."""

    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"


class Unchanged(Enum):
    """The default of an argument for which None is a value."""

    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session as it was when read. Unknown user and agent type are ''; times are in UTC.

    `message_count` is the highest number that one of its messages got: messages that were
    edited or deleted count, too.
    """

    thread_id: str
    session_id: UUID
    user_id: str
    agent_type: str
    status: SessionStatus
    priority: int
    metadata: dict[str, Any]
    message_count: int
    created_at: datetime
    last_activity_at: datetime
    expires_at: datetime | None

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> Session:
        """The session of a row that has these columns."""
        given = dict(row)
        given["status"] = SessionStatus(row["status"])
        given["metadata"] = _json.load(row["metadata"])
        return cls(**given)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPage:
    """Sessions in the order asked for. `next_cursor` is None where no more are left."""

    sessions: tuple[Session, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """How long the sessions of an agent type, and their checkpoints, are kept.

    Args:
        agent_type: None is for all agent types that no other policy of the sweep names.
        max_idle: sessions without a checkpoint for that long are deleted as a whole.
        keep_last: how many checkpoints of each namespace are kept, beside what these need.
        keep_named: checkpoints with a name are kept, and so are idle sessions with one.
            What has expired is deleted all the same.
    """

    agent_type: str | None = None
    max_idle: timedelta | None = None
    keep_last: int | None = None
    keep_named: bool = True

    def __post_init__(self) -> None:
        if self.max_idle is not None and self.max_idle <= timedelta(0):
            raise InvalidArgumentError(
                argument="max_idle", problem=f"{self.max_idle} isn't above 0"
            )
        if self.keep_last is not None:
            _check_integer("keep_last", self.keep_last, least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """What a sweep did so far. `deleted_checkpoints` are those of the pruned sessions only."""

    deleted_sessions: int = 0
    pruned_sessions: int = 0
    deleted_checkpoints: int = 0


class Sessions:
    """The sessions in a database. A thread has one from its first run, or from `create`.

    A thread id is a str, an int or a UUID, as in a run's config. Methods with `conn` join
    that connection's transaction; the others commit on their own, and are repeated when
    the connection is lost, as Database has it.
    """

    def __init__(self, db: Database) -> None:
        self.db = db

    async def create(
        self,
        thread_id: ThreadId,
        *,
        user_id: str = "",
        agent_type: str = "",
        priority: int = 0,
        metadata: Mapping[str, Any] | None = None,
        expires_at: datetime | None = None,
        conn: Connection | None = None,
    ) -> Session:
        """A new, active session; runs of the thread then use it.

        Not repeated once it was sent: after a lost connection it may be there.

        Raises:
            SessionExistsError: the thread has one.
            InvalidArgumentError, UnstorableValueError: an argument can't be stored.
        """
        name = thread_id_text(thread_id)
        arguments = (
            session_id_of(name),
            name,
            _checked_text("user_id", user_id),
            _checked_text("agent_type", agent_type),
            _check_integer("priority", priority),
            _metadata(metadata or {}),
            _checked_time("expires_at", expires_at),
        )

        async def work(conn: Connection) -> list[asyncpg.Record]:
            return await self.db.fetch(_STATEMENTS["create_session"], *arguments, conn=conn)

        rows = await (self.db.run(work, repeat=False) if conn is None else work(conn))
        if not rows:
            raise SessionExistsError(thread_id=name)
        return Session.from_row(rows[0])

    async def get(self, thread_id: ThreadId) -> Session | None:
        """The thread's session, or None where there is none."""
        name = thread_id_text(thread_id)
        rows = await self.db.fetch(_STATEMENTS["get_session"], session_id_of(name))
        return Session.from_row(rows[0]) if rows else None

    async def update(
        self,
        thread_id: ThreadId,
        *,
        user_id: str | None = None,
        agent_type: str | None = None,
        status: SessionStatus | None = None,
        priority: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        expires_at: datetime | Unchanged | None = UNCHANGED,
        conn: Connection | None = None,
    ) -> Session:
        """Changes what is given, and returns the session as it then is.

        `metadata` replaces all of the old; `expires_at=None` lets the session live on.
        This is no activity: `last_activity_at` stays.

        Raises:
            MissingThreadError: the thread has no session.
            InvalidArgumentError, UnstorableValueError: an argument can't be stored.
        """
        name = thread_id_text(thread_id)
        rows = await self.db.fetch(
            _STATEMENTS["update_session"],
            session_id_of(name),
            _checked_text("user_id", user_id),
            _checked_text("agent_type", agent_type),
            None if status is None else _checked_status(status),
            None if priority is None else _check_integer("priority", priority),
            None if metadata is None else _metadata(metadata),
            None if expires_at is UNCHANGED else _checked_time("expires_at", expires_at),
            expires_at is not UNCHANGED,
            conn=conn,
        )
        if not rows:
            raise MissingThreadError(thread_id=name)
        return Session.from_row(rows[0])

    async def set_status(
        self, thread_id: ThreadId, status: SessionStatus, *, conn: Connection | None = None
    ) -> Session:
        """`update` of the status alone."""
        return await self.update(thread_id, status=status, conn=conn)

    async def delete(self, thread_id: ThreadId, *, conn: Connection | None = None) -> None:
        """Deletes the thread from every table. A thread that isn't there is no error.

        A run of the thread that goes on meanwhile makes the session anew, with what it
        saves from then on.
        """
        await retention.delete_thread(self.db, thread_id, conn=conn)

    async def list(
        self,
        *,
        user_id: str | None = None,
        agent_type: str | None = None,
        status: SessionStatus | None = None,
        metadata: Mapping[str, Any] | None = None,
        active_since: datetime | None = None,
        active_before: datetime | None = None,
        text: str | None = None,
        order: SessionOrder = "activity",
        limit: int = 50,
        after: str | None = None,
    ) -> SessionPage:
        """A page of the sessions that all of the given fit.

        No session comes twice while pages follow each other by creation; a session whose
        activity or priority rises meanwhile moves to the front, which earlier pages
        showed, so that the rest may pass it over.

        Args:
            metadata: what the session's must contain, as PostgreSQL's `@>` has it.
            active_since: with that activity or later ones.
            active_before: with earlier activity only.
            text: words in a message that the session has stored, in the form of a web
                search: `refund -invoice`, `"lost parcel"`. Encrypted messages have none.
            order: the highest first: last active, priority (of equal ones the newest), or
                newest.
            limit: sessions per page, at most 10,000.
            after: the `next_cursor` of the page before, with the same filters and order.

        Raises:
            InvalidCursorError: `after` isn't such a cursor.
            InvalidArgumentError: another argument can't be used.
        """
        if order not in get_args(SessionOrder):
            problem = f"{order!r} is none of {', '.join(get_args(SessionOrder))}"
            raise InvalidArgumentError(argument="order", problem=problem)
        _check_integer("limit", limit, least=1, most=_MOST_PER_PAGE)
        place = _Place() if after is None else _Place.of_cursor(after, order)
        narrowed = (
            _checked_text("user_id", user_id),
            None if metadata is None else _metadata(metadata),
            _checked_text("text", text),
        )
        filters = (
            _checked_text("agent_type", agent_type),
            None if status is None else _checked_status(status),
            _checked_time("active_since", active_since),
            _checked_time("active_before", active_before),
        )
        start: tuple[Any, ...] = (place.priority, place.time, place.session_id, limit + 1)
        if any(given is not None for given in narrowed):
            rows = await self.db.fetch(
                _STATEMENTS["list_narrowed"], *narrowed, *filters, order, *start
            )
        else:
            start = start if order == "priority" else start[1:]
            rows = await self.db.fetch(_STATEMENTS[f"list_by_{order}"], *filters, *start)
        sessions = tuple(Session.from_row(row) for row in rows[:limit])
        is_last = len(rows) <= limit
        return SessionPage(
            sessions=sessions,
            next_cursor=None if is_last else _Place.of_session(sessions[-1], order).cursor(order),
        )

    async def sweep(
        self,
        policies: Sequence[RetentionPolicy] = (),
        *,
        batch: int = 100,
        dry_run: bool = False,
        on_progress: Callable[[SweepResult], None] | None = None,
    ) -> SweepResult:
        """Deletes what has expired, then what the policies don't keep.

        Sessions are deleted up to `batch` in a transaction, and pruned in one each.
        Sessions that somebody else holds just then, such as another sweep, are left to the
        next one, so any number of them may run at once. The server's clock decides. A
        sweep that was cancelled or failed has done whole batches, and the next one goes on.

        Args:
            policies: policies aren't stored: the application that knows them passes them.
            dry_run: deletes nothing, and counts the sessions that would be deleted, and
                those that may be pruned: all with more than `keep_last` checkpoints.
            on_progress: called after each batch with what was done so far.

        Raises:
            InvalidArgumentError: two policies for one agent type.
        """
        _check_integer("batch", batch, least=1, most=_MOST_PER_PAGE)
        sweep = _Sweep(self.db, _scoped(policies), batch, on_progress)
        return await (sweep.count() if dry_run else sweep.run())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scope:
    """A policy, and the agent types that others of the sweep are for."""

    policy: RetentionPolicy
    other_types: list[str]


def _scoped(policies: Sequence[RetentionPolicy]) -> list[_Scope]:
    types = [policy.agent_type for policy in policies]
    if len(set(types)) < len(types):
        problem = "two of them are for the same agent type"
        raise InvalidArgumentError(argument="policies", problem=problem)
    named = [_checked_text("agent_type", name) or "" for name in types if name is not None]
    return [
        _Scope(policy=policy, other_types=named if policy.agent_type is None else [])
        for policy in policies
    ]


class _Sweep:
    """One run through all sessions that are to be deleted or pruned."""

    def __init__(
        self,
        db: Database,
        scopes: Sequence[_Scope],
        batch: int,
        on_progress: Callable[[SweepResult], None] | None,
    ) -> None:
        self._db = db
        self._scopes = scopes
        self._batch = batch
        self._on_progress = on_progress
        self._done = SweepResult()

    async def run(self) -> SweepResult:
        while await self._delete_batch("claim_expired", self._batch) == self._batch:
            pass
        for scope in self._scopes:
            await self._apply(scope)
        return self._done

    async def count(self) -> SweepResult:
        """What `run` would do."""
        (row,) = await self._db.fetch(_STATEMENTS["count_expired"])
        self._report(deleted_sessions=row["expired"])
        for scope in self._scopes:
            async for page in self._pages(scope):
                left = [row for row in page if not row["is_expired"]]
                idle = sum(row["is_idle"] for row in left)
                long = sum(row["is_long"] and not row["is_idle"] for row in left)
                self._report(deleted_sessions=idle, pruned_sessions=long)
        return self._done

    async def _pages(self, scope: _Scope) -> AsyncIterator[list[asyncpg.Record]]:
        """What the policy says of each session, a thousand at a time."""
        policy, after = scope.policy, None
        rule = (policy.max_idle, policy.keep_named, policy.keep_last)
        while page := await self._db.fetch(
            _STATEMENTS["select_swept"], after, policy.agent_type, scope.other_types, *rule
        ):
            after = page[-1]["session_id"]
            yield page

    async def _apply(self, scope: _Scope) -> None:
        policy = scope.policy
        async for page in self._pages(scope):
            for idle in self._batches(row["session_id"] for row in page if row["is_idle"]):
                await self._delete_batch("claim_idle", idle, policy.max_idle, policy.keep_named)
            long = (row["session_id"] for row in page if row["is_long"] and not row["is_idle"])
            for session_ids in self._batches(long):
                await self._prune_batch(session_ids, policy)

    def _batches(self, session_ids: Iterable[UUID]) -> Iterator[Sequence[UUID]]:
        left = iter(session_ids)
        while found := tuple(islice(left, self._batch)):
            yield found

    async def _delete_batch(self, claim: str, *arguments: Any) -> int:
        """Claims a batch of sessions and deletes them, in one transaction."""

        async def work(conn: Connection) -> int:
            rows = await self._db.fetch(_STATEMENTS[claim], *arguments, conn=conn)
            for row in rows:
                await retention.delete_claimed(self._db, conn, row["session_id"])
            return len(rows)

        deleted = await self._db.run(work)
        if deleted:
            self._report(deleted_sessions=deleted)
        return deleted

    async def _prune_batch(self, session_ids: Sequence[UUID], policy: RetentionPolicy) -> None:
        # One transaction each: a running graph then waits for no other session's.
        deleted = [
            await retention.prune_free(
                self._db,
                session_id,
                keep_last=policy.keep_last or 1,
                keep_named=policy.keep_named,
            )
            for session_id in session_ids
        ]
        self._report(
            pruned_sessions=sum(count > 0 for count in deleted),
            deleted_checkpoints=sum(deleted),
        )

    def _report(
        self, *, deleted_sessions: int = 0, pruned_sessions: int = 0, deleted_checkpoints: int = 0
    ) -> None:
        done = self._done
        self._done = replace(
            done,
            deleted_sessions=done.deleted_sessions + deleted_sessions,
            pruned_sessions=done.pruned_sessions + pruned_sessions,
            deleted_checkpoints=done.deleted_checkpoints + deleted_checkpoints,
        )
        if self._on_progress is not None:
            self._on_progress(self._done)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where in an order a page ended; all None is before the first."""

    priority: int | None = None
    time: datetime | None = None
    session_id: UUID | None = None

    @classmethod
    def of_session(cls, session: Session, order: SessionOrder) -> _Place:
        return cls(
            priority=session.priority if order == "priority" else 0,
            time=session.last_activity_at if order == "activity" else session.created_at,
            session_id=session.session_id,
        )

    def cursor(self, order: SessionOrder) -> str:
        time = self.time.isoformat() if self.time else ""
        text = _json.dump([order, self.priority, time, str(self.session_id)])
        return base64.urlsafe_b64encode(text.encode()).decode()

    @classmethod
    def of_cursor(cls, cursor: str, order: SessionOrder) -> _Place:
        problem = "isn't a cursor of a listing"
        try:
            found = _json.load(base64.b64decode(cursor.encode(), b"-_", validate=True).decode())
            of_order, priority, time, session_id = found
            place = cls(
                priority=_check_integer("priority", priority),
                time=_checked_time("time", datetime.fromisoformat(time)),
                session_id=UUID(session_id),
            )
        except (
            AttributeError,
            binascii.Error,
            InvalidArgumentError,
            TypeError,
            ValueError,
        ) as error:
            raise InvalidCursorError(cursor=cursor, problem=problem) from error
        if of_order != order:
            problem = f"isn't a cursor of a listing by {order}"
        elif place.cursor(order) == cursor:
            return place
        raise InvalidCursorError(cursor=cursor, problem=problem)


def _checked_text(argument: str, value: str | None) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        problem = f"must be a str, not {type(value).__name__}"
        raise InvalidArgumentError(argument=argument, problem=problem)
    if not _json.is_clean(value):
        problem = "holds a NUL character or a lone surrogate, which PostgreSQL text can't"
        raise InvalidArgumentError(argument=argument, problem=problem)
    return value


def _checked_status(status: SessionStatus) -> str:
    if not isinstance(status, SessionStatus):
        raise InvalidArgumentError(
            argument="status", problem=f"must be a SessionStatus, not {type(status).__name__}"
        )
    return status.value


def _checked_time(argument: str, time: Any) -> datetime | None:
    if time is None:
        return None
    if not isinstance(time, datetime) or time.utcoffset() is None:
        problem = "must be a datetime with a time zone, such as datetime.now(timezone.utc)"
        raise InvalidArgumentError(argument=argument, problem=problem)
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        problem = f"{time} is out of range"
        raise InvalidArgumentError(argument=argument, problem=problem) from error


def _check_integer(
    argument: str, value: int, *, least: int = -_MOST_INTEGER - 1, most: int = _MOST_INTEGER
) -> int:
    if type(value) is not int or not least <= value <= most:
        problem = f"must be an int between {least} and {most}, not {value!r}"
        raise InvalidArgumentError(argument=argument, problem=problem)
    return value


def _metadata(metadata: Mapping[str, Any]) -> str:
    """JSON text that comes back equal."""
    text = _json.dump_exact(dict(metadata))
    if text is None:
        problem = "it holds what JSON, or PostgreSQL's jsonb, can't hold exactly"
        raise UnstorableValueError(where="metadata", problem=problem)
    return text
