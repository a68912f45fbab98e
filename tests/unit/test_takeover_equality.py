"""Which checkpoint tuples an import takes for the same, and how it names what differs."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.checkpoint.base import CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from langgraph_pgsaga.takeover.equality import first_difference


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
        (
            {"checkpoint": {"channel_versions": {"a": "1", "b": "1"}}},
            "checkpoint 'channel_versions'",
        ),
        ({"checkpoint": {"channel_versions": {"a": "2"}}}, "checkpoint 'channel_versions'"),
        ({"checkpoint": {"updated_channels": ["a"]}}, "checkpoint 'updated_channels'"),
        ({"pending_writes": []}, "which tasks have pending writes, or their order,"),
        ({"pending_writes": [("task", "a", 2)]}, "the pending writes of task 'task'"),
    ],
)
def test_the_place_of_a_difference_is_named(changes: dict[str, Any], place: str | None) -> None:
    """Every part of a tuple is compared; a snapshot that is read in addition is none."""
    assert first_difference(found(), found(**changes), repr) == place


def test_a_value_is_that_of_its_version() -> None:
    """What a source lost of a version that it names may be there, and what has no version
    missing; a value that is another's never is, and none with a version is missing."""
    lost = {"channel_values": {"a": 1}, "channel_versions": {"a": "1", "b": "1"}}
    kept = {**lost, "channel_values": {"a": 1, "b": 2}}
    assert first_difference(found(checkpoint=lost), found(checkpoint=kept), repr) is None
    assert first_difference(found(checkpoint=kept), found(checkpoint=lost), repr) == "channel 'b'"
    early = {"channel_values": {"a": 1, "b": []}}
    assert first_difference(found(checkpoint=early), found(), repr) is None
    other = {"channel_values": {"a": 1, "b": [1]}}
    assert first_difference(found(checkpoint=early), found(checkpoint=other), repr) == "channel 'b'"


def test_special_writes_stand_anywhere_among_the_others_of_their_task() -> None:
    """They have places of their own; what nodes wrote has its order."""
    node = [("task", "a", 1), ("task", "b", 2)]
    asked = [("task", "__resume__", ["yes"]), ("task", "__interrupt__", ())]
    one = found(pending_writes=[*node, *reversed(asked)])
    assert first_difference(one, found(pending_writes=[*asked, *node]), repr) is None
    changed = found(pending_writes=[*asked, *reversed(node)])
    assert first_difference(one, changed, repr) == "the pending writes of task 'task'"
