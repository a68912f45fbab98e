"""Threads of langgraph's savers, and what a takeover made of them."""

from __future__ import annotations

from typing import Any

from langgraph.checkpoint.base import CheckpointTuple

from langgraph_pgsaga import PostgresSaver
from tests._graphs import Saver


async def all_of(saver: Saver, config: Any = None) -> list[CheckpointTuple]:
    return [found async for found in saver.alist(config)]


async def value_of(saver: PostgresSaver, query: str) -> Any:
    """The only value of a query."""
    async with saver.db.transaction() as conn:
        return await conn.fetchval(query)


async def rows_of(saver: PostgresSaver) -> list[int]:
    """How many rows each table has."""
    async with saver.db.transaction() as conn:
        return [
            await conn.fetchval(f"select count(*) from {table}")
            for table in (
                "agent_sessions",
                "agent_states",
                "agent_state_values",
                "agent_state_writes",
                "agent_messages",
            )
        ]


MARK = "select taken_over_to from agent_sessions"
