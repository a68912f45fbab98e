"""The status that a checkpoint leaves its thread with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langgraph_pgsaga._langgraph import is_known, next_nodes
from langgraph_pgsaga.threads import SessionStatus


def status_of(
    checkpoint: Mapping[str, Any],
    triggers: Mapping[str, Any],
    metadata: Mapping[str, Any],
    *,
    is_of_run: bool = True,
) -> SessionStatus | None:
    """The status that the root graph's checkpoint leaves its thread with, if it tells.

    `triggers` are the values of its channels, of which those that start nodes will do.
    """
    source = metadata.get("source")
    try:
        if not is_known(checkpoint, source):
            return None
        if not next_nodes(checkpoint, triggers):
            return SessionStatus.COMPLETED
    except (AttributeError, TypeError):  # no graph's checkpoint: encode_put says what is wrong
        return None
    # A state that somebody made waits for a run, also where update_state did as the input.
    is_made = source in ("update", "fork") or (source == "input" and not is_of_run)
    return SessionStatus.PAUSED if is_made else SessionStatus.ACTIVE
