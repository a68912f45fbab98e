"""A sealed log, and what somebody with the right to change it may do to it."""

from __future__ import annotations

from typing import Any

import asyncpg

from langgraph_pgsaga.events import AgentEvent, EventStore, Tampering
from langgraph_pgsaga.events import sealing as sealing_module
from tests.db._events import noted, settled

EVENTS = 24
PER_SEAL = 6
SEALS = EVENTS // PER_SEAL


async def sealed_log(store: EventStore, monkeypatch: Any, events: int = EVENTS) -> list[AgentEvent]:
    """So many events of three aggregates, in seals of six; they come back in order."""
    monkeypatch.setattr(sealing_module, "MOST_EVENTS", PER_SEAL)
    stored: list[AgentEvent] = []
    for number in range(events):
        event = noted(number, event_id=f"e{number}", tags=[f"t{number}"], metadata={"by": "me"})
        stored += await store.append(f"a{number % 3}", [event], aggregate_type="desk")
    await settled(store)
    await store.seal()
    return stored


async def run(conn: asyncpg.Connection[asyncpg.Record], statement: str, *values: Any) -> None:
    """A statement that has to change one row."""
    status = await conn.execute(statement, *values)
    assert status.rpartition(" ")[2] == "1", status


def told(found: Any) -> list[tuple[Tampering, int | None, str | None]]:
    """What was found: what it is, at which seal, of which event."""
    return [(one.kind, one.seal, one.event_id) for one in found.findings]
