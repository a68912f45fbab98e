"""A process that drops savers without closing them: `_dropped.py DSN WAY`.

It prints, once threads and open files are as many as before: how many were dropped, and how
many warnings told of them.
"""

import asyncio
import copy
import gc
import sys
import threading
import time
import warnings
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import MessagesState, StateGraph

from langgraph_pgsaga import Database, PostgresSaver
from langgraph_pgsaga.database import load_statements
from langgraph_pgsaga.errors import ServerError
from langgraph_pgsaga.sync import Sessions
from tests._limits import HANG_SECONDS

CONFIG: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_id": "1"}}
ROUNDS = 5


async def in_the_loop(saver: PostgresSaver) -> None:
    await saver.aput_writes(CONFIG, [("channel", 1)], "task")


async def from_threads(saver: PostgresSaver) -> None:
    saver.put_writes(CONFIG, [("channel", 1)], "task")


async def both(saver: PostgresSaver) -> None:
    await in_the_loop(saver)
    await from_threads(saver)
    await asyncio.to_thread(asyncio.run, in_the_loop(saver))


async def by_a_graph(saver: PostgresSaver) -> None:
    graph = StateGraph(MessagesState).add_node("n", lambda _: {}).set_entry_point("n")
    config: RunnableConfig = {"configurable": {"thread_id": "graph"}}
    compiled = graph.compile(checkpointer=saver)
    await compiled.ainvoke({"messages": [HumanMessage("hello")]}, config)
    compiled.invoke({"messages": [HumanMessage("hello")]}, config)


async def in_a_lease(saver: PostgresSaver) -> None:
    with saver.lease("t"):
        await from_threads(saver)
    async with saver.lease("t"):
        await in_the_loop(saver)


async def halfway_through_a_listing(saver: PostgresSaver) -> None:
    await by_a_graph(saver)
    assert next(saver.list(None))
    assert await anext(saver.alist(None))


async def by_a_copy(saver: PostgresSaver) -> None:
    other = copy.copy(saver)
    del saver
    gc.collect()
    await both(other)


async def by_its_database(saver: PostgresSaver) -> None:
    db = saver.db
    del saver
    await db.fetch(load_statements("sessions")["count_expired"].bind(tenant_id=None))
    Sessions(db).list()


async def in_a_failing_transaction(saver: PostgresSaver) -> None:
    with suppress(ServerError):
        async with saver.db.transaction() as conn:
            await conn.execute("select 1 / 0")


async def not_at_all(saver: PostgresSaver) -> None:
    assert isinstance(saver.db, Database)


WAYS: dict[str, Callable[[PostgresSaver], Awaitable[None]]] = {
    use.__name__: use
    for use in (
        *(in_the_loop, from_threads, both, by_a_graph, in_a_lease, halfway_through_a_listing),
        *(by_a_copy, by_its_database, in_a_failing_transaction, not_at_all),
    )
}


def held() -> tuple[int, int]:
    """Threads of a database, and sockets."""
    threads = [t for t in threading.enumerate() if t.name.startswith("langgraph_pgsaga")]
    sockets = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed
            sockets += link.readlink().name.startswith("socket:")
    return len(threads), sockets


async def drop(dsn: str, way: str) -> None:
    before = held()
    for _ in range(ROUNDS):
        await WAYS[way](PostgresSaver.from_conn_string(dsn))
    deadline = time.monotonic() + HANG_SECONDS
    while held() != before:
        assert time.monotonic() < deadline, f"{held()} instead of {before}"
        gc.collect()
        await asyncio.sleep(0.01)


def main(dsn: str, way: str) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        asyncio.run(drop(dsn, way))
        gc.collect()
    print(ROUNDS, sum(str(w.message).startswith("unclosed Database(") for w in told))
    print(*(w.message for w in told if w.category is not ResourceWarning), sep="\n", end="")


if __name__ == "__main__":
    main(*sys.argv[1:])
