"""Following the log in this process: what has come is read again and again, at a fitting pace."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from langgraph_pgsaga.events.event import AgentEvent
from langgraph_pgsaga.events.place import EventPlace
from langgraph_pgsaga.events.row import Lag, Scan

_log = logging.getLogger("langgraph_pgsaga.events")
SHORTEST_PAUSE_SECONDS = 0.005
LONGEST_PAUSE_SECONDS = 1.0
# For how long events are withheld before, and between what, the log says so.
_TOLD_AFTER_SECONDS = 5.0
_TOLD_EVERY_SECONDS = 60.0


async def follow(
    read: Callable[[EventPlace], Awaitable[Scan]],
    lag: Callable[[EventPlace], Awaitable[Lag]],
    after: EventPlace,
) -> AsyncIterator[AgentEvent]:
    """Each event after a place, without an end.

    Where there is nothing new, the next look comes after twice the pause before.
    """
    pause = SHORTEST_PAUSE_SECONDS
    watch = _Watch(lag)
    while True:
        scan = await read(after)
        after = scan.reached
        for event in scan.events:
            yield event
        if scan.events:
            pause = SHORTEST_PAUSE_SECONDS
        if not scan.is_end:
            continue
        await watch.look(after, is_withheld=scan.is_withheld)
        await asyncio.sleep(pause * random.uniform(0.8, 1.0))
        # What is withheld is going to come: it is looked for as soon as what has just come.
        longest = 0.1 if scan.is_withheld else LONGEST_PAUSE_SECONDS
        pause = min(pause * 2, longest)


class _Watch:
    """Tells in the log that an open transaction holds events back, and which one."""

    def __init__(self, lag: Callable[[EventPlace], Awaitable[Lag]]) -> None:
        self._lag = lag
        self._since: float | None = None
        self._told_at: float | None = None

    async def look(self, after: EventPlace, *, is_withheld: bool) -> None:
        now = time.monotonic()
        if not is_withheld:
            self._since = self._told_at = None
            return
        since = self._since = now if self._since is None else self._since
        told_lately = self._told_at is not None and now - self._told_at < _TOLD_EVERY_SECONDS
        if now - since < _TOLD_AFTER_SECONDS or told_lately:
            return
        self._told_at = now
        found = await self._lag(after)
        if found.withheld:
            _log.warning(
                "%d events wait for an open transaction, the oldest for %.0f s: %s",
                found.withheld,
                found.seconds,
                "its process isn't known" if found.pid is None else f"pid {found.pid}",
            )
