"""What LangGraph counts on in a checkpoint and its metadata.

It looks at none of it before: a step that is text ends in a TypeError somewhere in its loop.
So a checkpoint is looked at when it is stored and when it is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

from langgraph.checkpoint.serde.types import TASKS

_NUMBERS = frozenset({int, float})
_INT = frozenset({int})
_TEXT = frozenset({str})
_LISTS = frozenset({list, tuple})


def flaw(checkpoint: Any, metadata: Any) -> str | None:
    """The part from which LangGraph couldn't go on; None where there is none.

    What isn't there at all is LangGraph's to say, as with every saver, but for the id and
    the versions, by which everything else is found.
    """
    if not isinstance(checkpoint, dict):
        return "state_data"
    if not isinstance(checkpoint.get("id"), str):
        return "id"
    if type(checkpoint.get("v", 1)) not in _NUMBERS:
        return "v"
    if (updated := checkpoint.get("updated_channels")) and not _are_all(updated, _TEXT):
        return "updated_channels"
    return _flaw_of_versions(checkpoint) or _flaw_of_metadata(metadata)


def flaw_of_values(values: Mapping[str, Any]) -> str | None:
    """The channel of LangGraph's own with a value from which it couldn't go on."""
    if TASKS not in values:
        return None
    sends = values[TASKS]
    # Early formats had a tuple, whose second part these are.
    is_pair = type(sends) is tuple and len(sends) == 2
    return None if isinstance(sends[1] if is_pair else sends, list) else TASKS


def _flaw_of_versions(checkpoint: Mapping[str, Any]) -> str | None:
    """Versions are compared with one another, and with those that a node has seen."""
    versions = checkpoint.get("channel_versions")
    if not isinstance(versions, dict):
        return "channel_versions"
    kinds = set(map(type, versions.values()))
    if not _are_comparable(kinds):
        return "channel_versions"
    sends = checkpoint.get("pending_sends")
    if sends and not (isinstance(sends, list) and versions):
        return "pending_sends"
    seen = checkpoint.get("versions_seen", {})
    try:
        kinds.update(map(type, chain.from_iterable(map(dict.values, seen.values()))))
    except (AttributeError, TypeError):  # it is no dict of dicts
        return "versions_seen"
    return None if _are_comparable(kinds) else "versions_seen"


def _are_comparable(kinds: set[type]) -> bool:
    return kinds <= _TEXT or kinds <= _NUMBERS


def _flaw_of_metadata(metadata: Any) -> str | None:
    if not isinstance(metadata, dict):
        return "metadata"
    if not isinstance(metadata.get("step", 0), int):
        return "metadata's step"
    parents = metadata.get("parents")
    if parents and not (
        isinstance(parents, dict) and _TEXT.issuperset(map(type, parents.values()))
    ):
        return "metadata's parents"
    counters = metadata.get("counters_since_delta_snapshot")
    if counters and not (isinstance(counters, dict) and all(map(_is_pair, counters.values()))):
        return "metadata's counters_since_delta_snapshot"
    return None


def _are_all(values: Any, kinds: frozenset[type]) -> bool:
    """Whether it is a list of nothing else."""
    return type(values) in _LISTS and kinds.issuperset(map(type, values))


def _is_pair(value: Any) -> bool:
    return _are_all(value, _INT) and len(value) == 2
