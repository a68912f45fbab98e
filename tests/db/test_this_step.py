"""What is written with `this_step()` is there, once, if and only if the step's result is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.cache.memory import InMemoryCache
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import CachePolicy, Command, Send, interrupt

from langgraph_pgsaga import PostgresSaver, sync
from langgraph_pgsaga.errors import ServerError
from langgraph_pgsaga.events import AgentEvent, EventStore
from langgraph_pgsaga.work import this_step
from tests.db._effects import Effects, once
from tests.db._gates import CONFIG, Log, graph_of
from tests.db._steps import act, acts, acts_sync, channels_of, nested, stored_items
from tests.db.test_order import Host

pytestmark = pytest.mark.anyio


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(monkeypatch)


async def test_nodes_effects_are_there_with_their_results(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """Sync and async nodes, one after the other: each effect once, and no mark is stored."""
    graph = graph_of(saver, a=acts("a"), b=acts_sync("b"), c=acts("c"))
    await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    assert await effects.found() == once("a", "b", "c")
    assert await stored_items(saver) == ["a", "b", "c"]
    assert await channels_of(saver) == []


def test_of_a_sync_run(sync_saver: PostgresSaver, dsn: str, durability: Any) -> None:
    """The same where the graph is invoked without a loop."""
    effects = Effects(dsn)
    asyncio.run(effects.make())
    graph = graph_of(sync_saver, a=acts_sync("a"), b=acts_sync("b"), c=acts_sync("c"))
    graph.invoke({"items": []}, CONFIG, durability=durability)
    assert effects.found_now() == once("a", "b", "c")


async def test_effects_come_with_the_result_and_not_before(
    saver: PostgresSaver, effects: Effects
) -> None:
    """While the node runs nothing is there; when its writes are stored, the effect is."""
    seen: list[Any] = []

    async def node(state: Any) -> Any:
        act("a")
        seen.append(await effects.found())
        return {"items": ["a"]}

    async def after(state: Any) -> Any:
        seen.append(await effects.found())
        return {"items": ["b"]}

    graph = graph_of(saver, node=node, after=after)
    await graph.ainvoke({"items": []}, CONFIG, durability="sync")
    assert seen == [{}, once("a")]


async def test_a_node_without_an_answer_and_one_at_the_end(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """A node that returns nothing has finished all the same."""

    async def node(state: Any) -> None:
        act("silent")

    await graph_of(saver, node=node).ainvoke({"items": ["x"]}, CONFIG, durability=durability)
    assert await effects.found() == once("silent")
    assert [value for _, value in await channels_of(saver)] in ([None], [])
    state = await graph_of(saver.anew(), node=node).aget_state(CONFIG)
    assert state.next == ()


async def test_parallel_tasks_and_sends(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """Tasks of one step each have their own."""

    async def spread(state: Any) -> Command[Any]:
        act("spread")
        return Command(goto=[Send("one", n) for n in range(5)])

    async def one(n: Any) -> Any:
        act(f"one {n}")
        return {"items": [n]}

    builder: StateGraph[Any] = StateGraph(Log)
    builder.add_node("spread", spread)
    of_one: Any = one
    builder.add_node("one", of_one)
    builder.add_edge(START, "spread")
    graph = builder.compile(checkpointer=saver)
    await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    assert await effects.found() == once("spread", *(f"one {n}" for n in range(5)))


async def test_cached_tasks(saver: PostgresSaver, effects: Effects, durability: Any) -> None:
    """A task whose result comes from a cache doesn't act again."""
    builder: StateGraph[Any] = StateGraph(Log)
    builder.add_node("node", acts("node"), cache_policy=CachePolicy(key_func=lambda _: "key"))
    builder.add_edge(START, "node")
    graph = builder.compile(checkpointer=saver, cache=InMemoryCache())
    for thread_id in ("t", "u"):
        config: Any = {"configurable": {"thread_id": thread_id}}
        await graph.ainvoke({"items": []}, config, durability=durability)
        assert await stored_items(saver, config) == ["node"]
    assert await effects.found() == once("node")


async def test_the_functional_api(saver: PostgresSaver, effects: Effects, durability: Any) -> None:
    """Tasks and entrypoint act once, also where the entrypoint fails between and is resumed."""
    fails = [True]

    @task
    async def step(n: int) -> int:
        act(f"task {n}")
        return n

    @entrypoint(checkpointer=saver)
    async def flow(n: int) -> int:
        act("entrypoint")
        found = await step(1) + await step(2)
        if fails:
            raise ValueError(fails.pop())
        return found

    with pytest.raises(ValueError, match="True"):
        await flow.ainvoke(1, CONFIG, durability=durability)
    assert await effects.found() == once("task 1", "task 2")
    assert await flow.ainvoke(None, CONFIG, durability=durability) == 3
    assert await effects.found() == once("entrypoint", "task 1", "task 2")


async def test_a_tool(saver: PostgresSaver, effects: Effects, durability: Any) -> None:
    """A tool acts with the node that calls it."""

    @tool
    def look() -> str:
        """Looks."""
        act("tool")
        return "seen"

    async def ask(state: MessagesState) -> dict[str, Any]:
        call = {"name": "look", "args": {}, "id": "1", "type": "tool_call"}
        return {"messages": [AIMessage("", tool_calls=[call])]}

    builder: StateGraph[Any] = StateGraph(MessagesState)
    builder.add_node("ask", ask)
    builder.add_node("tools", ToolNode([look]))
    builder.add_edge(START, "ask")
    builder.add_edge("ask", "tools")
    await builder.compile(checkpointer=saver).ainvoke(
        {"messages": []}, CONFIG, durability=durability
    )
    assert await effects.found() == once("tool")


async def test_values_are_taken_as_they_are(saver: PostgresSaver, effects: Effects) -> None:
    """What the node changes afterwards isn't written."""

    async def node(state: Any) -> Any:
        names = ["a", "b"]
        this_step().sql("insert into effects (name) select unnest($1::text[])", names)
        names[:] = ["x"]
        return {"items": []}

    await graph_of(saver, node=node).ainvoke({"items": []}, CONFIG)
    assert await effects.found() == once("a", "b")


async def test_events_are_appended_with_the_step(saver: PostgresSaver, durability: Any) -> None:
    """An event is returned at once, without a version, and is there with the result."""
    store = EventStore(saver.db)
    data = {"n": [1]}

    async def node(state: Any) -> Any:
        event = AgentEvent(event_type="done", event_data=data)
        [told] = await store.append("order", [event], aggregate_type="o", conn=this_step())
        data["n"].append(2)
        assert (told.event_id, told.version) == (event.event_id, None)
        assert await store.get_events("order", aggregate_type="o") == []
        return {"items": ["node"]}

    def in_a_thread(state: Any) -> Any:
        own = sync.EventStore(saver.db)
        event = AgentEvent(
            event_type="more", event_data={}, aggregate_id="order", aggregate_type="o"
        )
        assert own.append_event(event, conn=this_step()).correlation_id == "t"
        return {"items": ["sync"]}

    graph = graph_of(saver, node=node, sync=in_a_thread)
    await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    found = await store.get_events("order", aggregate_type="o")
    assert [(e.version, str(e.event_type), e.event_data) for e in found] == [
        (1, "done", {"n": [1]}),
        (2, "more", {}),
    ]


def asks_then(*names: str) -> Any:
    """A node that acts once it is answered."""

    async def node(state: Any) -> Any:
        interrupt("may I?")
        for name in names:
            act(name)
        return {"items": list(names)}

    return node


@pytest.mark.parametrize("is_inside", [False, True], ids=["graph", "subgraph"])
async def test_a_run_of_a_host_whose_clock_is_behind(
    saver: PostgresSaver, effects: Effects, durability: Any, host: Host, is_inside: bool
) -> None:
    """Its checkpoints have lower ids than the one at which its first step was planned."""
    asking = asks_then("a")
    graph = nested(saver, asking) if is_inside else graph_of(saver, a=asking, b=acts("b"))
    host.is_off_by(60)
    await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    host.is_off_by(-60)
    await graph.ainvoke(Command(resume="yes"), CONFIG, durability=durability)
    others = ("top", "before0", "first", "end") if is_inside else ("b",)
    assert sorted(set(await stored_items(saver))) == sorted(("a", *others))
    assert await effects.found() == once("a", *others)


async def test_an_effect_that_fails_on_a_host_whose_clock_is_behind(
    saver: PostgresSaver, effects: Effects, durability: Any, host: Host
) -> None:
    """No later checkpoint has its step's result."""
    graph = graph_of(saver, a=asks_then("bad"), b=acts("b"))
    host.is_off_by(60)
    await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    host.is_off_by(-60)
    with pytest.raises(ServerError):
        await graph.ainvoke(Command(resume="yes"), CONFIG, durability=durability)
    assert await stored_items(saver) == []
    assert await effects.found() == {}
