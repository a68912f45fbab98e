"""Large values that change a little, and messages inside other values, take little room."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import asyncpg
import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Overwrite, Send

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import CorruptValueError
from tests.db._puts import checkpoint_of, config_of

pytestmark = pytest.mark.anyio

CONFIG: RunnableConfig = {"configurable": {"thread_id": "t"}}
_TEXTS = random.Random(3)


def text(length: int) -> str:
    return _TEXTS.randbytes(length // 2).hex()


class Files(TypedDict):
    files: dict[str, str]
    turn: int


class Sent(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    notes: Annotated[list[str], operator.add]


def files_graph(saver: Any) -> Any:
    """Rewrites one of two hundred files per step."""

    def edit(state: Files) -> dict[str, Any]:
        turn = state["turn"] + 1
        return {"turn": turn, "files": {**state["files"], f"/file {turn * 7 % 200}": f"new {turn}"}}

    builder: Any = StateGraph(Files)
    builder.add_node("edit", edit)
    builder.add_edge(START, "edit")
    builder.add_conditional_edges("edit", lambda s: END if s["turn"] % 10 == 0 else "edit")
    return builder.compile(saver)


def send_graph(saver: Any, *, overwrite: bool = False) -> Any:
    """Sends the whole conversation to three workers."""
    builder: Any = StateGraph(Sent)
    builder.add_node("plan", lambda state: {"messages": [AIMessage(text(400))]})
    builder.add_node("work", lambda state: {"notes": [f"{len(state['messages'])} messages"]})
    builder.add_node(
        "end",
        lambda s: {"messages": Overwrite(s["messages"][-8:])} if overwrite else {},
    )
    builder.add_edge(START, "plan")
    builder.add_conditional_edges(
        "plan",
        lambda s: [Send("work", {"messages": s["messages"], "n": n}) for n in range(3)],
    )
    builder.add_edge("work", "end")
    return builder.compile(saver)


async def fetchval(dsn: str, query: str) -> Any:
    conn = await asyncpg.connect(dsn)
    try:
        return await conn.fetchval(query)
    finally:
        await conn.close()


async def contents(dsn: str) -> int:
    """The bytes of all payloads, references included."""
    parts = [
        "(select coalesce(sum(pg_column_size(x.*)), 0)::bigint from agent_state_values x)",
        "(select coalesce(sum(pg_column_size(x.*)), 0)::bigint from agent_state_writes x)",
        "(select coalesce(sum(pg_column_size(x.*)), 0)::bigint from agent_state_blobs x)",
    ]
    return int(await fetchval(dsn, f"select {' + '.join(parts)}"))


def shown(snapshots: list[Any]) -> list[Any]:
    return [(s.values, s.next, [t.result for t in s.tasks]) for s in snapshots]


async def history(saver: PostgresSaver, make: Callable[[Any], Any]) -> list[Any]:
    graph = make(PostgresSaver(saver.db))
    return [snapshot async for snapshot in graph.aget_state_history(CONFIG)]


async def test_files_that_change_one_by_one(saver: PostgresSaver, dsn: str) -> None:
    """Each step costs about the file that it changes, and every version comes back whole."""
    files = {f"/file {n}": text(600) for n in range(200)}
    graph = files_graph(saver)
    await graph.ainvoke({"files": files, "turn": 0}, CONFIG)
    after_ten = await contents(dsn)
    await graph.ainvoke({"turn": 0}, CONFIG)
    whole = sum(map(len, files.values()))
    assert after_ten < 2 * whole
    assert await contents(dsn) - after_ten < 0.5 * whole
    expected = files
    for snapshot in reversed(await history(saver, files_graph)):
        if (turn := snapshot.values.get("turn")) and snapshot.metadata["step"] > 0:
            expected = {**expected, f"/file {turn * 7 % 200}": f"new {turn}"}
            assert snapshot.values["files"] == expected
            assert list(snapshot.values["files"]) == list(expected)


async def test_chunks_that_the_server_has_are_not_sent(dsn: str) -> None:
    """A process that wrote a large value once sends only what is new in the next version."""
    entries = {f"/file {n}": text(600) for n in range(200)}
    async with PostgresSaver.from_conn_string(dsn) as saver:
        first = checkpoint_of(saver, {"files": entries})
        await saver.aput(config_of("t"), first, {}, first["channel_versions"])
        before = await fetchval(dsn, "select count(*) from agent_state_blobs")
        second = checkpoint_of(saver, {"files": {**entries, "/file 9": "other"}})
        batches: list[Any] = []
        fetch = saver.db.fetch

        async def recorded(statement: Any, *args: Any, **options: Any) -> Any:
            batches.append((statement.name, args))
            return await fetch(statement, *args, **options)

        saver.db.fetch = recorded  # type: ignore[method-assign]
        await saver.aput(config_of("t"), second, {}, second["channel_versions"])
    [(name, args)] = batches
    assert name == "write_batch"
    assert sum(len(blob[2]) for blob in args[3]) < 10_000
    assert await fetchval(dsn, "select count(*) from agent_state_blobs") - before <= 4


async def test_chunks_that_a_prune_took_away_are_sent_again(saver: PostgresSaver, dsn: str) -> None:
    """A saver that remembers what the server had doesn't count on it after a prune."""
    old = {f"/file {n}": text(600) for n in range(100)}
    new = {f"/other {n}": text(600) for n in range(100)}
    async with PostgresSaver.from_conn_string(dsn) as other:
        for values in (old, new):
            checkpoint = checkpoint_of(saver, {"files": values})
            await saver.aput(config_of("t"), checkpoint, {}, checkpoint["channel_versions"])
        await other.aprune(["t"], strategy="keep_latest")
        again = checkpoint_of(saver, {"files": old})
        config = await saver.aput(config_of("t"), again, {}, again["channel_versions"])
        found = await other.aget_tuple(config)
        assert found
        assert found.checkpoint["channel_values"] == {"files": old}


@pytest.mark.parametrize("overwrite", [False, True])
async def test_sent_conversations_are_not_repeated(
    saver: PostgresSaver, dsn: str, overwrite: bool
) -> None:
    """Messages in Sends and other values are those of the conversation, by reference; what
    comes back is what the in-memory saver gives."""
    memory = InMemorySaver()
    inputs = [HumanMessage(text(400), id=f"question {n}") for n in range(12)]
    for n, question in enumerate(inputs):
        _TEXTS.seed(n)
        await send_graph(saver, overwrite=overwrite).ainvoke({"messages": [question]}, CONFIG)
        _TEXTS.seed(n)
        await send_graph(memory, overwrite=overwrite).ainvoke({"messages": [question]}, CONFIG)
    sent_bytes = 12 * 3 * 12 * 400  # half of the last conversation, thrice in each turn
    assert await contents(dsn) < sent_bytes / 2
    ours = await history(saver, lambda s: send_graph(s, overwrite=overwrite))
    theirs = [s async for s in send_graph(memory).aget_state_history(CONFIG)]
    assert len(ours) == len(theirs) == 12 * 5
    for one, other in zip(ours, theirs, strict=True):
        assert [m.content for m in one.values.get("messages", [])] == [
            m.content for m in other.values.get("messages", [])
        ]
        assert one.values.get("notes") == other.values.get("notes")
        assert one.next == other.next
    sends = await fetchval(
        dsn,
        "select count(*) from agent_state_writes where channel = '__pregel_tasks'"
        " and message_runs is not null",
    )
    assert sends > 0


async def test_a_gap_without_its_messages_is_an_error(saver: PostgresSaver, dsn: str) -> None:
    """Runs that were altered are told, rather than filled with something else."""
    said = [HumanMessage(text(300), id="1"), HumanMessage(text(300), id="2")]
    checkpoint = checkpoint_of(saver, {"messages": said, "notes": {"first": said[0]}})
    config = await saver.aput(config_of("t"), checkpoint, {}, checkpoint["channel_versions"])
    found = await saver.aget_tuple(config)
    assert found
    assert found.checkpoint["channel_values"]["notes"] == {"first": said[0]}
    conn = await asyncpg.connect(dsn)
    changed = await conn.execute(
        "update agent_state_values set message_runs = '{1,2}' where channel = 'notes'"
    )
    await conn.close()
    assert changed == "UPDATE 1"
    with pytest.raises(CorruptValueError, match="don't fit together"):
        await saver.aget_tuple(config)
