"""Which nodes a checkpoint's channels start, by the names that LangGraph gives such channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from langgraph.checkpoint.serde.types import TASKS
from langgraph.types import Send

_BRANCH_TO, _JOIN = "branch:to:", "join:"
_INPUT = "__start__"


def is_trigger(channel: str) -> bool:
    """Whether the channel's value says which nodes come next."""
    return channel == TASKS or channel.startswith((_JOIN, _BRANCH_TO, _INPUT))


def is_internal(channel: str) -> bool:
    """Whether the channel is LangGraph's own, and none of the graph's state."""
    return channel.startswith((_BRANCH_TO, _JOIN, "__"))


def is_known(versions: Mapping[str, Any]) -> bool:
    """Whether a graph with these channels starts its nodes by such channels only.

    Those of StateGraph and of the functional API do; not those that are put together from
    Pregel's own parts.
    """
    return _INPUT in versions


def next_nodes(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The nodes that the values of a checkpoint's triggers start, by name."""
    return tuple(sorted({node for name, value in values.items() for node in _started(name, value)}))


def _started(channel: str, value: Any) -> Iterable[str]:
    """The nodes that a channel starts."""
    if channel == _INPUT:
        return [_INPUT]
    if channel == TASKS and isinstance(value, list):
        return [send.node for send in value if isinstance(send, Send)]
    if channel.startswith(_BRANCH_TO):
        return [channel.removeprefix(_BRANCH_TO)]
    if not channel.startswith(_JOIN):
        return []
    sources, _, node = channel.removeprefix(_JOIN).rpartition(":")
    return [node] if value == set(sources.split("+")) else []
