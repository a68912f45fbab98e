"""The session's status follows its runs."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext, suppress
from typing import Any

import asyncpg
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.serde.types import ERROR
from langgraph.errors import GraphRecursionError
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, StateUpdate, interrupt

from langgraph_pgsaga import Database, PostgresSaver
from langgraph_pgsaga.errors import ThreadLeasedError
from langgraph_pgsaga.sessions import Sessions, SessionStatus
from tests._limits import HANG_SECONDS
from tests.db._gates import (
    CONFIG,
    Gate,
    Log,
    adds,
    fails,
    finish,
    graph_of,
    in_the_middle,
    status,
    value,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def other(dsn: str) -> AsyncIterator[PostgresSaver]:
    """A saver of another process, as far as leases go."""
    async with PostgresSaver.from_conn_string(dsn, single_writer=True) as saver:
        yield saver


@pytest.fixture
async def single(dsn: str) -> AsyncIterator[PostgresSaver]:
    async with PostgresSaver.from_conn_string(dsn, single_writer=True) as saver:
        yield saver


async def test_the_status_follows_the_run(saver: PostgresSaver) -> None:
    """Active while a run goes on, then completed; paused where somebody made the next state."""
    gate = Gate()
    graph = graph_of(saver, gate=gate, end=adds("end"))
    run = await in_the_middle(graph, gate)
    assert await status(saver) is SessionStatus.ACTIVE
    await finish(run, gate)
    assert await status(saver) is SessionStatus.COMPLETED
    await graph.aupdate_state(CONFIG, {"items": ["edit"]}, as_node="gate")
    assert await status(saver) is SessionStatus.PAUSED
    await graph.ainvoke(None, CONFIG)
    assert await status(saver) is SessionStatus.COMPLETED
    begun = [state async for state in graph.aget_state_history(CONFIG)][-2]
    await graph.aupdate_state(begun.config, None, as_node="__copy__")
    assert await status(saver) is SessionStatus.PAUSED


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (["__input__"], SessionStatus.PAUSED),
        (["one"], SessionStatus.PAUSED),
        (["one", "two"], SessionStatus.COMPLETED),
        (["two"], SessionStatus.COMPLETED),
        (["two", "one"], SessionStatus.PAUSED),
    ],
    ids=str,
)
async def test_the_status_of_a_thread_that_updates_began(
    saver: PostgresSaver, nodes: list[str], expected: SessionStatus
) -> None:
    """Paused where nodes are to run, else completed; so it is after the run that follows."""
    graph = graph_of(saver, one=adds(1), two=adds(2))
    for node in nodes:
        await graph.aupdate_state(CONFIG, {"items": ["made"]}, as_node=node)
    assert await status(saver) is expected
    await graph.ainvoke(None, CONFIG)
    assert await status(saver) is SessionStatus.COMPLETED
    await saver.adelete_thread("t")
    updates = [[StateUpdate({"items": ["made"]}, node)] for node in nodes]
    await graph.abulk_update_state(CONFIG, updates)
    assert await status(saver) is expected


async def test_the_status_of_an_entrypoints_thread_that_an_update_began(
    saver: PostgresSaver,
) -> None:
    """Completed: what it returned is there, and nothing is to run."""

    @entrypoint(checkpointer=saver)
    async def flow(given: int, *, previous: int | None = None) -> int:
        return given + (previous or 0)

    await flow.aupdate_state(CONFIG, 1)
    assert await status(saver) is SessionStatus.COMPLETED
    assert await flow.ainvoke(1, CONFIG) == 2


def by_invoke(graph: Any) -> Any:
    return asyncio.to_thread(graph.invoke, {"items": []}, CONFIG)


def by_ainvoke(graph: Any) -> Any:
    return graph.ainvoke({"items": []}, CONFIG)


@pytest.mark.parametrize("call", [by_invoke, by_ainvoke])
@pytest.mark.parametrize("inner", [False, True], ids=["", "in a subgraph"])
async def test_the_status_after_questions_and_errors(
    saver: PostgresSaver, call: Callable[[Any], Awaitable[Any]], inner: bool
) -> None:
    """Paused after an interrupt and failed after an error, also inside a subgraph."""

    def asks(state: Any) -> Any:
        return {"items": [interrupt("?")]}

    def breaks(state: Any) -> Any:
        raise OSError("broken")

    def nested(node: Any) -> Any:
        return graph_of(None, node=node) if inner else node

    await call(graph_of(saver, node=nested(asks)))
    assert await status(saver) is SessionStatus.PAUSED
    await saver.adelete_thread("t")
    with pytest.raises(OSError, match="broken"):
        await call(graph_of(saver, node=nested(breaks)))
    assert await status(saver) is SessionStatus.FAILED


async def stands(saver: PostgresSaver, dsn: str) -> tuple[SessionStatus | None, bool]:
    """The thread's status, and whether a run has its lease, once an error of it is stored."""
    failed = "(select count(*) from agent_state_writes where channel = '__error__')"
    async with asyncio.timeout(HANG_SECONDS):
        while not await value(dsn, failed):
            await asyncio.sleep(0)
    is_leased = await value(dsn, "coalesce(lease_expires_at > now(), false)")
    return await status(saver), bool(is_leased)


@pytest.mark.parametrize("durability", ["sync", "async"])
async def test_a_run_goes_on_after_an_error_that_a_handler_takes(
    single: PostgresSaver, dsn: str, durability: Any
) -> None:
    """It is active and keeps its lease, in the handler and after it."""
    seen = []

    async def look(state: Any) -> Any:
        seen.append(await stands(single, dsn))
        return {"items": [len(seen)]}

    async def handle(state: Any) -> Any:
        return Command(update=await look(state), goto="after")

    builder: StateGraph[Any] = StateGraph(Log)
    builder.add_node("one", adds(0))
    builder.add_node("breaks", fails, error_handler=handle)
    builder.add_node("after", look)
    builder.add_edge(START, "one")
    builder.add_edge("one", "breaks")
    graph = builder.compile(checkpointer=single)
    answer = await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    assert answer["items"] == [0, 1, 2]
    assert seen == [(SessionStatus.ACTIVE, True)] * 2
    assert await stands(single, dsn) == (SessionStatus.COMPLETED, False)


@pytest.mark.parametrize("is_caught", [True, False])
async def test_a_run_goes_on_after_a_tasks_error_that_is_caught(
    single: PostgresSaver, dsn: str, is_caught: bool
) -> None:
    """What a function calls ends its run only where the function ends by it."""
    seen = []

    @task
    async def breaks() -> None:
        raise OSError("broken")

    @entrypoint(checkpointer=single)
    async def work(value: int) -> int:
        with suppress(OSError) if is_caught else nullcontext():
            await breaks()
        seen.append(await stands(single, dsn))
        return value

    if is_caught:
        assert await work.ainvoke(1, CONFIG) == 1
        assert seen == [(SessionStatus.ACTIVE, True)]
        assert await stands(single, dsn) == (SessionStatus.COMPLETED, False)
    else:
        with pytest.raises(OSError, match="broken"):
            await work.ainvoke(1, CONFIG)
        assert await stands(single, dsn) == (SessionStatus.FAILED, False)


def loop_of(saver: Any, rounds: int | None = None) -> Any:
    """Two nodes one after the other, again and again, or so many times."""

    def again(state: Any) -> str:
        return END if rounds is not None and len(state["items"]) >= 2 * rounds else "one"

    builder: StateGraph[Any] = StateGraph(Log)
    builder.add_node("one", adds(1))
    builder.add_node("two", adds(2))
    builder.add_edge(START, "one")
    builder.add_edge("one", "two")
    builder.add_conditional_edges("two", again)
    return builder.compile(checkpointer=saver)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_run_that_ends_by_the_recursion_limit_has_failed(
    single: PostgresSaver, other: PostgresSaver, durability: Any
) -> None:
    """Its nodes that are left aren't run; each run counts its steps from its own beginning."""
    graph = loop_of(single)
    for limit, given in ((3, {"items": []}), (4, None), (1, None), (7, {"items": []})):
        config: RunnableConfig = {**CONFIG, "recursion_limit": limit}
        with pytest.raises(GraphRecursionError):
            await graph.ainvoke(given, config, durability=durability)
        assert await status(single) is SessionStatus.FAILED
        assert (await graph.aget_state(CONFIG)).next
    # It has given its lease back.
    await graph_of(other, one=adds("end")).ainvoke({"items": []}, CONFIG)
    assert await status(single) is SessionStatus.COMPLETED


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_run_that_ends_at_its_recursion_limit_is_complete(
    saver: PostgresSaver, durability: Any
) -> None:
    """Where the last step that the limit allows leaves no node, LangGraph raises all the same,
    but nothing is left to run."""
    config: RunnableConfig = {**CONFIG, "recursion_limit": 2}
    with pytest.raises(GraphRecursionError):
        await loop_of(saver, 1).ainvoke({"items": []}, config, durability=durability)
    assert await status(saver) is SessionStatus.COMPLETED


def test_a_sync_run_that_ends_by_the_recursion_limit_has_failed(dsn: str) -> None:
    """The same for threads, and for a stream whose parts are asked for in other contexts."""
    with PostgresSaver.from_conn_string(dsn) as saver:
        graph = graph_of(saver, one=lambda s: {"items": [1]}, two=lambda s: {"items": [2]})
        config: RunnableConfig = {**CONFIG, "recursion_limit": 1}
        with pytest.raises(GraphRecursionError):
            graph.invoke({"items": []}, config)
        assert asyncio.run(status(saver)) is SessionStatus.FAILED
        stream = graph.stream({"items": []}, config)
        assert contextvars.Context().run(next, stream) == {"one": {"items": [1]}}
        with pytest.raises(GraphRecursionError):
            contextvars.Context().run(next, stream)
        assert asyncio.run(status(saver)) is SessionStatus.FAILED


async def test_a_run_goes_on_before_a_deferred_node_behind_several(
    single: PostgresSaver, other: PostgresSaver
) -> None:
    """Where nothing else is left to do: the thread is active, and the lease is its run's."""
    gate = Gate()

    def built(saver: PostgresSaver, node: Any) -> Any:
        builder: StateGraph[Any] = StateGraph(Log)
        builder.add_node("both", node, defer=True)
        for name in ("one", "two"):
            builder.add_node(name, adds(name))
            builder.add_edge(START, name)
        builder.add_edge(["one", "two"], "both")
        return builder.compile(checkpointer=saver)

    run = await in_the_middle(built(single, gate), gate)
    assert await status(single) is SessionStatus.ACTIVE
    with pytest.raises(ThreadLeasedError):
        await built(other, adds("else")).ainvoke({"items": ["other"]}, CONFIG, durability="sync")
    await finish(run, gate)
    assert await status(single) is SessionStatus.COMPLETED


async def test_a_run_in_progress_is_active_to_its_last_step(saver: PostgresSaver) -> None:
    """A look at the thread, or an earlier run of it, doesn't count a run's steps."""
    graph = loop_of(saver, 4)
    with pytest.raises(GraphRecursionError):
        await graph.ainvoke({"items": []}, {**CONFIG, "recursion_limit": 2}, durability="sync")
    seen = []
    config: RunnableConfig = {**CONFIG, "recursion_limit": 8}
    async for _ in graph.astream(None, config, durability="sync", stream_mode="checkpoints"):
        await graph.aget_state(CONFIG)
        seen.append(await status(saver))
    assert seen[-1] is SessionStatus.COMPLETED
    # A resumed run's first is the one that it begins at.
    assert set(seen[1:-1]) == {SessionStatus.ACTIVE}


async def test_a_run_that_takes_its_whole_limit_is_active_to_its_last_step(
    saver: PostgresSaver,
) -> None:
    """The step before the last that the limit allows isn't taken for it."""
    seen = []

    async def run() -> None:
        config: RunnableConfig = {**CONFIG, "recursion_limit": 4}
        parts = loop_of(saver, 2).astream(
            {"items": []}, config, durability="sync", stream_mode="checkpoints"
        )
        async for _ in parts:
            seen.append(await status(saver))  # noqa: PERF401 - as far as it comes

    with pytest.raises(GraphRecursionError):
        await run()
    assert await status(saver) is SessionStatus.COMPLETED
    # The first comes before anything is stored.
    assert (
        {SessionStatus.ACTIVE} <= set(seen) <= {None, SessionStatus.ACTIVE, SessionStatus.COMPLETED}
    )


async def test_a_run_at_a_breakpoint_or_cancelled_stays_active(saver: PostgresSaver) -> None:
    """Nodes are left to run, and none has failed."""
    graph = graph_of(saver, one=adds(1), two=adds(2))
    await graph.ainvoke({"items": []}, CONFIG, interrupt_before=["two"])
    assert await status(saver) is SessionStatus.ACTIVE
    await graph.ainvoke(None, CONFIG, interrupt_after=["two"])
    # No node is left at this one.
    assert await status(saver) is SessionStatus.COMPLETED
    gate = Gate()
    run = await in_the_middle(graph_of(saver, gate=gate), gate)
    run.cancel()
    await asyncio.wait([run])
    assert await status(saver) is SessionStatus.ACTIVE
    await saver.aput_writes(
        (await saver.aget_tuple(CONFIG)).config,  # type: ignore[union-attr]
        [(ERROR, asyncio.CancelledError())],
        "a task that could say so",
    )
    assert await status(saver) is SessionStatus.ACTIVE


async def copied(saver: PostgresSaver, until: RunnableConfig | None) -> SessionStatus:
    """The status of a copy of the thread."""
    await saver.adelete_thread("copy")
    configurable = (until or {}).get("configurable") or {}
    await saver.acopy_thread("t", "copy", checkpoint_id=configurable.get("checkpoint_id"))
    found = await Sessions(saver.db).get("copy")
    assert found is not None
    return found.status


async def test_a_copy_stands_as_the_state_that_was_copied(saver: PostgresSaver) -> None:
    """Nodes are left to run, or a question is open, or somebody made the state, or it's the end."""

    def asks(state: Any) -> Any:
        return {"items": [interrupt("?")]}

    builder: StateGraph[Any] = StateGraph(Log)
    for name, node in (("one", adds(1)), ("asks", asks), ("side", adds(2)), ("end", adds(3))):
        builder.add_node(name, node)
    builder.add_edge(START, "one")
    builder.add_conditional_edges("one", lambda state: [Send("asks", {"items": []}), "side"])
    builder.add_edge(["asks", "side"], "end")
    graph = builder.compile(checkpointer=saver)
    await graph.ainvoke({"items": []}, CONFIG)
    assert await copied(saver, None) is SessionStatus.PAUSED
    await graph.ainvoke(Command(resume="!"), CONFIG)
    await graph.aupdate_state(CONFIG, {"items": ["edit"]}, as_node="one")
    await graph.ainvoke(Command(resume="!"), CONFIG)
    history = [state async for state in graph.aget_state_history(CONFIG)]
    found = [(state.next, await copied(saver, state.config)) for state in reversed(history)]
    assert found[0] == (("__start__",), SessionStatus.ACTIVE)
    assert found[1] == (("one",), SessionStatus.ACTIVE)
    assert sorted(found[2][0]) == ["asks", "side"]
    assert found[2][1] is SessionStatus.PAUSED
    assert found[3] == (("end",), SessionStatus.ACTIVE)
    assert found[4] == ((), SessionStatus.COMPLETED)
    assert sorted(found[5][0]) == ["asks", "side"]
    assert found[5][1] is SessionStatus.PAUSED
    assert found[-1][1] is await status(saver)


async def test_a_copy_of_what_cant_be_loaded_is_made(saver: PostgresSaver, dsn: str) -> None:
    """It needs nothing loaded: then it has the status of its source."""
    graph = graph_of(saver, one=adds(1), two=adds(2))
    await graph.ainvoke({"items": []}, CONFIG)
    history = [state async for state in graph.aget_state_history(CONFIG)]
    conn = await asyncpg.connect(dsn)
    await conn.execute("update agent_states set exact_type = 'msgpack', exact = '\\xc1'")
    await conn.close()
    assert await copied(saver, history[1].config) is SessionStatus.COMPLETED


async def test_a_graph_that_says_nothing_of_its_nodes_leaves_the_status(
    saver: PostgresSaver, dsn: str
) -> None:
    """Checkpoints of no StateGraph don't tell whether the run goes on."""
    await saver.aput(
        {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}, empty_checkpoint(), {}, {}
    )
    assert await status(saver) is SessionStatus.ACTIVE
    async with Database(dsn) as db:
        await Sessions(db).set_status("t", SessionStatus.FAILED)
        found = await saver.aget_tuple(CONFIG)
        assert found is not None
        await saver.aput(found.config, {**empty_checkpoint(), "id": "2"}, {}, {})
    assert await status(saver) is SessionStatus.FAILED
