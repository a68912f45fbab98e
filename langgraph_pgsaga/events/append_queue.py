"""Appends of one event each that wait for each other, and go together in one statement."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg

from langgraph_pgsaga.database import BoundStatement, Database, load_statements
from langgraph_pgsaga.errors import (
    ClosedError,
    LockTimeoutError,
    MissingMigrationsError,
    ReadOnlyServerError,
    ServerConnectionError,
    copy_of,
)

_log = logging.getLogger("langgraph_pgsaga.events")
_STATEMENTS = load_statements("events")
_ALONE = _STATEMENTS["append_alone"]
_TOGETHER = _STATEMENTS["append_together"]
# Statements on their way at once; who comes meanwhile waits for the first that is done.
_MOST_UNDER_WAY = 2
_MOST_EVENTS = 200
_MOST_BYTES = 1_000_000
# What befalls every append alike, and is waited for each time it is tried.
_OF_ALL = (ServerConnectionError, ReadOnlyServerError, MissingMigrationsError, ClosedError)


class GroupedEvent(NamedTuple):
    """A row of pgsaga_grouped_event, but for its number; up to happened_at what append_alone
    takes."""

    tenant_id: str
    aggregate_id: str
    aggregate_type: str
    expected: int | None
    event_id: str
    event_type: str
    schema_version: int
    event_data: str
    metadata: str
    tags: Sequence[str]
    correlation_id: str | None
    causation_id: str | None
    session_id: UUID | None
    checkpoint_id: str | None
    happened_at: datetime
    keys: Sequence[int] | None
    condition_types: Sequence[str] | None
    condition_tags: Sequence[str] | None
    after_position: int | None


class _Queued(NamedTuple):
    event: GroupedEvent
    own: frozenset[object]
    done: asyncio.Future[asyncpg.Record | None]


class AppendQueue:
    """The appends of one event loop to a database.

    The first ones are stored by statements of their own; who comes while these are on their way
    goes with others in the next one.
    """

    def __init__(self, db: Database) -> None:
        # Not held: what is shared by the appends to a database goes with it.
        self._db = weakref.ref(db)
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Queued] = deque()
        self._under_way = 0
        # Whether a statement is about to take who waits.
        self._is_beginning = False
        # Whether the last one had one event, and nobody else waited.
        self._is_lone = True
        # The aggregates, and the locks, of the statements that are under way.
        self._busy: set[object] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def append(self, event: GroupedEvent) -> asyncpg.Record | None:
        """What is stored of the event; None where it isn't, and has to go alone to be told why.

        Raises:
            ServerError and its subclasses.
        """
        own = _own(event)
        is_apart = own.isdisjoint(self._busy)
        has_room = self._under_way < _MOST_UNDER_WAY and is_apart
        if not (has_room and self._is_lone and not self._waiting):
            done: asyncio.Future[asyncpg.Record | None] = self._loop.create_future()
            self._waiting.append(_Queued(event, own, done))
            if has_room:
                self._begin()
            return await done
        self._under_way += 1
        self._busy |= own
        try:
            return await self._stored_alone(event)
        except LockTimeoutError:
            return None
        finally:
            self._busy -= own
            self._end()

    def _end(self) -> None:
        """A statement is answered: those that wait go."""
        self._under_way -= 1
        while self._waiting and self._waiting[0].done.cancelled():
            self._waiting.popleft()
        self._begin()

    def _begin(self) -> None:
        """Has those that wait go in a statement, together with all who come in this moment."""
        if not self._waiting or self._is_beginning or self._under_way >= _MOST_UNDER_WAY:
            return
        self._is_beginning = True
        self._under_way += 1
        # Not in the caller's context: the statement is everybody's.
        nobody = contextvars.Context()
        task = self._loop.create_task(self._store(), context=nobody)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard, context=nobody)

    async def _store(self) -> None:
        taken: list[_Queued] = []
        try:
            # Who was answered just now, and comes again, joins.
            await asyncio.sleep(0)
            self._is_beginning = False
            taken = self._take()
            rows = await self._stored([queued.event for queued in taken])
        except asyncio.CancelledError:  # by the end of its loop
            while self._waiting:
                self._waiting.popleft().done.cancel()
            raise
        except Exception as error:
            _fail(taken, error)
        else:
            _answer(taken, rows)
        finally:
            for queued in taken:
                queued.done.cancel()  # where the loop ends before there is an answer
                self._busy -= queued.own
            if taken:
                self._end()
            else:  # those that wait go with what they wait for
                self._under_way -= 1

    def _take(self) -> list[_Queued]:
        """The next ones that one statement can store, sorted so that no two statements wait for
        each other: of each aggregate one, and of those that lock the same. Without one where
        all wait for what is under way."""
        taken: list[_Queued] = []
        left: deque[_Queued] = deque()
        seen: set[object] = set()
        size = 0
        while self._waiting and len(taken) < _MOST_EVENTS and len(left) < _MOST_EVENTS:
            queued = self._waiting.popleft()
            if queued.done.cancelled():
                continue
            event = queued.event
            size += len(event.event_data) + len(event.metadata)
            own = queued.own
            is_apart = own.isdisjoint(seen) and own.isdisjoint(self._busy)
            if (taken and size > _MOST_BYTES) or not is_apart:
                left.append(queued)
            else:
                taken.append(queued)
            seen |= own  # also of one that is left, which those behind it may not overtake
        self._waiting.extendleft(reversed(left))
        for queued in taken:
            self._busy |= queued.own
        taken.sort(key=lambda queued: queued.event[:3])
        if taken:
            self._is_lone = len(taken) == 1 and not self._waiting
            self._begin()
        return taken

    async def _stored_alone(self, event: GroupedEvent) -> asyncpg.Record | None:
        db = self._db()
        if db is None or event.keys is not None:
            return (await self._stored([event])).get(0)
        return await db.fetch_one(BoundStatement(_ALONE, event[: len(_ALONE.params)]))

    async def _stored(self, events: Sequence[GroupedEvent]) -> dict[int, asyncpg.Record]:
        """Of the events that are stored their rows, by number."""
        db = self._db()
        if db is None or not events:
            return {}
        keys = sorted({key for event in events for key in event.keys or ()})
        numbered = [(number, *event) for number, event in enumerate(events)]
        statement = _TOGETHER.bind(events=numbered, keys=keys or None)
        return {row["no"]: row for row in await db.fetch(statement)}


def _own(event: GroupedEvent) -> frozenset[object]:
    """What two events of one statement may not have in common: their aggregate, and locks."""
    return frozenset((event[:3], *(event.keys or ())))


def _answer(taken: Sequence[_Queued], rows: Mapping[int, asyncpg.Record]) -> None:
    """Gives each its row; None to those that have none."""
    for number, queued in enumerate(taken):
        if not queued.done.done():
            queued.done.set_result(rows.get(number))


def _fail(taken: Sequence[_Queued], error: Exception) -> None:
    """Has each go alone, unless the error is everybody's: then each gets one of its own."""
    if not isinstance(error, _OF_ALL):
        told = "%d appends are stored one by one, since together they weren't: %s"
        _log.info(told, len(taken), type(error).__name__)
        _answer(taken, {})
        return
    for queued in taken:
        if not queued.done.done():
            queued.done.set_exception(copy_of(error))


class _OfDatabase:
    """What the appends to one database share."""

    def __init__(self) -> None:
        self.queues: dict[asyncio.AbstractEventLoop, AppendQueue] = {}
        # Types that are guarded, by tenant: for good.
        self.guards: dict[str, set[str]] = {}


_of_databases: weakref.WeakKeyDictionary[Database, _OfDatabase] = weakref.WeakKeyDictionary()


def _shared(db: Database) -> _OfDatabase:
    found = _of_databases.get(db)
    return _of_databases.setdefault(db, _OfDatabase()) if found is None else found


def queue_of(db: Database) -> AppendQueue:
    """That of the running loop."""
    loop, queues = asyncio.get_running_loop(), _shared(db).queues
    queue = queues.get(loop)
    if queue is None:
        for ended in [other for other in list(queues) if other.is_closed()]:
            queues.pop(ended, None)
        queue = queues[loop] = AppendQueue(db)
    return queue


def known_guards(db: Database, tenant_id: str) -> set[str]:
    """The tenant's types of which it is known that they are guarded, to be added to."""
    return _shared(db).guards.setdefault(tenant_id, set())
