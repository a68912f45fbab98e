"""Time travel by graphs of every kind: state graphs, agents, entrypoints, subgraphs, async ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, interrupt
from typing_extensions import TypedDict

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga import timetravel as tt
from langgraph_pgsaga.errors import InvalidArgumentError

pytestmark = pytest.mark.anyio


class Work(TypedDict, total=False):
    log: Annotated[list[str], lambda old, new: old + new]
    messages: Annotated[list[Any], add_messages]


class Kind(NamedTuple):
    """How a graph is made, what it begins with, and what its values say of an answer."""

    make: Callable[[PostgresSaver], Any]
    given: Any
    said: Callable[[Any], str]


def checked(answer: str) -> str:
    if answer == "bad":
        raise ValueError("a bad answer")
    return answer


def state_graph(saver: PostgresSaver | None) -> Any:
    builder = StateGraph(Work)
    builder.add_node("look", lambda state: {"log": ["looked"]})
    builder.add_node("ask", lambda state: {"log": [checked(interrupt("which?"))]})
    builder.add_edge(START, "look")
    builder.add_edge("look", "ask")
    return builder.compile(checkpointer=saver)


def async_graph(saver: PostgresSaver) -> Any:
    async def look(state: Work) -> Work:
        return {"log": ["looked"]}

    async def ask(state: Work) -> Work:
        return {"log": [checked(interrupt("which?"))]}

    builder = StateGraph(Work)
    builder.add_node("look", look)
    builder.add_node("ask", ask)
    builder.add_edge(START, "look")
    builder.add_edge("look", "ask")
    return builder.compile(checkpointer=saver)


def parent_graph(saver: PostgresSaver) -> Any:
    builder = StateGraph(Work)
    builder.add_node("inner", state_graph(None))
    builder.add_edge(START, "inner")
    return builder.compile(checkpointer=saver)


def choose(question: str) -> str:
    """Asks which."""
    return checked(interrupt(question))


def agent(saver: PostgresSaver) -> Any:
    """The graph that agents are: a model that calls tools until it needs none."""
    call = {"name": "choose", "args": {"question": "which?"}, "id": "call"}

    def model(state: MessagesState) -> Any:
        last = state["messages"][-1]
        if isinstance(last, HumanMessage):
            return {"messages": [AIMessage("", tool_calls=[call])]}
        return {"messages": [AIMessage(f"You chose {last.text}")]}

    builder = StateGraph(MessagesState)
    builder.add_node("model", model)
    builder.add_node("tools", ToolNode([choose], handle_tool_errors=False))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", tools_condition)
    builder.add_edge("tools", "model")
    return builder.compile(checkpointer=saver)


@task
def looked() -> str:
    return "looked"


@task
def asked() -> str:
    return checked(interrupt("which?"))


def function(saver: PostgresSaver) -> Any:
    @entrypoint(checkpointer=saver)
    def flow(given: str, *, previous: list[str] | None = None) -> Any:
        log = [*(previous or []), looked().result(), asked().result()]
        return entrypoint.final(value={"log": log}, save=log)

    return flow


def async_function(saver: PostgresSaver) -> Any:
    @task
    async def ask() -> str:
        return checked(interrupt("which?"))

    @entrypoint(checkpointer=saver)
    async def flow(given: str, *, previous: list[str] | None = None) -> Any:
        log = [*(previous or []), await looked(), await ask()]
        return entrypoint.final(value={"log": log}, save=log)

    return flow


def last_of_log(values: Any) -> str:
    return str(values["log"][-1])


def last_message(values: Any) -> str:
    return str(values["messages"][-1].text).removeprefix("You chose ")


KINDS = {
    "state graph": Kind(state_graph, {"log": []}, last_of_log),
    "async graph": Kind(async_graph, {"log": []}, last_of_log),
    "subgraph": Kind(parent_graph, {"log": []}, last_of_log),
    "agent": Kind(agent, {"messages": [HumanMessage("go")]}, last_message),
    "entrypoint": Kind(function, "go", last_of_log),
    "async entrypoint": Kind(async_function, "go", last_of_log),
}
ENDS = ("paused", "finished", "failed")
THREAD: Any = {"configurable": {"thread_id": "t"}}
by_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
by_end = pytest.mark.parametrize("end", ENDS)


async def run(graph: Any, kind: Kind, end: str) -> None:
    """A run of the thread to that end."""
    await graph.ainvoke(kind.given, THREAD)
    if end == "finished":
        await graph.ainvoke(Command(resume="red"), THREAD)
    if end == "failed":
        with pytest.raises(ValueError, match="bad"):
            await graph.ainvoke(Command(resume="bad"), THREAD)


@by_kind
@by_end
async def test_every_function_takes_every_graph(saver: PostgresSaver, kind: Kind, end: str) -> None:
    """States, histories, trees and differences are there, and what they say is LangGraph's."""
    graph = kind.make(saver)
    await run(graph, kind, end)
    state = await tt.aget_state(graph, THREAD)
    plain = await graph.aget_state(THREAD)
    assert (state.values, state.next) == (plain.values, plain.next)
    assert state.interrupts == plain.interrupts
    assert bool([t for t in state.tasks if t.error]) == (end == "failed")
    expected = [s async for s in graph.aget_state_history(THREAD)]
    states = [s async for s in tt.alist_states(graph, THREAD)]
    assert [s.snapshot for s in states] == expected
    steps = await tt.history(graph, THREAD).load()
    assert [(s.checkpoint_id, s.next) for s in steps] == [
        (s.config["configurable"]["checkpoint_id"], s.next) for s in expected
    ]
    assert await steps.avalues(steps[0]) == plain.values
    found = await tt.aat(graph, THREAD, step=steps[-1].step)
    assert found.checkpoint_id == steps[-1].checkpoint_id
    named = await tt.aname_checkpoint(graph, steps[0].config, "here")
    assert (await tt.aat(graph, THREAD, name="here")).config == named
    assert len((await tt.abranches(graph, THREAD)).branches) == 1
    assert await tt.abisect(steps, lambda values: True) == steps[-1]
    change = tt.diff(states[-1], states[0])
    assert bool(change) == (states[-1].values != states[0].values)
    for shown in (state, steps, change):
        assert str(shown)
        assert shown._repr_html_()
    own = await tt.history(saver, THREAD).load()
    assert [s.changed for s in own] == [s.changed for s in steps]
    assert bool(await own.avalues(own[0])) == bool(plain.values)


@by_kind
@by_end
async def test_every_graph_forks_and_replays(saver: PostgresSaver, kind: Kind, end: str) -> None:
    """Tasks run again in a branch; a new thread of the latest state is where the old one is."""
    graph = kind.make(saver)
    await run(graph, kind, end)
    state = await tt.aget_state(graph, THREAD)
    copy = await tt.afork(state, thread_id="copy")
    assert (copy.values, copy.next) == (state.values, state.next)
    assert copy.interrupts == state.interrupts
    branch = await tt.afork(state)
    assert (branch.values, branch.next) == (state.values, state.next)
    ended = await tt.areplay(branch)
    assert bool(ended.interrupts) == (end != "finished")
    began = await tt.aat(graph, THREAD, step=-1)
    again = await tt.areplay(began)
    assert again.interrupts
    assert kind.said((await tt.areplay(again, Command(resume="blue"))).values) == "blue"


@by_kind
@by_end
async def test_a_command_answers_in_a_fork(saver: PostgresSaver, kind: Kind, end: str) -> None:
    """In a branch and in a new thread, by value and by the question's id; others stay open."""
    graph = kind.make(saver)
    await run(graph, kind, end)
    asking = next(iter([s async for s in tt.alist_states(graph, THREAD) if s.interrupts]))
    (question,) = asking.interrupts
    by_id: Command[Any] = Command(resume={question.id: "grey"})
    if end != "failed":  # an answer that was given stays given in a copy of the latest state
        done = await tt.afork(asking, Command(resume="green"), thread_id="new")
        assert (kind.said(done.values), done.thread_id, done.next) == ("green", "new", ())
        assert kind.said((await tt.afork(asking, by_id, thread_id="by id")).values) == "grey"
    assert kind.said((await tt.afork(asking, by_id)).values) == "grey"
    branch = await tt.afork(asking, Command(resume="blue"))
    assert kind.said(branch.values) == "blue"
    assert (await tt.aget_state(graph, THREAD)).checkpoint_id == branch.checkpoint_id


@by_kind
async def test_commands_are_variants(saver: PostgresSaver, kind: Kind) -> None:
    """Each answers the question in its own thread; one that fails is an outcome."""
    graph = kind.make(saver)
    await run(graph, kind, "paused")
    state = await tt.aget_state(graph, THREAD)
    found = await tt.acompare(
        state,
        {
            "yes": Command(resume="yes"),
            "no": tt.Variant(values=Command(resume="no")),
            "bad": Command(resume="bad"),
            "open": None,
        },
    )
    outcomes = found.outcomes
    for name in ("yes", "no"):
        ended = outcomes[name].state
        assert ended
        assert kind.said(ended.values) == name
    assert isinstance(outcomes["bad"].error, ValueError)
    still = outcomes["open"].state
    assert still
    assert still.interrupts
    assert found.diff("yes", "no")
    assert "yes" in str(found)
    assert found._repr_html_()
    await found.adiscard()


def test_entrypoints_have_sync_functions_too(sync_saver: PostgresSaver) -> None:
    """The same answers without an event loop."""
    graph = function(sync_saver)
    graph.invoke("go", THREAD)
    state = tt.get_state(graph, THREAD)
    assert (state.values, state.next) == (None, ("flow",))
    ended = tt.fork(state, Command(resume="red"), thread_id="sync")
    assert ended.values == {"log": ["looked", "red"]}
    assert tt.replay(state, Command(resume="blue")).values == {"log": ["looked", "blue"]}
    found = tt.compare(ended, {"again": tt.Variant(input="go")})
    again = found.outcomes["again"].state
    assert again
    assert again.interrupts
    assert [step.next for step in tt.history(graph, THREAD)] == [(), ("flow",)]
    assert tt.history(sync_saver, THREAD)[0].changed == ("state", "previous")
    assert "['looked', 'blue']" in str(tt.get_state(graph, THREAD))


def test_an_update_of_an_entrypoint_is_what_it_returned(sync_saver: PostgresSaver) -> None:
    """Its next call gets what was kept; a task that ran isn't run again when it is resumed."""
    graph = function(sync_saver)
    graph.invoke("go", THREAD)
    graph.invoke(Command(resume="red"), THREAD)
    kept = entrypoint.final(value={"log": ["told"]}, save=["kept"])
    assert tt.update_state(graph, THREAD, kept).values == {"log": ["told"]}
    graph.invoke("go", THREAD)
    answered = tt.replay(tt.get_state(graph, THREAD), Command(resume="blue"))
    assert answered.values == {"log": ["kept", "looked", "blue"]}


def test_a_command_that_cannot_be_told_apart_is_refused(sync_saver: PostgresSaver) -> None:
    """With as_node, for another graph, and by the ids of several questions in a branch."""
    builder = StateGraph(Work)
    for name in ("one", "two"):
        builder.add_node(name, lambda state: {"log": [interrupt("which?")]})
        builder.add_edge(START, name)
    graph = builder.compile(checkpointer=sync_saver)
    graph.invoke({"log": []}, THREAD)
    state = tt.get_state(graph, THREAD)
    answers = {question.id: "a" for question in state.interrupts}
    with pytest.raises(InvalidArgumentError, match="as_node"):
        tt.fork(state, Command(resume="a"), as_node="one")
    with pytest.raises(InvalidArgumentError, match="another graph"):
        tt.fork(state, Command(goto="one", graph=Command.PARENT))
    with pytest.raises(InvalidArgumentError, match="new ids"):
        tt.fork(state, Command(resume=answers))
    assert tt.fork(state, Command(resume=answers), thread_id="both").values["log"] == ["a", "a"]
    assert tt.fork(state, Command(update={"log": ["u"]}), thread_id="up").values["log"] == ["u"]
    moved = tt.fork(state, Command(goto="two"), thread_id="go")
    assert [question.value for question in moved.interrupts]
