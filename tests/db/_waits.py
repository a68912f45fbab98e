"""Waiting for calls to wait: what is held up is seen on the server, or in the saver's queue."""

from __future__ import annotations

import asyncio

from langgraph_pgsaga import PostgresSaver
from tests._connections import connected
from tests._limits import HANG_SECONDS


async def waits_for_a_lock(dsn: str, count: int = 1) -> None:
    """Returns once so many statements wait, and no more."""
    waiting = (
        "select count(*) from pg_stat_activity"
        " where wait_event_type = 'Lock' and datname = current_database()"
    )
    async with asyncio.timeout(HANG_SECONDS), connected(dsn) as conn:
        while await conn.fetchval(waiting) != count:
            await asyncio.sleep(0.005)


async def queued_up(saver: PostgresSaver, count: int) -> None:
    """Returns once so many calls wait behind statements."""
    async with asyncio.timeout(HANG_SECONDS):
        while sum(len(lane._queue) for lane in saver._queue()._lanes) < count:
            await asyncio.sleep(0)
