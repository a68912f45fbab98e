"""Every private or magic name of LangGraph that this package relies on.

Seen in 1.2.18 to 1.2.24. What is public (ERROR, INTERRUPT, TASKS, WRITES_IDX_MAP) is imported
from LangGraph where it is used.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.checkpoint.serde import _msgpack
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, TASKS, _DeltaSnapshot
from langgraph.types import Send

# The value of a delta channel that was stored as a whole.
DeltaSnapshot = _DeltaSnapshot

# What its own serializer loads of msgpack without being asked.
SAFE_MSGPACK_TYPES = _msgpack.SAFE_MSGPACK_TYPES
SAFE_MSGPACK_METHODS = _msgpack.SAFE_MSGPACK_METHODS
# Whether LANGGRAPH_STRICT_MSGPACK asks for listed types only.
STRICT_MSGPACK_ENABLED = _msgpack.STRICT_MSGPACK_ENABLED

# What a node with an error handler writes beside its error.
ERROR_SOURCE = "__error_source_node__"
# How the path of a task begins that a node or entrypoint calls (`@task`): it tells its caller
# how it ended.
CALLED_PATH = "~__pregel_push, ~"
# That of a task that the graph plans itself: the node's name comes behind it.
_PLANNED_PATH = "~__pregel_pull, "
_CALLED_PATH = "~__pregel_push, ~"
# How the path of a task ends that handles the error of another, whose path is before it.
_HANDLED = ("node_error_handler", False)
# The step that is counted from where a thread has no checkpoint.
STEP_BEFORE_FIRST = -2
# The namespace under which `update_state` copies a checkpoint.
COPY = "__copy__"

# The channel that an input starts a graph by.
INPUT = "__start__"
_BRANCH_TO, _JOIN = "branch:to:", "join:"

# Each run of a graph has a Runtime of its own in the config of its calls; its subgraphs have
# others, which share its `control`. What is called in a node has the config of its task.
_RUNTIME = "__pregel_runtime"
_TASK_ID = "__pregel_task_id"
# How a task sends its writes, and reads the state: the latter by a `partial` that has them last.
_SEND, _READ = "__pregel_send", "__pregel_read"
_CHECKPOINTER, _DURABILITY = "__pregel_checkpointer", "__pregel_durability"
# What a task writes that has nothing to write: it is applied to no channel.
NO_WRITES = "__no_writes__"
# What happened to a task, rather than what it gives; RESUME are answers that it has been given.
_RESUME = "__resume__"
_CONTROL = frozenset((ERROR, ERROR_SOURCE, INTERRUPT, _RESUME))
# Under whose id the writes of an input stand: of an answer, or of what `Command` updates.
INPUT_TASK_ID = "00000000-0000-0000-0000-000000000000"
# Between the levels of a namespace.
_LEVEL = "|"
# Between a task's node and its id, in one.
_ID = ":"


def is_within(namespace: str, outer: str) -> bool:
    """Whether it is the namespace `outer`, or that of a graph somewhere below."""
    return not outer or namespace == outer or namespace.startswith(f"{outer}{_LEVEL}")


class RunKey(NamedTuple):
    """What tells the calls of one run from all others: LangGraph's own objects."""

    runtime: object
    control: object
    is_nested: bool


def run_key(config: RunnableConfig) -> RunKey | None:
    """That of the run which makes a call; None where none does, as for update_state."""
    configurable = config.get("configurable") or {}
    runtime = configurable.get(_RUNTIME)
    control = getattr(runtime, "control", None)
    return None if control is None else RunKey(runtime, control, _TASK_ID in configurable)


class RunningTask(NamedTuple):
    """What LangGraph says of the task that the caller is part of; see work.RunContext.

    `callers` are the ids of the tasks that called it, or whose subgraph it is in; `called_by`
    those of its own graph.
    """

    thread_id: str | None
    checkpoint_ns: str
    checkpoint_id: str
    task_id: str
    node: str
    step: int
    attempt: int
    run_id: str | None
    callers: frozenset[str]
    called_by: frozenset[str]
    config: RunnableConfig

    def given(self, key: str) -> Any:
        """What the run's caller gave under this key, configurable before metadata."""
        configurable = self.config.get("configurable") or {}
        metadata = self.config.get("metadata") or {}
        return configurable[key] if key in configurable else metadata.get(key)


def running_task() -> RunningTask | None:
    """The task in whose context this is called; None outside of any."""
    config = var_child_runnable_config.get()
    if config is None:
        return None
    runtime = (config.get("configurable") or {}).get(_RUNTIME)
    info = getattr(runtime, "execution_info", None)
    if info is None:
        return None
    metadata = config.get("metadata") or {}
    path = metadata.get("langgraph_path")
    checkpoint_ns, task_id = info.checkpoint_ns, info.task_id
    if _is_handler(path):  # whose runtime says what the task is that failed
        configurable = config.get("configurable") or {}
        checkpoint_ns, task_id = configurable["checkpoint_ns"], configurable[_TASK_ID]
    # A task has a namespace of its own, below that of its graph. What it calls by `@task`, and
    # what handles its error, has one below it, and is of the same checkpoint.
    *outer, _ = checkpoint_ns.split(_LEVEL)
    graph = len(outer) - _tasks_above(path)
    callers = [level.rpartition(_ID)[2] for level in outer]
    return RunningTask(
        thread_id=info.thread_id,
        checkpoint_ns=_LEVEL.join(outer[:graph]),
        checkpoint_id=info.checkpoint_id,
        task_id=task_id,
        node=metadata.get("langgraph_node", ""),
        step=metadata.get("langgraph_step", 0),
        attempt=info.node_attempt,
        run_id=info.run_id,
        callers=frozenset(callers),
        called_by=frozenset(callers[graph:]),
        config=config,
    )


class TaskWrites(NamedTuple):
    """The writes of the attempt that a task's config is of.

    `send` adds some, or nothing where a time-out has ended the attempt. The next attempt
    clears them, what finishes the task is stored from them.
    """

    send: Callable[[list[tuple[str, Any]]], None]
    found: deque[tuple[str, Any]]


def task_writes(config: RunnableConfig) -> TaskWrites | None:
    """Those of a task's config; None where this LangGraph keeps them elsewhere."""
    configurable = config.get("configurable") or {}
    send, arguments = configurable.get(_SEND), getattr(configurable.get(_READ), "args", ())
    found = getattr(arguments[-1], "writes", None) if arguments else None
    return TaskWrites(send, found) if callable(send) and isinstance(found, deque) else None


def saver_of(config: RunnableConfig) -> object:
    """The saver of a task's run; None, or False, where there is none."""
    return (config.get("configurable") or {}).get(_CHECKPOINTER)


def is_stored_at_exit(config: RunnableConfig) -> bool:
    """Whether a task's run stores nothing before it ends."""
    return (config.get("configurable") or {}).get(_DURABILITY) == "exit"


def control_of(config: RunnableConfig) -> object:
    """What a task has in common with the calls of its run; see RunKey."""
    return getattr((config.get("configurable") or {}).get(_RUNTIME), "control", None)


def is_control(channel: str) -> bool:
    """Whether a write says what happened to its task, and nothing that the task gives."""
    return channel in _CONTROL


def is_answer(channel: str) -> bool:
    """Whether a write is an answer that its task was given, while it goes on."""
    return channel == _RESUME


def has_failed(channels: Iterable[str]) -> bool:
    """Whether a task that writes to these hasn't finished.

    Of one whose error is handled what it gave before is applied, as if it had.
    """
    found = set(channels)
    is_applied = ERROR_SOURCE in found and not found <= _CONTROL
    return not is_applied and not found.isdisjoint((ERROR, INTERRUPT))


def node_of_path(task_path: str) -> str | None:
    """The node of a task, by its path as text; None where that has only a number."""
    if not task_path.startswith(_PLANNED_PATH):
        return None
    return task_path.removeprefix(_PLANNED_PATH) or None


def is_called(task_path: str) -> bool:
    """Whether a task of its own graph called the one with this path, as text."""
    return task_path.startswith(_CALLED_PATH)


def _tasks_above(path: Any) -> int:
    """How many tasks of its graph lead to the task of this path: callers, and one that failed."""
    count = 0
    while isinstance(path, tuple):
        if _is_handler(path):
            count, path = count + 1, path[:-2]
        elif len(path) == 4 and path[3] is True:
            count, path = count + 1, path[1]
        else:
            break
    return count


def _is_handler(path: Any) -> bool:
    """Whether the task of this path handles the error of another."""
    return isinstance(path, tuple) and path[-2:] == _HANDLED


def is_trigger(channel: str) -> bool:
    """Whether the channel's value says which nodes come next."""
    return channel == TASKS or channel.startswith((_JOIN, _BRANCH_TO, INPUT))


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


def is_known(checkpoint: Mapping[str, Any], source: Any) -> bool:
    """Whether the graph that made a checkpoint starts its nodes by such channels only.

    Those of StateGraph and of the functional API do; not those that are put together from
    Pregel's own parts. Their inputs tell, or which nodes are started; where neither was since
    update_state began the thread, what the nodes have seen.
    """
    versions, seen = checkpoint["channel_versions"], checkpoint.get("versions_seen") or {}
    if INPUT in versions or any(name.startswith((_JOIN, _BRANCH_TO)) for name in versions):
        return True
    by_nodes = [channels for node, channels in seen.items() if node != INTERRUPT]
    has_run = source in ("loop", "update") and len(by_nodes) > 0
    return has_run and all(is_trigger(channel) for channels in by_nodes for channel in channels)


def next_nodes(checkpoint: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[str, ...]:
    """The nodes that the values of a checkpoint's triggers start, by name.

    A node that has seen a trigger's version isn't started by it again.
    """
    versions, seen = checkpoint["channel_versions"], checkpoint.get("versions_seen") or {}
    return tuple(
        sorted(
            {
                node
                for channel, value in values.items()
                for node in _started(channel, value)
                if channel == TASKS or not _has_seen(seen.get(node), channel, versions)
            }
        )
    )


def sent_nodes(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The nodes that the Sends among the values of a checkpoint's triggers start, by name."""
    sends = values.get(TASKS)
    return tuple(sorted(set(_started(TASKS, sends)))) if isinstance(sends, list) else ()


def _has_seen(seen: Mapping[str, Any] | None, channel: str, versions: Mapping[str, Any]) -> bool:
    """Whether the node that has seen these versions has seen the channel's."""
    if not seen or channel not in seen or channel not in versions:
        return False
    return bool(seen[channel] >= versions[channel])


def _started(channel: str, value: Any) -> Iterable[str]:
    """The nodes that a channel starts."""
    if channel == INPUT:
        return [INPUT]
    if channel == TASKS and isinstance(value, list):
        return [send.node for send in value if isinstance(send, Send)]
    seen, is_ready = _deferred(value)
    if not is_ready:
        return []
    if channel.startswith(_BRANCH_TO):
        return [channel.removeprefix(_BRANCH_TO)]
    if not channel.startswith(_JOIN):
        return []
    sources, _, node = channel.removeprefix(_JOIN).rpartition(":")
    return [node] if _are_all(seen, sources) else []


def _deferred(value: Any) -> tuple[Any, bool]:
    """A trigger's own value, and whether all else is done, which that of a deferred node has."""
    if isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[1], bool):
        return value[0], value[1]
    return value, True


def _are_all(seen: Any, sources: str) -> bool:
    """Whether a join has seen all of its nodes; a name may have the sign between them."""
    if not isinstance(seen, set) or not all(isinstance(name, str) for name in seen):
        return False
    return seen == set(sources.split("+")) or sorted("+".join(seen)) == sorted(sources)


def is_plain(serde: JsonPlusSerializer) -> bool:
    """Whether it loads by LangGraph's own rules, and no hook of the user's."""
    return not serde._custom_unpack_ext_hook


def allowlist_of(serde: JsonPlusSerializer) -> Any:
    """The types it was limited to; True where it is limited to none, None for its default."""
    return serde._allowed_msgpack_modules


def open_errors(writes: Collection[tuple[str, str, Any]]) -> list[Any]:
    """Of a checkpoint's pending writes the errors that no error handler took."""
    handled = {task_id for task_id, channel, _ in writes if channel == ERROR_SOURCE}
    return [
        value for task_id, channel, value in writes if channel == ERROR and task_id not in handled
    ]
