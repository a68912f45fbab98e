"""What a session can't be given, told before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langgraph_pgsaga import _json
from langgraph_pgsaga._arguments import checked_instance, checked_mapping, shown
from langgraph_pgsaga.errors import UnstorableValueError
from langgraph_pgsaga.threads import SessionStatus

_LONGEST_WAY = 10


def checked_status(status: SessionStatus) -> str:
    """The status as it is stored."""
    hint = "Pass SessionStatus.PAUSED or another of them"
    return checked_instance("status", status, SessionStatus, hint).value


def checked_metadata(metadata: Mapping[str, Any]) -> str:
    """JSON text that comes back equal."""
    text = _json.dump_exact(dict(checked_mapping("metadata", metadata)))
    if text is None:
        problem = "it holds what JSON, or PostgreSQL's jsonb, can't hold exactly"
        raise UnstorableValueError(where=f"metadata{_way_to_inexact(metadata)}", problem=problem)
    return text


def _way_to_inexact(value: Any) -> str:
    """The way to the first part that JSON can't hold exactly, in Python's notation."""
    way = ""
    for _ in range(_LONGEST_WAY):  # a value may be in itself
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        wrong = ((key, part) for key, part in items if _json.dump_exact(part) is None)
        key, value = next(wrong, (None, None))
        if key is None:
            break
        way += f"[{shown(key)}]"
        if not isinstance(value, dict | list):
            break
    return way
