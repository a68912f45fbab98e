"""What a session can't be given, told before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langgraph_pgsaga import _json
from langgraph_pgsaga._arguments import checked_instance, checked_mapping
from langgraph_pgsaga.errors import UnstorableValueError
from langgraph_pgsaga.threads import SessionStatus


def checked_status(status: SessionStatus) -> str:
    """The status as it is stored."""
    hint = "Pass SessionStatus.PAUSED or another of them"
    return checked_instance("status", status, SessionStatus, hint).value


def checked_metadata(metadata: Mapping[str, Any]) -> str:
    """JSON text that comes back equal."""
    text = _json.dump_exact(dict(checked_mapping("metadata", metadata)))
    if text is None:
        problem = "it holds what JSON, or PostgreSQL's jsonb, can't hold exactly"
        raise UnstorableValueError(where="metadata", problem=problem)
    return text
