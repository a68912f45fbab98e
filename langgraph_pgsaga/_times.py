"""Times that come from the server or a checkpoint."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any


def aware(moment: datetime) -> datetime:
    """The time with its zone; the driver gives none to infinity, the end of year 9999."""
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def time_of(written: Any) -> datetime | None:
    """The time that a checkpoint has as ISO 8601, if it is one."""
    try:
        return aware(datetime.fromisoformat(written))
    except (TypeError, ValueError):
        return None


def in_utc(moment: datetime | None) -> str:
    """A time for people, to the second and without the zone; '' for none."""
    if moment is None:
        return ""
    with suppress(OverflowError):  # within a day of the first or last year there is
        moment = moment.astimezone(UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}"
