"""Arguments that can be stored, or an error that says why not."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from langgraph_pgsaga import _json
from langgraph_pgsaga.errors import (
    InvalidArgumentError,
    UnstorableValueError,
)
from langgraph_pgsaga.sessions.session import SessionStatus

_MOST_INTEGER = 2**31 - 1


def checked_text(argument: str, value: str | None) -> str | None:
    """Text that PostgreSQL can hold; None stays None."""
    if value is None:
        return None
    if not isinstance(value, str):
        problem = f"must be a str, not {type(value).__name__}"
        raise InvalidArgumentError(argument=argument, problem=problem)
    if not _json.is_clean(value):
        problem = "holds a NUL character or a lone surrogate, which PostgreSQL text can't"
        raise InvalidArgumentError(argument=argument, problem=problem)
    return value


def checked_status(status: SessionStatus) -> str:
    """The status as it is stored."""
    if not isinstance(status, SessionStatus):
        raise InvalidArgumentError(
            argument="status", problem=f"must be a SessionStatus, not {type(status).__name__}"
        )
    return status.value


def checked_time(argument: str, time: Any) -> datetime | None:
    """The time in UTC; None stays None."""
    if time is None:
        return None
    if not isinstance(time, datetime) or time.utcoffset() is None:
        problem = "must be a datetime with a time zone, such as datetime.now(timezone.utc)"
        raise InvalidArgumentError(argument=argument, problem=problem)
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        problem = f"{time} is out of range"
        raise InvalidArgumentError(argument=argument, problem=problem) from error


def checked_integer(
    argument: str, value: int, *, least: int = -_MOST_INTEGER - 1, most: int = _MOST_INTEGER
) -> int:
    """An integer of PostgreSQL's, within these bounds."""
    if type(value) is not int or not least <= value <= most:
        problem = f"must be an int between {least} and {most}, not {value!r}"
        raise InvalidArgumentError(argument=argument, problem=problem)
    return value


def checked_metadata(metadata: Mapping[str, Any]) -> str:
    """JSON text that comes back equal."""
    text = _json.dump_exact(dict(metadata))
    if text is None:
        problem = "it holds what JSON, or PostgreSQL's jsonb, can't hold exactly"
        raise UnstorableValueError(where="metadata", problem=problem)
    return text
