"""What put and put_writes are given, checked: what would else fail half way, or later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata

from langgraph_pgsaga import _json
from langgraph_pgsaga._arguments import checked_mapping, required_text, shown
from langgraph_pgsaga.errors import InvalidArgumentError


def check_put(
    checkpoint: Checkpoint, metadata: CheckpointMetadata, new_versions: ChannelVersions
) -> None:
    """Raises InvalidArgumentError for what isn't a checkpoint, its metadata and versions."""
    checked_mapping("checkpoint", checkpoint)
    for key in ("id", "channel_values", "channel_versions"):
        if key not in checkpoint:
            raise InvalidArgumentError(argument="checkpoint", problem=f"has no {key!r}")
    required_text("checkpoint", checkpoint["id"])
    checked_mapping("checkpoint", checkpoint["channel_values"])
    checked_mapping("checkpoint", checkpoint["channel_versions"])
    checked_mapping("metadata", metadata)
    checked_mapping("new_versions", new_versions)


def check_writes(writes: Any, task_id: str, task_path: str) -> None:
    """Raises InvalidArgumentError for what aren't a task's writes."""
    is_list = type(writes) is list or isinstance(writes, Sequence)
    if not is_list or [write for write in writes if not _is_write(write)]:
        problem = f"must be a list of (channel, value), not {shown(writes)}"
        raise InvalidArgumentError(argument="writes", problem=problem)
    required_text("task_id", task_id)
    required_text("task_path", task_path)


def checked_filter(filter_: Any) -> dict[str, Any]:
    """What metadata must contain; comparing has to come to an end."""
    found = dict(checked_mapping("filter", filter_))
    if _json.nests_too_deeply(found):
        problem = "nests more than 200 deep, or refers to itself. Pass the part that tells"
        raise InvalidArgumentError(argument="filter", problem=problem)
    return found


def _is_write(write: Any) -> bool:
    is_pair = type(write) is tuple or isinstance(write, tuple | list)
    return is_pair and len(write) == 2 and isinstance(write[0], str)
