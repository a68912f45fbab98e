"""Forks and runs from past states, beside what the original would have done."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.errors import InvalidUpdateError
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import InvalidArgumentError, MissingCheckpointError, ThreadExistsError
from langgraph_pgsaga.serde.serializer import SafeSerializer
from langgraph_pgsaga.threads import session_id_of
from langgraph_pgsaga.timetravel import (
    aat,
    afork,
    aget_state,
    areplay,
    at,
    fork,
    get_state,
    history,
    list_states,
    name_checkpoint,
    replay,
)
from tests._tables import SESSION_TABLES
from tests.db._travelled import State as Seen
from tests.db._travelled import asking, joined, nested, remembering, thread

pytestmark = pytest.mark.anyio

YES: Any = Command(resume="yes")
# The longer a conversation, the worse is what grows with its square.
LENGTH = 2_000 if os.environ.get("PGSAGA_FULL") else 500


@pytest.fixture(params=["plain", "encrypted"])
def any_saver(dsn: str, request: pytest.FixtureRequest) -> Iterator[PostgresSaver]:
    """A saver, and one that stores nothing in clear."""
    serde = None
    if request.param == "encrypted":
        serde = EncryptedSerializer.from_pycryptodome_aes(SafeSerializer(), key=b"k" * 32)
    with PostgresSaver.from_conn_string(dsn, serde=serde) as saver:
        yield saver


def stateful(saver: Any) -> Any:
    """Its subgraph goes on from call to call."""
    return nested(saver, True)


def told(graph: Any, thread_id: str) -> list[Any]:
    """All that LangGraph tells of the thread but ids and times."""
    return [
        (
            s.values,
            s.next,
            s.metadata["step"],
            s.metadata["source"],
            [(t.name, t.result, [i.value for i in t.interrupts]) for t in s.tasks],
            [i.value for i in s.interrupts],
        )
        for s in graph.get_state_history(thread(thread_id))
    ]


async def rows_of(dsn: str, thread_id: str) -> dict[str, list[Any]]:
    """Every row of the thread."""
    conn = await asyncpg.connect(dsn)
    statement = "select * from {} t where session_id = $1 order by t::text"
    session_id = session_id_of(thread_id)
    found = {t: await conn.fetch(statement.format(t), session_id) for t in SESSION_TABLES}
    await conn.close()
    return {table: [tuple(row) for row in rows] for table, rows in found.items()}


@pytest.mark.parametrize("make", [asking, nested, stateful, remembering])
def test_a_paused_run_is_resumed_in_a_copy_as_in_the_original(
    any_saver: PostgresSaver, make: Any
) -> None:
    """Questions, also those of subgraphs, and what is done beside them, come along."""
    graph = make(any_saver)
    graph.invoke({"seen": ["q"], "messages": [HumanMessage("q", id="q")]}, thread())
    for turn in range(3):
        paused = get_state(graph, thread())
        copy = fork(paused, thread_id=f"copy {turn}")
        assert told(graph, f"copy {turn}") == told(graph, "t")
        assert copy.snapshot._replace(config={}, parent_config={}, tasks=()) == (
            paused.snapshot._replace(config={}, parent_config={}, tasks=())
        )
        here, there = (graph.invoke(YES, thread(name)) for name in ("t", f"copy {turn}"))
        assert there.keys() == here.keys()
        assert told(graph, f"copy {turn}") == told(graph, "t")


@pytest.mark.parametrize("make", [joined, asking, nested, stateful, remembering])
def test_every_past_state_goes_on_in_a_copy_as_in_the_original(
    any_saver: PostgresSaver, make: Any
) -> None:
    """A run from a fork makes what a run from the state itself makes, and asks the same."""
    graph = make(any_saver)
    graph.invoke({"seen": ["q"], "messages": [HumanMessage("q", id="q")]}, thread())
    while graph.get_state(thread()).interrupts:
        graph.invoke(YES, thread())
    for number, state in enumerate(list_states(graph, thread())):
        copied = fork(state, thread_id=f"fork {number}")
        assert copied.values == state.values
        assert set(copied.next) == set(state.next)
        any_saver.copy_thread("t", f"whole {number}")
        whole = thread(f"whole {number}", checkpoint_id=state.checkpoint_id or "")
        expected = replay(get_state(graph, whole))
        found = replay(copied)
        assert found.values == expected.values
        assert [i.value for i in found.interrupts] == [i.value for i in expected.interrupts]
        if state.next and not state.interrupts:
            # Nothing of what the original went on to do is taken for done.
            fork(state, thread_id=f"resumed {number}")
            graph.invoke(None, thread(f"resumed {number}"))
            resumed = get_state(graph, thread(f"resumed {number}"))
            assert resumed.values == expected.values


@pytest.mark.parametrize("make", [asking, nested, stateful, remembering])
def test_a_past_question_can_be_answered_otherwise(any_saver: PostgresSaver, make: Any) -> None:
    """In a fork it is open again, wherever it was asked and whatever was answered."""
    graph = make(any_saver)
    graph.invoke({"seen": ["q"], "messages": [HumanMessage("q", id="q")]}, thread())
    while graph.get_state(thread()).interrupts:
        graph.invoke(YES, thread())
    (*_, asked) = [s for s in list_states(graph, thread()) if s.interrupts]
    copy = fork(asked, thread_id="copy")
    assert [i.value for i in copy.interrupts] == [i.value for i in asked.interrupts]
    answered = replay(copy, Command(resume="no"))
    said = [getattr(m, "text", m) for m in answered.values.get("messages", [])]
    said += answered.values.get("seen", [])
    assert "no" in said
    assert "yes" not in said


@pytest.mark.parametrize("checkpointer", [None, True])
@pytest.mark.parametrize("is_answered", [False, True])
def test_what_a_subgraph_did_before_it_asked_is_not_done_again(
    sync_saver: PostgresSaver, checkpointer: Any, is_answered: bool
) -> None:
    """In a copy it goes on from its own last checkpoint, also where the original went on."""
    runs: list[str] = []

    def prepare(state: dict[str, Any]) -> dict[str, Any]:
        runs.append("prepare")
        return {"seen": ["prepared"]}

    inner: Any = StateGraph(Seen)
    inner.add_node("prepare", prepare)
    inner.add_node("ask", lambda _: {"seen": [interrupt("may I?")]})
    inner.add_edge(START, "prepare")
    inner.add_edge("prepare", "ask")
    builder: Any = StateGraph(Seen)
    builder.add_node("inner", inner.compile(checkpointer=checkpointer))
    builder.add_edge(START, "inner")
    graph = builder.compile(checkpointer=sync_saver)
    graph.invoke({"seen": []}, thread())
    asked = get_state(graph, thread())
    if is_answered:
        graph.invoke(YES, thread())
    answered = replay(fork(asked, thread_id="copy"), Command(resume="no"))
    assert answered.values["seen"] == ["prepared", "no"]
    assert runs == ["prepare"]


def test_the_original_stays_as_it_is(dsn: str, any_saver: PostgresSaver) -> None:
    """Row by row, whatever the fork goes on to do."""
    graph = remembering(any_saver)
    graph.invoke({"messages": [HumanMessage("q", id="q")]}, thread())
    graph.invoke(YES, thread())
    before = asyncio.run(rows_of(dsn, "t"))
    for state in list(list_states(graph, thread())):
        copy = fork(state, {"facts": ["x"]}, as_node="worker", thread_id=f"{state.checkpoint_id}")
        replay(copy)
    assert asyncio.run(rows_of(dsn, "t")) == before


async def test_a_copy_holds_only_what_it_needs(dsn: str, saver: PostgresSaver) -> None:
    """Values, blobs and messages that came after its last checkpoint aren't in it."""

    def reply(state: MessagesState) -> dict[str, Any]:
        count = len(state["messages"])
        return {"messages": [AIMessage(f"reply {count}", id=f"ai {count}")]}

    builder: Any = StateGraph(MessagesState)
    builder.add_node("reply", reply)
    builder.add_edge(START, "reply")
    graph = builder.compile(checkpointer=saver)
    for turn in range(20):
        await graph.ainvoke({"messages": [HumanMessage(str(turn), id=f"human {turn}")]}, thread())
    state = await aat(graph, thread(), step=10)
    copy = await afork(state, thread_id="copy")
    rows = await rows_of(dsn, "copy")
    assert len(rows["agent_states"]) == 12
    assert len(rows["agent_state_values"]) < 40
    assert len(rows["agent_messages"]) == len(state.values["messages"]) == 8
    named = {(row[1], row[2]) for row in rows["agent_states"]}
    assert {(row[1], row[2]) for row in rows["agent_state_writes"]} <= named
    # New messages don't take the numbers of those that stayed behind.
    await graph.ainvoke({"messages": [HumanMessage("other", id="other")]}, thread("copy"))
    expected = [m.id for m in copy.values["messages"]]
    found = await aget_state(graph, thread("copy"))
    assert [m.id for m in found.values["messages"]][:8] == expected
    assert "other" in [m.id for m in found.values["messages"]]


def test_a_fork_in_the_thread_is_langgraphs(sync_saver: PostgresSaver) -> None:
    """With values a child of the state, without a copy beside it; each is the latest then."""
    graph = asking(sync_saver)
    graph.invoke({"seen": ["q"]}, thread())
    graph.invoke(YES, thread())
    asked = at(graph, thread(), step=0)
    child = fork(asked, {"seen": ["no"]}, as_node="ask")
    assert child.parent_config == asked.snapshot.config
    assert (child.values["seen"], child.next) == (["q", "no"], ("reply",))
    assert get_state(graph, thread()).checkpoint_id == child.checkpoint_id
    copy = fork(asked)
    assert (copy.values, copy.next, copy.interrupts) == (asked.values, ("ask",), ())
    assert copy.parent_config == asked.parent_config
    assert copy.metadata
    assert copy.metadata["source"] == "fork"
    assert get_state(graph, thread()).checkpoint_id == copy.checkpoint_id
    assert replay(copy).interrupts[0].value == "may I?"


def test_values_are_applied_in_the_new_thread(sync_saver: PostgresSaver) -> None:
    """As update_state applies them, before the fork goes on."""
    graph = asking(sync_saver)
    graph.invoke({"seen": ["q"]}, thread())
    graph.invoke(YES, thread())
    copy = fork(at(graph, thread(), step=0), {"seen": ["no"]}, as_node="ask", thread_id="copy")
    assert (copy.thread_id, copy.next) == ("copy", ("reply",))
    assert replay(copy).values["seen"] == ["q", "no", "reply"]
    assert get_state(graph, thread()).values["seen"] == ["q", "yes", "reply"]


def test_a_replay_runs_the_tasks_again(sync_saver: PostgresSaver) -> None:
    """Done ones, too, in a branch of its own, which the state that it returns ends."""
    runs: list[str] = []

    def counted(name: str) -> Any:
        def run(state: MessagesState) -> dict[str, Any]:
            runs.append(name)
            return {"messages": [name]}

        return run

    builder: Any = StateGraph(MessagesState)
    builder.add_node("one", counted("one"))
    builder.add_node("two", counted("two"))
    builder.add_edge(START, "one")
    builder.add_edge("one", "two")
    graph = builder.compile(checkpointer=sync_saver)
    graph.invoke({"messages": ["hello"]}, thread())
    states = [at(graph, thread(), step=step) for step in range(3)]
    for state, expected in zip(states, (["one", "two"], ["two"], []), strict=True):
        runs.clear()
        ended = replay(state)
        assert runs == expected
        assert [m.content for m in ended.values["messages"]] == ["hello", "one", "two"]
        assert ended.next == ()
        assert get_state(graph, thread()) == ended
        assert state.checkpoint_id in {s.parent_checkpoint_id for s in history(graph, thread())}
    runs.clear()
    again = replay(states[0], {"messages": ["once more"]})
    assert runs == ["one", "two"]
    assert [m.content for m in again.values["messages"]] == ["hello", "once more", "one", "two"]


def test_an_interrupted_replay_gives_the_open_question(sync_saver: PostgresSaver) -> None:
    """It can be answered from there."""
    graph = nested(sync_saver)
    graph.invoke({"seen": ["q"]}, thread())
    graph.invoke(YES, thread())
    asked = replay(at(graph, thread(), step=0))
    assert (asked.next, [i.value for i in asked.interrupts]) == (("inner",), ["may I?"])
    assert replay(asked, Command(resume="no")).values["seen"].count("no") == 1


def test_a_replay_knows_its_own_end(sync_saver: PostgresSaver) -> None:
    """Also where a run beside it makes the thread's latest checkpoint."""
    graph: Any = None

    def meddle(state: MessagesState) -> dict[str, Any]:
        if len(state["messages"]) == 1:
            later = replay(at(graph, thread(), step=0), {"messages": ["meddled"]})
            assert later.values["messages"][-1].content == "done"
        return {"messages": ["done"]}

    builder: Any = StateGraph(MessagesState)
    builder.add_node("meddle", meddle)
    builder.add_edge(START, "meddle")
    graph = builder.compile(checkpointer=sync_saver, interrupt_after=["meddle"])
    graph.update_state(thread(), {"messages": ["hello"]}, as_node="__start__")
    ended = replay(at(graph, thread(), step=0))
    assert [m.content for m in ended.values["messages"]] == ["hello", "done"]


async def test_async_callers(saver: PostgresSaver) -> None:
    """The twins do the same without blocking, with nodes that are async only."""

    async def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [f"{len(state['messages'])}"]}

    builder: Any = StateGraph(MessagesState)
    builder.add_node("ask", ask)
    builder.add_edge(START, "ask")
    graph = builder.compile(checkpointer=saver)
    await graph.ainvoke({"messages": ["hello"]}, thread())
    state = await aat(graph, thread(), step=0)
    here = await areplay(await afork(state, {"messages": ["x"]}, as_node="__start__"))
    there = await areplay(
        await afork(state, {"messages": ["x"]}, as_node="__start__", thread_id="copy")
    )
    for ended in (here, there):
        assert [m.content for m in ended.values["messages"]] == ["hello", "x", "2"]
    assert there.thread_id == "copy"
    copied = await afork(state)
    assert copied.parent_config == state.parent_config


def test_what_can_not_be_forked(sync_saver: PostgresSaver) -> None:
    """A thread that holds something, a state of nothing, of a subgraph, or that is gone."""
    graph = nested(sync_saver)
    empty = get_state(graph, thread("empty"))
    for arguments in ({}, {"thread_id": "x"}):
        with pytest.raises(MissingCheckpointError, match="'empty'"):
            fork(empty, **arguments)
    with pytest.raises(MissingCheckpointError, match="'empty'"):
        replay(empty)
    graph.invoke({"seen": ["q"]}, thread())
    state = get_state(graph, thread())
    name_checkpoint(graph, thread(), "asked")
    with pytest.raises(InvalidArgumentError, match="must be a State, not Step"):
        fork(history(graph, thread())[0], YES)  # type: ignore[arg-type]
    fork(state, thread_id="copy")
    with pytest.raises(ThreadExistsError, match="'copy'"):
        fork(state, thread_id="copy")
    with pytest.raises(ThreadExistsError, match="'t'"):
        fork(state, thread_id="t")
    inner: Any = graph.get_state(thread(), subgraphs=True).tasks[0].state
    with pytest.raises(InvalidArgumentError, match="subgraph"):
        fork(get_state(graph, inner.config), thread_id="x")
    with pytest.raises(InvalidUpdateError):
        fork(state, {"seen": ["x"]}, as_node="nobody", thread_id="half")
    sync_saver.delete_thread("t")
    for place in ({}, {"thread_id": "y"}):
        with pytest.raises(MissingCheckpointError, match="'t'"):
            fork(state, {"seen": ["x"]}, as_node="before", **place)
    assert list(sync_saver.list(thread("t"))) == []
    with pytest.raises(MissingCheckpointError):
        sync_saver.copy_thread("copy", "z", checkpoint_id="1")
    assert list(sync_saver.list(thread("z"))) == []


INPUTS: dict[str, Any] = {"nothing": None, "an answer": YES, "values": {"seen": ["x"]}}


@pytest.mark.parametrize("given", INPUTS)
@pytest.mark.parametrize("how", ["thread", "checkpoint"])
@pytest.mark.parametrize("make", [asking, nested])
def test_a_state_that_was_deleted_is_not_gone_on_from(
    dsn: str, sync_saver: PostgresSaver, how: str, given: str, make: Any
) -> None:
    """Whatever the input, from this process or from one that never saw the state."""
    make(sync_saver).invoke({"seen": []}, thread())
    make(sync_saver).invoke(YES, thread())
    with PostgresSaver.from_conn_string(dsn) as other:
        states = [at(make(saver), thread(), step=0) for saver in (sync_saver, other.anew())]
        if how == "thread":
            other.delete_thread("t")
        else:
            other.prune(["t"])
        before = [one.config for one in sync_saver.list(None)]
        for state in states:
            for go_on in (replay, fork):
                with pytest.raises(MissingCheckpointError):
                    go_on(state, INPUTS[given])
            with pytest.raises(MissingCheckpointError):
                asyncio.run(areplay(state, INPUTS[given]))
    assert [one.config for one in sync_saver.list(None)] == before


def test_a_subgraphs_state_is_forked_in_its_thread(sync_saver: PostgresSaver) -> None:
    """What was updated is the state of the subgraph, as with update_state."""
    graph = nested(sync_saver)
    graph.invoke({"seen": ["q"]}, thread())
    inner: Any = graph.get_state(thread(), subgraphs=True).tasks[0].state
    forked = fork(get_state(graph, inner.config), {"seen": ["by hand"]}, as_node="ask")
    assert (forked.next, forked.values["seen"][-1]) == (("reply",), "by hand")
    assert forked.parent_config == inner.config


@pytest.mark.alone
def test_copying_a_long_thread_is_quick(sync_saver: PostgresSaver) -> None:
    """Checkpoints of a growing conversation, to the end, the middle and the beginning."""

    def reply(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("words " * 20, id=f"ai {len(state['messages'])}")]}

    builder: Any = StateGraph(MessagesState)
    builder.add_node("reply", reply)
    builder.add_edge(START, "reply")
    builder.add_conditional_edges(
        "reply", lambda s: "reply" if len(s["messages"]) < LENGTH - 1 else "__end__"
    )
    graph = builder.compile(checkpointer=sync_saver)
    graph.invoke({"messages": ["go"]}, {**thread(), "recursion_limit": 5_000})
    seconds: dict[int, float] = {}
    reading_seconds = 0.0
    for number in (LENGTH - 2, LENGTH // 2, 10):
        state = at(graph, thread(), step=number)
        start = time.monotonic()
        sync_saver.copy_thread("t", f"copy {number}", checkpoint_id=state.checkpoint_id)
        seconds[number] = time.monotonic() - start
        start = time.monotonic()
        assert len(list(sync_saver.list(thread(f"copy {number}")))) == number + 2
        reading_seconds = max(reading_seconds, time.monotonic() - start)
        assert get_state(graph, thread(f"copy {number}")).values == state.values
    # A tenth of a second for 2,000, where reading takes some; it was a minute when messages were
    # compared one by one.
    assert max(seconds.values()) < reading_seconds, seconds
