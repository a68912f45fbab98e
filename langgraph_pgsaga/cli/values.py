"""What people type: durations, times, JSON."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import typer

from langgraph_pgsaga._json import is_clean, shortened
from langgraph_pgsaga.tenants import LONGEST_TENANT_BYTES

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def thread_id(text: str | None) -> str | None:
    """The id of a thread, which isn't empty."""
    if text == "":
        raise typer.BadParameter("is empty; pass a thread's id")
    return utf8(text)


def thread_ids(texts: list[str] | None) -> list[str] | None:
    """Some of them."""
    for text in texts or ():
        thread_id(text)
    return texts


def user_id(text: str | None) -> str | None:
    """The id of a user, which isn't empty."""
    if text == "":
        raise typer.BadParameter("is empty; pass a user's id")
    return utf8(text)


def utf8(given: str | None) -> str | None:
    """Some text, perhaps an empty one."""
    if given is not None and not is_clean(given):
        raise typer.BadParameter("isn't UTF-8")
    return given


def all_utf8(given: list[str] | None) -> list[str] | None:
    """Some of them."""
    for one in given or ():
        utf8(one)
    return given


def text(given: str | None) -> str | None:
    """Some text, which isn't empty."""
    if given == "":
        raise typer.BadParameter("is empty")
    return utf8(given)


def texts(given: list[str] | None) -> list[str] | None:
    """Some of them."""
    for one in given or ():
        text(one)
    return given


def uuid(given: str) -> UUID:
    """An id as `list` shows it."""
    try:
        return UUID(given)
    except ValueError:
        raise typer.BadParameter(
            f"{shortened(given, 80)!r} is no UUID, as `list` shows it"
        ) from None


def namespaces(texts: list[str] | None) -> list[str] | None:
    """Namespaces of the store, each its labels with dots between them."""
    for text in texts or ():
        if not all(text.split(".")):
            raise typer.BadParameter("has an empty label; write users.ada")
        if not is_clean(text):
            raise typer.BadParameter("isn't UTF-8")
    return texts


def tenant(text: str | None) -> str | None:
    """The id of a tenant. An empty one, of a variable that isn't set, say, is nobody's."""
    if text == "":
        raise typer.BadParameter("is empty; leave it out for those of no tenant")
    if text is not None and not is_clean(text):
        raise typer.BadParameter("isn't UTF-8")
    if text is not None and len(text.encode()) > LONGEST_TENANT_BYTES:
        raise typer.BadParameter(f"has more than {LONGEST_TENANT_BYTES} bytes")
    return text


def duration(text: str) -> timedelta:
    """`30d`, `12h`, `1d12h`: weeks, days, hours, minutes and seconds."""
    parts = _PART.findall(text)
    if not parts or "".join(f"{number}{unit}" for number, unit in parts) != text:
        raise typer.BadParameter(
            f"{shortened(text, 80)!r} is no duration. Write 30d, 12h, 90m or 1d12h"
        )
    try:
        found = sum(
            (timedelta(**{_UNITS[unit]: float(number)}) for number, unit in parts), timedelta()
        )
        datetime.now(UTC) - found, datetime.now(UTC) + found
    except OverflowError:
        raise typer.BadParameter(f"{shortened(text, 80)!r} is too long") from None
    return found


def date(text: str) -> datetime:
    """ISO 8601, local time where it has no zone."""
    return _date(text, "2026-01-31 or 2026-01-31T12:00:00+00:00")


def moment(text: str) -> datetime:
    """What `date` reads; or a duration, which means so long ago."""
    if _PART.match(text) and not text.startswith("-"):
        try:
            return datetime.now(UTC) - duration(text)
        except typer.BadParameter:
            pass
    return _date(text, "2026-01-31, 2026-01-31T12:00:00+00:00 or 2d (ago)")


def _date(text: str, usual: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError, OSError):
        problem = f"{shortened(text, 80)!r} is no time. Write {usual}"
        raise typer.BadParameter(problem) from None


def json_object(text: str) -> dict[str, Any]:
    """A JSON object."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"isn't JSON: {error}") from None
    if not isinstance(found, dict):
        raise typer.BadParameter('must be a JSON object, as in \'{"plan": "pro"}\'')
    return found
