"""Whether two checkpoint tuples are the same, and if not, where."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from langgraph.checkpoint.base import WRITES_IDX_MAP, CheckpointTuple
from langgraph.checkpoint.serde.types import TASKS

from langgraph_pgsaga._langgraph import DeltaSnapshot
from langgraph_pgsaga._same import is_same
from langgraph_pgsaga.checkpoint import needs_pending_sends

# What the source stores of a value.
Stored: TypeAlias = Callable[[Any], object]


def first_difference(
    expected: CheckpointTuple,
    found: CheckpointTuple,
    stored: Stored,
    *,
    with_writes: bool = True,
) -> str | None:
    """Where `found` isn't `expected`, never what it is there; None where it is.

    What the source itself doesn't keep, and so is another each time that it is loaded (a
    lock, a random private attribute), is no difference either: it would store the same.

    What `found` has in addition is no difference where it isn't stored but read: a delta
    channel's snapshot at that very version, which some savers give only where it was
    made, and the Sends that checkpoints of formats before 4 take from their parent. Nor is the
    value of a version that `expected` names without a value: it was stored under that version
    before, and a graph without its channel, and the source with it, lost it. Nor that a value
    without a version is missing: early versions of LangGraph stored with a thread's first
    checkpoints those that channels begin with.
    """
    for place, left, right in _parts(expected, found):
        if not is_kept(left, right, stored):
            return place
    if with_writes:
        return _difference_of_writes(expected.pending_writes or [], found.pending_writes, stored)
    return None


def is_kept(left: Any, right: Any, stored: Stored) -> bool:
    """Whether two values are the same, as far as the source keeps them."""
    if is_same(left, right):
        return True
    if type(left) is not type(right):
        return False
    # Part by part: what isn't kept of one is no excuse for another.
    if type(left) is dict:
        return left.keys() == right.keys() and all(is_kept(left[k], right[k], stored) for k in left)
    if type(left) in (list, tuple):
        pairs = zip(left, right, strict=False)
        return len(left) == len(right) and all(is_kept(a, b, stored) for a, b in pairs)
    try:
        return bool(stored(left) == stored(right))
    except Exception:  # whatever a serializer may raise
        return False


_MISSING = object()


def _parts(expected: CheckpointTuple, found: CheckpointTuple) -> Iterator[tuple[str, Any, Any]]:
    yield "the parent", _parent_id(expected), _parent_id(found)
    left: Mapping[str, Any] = {**expected.checkpoint}
    right: Mapping[str, Any] = {**found.checkpoint}
    values, versions = dict(right["channel_values"]), dict(right["channel_versions"])
    left_values = dict(left["channel_values"])
    for channel in left_values.keys() - values.keys():
        if channel not in left["channel_versions"]:
            del left_values[channel]
    for channel in values.keys() - left_values.keys():
        if type(values[channel]) is DeltaSnapshot or channel in left["channel_versions"]:
            del values[channel]
        elif channel == TASKS and needs_pending_sends(left):
            del values[channel]
            if channel not in left["channel_versions"]:
                versions.pop(channel, None)
    yield from _items("channel", left_values, values)
    right = {**right, "channel_versions": versions}
    drop = ("channel_values",)
    yield from _items("checkpoint", _without(left, drop), _without(right, drop))
    yield from _items("metadata", {**expected.metadata}, {**found.metadata})


def _without(mapping: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key not in keys}


def _items(
    what: str, left: Mapping[str, Any], right: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    for key in left.keys() | right.keys():
        yield f"{what} {key!r}", left.get(key, _MISSING), right.get(key, _MISSING)


def _parent_id(found: CheckpointTuple) -> str | None:
    parent = found.parent_config
    return parent["configurable"]["checkpoint_id"] if parent else None


def _difference_of_writes(
    expected: Sequence[Any], found: Sequence[Any] | None, stored: Stored
) -> str | None:
    left, right = by_task(expected), by_task(found or [])
    if list(left) != list(right):
        return "which tasks have pending writes, or their order,"
    for task_id, writes in left.items():
        if not is_kept(writes, right[task_id], stored):
            return f"the pending writes of task {task_id!r}"
    return None


def by_task(writes: Sequence[tuple[str, str, Any]]) -> dict[str, list[tuple[str, Any]]]:
    """Each task's writes as channel and value: those of nodes in order, then the special ones.

    Interrupts, errors and answers have places of their own, which come before or behind the
    others: savers sort by the path under which each was written, and an update of the state in
    the name of a task that asked has another one than its question.
    """
    found: dict[str, list[tuple[str, Any]]] = {}
    for task_id, channel, value in writes:
        found.setdefault(task_id, []).append((channel, value))
    return {task_id: sorted(some, key=_special_place) for task_id, some in found.items()}


def _special_place(write: tuple[str, Any]) -> int:
    return -WRITES_IDX_MAP.get(write[0], 0)
