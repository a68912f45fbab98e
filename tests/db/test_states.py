"""States of real graphs: what they say, how they are found, and how they show themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, StateSnapshot, interrupt

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import InvalidArgumentError, MissingCheckpointError
from langgraph_pgsaga.timetravel import (
    State,
    aat,
    aget_state,
    alist_states,
    aname_checkpoint,
    at,
    aupdate_state,
    diff,
    get_state,
    history,
    list_states,
    name_checkpoint,
    update_state,
)
from tests._html import tags_of, text_of
from tests.db._travelled import asking, joined, nested, thread

pytestmark = pytest.mark.anyio

EVIL = "<script>alert('x')</script>\" onload=y \x1b[31m\u202e"


class Talk(MessagesState):
    notes: dict[str, Any]


def talking(saver: Any, *messages: AnyMessage, notes: Any = None) -> Any:
    """Says these messages, notes something, and asks."""

    def reply(state: Talk) -> dict[str, Any]:
        return {"messages": list(messages), "notes": notes or {}}

    def ask(state: Talk) -> dict[str, Any]:
        return {"messages": [AIMessage(interrupt(EVIL))]}

    builder = StateGraph(Talk)
    builder.add_node("reply", reply)
    builder.add_node("ask", ask)
    builder.add_edge(START, "reply")
    builder.add_edge("reply", "ask")
    return builder.compile(checkpointer=saver)


def same(state: State, snapshot: StateSnapshot) -> None:
    """The state says what the snapshot says, and its config names the same checkpoint."""
    for name in StateSnapshot._fields:
        if name != "config":
            assert getattr(state, name) == getattr(snapshot, name)
    assert state.config["configurable"] == snapshot.config["configurable"]


@pytest.mark.parametrize("make", [joined, asking, nested])
def test_a_state_is_langgraphs(sync_saver: PostgresSaver, make: Any) -> None:
    """The latest and every past state says what LangGraph says of it."""
    graph = make(sync_saver)
    graph.invoke({"seen": ["question"]}, thread())
    same(get_state(graph, thread()), graph.get_state(thread()))
    snapshots = list(graph.get_state_history(thread()))
    for step, listed, snapshot in zip(
        history(graph, thread()), list_states(graph, thread()), snapshots, strict=True
    ):
        same(get_state(graph, step), graph.get_state(snapshot.config))
        same(listed, snapshot)
        assert get_state(graph, listed).checkpoint_id == step.checkpoint_id


def test_a_subgraphs_state_is_found_by_its_config(sync_saver: PostgresSaver) -> None:
    """A config with a namespace leads to the states of that subgraph's call."""
    graph = nested(sync_saver)
    graph.invoke({"seen": ["question"]}, thread())
    inner: Any = graph.get_state(thread(), subgraphs=True).tasks[0].state
    same(get_state(graph, inner.config), graph.get_state(inner.config))
    same(next(list_states(graph, inner.config)), graph.get_state(inner.config))
    assert get_state(graph, inner.config).next == ("ask",)


def test_a_listing_has_pages(sync_saver: PostgresSaver) -> None:
    """Filter, limit and before are LangGraph's, over any number of pages."""
    graph = asking(sync_saver)
    for number in range(25):
        graph.invoke({"seen": [str(number)]}, thread())
    ids = [s.config["configurable"]["checkpoint_id"] for s in graph.get_state_history(thread())]

    def listed(**options: Any) -> list[str | None]:
        return [state.checkpoint_id for state in list_states(graph, thread(), **options)]

    assert len(ids) == 50
    assert listed() == ids
    for limit in (0, 1, 16, 17, 50, 60):
        assert listed(limit=limit) == ids[:limit]
    assert listed(before=history(graph, thread())[20], limit=20) == ids[21:41]
    assert listed(filter={"source": "input"}, limit=20) == ids[1::2][:20]


def test_what_a_state_is_found_with_goes_on(sync_saver: PostgresSaver) -> None:
    """The config keeps what else stood in it, so that a run from there runs by the same."""
    graph = asking(sync_saver)
    given: Any = {**thread(user_id="ada"), "recursion_limit": 7, "tags": ["audit"]}
    graph.invoke({"seen": ["question"]}, given)
    first, second = list_states(graph, given)
    found = at(graph, given, step=0)
    for state in (first, second, found, get_state(graph, given)):
        assert (state.config["recursion_limit"], state.config["tags"]) == (7, ["audit"])
        assert state.config["configurable"]["user_id"] == "ada"
    assert first == get_state(graph, first)
    assert second == get_state(graph, second)
    updated = update_state(graph, first, {"seen": ["x"]}, as_node="ask")
    assert updated.config["configurable"]["user_id"] == "ada"


def test_at_lands_on_a_past_state(sync_saver: PostgresSaver) -> None:
    """By step, node, name, id and time, as a history finds them."""
    graph = asking(sync_saver)
    graph.invoke({"seen": ["question"]}, thread())
    graph.invoke(Command(resume="yes"), thread())
    steps = history(graph, thread())
    name_checkpoint(graph, steps[1].config, "answered")
    for found in (
        at(graph, thread(), step=1),
        at(graph, thread(), node="ask"),
        at(graph, thread(), name="answered"),
        at(graph, thread(), checkpoint_id=steps[1].checkpoint_id),
        at(graph, thread(), time=steps[1].created_at),
    ):
        assert found.checkpoint_id == steps[1].checkpoint_id
        assert found.values["seen"] == ["question", "yes"]
    with pytest.raises(MissingCheckpointError):
        at(graph, thread(), step=99)


def test_an_update_gives_the_state_that_it_made(sync_saver: PostgresSaver) -> None:
    """The new state is a child of the one that was updated."""
    graph = asking(sync_saver)
    graph.invoke({"seen": ["question"]}, thread())
    before = get_state(graph, thread())
    after = update_state(graph, before, {"seen": ["by hand"]}, as_node="ask")
    assert after.parent_config == before.snapshot.config
    assert (after.next, after.values["seen"]) == (("reply",), ["question", "by hand"])
    assert [(c.path, c.after) for c in diff(before, after)] == [(("seen", 1), "by hand")]
    same(after, graph.get_state(after.config))


def test_what_is_not_there(sync_saver: PostgresSaver) -> None:
    """An empty thread has an empty state, which can be updated; a missing checkpoint raises."""
    graph = asking(sync_saver)
    empty = get_state(graph, thread())
    assert (empty.values, empty.next, empty.metadata) == ({}, (), None)
    assert empty.checkpoint_id is None
    assert "no checkpoint" in str(empty)
    assert "no checkpoint" in text_of(empty._repr_html_())
    assert list(list_states(graph, thread())) == []
    with pytest.raises(MissingCheckpointError, match="'t'"):
        get_state(graph, thread(checkpoint_id="1"))
    begun = update_state(graph, empty, {"seen": ["first"]}, as_node="__start__")
    assert begun.next == ("ask",)
    with pytest.raises(InvalidArgumentError, match="compiled graph"):
        get_state(sync_saver, begun)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="PostgresSaver"):
        get_state(asking(None), thread())


async def test_async_callers(saver: PostgresSaver) -> None:
    """Each has its twin that doesn't block, with the same answer."""
    graph = nested(saver)
    await graph.ainvoke({"seen": ["question"]}, thread())
    await aname_checkpoint(graph, thread(), "asked")
    latest = await aget_state(graph, thread())
    same(latest, await graph.aget_state(thread()))
    listed = [state.checkpoint_id async for state in alist_states(graph, thread())]
    assert listed == [step.checkpoint_id async for step in history(graph, thread())]
    limited = alist_states(graph, thread(), limit=1, before=latest)
    assert [state.checkpoint_id async for state in limited] == listed[1:2]
    assert (await aat(graph, thread(), name="asked")).checkpoint_id == latest.checkpoint_id
    updated = await aupdate_state(graph, latest, {"seen": ["x"]}, as_node="inner")
    assert (updated.next, updated.values["seen"]) == (("after",), ["question", "before", "x"])


def test_a_state_shows_a_conversation(sync_saver: PostgresSaver) -> None:
    """Who said what, tool calls with their arguments, results, failures and names."""
    call: Any = {"name": "search", "args": {"who": "Ada", "limit": 5}, "id": "1"}
    graph = talking(
        sync_saver,
        AIMessage("Let me look.", tool_calls=[call]),
        ToolMessage("order 17", tool_call_id="1", name="search"),
        ToolMessage("timeout", tool_call_id="2", name="search", status="error"),
        notes={"seen": [1, 2]},
    )
    start = [SystemMessage("Be kind."), HumanMessage("Where is it?", name="ada")]
    graph.invoke({"messages": start}, thread())
    state = get_state(graph, thread())
    html = text_of(state._repr_html_())
    for said in ("user, ada", "search(who='Ada', limit=5)", "tool, search", "{'seen': [1, 2]}"):
        assert said in html
    assert html.index("Be kind.") < html.index("Where is it?") < html.index("tool, search, failed")
    assert html.index("next: ask") < html.index("interrupted: ") < html.index("Be kind.")
    lines = str(state).splitlines()
    assert lines[0].startswith("thread t, step 1 loop, 20")
    assert lines[1] == "next: ask"
    assert lines[3:] == [
        "messages:",
        "  system: Be kind.",
        "  user: Where is it?",
        "  assistant: Let me look. search(who='Ada', limit=5)",
        "  tool: order 17",
        "  tool: timeout",
        "notes: {'seen': [1, 2]}",
    ]


def test_nothing_in_a_state_becomes_a_tag_or_an_escape(sync_saver: PostgresSaver) -> None:
    """Hostile names, texts, arguments and questions are shown, in HTML and in a terminal."""
    call: Any = {"name": EVIL, "args": {EVIL: EVIL}, "id": "1"}
    graph = talking(
        sync_saver,
        AIMessage(EVIL, tool_calls=[call], name=EVIL),
        AIMessage(EVIL * 500),
        notes={EVIL: {EVIL}},
    )
    graph.invoke({"messages": []}, thread(EVIL))
    state = get_state(graph, thread(EVIL))
    html = state._repr_html_()
    allowed = [
        "style",
        "div",
        "p",
        "span",
        "table",
        "tr",
        "td",
        "code",
        "details",
        "summary",
        "tbody",
    ]
    assert tags_of(html) <= set(allowed)
    assert "alert('x')" in text_of(html)
    for shown in (html, str(state)):
        assert "\x1b" not in shown
        assert "\u202e" not in shown


def test_wide_values_are_cut_and_say_so(sync_saver: PostgresSaver) -> None:
    """Large texts, lists and conversations make a small page, which counts what it leaves out."""
    messages = [HumanMessage(f"message {number}") for number in range(300)]
    graph = talking(
        sync_saver,
        *messages,
        HumanMessage("long " * 100_000),
        notes={"wide": list(range(100_000)), "text": "word " * 100_000},
    )
    graph.invoke({"messages": []}, thread())
    state = get_state(graph, thread())
    html = state._repr_html_()
    assert len(html) < 60_000
    assert "281 earlier messages" in html
    assert "480,000 more characters" in html
    assert "281 earlier messages" in str(state)
    assert len(str(state)) < 8_000


def test_a_state_of_one_value_is_shown(sync_saver: PostgresSaver) -> None:
    """A graph whose state has no channels of its own, and one whose node failed."""
    builder: Any = StateGraph(int)
    builder.add_node("fail", lambda _: 1 / 0)
    builder.add_edge(START, "fail")
    graph = builder.compile(checkpointer=sync_saver)
    with pytest.raises(ZeroDivisionError):
        graph.invoke(41, thread())
    state = get_state(graph, thread())
    assert str(state).splitlines()[1:] == [
        "next: fail",
        "failed: fail: ZeroDivisionError('division by zero')",
        "state: 41",
    ]
    assert "fail failed: ZeroDivisionError" in text_of(state._repr_html_())


def test_a_state_of_an_altered_row_is_shown(sync_saver: PostgresSaver) -> None:
    """A state whose time is none, or whose question is no Interrupt, shows itself all the same."""
    graph = talking(sync_saver, AIMessage("good morning"))
    graph.invoke({"messages": []}, thread("t"))
    state = get_state(graph, thread("t"))
    snapshot = state.snapshot._replace(created_at=5, interrupts=("Sure?",))  # type: ignore[arg-type]
    altered = replace(state, snapshot=snapshot)
    assert "Sure?" in str(altered)
    assert "good morning" in str(altered)
    assert "good morning" in altered._repr_html_()
