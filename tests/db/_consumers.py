"""What tests of consumers share: a table of what was applied, and how far a consumer is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from langgraph_pgsaga.events import DeadLetter, DeadLetters, EventStore
from tests import _chores
from tests._connections import connected
from tests._limits import HANG_SECONDS
from tests.db._events import settled

APPLIED = """
  create table applied (
    no bigint generated always as identity, aggregate_id text, version integer, n integer,
    by_whom text
  )
"""
APPLY = "insert into applied (aggregate_id, version, n, by_whom) values ($1, $2, $3, $4)"
ALL = "aggregate_id, version, n, by_whom from applied order by no"


async def until(holds: Callable[[], Awaitable[Any]] | Callable[[], Any]) -> None:
    """Returns once it holds."""
    async with asyncio.timeout(HANG_SECONDS):
        while True:
            found = holds()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(0.005)


async def is_caught_up(store: EventStore, *names: str) -> bool:
    """Whether the consumers are there, and have come as far as the log."""
    found = [info for info in await store.list_consumers() if info.name in names]
    return {info.name for info in found} == set(names) and not any(i.behind for i in found)


async def caught_up(store: EventStore, *names: str) -> None:
    await settled(store)
    await until(lambda: is_caught_up(store, *names))


async def make(dsn: str) -> None:
    """The table."""
    async with connected(dsn) as conn:
        await conn.execute(APPLIED)


async def applied(dsn: str) -> list[tuple[Any, ...]]:
    """What was applied, in order: aggregate, version, number, by whom."""
    return [tuple(row) for row in await _chores.rows(dsn, f"select {ALL}")]


async def letters(store: EventStore, consumer: str | None = None) -> list[DeadLetter]:
    """All dead letters."""
    return list((await DeadLetters(store.db).list(consumer)).dead_letters)
