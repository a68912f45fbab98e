"""What the deletion of a thread does to a run of it."""

from __future__ import annotations

import asyncio
import time
from typing import Any, TypedDict

import asyncpg
import pytest
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

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
from tests.db._puts import config_of

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


@pytest.mark.parametrize("kind", ["plain", "single writer"])
@pytest.mark.parametrize("anew_by", ["itself", "another"])
@pytest.mark.parametrize("durability", ["sync", "async"])
@pytest.mark.parametrize("where", ["node", "inner"])
async def test_a_run_stores_nothing_in_a_thread_that_was_begun_anew(
    saver: PostgresSaver,
    single: PostgresSaver,
    dsn: str,
    kind: str,
    anew_by: str,
    durability: Any,
    where: str,
) -> None:
    """Also where its own process did that, and so knows the thread that is there now."""
    used = single if kind == "single writer" else saver
    gate = Gate()
    nodes = {"gate": gate, "end": adds("end")}
    graph = graph_of(used, **(nodes if where == "node" else {"inner": graph_of(True, **nodes)}))
    plain = graph_of(used, one=adds(1))
    await plain.ainvoke({"items": ["before"]}, CONFIG)
    run = asyncio.create_task(graph.ainvoke({"items": ["begun"]}, CONFIG, durability=durability))
    await asyncio.wait_for(gate.reached.wait(), HANG_SECONDS)
    await used.adelete_thread("t")
    async with PostgresSaver.from_conn_string(dsn) as other:
        anew = plain if anew_by == "itself" else graph_of(other, one=adds(1))
        await anew.ainvoke({"items": ["anew"]}, CONFIG)
    there = await rows(dsn)
    with pytest.raises(ThreadDeletedError):
        await finish(run, gate)
    assert (await plain.aget_state(CONFIG)).values == {"items": ["anew", 1]}
    assert {**await rows(dsn), "agent_state_writes": 0} == {**there, "agent_state_writes": 0}


@pytest.mark.parametrize("kind", ["plain", "single writer"])
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize(
    "command",
    [Command(update={"items": ["anew"]}), Command(goto="one"), Command(resume="yes")],
    ids=["update", "goto", "resume"],
)
async def test_a_command_begins_a_deleted_thread_anew(
    saver: PostgresSaver,
    single: PostgresSaver,
    kind: str,
    durability: Any,
    command: Command[Any],
) -> None:
    """It is written before the run's first checkpoint, and is as good a beginning as values."""
    used = single if kind == "single writer" else saver
    graph = graph_of(used, one=adds(1))
    expected = await graph_of(InMemorySaver(), one=adds(1)).ainvoke(command, CONFIG)
    for _ in range(5):
        await graph.ainvoke({"items": ["before"]}, CONFIG, durability=durability)
        await used.adelete_thread("t")
        assert await graph.ainvoke(command, CONFIG, durability=durability) == expected
        assert (await graph.aget_state(CONFIG)).values == expected
        await used.adelete_thread("t")


async def test_a_put_below_a_deleted_checkpoint_joins_no_thread_begun_anew(
    saver: PostgresSaver, dsn: str
) -> None:
    """Where both are on their way at once, and no run makes them."""
    first = await saver.aput(config_of("t"), {**empty_checkpoint(), "id": "1"}, {"step": 1}, {})
    async with PostgresSaver.from_conn_string(dsn) as other:
        await other.adelete_thread("t")
    two: Checkpoint = {**empty_checkpoint(), "id": "2"}
    three: Checkpoint = {**empty_checkpoint(), "id": "3"}
    anew = asyncio.create_task(saver.aput(config_of("t"), two, {"step": 1}, {}))
    below = asyncio.create_task(saver.aput(first, three, {"step": 2}, {}))
    await asyncio.wait([anew, below])
    assert anew.exception() is None
    assert isinstance(below.exception(), ThreadDeletedError)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("kind", ["plain", "single writer"])
@pytest.mark.parametrize("memory", [None, True], ids=["for the run", "of its own"])
async def test_a_deleted_thread_is_begun_anew_with_subgraphs(
    saver: PostgresSaver,
    single: PostgresSaver,
    kind: str,
    memory: bool | None,
    durability: Any,
) -> None:
    """By the process that knew it, although a subgraph's checkpoint may be stored first."""
    used = single if kind == "single writer" else saver
    inner = graph_of(memory, ask=lambda _: {"items": [interrupt("?")]})
    graph = graph_of(used, first=adds("first"), inner=inner)
    for item in range(3):
        paused = await graph.ainvoke({"items": [item]}, CONFIG, durability=durability)
        assert paused["items"] == [item, "first"]
        answered = await graph.ainvoke(Command(resume="yes"), CONFIG, durability=durability)
        assert answered["items"] == [item, "first", item, "first", "yes"]
        await used.adelete_thread("t")
    graph = graph_of(used, inner=graph_of(memory, one=adds(1)))
    for _ in range(2):
        answer = await graph.ainvoke({"items": [0]}, CONFIG, durability=durability)
        assert answer["items"] == [0, 0, 1]
        await used.adelete_thread("t")


async def test_a_subgraph_brings_no_deleted_thread_back(saver: PostgresSaver, dsn: str) -> None:
    """Its first checkpoint needs none before it, but its graph's run has stored some."""
    gate = Gate()
    graph = graph_of(saver, gate=gate, inner=graph_of(True, one=adds(1)))
    run = asyncio.create_task(graph.ainvoke({"items": ["begun"]}, CONFIG, durability="sync"))
    await asyncio.wait_for(gate.reached.wait(), HANG_SECONDS)
    async with PostgresSaver.from_conn_string(dsn) as other:
        await other.adelete_thread("t")
    with pytest.raises(ThreadDeletedError):
        await finish(run, gate)
    assert set((await rows(dsn)).values()) == {0}


async def test_without_a_run_a_first_checkpoint_begins_a_thread_anew(saver: PostgresSaver) -> None:
    """In a namespace, too, as every saver has it."""
    for namespace in ("", "inner"):
        config = config_of("t", checkpoint_ns=namespace)
        for _ in range(2):
            await saver.aput(config, {**empty_checkpoint(), "id": "1"}, {"step": 1}, {})
            assert await saver.aget_tuple(config)
            await saver.adelete_thread("t")


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
