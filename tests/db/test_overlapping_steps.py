"""Two executions of one task overlap: one of them acts, with the result that is stored."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langgraph.graph import START, StateGraph

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.checkpoint.riders import RidingQueue
from langgraph_pgsaga.errors import LeaseError, StepNotStoredError
from tests._limits import HANG_SECONDS
from tests.db._effects import Effects, once
from tests.db._gates import CONFIG, Log, end_leases, graph_of
from tests.db._steps import DURABILITIES, act, acts, acts_sync, stored_items

pytestmark = pytest.mark.anyio


class HeldCalls:
    """Holds up the calls of one saver that store steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, saver: PostgresSaver, held: str) -> None:
        self.are_coming, self.open = asyncio.Event(), asyncio.Event()
        self.ended = asyncio.Event()
        call = getattr(saver, held)

        async def stored(queue: Any, *given: Any) -> None:
            if isinstance(queue, RidingQueue):
                self.are_coming.set()
                await self.open.wait()
            try:
                await call(queue, *given)
            finally:
                self.ended.set()

        monkeypatch.setattr(saver, held, stored)


async def stands_still(state: Any) -> Any:
    await asyncio.sleep(HANG_SECONDS)


async def ends(state: Any) -> Any:
    return {"items": ["beside"]}


def _builder(**nodes: Any) -> StateGraph[Any]:
    """Nodes that all begin at once, after one that asks nothing and acts not."""
    builder: StateGraph[Any] = StateGraph(Log)
    for name, node in nodes.items():
        builder.add_node(name, node).add_edge(START, name)
    return builder


async def _planned(saver: PostgresSaver, builder: StateGraph[Any]) -> None:
    """Has the checkpoint stored at which the nodes are planned."""
    before = builder.compile(checkpointer=saver, interrupt_before="*")
    await before.ainvoke({"items": []}, CONFIG)


@pytest.mark.parametrize("durability", ["sync", "async"])
async def test_of_two_runs_at_one_checkpoint_one_acts(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """The later one's is refused; its run ends, and the thread goes on from the other's."""
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def first(state: Any) -> Any:
        act("a")
        begun.set()
        await goes_on.wait()
        return {"items": ["the first's"]}

    async def second(state: Any) -> Any:
        act("a")
        return {"items": ["the second's"]}

    await _planned(saver, _builder(a=first))
    slow = _builder(a=first).compile(checkpointer=saver.anew())
    run = asyncio.create_task(slow.ainvoke(None, CONFIG, durability=durability))
    await asyncio.wait_for(begun.wait(), HANG_SECONDS)
    fast = _builder(a=second).compile(checkpointer=saver.anew())
    await fast.ainvoke(None, CONFIG, durability=durability)
    goes_on.set()
    with pytest.raises(StepNotStoredError, match="another execution"):
        await run
    assert await effects.found() == once("a")
    assert await stored_items(saver) == ["the second's"]


async def _cancelled(graph: Any, held: HeldCalls, durability: Any) -> None:
    """A run of which one node ended, cancelled again and again until it waits for nothing."""
    has_ended = asyncio.Event()

    async def follow() -> None:
        async for _ in graph.astream(
            {"items": []}, CONFIG, durability=durability, stream_mode="updates"
        ):
            has_ended.set()

    run = asyncio.create_task(follow())
    await asyncio.wait_for(has_ended.wait(), HANG_SECONDS)
    if durability == "exit":
        run.cancel()
    await asyncio.wait_for(held.are_coming.wait(), HANG_SECONDS)
    while not run.done():
        run.cancel()
        await asyncio.sleep(0)


async def _until_planned(saver: PostgresSaver) -> None:
    """Returns when the checkpoint is there at which the nodes are planned: under "async" it may
    be on its way, and who begins before goes on from the one before."""
    while True:
        found = await saver.anew().aget_tuple(CONFIG)
        if found is not None and found.metadata["step"] == 0:
            return
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("single_writer", [False, True])
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_what_comes_after_its_run_was_cancelled_acts_once(
    saver: PostgresSaver,
    effects: Effects,
    monkeypatch: pytest.MonkeyPatch,
    durability: Any,
    single_writer: bool,
) -> None:
    """Its last writes come when the next run has begun, which executes the same task."""
    saver = PostgresSaver(saver.db, single_writer=single_writer)
    held = HeldCalls(monkeypatch, saver, "_put_writes")
    cancelled = _builder(a=acts("a"), beside=stands_still).compile(checkpointer=saver)
    await _cancelled(cancelled, held, durability)
    await _until_planned(saver)
    await end_leases(saver.db.dsn)
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def again(state: Any) -> Any:
        act("a")
        begun.set()
        await goes_on.wait()
        return {"items": ["a"]}

    later = _builder(a=again, beside=ends).compile(checkpointer=saver.anew())
    run = asyncio.create_task(later.ainvoke(None, CONFIG, durability=durability))
    await asyncio.wait_for(begun.wait(), HANG_SECONDS)
    held.open.set()
    await asyncio.wait_for(held.ended.wait(), HANG_SECONDS)
    goes_on.set()
    with pytest.raises((StepNotStoredError, LeaseError)):
        await run
    await end_leases(saver.db.dsn)
    await later.ainvoke(None, CONFIG, durability=durability)
    assert await effects.found() == once("a")
    assert sorted(await stored_items(saver)) == ["a", "beside"]


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_a_replay_acts_again(saver: PostgresSaver, effects: Effects, durability: Any) -> None:
    """Who goes on from a checkpoint whose tasks have their results wants them executed."""
    graph = graph_of(saver, a=acts("a"), b=acts("b"))
    await graph.ainvoke({"items": []}, CONFIG)
    at = [found.config async for found in graph.aget_state_history(CONFIG) if "b" in found.next]
    for times in (2, 3):
        await graph.ainvoke(None, at[0], durability=durability)
        assert await effects.found() == {"a": 1, "b": times}
    assert await stored_items(saver) == ["a", "b"]


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_a_replay_acts_again_in_subgraphs(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """Whose checkpoint of that time LangGraph finds by a listing."""
    inner = graph_of(None, deep=graph_of(None, b=acts("b")), c=acts("c"))
    graph = graph_of(saver, a=acts("a"), sub=inner)
    await graph.ainvoke({"items": []}, CONFIG)
    at = [found.config async for found in graph.aget_state_history(CONFIG) if "sub" in found.next]
    for times in (2, 3):
        await graph.ainvoke(None, at[0], durability=durability)
        assert await effects.found() == {"a": 1, "b": times, "c": times}


def test_a_sync_replay_acts_again_in_subgraphs(sync_saver: PostgresSaver, dsn: str) -> None:
    """The same where nodes and calls are in threads."""
    effects = Effects(dsn)
    asyncio.run(effects.make())
    graph = graph_of(sync_saver, a=acts_sync("a"), sub=graph_of(None, b=acts_sync("b")))
    graph.invoke({"items": []}, CONFIG)
    at = [found.config for found in graph.get_state_history(CONFIG) if "sub" in found.next]
    graph.invoke(None, at[0])
    assert effects.found_now() == {"a": 1, "b": 2}


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_an_error_handler_whose_result_is_stored_acts_no_more(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """LangGraph executes it again where a run is resumed in the step in which it ran."""
    handled, has_resumed = 0, False

    async def fails(state: Any) -> Any:
        raise ValueError

    async def handler(state: Any) -> Any:
        nonlocal handled
        handled += 1
        act("handler")
        return {"items": ["handled"]}

    async def beside(state: Any) -> Any:
        return {"items": ["beside"]} if has_resumed else await asyncio.sleep(HANG_SECONDS)

    builder = _builder(beside=beside).add_node("fails", fails, error_handler=handler)
    graph = builder.add_edge(START, "fails").compile(checkpointer=saver)
    updates: Any = graph.astream(
        {"items": []}, CONFIG, durability=durability, stream_mode="updates"
    )
    async with asyncio.timeout(HANG_SECONDS):
        async for _ in updates:
            break
    await updates.aclose()
    while not await effects.found():
        await asyncio.sleep(0.01)
    has_resumed = True
    await graph.ainvoke(None, CONFIG, durability=durability)
    assert handled == 2
    assert await effects.found() == once("handler")
    assert sorted(await stored_items(saver)) == ["beside", "handled"]
