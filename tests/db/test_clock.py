"""pgsaga_now(): the server's time, unless somebody sets it for statements of his own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TypeAlias

import asyncpg
import pytest

Conn: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

pytestmark = pytest.mark.anyio

THEN = datetime(2040, 1, 2, 3, 4, 5, tzinfo=UTC)
_READ = "select pgsaga_now() as at, now() as now"


@pytest.fixture
async def conn(dsn: str) -> AsyncIterator[Conn]:
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


async def test_it_is_now_where_nobody_set_it(conn: Conn) -> None:
    """Before any setting, and after one has gone, which leaves an empty text behind."""
    row = await conn.fetchrow(_READ)
    assert row is not None
    assert row["at"] == row["now"]
    async with conn.transaction():
        await conn.execute(f"set local pgsaga.now = '{THEN}'")
        assert await conn.fetchval("select pgsaga_now()") == THEN
    row = await conn.fetchrow(_READ)
    assert row is not None
    assert row["at"] == row["now"]


async def test_a_session_has_a_time_of_its_own(conn: Conn, dsn: str) -> None:
    """A DSN may say it, too; the times of other sessions stay."""
    other = await asyncpg.connect(dsn, server_settings={"pgsaga.now": str(THEN)})
    assert await other.fetchval("select pgsaga_now()") == THEN
    assert await conn.fetchval("select pgsaga_now() = now()")
    await other.close()


async def test_a_wrong_time_fails_who_set_it(conn: Conn) -> None:
    """What is no time isn't taken for none: a test with a misspelt one would pass by chance."""
    await conn.execute("set pgsaga.now = 'soon'")
    with pytest.raises(asyncpg.InvalidDatetimeFormatError):
        await conn.fetchval("select pgsaga_now()")


async def test_an_index_finds_what_is_due(conn: Conn) -> None:
    """The planner puts it in the index's condition, also in a generic plan."""
    await conn.execute("create temp table due (due_at timestamptz)")
    await conn.execute("create index on due (due_at)")
    await conn.execute("set enable_seqscan = off; set enable_bitmapscan = off")
    await conn.execute("set plan_cache_mode = force_generic_plan")
    await conn.execute("prepare p (int) as select 1 from due where due_at <= pgsaga_now() limit $1")
    rows = await conn.fetch("explain execute p (1)")
    plan = "\n".join(row[0] for row in rows)
    assert "Index Cond: (due_at <=" in plan, plan


async def test_nothing_on_the_search_path_changes_it(
    conn: Conn,
) -> None:
    """It was bound to PostgreSQL's own functions when it was made."""
    await conn.execute("create schema traps")
    await conn.execute(
        "create function traps.now() returns timestamptz"
        " language sql return 'infinity'::timestamptz"
    )
    await conn.execute(
        "create function traps.current_setting(text, boolean) returns text language sql"
        " return '2000-01-01 00:00:00+00'"
    )
    await conn.execute("set search_path to traps, pg_catalog, public")
    assert await conn.fetchval("select pgsaga_now() = pg_catalog.now()")
