"""Statements are read from their files by name, and a schema's name is quoted in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraph_pgsaga.database import statements

TWO = """-- A file about things.

-- name: select_thing
-- What it is for,
-- in two lines.
-- params: session_id uuid, labels text[], at timestamp with time zone
-- columns: label text, payload bytea
-- shard: session_id
select label, payload
-- a comment of the statement's own
from {schema}.things
where session_id = $1;

-- name: delete_things
-- All of them.
-- shard: all, they may be anywhere
delete from {schema}.things;
"""

Load = Callable[[str], dict[str, statements.Statement]]


@pytest.fixture
def load_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Loads a file's text as if it were one of the package's."""
    (tmp_path / "sql").mkdir()
    monkeypatch.setattr(resources, "files", lambda _: tmp_path)

    def load(text: str) -> dict[str, statements.Statement]:
        (tmp_path / "sql" / "things.sql").write_text(text, "utf-8")
        statements.load_statements.cache_clear()
        return statements.load_statements("things")

    yield load
    statements.load_statements.cache_clear()


def test_a_header_gives_name_parameters_and_columns(load_text: Load) -> None:
    """Types of several words and arrays are read; the statement is the text without comments."""
    thing = load_text(TWO)["select_thing"]
    assert thing.name == "select_thing"
    assert thing.params == (
        ("session_id", "uuid"),
        ("labels", "text[]"),
        ("at", "timestamp with time zone"),
    )
    assert thing.columns == (("label", "text"), ("payload", "bytea"))
    assert thing.text == "select label, payload\nfrom {schema}.things\nwhere session_id = $1"


def test_a_header_may_leave_parameters_and_columns_out(load_text: Load) -> None:
    """A statement without them has none, and isn't given those of the one before."""
    found = load_text(TWO)
    assert list(found) == ["select_thing", "delete_things"]
    assert (found["delete_things"].params, found["delete_things"].columns) == ((), ())


def test_a_header_says_where_the_rows_are(load_text: Load) -> None:
    """By a parameter, or that they may be anywhere, with a reason."""
    found = load_text(TWO)
    assert [found["select_thing"].shard, found["delete_things"].shard] == ["session_id", "all"]
    for wrong in ("-- shard: all\n", "-- shard: session_id, a reason\n"):
        with pytest.raises(ValueError, match="select_thing says of its shard neither"):
            load_text(TWO.replace("-- shard: session_id\n", wrong))


def test_a_name_used_twice_is_an_error(load_text: Load) -> None:
    """No statement silently replaces another."""
    with pytest.raises(ValueError, match="twice"):
        load_text(TWO + TWO)


def test_a_missing_file_is_an_error() -> None:
    """A misspelt system doesn't pass for one without statements."""
    with pytest.raises(FileNotFoundError):
        statements.load_statements("no_such_system")


@pytest.mark.parametrize(
    ("schema", "rendered"),
    [
        (None, "select a from things where b = '{schema}'"),
        ("own", "select a from \"own\".things where b = '{schema}'"),
        ('o"d d', 'select a from "o""d d".things where b = \'{schema}\''),
        ("{schema}.", "select a from \"{schema}.\".things where b = '{schema}'"),
        (
            'x"; drop table y; --',
            'select a from "x""; drop table y; --".things where b = \'{schema}\'',
        ),
    ],
)
def test_the_marker_becomes_the_quoted_schema(schema: str | None, rendered: str) -> None:
    """Only `{schema}.` is replaced, once, and no name can end its own quotes."""
    assert (
        statements.render("select a from {schema}.things where b = '{schema}'", schema) == rendered
    )


@given(st.text())
def test_a_quoted_name_is_one_identifier(name: str) -> None:
    """Between the outer quotes every quote is doubled, and undoubling gives the name back."""
    quoted = statements.quote_identifier(name)
    assert quoted[0] == quoted[-1] == '"'
    inner = quoted[1:-1]
    assert '"' not in inner.replace('""', "")
    assert inner.replace('""', '"') == name
