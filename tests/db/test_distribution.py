"""Distributing the tables: what is run, and where it can't be. `make test-citus` does it."""

from __future__ import annotations

import re

import asyncpg
import pytest

from langgraph_pgsaga import Database
from langgraph_pgsaga.database import load_statements, migrate
from langgraph_pgsaga.distribution import distribute, distribution_sql
from langgraph_pgsaga.errors import MissingCitusError, MissingMigrationsError
from tests._cli import output, pgsaga
from tests._require import require_package

pytestmark = pytest.mark.anyio


async def test_a_server_without_citus_is_a_clear_error(dsn: str) -> None:
    """It says what is missing, without a password, and changes nothing."""
    async with Database(dsn) as db:
        with pytest.raises(MissingCitusError, match="create extension citus") as caught:
            await distribute(db)
    assert caught.value.dsn == db.dsn


async def test_without_tables_there_is_nothing_to_distribute(empty_dsn: str) -> None:
    """The error is that of every call that needs the tables."""
    async with Database(empty_dsn) as db:
        for attempt in (distribute, distribution_sql):
            with pytest.raises(MissingMigrationsError, match="agent_sessions"):
                await attempt(db)


async def test_each_table_is_distributed_by_session_or_is_everywhere(dsn: str) -> None:
    """No table of the migrations is left out, and those by session have it in every key."""
    conn = await asyncpg.connect(dsn)
    rows = await conn.fetch(
        "select c.relname::text as name, array_agg(a.attname::text) as columns"
        " from pg_class c join pg_index i on i.indrelid = c.oid and i.indisunique"
        " join pg_attribute a on a.attrelid = c.oid and a.attnum = any(i.indkey::smallint[])"
        " where c.relnamespace = current_schema()::regnamespace and c.relkind = 'r'"
        " group by c.relname, i.indexrelid"
    )
    await conn.close()
    text = load_statements("distribution")["distribute_tables"].text
    (listed,) = re.findall(r"array\[(.*?)\]", text, re.DOTALL)
    by_session = set(re.findall(r"'(\w+)'", listed))
    everywhere = set(re.findall(r"create_reference_table\('(\w+)'\)", text))
    assert by_session | everywhere == {row["name"] for row in rows}
    assert all("session_id" in row["columns"] for row in rows if row["name"] in by_session)


@pytest.mark.parametrize("schema", ["own", "o'd \"d"])
async def test_the_sql_is_one_transaction_in_the_tables_schema(empty_dsn: str, schema: str) -> None:
    """What --dry-run prints can be run with psql, also where the schema's name needs quotes."""
    async with Database(empty_dsn, schema=schema) as db:
        await migrate(db)
        text = await distribution_sql(db)
    quoted = schema.replace('"', '""')
    parsed = require_package("pglast").parse_sql(text)
    assert [part.stmt.__class__.__name__ for part in parsed] == [
        "TransactionStmt",
        "VariableSetStmt",
        "DoStmt",
        "TransactionStmt",
    ]
    assert f'search_path to "{quoted}", pg_temp' in text


def test_the_command_prints_what_it_would_run(dsn: str) -> None:
    """--dry-run needs no Citus; without it the command says in a line what is missing."""
    assert "create_distributed_table" in output("migrate", "distribute", "--dsn", dsn, "--dry-run")
    refused = pgsaga("migrate", "distribute", "--dsn", dsn)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "has no Citus" in refused.stderr
