"""Runs and puts whose every step is known, and servers that can be ended under them."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import (
    CheckpointDeletedError,
)
from tests._connections import connection_of
from tests._limits import HANG_SECONDS

FULL = os.environ.get("PGSAGA_FULL") == "1"
RUNS = 20
NODES = 6
# By so many puts a chain may be ahead of the slowest.
AHEAD = 50
BACKENDS = (
    "select {} from pg_stat_activity where datname = current_database()"
    " and pid <> pg_backend_pid() and application_name = 'langgraph_pgsaga'"
)


class Chat(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    done: Annotated[list[int], lambda old, new: [*old, *new]]


def chat_graph(saver: PostgresSaver, on_step: Callable[[], None] = lambda: None) -> Any:
    """A chain of nodes; each appends its number and a message."""
    builder = StateGraph(Chat)
    for number in range(NODES):

        def node(state: Chat, number: int = number) -> dict[str, Any]:
            on_step()
            return {"done": [number], "messages": [AIMessage("x" * 3000, id=f"a{number}")]}

        builder.add_node(str(number), node)
        builder.add_edge(START if number == 0 else str(number - 1), str(number))
    builder.add_edge(str(NODES - 1), END)
    return builder.compile(checkpointer=saver)


QUESTION = {"messages": [HumanMessage("q", id="q")], "done": []}


def config_of(thread: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}


thread_numbers = itertools.count(1)


def new_threads(count: int = RUNS) -> list[str]:
    return [f"thread {next(thread_numbers)}" for _ in range(count)]


class Ledger:
    """Writes checkpoints and pending writes to threads, and remembers what was acknowledged."""

    def __init__(self, saver: PostgresSaver) -> None:
        self.saver = saver
        self.acknowledged: list[tuple[str, str, str | None]] = []
        self._numbers = itertools.count(1)
        self._puts: Counter[str] = Counter()  # of the chains that haven't ended

    async def chain(self, thread: str, ended: Callable[[], bool]) -> None:
        """Checkpoint after checkpoint, each with messages and a write, until it has ended.

        Where the last one was pruned, it goes on from the thread's latest.
        """
        self._puts[thread] += 0
        try:
            await self._chain(thread, ended)
        finally:
            self._puts.pop(thread, None)

    async def _chain(self, thread: str, ended: Callable[[], bool]) -> None:
        config, version = config_of(thread), None
        said: list[HumanMessage] = []
        while not ended():
            await self._in_step(thread)
            number, version = next(self._numbers), self.saver.get_next_version(version, None)
            said = [*said[-5:], HumanMessage(f"{number} of {id(self)}")]
            checkpoint = {
                **empty_checkpoint(),
                "v": 4,
                "channel_values": {"value": ["x" * 300, number], "messages": said},
                "channel_versions": {"value": version, "messages": version},
            }
            try:
                config = await self.saver.aput(
                    config,
                    checkpoint,  # type: ignore[arg-type]
                    {"step": number},
                    {"value": version, "messages": version},
                )
            except CheckpointDeletedError:
                latest = await self.saver.aget_tuple(config_of(thread))
                assert latest is not None
                config = latest.config
                continue
            self._acknowledge(thread, config, None)
            await self.saver.aput_writes(config, [("value", number)], f"task {number}")
            self._acknowledge(thread, config, f"task {number}")

    async def _in_step(self, thread: str) -> None:
        """Waits for the others: while one's session is locked, this one would write thousands."""
        self._puts[thread] += 1
        while self._puts[thread] > min(self._puts.values(), default=0) + AHEAD:
            await asyncio.sleep(0.01)

    def _acknowledge(self, thread: str, config: RunnableConfig, task: str | None) -> None:
        self.acknowledged.append((thread, config["configurable"]["checkpoint_id"], task))

    async def missing(self) -> list[tuple[str, str, str | None]]:
        """What was acknowledged and isn't there, looked up with another saver."""
        missing = []
        saver = PostgresSaver(self.saver.db)
        for thread, checkpoint_id, task in self.acknowledged:
            config = config_of(thread)
            config["configurable"]["checkpoint_id"] = checkpoint_id
            found = await saver.aget_tuple(config)
            tasks = [w[0] for w in (found.pending_writes if found else None) or []]
            if found is None or (task is not None and task not in tasks):
                missing.append((thread, checkpoint_id, task))
        return missing


async def comes_true(holds: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while not await holds():
        assert time.monotonic() < deadline, "it didn't come true in time"
        await asyncio.sleep(0.01)


async def all_finished(saver: PostgresSaver, threads: list[str]) -> None:
    """Each run is complete: no step is missing, none was done twice, and it can be listed."""
    graph = chat_graph(saver)
    for thread in threads:
        state = await graph.aget_state(config_of(thread))
        assert state.next == ()
        assert state.values["done"] == list(range(NODES))
        assert [m.id for m in state.values["messages"]] == ["q", *(f"a{n}" for n in range(NODES))]
        history = [s async for s in graph.aget_state_history(config_of(thread))]
        assert len(history) == NODES + 2


async def no_transaction_stays_open(saver: PostgresSaver) -> None:
    """Every connection of the pool is free again, and none holds a transaction."""
    async with connection_of(saver.db) as conn:
        busy = BACKENDS.format("count(*)") + " and state is distinct from 'idle'"

        async def all_idle() -> bool:
            return bool(await conn.fetchval(busy) == 0)

        await comes_true(all_idle)
    pool = await saver.db._pool()
    async with asyncio.timeout(HANG_SECONDS):
        assert pool.pool is not None
        held = [await pool.acquire(HANG_SECONDS) for _ in range(pool.pool.get_max_size())]
        assert [await c.fetchval("select 1") for c in held] == [1] * len(held)
        for connection in held:
            await pool.release(connection)
