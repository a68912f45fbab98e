"""Times that come from the server."""

from __future__ import annotations

from datetime import UTC, datetime


def aware(moment: datetime) -> datetime:
    """The time with its zone; the driver gives none to infinity, the end of year 9999."""
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
