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


# Channels that hold the whole of a state that has no named parts, and how it is called: of
# the functional API what the entrypoint returned, and what it kept for its next call.
_WHOLE = {"__root__": "state", "__end__": "state", "__previous__": "previous"}


def shown_name(channel: str) -> str | None:
    """What the channel is called as a part of the graph's state; None for LangGraph's own."""
    return None if is_internal(channel) and channel not in _WHOLE else _WHOLE.get(channel, channel)


def own_values(channel_values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a checkpoint that are the graph's state, by name."""
    names = {channel: shown_name(channel) for channel in channel_values}
    return {name: channel_values[channel] for channel, name in names.items() if name is not None}


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
