"""The status that a checkpoint leaves its thread with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langgraph_pgsaga._langgraph import is_known, next_nodes
from langgraph_pgsaga.threads import SessionStatus


def status_of(
    versions: Mapping[str, Any], values: Mapping[str, Any], metadata: Mapping[str, Any]
) -> SessionStatus | None:
    """The status that the root graph's checkpoint leaves its thread with, if it tells.

    `versions` and `values` are those of its channels; of the values the triggers' will do.
    """
    if not is_known(versions):
        return None
    if not next_nodes(values):
        return SessionStatus.COMPLETED
    # A state that somebody made waits for a run.
    return (
        SessionStatus.PAUSED
        if metadata.get("source") in ("update", "fork")
        else SessionStatus.ACTIVE
    )
