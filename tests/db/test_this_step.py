"""What is written with `this_step()` is there, once, if and only if the step's result is."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphInterrupt
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.runtime import RunControl
from langgraph.types import CachePolicy, Command, RetryPolicy, Send, interrupt

from langgraph_pgsaga import Database, PostgresSaver, sync
from langgraph_pgsaga.checkpoint import riders
from langgraph_pgsaga.errors import (
    InvalidArgumentError,
    NoStepError,
    ServerError,
    StepEndedError,
    StepNotStoredError,
    TransactionEndedError,
    VersionConflictError,
)
from langgraph_pgsaga.events import AgentEvent, EventStore
from langgraph_pgsaga.sessions import Sessions
from langgraph_pgsaga.work import Step, this_step, written
from tests._connections import connected
from tests._limits import HANG_SECONDS
from tests.db._effects import INSERT, Effects, once
from tests.db._gates import CONFIG, Log, graph_of
from tests.db.test_order import Host

pytestmark = pytest.mark.anyio

DURABILITIES = ["sync", "async", "exit"]
FAST = RetryPolicy(initial_interval=0.0, jitter=False, retry_on=ValueError)


def act(name: str) -> None:
    this_step().sql(INSERT, name)


def acts(name: str) -> Any:
    """An async node that acts and appends."""

    async def node(state: Any) -> Any:
        act(name)
        return {"items": [name]}

    return node


def acts_sync(name: str) -> Any:
    def node(state: Any) -> Any:
        act(name)
        return {"items": [name]}

    return node


@pytest.fixture
async def effects(dsn: str) -> Effects:
    effects = Effects(dsn)
    await effects.make()
    return effects


@pytest.fixture(params=DURABILITIES)
def durability(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(monkeypatch)


async def stored_items(saver: PostgresSaver, config: Any = CONFIG) -> list[Any]:
    found = await saver.anew().aget_tuple(config)
    return [] if found is None else found.checkpoint["channel_values"].get("items", [])


async def channels_of(saver: PostgresSaver) -> list[tuple[str, Any]]:
    """What tasks wrote to no channel, at all checkpoints."""
    return [
        (channel, value)
        async for found in saver.alist(CONFIG)
        for _, channel, value in found.pending_writes or ()
        if channel == "__no_writes__"
    ]


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


def nested(saver: Any, node: Any, *, depth: int = 2, inner_first: Any = None) -> Any:
    """The node in a graph in a graph."""
    graph: Any = graph_of(None, first=inner_first or acts("first"), node=node)
    for level in range(depth - 1):
        graph = graph_of(None, **{f"before{level}": acts(f"before{level}"), f"sub{level}": graph})
    return graph_of(saver, top=acts("top"), sub=graph, end=acts("end"))


async def test_subgraphs(saver: PostgresSaver, effects: Effects, durability: Any) -> None:
    """Nodes of a subgraph, and of one within it, act once."""
    graph = nested(saver, acts("deep"))
    await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    assert await effects.found() == once("top", "before0", "first", "deep", "end")


async def test_a_subgraph_that_is_stopped_in_the_middle(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """What its finished nodes did is there with their results, and not done again."""

    async def asks(state: Any) -> Any:
        act("asks")
        return {"items": [interrupt("?")]}

    graph = nested(saver, asks)
    await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    assert await effects.found() == once("top", "before0", "first")
    graph = nested(saver.anew(), asks)
    await graph.ainvoke(Command(resume="yes"), CONFIG, durability=durability)
    assert await effects.found() == once("top", "before0", "first", "asks", "end")


async def test_a_subgraph_that_fails_in_the_middle(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """The same where a node of it fails, and the run is resumed."""
    fails = [True]

    async def node(state: Any) -> Any:
        act("node")
        if fails:
            raise ValueError(fails.pop())
        return {"items": ["node"]}

    graph = nested(saver, node)
    with pytest.raises(ValueError, match="True"):
        await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    assert await effects.found() == once("top", "before0", "first")
    await graph.ainvoke(None, CONFIG, durability=durability)
    assert await effects.found() == once("top", "before0", "first", "node", "end")


async def test_a_handoff_to_the_parent(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """A node that leaves its subgraph acts with the task that it was in."""

    async def leaves(state: Any) -> Command[Any]:
        act("leaves")
        return Command(goto="other", graph=Command.PARENT, update={"items": ["left"]})

    inner = graph_of(None, first=acts("first"), leaves=leaves)
    builder: StateGraph[Any] = StateGraph(Log)
    builder.add_node("sub", inner, destinations=("other",))
    builder.add_node("other", acts("other"))
    builder.add_edge(START, "sub")
    graph = builder.compile(checkpointer=saver)
    await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    assert await effects.found() == once("first", "leaves", "other")
    assert "left" in await stored_items(saver)
    assert await channels_of(saver) == []


async def test_a_handoff_whose_parent_is_tried_again(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """What the subgraph's node did in the parent's first attempt is dropped."""
    attempts: list[int] = []

    async def leaves(state: Any) -> Command[Any]:
        attempts.append(len(attempts) + 1)
        act(f"attempt {attempts[-1]}")
        return Command(goto="other", graph=Command.PARENT)

    inner = graph_of(None, leaves=leaves)

    async def calls(state: Any) -> Any:
        if len(attempts) == 2:
            return {"items": ["without"]}
        try:
            return await inner.ainvoke(state)
        except Exception:
            raise ValueError("again") from None

    builder: StateGraph[Any] = StateGraph(Log)
    builder.add_node("calls", calls, retry_policy=FAST)
    builder.add_edge(START, "calls")
    await builder.compile(checkpointer=saver).ainvoke({"items": []}, CONFIG, durability=durability)
    assert await effects.found() == {}


async def test_a_handoff_after_a_retry(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """What the attempt before did isn't done, though the parent's task finishes."""
    attempts: list[int] = []

    async def leaves(state: Any) -> Command[Any]:
        attempts.append(len(attempts))
        if len(attempts) == 1:
            act("of the first attempt")
            raise ValueError
        return Command(goto="other", graph=Command.PARENT)

    builder: StateGraph[Any] = StateGraph(Log)
    builder.add_node("leaves", leaves, retry_policy=FAST)
    builder.add_edge(START, "leaves")
    outer: StateGraph[Any] = StateGraph(Log)
    outer.add_node("sub", builder.compile(), destinations=("other",))
    outer.add_node("other", acts("other"))
    outer.add_edge(START, "sub")
    await outer.compile(checkpointer=saver).ainvoke({"items": []}, CONFIG, durability=durability)
    assert await effects.found() == once("other")


async def test_a_parent_that_swallows_a_question(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """What a node did before it asked isn't done, though the node that called it goes on."""

    async def asks(state: Any) -> Any:
        act("asks")
        return {"items": [interrupt("?")]}

    inner = graph_of(None, asks=asks)

    async def calls(state: Any) -> Any:
        with contextlib.suppress(GraphInterrupt):
            await inner.ainvoke(state)
        return {"items": ["swallowed"]}

    graph = graph_of(saver, calls=calls, end=acts("end"))
    await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    assert await effects.found() == once("end")


async def test_a_parent_that_swallows_its_subgraphs_end(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """What a failed node of a subgraph did isn't done, though the node that called it goes on."""

    async def fails(state: Any) -> Any:
        act("fails")
        raise ValueError

    inner = graph_of(None, fine=acts("fine"), fails=fails)

    async def calls(state: Any) -> Any:
        act("calls")
        try:
            await inner.ainvoke(state)
        except ValueError:
            return {"items": ["swallowed"]}

    await graph_of(saver, calls=calls, end=acts("end")).ainvoke(
        {"items": []}, CONFIG, durability=durability
    )
    assert await effects.found() == once("calls", "fine", "end")


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


# What fails


async def test_an_effect_that_fails_ends_its_run_and_no_other(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """Nothing of the call is stored, no later checkpoint has its result, and others go on."""

    async def node(state: Any) -> Any:
        act("bad" if state["items"] == ["bad"] else "fine")
        return {"items": ["node"]}

    graph = graph_of(saver, node=node, after=acts("after"))

    async def run(name: str) -> Any:
        config: Any = {"configurable": {"thread_id": name}}
        return await graph.ainvoke({"items": [name]}, config, durability=durability)

    names = ["bad", "good", "better", "best"]
    answers = await asyncio.gather(*map(run, names), return_exceptions=True)
    assert isinstance(answers[0], ServerError)
    assert answers[0].sqlstate == "23514"
    assert answers[1:] == [{"items": [name, "node", "after"]} for name in names[1:]]
    assert await effects.found() == {"after": 3, "fine": 3}
    async for found in saver.anew().alist({"configurable": {"thread_id": "bad"}}):
        assert found.checkpoint["channel_values"].get("items", []) in ([], ["bad"])
        assert ["node"] not in [value for _, _, value in found.pending_writes or ()]


async def test_a_table_of_ones_own_that_is_missing_is_told_as_that(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """It isn't this package's migrations that are missing; of a transaction's work neither."""

    async def node(state: Any) -> Any:
        this_step().sql("insert into efects (name) values ($1)", "misspelt")
        return {"items": ["node"]}

    with pytest.raises(ServerError, match="efects") as caught:
        await graph_of(saver, node=node).ainvoke({"items": []}, CONFIG, durability=durability)
    assert (caught.value.sqlstate, "migrat" in str(caught.value)) == ("42P01", False)
    with pytest.raises(ServerError, match="efects"):
        await saver.db.run(lambda conn: conn.fetch("select from efects"))
    with pytest.raises(ServerError, match="nosuch"):
        await saver.db.run(lambda conn: conn.fetch("select nosuch()"), once=True)


@pytest.mark.parametrize("ending", ["commit", "rollback"])
async def test_an_effect_that_ends_the_transaction_ends_its_run(
    saver: PostgresSaver, effects: Effects, ending: str
) -> None:
    """What was rolled back isn't taken for stored."""

    async def node(state: Any) -> Any:
        act("node")
        this_step().sql(ending)
        return {"items": ["node"]}

    with pytest.raises(TransactionEndedError):
        await graph_of(saver, node=node).ainvoke({"items": []}, CONFIG, durability="sync")
    assert await effects.found() == ({} if ending == "rollback" else once("node"))


async def test_a_checkpoint_waits_for_a_steps_call_no_longer_than_it_says(
    saver: PostgresSaver, effects: Effects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where somebody holds up an effect. What is stored of the step after all counts, once."""
    monkeypatch.setattr(riders, "_LONGEST_WAIT_SECONDS", 0.2)
    async with connected(effects.dsn) as other:
        await other.execute("begin")
        await other.execute("lock table effects in exclusive mode")
        graph = graph_of(saver, node=acts("node"), after=acts("after"))
        real, going = riders._not_stored, []

        def not_stored(level: Any) -> StepNotStoredError:
            # LangGraph ends a run once all its calls have ended.
            going.append(asyncio.ensure_future(other.execute("rollback")))
            return real(level)

        monkeypatch.setattr(riders, "_not_stored", not_stored)
        with pytest.raises(StepNotStoredError, match="isn't stored"):
            await graph.ainvoke({"items": []}, CONFIG, durability="async")
        await asyncio.gather(*going)
    monkeypatch.undo()
    assert (await graph.ainvoke(None, CONFIG))["items"] == ["node", "after"]
    assert await effects.found() == once("node", "after")


def test_an_effect_that_fails_in_a_sync_run(
    sync_saver: PostgresSaver, dsn: str, durability: Any
) -> None:
    """The same where calls come from several threads, in whatever order."""
    effects = Effects(dsn)
    asyncio.run(effects.make())
    graph = graph_of(sync_saver, node=acts_sync("bad"), after=acts_sync("after"))
    with pytest.raises(ServerError):
        graph.invoke({"items": []}, CONFIG, durability=durability)
    assert effects.found_now() == {}
    found = sync_saver.anew().get_tuple(CONFIG)
    assert found is None or found.checkpoint["channel_values"].get("items", []) == []


async def test_a_value_that_cant_be_stored_takes_the_effect_with_it(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """A result that is refused leaves no effect."""

    async def node(state: Any) -> Any:
        act("node")
        return {"items": [threading.Lock()]}

    with pytest.raises(Exception, match="lock"):
        await graph_of(saver, node=node, after=acts("after")).ainvoke(
            {"items": []}, CONFIG, durability=durability
        )
    assert await effects.found() == {}


# What is said


async def test_outside_of_a_node_it_says_what_to_do() -> None:
    with pytest.raises(NoStepError, match=r"outside of a node.*db.transaction\(\)"):
        this_step()


@pytest.mark.parametrize("checkpointer", [None, InMemorySaver()], ids=["none", "memory"])
async def test_with_another_saver_it_says_which_is_needed(checkpointer: Any) -> None:
    with pytest.raises(NoStepError, match="Compile the graph with a PostgresSaver"):
        await graph_of(checkpointer, node=acts("a")).ainvoke({"items": []}, CONFIG)


async def test_a_subgraph_that_stores_nothing(saver: PostgresSaver, effects: Effects) -> None:
    """With checkpointer=False no step of it is stored, so none takes an effect."""
    builder: StateGraph[Any] = StateGraph(Log)
    builder.add_node("node", acts("a"))
    builder.add_edge(START, "node")
    inner = builder.compile(checkpointer=False)
    with pytest.raises(NoStepError, match="checkpointer=False"):
        await graph_of(saver, sub=inner).ainvoke({"items": []}, CONFIG)
    assert await effects.found() == {}


async def test_of_another_database_it_is_refused(
    saver: PostgresSaver, new_database: Callable[..., str], effects: Effects
) -> None:
    other = Database(await asyncio.to_thread(new_database))
    same = Database(effects.dsn)

    async def insert(conn: Any) -> None:
        await conn.execute(INSERT, "same")

    async def node(state: Any) -> Any:
        with pytest.raises(NoStepError, match="which can't commit what is in"):
            await written(this_step(), other, insert, known=None)
        await written(this_step(), same, insert, known=None)
        return {"items": []}

    await graph_of(saver, node=node).ainvoke({"items": []}, CONFIG)
    assert await effects.found() == once("same")


async def test_where_it_isnt_taken_it_says_so(saver: PostgresSaver, effects: Effects) -> None:
    """A method that needs an answer of the connection refuses it, and does nothing."""

    async def node(state: Any) -> Any:
        step: Any = this_step()
        with pytest.raises(InvalidArgumentError, match=r"this_step\(\) isn't taken here"):
            await Sessions(saver.db).update("t", priority=5, conn=step)
        return {"items": []}

    await graph_of(saver, node=node).ainvoke({"items": []}, CONFIG)


async def test_a_step_that_has_ended_takes_nothing(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """Kept by the node it is refused later, and that of an attempt that failed in the next."""
    kept: list[Step] = []

    async def node(state: Any) -> Any:
        kept.append(this_step())
        if len(kept) == 1:
            raise ValueError
        with pytest.raises(StepEndedError, match="'node'"):
            kept[0].sql(INSERT, "of the first attempt")
        return {"items": ["node"]}

    async def later(state: Any) -> Any:
        with pytest.raises(StepEndedError, match="'node'"):
            kept[1].sql(INSERT, "later")
        return {"items": ["later"]}

    builder: StateGraph[Any] = StateGraph(Log)
    builder.add_node("node", node, retry_policy=FAST)
    builder.add_node("later", later)
    builder.add_edge(START, "node")
    builder.add_edge("node", "later")
    await builder.compile(checkpointer=saver).ainvoke({"items": []}, CONFIG, durability=durability)
    with pytest.raises(StepEndedError):
        kept[1].sql(INSERT, "last")
    assert await effects.found() == {}


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


async def test_an_event_that_is_refused_ends_the_run(saver: PostgresSaver) -> None:
    """Its typed error is the run's, and nothing of the step is there."""
    store = EventStore(saver.db)

    async def node(state: Any) -> Any:
        event = AgentEvent(event_type="done", event_data={})
        await store.append(
            "order", [event], aggregate_type="o", expected_version=3, conn=this_step()
        )
        return {"items": ["node"]}

    with pytest.raises(VersionConflictError):
        await graph_of(saver, node=node, after=acts("after")).ainvoke({"items": []}, CONFIG)
    assert await stored_items(saver) == []


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
