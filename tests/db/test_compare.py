"""Several ways to go on from one past state, run beside each other."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command, interrupt

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import InvalidArgumentError, MissingCheckpointError
from langgraph_pgsaga.timetravel import (
    Comparison,
    Variant,
    acompare,
    aget_state,
    at,
    compare,
    get_state,
    history,
)
from tests._html import tags_of, text_of
from tests._limits import HANG_SECONDS
from tests.db._travelled import State, asking, nested, thread

pytestmark = pytest.mark.anyio


class Priced(TypedDict, total=False):
    price: int
    total: int


def pricing(saver: Any, *, is_async: bool = False) -> Any:
    """Divides a hundred by a price."""

    def divide(state: Priced) -> dict[str, Any]:
        return {"total": 100 // state["price"]}

    async def adivide(state: Priced) -> dict[str, Any]:
        return divide(state)

    builder: Any = StateGraph(Priced)
    builder.add_node("ask", lambda _: {"price": 4})
    builder.add_node("divide", adivide if is_async else divide)
    builder.add_edge(START, "ask")
    builder.add_edge("ask", "divide")
    return builder.compile(checkpointer=saver)


def threads_of(saver: PostgresSaver) -> set[str]:
    return {found.config["configurable"]["thread_id"] for found in saver.list(None)}


@pytest.mark.parametrize("is_async", [False, True])
def test_variants_run_in_threads_of_their_own(sync_saver: PostgresSaver, is_async: bool) -> None:
    """Sync callers may have nodes of either kind; the original isn't touched."""
    asyncio.run(pricing(sync_saver, is_async=is_async).ainvoke({}, thread()))
    graph = pricing(sync_saver, is_async=is_async)
    before = list(history(graph, thread()))
    variants: Any = {"as it was": None, "half": {"price": 2}, "free": {"price": 0}}
    found = compare(at(graph, thread(), node="ask"), variants)
    assert list(found.outcomes) == list(variants)
    totals = {name: o.state and o.state.values.get("total") for name, o in found.outcomes.items()}
    assert totals == {"as it was": 25, "half": 50, "free": None}
    assert list(history(graph, thread())) == before
    ids = {o.config["configurable"]["thread_id"] for o in found.outcomes.values()}
    assert threads_of(sync_saver) == {"t", *ids}
    assert {id_.rsplit(":", 1)[0] for id_ in ids} == {"t:as it was", "t:half", "t:free"}
    assert [(c.path, c.before, c.after) for c in found.diff("as it was", "half")] == [
        (("price",), 4, 2),
        (("total",), 25, 50),
    ]
    found.discard()
    assert threads_of(sync_saver) == {"t"}
    found.discard()


def test_an_exception_is_an_outcome(sync_saver: PostgresSaver) -> None:
    """It is kept with the state in which it happened, and the others go on."""
    graph = pricing(sync_saver)
    graph.invoke({}, thread())
    start = at(graph, thread(), node="ask")
    variants = {"free": {"price": 0}, "x\x00": None, "fine": None, "nobody": Variant(as_node="no")}
    found = compare(start, variants)
    free, nul, fine, nobody = found.outcomes.values()
    assert isinstance(free.error, ZeroDivisionError)
    assert free.state is not None
    assert (free.state.values, free.state.next) == ({"price": 0}, ("divide",))
    assert isinstance(nul.error, InvalidArgumentError)
    assert nobody.error is not None
    assert (nul.state, nobody.state, nobody.seconds) == (None, None, 0.0)
    assert fine.error is None
    with pytest.raises(InvalidArgumentError, match="'nobody' has no state"):
        found.diff("fine", "nobody")
    with pytest.raises(InvalidArgumentError, match="no variant 'other'"):
        found.diff("fine", "other")
    assert "failed after" in str(found).splitlines()[0]
    assert "ZeroDivisionError" in text_of(found._repr_html_())


@pytest.mark.parametrize("make", [asking, nested])
def test_questions_are_answered_by_input(sync_saver: PostgresSaver, make: Any) -> None:
    """A paused run, also inside a subgraph, is resumed in one variant and stays so in another."""
    graph = make(sync_saver)
    graph.invoke({"seen": ["q"]}, thread())
    answers: Any = {
        answer: Variant(input=Command(resume=answer), values=None) for answer in ("yes", "no")
    }
    found = compare(get_state(graph, thread()), {**answers, "later": None})
    for answer in ("yes", "no"):
        state = found.outcomes[answer].state
        assert state is not None
        assert answer in state.values["seen"]
        assert state.next == ()
    later = found.outcomes["later"].state
    assert later is not None
    assert [i.value for i in later.interrupts] == ["may I?"]
    assert "interrupted after" in str(found)
    assert len(get_state(graph, thread()).interrupts) == 1


def test_a_command_is_run_once_with_the_context(sync_saver: PostgresSaver) -> None:
    """A variant that is a Command runs its fork once, with the context, and takes its time;
    what it fails with leaves the state in which that happened."""
    runs: list[Any] = []

    def act(state: State, runtime: Runtime[Any]) -> dict[str, Any]:
        runs.append(runtime.context)
        answer = interrupt("may I?")
        if answer == "no":
            raise ValueError(answer)
        return {"seen": [answer]}

    builder: Any = StateGraph(State, context_schema=dict)
    builder.add_node("act", act)
    builder.add_edge(START, "act")
    graph = builder.compile(checkpointer=sync_saver)
    graph.invoke({"seen": []}, thread(), context={"by": "caller"})
    runs.clear()
    answers: Any = {answer: Command(resume=answer) for answer in ("yes", "no")}
    found = compare(get_state(graph, thread()), answers, context={"by": "compare"})
    assert runs == [{"by": "compare"}] * 2
    yes, no = found.outcomes.values()
    assert (yes.error, yes.state and yes.state.values["seen"]) == (None, ["yes"])
    assert isinstance(no.error, ValueError)
    assert no.state is not None
    assert no.state.next == ("act",)
    assert all(outcome.seconds for outcome in (yes, no))


async def test_variants_run_at_the_same_time(saver: PostgresSaver) -> None:
    """All of them, or as many as are wanted, with the context that is given."""
    running, most = 0, 0
    together = threading.Barrier(3, timeout=HANG_SECONDS)

    def meet(state: State, runtime: Runtime[Any]) -> dict[str, Any]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if runtime.context["all"]:
            together.wait()
        running -= 1
        return {"seen": ["met"]}

    builder: Any = StateGraph(State, context_schema=dict)
    builder.add_node("meet", meet)
    builder.add_edge(START, "meet")
    graph = builder.compile(checkpointer=saver)
    config = thread()
    await graph.aupdate_state(config, {"seen": ["q"]}, as_node="__start__")
    start = await aget_state(graph, config)
    variants = dict.fromkeys("abc")
    found = await acompare(start, variants, context={"all": True})
    assert [o.error for o in found.outcomes.values()] == [None] * 3
    assert most == 3
    most = 0
    found = await acompare(start, variants, max_concurrency=1, context={"all": False})
    assert [o.error for o in found.outcomes.values()] == [None] * 3
    assert most == 1
    await found.adiscard()


def test_what_can_not_be_compared(sync_saver: PostgresSaver) -> None:
    """Nothing, no room, a state of nothing, and a subgraph's."""
    graph = nested(sync_saver)
    graph.invoke({"seen": ["q"]}, thread())
    state = get_state(graph, thread())
    with pytest.raises(InvalidArgumentError, match="no variant"):
        compare(state, {})
    with pytest.raises(InvalidArgumentError, match="between 1"):
        compare(state, {"a": None}, max_concurrency=0)
    with pytest.raises(MissingCheckpointError):
        compare(get_state(graph, thread("empty")), {"a": None})
    inner: Any = graph.get_state(thread(), subgraphs=True).tasks[0].state
    with pytest.raises(InvalidArgumentError, match="subgraph"):
        compare(get_state(graph, inner.config), {"a": None})


def conversing(saver: Any) -> Any:
    """Says what it is told to."""

    class Told(MessagesState):
        say: str

    builder: Any = StateGraph(Told)
    builder.add_node("start", lambda _: {"messages": [HumanMessage("hello")]})
    builder.add_node("say", lambda state: {"messages": [AIMessage(state["say"])]})
    builder.add_edge(START, "start")
    builder.add_edge("start", "say")
    return builder.compile(checkpointer=saver)


def compared(saver: PostgresSaver, **said: str) -> Comparison:
    graph = conversing(saver)
    graph.invoke({"say": "first"}, thread())
    start = at(graph, thread(), node="start")
    return compare(start, {name: {"say": text} for name, text in said.items()})


def test_outcomes_stand_side_by_side(sync_saver: PostgresSaver) -> None:
    """What they have in common is told once, what each made of it beside the others."""
    found = compared(sync_saver, kind="of course", curt="no")
    text = text_of(found._repr_html_())
    assert text.index("kind") < text.index("curt") < text.index("of course") < text.index("no")
    assert text.count("1 message in common") == 2
    assert "hello" not in text
    lines = str(found).splitlines()
    assert lines[0].startswith("kind: ended after ")
    assert lines[1:3] == ["  + messages[1]: assistant: of course", "  ~ say: 'first' → 'of course'"]


def test_nothing_in_an_outcome_becomes_a_tag_or_an_escape(sync_saver: PostgresSaver) -> None:
    """Names, errors and values are shown as they are."""
    evil = "<script>alert('x')</script>\" onload=y \x1b[31m\u202e"
    found = compared(sync_saver, **{evil: evil, "other": "x"})
    html = found._repr_html_()
    allowed = {"style", "table", "tr", "th", "td", "code", "div", "span", "details", "summary"}
    assert tags_of(html) <= allowed
    for shown in (html, str(found)):
        assert "\x1b" not in shown
        assert "\u202e" not in shown
