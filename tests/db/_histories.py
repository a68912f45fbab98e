"""Graphs that leave histories worth moving: tools, interrupts, forks, subgraphs, Send, deltas."""

from __future__ import annotations

import operator
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage, ToolMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, Send, interrupt
from typing_extensions import TypedDict

from tests._graphs import Saver

Drive = Callable[[Any, Any], Awaitable[Any]]


def config_of(thread_id: str) -> Any:
    return {"configurable": {"thread_id": thread_id}, "metadata": {"user_id": "ada", "plan": "pro"}}


def chat(saver: Saver) -> Any:
    """A model that calls a tool, and answers."""

    def model(state: MessagesState) -> Any:
        last = state["messages"][-1]
        if isinstance(last, ToolMessage):
            return {"messages": [AIMessage(f"It is {last.content}.")]}
        call = {"name": "weather", "args": {"city": "Æ"}, "id": "call-1", "type": "tool_call"}
        return {"messages": [AIMessage("", tool_calls=[call])]}

    def tool(state: MessagesState) -> Any:
        return {"messages": [ToolMessage("raining", tool_call_id="call-1", artifact={"mm": 2})]}

    def after(state: MessagesState) -> str:
        message = state["messages"][-1]
        return "tool" if isinstance(message, AIMessage) and message.tool_calls else END

    builder: Any = StateGraph(MessagesState)
    builder.add_node("model", model)
    builder.add_node("tool", tool)
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", after, ["tool", END])
    builder.add_edge("tool", "model")
    return builder.compile(checkpointer=saver)


async def talk(graph: Any, config: Any) -> None:
    for text in ("the weather?", "and now?"):
        await graph.ainvoke({"messages": [HumanMessage(text)]}, config)


async def fork(graph: Any, config: Any) -> None:
    """Two branches from one checkpoint, and an edit that removes a message."""
    await talk(graph, config)
    states = [state async for state in graph.aget_state_history(config)]
    for text in ("left", "right"):
        branch = await graph.aupdate_state(states[4].config, {"messages": [HumanMessage(text)]})
        await graph.ainvoke(None, branch)
    first = (await graph.aget_state(config)).values["messages"][0]
    await graph.aupdate_state(config, {"messages": [RemoveMessage(id=first.id)]})


class Total(TypedDict):
    total: Annotated[list[Any], operator.add]


def approval(saver: Saver) -> Any:
    """Two tasks side by side: one done, one waiting for two answers."""

    def asks(_: Total) -> Any:
        return {"total": [interrupt("first?"), interrupt({"second": 2})]}

    def works(_: Total) -> Any:
        return {"total": ["worked"]}

    builder: Any = StateGraph(Total)
    builder.add_node("asks", asks)
    builder.add_node("works", works)
    builder.add_edge(START, "asks")
    builder.add_edge(START, "works")
    return builder.compile(checkpointer=saver)


def two_askers(saver: Saver, questions: int = 1) -> Any:
    """Two tasks side by side: one waits for an answer, one for so many."""
    builder: Any = StateGraph(Total)
    asks = {"some": [f"{n}?" for n in range(questions)], "once": ["once?"]}
    for name, asked in asks.items():
        builder.add_node(name, lambda _, asked=asked: {"total": [interrupt(a) for a in asked]})
        builder.add_edge(START, name)
    return builder.compile(checkpointer=saver)


async def ask(graph: Any, config: Any) -> None:
    await graph.ainvoke({"total": ["start"]}, config)


async def overrule(graph: Any, config: Any) -> None:
    """An update in the name of the task that asked, in place of its answer."""
    await ask(graph, config)
    await graph.aupdate_state(config, {"total": ["overruled"]}, as_node="asks")
    await graph.ainvoke(None, config)


def nested(saver: Saver) -> Any:
    """A subgraph that is interrupted, in a namespace of its own."""

    def inner(_: Total) -> Any:
        return {"total": [interrupt("inner?")]}

    child: Any = StateGraph(Total)
    child.add_node("before", lambda _: {"total": ["before"]})
    child.add_node("inner", inner)
    child.add_edge(START, "before")
    child.add_edge("before", "inner")
    parent: Any = StateGraph(Total)
    parent.add_node("child", child.compile())
    parent.add_edge(START, "child")
    return parent.compile(checkpointer=saver)


def fan_out(saver: Saver) -> Any:
    """Twelve Sends, so that the order of tasks isn't that of their ids."""

    def worker(given: Any) -> Any:
        if given["n"] == 7 and given["ask"]:
            return {"total": [interrupt("seven?")]}
        return {"total": [given["n"]]}

    builder: Any = StateGraph(Total)
    builder.add_node("worker", worker)
    builder.add_conditional_edges(
        START, lambda _: [Send("worker", {"n": n, "ask": True}) for n in range(12)], ["worker"]
    )
    return builder.compile(checkpointer=saver)


def add_all(current: list[Any], updates: list[Any]) -> list[Any]:
    return [*current, *(item for update in updates for item in update)]


class Deltas(TypedDict):
    items: Annotated[list[Any], DeltaChannel(add_all, snapshot_frequency=3)]
    turn: int


def deltas(saver: Saver) -> Any:
    """A delta channel, with snapshots now and then."""
    builder: Any = StateGraph(Deltas)
    for name in ("zebra", "ant"):
        builder.add_node(name, lambda state, name=name: {"items": [f"{name} {state['turn']}"]})
        builder.add_edge(START, name)
    return builder.compile(checkpointer=saver)


async def turns(graph: Any, config: Any) -> None:
    for turn in range(5):
        await graph.ainvoke({"items": [f"turn {turn}"], "turn": turn}, config)


class Failing(TypedDict):
    messages: Annotated[list[AnyMessage], operator.add]


def failing(saver: Saver) -> Any:
    """A node that fails."""

    def fails(_: Failing) -> Any:
        raise ValueError("broken")

    builder: Any = StateGraph(Failing)
    builder.add_node("fails", fails)
    builder.add_edge(START, "fails")
    return builder.compile(checkpointer=saver)


async def fail(graph: Any, config: Any) -> None:
    try:
        await graph.ainvoke({"messages": [HumanMessage("go")]}, config)
    except ValueError:
        return
    raise AssertionError("it didn't fail")


async def mend(graph: Any, config: Any) -> None:
    """An update in the name of the task that failed."""
    await fail(graph, config)
    await graph.aupdate_state(config, {"messages": [HumanMessage("mended")]}, as_node="fails")


def odd_values(saver: Saver) -> Any:
    """Values that == doesn't compare, or JSON doesn't hold."""
    builder: Any = StateGraph(Total)
    odd = [float("nan"), -0.0, {1, "a"}, b"\x00", "nul \x00", (1, [2]), 2**60, {"k": float("inf")}]
    builder.add_node("odd", lambda _: {"total": odd})
    builder.add_edge(START, "odd")
    return builder.compile(checkpointer=saver)


HISTORIES: dict[str, tuple[Callable[[Saver], Any], Drive]] = {
    "chat": (chat, talk),
    "fork": (chat, fork),
    "interrupt": (approval, ask),
    "overruled": (approval, overrule),
    "subgraph": (nested, ask),
    "send": (fan_out, ask),
    "delta": (deltas, turns),
    "error": (failing, fail),
    "mended": (failing, mend),
    "odd values": (odd_values, ask),
}


async def resume(graph: Any, config: Any, *answers: Any) -> Any:
    """The answer of the graph to the last of these."""
    result = None
    for answer in answers:
        result = await graph.ainvoke(Command(resume=answer), config)
    return result
