"""Graphs that stop where a test has them stop, and what the server has of their thread."""

from __future__ import annotations

import asyncio
import operator
import time
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import asyncpg
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.sessions import Sessions, SessionStatus
from tests._limits import HANG_SECONDS
from tests._tables import SESSION_TABLES

CONFIG: RunnableConfig = {"configurable": {"thread_id": "t"}}


class Log(TypedDict):
    items: Annotated[list[Any], operator.add]


def graph_of(saver: Any, **nodes: Any) -> Any:
    """The nodes one after the other."""
    builder: StateGraph[Any] = StateGraph(Log)
    previous = START
    for name, node in nodes.items():
        builder.add_node(name, node)
        builder.add_edge(previous, name)
        previous = name
    return builder.compile(checkpointer=saver)


def adds(item: Any) -> Any:
    async def node(state: Any) -> Any:
        return {"items": [item]}

    return node


class Gate:
    """A node that waits in the middle of a run until it may go on."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self, state: Any) -> Any:
        self.reached.set()
        await self.open.wait()
        return {"items": ["through"]}


async def in_the_middle(graph: Any, gate: Gate, value: Any = "begun") -> asyncio.Task[Any]:
    """A run that has stored something and waits at its gate."""
    call = graph.ainvoke({"items": [value]}, CONFIG, durability="sync")
    run = asyncio.create_task(call)
    await asyncio.wait_for(gate.reached.wait(), HANG_SECONDS)
    return run


async def value(dsn: str, column: str) -> Any:
    """A column of the one session."""
    conn = await asyncpg.connect(dsn)
    found = await conn.fetchval(f"select {column} from agent_sessions")
    await conn.close()
    return found


async def finish(run: asyncio.Task[Any], gate: Gate) -> Any:
    gate.open.set()
    return await asyncio.wait_for(run, HANG_SECONDS)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def end_leases(dsn: str) -> None:
    """As if their time were over."""
    conn = await asyncpg.connect(dsn)
    await conn.execute("update agent_sessions set lease_expires_at = now()")
    await conn.close()


async def rows(dsn: str) -> dict[str, int]:
    """How many rows each of the tables has that hold a session's."""
    conn = await asyncpg.connect(dsn)
    found = {t: await conn.fetchval(f"select count(*) from {t}") for t in SESSION_TABLES}
    await conn.close()
    return found


async def is_one_line(saver: PostgresSaver) -> bool:
    """Whether each of the thread's checkpoints follows the one before it."""
    found = [one async for one in saver.alist({"configurable": {**CONFIG["configurable"]}})]
    roots = [one for one in found if not one.config["configurable"]["checkpoint_ns"]]
    ids = [one.config["configurable"]["checkpoint_id"] for one in roots]
    parents = [
        one.parent_config["configurable"]["checkpoint_id"] if one.parent_config else None
        for one in roots
    ]
    return parents == [*ids[1:], None]


async def status(saver: PostgresSaver) -> SessionStatus | None:
    found = await Sessions(saver.db).get("t")
    return found.status if found else None


async def fails(state: Any) -> Any:
    raise OSError("broken")
