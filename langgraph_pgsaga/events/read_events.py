"""Events as a page of rows: each becomes an AgentEvent when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import asyncpg

from langgraph_pgsaga.events.erasure import KeyRing
from langgraph_pgsaga.events.event import AgentEvent
from langgraph_pgsaga.events.place import EventPlace
from langgraph_pgsaga.events.row import event_of
from langgraph_pgsaga.events.upcasting import Upcasters


class ReadEvents(Sequence[AgentEvent]):
    """Events in their order. What isn't looked at isn't decoded."""

    __slots__ = ("_ring", "_rows", "_upcasters")

    def __init__(
        self, rows: Sequence[asyncpg.Record], upcasters: Upcasters, ring: KeyRing | None
    ) -> None:
        self._rows = rows
        self._upcasters = upcasters
        self._ring = ring

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> AgentEvent: ...
    @overload
    def __getitem__(self, index: slice) -> ReadEvents: ...
    def __getitem__(self, index: int | slice) -> AgentEvent | ReadEvents:
        if isinstance(index, slice):
            return ReadEvents(self._rows[index], self._upcasters, self._ring)
        return event_of(self._rows[index], self._upcasters, self._ring)

    def __iter__(self) -> Iterator[AgentEvent]:
        for row in self._rows:
            yield event_of(row, self._upcasters, self._ring)

    def row(self, index: int) -> asyncpg.Record:
        """The event as it was read."""
        return self._rows[index]

    def place(self, index: int) -> EventPlace:
        """Where an event stands."""
        row = self._rows[index]
        return EventPlace.of_row(row)

    def characters(self) -> int:
        """How much they hold."""
        return sum(len(row["event_data"]) + len(row["metadata"]) for row in self._rows)

    def aggregates(self) -> set[tuple[str, str]]:
        """Whose they are, by type and id."""
        return set(map(aggregate_of, self._rows))

    def without(self, aggregates: set[tuple[str, str]]) -> ReadEvents:
        """Those of other aggregates."""
        if not aggregates:
            return self
        kept = [row for row in self._rows if aggregate_of(row) not in aggregates]
        return ReadEvents(kept, self._upcasters, self._ring)


def aggregate_of(row: asyncpg.Record) -> tuple[str, str]:
    """The aggregate of a row, by type and id."""
    return row["aggregate_type"], row["aggregate_id"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a consumer read at once: `reached` is how far that was, `is_end` whether there was no
    more, `has_waiting` whether any aggregate of the partition waits."""

    events: ReadEvents
    reached: EventPlace
    is_end: bool
    has_waiting: bool
