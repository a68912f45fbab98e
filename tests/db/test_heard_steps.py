"""What heard the result of a step that was refused isn't stored: subgraphs, other tasks."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import ServerError
from langgraph_pgsaga.work import this_step
from tests.conftest import execute
from tests.db._effects import Effects
from tests.db._gates import CONFIG, Log, graph_of
from tests.db._steps import DURABILITIES, act

pytestmark = pytest.mark.anyio

REFUSE = "alter table effects add constraint none_yet check (name not like 'paid%')"
ALLOW = "alter table effects drop constraint none_yet"
NAMES = re.compile(r"(?:paid|own)-\d+")


class Names:
    """A name of its own for each execution, so that it is known which one a result is of."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def act(self, what: str) -> str:
        name = f"{what}-{next(self._numbers)}"
        if what == "paid":  # so that others come to their calls first
            this_step().sql("select pg_sleep(0.1)")
        act(name)
        return name

    def node(self, what: str) -> Any:
        async def node(state: Any) -> Any:
            return {"items": [self.act(what)]}

        return node

    def task(self, what: str) -> Any:
        @task
        async def acts() -> str:
            return self.act(what)

        return acts


async def hears(state: Any) -> Any:
    return {"items": [f"heard {state['items'][-1]}"]}


def subgraph_of_its_own(saver: PostgresSaver, names: Names) -> Any:
    """It is found by its name, whatever its parent has stored."""
    builder: StateGraph[Any] = StateGraph(Log).add_node("hears", hears).add_edge(START, "hears")
    own: Any = builder.compile(checkpointer=True)
    return graph_of(saver, paid=names.node("paid"), own=own)


def acting_subgraph(saver: PostgresSaver, names: Names) -> Any:
    return graph_of(saver, paid=names.node("paid"), sub=graph_of(None, own=names.node("own")))


def subgraph_behind_a_task(saver: PostgresSaver, names: Names) -> Any:
    pay, inner = names.task("paid"), graph_of(None, hears=hears)

    async def node(state: Any) -> Any:
        return await inner.ainvoke({"items": [await pay()]})

    return graph_of(saver, node=node)


def subgraph_in_a_task(saver: PostgresSaver, names: Names) -> Any:
    pay, inner = names.task("paid"), graph_of(None, hears=hears, own=names.node("own"))

    @task
    async def goes_on(paid: str) -> Any:
        return await inner.ainvoke({"items": [paid]})

    @entrypoint(checkpointer=saver)
    async def flow(given: Any) -> Any:
        return await goes_on(await pay())

    return flow


def subgraph_behind_a_subgraph(saver: PostgresSaver, names: Names) -> Any:
    first, second = graph_of(None, paid=names.node("paid")), graph_of(None, hears=hears)

    async def node(state: Any) -> Any:
        return await second.ainvoke(await first.ainvoke(state))

    return graph_of(saver, node=node)


def task_behind_a_task(saver: PostgresSaver, names: Names) -> Any:
    pay = names.task("paid")

    @task
    async def told(paid: str) -> str:
        return f"heard {paid}"

    @entrypoint(checkpointer=saver)
    async def flow(given: Any) -> Any:
        paid = await pay()
        return {"items": [paid, await told(paid)]}

    return flow


def acting_task_behind_a_task(saver: PostgresSaver, names: Names) -> Any:
    pay = names.task("paid")

    @task
    async def told(paid: str) -> str:
        return f"{names.act('own')} heard {paid}"

    @entrypoint(checkpointer=saver)
    async def flow(given: Any) -> Any:
        paid = await pay()
        return {"items": [paid, await told(paid)]}

    return flow


def task_behind_a_subgraph(saver: PostgresSaver, names: Names) -> Any:
    first = graph_of(None, paid=names.node("paid"))

    @task
    async def told(found: Any) -> str:
        return f"heard {found['items'][-1]}"

    async def node(state: Any) -> Any:
        return {"items": [await told(await first.ainvoke({"items": []}))]}

    return graph_of(saver, node=node)


MADE: list[Callable[[PostgresSaver, Names], Any]] = [
    subgraph_of_its_own,
    acting_subgraph,
    subgraph_behind_a_task,
    subgraph_in_a_task,
    subgraph_behind_a_subgraph,
    task_behind_a_task,
    acting_task_behind_a_task,
    task_behind_a_subgraph,
]


@pytest.mark.parametrize(
    ("make", "durability"),
    [
        (make, durability)
        for make in MADE
        for durability in DURABILITIES
        # Which stores its state when it ends, and its parent's later: a known limit.
        if (make, durability) != (subgraph_of_its_own, "exit")
    ],
)
async def test_what_heard_of_a_refused_step_isnt_stored(
    saver: PostgresSaver, effects: Effects, durability: Any, make: Any
) -> None:
    """Executed again, all that is in the state has acted, and all that acted is in it."""
    await execute(effects.dsn, REFUSE)
    graph = make(saver, Names())
    with pytest.raises(ServerError, match="none_yet"):
        await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    assert await effects.found() == {}
    await execute(effects.dsn, ALLOW)
    given: Any = None if await saver.aget_tuple(CONFIG) else {"items": []}
    answer = await graph.ainvoke(given, CONFIG, durability=durability)
    assert dict.fromkeys(NAMES.findall(repr(answer)), 1) == await effects.found()


@pytest.mark.parametrize("durability", DURABILITIES)
def test_of_a_sync_run(sync_saver: PostgresSaver, dsn: str, durability: Any) -> None:
    """The same where calls come from several threads."""
    effects, names = Effects(dsn), Names()
    asyncio.run(effects.make())
    asyncio.run(execute(dsn, REFUSE))

    @task
    def pay() -> str:
        return names.act("paid")

    @task
    def told(paid: str) -> str:
        return f"heard {paid}"

    def hears_now(state: Any) -> Any:
        return {"items": [f"heard {state['items'][-1]}"]}

    inner = graph_of(None, hears=hears_now)

    @entrypoint(checkpointer=sync_saver)
    def flow(given: Any) -> Any:
        paid = pay().result()
        return {"items": [told(paid).result(), inner.invoke({"items": [paid]})]}

    with pytest.raises(ServerError, match="none_yet"):
        flow.invoke({"items": []}, CONFIG, durability=durability)
    asyncio.run(execute(dsn, ALLOW))
    given: Any = None if sync_saver.get_tuple(CONFIG) else {"items": []}
    answer = flow.invoke(given, CONFIG, durability=durability)
    assert dict.fromkeys(NAMES.findall(repr(answer)), 1) == effects.found_now()


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_tasks_beside_each_other_wait_for_none(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """What acts at the same time, and what goes on from all of it, comes to its end."""
    names = Names()
    inner = graph_of(None, own=names.node("own"), more=names.node("own"))

    @task
    async def calls(given: Any) -> Any:
        return (await inner.ainvoke(given))["items"]

    pay = names.task("paid")

    @entrypoint(checkpointer=saver)
    async def flow(given: Any) -> Any:
        beside = await asyncio.gather(*(calls({"items": []}) for _ in range(3)), pay(), pay())
        return {"items": [beside, await calls({"items": []})]}

    async with asyncio.timeout(25):  # a call that waits for another gives up after 30 s
        answer = await flow.ainvoke({"items": []}, CONFIG, durability=durability)
    assert dict.fromkeys(NAMES.findall(repr(answer)), 1) == await effects.found()
    assert len(await effects.found()) == 10


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("is_sub", [True, False], ids=["of a subgraph", "of a task"])
async def test_what_heard_of_a_step_is_dropped_with_it(
    saver: PostgresSaver, effects: Effects, durability: Any, is_sub: bool
) -> None:
    """Where their caller fails, a task that heard of another is executed again, if that is."""
    names, fails = Names(), [True]
    first: Any = graph_of(None, own=names.node("own"))
    act_first = names.task("own")

    @task
    async def told(found: Any) -> str:
        return f"heard {found}"

    async def node(state: Any) -> Any:
        found = (await first.ainvoke({"items": []}))["items"] if is_sub else await act_first()
        answer = await told(found)
        if fails:
            raise ValueError(fails.pop())
        return {"items": [found, answer]}

    graph = graph_of(saver, node=node)
    with pytest.raises(ValueError, match="True"):
        await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    answer = await graph.ainvoke(None, CONFIG, durability=durability)
    assert dict.fromkeys(NAMES.findall(repr(answer)), 1) == await effects.found()


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_what_heard_of_a_refused_step_where_their_caller_fails(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """Under "exit", too, which stores what tasks gave where their node didn't end."""
    await execute(effects.dsn, REFUSE)
    names, fails = Names(), [True]
    pay = names.task("paid")

    @task
    async def told(found: Any) -> str:
        return f"heard {found}"

    async def node(state: Any) -> Any:
        answer = await told(await pay())
        if fails:
            raise ValueError(fails.pop())
        return {"items": [answer]}

    graph = graph_of(saver, node=node)
    with pytest.raises((ValueError, ServerError)):
        await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    await execute(effects.dsn, ALLOW)
    answer = await graph.ainvoke(None, CONFIG, durability=durability)
    assert dict.fromkeys(NAMES.findall(repr(answer)), 1) == await effects.found()


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_tasks_of_a_subgraph_that_asks_wait_for_none(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """Under "exit" what they did waits for the graphs above, their results don't."""
    names = Names()
    first, second = names.task("own"), names.task("own")

    @task
    async def calls() -> Any:
        return await first()

    @task
    async def told(found: Any) -> str:
        return f"{await second()}, heard {found}"

    async def node(state: Any) -> Any:
        answer = await told(await calls())
        return {"items": [answer, interrupt("?")]}

    graph = graph_of(saver, sub=graph_of(None, node=node))
    async with asyncio.timeout(25):
        await graph.ainvoke({"items": []}, CONFIG, durability=durability)
        answer = await graph.ainvoke(Command(resume="yes"), CONFIG, durability=durability)
    assert dict.fromkeys(NAMES.findall(repr(answer)), 1) == await effects.found()
    assert len(await effects.found()) == 2
