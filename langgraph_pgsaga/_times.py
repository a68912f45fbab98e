"""Times that come from the server or a checkpoint."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)
_WRITTEN = re.compile(r"([0-9]{4,6})(-[0-9]{2}-[0-9]{2}T[0-9:.]+[+-][0-9:]+)( BC)?")
# Of whatever zone: the last second of 294276 is in the next year there.
_MOST_BEFORE_CHRIST, _LAST_YEAR = 4714, 294277


def time_of_row(written: str) -> datetime:
    """The time, in UTC, that a statement gives in the words of to_jsonb.

    PostgreSQL has times that Python has none for: before the year 1, after 9999, and
    infinity. They come as the first or the last that Python has.

    Raises:
        ValueError: PostgreSQL has no such time, or writes it otherwise.
    """
    if written in ("-infinity", "infinity"):
        return _FIRST if written[0] == "-" else _LAST
    parts = _WRITTEN.fullmatch(written)
    if parts is None:
        raise ValueError("it isn't what to_jsonb makes of a time")
    year, rest, before_christ = int(parts[1]), parts[2], parts[3]
    if not 1 <= year <= (_MOST_BEFORE_CHRIST if before_christ else _LAST_YEAR):
        raise ValueError("PostgreSQL has no such year")
    # Every 400 years the calendar is the same.
    like = 2000 + (1 - year if before_christ else year) % 400
    is_ours = year <= _LAST.year and not before_christ
    found = datetime.fromisoformat(f"{year if is_ours else like:04}{rest}")
    if is_ours:
        with suppress(OverflowError):  # within a day of the first or last year there is
            return found.astimezone(UTC)
    return _LAST if year > 1 and not before_christ else _FIRST


def time_of(written: Any) -> datetime | None:
    """The time that a checkpoint has as ISO 8601, if it is one."""
    try:
        found = datetime.fromisoformat(written)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def in_utc(moment: datetime | None) -> str:
    """A time for people, to the second and without the zone; '' for none."""
    if moment is None:
        return ""
    with suppress(OverflowError):  # within a day of the first or last year there is
        moment = moment.astimezone(UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}"
