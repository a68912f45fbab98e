"""However two runs of one thread meet, and runs side by side: no step is lost."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import (
    LeaseError,
)
from tests._limits import HANG_SECONDS
from tests.db import _racers
from tests.db._gates import (
    CONFIG,
    Log,
    adds,
    graph_of,
    is_one_line,
)

pytestmark = pytest.mark.anyio


RACES = 1_000 if os.environ.get("PGSAGA_FULL") == "1" else 40


async def test_two_processes_never_lose_a_step(dsn: str) -> None:
    """Races of runs and updates, at random moments: what was stored is in the latest state."""
    arguments = [sys.executable, "-m", "tests.db._racers", dsn, str(RACES)]
    ended = await asyncio.to_thread(
        subprocess.run,
        arguments,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS + RACES,
        check=False,
    )
    # Losing a lease is logged, and a process without handlers prints it.
    told = [line for line in ended.stderr.splitlines() if "a run lost its lease" not in line]
    assert (ended.returncode, told) == (0, [])
    answer = json.loads(ended.stdout)
    assert answer["lost"] == []
    assert answer["stored"] > RACES
    assert answer["refused"] > 0


async def test_double_submits_never_lose_a_step(single: PostgresSaver) -> None:
    """The same for runs of one process, in tasks of their own."""
    chance = random.Random(5)
    graph = _racers.pausing_graph(single, chance)
    refused = 0
    for number in range(2 * RACES):
        thread, runs = f"round {number}", [f"{number} {n}" for n in range(3)]
        races = [_racers.race(graph, thread, run, chance) for run in runs]
        stored = await asyncio.gather(*races)
        refused += stored.count(False)
        kept = [run for run, is_stored in zip(runs, stored, strict=True) if is_stored]
        assert kept
        assert await _racers.lost(graph, thread, kept) == []
    assert refused


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
async def test_what_a_node_does_with_threads(single: PostgresSaver, is_async: bool) -> None:
    """In a node of a run one may look at its thread, and run and change another one, again and
    again; the run goes on."""
    own: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    others: RunnableConfig = {"configurable": {"thread_id": "u", "checkpoint_ns": ""}}
    inner = graph_of(None, deep=lambda s: {"items": ["deep"]})
    other = graph_of(single, one=lambda s: {"items": [1]}, inner=inner)

    async def anode(state: Any) -> Any:
        seen = (await graph.aget_state(own)).values["items"]
        for _ in range(2):
            await other.ainvoke({"items": []}, others)
            await other.aupdate_state(others, {"items": ["edit"]}, as_node="one")
            await other.ainvoke({"items": []}, others, interrupt_before=["inner"])
        return {"items": [len(seen)]}

    def node(state: Any) -> Any:
        seen = graph.get_state(own).values["items"]
        for _ in range(2):
            other.invoke({"items": []}, others)
            other.update_state(others, {"items": ["edit"]}, as_node="one")
            other.invoke({"items": []}, others, interrupt_before=["inner"])
        return {"items": [len(seen)]}

    graph = graph_of(single, node=anode if is_async else node, inner=inner)
    given = {"items": ["begun"]}
    if is_async:
        answer = await graph.ainvoke(given, CONFIG, durability="sync")
    else:
        answer = await asyncio.to_thread(graph.invoke, given, CONFIG, durability="sync")
    assert answer["items"][:2] == ["begun", 1]
    assert await is_one_line(single)


async def test_nodes_side_by_side_dont_share_the_lease_of_another_thread(
    single: PostgresSaver,
) -> None:
    """Two nodes of one run that run the same other thread are two runs of that."""
    both = asyncio.Barrier(2)
    others: RunnableConfig = {"configurable": {"thread_id": "u", "checkpoint_ns": ""}}

    async def meet(state: Any) -> Any:
        async with asyncio.timeout(HANG_SECONDS):
            await both.wait()
        return {"items": ["met"]}

    other = graph_of(single, one=adds(1), two=adds(2))
    answers: list[Any] = []

    async def node(state: Any) -> Any:
        await meet(state)
        call = other.ainvoke({"items": []}, others, durability="sync")
        answers.extend(await asyncio.gather(call, return_exceptions=True))
        return {"items": []}

    builder: StateGraph[Any] = StateGraph(Log)
    for name in ("a", "b"):
        builder.add_node(name, node)
        builder.add_edge(START, name)
    await builder.compile(checkpointer=single).ainvoke({"items": []}, CONFIG)
    done = [one for one in answers if isinstance(one, dict)]
    assert len(answers) == 2
    assert 1 <= len(done) <= 2
    assert all(isinstance(one, LeaseError) for one in answers if one not in done)
    found = await other.aget_state(others)
    assert found.values["items"] == [1, 2] * len(done)


def test_double_submits_of_threads_never_lose_a_step(dsn: str) -> None:
    """The same for sync runs at once."""
    chance = random.Random(3)

    def node(name: str) -> Any:
        def add(state: Any) -> Any:
            time.sleep(chance.random() * 0.003)
            return {"items": [name]}

        return add

    with (
        PostgresSaver.from_conn_string(dsn, single_writer=True) as saver,
        ThreadPoolExecutor(3) as pool,
    ):
        graph = graph_of(saver, one=node("one"), two=node("two"))

        def race(thread: str, run: str) -> bool:
            config: RunnableConfig = {"configurable": {"thread_id": thread}}
            time.sleep(chance.random() * 0.01)
            try:
                graph.invoke({"items": [run]}, config, durability=chance.choice(["sync", "exit"]))
            except LeaseError:
                return False
            return True

        for number in range(RACES):
            thread, runs = f"round {number}", [f"{number} {n}" for n in range(3)]
            stored = list(pool.map(race, [thread] * 3, runs))
            kept = [run for run, is_stored in zip(runs, stored, strict=True) if is_stored]
            assert kept
            assert asyncio.run(_racers.lost(graph, thread, kept)) == []
