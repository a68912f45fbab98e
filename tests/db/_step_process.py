"""A run whose nodes act with their steps, and that is killed at a point: DSN, what, how, where.

`what` names the graph, `how` the durability, `where` the number of the point at which it dies.
It prints how many points it passed when it came to its end.
"""

from __future__ import annotations

import asyncio
import functools
import operator
import os
import random
import signal
import sys
from typing import Annotated, Any, TypedDict

import asyncpg
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.database.connection import PlainConnection
from langgraph_pgsaga.work import this_step

INSERT = "insert into effects (name) values ($1)"
CONFIG: Any = {"configurable": {"thread_id": "t"}, "recursion_limit": 50}


class Log(TypedDict):
    items: Annotated[list[Any], operator.add]


class Points:
    """Where the process may die: around each node, and around each thing that is sent."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.passed = 0

    def pass_one(self) -> None:
        self.passed += 1
        if self.passed == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


points = Points(int(sys.argv[4]) if len(sys.argv) > 4 else 0)


def acts(name: str, *, is_sync: bool = False, **answer: Any) -> Any:
    def act() -> Any:
        points.pass_one()
        this_step().sql(INSERT, name)
        points.pass_one()
        return answer or {"items": [name]}

    async def node(state: Any) -> Any:
        answer = act()
        await asyncio.sleep(random.choice([0, 0, 0.002]))
        points.pass_one()
        return answer

    return (lambda state: act()) if is_sync else node


def chain(saver: Any, **nodes: Any) -> Any:
    builder: StateGraph[Any] = StateGraph(Log)
    last = START
    for name, node in nodes.items():
        builder.add_node(name, node)
        builder.add_edge(last, name)
        last = name
    return builder.compile(checkpointer=saver)


def plain(saver: Any) -> Any:
    return chain(saver, a=acts("a"), b=acts("b", is_sync=True), c=acts("c"))


def parallel(saver: Any) -> Any:
    async def spread(state: Any) -> Any:
        answer = await acts("spread")(state)
        return Command(update=answer, goto=[Send("one", n) for n in range(3)])

    async def run_one(n: Any) -> Any:
        return await acts(f"one{n}")(n)

    one: Any = run_one

    builder: StateGraph[Any] = StateGraph(Log)
    builder.add_node("spread", spread)
    builder.add_node("one", one)
    builder.add_node("end", acts("end"))
    builder.add_edge(START, "spread")
    builder.add_edge("one", "end")
    return builder.compile(checkpointer=saver)


def subgraphs(saver: Any) -> Any:
    async def leaves(state: Any) -> Any:
        answer = await acts("leaves")(state)
        return Command(update=answer, goto="other", graph=Command.PARENT)

    deep = chain(None, d1=acts("d1"), d2=acts("d2"))
    inner = chain(None, i1=acts("i1"), deep=deep, leaves=leaves)
    builder: StateGraph[Any] = StateGraph(Log)
    builder.add_node("top", acts("top"))
    builder.add_node("sub", inner, destinations=("other",))
    builder.add_node("other", acts("other", is_sync=True))
    builder.add_edge(START, "top")
    builder.add_edge("top", "sub")
    return builder.compile(checkpointer=saver)


def functional(saver: Any) -> Any:
    @task
    async def step(n: int) -> list[str]:
        answer: list[str] = (await acts(f"task{n}")(n))["items"]
        return answer

    @entrypoint(checkpointer=saver)
    async def flow(given: Any) -> Any:
        found = [name for n in range(3) for name in await step(n)]
        return {"items": [*found, *(await acts("flow")(None))["items"]]}

    return flow


GRAPHS = {f.__name__: f for f in (plain, parallel, subgraphs, functional)}


def watch() -> None:
    """Has each thing that is sent, commits too, be a point before it and one after it."""
    for cls, name in ((PlainConnection, "fetch"), (asyncpg.Connection, "execute")):
        setattr(PlainConnection, name, _around(getattr(cls, name)))


def _around(real: Any) -> Any:
    @functools.wraps(real)
    async def call(*args: Any, **kwargs: Any) -> Any:
        points.pass_one()
        answer = await real(*args, **kwargs)
        points.pass_one()
        return answer

    return call


async def main(dsn: str, what: str, how: Any) -> None:
    async with PostgresSaver.from_conn_string(dsn) as saver:
        graph = GRAPHS[what](saver)
        await saver.aget_tuple(CONFIG)  # it is connected
        watch()
        given: Any = {"items": []}
        if (await graph.aget_state(CONFIG)).config["configurable"].get("checkpoint_id"):
            given = None
        points.passed = 0
        found = await graph.ainvoke(given, CONFIG, durability=how)
        print(points.passed, *found["items"])


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
