"""A thread's history without its values, on real graphs."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from datetime import datetime, timedelta
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import InvalidUpdateError
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, RetryPolicy, Send, StateSnapshot, interrupt

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga._langgraph import open_errors
from langgraph_pgsaga.errors import InvalidArgumentError, MissingCheckpointError, NameTakenError
from langgraph_pgsaga.serde.serializer import SafeSerializer
from langgraph_pgsaga.takeover import ReadThroughSaver
from langgraph_pgsaga.timetravel import (
    Step,
    abisect,
    aname_checkpoint,
    aopen_errors,
    bisect,
    diff,
    get_state,
    history,
    name_checkpoint,
)
from tests.db._chains import Log
from tests.db._travelled import State, asking, joined, thread

pytestmark = pytest.mark.anyio

STEPS = 10_000 if os.environ.get("PGSAGA_FULL") else 1_500


def same(steps: Sequence[Step], snapshots: Sequence[StateSnapshot]) -> None:
    """The steps are what LangGraph says of the same checkpoints."""
    assert [s.checkpoint_id for s in steps] == [
        s.config["configurable"]["checkpoint_id"] for s in snapshots
    ]
    for step, snapshot in zip(steps, snapshots, strict=True):
        metadata: Any = snapshot.metadata
        assert (step.step, step.source) == (metadata["step"], metadata["source"])
        assert step.created_at == datetime.fromisoformat(snapshot.created_at or "")
        assert set(step.next) == set(snapshot.next)
        assert step.is_interrupted == bool(snapshot.interrupts)


@pytest.mark.parametrize("durability", ["sync", "exit"])
def test_what_was_seen_already_is_not_next(sync_saver: PostgresSaver, durability: Any) -> None:
    """Nodes whose writes clash end a run; under "exit" what it stores then has them seen."""
    builder: StateGraph[Any] = StateGraph(State)
    for name in ("left", "right"):
        builder.add_node(name, lambda state: {"count": 1})
        builder.add_edge(START, name)
    graph = builder.compile(checkpointer=sync_saver)
    with pytest.raises(InvalidUpdateError):
        graph.invoke({"seen": ["question"]}, thread(), durability=durability)
    same(history(graph, thread()), list(graph.get_state_history(thread())))


def test_steps_say_what_langgraph_says(sync_saver: PostgresSaver) -> None:
    """Order, number, source, time and next nodes: of branches, joins, Sends and interrupts."""
    graph = joined(sync_saver)
    graph.invoke({"seen": ["question"]}, thread())
    same(history(graph, thread())[:], list(graph.get_state_history(thread())))
    graph = asking(sync_saver)
    graph.invoke({"seen": ["question"]}, thread("asking"))
    same(history(graph, thread("asking")), list(graph.get_state_history(thread("asking"))))
    graph.invoke(Command(resume="yes"), thread("asking"))
    same(history(graph, thread("asking")), list(graph.get_state_history(thread("asking"))))


def test_steps_say_what_ran_and_what_changed(sync_saver: PostgresSaver) -> None:
    """The nodes that made a checkpoint, and the channels with another value, by parent."""
    graph = joined(sync_saver)
    graph.invoke({"seen": ["question"]}, thread())
    steps = history(graph, thread())
    assert [(set(s.nodes), set(s.changed)) for s in reversed(steps)] == [
        (set(), set()),
        (set(), {"seen"}),
        ({"a"}, {"seen", "count"}),
        ({"b", "c"}, {"seen"}),
        ({"d"}, {"seen", "count"}),
        ({"worker"}, {"seen"}),
    ]


def test_an_update_is_a_step_of_its_node(sync_saver: PostgresSaver) -> None:
    """What update_state did is told like what the node did, with its source."""
    graph = asking(sync_saver)
    graph.invoke({"seen": ["question"]}, thread())
    graph.update_state(thread(), {"seen": ["by hand"]}, as_node="ask")
    latest = history(graph, thread())[0]
    assert (latest.source, latest.nodes, latest.next) == ("update", ("ask",), ("reply",))


def test_errors_are_marked(sync_saver: PostgresSaver) -> None:
    """A checkpoint at which a node failed says so."""

    def fail(state: State) -> dict[str, Any]:
        raise RuntimeError("out of tea")

    builder = StateGraph(State)
    builder.add_node("fail", fail)
    builder.add_edge(START, "fail")
    graph = builder.compile(checkpointer=sync_saver)
    with pytest.raises(RuntimeError, match="out of tea"):
        graph.invoke({"seen": []}, thread())
    assert [s.has_error for s in history(graph, thread())] == [True, False]


def test_branches_are_numbered_from_the_latest(sync_saver: PostgresSaver) -> None:
    """Branch 0 leads to the latest checkpoint; each other end has a number of its own."""
    graph = asking(sync_saver)
    graph.invoke({"seen": ["question"]}, thread())
    asked = history(graph, thread())[0]
    graph.invoke(Command(resume="yes"), thread())
    first = list(history(graph, thread()))
    assert {s.branch for s in first} == {0}
    graph.update_state(asked.config, {"seen": ["other"]}, as_node="ask")
    graph.invoke(None, thread())
    steps = history(graph, thread())
    branch = {s.checkpoint_id: s.branch for s in steps}
    assert [branch[s.checkpoint_id] for s in first] == [1, 1, 0, 0]
    assert [s.branch for s in steps[:2]] == [0, 0]
    values = graph.get_state(steps[0].config).values
    assert values["seen"] == ["question", "other", "reply"]


def test_a_step_is_found(sync_saver: PostgresSaver) -> None:
    """By number, id, node, name and time; of the present branch where one of it fits."""
    graph = asking(sync_saver)
    graph.invoke({"seen": ["question"]}, thread())
    graph.invoke(Command(resume="yes"), thread())
    steps = history(graph, thread())
    name_checkpoint(graph, steps[1].config, "before the reply")
    steps = history(sync_saver, thread())
    assert steps.at(step=1).checkpoint_id == steps[1].checkpoint_id
    assert steps.at(checkpoint_id=steps[2].checkpoint_id) == steps[2]
    assert steps.at(node="reply") == steps[0]
    assert steps.at(name="before the reply") == steps[1]
    moment = steps[1].created_at
    assert moment
    assert steps.at(time=moment) == steps[1]
    assert steps.at(time=moment - timedelta(microseconds=1)) == steps[2]
    other = graph.update_state(steps[2].config, {"seen": ["x"]}, as_node="ask")
    forked = history(graph, thread())
    assert forked[0].config == other
    assert forked.at(step=0) == forked[3]
    assert forked.at(node="reply").branch == 1
    with pytest.raises(MissingCheckpointError, match="'t'"):
        forked.at(step=99)
    with pytest.raises(InvalidArgumentError, match="look for: step, checkpoint_id, name"):
        forked.at()
    with pytest.raises(InvalidArgumentError, match="time zone"):
        forked.at(time=datetime(2026, 1, 1))  # noqa: DTZ001 - that is what is refused


def test_names_are_unique_in_a_thread(sync_saver: PostgresSaver) -> None:
    """A name has characters, and is one checkpoint's of a thread until it is taken away."""
    graph = asking(sync_saver)
    for name in ("one", "two"):
        graph.invoke({"seen": []}, thread(name))
    latest = name_checkpoint(graph, thread("one"), "it's; here")
    assert latest == history(graph, thread("one"))[0].config
    name_checkpoint(graph, thread("two"), "it's; here")
    older = history(graph, thread("one"))[1].config
    with pytest.raises(NameTakenError, match="it's; here"):
        name_checkpoint(graph, older, "it's; here")
    name_checkpoint(graph, latest, None)
    with pytest.raises(InvalidArgumentError, match="name: is empty"):
        name_checkpoint(graph, latest, "")
    name_checkpoint(graph, older, "it's; here")
    assert history(graph, thread("one")).at(name="it's; here").config == older
    for missing in (thread("nobody"), thread("one", checkpoint_id="1")):
        with pytest.raises(MissingCheckpointError):
            name_checkpoint(graph, missing, "x")


def test_a_history_shows_itself(sync_saver: PostgresSaver) -> None:
    """As a line per step in text, as an escaped table in a notebook, the latest first."""
    graph = asking(sync_saver)
    graph.invoke({"seen": ["question"]}, thread("<script>"))
    name_checkpoint(graph, thread("<script>"), "<b>here</b>")
    steps = history(graph, thread("<script>"))
    assert [line.split()[:2] for line in str(steps).splitlines()] == [
        ["0", "loop"],
        ["-1", "input"],
    ]
    html = steps._repr_html_()
    assert html.index("&lt;b&gt;here&lt;/b&gt;") < html.index("__start__")
    assert "<script" not in html
    assert "<b>" not in html


def test_a_long_history_shows_its_beginning(sync_saver: PostgresSaver) -> None:
    """Fifty steps are shown, and that there are more."""
    graph = asking(sync_saver)
    for number in range(26):
        graph.invoke({"seen": [str(number)]}, thread())
    steps = history(graph, thread())
    assert steps._repr_html_().count('<tr class="step"') == 50
    assert "more" in str(steps).splitlines()[-1]
    assert len(str(steps).splitlines()) == 51


async def test_async_callers(saver: PostgresSaver) -> None:
    """`async for` and `load` don't block; afterwards it is a list like any other."""
    graph = asking(saver)
    await graph.ainvoke({"seen": []}, thread())
    await aname_checkpoint(graph, thread(), "asked")
    loaded = await history(graph, thread()).load()
    assert [s async for s in history(graph, thread())] == list(loaded)
    assert [s.name for s in loaded] == ["asked", None]


def test_a_subgraphs_history_is_its_own(sync_saver: PostgresSaver) -> None:
    """A config with a namespace leads to that namespace's checkpoints."""
    inner = asking(None)
    builder = StateGraph(State)
    builder.add_node("inner", inner)
    builder.add_edge(START, "inner")
    graph = builder.compile(checkpointer=sync_saver)
    graph.invoke({"seen": []}, thread())
    state = graph.get_state(thread(), subgraphs=True).tasks[0].state
    assert isinstance(state, StateSnapshot)
    steps = history(graph, state.config)
    assert [s.next for s in steps] == [("ask",), ("__start__",)]
    assert [s.next for s in history(graph, thread())] == [("inner",), ("__start__",)]


def test_only_graphs_with_this_saver_have_a_history() -> None:
    """Another saver, or none, is refused by name of what is needed."""
    for checkpointer in (None, InMemorySaver()):
        with pytest.raises(InvalidArgumentError, match="PostgresSaver"):
            history(asking(checkpointer), thread())


def test_a_thread_without_checkpoints_is_empty(sync_saver: PostgresSaver) -> None:
    """Nothing is there, and that is no error."""
    assert list(history(sync_saver, thread("nobody"))) == []


async def test_a_long_history_is_fetched_as_it_is_asked_for(
    saver: PostgresSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of thousands of checkpoints takes one page, all of them a few."""
    config = thread(checkpoint_ns="")
    for number in range(STEPS):
        checkpoint: Any = {
            **empty_checkpoint(),
            "channel_values": {"count": number},
            "channel_versions": {"count": saver.get_next_version(f"{number:015}.0", None)},
        }
        versions = checkpoint["channel_versions"]
        config = await saver.aput(config, checkpoint, {"step": number, "source": "loop"}, versions)
    pages = 0
    fetch = saver.db.fetch

    async def counting(statement: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal pages
        pages += statement.name == "list_steps"
        return await fetch(statement, *arguments, **options)

    monkeypatch.setattr(saver.db, "fetch", counting)
    steps = history(saver, thread())
    assert steps[0].step == STEPS - 1
    assert [s.step for s in steps[3:5]] == [STEPS - 4, STEPS - 5]
    assert pages == 1
    assert [s.step for s in steps] == list(range(STEPS - 1, -1, -1))
    assert pages < 8 + STEPS // 1_000
    assert steps[-1].step == 0
    assert all(s.changed == ("count",) for s in steps)


def test_a_deferred_node_is_next_once_all_else_is_done(sync_saver: PostgresSaver) -> None:
    """Behind one node and behind several: LangGraph keeps beside its trigger whether it is."""
    builder: StateGraph[Any] = StateGraph(State)
    for name in ("short", "long", "longer", "longest"):
        builder.add_node(name, lambda state: {"seen": ["x"]})
    builder.add_node("after", lambda state: {"seen": ["x"]}, defer=True)
    builder.add_node("both", lambda state: {"seen": ["x"]}, defer=True)
    builder.add_edge(START, "short")
    builder.add_edge(START, "long")
    builder.add_edge("long", "longer")
    builder.add_edge("longer", "longest")
    builder.add_edge("short", "after")
    builder.add_edge(["short", "long"], "both")
    graph = builder.compile(checkpointer=sync_saver)
    graph.invoke({"seen": ["question"]}, thread())
    steps = history(graph, thread())[:]
    assert [set(step.next) for step in steps][:3] == [set(), {"after", "both"}, {"longest"}]
    same(steps, list(graph.get_state_history(thread())))


def test_a_node_that_is_sent_to_ran_in_each_of_its_steps(sync_saver: PostgresSaver) -> None:
    """Not in the first one of its thread only; the latest is the one that is found by its name."""
    builder = StateGraph(Log)
    builder.add_node("split", lambda state: {"items": ["split"]})
    builder.add_node("work", lambda state: {"items": [state]})
    builder.add_edge(START, "split")
    builder.add_conditional_edges("split", lambda _: [Send("work", "1"), Send("work", "2")])
    graph = builder.compile(checkpointer=sync_saver)
    for _ in range(40):
        graph.invoke({"items": []}, thread())
    steps = history(graph, thread())
    ran = [step.nodes for step in steps]
    assert ran == [("work",), ("split",), (), ()] * 40
    assert steps.at(node="work").step == steps[0].step


def test_a_join_starts_its_node_whatever_the_names_before_it(sync_saver: PostgresSaver) -> None:
    """LangGraph puts a plus between them in the channel's name."""
    builder: StateGraph[Any] = StateGraph(State)
    for name in ("a+b", "c", "last"):
        builder.add_node(name, lambda state: {"seen": ["x"]})
    builder.add_edge(START, "a+b")
    builder.add_edge("a+b", "c")
    builder.add_edge(["a+b", "c"], "last")
    graph = builder.compile(checkpointer=sync_saver)
    graph.invoke({"seen": ["question"]}, thread())
    same(history(graph, thread())[:], list(graph.get_state_history(thread())))


def test_encrypted_threads_have_a_history(dsn: str) -> None:
    """With the key everything is there, though nothing stands in clear."""
    from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

    serde = EncryptedSerializer.from_pycryptodome_aes(SafeSerializer(), key=b"k" * 32)
    with PostgresSaver.from_conn_string(dsn, serde=serde) as saver:
        builder = StateGraph(MessagesState)
        builder.add_node("reply", lambda _: {"messages": [AIMessage("hi")]})
        builder.add_edge(START, "reply")
        graph = builder.compile(checkpointer=saver)
        graph.invoke({"messages": [HumanMessage("hello")]}, thread())
        same(history(graph, thread()), list(graph.get_state_history(thread())))
        assert history(graph, thread())[0].nodes == ("reply",)


def careless(saver: Any, mistake_at: int) -> Any:
    """An agent of many steps that at one of them gives away more than it may."""

    def work(state: State) -> dict[str, Any]:
        count = state.get("count", 0) + 1
        paid = "refunded 9000 EUR" if count == mistake_at else f"looked at order {count}"
        return {"seen": [paid], "count": count}

    builder = StateGraph(State)
    builder.add_node("work", work)
    builder.add_edge(START, "work")
    builder.add_conditional_edges("work", lambda s: END if s["count"] >= 200 else "work")
    return builder.compile(checkpointer=saver)


def refunded(values: Any) -> bool:
    return "refunded 9000 EUR" in values.get("seen", [])


@pytest.mark.parametrize("mistake_at", [1, 2, 117, 199, 200])
async def test_a_mistake_among_200_steps_is_found(saver: PostgresSaver, mistake_at: int) -> None:
    """The first state that holds it, in as many loads as the history has doublings."""
    graph = careless(saver, mistake_at)
    await graph.ainvoke({"seen": []}, {**thread(), "recursion_limit": 300})
    loads = 0

    def predicate(values: Any) -> bool:
        nonlocal loads
        loads += 1
        return refunded(values)

    steps = history(graph, thread())
    found = await abisect(steps, predicate)
    assert found is not None
    assert found.step == mistake_at
    assert found.nodes == ("work",)
    assert loads <= 9
    assert bisect(history(saver, thread()), refunded) == found
    before = steps.at(checkpoint_id=found.parent_checkpoint_id)
    changes = diff(await steps.avalues(before), await steps.avalues(found))
    assert "refunded 9000 EUR" in [c.after for c in changes.within("seen")]


def test_what_never_became_true_is_not_found(sync_saver: PostgresSaver) -> None:
    """None where the latest state doesn't fit, be it that another branch's does."""
    graph = asking(sync_saver)
    assert bisect(history(graph, thread()), refunded) is None
    graph.invoke({"seen": []}, thread())
    asked = history(graph, thread())[0]
    graph.update_state(asked.config, {"seen": ["refunded 9000 EUR"]}, as_node="ask")
    assert bisect(history(graph, thread()), refunded) == history(graph, thread())[0]
    graph.update_state(asked.config, {"seen": ["nothing"]}, as_node="ask")
    assert bisect(history(graph, thread()), refunded) is None


async def test_what_was_deleted_meanwhile_is_not_taken_for_an_empty_state(
    saver: PostgresSaver,
) -> None:
    """A search over a history that was pruned since says so, instead of finding a later step."""
    graph = careless(saver, 1)
    await graph.ainvoke({"seen": []}, {**thread(), "recursion_limit": 300})
    fetched = [await history(of, thread()).load() for of in (graph, saver)]
    await saver.aprune([thread()["configurable"]["thread_id"]])
    for steps in fetched:
        assert refunded(await steps.avalues(steps[0]))
        with pytest.raises(MissingCheckpointError):
            await abisect(steps, refunded)
        with pytest.raises(MissingCheckpointError):
            bisect(steps, refunded)
        with pytest.raises(MissingCheckpointError):
            steps.values(steps[-1])


def _breaks(state: Any) -> Any:
    raise OSError("broken")


def test_an_error_that_a_handler_took_is_no_failure(sync_saver: PostgresSaver) -> None:
    """The step went on; one whose error nobody took has failed."""
    builder: Any = StateGraph(State)
    builder.add_node("breaks", _breaks, error_handler=lambda state: {"seen": ["handled"]})
    builder.add_edge(START, "breaks")
    graph = builder.compile(checkpointer=sync_saver)
    assert "handled" in graph.invoke({"seen": ["question"]}, thread())["seen"]
    assert [step.has_error for step in history(graph, thread())] == [False] * 3
    found = list(sync_saver.list(thread()))
    assert any(
        channel == "__error__" for one in found for _, channel, _ in one.pending_writes or ()
    )
    assert [open_errors(one.pending_writes or ()) for one in found] == [[]] * len(found)
    builder = StateGraph(State)
    builder.add_node("breaks", _breaks)
    builder.add_edge(START, "breaks")
    graph = builder.compile(checkpointer=sync_saver)
    with pytest.raises(OSError, match="broken"):
        graph.invoke({"seen": ["question"]}, thread("fails"))
    assert [step.has_error for step in history(graph, thread("fails"))] == [True, False]
    newest = next(iter(sync_saver.list(thread("fails"))))
    assert len(open_errors(newest.pending_writes or ())) == 1


@task
def broken() -> None:
    raise OSError("broken")


def function(saver: Any, ending: str) -> Any:
    """An entrypoint that catches what it called, unless that ends it, and then ends otherwise."""

    @entrypoint(checkpointer=saver)
    def work(value: int) -> Any:
        with nullcontext() if ending == "uncaught" else suppress(OSError):
            broken().result()
        if ending == "asks":
            interrupt("may I?")
        if ending == "fails itself":
            raise KeyError("its own")
        return value

    return work


def calling(saver: Any, ending: str) -> Any:
    """A node that does so."""

    def work(state: Any) -> Any:
        with nullcontext() if ending == "uncaught" else suppress(OSError):
            broken().result()
        return {"seen": ["worked"]}

    builder = StateGraph(State)
    builder.add_node("work", work)
    builder.add_edge(START, "work")
    return builder.compile(checkpointer=saver)


# How many errors are the step's own.
ENDINGS: list[tuple[Any, str, int]] = [
    (function, "returns", 0),
    (function, "asks", 0),
    (function, "fails itself", 1),
    (function, "uncaught", 1),
    (calling, "returns", 0),
    (calling, "uncaught", 1),
]


@pytest.mark.parametrize(("make", "ending", "own"), ENDINGS)
def test_an_error_that_a_function_caught_is_no_failure(
    sync_saver: PostgresSaver, make: Any, ending: str, own: int
) -> None:
    """What a function calls may fail; the step fails where the function does. In a thread of
    another saver, too."""
    memory = InMemorySaver()
    both = ReadThroughSaver(sync_saver, memory)
    for saver in (sync_saver, memory):
        given: Any = 1 if make is function else {"seen": []}
        with pytest.raises((OSError, KeyError)) if own else nullcontext():
            make(saver, ending).invoke(given, thread("t" if saver is sync_saver else "old"))
    errors = [
        sync_saver.db.portal.call(aopen_errors, sync_saver, one) for one in sync_saver.list(None)
    ]
    assert sum(map(len, errors)) == own
    for name in ("t", "old"):
        assert sum(step.has_error for step in history(both, thread(name))) == own, name
    assert not asyncio.run(both.ais_imported("old"))


def test_a_node_that_is_tried_again_has_not_failed(sync_saver: PostgresSaver) -> None:
    """An attempt that a RetryPolicy follows leaves no error."""
    tried: list[int] = []

    def breaks_once(state: Any) -> Any:
        tried.append(1)
        if len(tried) == 1:
            raise ConnectionError("broken")
        return {"seen": ["done"]}

    builder: Any = StateGraph(State)
    policy = RetryPolicy(initial_interval=0.01, jitter=False)
    builder.add_node("breaks", breaks_once, retry_policy=policy)
    builder.add_edge(START, "breaks")
    graph = builder.compile(checkpointer=sync_saver)
    graph.invoke({"seen": ["question"]}, thread())
    assert len(tried) == 2
    assert not any(step.has_error for step in history(graph, thread()))


def test_times_say_their_zone(sync_saver: PostgresSaver) -> None:
    """In the text and in the table of a history, and in the title of a state."""
    graph = joined(sync_saver)
    graph.invoke({"seen": ["question"]}, thread())
    found = history(graph, thread())
    assert re.search(r"\d\d:\d\d:\d\d UTC;", str(found))
    assert "time (UTC)" in found._repr_html_()
    state = get_state(graph, thread())
    for shown in (str(state), state._repr_html_()):
        assert re.search(r"\d\d:\d\d:\d\d UTC", shown)
