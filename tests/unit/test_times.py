"""Times for people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from langgraph_pgsaga._times import in_utc, time_of


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("2026-01-31T12:00:00.5+02:00", "2026-01-31 10:00:00"),
        ("2026-01-31T12:00:00", "2026-01-31 12:00:00"),
        ("9999-12-31T23:00:00-14:00", "9999-12-31 23:00:00"),
        ("nonsense", ""),
        (7, ""),
        (None, ""),
    ],
)
def test_a_time_is_told_in_utc(written: object, told: str) -> None:
    """Whatever zone it was written in; what is no time is none."""
    assert in_utc(time_of(written)) == told


def test_another_zone_is_the_same_moment() -> None:
    """A zone of minutes, too."""
    zone = timezone(timedelta(hours=5, minutes=30))
    moment = datetime(2026, 1, 1, 5, 30, tzinfo=UTC)
    assert in_utc(moment.astimezone(zone)) == in_utc(moment) == "2026-01-01 05:30:00"
