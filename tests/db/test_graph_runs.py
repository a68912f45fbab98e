"""Runs that fail, stream, are cancelled or go on side by side."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, RetryPolicy

from langgraph_pgsaga import PostgresSaver
from tests._graphs import Comparison, Run, normalised_history
from tests._limits import HANG_SECONDS
from tests.db._chains import Log, chain, nested


def test_errors_and_retries(compare: Comparison) -> None:
    """A failed node leaves its error and its siblings' writes; the next call only runs it again."""

    async def scenario(run: Run) -> None:
        calls: list[str] = []

        def flaky(state: Log) -> dict[str, Any]:
            calls.append("flaky")
            if calls.count("flaky") % 3:
                raise ConnectionError(f"try {calls.count('flaky')}")
            return {"items": ["flaky worked"]}

        def broken(state: Log) -> dict[str, Any]:
            calls.append("broken")
            if calls.count("broken") == 1:
                raise ValueError("it broke")
            return {"items": ["mended"]}

        builder: StateGraph[Any] = StateGraph(Log)
        retry = RetryPolicy(initial_interval=0.001, max_attempts=3, jitter=False)
        builder.add_node("flaky", flaky, retry_policy=retry)
        builder.add_node("broken", broken)
        builder.add_edge(START, "flaky")
        builder.add_edge("flaky", "broken")
        await run.failing(builder.compile(run.saver), {"items": []}, ValueError)
        run.restart()
        graph = builder.compile(run.saver)
        state = await run.state(graph)
        assert state.next == ("broken",)
        assert "it broke" in str(state.tasks[0].error)
        answer = await run.invoke(graph, None)
        assert answer["items"] == ["flaky worked", "mended"]
        assert calls == ["flaky"] * 3 + ["broken"] * 2
        await run.history(graph)

    compare(scenario)


def test_a_failed_step_keeps_its_finished_siblings(compare: Comparison) -> None:
    """Of a step with a failing task, the stored result of the other one isn't computed again."""

    async def scenario(run: Run) -> None:
        calls: list[str] = []

        def good(state: Log) -> dict[str, Any]:
            calls.append("good")
            return {"items": ["good"]}

        def bad(state: Log) -> dict[str, Any]:
            if run.durability != "exit":
                wait_for(lambda: holds_write(run.saver, ["good"]))
            calls.append("bad")
            if calls.count("bad") == 1:
                raise ValueError("bad once")
            return {"items": ["bad came good"]}

        builder: StateGraph[Any] = StateGraph(Log)
        for node in (good, bad):
            builder.add_node(node.__name__, node)
            builder.add_edge(START, node.__name__)
        await run.failing(builder.compile(run.saver), {"items": []}, ValueError)
        run.restart()
        answer = await run.invoke(builder.compile(run.saver), None)
        assert sorted(answer["items"]) == ["bad came good", "good"]
        assert run.durability == "exit" or calls.count("good") == 1

    compare(scenario)


def holds_write(saver: BaseCheckpointSaver[Any], value: Any) -> bool:
    found = saver.get_tuple(thread_config("t"))
    return found is not None and value in [w[2] for w in found.pending_writes or ()]


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_streams_are_the_same(compare: Comparison) -> None:
    """values, updates and checkpoints stream the same parts, over an interrupt and on resuming."""

    async def scenario(run: Run) -> None:
        builder = nested(None, asks=True)
        modes = ["values", "updates"]
        await run.stream(builder.compile(run.saver), {"items": []}, modes, subgraphs=True)
        run.restart()
        graph = builder.compile(run.saver)
        parts = await run.stream(graph, Command(resume="r"), modes, subgraphs=True)
        assert parts
        await run.stream(graph, {"items": ["again"]}, "values")
        await run.history(graph)

    compare(scenario)


# Concurrency


def counting_graph(saver: BaseCheckpointSaver[Any]) -> Any:
    """Two steps a turn; the answer's length says how many turns the thread has had."""
    return chain(
        one=lambda state: {"items": [f"one {len(state['items'])}"]},
        two=lambda state: {"items": [f"two {len(state['items'])}"]},
    ).compile(saver)


def expected_items(thread: str, turns: int) -> list[str]:
    items: list[str] = []
    for turn in range(turns):
        items += [f"{thread} says {turn}"]
        items += [f"one {len(items)}", f"two {len(items) + 1}"]
    return items


def thread_config(thread: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread}}


async def talk_async(graph: Any, thread: str, turns: int) -> list[str]:
    for turn in range(turns):
        await graph.ainvoke({"items": [f"{thread} says {turn}"]}, thread_config(thread))
    found: list[str] = (await graph.aget_state(thread_config(thread))).values["items"]
    return found


def talk_sync(graph: Any, thread: str, turns: int) -> list[str]:
    for turn in range(turns):
        graph.invoke({"items": [f"{thread} says {turn}"]}, thread_config(thread))
    found: list[str] = graph.get_state(thread_config(thread)).values["items"]
    return found


@pytest.mark.anyio
async def test_fifty_threads_at_once_in_one_loop(saver: PostgresSaver) -> None:
    """Fifty conversations on one saver never see each other's items."""
    graph = counting_graph(saver)
    names = [f"thread {n}" for n in range(50)]
    found = await asyncio.gather(*(talk_async(graph, name, 3) for name in names))
    assert found == [expected_items(name, 3) for name in names]


def test_sixteen_os_threads_at_once(sync_saver: PostgresSaver) -> None:
    """Sixteen OS threads invoke on one saver at the same moment."""
    graph = counting_graph(sync_saver)
    barrier = threading.Barrier(16)

    def work(name: str) -> list[str]:
        barrier.wait(HANG_SECONDS)
        return talk_sync(graph, name, 3)

    names = [f"thread {n}" for n in range(16)]
    with ThreadPoolExecutor(16) as executor:
        assert list(executor.map(work, names)) == [expected_items(name, 3) for name in names]


@pytest.mark.anyio
async def test_invoke_and_ainvoke_mixed(saver: PostgresSaver) -> None:
    """OS threads, the loop, and a thread with a loop of its own share one saver at once."""
    graph = counting_graph(saver)
    names = [f"thread {n}" for n in range(24)]

    def in_own_loop(name: str) -> list[str]:
        return asyncio.run(talk_async(graph, name, 2))

    def start(n: int, name: str) -> Any:
        if n % 3 == 0:
            return talk_async(graph, name, 2)
        return asyncio.to_thread(talk_sync if n % 3 == 1 else in_own_loop, *_args(n, graph, name))

    found = await asyncio.gather(*(start(n, name) for n, name in enumerate(names)))
    assert found == [expected_items(name, 2) for name in names]


def _args(n: int, graph: Any, name: str) -> tuple[Any, ...]:
    return (graph, name, 2) if n % 3 == 1 else (name,)


@pytest.mark.anyio
async def test_invoke_inside_a_running_loop(saver: PostgresSaver) -> None:
    """A notebook cell may call invoke, get_state and stream, and await ainvoke, in any order."""
    graph = counting_graph(saver)
    config = thread_config("t")
    await graph.ainvoke({"items": ["t says 0"]}, config)
    graph.invoke({"items": ["t says 1"]}, config)
    assert len(list(graph.stream({"items": ["t says 2"]}, config, stream_mode="updates"))) == 2
    assert await talk_async(graph, "u", 1) == expected_items("u", 1)
    assert graph.get_state(config).values["items"] == expected_items("t", 3)
    synced = list(graph.get_state_history(config))
    awaited = [s async for s in graph.aget_state_history(config)]
    assert normalised_history(synced) == normalised_history(awaited)


@pytest.mark.anyio
async def test_a_cancelled_run_goes_on_later(saver: PostgresSaver) -> None:
    """A run cancelled inside its second node keeps the first node's result and is resumed."""
    entered = asyncio.Event()
    calls: list[str] = []

    async def first(state: Log) -> dict[str, Any]:
        calls.append("first")
        return {"items": ["first"]}

    async def second(state: Log) -> dict[str, Any]:
        calls.append("second")
        if calls.count("second") == 1:
            entered.set()
            await asyncio.Event().wait()
        return {"items": ["second"]}

    graph = chain(first=first, second=second).compile(saver)
    running = asyncio.create_task(graph.ainvoke({"items": []}, thread_config("t")))
    await asyncio.wait_for(entered.wait(), HANG_SECONDS)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await graph.aget_state(thread_config("t"))).next == ("second",)
    answer = await graph.ainvoke(None, thread_config("t"))
    assert answer == {"items": ["first", "second"]}
    assert calls == ["first", "second", "second"]


@pytest.mark.anyio
async def test_cancelling_anywhere_poisons_nothing(dsn: str) -> None:
    """Runs cancelled after any number of the loop's turns leave the pool's one connection usable,
    and a state that is a prefix of the whole run's."""
    rng = random.Random(7)
    whole = expected_items("t", 1)
    finished = 0
    async with PostgresSaver.from_conn_string(dsn, max_size=1) as saver:
        graph = counting_graph(saver)
        for n in range(40):
            config = thread_config(f"thread {n}")
            running = asyncio.create_task(graph.ainvoke({"items": whole[:1]}, config))
            for _ in range(rng.randrange(600)):
                await asyncio.sleep(0)
            running.cancel()
            outcomes = await asyncio.gather(running, return_exceptions=True)
            finished += not isinstance(outcomes[0], asyncio.CancelledError)
            state = await graph.aget_state(config)
            items = state.values.get("items", [])
            assert items == whole[: len(items)]
            left: Any = {"items": whole[:1]} if state.metadata is None else None
            if len(items) < 3:
                assert await graph.ainvoke(left, config) == {"items": whole}
    assert finished < 40
