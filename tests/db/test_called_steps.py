"""A task's result isn't stored where an effect of what it is made of was refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from langgraph.types import Command

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.checkpoint.riders import RidingQueue
from langgraph_pgsaga.errors import ServerError
from tests._limits import HANG_SECONDS
from tests.conftest import execute
from tests.db._effects import Effects, once
from tests.db._gates import CONFIG, Log, graph_of
from tests.db._steps import DURABILITIES, act

pytestmark = pytest.mark.anyio

ROOT: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
REFUSE = "alter table effects add constraint none_yet check (name <> 'paid')"
ALLOW = "alter table effects drop constraint none_yet"


@task
async def pay() -> str:
    act("paid")
    return "paid"


@task
async def pays_by_a_task() -> str:
    return await pay()


def entrypoint_of(saver: PostgresSaver) -> Any:
    @entrypoint(checkpointer=saver)
    async def flow(given: Any) -> Any:
        return {"items": [await pay()]}

    return flow


def acting_entrypoint(saver: PostgresSaver) -> Any:
    """It has a transaction of its own, too."""

    @entrypoint(checkpointer=saver)
    async def flow(given: Any) -> Any:
        paid = await pay()
        act("flow")
        return {"items": [paid]}

    return flow


def task_of_a_task(saver: PostgresSaver) -> Any:
    @entrypoint(checkpointer=saver)
    async def flow(given: Any) -> Any:
        return {"items": [await pays_by_a_task()]}

    return flow


def task_of_a_node(saver: PostgresSaver) -> Any:
    async def node(state: Any) -> Any:
        return {"items": [await pay()]}

    return graph_of(saver, node=node)


def task_beside_what_fails(saver: PostgresSaver) -> Any:
    """Stored as pending writes under durability "exit", too."""
    fails = [True]

    async def node(state: Any) -> Any:
        return {"items": [await pay()]}

    async def beside(state: Any) -> Any:
        await asyncio.sleep(0.05 if fails else 0)
        if fails:
            raise ValueError(fails.pop())

    builder: StateGraph[Any] = StateGraph(Log)
    builder.add_node("node", node).add_edge(START, "node")
    builder.add_node("beside", beside).add_edge(START, "beside")
    return builder.compile(checkpointer=saver)


def handoff(saver: PostgresSaver) -> Any:
    """A node takes along what the one before it gave, and leaves."""

    async def leaves(state: Any) -> Any:
        return Command(update={"items": state["items"]}, goto="end", graph=Command.PARENT)

    async def end(state: Any) -> Any:
        return {}

    async def first(state: Any) -> Any:
        act("paid")
        return {"items": ["paid"]}

    builder: StateGraph[Any] = StateGraph(Log)
    builder.add_node("sub", graph_of(None, first=first, leaves=leaves), destinations=("end",))
    builder.add_node("end", end).add_edge(START, "sub")
    return builder.compile(checkpointer=saver)


MADE = [
    entrypoint_of,
    acting_entrypoint,
    task_of_a_task,
    task_of_a_node,
    task_beside_what_fails,
    handoff,
]


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("make", MADE)
async def test_what_is_made_of_a_refused_step_isnt_stored(
    saver: PostgresSaver, effects: Effects, durability: Any, make: Any
) -> None:
    """Executed again once the effect is allowed, both are there."""
    await execute(effects.dsn, REFUSE)
    graph = make(saver)
    with pytest.raises((ServerError, ValueError)):
        await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    async for found in saver.anew().alist(ROOT):
        assert "paid" not in repr((found.checkpoint["channel_values"], found.pending_writes))
    assert await effects.found() == {}
    await execute(effects.dsn, ALLOW)
    given: Any = None if await saver.aget_tuple(CONFIG) else {"items": []}
    answer = await graph.ainvoke(given, CONFIG, durability=durability)
    assert answer["items"] == ["paid"]
    assert await effects.found() == once("paid", *["flow"] * (make is acting_entrypoint))


@pytest.mark.parametrize("durability", DURABILITIES)
def test_of_a_sync_run(sync_saver: PostgresSaver, dsn: str, durability: Any) -> None:
    """The same where calls come from several threads."""
    effects = Effects(dsn)
    asyncio.run(effects.make())
    asyncio.run(execute(dsn, REFUSE))

    @task
    def pay_now() -> str:
        act("paid")
        return "paid"

    @entrypoint(checkpointer=sync_saver)
    def flow(given: Any) -> Any:
        return {"items": [pay_now().result()]}

    with pytest.raises(ServerError):
        flow.invoke({"items": []}, CONFIG, durability=durability)
    asyncio.run(execute(dsn, ALLOW))
    given: Any = None if sync_saver.get_tuple(CONFIG) else {"items": []}
    assert flow.invoke(given, CONFIG, durability=durability) == {"items": ["paid"]}
    assert effects.found_now() == once("paid")


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_what_isnt_awaited_holds_nobody_up(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """A task that still goes on when its caller has ended isn't part of the result."""
    has_ended = asyncio.Event()

    @task
    async def slow() -> str:
        act("slow")
        await has_ended.wait()
        return "slow"

    @entrypoint(checkpointer=saver)
    async def flow(given: Any) -> Any:
        slow()
        asyncio.get_running_loop().call_later(0.3, has_ended.set)
        return {"items": [await pay()]}

    assert await flow.ainvoke({"items": []}, CONFIG, durability=durability) == {"items": ["paid"]}
    assert await effects.found() in (once("paid", "slow"), once("paid"))


class HeldSteps:
    """Holds up the calls of a saver that store steps; tells when they, and a failure, came."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, saver: PostgresSaver) -> None:
        self.open, self.has_failed = asyncio.Event(), asyncio.Event()
        self.has_ended = asyncio.Event()
        call = saver._put_writes

        async def stored(queue: Any, *given: Any) -> None:
            if isinstance(queue, RidingQueue):
                await self.open.wait()
                try:
                    await call(queue, *given)
                finally:
                    self.has_ended.set()
            else:
                await call(queue, *given)
            if any(channel == "__error__" for channel, _ in given[3]):
                self.has_failed.set()

        monkeypatch.setattr(saver, "_put_writes", stored)


async def test_who_gives_up_a_subgraph_tells_nobody_that_its_step_is_stored(
    saver: PostgresSaver, effects: Effects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that failed while the call of a step below it was on its way, which is refused."""
    held = HeldSteps(monkeypatch, saver)
    has_begun = asyncio.Event()

    async def first(state: Any) -> Any:
        act("bad")
        return {"items": ["bad"]}

    async def second(state: Any) -> Any:
        has_begun.set()
        await asyncio.sleep(HANG_SECONDS)

    inner = graph_of(None, first=first, second=second)

    async def gives_up(state: Any) -> Any:
        run = asyncio.create_task(inner.ainvoke(state))
        await has_begun.wait()
        while not run.done():
            run.cancel()
            await asyncio.sleep(0)
        raise ValueError("given up")

    puts: list[Any] = []
    put = saver.aput

    async def noted(*given: Any) -> Any:
        puts.append(asyncio.current_task())
        return await put(*given)

    monkeypatch.setattr(saver, "aput", noted)
    graph = graph_of(saver, gives_up=gives_up)
    with pytest.raises(ValueError, match="given up"):
        await graph.ainvoke({"items": []}, CONFIG, durability="async")
    await asyncio.wait_for(held.has_failed.wait(), HANG_SECONDS)
    held.open.set()
    await asyncio.wait_for(held.has_ended.wait(), HANG_SECONDS)
    await asyncio.wait(puts, timeout=HANG_SECONDS)
    async for found in saver.anew().alist(CONFIG):
        left = found.checkpoint["channel_values"], found.pending_writes
        assert "'bad'" not in repr(left)
