"""What tests of events share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg

from langgraph_pgsaga.events import AgentEvent, EventStore
from tests._connections import connected
from tests._limits import HANG_SECONDS

# A plain row of an event, by SQL: aggregate_id, version.
PLAIN_INSERT = """
  insert into agent_events
    (event_id, event_type, aggregate_id, aggregate_type, event_data, version, era)
  select gen_random_uuid()::text, 'noted', $1, 'desk', '{}', $2, max(era) from event_eras
"""


def noted(number: object = 0, **more: Any) -> AgentEvent:
    """An event whose data is a number."""
    return AgentEvent(event_type=more.pop("event_type", "noted"), event_data={"n": number}, **more)


def numbers(events: Any) -> list[Any]:
    return [event.event_data["n"] for event in events]


def places(events: Any) -> list[Any]:
    return [(event.aggregate_id, event.version) for event in events]


async def settled(store: EventStore, after: str | None = None) -> None:
    """Returns once no event waits for a transaction: autovacuum's are some, too."""
    async with asyncio.timeout(HANG_SECONDS):
        while (await store.lag(after)).withheld:
            await asyncio.sleep(0.005)


async def everything(store: EventStore, **asked: Any) -> list[AgentEvent]:
    """All pages of the log, where nobody withholds any of it for long."""
    await settled(store)
    found: list[AgentEvent] = []
    after = None
    while True:
        page = await store.read_all(after=after, **asked)
        found += page.events
        after = page.next_cursor
        if page.is_last:
            return found


async def taken(events: AsyncIterator[AgentEvent], count: int) -> list[AgentEvent]:
    """So many events of a subscription, which ends then."""
    found: list[AgentEvent] = []
    try:
        async with asyncio.timeout(HANG_SECONDS):
            while len(found) < count:
                found.append(await anext(events))
    finally:
        await events.aclose()  # type: ignore[attr-defined]
    return found


async def count(dsn: str) -> int:
    """How many events the table has."""
    async with connected(dsn) as conn:
        found: int = await conn.fetchval("select count(*) from agent_events")
        return found


async def begin_writing(conn: asyncpg.Connection[asyncpg.Record]) -> Any:
    """A transaction of the connection's that has a number."""
    begun = conn.transaction()
    await begun.start()
    await conn.execute("select pg_current_xact_id()")
    return begun
