"""Following the log in this process: alone up to its end, and from there on with all the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from langgraph_pgsaga.database import Database
from langgraph_pgsaga.events.event import AgentEvent
from langgraph_pgsaga.events.place import EventPlace
from langgraph_pgsaga.events.tail import TAILS, Name, Reader


class Wanted:
    """Which events a subscriber gets; None is no filter."""

    def __init__(self, types: list[str] | None, tags: list[str] | None) -> None:
        self._types = None if types is None else frozenset(types)
        self._tags = frozenset(tags or ())

    def of(self, events: list[AgentEvent]) -> list[AgentEvent]:
        """Those of some events."""
        if self._types is None and not self._tags:
            return events
        return [event for event in events if self._fits(event)]

    def _fits(self, event: AgentEvent) -> bool:
        is_of_type = self._types is None or str(event.event_type) in self._types
        return is_of_type and self._tags.issubset(event.tags)


async def follow(
    db: Database,
    name: Name,
    own: Reader,
    shared: Reader,
    after: EventPlace,
    wanted: Wanted,
) -> AsyncGenerator[AgentEvent, None]:
    """Each event after a place, without an end.

    `own` reads what the subscriber wants; `shared` everything, for all who follow the log of this
    `name`.
    """
    key = (asyncio.get_running_loop(), name)
    place = after
    while True:
        scan = await own.read(place)
        for event in scan.events:
            yield event
        place = scan.reached
        if not scan.is_end:
            continue
        tail = TAILS.enter(db, key, shared, place)
        try:
            while tail.has(place) and (came := await tail.after(place)) is not None:
                if any(event.subject is not None for event in came.events):
                    break  # personal data, perhaps forgotten since it was read: read anew
                for event in wanted.of(came.events):
                    yield event
                place = came.reached
        finally:
            TAILS.leave(db, key, tail)
