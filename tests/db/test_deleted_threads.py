"""What the deletion of a thread does to a run of it."""

from __future__ import annotations

import asyncio
import time
from typing import Any, TypedDict

import asyncpg
import pytest
from langgraph.graph import START, StateGraph

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import (
    ThreadDeletedError,
)
from tests._limits import HANG_SECONDS
from tests._tables import SESSION_TABLES
from tests.db._gates import (
    CONFIG,
    Gate,
    adds,
    finish,
    graph_of,
    rows,
    value,
)

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", ["plain", "single writer", "block"])
@pytest.mark.parametrize("by", ["itself", "another"])
async def test_a_deleted_thread_stays_deleted(
    saver: PostgresSaver, single: PostgresSaver, dsn: str, kind: str, by: str
) -> None:
    """A run whose thread is deleted meanwhile brings nothing of it back, in no table."""
    used = single if kind == "single writer" else saver
    gate = Gate()
    graph = graph_of(used, gate=gate, end=adds("end"))

    async def invoke() -> Any:
        if kind != "block":
            return await graph.ainvoke({"items": ["begun"]}, CONFIG, durability="sync")
        async with used.lease("t"):
            return await graph.ainvoke({"items": ["begun"]}, CONFIG, durability="sync")

    run = asyncio.create_task(invoke())
    await asyncio.wait_for(gate.reached.wait(), HANG_SECONDS)
    async with PostgresSaver.from_conn_string(dsn) as other:
        await (used if by == "itself" else other).adelete_thread("t")
    with pytest.raises(ThreadDeletedError, match="'t'"):
        await finish(run, gate)
    assert set((await rows(dsn)).values()) == {0}
    answer = await graph_of(used, one=adds(1)).ainvoke({"items": ["anew"]}, CONFIG)
    assert answer["items"] == ["anew", 1]


async def test_what_came_after_a_deletion_goes_with_the_refusal(
    saver: PostgresSaver, dsn: str
) -> None:
    """Pending writes that a run stored after its thread was deleted don't stay."""
    await graph_of(saver, one=adds(1)).ainvoke({"items": []}, CONFIG)
    found = await saver.aget_tuple(CONFIG)
    assert found is not None
    await saver.adelete_thread("t")
    await saver.aput_writes(found.config, [("items", [1])], "task")
    checkpoint = {**found.checkpoint, "id": "2"}
    with pytest.raises(ThreadDeletedError):
        await saver.aput(found.config, checkpoint, {}, {})  # type: ignore[arg-type]
    assert set((await rows(dsn)).values()) == {0}


async def test_a_pruned_thread_is_the_same_thread(saver: PostgresSaver, dsn: str) -> None:
    """A run goes on although what it remembers of its thread was pruned."""

    class Large(TypedDict):
        value: str

    builder: StateGraph[Any] = StateGraph(Large)
    gate = Gate()

    async def node(state: Any) -> Any:
        await gate(state)
        return {"value": "new" * 1000}

    builder.add_node("node", node)
    builder.add_edge(START, "node")
    graph = builder.compile(checkpointer=saver)
    for text in ("a", "b"):
        await graph.aupdate_state(CONFIG, {"value": text * 5000}, as_node="node")
    run = asyncio.create_task(graph.ainvoke({"value": "c" * 5000}, CONFIG, durability="sync"))
    await asyncio.wait_for(gate.reached.wait(), HANG_SECONDS)
    epoch = await value(dsn, "message_epoch")
    async with PostgresSaver.from_conn_string(dsn) as other:
        await other.aprune(["t"])
    assert await value(dsn, "message_epoch") != epoch
    assert (await finish(run, gate))["value"] == "new" * 1000


async def test_writes_that_race_with_a_deletion_leave_nothing(
    saver: PostgresSaver, dsn: str
) -> None:
    """Under a lease, pending writes wait for the deletion before them, and find no thread."""
    conn = await asyncpg.connect(dsn)
    async with saver.lease("t"):
        await graph_of(saver, one=adds(1)).ainvoke({"items": []}, CONFIG)
        found = await saver.aget_tuple(CONFIG)
        assert found is not None
        async with conn.transaction():
            await conn.execute("select from agent_sessions for update")
            writing = asyncio.create_task(saver.aput_writes(found.config, [("items", [1])], "task"))
            await until_waiting(dsn)
            for table in SESSION_TABLES:
                await conn.execute(f"delete from {table}")
        with pytest.raises(ThreadDeletedError):
            await writing
    assert set((await rows(dsn)).values()) == {0}
    await conn.close()


async def until_waiting(dsn: str) -> None:
    """Until a statement waits for a lock."""
    conn = await asyncpg.connect(dsn)
    deadline = time.monotonic() + HANG_SECONDS
    while not await conn.fetchval(
        "select count(*) from pg_stat_activity"
        " where wait_event_type = 'Lock' and datname = current_database()"
    ):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    await conn.close()
