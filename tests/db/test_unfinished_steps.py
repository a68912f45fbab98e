"""Of steps that fail, ask, are cancelled or tried again only the last attempt counts, once."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from langgraph.func import task
from langgraph.graph import START, StateGraph
from langgraph.runtime import RunControl
from langgraph.types import Command, interrupt

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import ServerError
from tests._limits import HANG_SECONDS
from tests.db._effects import Effects, once
from tests.db._gates import CONFIG, Log, graph_of
from tests.db._steps import FAST, act, acts, stored_items

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("again", [True, False], ids=["acts again", "acts once"])
async def test_a_retry_drops_what_the_attempt_before_it_did(
    saver: PostgresSaver, effects: Effects, durability: Any, again: bool
) -> None:
    """Of attempts the last one's effects count, also where it has none."""
    attempts: list[int] = []

    async def node(state: Any) -> Any:
        attempts.append(len(attempts) + 1)
        if again or attempts == [1]:
            act(f"attempt {attempts[-1]}")
        if len(attempts) < 3:
            raise ValueError("again")
        return {"items": ["done"]}

    builder: StateGraph[Any] = StateGraph(Log)
    builder.add_node("node", node, retry_policy=FAST)
    builder.add_edge(START, "node")
    graph = builder.compile(checkpointer=saver)
    await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    assert await effects.found() == (once("attempt 3") if again else {})


async def test_a_node_that_fails_leaves_nothing(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """Its effects are dropped; resumed it does them once."""
    fails = [True]

    async def node(state: Any) -> Any:
        act("node")
        if fails:
            raise ValueError(fails.pop())
        return {"items": ["node"]}

    graph = graph_of(saver, before=acts("before"), node=node)
    with pytest.raises(ValueError, match="True"):
        await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    assert await effects.found() == once("before")
    await graph.ainvoke(None, CONFIG, durability=durability)
    assert await effects.found() == once("before", "node")


async def test_a_sibling_that_finished_keeps_its_effect(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """Where another task of the step fails, the finished one isn't executed again."""
    tasks: list[asyncio.Task[Any] | None] = []
    fails = [True]

    async def good(state: Any) -> Any:
        tasks.append(asyncio.current_task())
        act("good")
        return {"items": ["good"]}

    async def late(state: Any) -> Any:
        act("late")
        if fails:
            while not tasks or tasks[0] is None or not tasks[0].done():
                await asyncio.sleep(0)
            if durability != "exit":
                await wait_for_writes(saver)
            raise ValueError(fails.pop())
        return {"items": ["late"]}

    builder: StateGraph[Any] = StateGraph(Log)
    for name, node in {"good": good, "late": late}.items():
        builder.add_node(name, node)
        builder.add_edge(START, name)
    graph = builder.compile(checkpointer=saver)
    with pytest.raises(ValueError, match="True"):
        await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    assert await effects.found() == once("good")
    await graph.ainvoke(None, CONFIG, durability=durability)
    assert await effects.found() == once("good", "late")
    assert sorted(await stored_items(saver)) == ["good", "late"]


async def wait_for_writes(saver: PostgresSaver) -> None:
    """Until some task's writes are stored."""
    async with asyncio.timeout(HANG_SECONDS):
        while not ((found := await saver.anew().aget_tuple(CONFIG)) and found.pending_writes):
            await asyncio.sleep(0.01)


async def test_a_node_that_asks_acts_once(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """What it did before it asked is dropped: it runs again from its start."""

    async def node(state: Any) -> Any:
        act("asked")
        answer = interrupt("?")
        act(f"answered {answer}")
        return {"items": [answer]}

    graph = graph_of(saver, before=acts("before"), node=node)
    await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    assert await effects.found() == once("before")
    await graph.ainvoke(Command(resume="yes"), CONFIG, durability=durability)
    assert await effects.found() == once("before", "asked", "answered yes")


async def test_cancellation_drops(saver: PostgresSaver, effects: Effects, durability: Any) -> None:
    """A node that is cancelled acts when it is executed again, once."""
    reached, waits = asyncio.Event(), [True]

    async def node(state: Any) -> Any:
        act("node")
        if waits:
            waits.pop()
            reached.set()
            await asyncio.Event().wait()
        return {"items": ["node"]}

    graph = graph_of(saver, before=acts("before"), node=node)
    run = asyncio.create_task(graph.ainvoke({"items": []}, CONFIG, durability=durability))
    await reached.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    found = await effects.found()
    assert "node" not in found
    given: Any = None if found else {"items": []}
    await graph.ainvoke(given, CONFIG, durability=durability)
    assert await effects.found() == once("before", "node")


def with_an_edge(saver: Any, node: Any, edge: Any, **options: Any) -> Any:
    """The node, and an edge whose function is called when the node has given its result."""
    builder: StateGraph[Any] = StateGraph(Log)
    builder.add_node("node", node, **options)
    builder.add_node("next", acts("next"))
    builder.add_edge(START, "node")
    builder.add_conditional_edges("node", edge, ["next"])
    return builder.compile(checkpointer=saver)


@pytest.mark.parametrize("is_below", [False, True], ids=["top", "below"])
async def test_a_node_whose_edge_fails_has_done_and_given_nothing(
    saver: PostgresSaver, effects: Effects, durability: Any, is_below: bool
) -> None:
    """LangGraph stores what it gave beside the error, and wouldn't execute it again."""
    fails = [True]

    def edge(state: Any) -> str:
        if fails:
            raise ValueError(fails.pop())
        return "next"

    graph = with_an_edge(None if is_below else saver, acts("node"), edge)
    if is_below:
        graph = graph_of(saver, sub=graph)
    with pytest.raises(ValueError, match="True"):
        await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    assert await effects.found() == {}
    state = await graph.ainvoke(None, CONFIG, durability=durability)
    assert state["items"] == ["node", "next"]
    assert await effects.found() == once("node", "next")


async def test_a_node_that_is_cancelled_behind_its_result_acts_once(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """The same where it is cancelled, since another task of its step failed."""
    reached, fails = asyncio.Event(), [True]

    async def edge(state: Any) -> str:
        reached.set()
        if fails:
            await asyncio.Event().wait()
        return "next"

    async def other(state: Any) -> Any:
        if fails:
            await reached.wait()
            raise ValueError(fails.pop())
        return {"items": []}

    builder: StateGraph[Any] = StateGraph(Log)
    builder.add_node("node", acts("node"))
    builder.add_node("next", lambda state: {"items": []})
    builder.add_node("other", other)
    builder.add_edge(START, "node")
    builder.add_edge(START, "other")
    builder.add_conditional_edges("node", edge, ["next"])
    graph = builder.compile(checkpointer=saver)
    with pytest.raises(ValueError, match="True"):
        await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    state = await graph.ainvoke(None, CONFIG, durability=durability)
    assert state["items"] == ["node"]
    assert await effects.found() == once("node")


@pytest.mark.parametrize("is_below", [False, True], ids=["top", "below"])
async def test_what_handles_an_error_acts(
    saver: PostgresSaver, effects: Effects, durability: Any, is_below: bool
) -> None:
    """Once; what the node did that failed is dropped, but where it had given its result."""

    @task
    async def called() -> None:
        act("called")

    async def handler(state: Any) -> Any:
        act("handler")
        await called()
        return {"items": ["handled"]}

    async def fails(state: Any) -> Any:
        act("fails")
        raise ValueError("node")

    def edge(state: Any) -> str:
        raise ValueError("edge")

    for number, (node, given) in enumerate({fails: [], acts("node"): ["node"]}.items()):
        checkpointer = None if is_below else saver
        graph = with_an_edge(checkpointer, node, edge, error_handler=handler)
        graph = graph_of(saver, sub=graph) if is_below else graph
        config: Any = {"configurable": {"thread_id": f"handled {number}"}}
        state = await graph.ainvoke({"items": []}, config, durability=durability)
        assert state["items"] == [*given, "handled"]
    assert await effects.found() == {"called": 2, "handler": 2, "node": 1}


@pytest.mark.parametrize("fails", [False, True])
async def test_one_control_for_runs_of_several_threads(
    saver: PostgresSaver, effects: Effects, durability: Any, fails: bool
) -> None:
    """As it drains all of them: what one run does, or fails at, is nothing to another."""
    control, reached, goes = RunControl(), asyncio.Event(), asyncio.Event()

    async def slow(state: Any) -> Any:
        act("slow")
        reached.set()
        await goes.wait()
        return {"items": ["slow"]}

    async def other(state: Any) -> Any:
        act("bad" if fails else "other")
        return {"items": ["other"]}

    def run(graph: Any, thread_id: str) -> Any:
        config: Any = {"configurable": {"thread_id": thread_id}}
        return graph.ainvoke({"items": []}, config, durability=durability, control=control)

    first = asyncio.create_task(run(graph_of(saver, slow=slow, last=acts("last")), "first"))
    await asyncio.wait_for(reached.wait(), HANG_SECONDS)
    with pytest.raises(ServerError) if fails else contextlib.nullcontext():
        await run(graph_of(saver, slow=other), "second")
    goes.set()
    assert (await first)["items"] == ["slow", "last"]
    assert await effects.found() == once("slow", "last", *([] if fails else ["other"]))
