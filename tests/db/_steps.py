"""Nodes that write to a table of effects with their step, and what is stored of their thread."""

from __future__ import annotations

from typing import Any

from langgraph.types import RetryPolicy

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.work import this_step
from tests.db._effects import INSERT
from tests.db._gates import CONFIG, graph_of

DURABILITIES = ["sync", "async", "exit"]
FAST = RetryPolicy(initial_interval=0.0, jitter=False, retry_on=ValueError)


def act(name: str) -> None:
    this_step().sql(INSERT, name)


def acts(name: str) -> Any:
    """An async node that acts and appends."""

    async def node(state: Any) -> Any:
        act(name)
        return {"items": [name]}

    return node


def acts_sync(name: str) -> Any:
    def node(state: Any) -> Any:
        act(name)
        return {"items": [name]}

    return node


async def stored_items(saver: PostgresSaver, config: Any = CONFIG) -> list[Any]:
    found = await saver.anew().aget_tuple(config)
    return [] if found is None else found.checkpoint["channel_values"].get("items", [])


async def channels_of(saver: PostgresSaver) -> list[tuple[str, Any]]:
    """What tasks wrote to no channel, at all checkpoints."""
    return [
        (channel, value)
        async for found in saver.alist(CONFIG)
        for _, channel, value in found.pending_writes or ()
        if channel == "__no_writes__"
    ]


def nested(saver: Any, node: Any, *, depth: int = 2, inner_first: Any = None) -> Any:
    """The node in a graph in a graph."""
    graph: Any = graph_of(None, first=inner_first or acts("first"), node=node)
    for level in range(depth - 1):
        graph = graph_of(None, **{f"before{level}": acts(f"before{level}"), f"sub{level}": graph})
    return graph_of(saver, top=acts("top"), sub=graph, end=acts("end"))
