"""Calls of a saver from whatever loop, thread or process, and the connections that they leave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import asyncpg
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint

from langgraph_pgsaga import PostgresSaver
from tests._limits import HANG_SECONDS

CONFIG: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}


def put_arguments(thread: str, number: int) -> tuple[RunnableConfig, Checkpoint, Any, Any]:
    """Those of put."""
    version = f"{number:08}.0"
    checkpoint: Checkpoint = {
        **empty_checkpoint(),
        "v": 4,
        "channel_values": {"number": [number], "messages": [HumanMessage(thread, id=thread)]},
        "channel_versions": {"number": version, "messages": version},
    }
    config: RunnableConfig = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
    return config, checkpoint, {"step": number}, checkpoint["channel_versions"]


def put_and_get(saver: PostgresSaver, thread: str, number: int) -> None:
    saver.put(*put_arguments(thread, number))
    found = saver.get_tuple({"configurable": {"thread_id": thread}})
    assert found
    assert found.checkpoint["channel_values"]["number"] == [number]


async def aput_and_get(saver: PostgresSaver, thread: str, number: int) -> None:
    await saver.aput(*put_arguments(thread, number))
    found = await saver.aget_tuple({"configurable": {"thread_id": thread}})
    assert found
    assert found.checkpoint["channel_values"]["number"] == [number]


def on_server(dsn: str, query: str) -> Any:
    async def fetch() -> Any:
        conn = await asyncpg.connect(dsn)
        try:
            return await conn.fetchval(query)
        finally:
            await conn.close()

    return asyncio.run(fetch())


def connections(dsn: str) -> int:
    count = on_server(
        dsn,
        "select count(*) from pg_stat_activity"
        " where datname = current_database() and application_name = 'langgraph_pgsaga'",
    )
    assert isinstance(count, int)
    return count


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it didn't come true in time"
        time.sleep(0.01)
