"""What a row of agent_events becomes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import asyncpg

from langgraph_pgsaga import _json
from langgraph_pgsaga.events.erasure import KeyRing
from langgraph_pgsaga.events.event import AgentEvent, event_type_of, made_event
from langgraph_pgsaga.events.place import EventPlace
from langgraph_pgsaga.events.subjects import MARK, SubjectKey
from langgraph_pgsaga.events.upcasting import Upcasters

# Events behind a reader are counted so far.
MOST_COUNTED = 10_000


def event_of(row: asyncpg.Record, upcasters: Upcasters, ring: KeyRing | None = None) -> AgentEvent:
    """The event, its data in the latest form, and in clear where there are keys."""
    event_type = row["event_type"]
    data = _json.load(row["event_data"])
    used: list[SubjectKey] = []
    erased: tuple[str, ...] = ()
    if ring is not None and MARK in row["event_data"]:
        data, used, erased = ring.opened(row, data)
    schema_version, data = upcasters.up_to_date(
        event_type, row["schema_version"], data, row["event_id"]
    )
    return made_event(
        event_type_of(event_type),
        row["aggregate_id"],
        row["aggregate_type"],
        row["event_id"],
        data,
        _json.load(row["metadata"]),
        row["timestamp"],
        row["version"],
        row["correlation_id"],
        row["causation_id"],
        tuple(row["tags"]),
        schema_version,
        row["session_id"],
        row["checkpoint_id"],
        used[0].subject if used else None,
        erased,
        EventPlace.of_row(row),
        row["recorded_at"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What one statement read: `reached` is how far, `is_end` whether there was no more.

    `is_withheld`: there are committed events that wait for an older transaction to end.
    """

    events: tuple[AgentEvent, ...]
    reached: EventPlace
    is_end: bool
    is_withheld: bool

    @classmethod
    def of(
        cls,
        rows: list[asyncpg.Record],
        after: EventPlace,
        upcasters: Upcasters,
        ring: KeyRing | None,
    ) -> Scan:
        """What the rows of read_page or read_narrowed tell, never less far than `after`."""
        first = rows[0]
        reached = EventPlace.of_columns(first, "reached")
        return cls(
            events=tuple(event_of(row, upcasters, ring) for row in _with_events(rows)),
            reached=max(after, reached),
            is_end=first["is_end"],
            is_withheld=first["is_withheld"],
        )


def _with_events(rows: list[asyncpg.Record]) -> Iterable[asyncpg.Record]:
    return rows if rows[0]["event_id"] is not None else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """Events in the order of the log. `next_cursor` goes on behind them, also where there are no
    more (`is_last`) for now."""

    events: tuple[AgentEvent, ...]
    next_cursor: str
    is_last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """What matches a condition, and the position to decide at: `Condition.after`."""

    events: tuple[AgentEvent, ...]
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """How far a reader is behind.

    `events` come after its cursor (counted to 10,000), the oldest for `seconds`. `withheld` of them
    are committed and can't be read yet, since a transaction that is older is still open: that of
    the server process `pid`, for `open_seconds`. `pid` is None where there is none, where it is a
    prepared one, or another role's that this one may not see.
    """

    events: int
    withheld: int
    seconds: float
    pid: int | None
    application_name: str | None
    open_seconds: float | None

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> Lag:
        """The row of measure_lag."""
        return cls(**dict(row))
