"""The Citus cluster of PGSAGA_CITUS_DSN, on which `make test-citus` runs tests."""

from __future__ import annotations

import asyncio
from functools import cache

import asyncpg

from langgraph_pgsaga import Database
from langgraph_pgsaga.database import migrate
from langgraph_pgsaga.distribution import distribute

# A database made for these tests: what it holds in this schema is deleted.
SCHEMA = "pgsaga_test"


def emptied_cluster(dsn: str) -> str:
    """The cluster, with the tables of SCHEMA distributed and empty. One test at a time."""
    own = f"{dsn}{'&' if '?' in dsn else '?'}search_path={SCHEMA}"
    _make(dsn)
    asyncio.run(_empty(own))
    return own


@cache
def _make(dsn: str) -> None:
    async def run() -> None:
        async with Database(dsn, schema=SCHEMA, distributed=True) as db:
            conn = await db.connect()
            await conn.execute(f"drop schema if exists {SCHEMA} cascade")
            await conn.close()
            await migrate(db)
            await distribute(db)

    asyncio.run(run())


async def _empty(dsn: str) -> None:
    conn = await asyncpg.connect(dsn)
    tables = await conn.fetchval(
        "select string_agg(relname::text, ', ') from pg_class"
        " where relnamespace = $1::regnamespace and relkind = 'r' and relname ~ '^agent_'",
        SCHEMA,
    )
    await conn.execute(f"truncate {tables}")
    await conn.close()
