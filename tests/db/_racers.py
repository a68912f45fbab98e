"""Two processes that run the same threads at once: `_racers.py DSN ROUNDS`.

Each round is a thread, which both run a few times at random moments; a run that is refused is
over. Prints as JSON how many runs were stored, and how many refused, or what was lost.
"""

from __future__ import annotations

import asyncio
import json
import operator
import os
import random
import sys
from collections import Counter
from typing import Annotated, Any, TypedDict

from langgraph.graph import START, StateGraph

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import LeaseError

RUNS = 2
DURABILITIES = ("sync", "async", "exit")


class Log(TypedDict):
    items: Annotated[list[Any], operator.add]


def pausing_graph(saver: Any, chance: random.Random) -> Any:
    """Two nodes, and one in a subgraph, each of which takes a few milliseconds."""

    def node(name: str) -> Any:
        async def add(state: Any) -> Any:
            await asyncio.sleep(chance.random() * 0.003)
            return {"items": [name]}

        return add

    inner: StateGraph[Any] = StateGraph(Log)
    inner.add_node("inner", node("inner"))
    inner.add_edge(START, "inner")

    async def sub(state: Any) -> Any:
        await inner_graph.ainvoke({"items": []})
        return {"items": ["sub"]}

    inner_graph = inner.compile()
    builder: StateGraph[Any] = StateGraph(Log)
    for name, work in (("one", node("one")), ("sub", sub), ("end", node("end"))):
        builder.add_node(name, work)
    builder.add_edge(START, "one")
    builder.add_edge("one", "sub")
    builder.add_edge("sub", "end")
    return builder.compile(checkpointer=saver)


async def race(graph: Any, thread: str, run: str, chance: random.Random) -> bool:
    """Whether the run, or the update, was stored."""
    config: Any = {"configurable": {"thread_id": thread}}
    await asyncio.sleep(chance.random() * 0.015)
    try:
        if chance.random() < 0.2:
            await graph.aupdate_state(config, {"items": [run]}, as_node="end")
        else:
            durability = chance.choice(DURABILITIES)
            await graph.ainvoke({"items": [run]}, config, durability=durability)
    except LeaseError:
        return False
    return True


async def lost(graph: Any, thread: str, stored: list[str]) -> list[str]:
    """The runs whose steps aren't in the latest state; a fork is lost too."""
    config: Any = {"configurable": {"thread_id": thread}}
    items = (await graph.aget_state(config)).values.get("items", [])
    missing = [run for run in stored if run not in items]
    history = [state async for state in graph.aget_state_history(config)]
    parents = Counter(json.dumps((s.parent_config or {}).get("configurable")) for s in history)
    return [*missing, *(f"fork at {parent}" for parent, n in parents.items() if n > 1)]


async def child(dsn: str, name: str, rounds: int, ready: int, start: int, results: int) -> None:
    chance = random.Random(name)
    async with PostgresSaver.from_conn_string(dsn, single_writer=True) as saver:
        graph = pausing_graph(saver, chance)
        await graph.ainvoke({"items": []}, {"configurable": {"thread_id": f"warm-up {name}"}})
        for number in range(rounds):
            os.write(ready, b".")
            os.read(start, 1)
            for turn in range(RUNS):
                run = f"{name} {number} {turn}"
                if await race(graph, f"round {number}", run, chance):
                    os.write(results, f"{run}\n".encode())
        os.write(ready, b".")


async def count(dsn: str, rounds: int, stored: list[str]) -> dict[str, Any]:
    async with PostgresSaver.from_conn_string(dsn) as saver:
        graph = pausing_graph(saver, random.Random(0))
        found = [
            one
            for number in range(rounds)
            for one in await lost(
                graph, f"round {number}", [run for run in stored if run.split()[1] == str(number)]
            )
        ]
    refused = 2 * RUNS * rounds - len(stored)
    return {"stored": len(stored), "refused": refused, "lost": found}


def main(dsn: str, rounds: int) -> None:
    (ready, is_ready), (start, may_start) = os.pipe(), os.pipe()
    found, results = os.pipe()
    children = []
    for name in ("a", "b"):
        pid = os.fork()
        if not pid:
            asyncio.run(child(dsn, name, rounds, is_ready, start, results))
            os._exit(0)
        children.append(pid)
    os.close(results)
    for _ in range(rounds + 1):
        for _ in children:
            os.read(ready, 1)
        os.write(may_start, b"..")
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0
    with os.fdopen(found) as lines:
        stored = lines.read().splitlines()
    print(json.dumps(asyncio.run(count(dsn, rounds, stored))))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
