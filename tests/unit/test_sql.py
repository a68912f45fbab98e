"""Statements are read from their files by name, and a schema's name is quoted in one place."""

from __future__ import annotations

import ast
import pickle
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import langgraph_pgsaga
from langgraph_pgsaga.database import statements
from langgraph_pgsaga.errors import BindingError

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


def test_values_are_bound_by_name(load_text: Load) -> None:
    """They come in the order of the header, whatever the order of the call."""
    thing = load_text(TWO)["select_thing"]
    assert thing.bind(at=3, session_id=1, labels=["2"]) == (thing, (1, ["2"], 3))
    assert load_text(TWO)["delete_things"].bind().values == ()


def test_values_that_the_header_does_not_name_are_refused(load_text: Load) -> None:
    """The error says which statement and which names, and no value."""
    thing = load_text(TWO)["select_thing"]
    with pytest.raises(BindingError) as caught:
        thing.bind(session_id=1, label="secret", at=None)
    assert "select_thing: no value for labels, no parameter label" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), TypeError)


# What the saver does at every step, where a dict more would be felt.
_HOT = {"checkpoint/saver.py", "checkpoint/call_store.py"}


def test_only_what_runs_at_every_step_binds_by_position() -> None:
    """A parameter that is added to a statement can't shift the others' values."""
    root = Path(langgraph_pgsaga.__file__).parent
    wrong = []
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or str(path.relative_to(root)) in _HOT:
                continue
            if ast.unparse(node.func).endswith("db.fetch") and len(node.args) > 1:
                wrong.append(f"{path.relative_to(root)}:{node.lineno}")
    assert wrong == []


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
