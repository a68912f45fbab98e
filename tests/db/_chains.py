"""Small graphs, and their threads."""

from __future__ import annotations

import operator
import os
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt


class Log(TypedDict):
    items: Annotated[list[Any], operator.add]


MODES = [
    ("sync", "invoke", ""),
    ("async", "ainvoke", ""),
    ("exit", "invoke", ""),
    ("async", "invoke", "single writer"),
]
if os.environ.get("PGSAGA_FULL"):
    MODES = [
        (durability, mode, writers)
        for durability in ("sync", "async", "exit")
        for mode in ("invoke", "ainvoke")
        for writers in ("", "single writer")
    ]


def adds(*items: Any) -> Any:
    """A node that appends to `items`."""
    return lambda state: {"items": list(items)}


def chain(**nodes: Any) -> StateGraph[Any]:
    """The nodes one after the other."""
    builder: StateGraph[Any] = StateGraph(Log)
    for name, node in nodes.items():
        builder.add_node(name, node)
    for first, second in zip([START, *nodes], [*nodes, END], strict=True):
        builder.add_edge(first, second)
    return builder


def ask(*questions: str) -> Any:
    """A node that interrupts with each question and appends the answers."""
    return lambda state: {"items": [interrupt(question) for question in questions]}


def nested(checkpointer: Any, *, asks: bool) -> StateGraph[Any]:
    """A graph in a graph in a graph; the innermost asks."""
    inner = chain(deep=adds("deep"), asks=ask("inside?") if asks else adds("calm"))
    middle = chain(before=adds("before"), inner=inner.compile(checkpointer), after=adds("after"))
    return chain(top=adds("top"), middle=middle.compile(checkpointer), end=adds("end"))
