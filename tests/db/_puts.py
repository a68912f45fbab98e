"""Checkpoints put straight into a saver, without a graph around them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointTuple, empty_checkpoint

from langgraph_pgsaga import PostgresSaver


def config_of(thread_id: Any, namespace: str = "", **more: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": namespace, **more}}


def checkpoint_of(saver: PostgresSaver, values: Mapping[str, Any]) -> Checkpoint:
    """A new checkpoint with these channel values, each at a version of its own."""
    versions = {channel: saver.get_next_version(None, None) for channel in values}
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = dict(values)
    checkpoint["channel_versions"] = dict(versions)
    return checkpoint


def put(
    saver: PostgresSaver,
    config: RunnableConfig,
    values: Mapping[str, Any],
    metadata: Mapping[str, Any] | None = None,
) -> RunnableConfig:
    """Puts a new checkpoint below the one that `config` names, if it names one."""
    checkpoint = checkpoint_of(saver, values)
    own: Any = {"source": "update", "step": 0, "parents": {}, **(metadata or {})}
    return saver.put(config, checkpoint, own, checkpoint["channel_versions"])


def stored(saver: PostgresSaver, config: RunnableConfig) -> CheckpointTuple:
    """The tuple that must be there, as a saver without memories of the put reads it."""
    found = PostgresSaver(saver.db, serde=saver.serde).get_tuple(config)
    assert found is not None
    return found
