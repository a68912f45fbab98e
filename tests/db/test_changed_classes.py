"""Threads whose classes have changed since, are gone, or were made inside functions."""

from __future__ import annotations

import asyncio
import dataclasses
import operator
import sys
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, Overwrite, Send, interrupt
from pydantic import BaseModel, field_validator
from typing_extensions import TypedDict

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import ChangedClassError, MissingTypeError, UnloadableValueError
from langgraph_pgsaga.timetravel import get_state, history, list_states
from tests.conftest import fetch
from tests.db._factory import counting
from tests.db._puts import put

pytestmark = pytest.mark.anyio
HERE = sys.modules[__name__]


@dataclasses.dataclass
class Line:
    qty: int

    def __post_init__(self) -> None:
        if self.qty < 0:
            raise ValueError("qty")


class Plan(BaseModel):
    title: str

    @field_validator("title")
    @classmethod
    def _louder(cls, value: str) -> str:
        return value + "!"


class Ticket(HumanMessage):
    priority: int = 0


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    lines: Annotated[list[Any], operator.add]
    plan: Any
    asked: bool


def config_of(thread: str) -> Any:
    return {"configurable": {"thread_id": thread}}


def shop(saver: PostgresSaver) -> Any:
    """Says something; sends each line to a node of its own where the plan says so; may ask."""

    def say(state: State) -> State:
        return {"messages": [AIMessage("said")]}

    def ask(state: State) -> State:
        if state.get("asked"):
            return {"messages": [AIMessage(interrupt({"plan": state["plan"]}))]}
        return {}

    def beside(state: State) -> State:
        return {"lines": [Line(1)]}

    def pack(line: Any) -> State:
        if getattr(line, "qty", 0) == 13:
            raise RuntimeError("unlucky")
        return {"messages": [AIMessage("packed")]}

    builder: Any = StateGraph(State)
    builder.add_node("say", say)
    builder.add_node("ask", ask)
    builder.add_node("beside", beside)
    builder.add_node("pack", pack)
    builder.add_edge(START, "say")
    builder.add_edge("say", "ask")
    builder.add_edge("say", "beside")
    builder.add_conditional_edges(
        "ask", lambda state: [Send("pack", line) for line in state.get("lines", [])], ["pack"]
    )
    return builder.compile(checkpointer=saver)


class NeedsMore(BaseModel):
    title: str
    owner: str


def gone(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """The next deploy has no such classes."""
    for name in names:
        monkeypatch.delattr(HERE, name)


def changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next deploy has a Plan that needs more."""
    monkeypatch.setattr(HERE, "Plan", NeedsMore)


def stored_values(dsn: str) -> Any:
    return fetch(dsn, "select * from agent_state_values order by channel, version")


def test_no_check_bricks_a_thread(dsn: str) -> None:
    """What a check refuses only later is loaded as it is, and validators that change what they
    are given aren't applied again."""
    with PostgresSaver.from_conn_string(dsn) as saver:
        graph = shop(saver)
        line, plan = Line(7), Plan(title="a")
        graph.invoke({"lines": [line], "plan": plan}, config_of("t"))
        line = Line(7)
        line.qty = -3
        graph.invoke({"lines": [line]}, config_of("t"))

    with PostgresSaver.from_conn_string(dsn) as saver:
        graph = shop(saver)
        values = graph.get_state(config_of("t")).values
        assert [one.qty for one in values["lines"]] == [7, 1, -3, 1]
        assert values["plan"].title == "a!"
        graph.update_state(config_of("t"), {"messages": ["more"]}, "beside")
        graph.invoke({"messages": ["and more"]}, config_of("t"))
        assert graph.get_state(config_of("t")).values["plan"].title == "a!"


async def test_the_error_says_where(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever loads the value names thread, checkpoint, channel, path, class, and what to do."""
    async with PostgresSaver.from_conn_string(dsn) as saver:
        graph = shop(saver)
        messages = [HumanMessage("hi"), Ticket(content="help")]
        tool = ToolMessage("x", tool_call_id="1", artifact={"lines": [Plan(title="a")]})
        values = {"plan": {"of": [Plan(title="b")]}, "messages": [*messages, tool]}
        await graph.ainvoke(values, config_of("t"))

    changed(monkeypatch)
    gone(monkeypatch, "Ticket")
    async with PostgresSaver.from_conn_string(dsn) as saver:
        graph = shop(saver)
        steps = await history(saver, config_of("t")).load()
        latest_id = steps[0].checkpoint_id
        ways: list[Callable[[], Any]] = [
            lambda: graph.aget_state(config_of("t")),
            lambda: graph.ainvoke({"messages": ["x"]}, config_of("t")),
            lambda: graph.aupdate_state(config_of("t"), {"messages": ["x"]}, "beside"),
            lambda: anext(graph.aget_state_history(config_of("t"))),
            lambda: asyncio.to_thread(graph.get_state, config_of("t")),
            lambda: asyncio.to_thread(lambda: next(saver.list(config_of("t")))),
        ]
        for way in ways:
            with pytest.raises(UnloadableValueError) as caught:
                await way()
            error = caught.value
            assert (error.thread_id, error.checkpoint_id) == ("t", latest_id)
            place = type(error), error.channel, error.path
            assert place in (
                (ChangedClassError, "plan", "['of'][0]"),
                (MissingTypeError, "messages", "[1]"),
            )
            for part in ("thread 't'", f"channel {error.channel!r}", "lenient=True"):
                assert part in str(error)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_thread_is_put_right_by_update_state(
    dsn: str, monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    """With a lenient saver states load, and update_state replaces what no longer fits; what it
    doesn't touch stays byte for byte. Then the thread goes on with any saver."""
    with PostgresSaver.from_conn_string(dsn) as saver:
        values = {"plan": Plan(title="b"), "messages": ["hi", Ticket(content="help", id="1")]}
        shop(saver).invoke({**values, "lines": [Line(3)]}, config_of("t"))
    before, line = stored_values(dsn), Line
    changed(monkeypatch)
    gone(monkeypatch, "Ticket", "Line")

    def run(graph: Any, method: str, *args: Any) -> Any:
        if is_async:
            return asyncio.run(getattr(graph, f"a{method}")(*args))
        return getattr(graph, method)(*args)

    with PostgresSaver.from_conn_string(dsn, lenient=True) as saver:
        graph = shop(saver)
        state = run(graph, "get_state", config_of("t"))
        assert state.values["plan"].content == {"title": "b!"}
        assert state.values["messages"][1].text == "help"
        assert [line.content for line in state.values["lines"]] == [{"qty": 3}, {"qty": 1}]
        plan = NeedsMore(title="b", owner="o")
        run(graph, "update_state", config_of("t"), {"plan": plan}, "beside")
        assert [row for row in stored_values(dsn) if row in before] == before
        new = {"messages": [HumanMessage("help", id="1")], "lines": Overwrite([])}
        run(graph, "update_state", config_of("t"), new, "beside")

    with PostgresSaver.from_conn_string(dsn) as saver:
        graph = shop(saver)
        state = run(graph, "get_state", config_of("t"))
        assert state.values["plan"] == NeedsMore(title="b", owner="o")
        assert [type(m) for m in state.values["messages"]][:2] == [HumanMessage, HumanMessage]
        monkeypatch.setattr(HERE, "Line", line, raising=False)
        assert run(graph, "invoke", {"messages": ["go on"]}, config_of("t"))["plan"].owner == "o"


def test_what_is_written_beside_placeholders_is_whole_once_the_class_is_back(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run with a lenient saver that appends to lists with placeholders loses nothing: with
    the class, all of it loads."""
    line, ticket = Line, Ticket
    with PostgresSaver.from_conn_string(dsn) as saver:
        messages = ["hi", Ticket(content="help", id="1", priority=4)]
        shop(saver).invoke({"messages": messages, "lines": [Line(3)]}, config_of("t"))
    gone(monkeypatch, "Ticket")
    monkeypatch.setattr(HERE, "Line", NeedsMore)
    with PostgresSaver.from_conn_string(dsn, lenient=True) as saver:
        builder: Any = StateGraph(State)
        builder.add_node("more", lambda state: {"messages": ["more"], "lines": [4]})
        builder.add_edge(START, "more")
        graph = builder.compile(checkpointer=saver)
        graph.invoke({}, config_of("t"))
        graph.invoke({}, config_of("t"))
    monkeypatch.undo()
    with PostgresSaver.from_conn_string(dsn) as saver:
        values = shop(saver).get_state(config_of("t")).values
        assert values["lines"] == [line(3), line(1), 4, 4]
        assert values["messages"][1] == ticket(content="help", id="1", priority=4)
        assert [m.text for m in values["messages"]][-2:] == ["more", "more"]
        assert len(fetch(dsn, "select 1 from agent_messages where content = 'help'")) == 1


def test_pending_writes_and_questions_with_such_values(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question about a plan, and what a node wrote beside it, are there as placeholders; the
    question can be answered."""
    with PostgresSaver.from_conn_string(dsn) as saver:
        shop(saver).invoke({"plan": Plan(title="a"), "asked": True}, config_of("t"))
    line = Line
    changed(monkeypatch)
    monkeypatch.setattr(HERE, "Line", NeedsMore)
    with PostgresSaver.from_conn_string(dsn) as saver, pytest.raises(ChangedClassError):
        shop(saver).get_state(config_of("t"))
    with PostgresSaver.from_conn_string(dsn, lenient=True) as saver:
        graph = shop(saver)
        state = graph.get_state(config_of("t"))
        assert state.interrupts[0].value["plan"].content == {"title": "a!"}
        monkeypatch.setattr(HERE, "Line", line)
        done = graph.invoke(Command(resume="yes"), config_of("t"))
        assert "yes" in [m.text for m in done["messages"]]
        assert done["plan"].type_name == f"{__name__}.Plan"


def test_sends_of_such_values(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a Send holds is a placeholder in the task's input; the run goes on with it."""
    with PostgresSaver.from_conn_string(dsn) as saver, pytest.raises(RuntimeError):
        shop(saver).invoke({"lines": [Line(13)]}, config_of("t"))
    gone(monkeypatch, "Line")
    with PostgresSaver.from_conn_string(dsn) as saver, pytest.raises(MissingTypeError):
        shop(saver).get_state(config_of("t"))
    with PostgresSaver.from_conn_string(dsn, lenient=True) as saver:
        graph = shop(saver)
        assert graph.get_state(config_of("t")).next == ("pack",)
        done = graph.invoke(None, config_of("t"))
        assert [m.text for m in done["messages"]].count("packed") == 1


def test_metadata_with_such_values(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object in the config's metadata is a placeholder, too; the thread goes on."""
    with PostgresSaver.from_conn_string(dsn) as saver:
        shop(saver).invoke({}, config_of("t"))
        latest = shop(saver).get_state(config_of("t"))
        put(saver, latest.config, latest.values, {"plan": Plan(title="a")})
    changed(monkeypatch)
    with PostgresSaver.from_conn_string(dsn) as saver:
        with pytest.raises(ChangedClassError, match=r"thread 't'.*metadata"):
            shop(saver).get_state(config_of("t"))
        assert list(history(saver, config_of("t")))
    with PostgresSaver.from_conn_string(dsn, lenient=True) as saver:
        graph = shop(saver)
        state = graph.get_state(config_of("t"))
        assert state.metadata["plan"].content == {"title": "a!"}
        graph.update_state(config_of("t"), {"messages": ["x"]}, "beside")
        graph.invoke({"messages": ["y"]}, config_of("t"))
        assert list(history(saver, config_of("t")))
        assert str(get_state(graph, config_of("t")))
        assert all(state._repr_html_() for state in list_states(graph, config_of("t")))


def test_encrypted_values_are_placeholders_too(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lenient is lenient inside the encryption, and stores nothing in clear."""
    serde = EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef")
    with PostgresSaver.from_conn_string(dsn, serde=serde) as saver:
        shop(saver).invoke({"plan": Plan(title="a")}, config_of("t"))
    changed(monkeypatch)
    with PostgresSaver.from_conn_string(dsn, serde=serde, lenient=True) as saver:
        graph = shop(saver)
        found = graph.get_state(config_of("t")).values["plan"]
        assert found.content == {"title": "a!"}
        graph.update_state(config_of("t"), {"plan": {"was": found}}, "beside")
        assert graph.get_state(config_of("t")).values["plan"] == {"was": found}


def test_graphs_of_a_factory_run(dsn: str) -> None:
    """A function that makes a graph with classes of its own: each of its graphs goes on with
    its own, turn by turn, also when their threads take turns."""
    with PostgresSaver.from_conn_string(dsn) as saver:
        graphs = {name: counting(saver, name) for name in ("a", "b")}
        for _ in range(3):
            for name, graph in graphs.items():
                graph.invoke({}, config_of(name))
                graph.invoke(None, config_of(name))
        for name, graph in graphs.items():
            steps = graph.get_state(config_of(name)).values["steps"]
            assert [(step.number, step.by) for step in steps] == [(0, name), (1, name), (2, name)]
