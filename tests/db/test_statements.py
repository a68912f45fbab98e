"""The statements agree with the schema, without running any."""

from __future__ import annotations

from importlib import resources

import pytest

from langgraph_pgsaga import Database, _sql

pytestmark = pytest.mark.anyio

_TYPE_NAMES = {"int2": "smallint", "int4": "integer", "int8": "bigint", "bool": "boolean"}
_SYSTEMS = sorted(
    f.name.removesuffix(".sql")
    for f in resources.files("langgraph_pgsaga").joinpath("sql").iterdir()
    if f.name.endswith(".sql")
)
_NOT_PREPARABLE = {"create_schema", "set_search_path"}


def _sql_type(name: str, kind: str) -> str:
    base = name.removesuffix("[]")
    renamed = {**_TYPE_NAMES, "timestamptz": "timestamp with time zone"}.get(base, base)
    return renamed + ("[]" if kind == "array" else "")


@pytest.mark.parametrize(
    "statement",
    [s for system in _SYSTEMS for s in _sql.load(system).values() if s.name not in _NOT_PREPARABLE],
    ids=lambda s: s.name,
)
async def test_statement_has_the_types_that_its_header_says(
    dsn: str, statement: _sql.Statement
) -> None:
    """A misspelt column or a wrong header fails here, before any data is touched."""
    async with Database(dsn) as db:
        conn = await db.connect()
        prepared = await conn.prepare(db.text(statement))
        params = [_sql_type(t.name, t.kind) for t in prepared.get_parameters()]
        columns = [(a.name, _sql_type(a.type.name, a.type.kind)) for a in prepared.get_attributes()]
        await conn.close()
    assert params == [sql_type for _, sql_type in statement.params]
    assert tuple(columns) == statement.columns


def test_names_are_unique_across_a_file() -> None:
    """Two statements of one name can't shadow each other."""
    for system in _SYSTEMS:
        assert _sql.load(system)
