"""One writer per thread: the leases of runs."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import asyncpg
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import INTERRUPT
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.checkpoint.call_store import CallStore
from langgraph_pgsaga.checkpoint.write_queue import WriteQueue
from langgraph_pgsaga.errors import (
    InvalidArgumentError,
    LeaseError,
    LeaseLostError,
    ThreadLeasedError,
)
from langgraph_pgsaga.sessions import Sessions, SessionStatus
from langgraph_pgsaga.takeover import ReadThroughSaver, import_threads
from tests._limits import HANG_SECONDS
from tests.db._gates import (
    CONFIG,
    Gate,
    Log,
    adds,
    end_leases,
    finish,
    graph_of,
    in_the_middle,
    is_one_line,
    rows,
    status,
    value,
)

pytestmark = pytest.mark.anyio


async def loaded(
    saver: PostgresSaver, begin: Callable[[Any], Awaitable[Any]]
) -> tuple[asyncio.Future[Any], asyncio.Event]:
    """A call that stands between loading its state and its first write, until the event."""
    have_loaded, go_on = asyncio.Event(), asyncio.Event()
    fetch = saver._fetch

    async def slow(address: Any) -> Any:
        saver._fetch = fetch  # type: ignore[method-assign]
        found = await fetch(address)
        have_loaded.set()
        await go_on.wait()
        return found

    saver._fetch = slow  # type: ignore[method-assign]
    run = asyncio.ensure_future(begin(graph_of(saver, one=adds("two"))))
    await asyncio.wait_for(have_loaded.wait(), HANG_SECONDS)
    return run, go_on


# Runs of savers with single_writer


@pytest.mark.parametrize("is_new", [True, False], ids=["a new thread", "a thread"])
async def test_a_second_run_is_refused(
    single: PostgresSaver, other: PostgresSaver, is_new: bool
) -> None:
    """While a run goes on, another one, of whatever process, is refused and changes nothing."""
    if not is_new:
        await graph_of(single, one=adds(1)).ainvoke({"items": [0]}, CONFIG)
    gate = Gate()
    run = await in_the_middle(graph_of(single, gate=gate, end=adds("end")), gate)
    for saver in (other, single):
        with pytest.raises(ThreadLeasedError, match="'t'") as refused:
            await graph_of(saver, one=adds("second")).ainvoke({"items": ["second"]}, CONFIG)
        assert refused.value.holder
        assert refused.value.expires_at
    assert "second" not in (await finish(run, gate))["items"]
    assert await is_one_line(single)
    answer = await graph_of(other, one=adds("after")).ainvoke({"items": []}, CONFIG)
    assert answer["items"][-2:] == ["end", "after"]


async def test_a_saver_that_knows_no_leases_is_refused_too(single: PostgresSaver, dsn: str) -> None:
    """Leases count for everybody who writes to the database."""
    gate = Gate()
    run = await in_the_middle(graph_of(single, gate=gate), gate)
    async with PostgresSaver.from_conn_string(dsn) as plain:
        with pytest.raises(ThreadLeasedError):
            await graph_of(plain, one=adds("second")).ainvoke({"items": ["second"]}, CONFIG)
        with pytest.raises(ThreadLeasedError):
            await graph_of(plain, one=adds(1)).aupdate_state(CONFIG, {"items": [1]}, as_node="one")
    assert (await finish(run, gate))["items"] == ["begun", "through"]
    assert await is_one_line(single)


async def test_two_tasks_of_one_context_are_two_runs(single: PostgresSaver) -> None:
    """Runs that were begun together, after another one of the same task, don't share its lease."""
    graph = graph_of(single, one=adds(1), two=adds(2))
    await graph.ainvoke({"items": []}, CONFIG)
    runs = (graph.ainvoke({"items": [n]}, CONFIG) for n in ("a", "b", "c", "d"))
    answers = await asyncio.gather(*runs, return_exceptions=True)
    refused = [one for one in answers if isinstance(one, LeaseError)]
    done = [one for one in answers if isinstance(one, dict)]
    assert len(refused) + len(done) == 4
    assert done
    assert await is_one_line(single)


async def test_a_run_that_lost_its_lease_writes_nothing(
    single: PostgresSaver, other: PostgresSaver, dsn: str
) -> None:
    """A run that wakes up after its lease ended and another run came is refused for good."""
    gate = Gate()
    run = await in_the_middle(graph_of(single, gate=gate, end=adds("end")), gate)
    await end_leases(dsn)
    await graph_of(other, one=adds("other")).ainvoke({"items": ["new"]}, CONFIG)
    before = await rows(dsn)
    with pytest.raises(LeaseLostError, match="'t'"):
        await finish(run, gate)
    assert await rows(dsn) == before
    assert await is_one_line(single)


async def test_a_lease_that_ended_is_kept_while_nobody_came(
    single: PostgresSaver, dsn: str
) -> None:
    """A node may take longer than the lease, as long as nobody else wrote meanwhile."""
    gate = Gate()
    run = await in_the_middle(graph_of(single, gate=gate, end=adds("end")), gate)
    await end_leases(dsn)
    assert (await finish(run, gate))["items"] == ["begun", "through", "end"]


async def test_a_plain_write_takes_an_ended_lease_away(single: PostgresSaver, dsn: str) -> None:
    """The run whose lease ended doesn't go on beside what a saver without leases wrote."""
    gate = Gate()
    run = await in_the_middle(graph_of(single, gate=gate, end=adds("end")), gate)
    await end_leases(dsn)
    async with PostgresSaver.from_conn_string(dsn) as plain:
        await graph_of(plain, one=adds(1)).aupdate_state(CONFIG, {"items": [1]}, as_node="one")
        with pytest.raises(LeaseLostError):
            await finish(run, gate)
        assert await is_one_line(plain)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_runs_that_began_at_once_dont_fork(
    single: PostgresSaver, other: PostgresSaver, durability: Any
) -> None:
    """Of two runs that loaded the same state, the second is refused even when the first is over."""
    await graph_of(single, one=adds(1)).ainvoke({"items": []}, CONFIG)

    run, go_on = await loaded(
        other, lambda graph: graph.ainvoke({"items": ["x"]}, CONFIG, durability=durability)
    )
    await graph_of(single, one=adds(2)).ainvoke({"items": []}, CONFIG, durability=durability)
    go_on.set()
    with pytest.raises(LeaseLostError):
        await asyncio.wait_for(run, HANG_SECONDS)
    assert await is_one_line(single)


async def has_loaded(
    saver: PostgresSaver, durability: Any, how: str
) -> tuple[asyncio.Future[Any], asyncio.Event]:
    """A run, or an update, that has loaded its state and goes on with the event."""

    def begin(graph: Any) -> Awaitable[Any]:
        if how == "update":
            return graph.aupdate_state(CONFIG, {"items": ["x"]}, as_node="one")  # type: ignore[no-any-return]
        if how == "resume":
            again = graph_of(saver, one=adds("x"), gate=adds("x"), end=adds("x"))
            return again.ainvoke(None, CONFIG, durability=durability)  # type: ignore[no-any-return]
        return graph.ainvoke({"items": ["x"]}, CONFIG, durability=durability)  # type: ignore[no-any-return]

    return await loaded(saver, begin)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("how", ["run", "update", "resume"])
@pytest.mark.parametrize("by", ["another process", "this process"])
async def test_what_loaded_in_the_middle_of_a_run_is_refused_after_it(
    single: PostgresSaver, other: PostgresSaver, durability: Any, how: str, by: str
) -> None:
    """Between its first checkpoint and its last a run's lease stays the same, its thread doesn't:
    whoever loaded that in between would go on beside the run's last steps."""
    gate = Gate()
    run = await in_the_middle(graph_of(single, one=adds(1), gate=gate, end=adds("end")), gate)
    second, go_on = await has_loaded(single if by == "this process" else other, durability, how)
    await finish(run, gate)
    go_on.set()
    with pytest.raises(LeaseLostError):
        await asyncio.wait_for(second, HANG_SECONDS)
    assert await is_one_line(single)
    found = await single.aget_tuple(CONFIG)
    assert found is not None
    assert found.checkpoint["channel_values"]["items"] == ["begun", 1, "through", "end"]


@pytest.mark.parametrize("kind", ["a run", "a plain write"])
async def test_what_loaded_before_anything_was_stored_is_refused_after_it(
    single: PostgresSaver, other: PostgresSaver, dsn: str, kind: str
) -> None:
    """Also of a thread that is new, or that somebody wrote to without a lease meanwhile."""
    second, go_on = await has_loaded(other, "async", "run")
    async with PostgresSaver.from_conn_string(dsn) as plain:
        first = single if kind == "a run" else plain
        await graph_of(first, one=adds(1)).ainvoke({"items": []}, CONFIG)
        go_on.set()
        with pytest.raises(LeaseLostError):
            await asyncio.wait_for(second, HANG_SECONDS)
        second, go_on = await has_loaded(other, "async", "run")
        await graph_of(plain, one=adds(2)).ainvoke({"items": []}, CONFIG)
        go_on.set()
        with pytest.raises(LeaseLostError):
            await asyncio.wait_for(second, HANG_SECONDS)
    assert await is_one_line(single)


async def test_a_thread_that_has_a_session_and_no_state_is_begun(
    single: PostgresSaver, other: PostgresSaver
) -> None:
    """One that was created, and one all of whose checkpoints were deleted since."""
    await Sessions(single.db).create("t", user_id="ann")
    run: RunnableConfig = {**CONFIG, "metadata": {"run_id": "r"}}
    assert (await graph_of(single, one=adds(1)).ainvoke({"items": []}, run))["items"] == [1]
    await single.adelete_for_runs(["r"])
    assert await other.aget_tuple(CONFIG) is None
    assert (await graph_of(other, one=adds(2)).ainvoke({"items": []}, CONFIG))["items"] == [2]


async def test_a_run_whose_process_died_is_gone_on_with_from_its_end(
    single: PostgresSaver, other: PostgresSaver, dsn: str
) -> None:
    """Whoever loaded in the middle of a run that then died is refused; whoever loads after it
    goes on from its last checkpoint."""
    gate, later = Gate(), Gate()
    nodes = {"one": adds(1), "gate": gate, "later": later}
    run = await in_the_middle(graph_of(single, **nodes), gate)
    second, go_on = await has_loaded(other, "async", "run")
    gate.open.set()
    await asyncio.wait_for(later.reached.wait(), HANG_SECONDS)
    run.cancel()
    await asyncio.wait([run])
    await end_leases(dsn)
    go_on.set()
    with pytest.raises(LeaseLostError):
        await asyncio.wait_for(second, HANG_SECONDS)
    later.open.set()
    answer = await graph_of(other, **nodes).ainvoke(None, CONFIG)
    assert answer["items"] == ["begun", 1, "through", "through"]
    assert await is_one_line(single)


async def test_a_run_after_a_breakpoint_is_another_run(
    single: PostgresSaver, other: PostgresSaver
) -> None:
    """Whoever loaded the state at a breakpoint is refused when the run went on from there, by
    the same task too; and tasks that inherit that one's context are runs of their own."""
    graph = graph_of(single, one=adds(1), two=adds(2), three=adds(3))
    await graph.ainvoke({"items": []}, CONFIG, interrupt_before=["two"])
    run, go_on = await loaded(other, lambda graph: graph.ainvoke({"items": ["x"]}, CONFIG))
    await graph.ainvoke(None, CONFIG)
    go_on.set()
    with pytest.raises(LeaseLostError):
        await asyncio.wait_for(run, HANG_SECONDS)
    await graph.ainvoke({"items": []}, CONFIG, interrupt_before=["three"])
    runs = (graph.ainvoke(None, CONFIG) for _ in range(3))
    answers = await asyncio.gather(*runs, return_exceptions=True)
    assert [type(one) for one in answers] == [ThreadLeasedError] * 3
    assert (await graph.ainvoke(None, CONFIG))["items"] == [1, 2, 3] * 2
    assert await is_one_line(single)


async def test_sync_tasks_side_by_side_give_the_lease_back(
    single: PostgresSaver, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their questions end the run, though they are written in no context of its own, and
    before their checkpoint is."""
    questions = 0
    are_written = asyncio.Event()
    put, put_writes = single.aput, single.aput_writes

    async def late(config: Any, checkpoint: Any, metadata: Any, versions: Any) -> Any:
        if metadata["step"] == 0:
            await are_written.wait()
        return await put(config, checkpoint, metadata, versions)

    async def counted(config: Any, writes: Any, *rest: Any) -> None:
        nonlocal questions
        await put_writes(config, writes, *rest)
        questions += writes[0][0] == INTERRUPT
        if questions == 3:
            are_written.set()

    def asks(state: Any) -> Any:
        return {"items": [interrupt("?")]}

    monkeypatch.setattr(single, "aput", late)
    monkeypatch.setattr(single, "aput_writes", counted)
    builder: StateGraph[Any] = StateGraph(Log)
    for name in ("a", "b", "c"):
        builder.add_node(name, asks)
        builder.add_edge(START, name)
    graph = builder.compile(checkpointer=single)
    await asyncio.to_thread(graph.invoke, {"items": []}, CONFIG)
    assert await value(dsn, "lease_id") is not None
    assert await value(dsn, "lease_expires_at") is None


async def test_an_import_leaves_no_lease(single: PostgresSaver, dsn: str) -> None:
    """What was taken over from another saver can be gone on with by anybody at once."""
    old = InMemorySaver()
    graph = graph_of(old, one=adds(1), two=adds(2))
    await graph.ainvoke({"items": []}, CONFIG, interrupt_before=["two"])
    report = await import_threads(old, single, batch=1)
    assert report.threads[0].checkpoints == 3
    assert await value(dsn, "lease_id") is None


async def test_a_thread_is_moved_in_a_block(saver: PostgresSaver, single: PostgresSaver) -> None:
    """Imports, and a run whose first write moves its thread, are of the block they are in."""
    old = InMemorySaver()
    await graph_of(old, one=adds(1)).ainvoke({"items": []}, CONFIG)
    both: Any = ReadThroughSaver(saver, old)
    async with saver.lease("t"):
        answer = await graph_of(both, one=adds(2)).ainvoke({"items": []}, CONFIG)
        with pytest.raises(ThreadLeasedError):
            await graph_of(single, one=adds(3)).ainvoke({"items": []}, CONFIG)
    assert answer["items"] == [1, 2]
    await saver.adelete_thread("t")
    async with saver.lease("t"):
        assert not (await import_threads(old, saver)).threads[0].errors
    with pytest.raises(InvalidArgumentError, match="single_writer"):
        ReadThroughSaver(single, old)


async def test_an_interrupted_run_is_resumed_elsewhere_at_once(
    single: PostgresSaver, other: PostgresSaver
) -> None:
    """A run gives its lease back when it asks, and when it fails."""
    fails = [True]

    def asks(state: Any) -> Any:
        return {"items": [interrupt("?")]}

    def breaks(state: Any) -> Any:
        if fails:
            raise OSError("broken")
        return {"items": ["repaired"]}

    nodes = {"asks": asks, "breaks": breaks}
    await graph_of(single, **nodes).ainvoke({"items": []}, CONFIG)
    assert await status(single) is SessionStatus.PAUSED
    with pytest.raises(OSError, match="broken"):
        await graph_of(other, **nodes).ainvoke(Command(resume="!"), CONFIG)
    assert await status(single) is SessionStatus.FAILED
    fails.clear()
    answer = await graph_of(single, **nodes).ainvoke(None, CONFIG)
    assert answer["items"] == ["!", "repaired"]
    assert await status(single) is SessionStatus.COMPLETED


@pytest.mark.parametrize("more", [{}, {"update": {"items": ["late"]}}], ids=["answer", "update"])
async def test_an_answer_to_a_complete_run_leaves_no_lease(
    single: PostgresSaver, other: PostgresSaver, dsn: str, more: Any
) -> None:
    """Whoever answers twice, or writes where no node is to run, keeps nobody out."""

    def asks(state: Any) -> Any:
        return {"items": [interrupt("?")]}

    graph = graph_of(single, asks=asks)
    await graph.ainvoke({"items": []}, CONFIG)
    await graph.ainvoke(Command(resume="!"), CONFIG)
    await graph.ainvoke(Command(resume="again", **more), CONFIG)
    assert await value(dsn, "lease_expires_at") is None
    await graph_of(other, one=adds("second")).ainvoke({"items": ["more"]}, CONFIG)
    assert await is_one_line(single)


async def test_a_cancelled_run_makes_way_in_its_own_process(
    single: PostgresSaver, other: PostgresSaver, dsn: str
) -> None:
    """After a run was stopped, this process goes on at once; others when the lease has ended."""
    gate = Gate()
    run = await in_the_middle(graph_of(single, gate=gate), gate)
    run.cancel()
    await asyncio.wait([run])
    conn = await asyncpg.connect(dsn)
    holder = await conn.fetchval("update agent_sessions set lease_holder = 'x' returning lease_id")
    # A process that knows nothing of the run.
    await conn.execute("update agent_sessions set lease_id = gen_random_uuid()")
    with pytest.raises(ThreadLeasedError, match="by x"):
        await graph_of(other, one=adds("second")).ainvoke({"items": ["more"]}, CONFIG)
    await conn.execute("update agent_sessions set lease_id = $1", holder)
    await conn.close()
    answer = await graph_of(single, one=adds("second")).ainvoke({"items": ["more"]}, CONFIG)
    assert answer["items"] == ["begun", "more", "second"]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_cancelled_answer_makes_way_in_its_own_process(
    single: PostgresSaver, durability: Any
) -> None:
    """A run that took the lease with pending writes makes way like one that stored a checkpoint."""
    gate = Gate()

    async def ask(state: Any) -> Any:
        answer = interrupt("go on?")
        await gate(state)
        return {"items": [answer]}

    graph = graph_of(single, ask=ask)
    await graph.ainvoke({"items": ["begun"]}, CONFIG)
    call = graph.ainvoke(Command(resume="first"), CONFIG, durability=durability)
    run = asyncio.create_task(call)
    await asyncio.wait_for(gate.reached.wait(), HANG_SECONDS)
    run.cancel()
    await asyncio.wait([run])
    gate.open.set()
    answer = await graph.ainvoke(Command(resume="second"), CONFIG)
    assert answer["items"] == ["begun", "second"]


async def test_a_cancelled_update_that_is_stored_late_ends_no_run(
    single: PostgresSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled while its statement is on its way, it is there before the next run looks."""
    graph = graph_of(single, one=adds(1), two=adds(2))
    await graph.ainvoke({"items": [0]}, CONFIG)
    is_sent, goes_on = asyncio.Event(), asyncio.Event()
    store, settle, fetch = CallStore.store_together, WriteQueue.settle, single._fetch_state

    async def late(self: CallStore, calls: Any) -> Any:
        monkeypatch.setattr(CallStore, "store_together", store)
        is_sent.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await goes_on.wait()
        return await store(self, calls)

    async def waits(self: WriteQueue, session_id: Any) -> None:
        goes_on.set()
        await settle(self, session_id)

    async def looks(address: Any) -> Any:
        found = await fetch(address)
        goes_on.set()
        return found

    monkeypatch.setattr(CallStore, "store_together", late)
    update = asyncio.create_task(graph.aupdate_state(CONFIG, {"items": ["made"]}, as_node="one"))
    await asyncio.wait_for(is_sent.wait(), HANG_SECONDS)
    monkeypatch.setattr(WriteQueue, "settle", waits)
    monkeypatch.setattr(single, "_fetch_state", looks)
    update.cancel()
    await asyncio.wait([update])
    answer = await asyncio.wait_for(graph.ainvoke({"items": ["on"]}, CONFIG), HANG_SECONDS)
    assert answer["items"][-3:] == ["on", 1, 2]


async def test_an_update_that_begins_a_thread_leaves_no_lease(
    saver: PostgresSaver, single: PostgresSaver, dsn: str
) -> None:
    """Whoever is to run the thread that was made so comes at once."""
    graph = graph_of(single, one=adds(1), two=adds(2))
    await graph.aupdate_state(CONFIG, {"items": ["made"]}, as_node="one")
    assert await value(dsn, "lease_expires_at") is None
    answer = await graph_of(saver, one=adds(1), two=adds(2)).ainvoke(None, CONFIG)
    assert answer["items"] == ["made", 2]


@pytest.mark.parametrize("node", ["__input__", "one", "two"])
async def test_a_thread_that_an_update_began_is_left_free_by_its_runs(
    single: PostgresSaver, dsn: str, node: str
) -> None:
    """After the update, the run that goes on from it, and what is said where nothing follows."""
    graph = graph_of(single, one=adds(1), two=adds(2))
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: graph.aupdate_state(CONFIG, {"items": ["made"]}, as_node=node),
        lambda: graph.ainvoke(None, CONFIG),
        lambda: graph.ainvoke(Command(update={"items": ["said"]}), CONFIG),
        lambda: graph.ainvoke(Command(resume="nobody asked"), CONFIG),
    ]
    for call in calls:
        await call()
        assert await value(dsn, "lease_expires_at") is None


async def test_a_cancelled_run_makes_way_for_an_update_of_the_past(single: PostgresSaver) -> None:
    """LangGraph looks at the latest checkpoint, too, before it stores the update's."""
    gate = Gate()
    graph = graph_of(single, one=adds(1), gate=gate, end=adds("end"))
    run = await in_the_middle(graph, gate)
    run.cancel()
    await asyncio.wait([run])
    *_, past = [state async for state in graph.aget_state_history(CONFIG)]
    forked = await graph.aupdate_state(past.config, {"items": ["fork"]}, as_node="gate")
    assert (await graph.ainvoke(None, forked))["items"] == ["fork", "end"]


async def test_an_update_of_the_past_is_refused_while_a_run_goes_on(
    single: PostgresSaver, other: PostgresSaver
) -> None:
    """It leaves nothing, and the run ends as ever."""
    gate = Gate()
    run = await in_the_middle(graph_of(single, one=adds(1), gate=gate), gate)
    graph = graph_of(other, one=adds(1), gate=gate)
    *_, past = [state async for state in graph.aget_state_history(CONFIG)]
    with pytest.raises(ThreadLeasedError):
        await graph.aupdate_state(past.config, {"items": ["fork"]}, as_node="one")
    assert (await finish(run, gate))["items"] == ["begun", 1, "through"]
    assert await is_one_line(single)


async def test_forks_that_are_meant_work(single: PostgresSaver) -> None:
    """A run may look at its thread; states can be changed, and replayed from the past."""
    graph = graph_of(single, one=adds(1), two=adds(2))
    seen = [
        len((await graph.aget_state(CONFIG)).values["items"])
        async for _ in graph.astream({"items": [0]}, CONFIG, stream_mode="updates")
    ]
    assert seen[-1] == 3
    history = [state async for state in graph.aget_state_history(CONFIG)]
    past = next(state for state in history if state.next == ("two",))
    forked = await graph.aupdate_state(past.config, {"items": ["fork"]}, as_node="one")
    assert (await graph.ainvoke(None, forked))["items"] == [0, 1, "fork", 2]
    assert (await graph.ainvoke(None, past.config))["items"] == [0, 1, 2]
    assert (await graph.ainvoke({"items": ["on"]}, past.config))["items"] == [0, 1, "on", 1, 2]
    await graph.aupdate_state(CONFIG, {"items": ["edit"]}, as_node="one")
    assert (await graph.ainvoke(None, CONFIG))["items"] == [0, 1, "on", 1, 2, "edit", 2]


def with_subgraph(saver: PostgresSaver) -> Any:
    """A graph that stops in the middle of its subgraph."""
    builder: StateGraph[Any] = StateGraph(Log)
    builder.add_sequence([("one", adds(1)), ("two", adds(2))])
    builder.add_edge(START, "one")
    return graph_of(saver, sub=builder.compile(interrupt_before=["two"]), end=adds("end"))


async def stopped(graph: Any) -> RunnableConfig:
    """The config of the subgraph's state, where a run of the graph stopped."""
    await graph.ainvoke({"items": [0]}, CONFIG)
    state = await graph.aget_state(CONFIG, subgraphs=True)
    config: RunnableConfig = state.tasks[0].state.config
    return config


async def test_the_state_of_a_subgraph_is_changed_at_its_breakpoint(
    single: PostgresSaver, other: PostgresSaver
) -> None:
    """An update of it begins as one of the thread's own state does, and leaves no lease."""
    graph = with_subgraph(single)
    await graph.aupdate_state(await stopped(graph), {"items": ["edit"]})
    answer = await with_subgraph(other).ainvoke(None, CONFIG)
    assert answer["items"] == [0, 0, 1, "edit", 2, "end"]


async def test_an_update_of_a_subgraph_that_something_came_before_is_refused(
    single: PostgresSaver, other: PostgresSaver
) -> None:
    """What was loaded before a run went on isn't stored after it."""
    graph, same = with_subgraph(single), with_subgraph(other)
    sub = await stopped(graph)
    del sub["configurable"]["checkpoint_id"]  # asked for by its id it would be a fork
    update, go_on = await loaded(other, lambda _: same.aupdate_state(sub, {"items": ["edit"]}))
    await graph.ainvoke(None, CONFIG)
    go_on.set()
    with pytest.raises(LeaseLostError):
        await asyncio.wait_for(update, HANG_SECONDS)


def test_sync_runs_hold_leases(dsn: str) -> None:
    """The same for threads: of runs at the same time one goes on, the others are refused."""
    reached, is_open = threading.Event(), threading.Event()

    def gate(state: Any) -> Any:
        reached.set()
        assert is_open.wait(HANG_SECONDS)
        return {"items": ["through"]}

    def side(state: Any) -> Any:
        return {"items": ["side"]}

    answers: list[Any] = []
    with PostgresSaver.from_conn_string(dsn, single_writer=True) as saver:
        builder: StateGraph[Any] = StateGraph(Log)
        for name, node in (("gate", gate), ("side", side), ("end", lambda s: {"items": ["end"]})):
            builder.add_node(name, node)
        builder.add_edge(START, "gate")
        builder.add_edge(START, "side")
        builder.add_edge(["gate", "side"], "end")
        graph = builder.compile(checkpointer=saver)
        run = threading.Thread(target=lambda: answers.append(graph.invoke({"items": []}, CONFIG)))
        run.start()
        assert reached.wait(HANG_SECONDS)
        with pytest.raises(ThreadLeasedError):
            graph.invoke({"items": ["second"]}, CONFIG, durability="sync")
        is_open.set()
        run.join(HANG_SECONDS)
        assert sorted(answers[0]["items"]) == ["end", "side", "through"]
        assert len(graph.invoke({"items": []}, CONFIG)["items"]) == 6
        assert asyncio.run(is_one_line(saver))


def test_a_stream_that_loses_its_context_keeps_its_lease(dsn: str) -> None:
    """Each part of a sync stream may be asked for in a context of its own, as web servers do."""
    with PostgresSaver.from_conn_string(dsn, single_writer=True) as saver:
        graph = graph_of(saver, one=lambda s: {"items": [1]}, two=lambda s: {"items": [2]})
        for turn in range(1, 3):
            stream = graph.stream({"items": []}, CONFIG, stream_mode="values")
            parts = []
            while (part := contextvars.Context().run(next, stream, None)) is not None:
                parts.append(part)
            assert len(parts[-1]["items"]) == 2 * turn
