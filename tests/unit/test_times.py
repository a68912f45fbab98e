"""Times for people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from langgraph_pgsaga._times import in_utc, time_of, time_of_row

_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)


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


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2026-01-31T12:00:00.5+02:00", datetime(2026, 1, 31, 10, 0, 0, 500_000, UTC)),
        ("1883-11-18T12:00:00-04:56:02", datetime(1883, 11, 18, 16, 56, 2, 0, UTC)),
        ("9999-12-31T23:59:59.999999+00:00", _LAST),
        ("0001-01-01T00:00:00+00:00", _FIRST),
        ("9999-12-31T23:00:00-14:00", _LAST),
        ("0001-01-01T00:00:00+14:00", _FIRST),
        ("10000-02-29T00:00:00+00:00", _LAST),
        ("294276-12-31T23:59:59.999999+00:00", _LAST),
        ("0001-02-29T00:00:00+00:00 BC", _FIRST),
        ("4714-11-24T00:00:00+00:00 BC", _FIRST),
        ("infinity", _LAST),
        ("-infinity", _FIRST),
    ],
)
def test_a_row_s_time_is_the_nearest_that_python_has(written: str, expected: datetime) -> None:
    """PostgreSQL has more years, and infinity."""
    assert time_of_row(written) == expected
    assert time_of_row(written).utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "written",
    [
        *("", "now", "Infinity", "2026-01-31", "2026-01-31T12:00:00", "2026-02-29T00:00:00+00:00"),
        *("10001-02-29T00:00:00+00:00", "0002-02-29T00:00:00+00:00 BC", "294278-01-01T00:00:00+00"),
        *(
            "0000-01-01T00:00:00+00:00",
            "4715-01-01T00:00:00+00:00 BC",
            "2026-01-31T12:00:00+00 BC ",
        ),
    ],
)
def test_what_no_row_has_is_no_time_of_a_row(written: str) -> None:
    """Also a day that the year doesn't have, and years that PostgreSQL hasn't."""
    with pytest.raises(ValueError, match=r"PostgreSQL|to_jsonb|day|month"):
        time_of_row(written)
