"""Items of the store, and their vectors, are found by their key from the first row on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from langgraph_pgsaga import Database
from langgraph_pgsaga.database import Connection, load_statements
from langgraph_pgsaga.database.statements import Statement
from langgraph_pgsaga.memory import MemoryStore
from tests._embedders import HashingEmbedder
from tests.conftest import fetch
from tests.db.test_plans import nodes

pytestmark = pytest.mark.anyio

_KEYS = ("agent_store_items_pkey", "agent_store_vectors_pkey")
# Each foreign key: what the server asks for a row that refers, and the index that it refers to.
_FOREIGN_KEYS = """
select c.conname as name, i.relname as index_name,
  format('select 1 from only %s x where %s for key share of x', c.confrelid::regclass,
    string_agg(format('%I operator(pg_catalog.=) $%s', a.attname, k.place), ' and '))
    as question,
  array_agg(format_type(a.atttypid, null) order by k.place) as types
from pg_constraint c
join pg_class i on i.oid = c.conindid
cross join lateral unnest(c.confkey) with ordinality as k (number, place)
join pg_attribute a on a.attrelid = c.confrelid and a.attnum = k.number
where c.contype = 'f' and c.connamespace = current_schema()::regnamespace
group by c.conname, i.relname, c.confrelid
order by 1
"""


@pytest.fixture(params=[0, 5])
async def db(dsn: str, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """A database whose store has so many items, all in one namespace."""
    has_vectors = await asyncio.to_thread(
        fetch, dsn, "select from pg_available_extensions where name = 'vector'"
    )
    index: Any = {"dims": 8, "embed": HashingEmbedder(8), "fields": ["text"]}
    store = MemoryStore.from_conn_string(dsn, index=index if has_vectors else None)
    async with store:
        await store.asetup()
        for number in range(request.param):
            await store.aput(("a",), str(number), {"text": str(number)})
        yield store.db


def statements() -> list[Statement]:
    systems = ("store", "store_vectors")
    return [one for system in systems for one in load_statements(system).values()]


async def reads(
    conn: Connection, text: str, types: list[str], tables: str = "agent_store"
) -> list[dict[str, Any]]:
    """The scans of the plan that a connection keeps."""
    await conn.execute(f"prepare probe ({', '.join(types)}) as {text}")
    nothing = ", ".join("null" for _ in types)
    answer = await conn.fetchval(f"explain (format json) execute probe ({nothing})")
    found = nodes(json.loads(answer)[0]["Plan"])
    return [node for node in found if tables in node.get("Relation Name", "")]


@pytest.mark.parametrize("statement", statements(), ids=lambda one: one.name)
async def test_what_is_looked_up_by_key_is_found_by_the_primary_key(
    db: Database, statement: Statement
) -> None:
    """And no table is read from end to end, but where the approximate index would be."""
    types = [sql_type for _, sql_type in statement.params]
    if not types:
        return
    async with db.transaction() as conn:
        if "vectors" in statement.text and not await conn.fetchval(
            "select to_regclass('agent_store_vectors') is not null"
        ):
            pytest.skip("this server has no pgvector")
        await conn.execute("analyze")
        found = await reads(conn, db.text(statement), types)
    for node in found:
        assert node["Node Type"] != "Seq Scan" or "nearest" in statement.name, node
        if "key = " in node.get("Index Cond", ""):
            assert node["Index Name"] in _KEYS, node


async def test_what_a_row_refers_to_is_found_by_its_key(db: Database) -> None:
    """By the server itself, whose plan is kept as long as the connection; of every system."""
    async with db.transaction() as conn:
        if await conn.fetchval("select to_regclass('agent_store_vectors') is not null"):
            await conn.execute("select pgsaga_create_memory_vectors()")
        await conn.execute("analyze")
        keys = await conn.fetch(_FOREIGN_KEYS)
        wrong = []
        for key in keys:
            found = await reads(conn, key["question"], key["types"], "")
            wrong += [key["name"]] * (key["index_name"] not in {n.get("Index Name") for n in found})
            await conn.execute("deallocate probe")
    assert keys
    assert wrong == []


async def test_the_newest_of_a_namespace_come_in_their_order(db: Database) -> None:
    """By their index, so that a search stops where its page is full."""
    statement = load_statements("store")["search_items"]
    types = [sql_type for _, sql_type in statement.params]
    async with db.transaction() as conn:
        found = await reads(conn, db.text(statement), types)
    assert "agent_store_items_newest_idx" in {node.get("Index Name") for node in found}
