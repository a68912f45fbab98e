"""Whether two checkpoint tuples are the same, and if not, where."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.serde.types import TASKS, _DeltaSnapshot
from langgraph.types import Send
from pydantic import BaseModel

from langgraph_pgsaga.checkpoint.decode import needs_pending_sends

# A value's bytes, for those that can't be compared otherwise.
Encode: TypeAlias = Callable[[Any], object]


def first_difference(
    expected: CheckpointTuple, found: CheckpointTuple, encode: Encode, *, with_writes: bool = True
) -> str | None:
    """Where `found` isn't `expected`, never what it is there; None where it is.

    What `found` has in addition is no difference where it isn't stored but read: a delta
    channel's snapshot at that very version, which some savers give only where it was
    made, and the Sends that checkpoints of formats before 4 take from their parent.
    """
    for place, left, right in _parts(expected, found):
        if not is_same(left, right, encode):
            return place
    if with_writes:
        return _difference_of_writes(expected.pending_writes or [], found.pending_writes, encode)
    return None


_MISSING = object()
_PLAIN = (str, int, bool, bytes)


def _parts(expected: CheckpointTuple, found: CheckpointTuple) -> Iterator[tuple[str, Any, Any]]:
    yield "the parent", _parent_id(expected), _parent_id(found)
    left: Mapping[str, Any] = {**expected.checkpoint}
    right: Mapping[str, Any] = {**found.checkpoint}
    values, versions = dict(right["channel_values"]), dict(right["channel_versions"])
    for channel in values.keys() - left["channel_values"].keys():
        if type(values[channel]) is _DeltaSnapshot:
            del values[channel]
        elif channel == TASKS and needs_pending_sends(left):
            del values[channel]
            if channel not in left["channel_versions"]:
                versions.pop(channel, None)
    yield from _items("channel", left["channel_values"], values)
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
    expected: Sequence[Any], found: Sequence[Any] | None, encode: Encode
) -> str | None:
    left, right = by_task(expected), by_task(found or [])
    if list(left) != list(right):
        return "which tasks have pending writes, or their order,"
    for task_id, writes in left.items():
        if not is_same(writes, right[task_id], encode):
            return f"the pending writes of task {task_id!r}"
    return None


def by_task(writes: Sequence[tuple[str, str, Any]]) -> dict[str, list[tuple[str, Any]]]:
    """Each task's writes as channel and value, in order."""
    found: dict[str, list[tuple[str, Any]]] = {}
    for task_id, channel, value in writes:
        found.setdefault(task_id, []).append((channel, value))
    return found


def is_same(left: Any, right: Any, encode: Encode) -> bool:
    """Whether two values have the same types and content; NaN is the same as NaN."""
    if left is right:
        return True
    if type(left) is not type(right):
        return False
    if type(left) in _PLAIN:
        return bool(left == right)
    if isinstance(left, float):
        return _is_same_float(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(is_same(left[k], right[k], encode) for k in left)
    if isinstance(left, list | tuple | deque):
        return len(left) == len(right) and all(
            is_same(a, b, encode) for a, b in zip(left, right, strict=True)
        )
    if isinstance(left, set | frozenset):
        # By bytes: to == 1 is True, and NaN is never itself.
        return {encode(one) for one in left} == {encode(one) for one in right}
    if isinstance(left, BaseModel):
        return is_same(_model_parts(left), _model_parts(right), encode)
    if dataclasses.is_dataclass(left):
        return all(
            is_same(getattr(left, f.name, None), getattr(right, f.name, None), encode)
            for f in dataclasses.fields(left)
        )
    if isinstance(left, Send):
        return is_same([left.node, left.arg], [right.node, right.arg], encode)
    return _is_same_object(left, right, encode)


def _is_same_float(left: float, right: float) -> bool:
    if math.isnan(left) or math.isnan(right):
        return math.isnan(left) and math.isnan(right)
    return left == right and math.copysign(1, left) == math.copysign(1, right)


def _model_parts(model: BaseModel) -> list[Any]:
    return [model.__dict__, model.__pydantic_extra__, model.__pydantic_private__]


def _is_same_object(left: Any, right: Any, encode: Encode) -> bool:
    """Of types with an == of their own, of arrays, whose == is no bool, and of those that
    compare by identity."""
    try:
        if left == right:
            return True
    except Exception:  # whatever an == may raise
        return bool(encode(left) == encode(right))
    return bool(encode(left) == encode(right))
