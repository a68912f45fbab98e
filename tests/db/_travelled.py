"""Graphs to travel through."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.types import Send, interrupt


class State(TypedDict, total=False):
    seen: Annotated[list[str], operator.add]
    count: int


def thread(name: str = "t", **more: str) -> Any:
    return {"configurable": {"thread_id": name, **more}}


def node(name: str) -> Any:
    return lambda state: {"seen": [name], "count": state.get("count", 0) + 1}


def joined(saver: Any) -> Any:
    """a, then b beside c, then d when both are done, then two workers by Send."""
    builder = StateGraph(State)
    for name in "abcd":
        action = (lambda state, name=name: {"seen": [name]}) if name in "bc" else node(name)
        builder.add_node(name, action)
    builder.add_node("worker", lambda state: {"seen": [f"worker {state['number']}"]})
    builder.add_edge(START, "a")
    builder.add_edge("a", "b")
    builder.add_edge("a", "c")
    builder.add_edge(["b", "c"], "d")
    builder.add_conditional_edges("d", lambda _: [Send("worker", {"number": n}) for n in (1, 2)])
    return builder.compile(checkpointer=saver)


def asking(saver: Any) -> Any:
    """Asks before it replies."""

    def ask(state: State) -> dict[str, Any]:
        return {"seen": [interrupt("may I?")]}

    builder = StateGraph(State)
    builder.add_node("ask", ask)
    builder.add_node("reply", node("reply"))
    builder.add_edge(START, "ask")
    builder.add_edge("ask", "reply")
    builder.add_edge("reply", END)
    return builder.compile(checkpointer=saver)


def nested(saver: Any, checkpointer: Any = None) -> Any:
    """The asking graph as a node between two others."""
    builder = StateGraph(State)
    builder.add_node("before", node("before"))
    builder.add_node("inner", asking(checkpointer))
    builder.add_node("after", node("after"))
    builder.add_edge(START, "before")
    builder.add_edge("before", "inner")
    builder.add_edge("inner", "after")
    return builder.compile(checkpointer=saver)


class Remembered(TypedDict, total=False):
    """Messages as such and behind deltas, which are rebuilt from writes."""

    messages: Annotated[list[AnyMessage], add_messages]
    facts: Annotated[
        list[Any],
        DeltaChannel(lambda state, writes: state + [n for w in writes for n in w], list),
    ]


def remembering(saver: Any) -> Any:
    """Thinks three times with two workers each, asking a question in a subgraph every time."""

    def think(state: Remembered) -> dict[str, Any]:
        said = len(state["messages"])
        return {"messages": [AIMessage(f"thought {said}", id=f"ai {said}")], "facts": [said]}

    def ask(state: Remembered) -> dict[str, Any]:
        answer = interrupt(f"is {len(state['messages'])} right?")
        return {"messages": [AIMessage(answer, id=f"answer {len(state['messages'])}")]}

    asking = StateGraph(Remembered)
    asking.add_node("ask", ask)
    asking.add_edge(START, "ask")
    builder = StateGraph(Remembered)
    builder.add_node("think", think)
    builder.add_node("worker", lambda state: {"facts": [f"worker {state['number']}"]})
    builder.add_node("asking", asking.compile())
    builder.add_edge(START, "think")
    sends = [Send("worker", {"number": n}) for n in (1, 2)]
    builder.add_conditional_edges("think", lambda _: [*sends, "asking"])
    builder.add_conditional_edges(
        "asking", lambda state: END if len(state["messages"]) > 5 else "think"
    )
    return builder.compile(checkpointer=saver)
