"""What people type at the command line."""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
import typer

from langgraph_pgsaga._text import shown, shown_block
from langgraph_pgsaga.cli.commands.sessions import Status
from langgraph_pgsaga.cli.plain import plain, text
from langgraph_pgsaga.cli.values import date, duration, json_object, moment
from langgraph_pgsaga.database import load_migrations
from langgraph_pgsaga.sessions import SessionStatus
from tests._limits import times_as_long


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30d", timedelta(days=30)),
        ("1d12h", timedelta(days=1.5)),
        ("90m", timedelta(minutes=90)),
        ("1.5h", timedelta(minutes=90)),
        ("2w", timedelta(days=14)),
        ("0s", timedelta(0)),
    ],
)
def test_durations(text: str, expected: timedelta) -> None:
    """Numbers with units add up."""
    assert duration(text) == expected


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1y", "1d 2h", "9" * 400 + "d", "1dx"])
def test_what_is_no_duration(text: str) -> None:
    """Everything else is refused, and no number is too large for that."""
    with pytest.raises(typer.BadParameter):
        duration(text)


def test_moments() -> None:
    """With a zone as it says, without one local, a duration so long ago."""
    assert moment("2026-01-31T12:00:00+02:00") == datetime(2026, 1, 31, 10, tzinfo=UTC)
    assert moment("2026-01-31") == datetime(2026, 1, 31).astimezone()
    asked = moment("2d")
    ago = datetime.now(UTC) - asked
    assert timedelta(days=2) <= ago < timedelta(days=2, minutes=1)


def test_what_is_to_come_is_no_time_ago() -> None:
    """A date is one in the ways of a moment, but never a duration, which would lie in the past."""
    assert date("2026-01-31T12:00:00+02:00") == moment("2026-01-31T12:00:00+02:00")
    for wrong in ("3d", "1d12h", "yesterday", ""):
        with pytest.raises(typer.BadParameter, match="is no time"):
            date(wrong)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "1y", "0001-01-01x"])
def test_what_is_no_moment(text: str) -> None:
    """Everything else is refused."""
    with pytest.raises(typer.BadParameter):
        moment(text)


@pytest.mark.parametrize("text", ["", "[1]", "{", "nul", '"x"'])
def test_what_is_no_object(text: str) -> None:
    """Only a JSON object is one."""
    with pytest.raises(typer.BadParameter):
        json_object(text)
    assert json_object('{"a": [1]}') == {"a": [1]}


@pytest.mark.alone
def test_a_wide_value_deep_inside_is_shown_soon() -> None:
    """A hundred levels of a thousand keys take no more for each level, as text and as JSON."""
    value: Any = 1
    for _ in range(100):
        value = {"in": value, **{f"key {n}": n for n in range(1000)}}
    assert "'key 999': 999" in text(value)
    assert plain(value)["key 999"] == 999
    for show in (text, plain):
        assert times_as_long(functools.partial(show, value), lambda: repr(value)) < 40


def test_no_control_character_is_shown() -> None:
    """Of every character below U+FFFF, those that a terminal obeys or can't encode are escaped."""
    text = "".join(map(chr, range(0x10000)))
    block = shown_block(text)
    block.encode()
    # Lines and tabs are left, and marks that join letters and emoji.
    left = {c for c in block if not c.isprintable()}
    assert {"\n", "\t"} <= left
    assert not left & set("\x00\x07\x08\x1b\r\x7f\x85\x9b\u2028\u2029\u202e\u2066\u061c")
    assert not {"\n", "\t"} & set(shown(text))
    assert shown("a\nb\x1b") == "a\\nb\\x1b"
    assert shown("x" * 100, 10) == "x" * 9 + "…"


def test_there_is_one_list_of_status_values() -> None:
    """What a command takes and what the table holds are the enum's, in its order."""
    values = tuple(status.value for status in SessionStatus)
    assert get_args(Status) == values
    sql = "".join(migration.sql for migration in load_migrations())
    (held,) = re.findall(r"agent_sessions_status_known\s+check \(status in \((.*?)\)\)", sql)
    assert tuple(re.findall(r"'(\w+)'", held)) == values
