"""What an import takes for the same, and what it doesn't."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langgraph.checkpoint.base import CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Interrupt, Send

from langgraph_pgsaga.checkpoint.codec import Codec
from langgraph_pgsaga.checkpoint.serde import as_safe
from langgraph_pgsaga.takeover.equality import first_difference, is_same

CODEC = Codec(as_safe(None, allow=(), strict=False))


def encode(value: Any) -> object:
    return CODEC.encode(value, "a value")


@dataclass
class Point:
    x: Any


SAME: list[tuple[Any, Any]] = [
    (float("nan"), float("nan")),
    ([{"a": float("nan")}], [{"a": float("nan")}]),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ({1, "a", (2,)}, {(2,), "a", 1}),
    (HumanMessage("hi", id="1"), HumanMessage("hi", id="1")),
    (Point(float("nan")), Point(float("nan"))),
    (Send("n", {"x": float("nan")}), Send("n", {"x": float("nan")})),
    (np.array([1.0, float("nan")]), np.array([1.0, float("nan")])),
    (datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)),
]
DIFFERENT: list[tuple[Any, Any]] = [
    (1, True),
    (1, 1.0),
    (0.0, -0.0),
    ([1], (1,)),
    ([1], deque([1])),
    ({1}, {True}),
    ({1}, frozenset({1})),
    ({"a": None}, {}),
    ("a", "a\x00"),
    (HumanMessage("hi", id="1"), HumanMessage("hi", id="2")),
    (AIMessage("hi", id="1"), AIMessageChunk(content="hi", id="1")),
    (AIMessage("hi", extra=1), AIMessage("hi", extra=2)),
    (Point(1), Point(True)),
    (Send("n", 1), Send("n", True)),
    (np.array([1, 2]), np.array([1, 3])),
    (Interrupt(value="a", id="1"), Interrupt(value="b", id="1")),
]


@pytest.mark.parametrize(("left", "right"), SAME, ids=repr)
def test_equal_content_is_the_same(left: Any, right: Any) -> None:
    """NaN is NaN, the order of keys and elements of sets doesn't count, arrays are compared."""
    assert is_same(left, right, encode)


@pytest.mark.parametrize(("left", "right"), DIFFERENT, ids=repr)
def test_another_type_or_content_is_different(left: Any, right: Any) -> None:
    """What == takes for equal is told apart by type, at any depth."""
    for wrap in (lambda v: v, lambda v: [v], lambda v: {"k": (v,)}):
        assert not is_same(wrap(left), wrap(right), encode)


def found(**changes: Any) -> CheckpointTuple:
    checkpoint: Any = {
        **empty_checkpoint(),
        "id": "1",
        "ts": "",
        "channel_values": {"a": 1},
        "channel_versions": {"a": "1"},
    }
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": "1"}}
    one = CheckpointTuple(config, checkpoint, {"step": 1}, config, [("task", "a", 1)])
    checkpoint.update(changes.pop("checkpoint", {}))
    return one._replace(**changes)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({}, None),
        ({"parent_config": None}, "the parent"),
        ({"metadata": {"step": 1, "more": 2}}, "metadata 'more'"),
        ({"checkpoint": {"channel_values": {}}}, "channel 'a'"),
        ({"checkpoint": {"channel_values": {"a": 1, "b": 2}}}, "channel 'b'"),
        ({"checkpoint": {"channel_values": {"a": 1, "b": _DeltaSnapshot([])}}}, None),
        ({"checkpoint": {"channel_versions": {"a": "2"}}}, "checkpoint 'channel_versions'"),
        ({"checkpoint": {"updated_channels": ["a"]}}, "checkpoint 'updated_channels'"),
        ({"pending_writes": []}, "which tasks have pending writes, or their order,"),
        ({"pending_writes": [("task", "a", 2)]}, "the pending writes of task 'task'"),
    ],
)
def test_the_place_of_a_difference_is_named(changes: dict[str, Any], place: str | None) -> None:
    """Every part of a tuple is compared; a snapshot that is read in addition is none."""
    assert first_difference(found(), found(**changes), encode) == place
