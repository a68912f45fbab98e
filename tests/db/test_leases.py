"""One writer per thread: leases of blocks and of runs, and what a deletion does to a run."""

from __future__ import annotations

import asyncio
import contextvars
import json
import operator
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, nullcontext, suppress
from typing import Annotated, Any, TypedDict

import asyncpg
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT
from langgraph.errors import GraphRecursionError
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt

from langgraph_pgsaga import Database, PostgresSaver
from langgraph_pgsaga.checkpoint import lease, run
from langgraph_pgsaga.checkpoint.lease_block import LeaseBlock
from langgraph_pgsaga.errors import (
    InvalidArgumentError,
    LeaseError,
    LeaseLostError,
    ThreadDeletedError,
    ThreadLeasedError,
)
from langgraph_pgsaga.sessions import Sessions, SessionStatus
from langgraph_pgsaga.takeover import ReadThroughSaver, import_threads
from tests._forked import assert_succeeds, in_child, needs_fork
from tests._limits import HANG_SECONDS
from tests._tables import SESSION_TABLES
from tests.db import _racers

pytestmark = pytest.mark.anyio

CONFIG: RunnableConfig = {"configurable": {"thread_id": "t"}}


class Log(TypedDict):
    items: Annotated[list[Any], operator.add]


def graph_of(saver: Any, **nodes: Any) -> Any:
    """The nodes one after the other."""
    builder: StateGraph[Any] = StateGraph(Log)
    previous = START
    for name, node in nodes.items():
        builder.add_node(name, node)
        builder.add_edge(previous, name)
        previous = name
    return builder.compile(checkpointer=saver)


def adds(item: Any) -> Any:
    async def node(state: Any) -> Any:
        return {"items": [item]}

    return node


class Gate:
    """A node that waits in the middle of a run until it may go on."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self, state: Any) -> Any:
        self.reached.set()
        await self.open.wait()
        return {"items": ["through"]}


@pytest.fixture
async def other(dsn: str) -> AsyncIterator[PostgresSaver]:
    """A saver of another process, as far as leases go."""
    async with PostgresSaver.from_conn_string(dsn, single_writer=True) as saver:
        yield saver


@pytest.fixture
async def single(dsn: str) -> AsyncIterator[PostgresSaver]:
    async with PostgresSaver.from_conn_string(dsn, single_writer=True) as saver:
        yield saver


async def in_the_middle(graph: Any, gate: Gate, value: Any = "begun") -> asyncio.Task[Any]:
    """A run that has stored something and waits at its gate."""
    call = graph.ainvoke({"items": [value]}, CONFIG, durability="sync")
    run = asyncio.create_task(call)
    await asyncio.wait_for(gate.reached.wait(), HANG_SECONDS)
    return run


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


async def value(dsn: str, column: str) -> Any:
    """A column of the one session."""
    conn = await asyncpg.connect(dsn)
    found = await conn.fetchval(f"select {column} from agent_sessions")
    await conn.close()
    return found


async def finish(run: asyncio.Task[Any], gate: Gate) -> Any:
    gate.open.set()
    return await asyncio.wait_for(run, HANG_SECONDS)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def end_leases(dsn: str) -> None:
    """As if their time were over."""
    conn = await asyncpg.connect(dsn)
    await conn.execute("update agent_sessions set lease_expires_at = now()")
    await conn.close()


async def rows(dsn: str) -> dict[str, int]:
    """How many rows each of the tables has that hold a session's."""
    conn = await asyncpg.connect(dsn)
    found = {t: await conn.fetchval(f"select count(*) from {t}") for t in SESSION_TABLES}
    await conn.close()
    return found


async def is_one_line(saver: PostgresSaver) -> bool:
    """Whether each of the thread's checkpoints follows the one before it."""
    found = [one async for one in saver.alist({"configurable": {**CONFIG["configurable"]}})]
    roots = [one for one in found if not one.config["configurable"]["checkpoint_ns"]]
    ids = [one.config["configurable"]["checkpoint_id"] for one in roots]
    parents = [
        one.parent_config["configurable"]["checkpoint_id"] if one.parent_config else None
        for one in roots
    ]
    return parents == [*ids[1:], None]


async def status(saver: PostgresSaver) -> SessionStatus | None:
    found = await Sessions(saver.db).get("t")
    return found.status if found else None


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
    assert (ended.returncode, ended.stderr) == (0, "")
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


# Blocks


async def test_a_block_alone_may_write(saver: PostgresSaver, dsn: str) -> None:
    """In the block everything may write, outside it nobody, and afterwards everybody."""
    graph = graph_of(saver, one=adds(1))
    async with PostgresSaver.from_conn_string(dsn) as other:
        elsewhere = graph_of(other, one=adds("elsewhere"))
        async with saver.lease("t"):
            await graph.ainvoke({"items": [0]}, CONFIG)
            with pytest.raises(ThreadLeasedError):
                await elsewhere.ainvoke({"items": []}, CONFIG)
            with pytest.raises(ThreadLeasedError):
                async with other.lease("t"):
                    pass
            await graph.aupdate_state(CONFIG, {"items": ["edit"]}, as_node="one")
            await asyncio.create_task(graph.ainvoke({"items": ["task"]}, CONFIG))
        answer = await elsewhere.ainvoke({"items": []}, CONFIG)
    assert answer["items"] == [0, 1, "edit", "task", 1, "elsewhere"]


async def test_outside_the_block_its_own_saver_is_refused_too(saver: PostgresSaver) -> None:
    """The lease is the block's, not the saver's."""
    graph = graph_of(saver, one=adds(1), two=adds(2))
    has_begun, may_end = asyncio.Event(), asyncio.Event()

    async def block() -> None:
        async with saver.lease("t"):
            await graph.ainvoke({"items": []}, CONFIG, interrupt_before=["two"])
            has_begun.set()
            await may_end.wait()

    task = asyncio.create_task(block())
    await has_begun.wait()
    inputs: list[Any] = [{"items": []}, None]
    for given in inputs:
        with pytest.raises(ThreadLeasedError):
            await graph.ainvoke(given, CONFIG)
    may_end.set()
    await task


async def test_a_block_lasts_longer_than_its_lease(saver: PostgresSaver, dsn: str) -> None:
    """A block's lease is renewed for as long as the block lasts, also while its loop stands."""
    conn = await asyncpg.connect(dsn)
    ends = "select lease_expires_at from agent_sessions"
    async with saver.lease("t", seconds=3):
        first = await conn.fetchval(ends)
        deadline = time.monotonic() + HANG_SECONDS
        while True:
            time.sleep(0.3)  # noqa: ASYNC251 - the loop stands still
            if (now := await conn.fetchval(ends)) > first:
                break
            assert time.monotonic() < deadline
        assert now > first
    assert await conn.fetchval(ends) is None
    await conn.close()


async def test_a_block_that_lost_its_lease_writes_nothing(saver: PostgresSaver, dsn: str) -> None:
    """What somebody else took is lost, and giving it back takes nothing from them."""
    async with PostgresSaver.from_conn_string(dsn) as other:
        async with saver.lease("t"):
            await graph_of(saver, one=adds(1)).ainvoke({"items": []}, CONFIG)
            await end_leases(dsn)
            async with other.lease("t"):
                with pytest.raises(LeaseLostError):
                    await graph_of(saver, one=adds(1)).ainvoke({"items": []}, CONFIG)
                found = await other.aget_tuple(CONFIG)
                assert found is not None
                with pytest.raises(LeaseLostError):
                    await saver.aput_writes(found.config, [("items", [1])], "task")
        with pytest.raises(ThreadLeasedError):
            async with other.lease("t"), saver.lease("t"):
                pass


async def test_a_block_waits_for_its_turn(
    saver: PostgresSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For wait_seconds; without, and after that, it is refused."""
    was_refused = asyncio.Event()
    ask = LeaseBlock._refusal

    async def noted(block: LeaseBlock) -> Any:
        refused = await ask(block)
        was_refused.set()
        return refused

    monkeypatch.setattr(LeaseBlock, "_refusal", noted)

    async def waits() -> str:
        async with saver.lease("t", wait_seconds=HANG_SECONDS):
            return "had its turn"

    async with saver.lease("t"):
        waiting = asyncio.create_task(waits())
        await asyncio.wait_for(was_refused.wait(), HANG_SECONDS)
        with pytest.raises(ThreadLeasedError):
            async with saver.lease("t", wait_seconds=0.2):
                pass
        assert not waiting.done()
    assert await asyncio.wait_for(waiting, HANG_SECONDS) == "had its turn"


@pytest.mark.parametrize("is_at", ["claim_lease", "release_lease"])
async def test_a_block_that_is_cancelled_at_its_edges_leaves_no_lease(
    saver: PostgresSaver, other: PostgresSaver, monkeypatch: pytest.MonkeyPatch, is_at: str
) -> None:
    """Neither where the server gave it all the same, nor where it wasn't told of the end."""
    fetch, arrived, gate = saver.db.fetch, asyncio.Event(), asyncio.Event()

    async def held_up(statement: Any, *args: Any, **options: Any) -> Any:
        if statement.name != is_at or arrived.is_set():
            return await fetch(statement, *args, **options)
        rows = await fetch(statement, *args, **options) if is_at == "claim_lease" else []
        arrived.set()
        await gate.wait()
        return rows

    monkeypatch.setattr(saver.db, "fetch", held_up)

    async def block() -> None:
        async with saver.lease("t", seconds=600):
            pass

    task = asyncio.ensure_future(block())
    await asyncio.wait_for(arrived.wait(), HANG_SECONDS)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    async with other.lease("t", wait_seconds=HANG_SECONDS):
        pass


def test_a_sync_block(dsn: str) -> None:
    """The same with `with`."""
    with (
        PostgresSaver.from_conn_string(dsn) as saver,
        PostgresSaver.from_conn_string(dsn) as other,
    ):
        graph = graph_of(saver, one=lambda s: {"items": [1]})
        elsewhere = graph_of(other, one=lambda s: {"items": [2]})
        with saver.lease("t"):
            graph.invoke({"items": []}, CONFIG)
            with pytest.raises(ThreadLeasedError):
                elsewhere.invoke({"items": []}, CONFIG)
        assert elsewhere.invoke({"items": []}, CONFIG)["items"] == [1, 2]


async def test_a_lease_makes_the_session_its_first_run_describes(saver: PostgresSaver) -> None:
    """A session that a lease made takes the user and the metadata of its first run."""
    config: RunnableConfig = {
        "configurable": {"thread_id": "t", "user_id": "ann"},
        "metadata": {"plan": "gold"},
    }
    async with saver.lease("t"):
        await graph_of(saver, one=adds(1)).ainvoke({"items": []}, config)
    found = await Sessions(saver.db).get("t")
    assert found is not None
    assert (found.user_id, found.metadata) == ("ann", {"plan": "gold"})


async def test_blocks_refuse_arguments(saver: PostgresSaver) -> None:
    """A lease that is too short to be renewed in time, and no thread."""
    numbers: list[Any] = [0.5, float("nan"), float("inf"), 10**12, 10**400, True, "30", None, -1]
    for number in numbers:
        with pytest.raises(InvalidArgumentError, match="seconds"):
            saver.lease("t", seconds=number)
        with pytest.raises(InvalidArgumentError, match="lease_seconds"):
            PostgresSaver(saver.db, single_writer=True, lease_seconds=number)
    for number in numbers[1:]:
        with pytest.raises(InvalidArgumentError, match="wait_seconds"):
            saver.lease("t", wait_seconds=number)
    with pytest.raises(InvalidArgumentError):
        saver.lease("")
    with pytest.raises(InvalidArgumentError, match="lease_seconds"):
        PostgresSaver(saver.db, single_writer=True, lease_seconds=0)


async def test_as_many_blocks_as_you_like(saver: PostgresSaver, single: PostgresSaver) -> None:
    """Each of a hundred blocks that one context is in goes on to be its own."""
    graph = graph_of(saver, one=adds(1))
    configs: list[RunnableConfig] = [{"configurable": {"thread_id": f"t{n}"}} for n in range(100)]
    async with AsyncExitStack() as stack:
        for number in range(100):
            await stack.enter_async_context(saver.lease(f"t{number}"))
        for config in configs:
            await graph.ainvoke({"items": []}, config)
            with pytest.raises(ThreadLeasedError):
                await graph_of(single, one=adds(2)).ainvoke({"items": []}, config)
    for config in configs:
        assert (await graph.ainvoke({"items": []}, config))["items"] == [1, 1]


async def test_as_many_runs_as_you_like(
    single: PostgresSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of whatever a context looked at or ran meanwhile, a run keeps its lease, and memory stays
    with what is under way."""
    monkeypatch.setattr(run, "_FEWEST_REMEMBERED", 10)
    monkeypatch.setattr(run, "_ENDED_SECONDS", 0)
    single._leases._runs.after_fork()
    lease._claimed.after_fork()
    graph = graph_of(single, one=adds(1), two=adds(2))
    stream = graph.astream({"items": []}, CONFIG, durability="sync")
    assert await anext(stream) == {"one": {"items": [1]}}
    for number in range(50):
        config: RunnableConfig = {"configurable": {"thread_id": f"t{number}"}}
        await graph.ainvoke({"items": []}, config)
        await graph.aupdate_state(config, {"items": [3]}, as_node="one")
        if not number % 25:  # whose end isn't told
            await graph.ainvoke(None, config, interrupt_before=["two"])
            await graph.ainvoke({"items": []}, config, interrupt_before=["two"])
    assert [part async for part in stream] == [{"two": {"items": [2]}}]
    assert await is_one_line(single)
    assert len(single._leases._runs._found) < 60
    assert len(lease._claimed._found) < 40


async def test_a_run_that_isnt_known_is_refused(single: PostgresSaver) -> None:
    """Rather than stored without its lease, as if nobody could have come between."""
    gate = Gate()
    run = await in_the_middle(graph_of(single, gate=gate), gate)
    single._leases._runs.after_fork()
    with pytest.raises(LeaseLostError):
        await finish(run, gate)


@needs_fork
def test_a_child_isnt_in_its_parents_block(dsn: str) -> None:
    """After a fork inside a block the parent goes on to have the lease, which is renewed and given
    back by it alone; the child is refused like everybody else, and may have leases of its own."""
    with PostgresSaver.from_conn_string(dsn) as saver:
        graph = graph_of(saver, one=lambda s: {"items": [1]})

        def child() -> None:
            for call in (
                lambda: graph.invoke({"items": []}, CONFIG),
                lambda: graph.update_state(CONFIG, {"items": [2]}, as_node="one"),
                saver.lease("t").__enter__,
            ):
                with pytest.raises(ThreadLeasedError):
                    call()
            with saver.lease("u", seconds=3):
                first = asyncio.run(value(dsn, "max(lease_expires_at)"))
                until(lambda: asyncio.run(value(dsn, "max(lease_expires_at)")) > first)
                graph.invoke({"items": []}, {"configurable": {"thread_id": "u"}})

        block = saver.lease("t", seconds=60)
        with block:
            graph.invoke({"items": []}, CONFIG)
            assert_succeeds(in_child(child))

            def leave() -> None:
                block.__exit__(None, None, None)

            assert_succeeds(in_child(leave))
            assert asyncio.run(value(dsn, "max(lease_expires_at)")) is not None
            assert graph.invoke({"items": []}, CONFIG)["items"] == [1, 1]
        assert asyncio.run(value(dsn, "max(lease_expires_at)")) is None


@needs_fork
@pytest.mark.parametrize("kind", ["run", "look"])
def test_a_child_isnt_in_its_parents_run(dsn: str, kind: str) -> None:
    """What a fork in the middle of a run begins is a run of its own."""
    with PostgresSaver.from_conn_string(dsn, single_writer=True) as saver:

        def child() -> None:
            with pytest.raises(ThreadLeasedError):
                inner.invoke({"items": []}, CONFIG)
            assert inner.invoke({"items": []}, {"configurable": {"thread_id": "u"}})["items"] == [1]

        def forks(state: Any) -> Any:
            if kind == "look":
                graph.get_state(CONFIG)
            assert_succeeds(in_child(lambda: contextvars.Context().run(child)))
            return {"items": ["forked"]}

        inner = graph_of(saver, one=lambda s: {"items": [1]})
        graph = graph_of(saver, forks=forks, end=lambda s: {"items": ["end"]})
        answer = graph.invoke({"items": []}, CONFIG, durability="sync")
        assert answer["items"] == ["forked", "end"]


@needs_fork
def test_locks_that_are_held_at_a_fork_arent_in_the_child(dsn: str) -> None:
    """Whatever other threads of the parent were at: the child runs, with leases and without."""
    with PostgresSaver.from_conn_string(dsn, single_writer=True) as saver:
        graph = graph_of(saver, one=lambda s: {"items": [1]})
        graph.invoke({"items": []}, CONFIG)
        held = [
            saver._leases._runs._lock,
            saver._tracker._runs._lock,
            saver._renewals._lock,
            saver._cache._lock,
            saver.db._pools_lock,
            saver.db._portal._lock,
            lease._claimed._lock,
        ]

        def child() -> None:
            with saver.lease("u"):
                graph.invoke({"items": []}, {"configurable": {"thread_id": "u"}})
            graph.invoke({"items": []}, CONFIG)

        with ExitStack() as stack:
            for lock in held:
                stack.enter_context(lock)
            pid = in_child(child)
        assert_succeeds(pid)


# Deletions


@pytest.mark.parametrize("kind", ["plain", "single writer", "block"])
@pytest.mark.parametrize("by", ["itself", "another"])
async def test_a_deleted_thread_stays_deleted(
    saver: PostgresSaver, single: PostgresSaver, dsn: str, kind: str, by: str
) -> None:
    """A run whose thread is deleted meanwhile brings nothing of it back, in no table."""
    used = single if kind == "single writer" else saver
    gate = Gate()
    graph = graph_of(used, gate=gate, end=adds("end"))

    async def invoke() -> Any:
        if kind != "block":
            return await graph.ainvoke({"items": ["begun"]}, CONFIG, durability="sync")
        async with used.lease("t"):
            return await graph.ainvoke({"items": ["begun"]}, CONFIG, durability="sync")

    run = asyncio.create_task(invoke())
    await asyncio.wait_for(gate.reached.wait(), HANG_SECONDS)
    async with PostgresSaver.from_conn_string(dsn) as other:
        await (used if by == "itself" else other).adelete_thread("t")
    with pytest.raises(ThreadDeletedError, match="'t'"):
        await finish(run, gate)
    assert set((await rows(dsn)).values()) == {0}
    answer = await graph_of(used, one=adds(1)).ainvoke({"items": ["anew"]}, CONFIG)
    assert answer["items"] == ["anew", 1]


async def test_what_came_after_a_deletion_goes_with_the_refusal(
    saver: PostgresSaver, dsn: str
) -> None:
    """Pending writes that a run stored after its thread was deleted don't stay."""
    await graph_of(saver, one=adds(1)).ainvoke({"items": []}, CONFIG)
    found = await saver.aget_tuple(CONFIG)
    assert found is not None
    await saver.adelete_thread("t")
    await saver.aput_writes(found.config, [("items", [1])], "task")
    checkpoint = {**found.checkpoint, "id": "2"}
    with pytest.raises(ThreadDeletedError):
        await saver.aput(found.config, checkpoint, {}, {})  # type: ignore[arg-type]
    assert set((await rows(dsn)).values()) == {0}


async def test_a_pruned_thread_is_the_same_thread(saver: PostgresSaver, dsn: str) -> None:
    """A run goes on although what it remembers of its thread was pruned."""

    class Large(TypedDict):
        value: str

    builder: StateGraph[Any] = StateGraph(Large)
    gate = Gate()

    async def node(state: Any) -> Any:
        await gate(state)
        return {"value": "new" * 1000}

    builder.add_node("node", node)
    builder.add_edge(START, "node")
    graph = builder.compile(checkpointer=saver)
    for text in ("a", "b"):
        await graph.aupdate_state(CONFIG, {"value": text * 5000}, as_node="node")
    run = asyncio.create_task(graph.ainvoke({"value": "c" * 5000}, CONFIG, durability="sync"))
    await asyncio.wait_for(gate.reached.wait(), HANG_SECONDS)
    epoch = await value(dsn, "message_epoch")
    async with PostgresSaver.from_conn_string(dsn) as other:
        await other.aprune(["t"])
    assert await value(dsn, "message_epoch") != epoch
    assert (await finish(run, gate))["value"] == "new" * 1000


async def test_writes_that_race_with_a_deletion_leave_nothing(
    saver: PostgresSaver, dsn: str
) -> None:
    """Under a lease, pending writes wait for the deletion before them, and find no thread."""
    conn = await asyncpg.connect(dsn)
    async with saver.lease("t"):
        await graph_of(saver, one=adds(1)).ainvoke({"items": []}, CONFIG)
        found = await saver.aget_tuple(CONFIG)
        assert found is not None
        async with conn.transaction():
            await conn.execute("select from agent_sessions for update")
            writing = asyncio.create_task(saver.aput_writes(found.config, [("items", [1])], "task"))
            await until_waiting(dsn)
            for table in SESSION_TABLES:
                await conn.execute(f"delete from {table}")
        with pytest.raises(ThreadDeletedError):
            await writing
    assert set((await rows(dsn)).values()) == {0}
    await conn.close()


async def until_waiting(dsn: str) -> None:
    """Until a statement waits for a lock."""
    conn = await asyncpg.connect(dsn)
    deadline = time.monotonic() + HANG_SECONDS
    while not await conn.fetchval(
        "select count(*) from pg_stat_activity"
        " where wait_event_type = 'Lock' and datname = current_database()"
    ):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    await conn.close()


# The session's status


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


async def fails(state: Any) -> Any:
    raise OSError("broken")


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
