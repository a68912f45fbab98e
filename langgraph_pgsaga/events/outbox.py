"""Events that are appended in the background, in the order in which they came."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple
from uuid import NAMESPACE_OID, uuid5

from langgraph_pgsaga import _fork
from langgraph_pgsaga.errors import (
    ClosedError,
    EventIdConflictError,
    EventsNotAppendedError,
    InvalidArgumentError,
    UnstorableValueError,
)
from langgraph_pgsaga.events.event import AgentEvent
from langgraph_pgsaga.events.events import EventStore
from langgraph_pgsaga.work import Retry

_log = logging.getLogger("langgraph_pgsaga.events")
_MOST_TOGETHER = 500
# What comes within it goes in one statement.
_GATHER_SECONDS = 0.01
_RETRY = Retry(attempts=None, backoff_seconds=0.2, longest_seconds=10)
# What is so whenever it is tried.
_OF_THE_EVENT = (InvalidArgumentError, UnstorableValueError, EventIdConflictError)


class Outgoing(NamedTuple):
    """An event that names its aggregate, and whose it is."""

    tenant_id: str
    event: AgentEvent

    @property
    def place(self) -> tuple[str, str, str]:
        """What events share that one statement appends."""
        return self.tenant_id, self.event.aggregate_type, self.event.aggregate_id


class Outbox:
    """Appends what it is given by a task of the Database's own thread, which ends when all is.

    It holds up to `most` events; who adds more waits for `longest_seconds`. What fails is tried
    again, for as long as the Database is open; so is what failed while its statement was stored,
    since an event's id is stored once.
    """

    def __init__(self, store: EventStore, *, most: int, longest_seconds: float) -> None:
        self._store = store
        self._most = most
        self._longest_seconds = longest_seconds
        self.after_fork()
        _fork.watch(self)

    def after_fork(self) -> None:
        """Begins anew: what the parent holds the parent appends."""
        self._waiting: deque[Outgoing] = deque()
        self._changed = threading.Condition()
        self._is_running = False
        self._is_urgent = False
        # How many came, and how many of them are done with.
        self._added = self._done = 0

    def add(self, outgoing: Outgoing) -> None:
        """Has the event appended soon.

        Raises:
            EventsNotAppendedError: so many wait already, and none could be appended meanwhile.
            ClosedError: the Database is closed.
        """
        with self._changed:
            self._wait(lambda: len(self._waiting) < self._most)
            self._waiting.append(outgoing)
            self._added += 1
            self._start()

    def flush(self) -> None:
        """Returns when all that was added before is appended; raises as `add`."""
        with self._changed:
            until = self._added
            if self._done < until:
                self._is_urgent = True
                self._start()
                self._wait(lambda: self._done >= until)

    @property
    def waiting(self) -> int:
        """How many aren't appended yet."""
        return self._added - self._done

    def _wait(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._longest_seconds
        while not holds():
            left = deadline - time.monotonic()
            if left <= 0:
                raise EventsNotAppendedError(count=self.waiting, seconds=self._longest_seconds)
            self._changed.wait(left)
            self._start()

    def _start(self) -> None:
        if not self._is_running and self._waiting:
            self._store.db.portal.start(self._run)
            self._is_running = True

    async def _run(self) -> None:
        try:
            while (some := await self._next()) is not None:
                await self._append(some)
                self._drop(len(some))
        except BaseException:
            with self._changed:
                self._is_running = False
                told = "%d events weren't appended: the Database was closed before"
                _log.error(told, len(self._waiting))
                self._changed.notify_all()
            raise

    def _drop(self, count: int) -> None:
        """The first of the buffer are appended, or lost."""
        with self._changed:
            for _ in range(count):
                self._waiting.popleft()
            self._done += count
            self._changed.notify_all()

    async def _next(self) -> list[Outgoing] | None:
        """The next ones, which stay in the buffer until they are appended; None where there are
        none, and then nothing runs any more."""
        if not self._is_urgent:
            await asyncio.sleep(_GATHER_SECONDS)
        with self._changed:
            some = [self._waiting[n] for n in range(min(len(self._waiting), _MOST_TOGETHER))]
            if not some:
                self._is_running = self._is_urgent = False
                return None
            return some

    async def _append(self, some: Sequence[Outgoing]) -> None:
        by_place: dict[tuple[str, str, str], list[AgentEvent]] = {}
        for outgoing in some:
            by_place.setdefault(outgoing.place, []).append(outgoing.event)
        for place, events in by_place.items():
            await self._append_to(place, events)

    async def _append_to(self, place: tuple[str, str, str], events: Sequence[AgentEvent]) -> None:
        tenant_id, kind, aggregate_id = place
        store = self._store._of_tenant(tenant_id)
        attempt = 1
        while True:
            try:
                await store.append(aggregate_id, events, aggregate_type=kind)
            except ClosedError:
                raise
            except _OF_THE_EVENT as error:
                if len(events) == 1 and isinstance(error, EventIdConflictError):
                    # Of another call of the same run id. Sent again it comes to the same.
                    events = [_of_next_call(events[0])]
                    continue
                if len(events) == 1:
                    told = "event %s can't be appended, and is lost: %s"
                    _log.error(told, events[0].event_id, type(error).__name__)
                    return
                for event in events:
                    await self._append_to(place, [event])
            except Exception as error:
                seconds = _RETRY.delay(attempt) or 0.0
                told = "%d events wait %.1f s to be appended, after attempt %d: %s"
                _log.warning(told, len(events), seconds, attempt, type(error).__name__)
                attempt += 1
                await asyncio.sleep(seconds)
                continue
            return


def _of_next_call(event: AgentEvent) -> AgentEvent:
    """The event with the id behind its own, which is the same whenever it is made."""
    return replace(event, event_id=str(uuid5(NAMESPACE_OID, event.event_id)))
