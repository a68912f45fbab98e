"""Graphs to travel through."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
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
