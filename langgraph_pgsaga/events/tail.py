"""The end of a log as a process follows it: read once, whoever in the process subscribes to it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from langgraph_pgsaga import _fork
from langgraph_pgsaga._pause import pause
from langgraph_pgsaga.database import Database
from langgraph_pgsaga.errors import copy_of
from langgraph_pgsaga.events.event import AgentEvent
from langgraph_pgsaga.events.news import TOPIC
from langgraph_pgsaga.events.place import EventPlace
from langgraph_pgsaga.events.row import Lag, Scan
from langgraph_pgsaga.work import Notifier, Watch

_log = logging.getLogger("langgraph_pgsaga.events")
# The tenant, and how events are decoded.
Name = tuple[str, frozenset[tuple[str, int, int]], int]
Key = tuple[asyncio.AbstractEventLoop, Name]
_MOST_KEPT = 5_000
# Looks aren't closer together, so that what is appended meanwhile goes together.
_LEAST_SECONDS = 0.03
# What is withheld is going to come: it is looked for soon.
_WITHHELD_SECONDS = 0.1
# For how long events are withheld before, and between what, the log says so.
_TOLD_AFTER_SECONDS = 5.0
_TOLD_EVERY_SECONDS = 60.0


class Reader(NamedTuple):
    """How a log is read: what comes after a place, and who holds events back."""

    read: Callable[[EventPlace], Awaitable[Scan]]
    lag: Callable[[EventPlace], Awaitable[Lag]]


class Came(NamedTuple):
    """What came after a place, up to another."""

    events: list[AgentEvent]
    reached: EventPlace


class Tail:
    """What came last, from a place on; in one event loop.

    It keeps the last events only. Who falls behind them reads for himself until he has caught up.
    """

    def __init__(self, db: Database, reader: Reader, after: EventPlace) -> None:
        self._reader = reader
        self._begin = self._reached = after
        self._parts: deque[tuple[EventPlace, Came]] = deque()
        self._kept = 0
        self._error: Exception | None = None
        self._came = asyncio.Event()
        self._due = asyncio.Event()
        self._watch: Watch = Notifier.of(db).watch(TOPIC, self._due.set)
        self._withheld = _Withheld(reader.lag)
        self.followers = 0
        self._task = asyncio.get_running_loop().create_task(
            self._follow(), name="langgraph_pgsaga subscriptions"
        )

    @property
    def is_over(self) -> bool:
        """Whether it reads no more."""
        return self._task.done()

    def has(self, place: EventPlace) -> bool:
        """Whether what comes after a place is kept, or to come."""
        return self._begin <= place

    async def after(self, place: EventPlace) -> Came | None:
        """What came after a place, once anything did; None where that isn't kept any more.

        Raises:
            ServerError and the like: the log couldn't be read, and isn't by this one any more.
        """
        while self._reached <= place:
            if self._error is not None:
                raise copy_of(self._error)
            await self._came.wait()
        if not self.has(place):
            return None
        found = [
            event
            for begin, part in self._parts
            if part.reached > place
            for event in part.events
            if begin >= place or (event.place is not None and event.place > place)
        ]
        return Came(found, self._reached)

    def end(self) -> None:
        """Nobody follows it any more."""
        self._watch.close()
        self._task.cancel()

    async def _follow(self) -> None:
        try:
            while True:
                seconds = _WITHHELD_SECONDS if self._withheld.is_any else None
                await pause(seconds, until=self._due.wait())
                self._due.clear()
                scan = await self._reader.read(self._reached)
                self._watch.again(found=bool(scan.events))
                if not scan.is_end:
                    self._due.set()
                self._add(scan)
                await self._withheld.look(scan)
                await asyncio.sleep(_LEAST_SECONDS)
        except Exception as error:
            self._error = error
            self._wake()

    def _add(self, scan: Scan) -> None:
        begin, self._reached = self._reached, scan.reached
        if scan.events:
            self._parts.append((begin, Came(list(scan.events), scan.reached)))
            self._kept += len(scan.events)
        while len(self._parts) > 1 and self._kept > _MOST_KEPT:
            _, part = self._parts.popleft()
            self._kept -= len(part.events)
            self._begin = part.reached
        if scan.reached > begin:
            self._wake()

    def _wake(self) -> None:
        came, self._came = self._came, asyncio.Event()
        came.set()


class _Withheld:
    """Tells in the log that an open transaction holds events back, and which one."""

    def __init__(self, lag: Callable[[EventPlace], Awaitable[Lag]]) -> None:
        self.is_any = False
        self._lag = lag
        self._since: float | None = None
        self._told_at: float | None = None

    async def look(self, scan: Scan) -> None:
        now = time.monotonic()
        self.is_any = scan.is_withheld
        if not scan.is_withheld:
            self._since = self._told_at = None
            return
        since = self._since = now if self._since is None else self._since
        told_lately = self._told_at is not None and now - self._told_at < _TOLD_EVERY_SECONDS
        if now - since < _TOLD_AFTER_SECONDS or told_lately:
            return
        self._told_at = now
        found = await self._lag(scan.reached)
        if found.withheld:
            _log.warning(
                "%d events wait for an open transaction, the oldest for %.0f s: %s",
                found.withheld,
                found.seconds,
                "its process isn't known" if found.pid is None else f"pid {found.pid}",
            )


class _Tails:
    """Those that are followed, of each Database by event loop, tenant and upcasters."""

    def __init__(self) -> None:
        self.after_fork()
        _fork.watch(self)

    def after_fork(self) -> None:
        """In a forked child: they are the parent's."""
        self._lock = threading.Lock()
        self._of: weakref.WeakKeyDictionary[Database, dict[Key, Tail]] = weakref.WeakKeyDictionary()

    def enter(self, db: Database, key: Key, reader: Reader, place: EventPlace) -> Tail:
        """The one of a key, or a new one that begins at a place. `leave` it."""
        with self._lock:
            tails = self._of.setdefault(db, {})
            for ended in [one for one in tails if one[0].is_closed() or tails[one].is_over]:
                del tails[ended]
            tail = tails.get(key)
            if tail is None:
                tail = tails[key] = Tail(db, reader, place)
            tail.followers += 1
            return tail

    def leave(self, db: Database, key: Key, tail: Tail) -> None:
        """One less follows it; the last one ends it."""
        with self._lock:
            tail.followers -= 1
            if tail.followers:
                return
            tails = self._of.get(db, {})
            if tails.get(key) is tail:
                del tails[key]
        tail.end()


TAILS = _Tails()
