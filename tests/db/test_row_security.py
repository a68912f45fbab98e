"""Row level security on the tables, as docs/database.md has it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import asyncpg
import pytest
from langchain_core.messages import HumanMessage

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import PgSagaError, ServerError
from langgraph_pgsaga.sessions import RetentionPolicy, Sessions
from langgraph_pgsaga.threads import session_id_of
from tests._limits import HANG_SECONDS
from tests._tables import SESSION_TABLES
from tests.conftest import execute
from tests.db import _histories as histories
from tests.db._puts import config_of, put
from tests.db._tenants import fetch, of

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[2] / "docs" / "database.md"
VIEWS = ("agent_conversations", "agent_message_log", "agent_state_history")
ENABLING = """
do $$ declare name text; begin
  for name in select tablename from pg_tables where schemaname = 'public' loop
    execute format('alter table %I enable row level security', name);
  end loop;
end $$
"""


@asynccontextmanager
async def roles(dsn: str, *names: str) -> AsyncIterator[list[tuple[str, str]]]:
    """Roles that may do with the tables what an application does, each with its DSN."""
    url = urlsplit(dsn)
    database = url.path.removeprefix("/pgsaga_test_")
    made = [f"{name}_{database}" for name in names]
    for role in made:
        await execute(
            dsn,
            f"create role {role}",
            f"grant select, insert, update, delete on all tables in schema public to {role}",
        )
    try:
        yield [
            (role, url._replace(query=f"{url.query}&{urlencode({'role': role})}").geturl())
            for role in made
        ]
    finally:
        for role in made:
            await execute(dsn, f"drop owned by {role}", f"drop role {role}")


async def rows(dsn: str, query: str) -> list[asyncpg.Record]:
    """What a role finds."""
    return await asyncio.to_thread(fetch, dsn, query)


def policies(app: str, analyst: str) -> str:
    """The page's SQL, for these roles."""
    found = re.search(r"```sql\n(do .*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return found[1].replace("to app ", f"to {app} ").replace("to analyst", f"to {analyst}")


async def test_the_pages_policies_show_the_application_all_and_others_their_tenants(
    dsn: str,
) -> None:
    """Graphs run, setup finds its tables, a deleted thread leaves nothing; an analyst reads one
    tenant's rows."""
    async with roles(dsn, "app", "analyst") as ((app, apps), (analyst, theirs)):
        await execute(dsn, policies(app, analyst))
        async with PostgresSaver.from_conn_string(apps) as saver:
            await saver.asetup()
            graph = histories.nested(saver)
            for tenant in ("acme", "globex", ""):
                await graph.ainvoke({"total": [tenant]}, of(tenant))
                said = {"messages": [HumanMessage(f"of {tenant}")], "long": "x" * 9000}
                await asyncio.to_thread(put, saver, of(tenant, "said"), said)
            for name in SESSION_TABLES:
                query = f"select distinct session_id from {name}"
                own = {row["session_id"] for row in await rows(theirs, query)}
                assert own <= {session_id_of(thread, "acme") for thread in ("t", "said")}, name
                assert own, name
            for name in VIEWS:
                found = await rows(theirs, f"select distinct tenant_id from {name}")
                assert [row["tenant_id"] for row in found] == ["acme"], name
            for tenant in ("acme", "globex", ""):
                for thread in ("t", "said"):
                    await saver.adelete_thread(thread, tenant=tenant)
        for name in SESSION_TABLES:
            assert await rows(dsn, f"select from {name}") == [], name


async def test_without_policies_nothing_is_found_or_written(dsn: str) -> None:
    """And it is told: neither is a put lost, nor are the tables made again."""
    async with roles(dsn, "app") as ((_, apps),):
        async with PostgresSaver.from_conn_string(dsn) as owners:
            await asyncio.to_thread(put, owners, config_of("t"), {"c": 1})
            await execute(dsn, ENABLING)
            assert await owners.aget_tuple(config_of("t")) is not None
        async with PostgresSaver.from_conn_string(apps) as saver:
            assert await saver.aget_tuple(config_of("t")) is None
            with pytest.raises(ServerError, match="row-level security") as caught:
                await asyncio.to_thread(put, saver, config_of("u"), {"c": 1})
            assert caught.value.sqlstate == "42501"
            with pytest.raises(PgSagaError):
                await saver.asetup()


async def test_rows_cant_be_checked_by_their_session(dsn: str) -> None:
    """A first put makes both in one statement, which sees neither: the page says so."""
    by_session = "session_id in (select session_id from agent_sessions)"
    async with roles(dsn, "app") as ((app, apps),):
        await execute(
            dsn,
            "alter table agent_states enable row level security",
            f"create policy application on agent_states to {app} using ({by_session})",
        )
        async with PostgresSaver.from_conn_string(apps) as saver:
            with pytest.raises(ServerError, match="row-level security"):
                await asyncio.to_thread(put, saver, config_of("t"), {"c": 1})


COMMANDS = ("select", "insert", "update", "delete")


@pytest.mark.parametrize("table", SESSION_TABLES)
async def test_what_may_be_seen_and_not_deleted_is_told(dsn: str, table: str) -> None:
    """A deletion passes over such rows: neither is it taken for done, nor done again for ever."""
    async with roles(dsn, "app") as ((app, apps),):
        async with PostgresSaver.from_conn_string(dsn) as owners:
            said = {"messages": [HumanMessage("hi")], "long": "x" * 9000}
            for thread in ("t", "old"):
                config = await asyncio.to_thread(put, owners, config_of(thread), said)
                await owners.aput_writes(config, [("c", 1)], "task")
            await Sessions(owners.db).update("old", expires_at=datetime(2020, 1, 1, tzinfo=UTC))
        await execute(dsn, f"alter table {table} enable row level security")
        for command in COMMANDS[:-1]:
            rule = "with check" if command == "insert" else "using"
            await execute(
                dsn, f"create policy p_{command} on {table} for {command} to {app} {rule} (true)"
            )
        before = await everything(dsn)
        async with PostgresSaver.from_conn_string(apps) as saver:
            sessions = Sessions(saver.db)
            for deletion in (
                saver.adelete_thread("t"),
                sessions.delete("t"),
                saver.aprune(["t"], strategy="delete"),
                asyncio.wait_for(sessions.sweep(batch=1), HANG_SECONDS),
            ):
                with pytest.raises(
                    ServerError, match=f"of {table} and lets it delete none"
                ) as told:
                    await deletion
                assert told.value.sqlstate == "42501"
        assert await everything(dsn) == before


async def test_checkpoints_that_may_not_be_pruned_are_told(dsn: str) -> None:
    async with roles(dsn, "app") as ((app, apps),):
        async with PostgresSaver.from_conn_string(dsn) as owners:
            config = await asyncio.to_thread(put, owners, config_of("t"), {"c": 1})
            await asyncio.to_thread(put, owners, config, {"c": 2})
        await execute(
            dsn,
            "alter table agent_states enable row level security",
            f"create policy seen on agent_states for select to {app} using (true)",
        )
        async with PostgresSaver.from_conn_string(apps) as saver:
            sweep = Sessions(saver.db).sweep([RetentionPolicy(keep_last=1)])
            for pruning in (saver.aprune(["t"]), sweep):
                with pytest.raises(ServerError, match="of agent_states and lets it delete none"):
                    await pruning


async def test_a_role_of_one_tenant_deletes_and_copies_its_threads(dsn: str) -> None:
    """What is claimed for a deletion, or for a copy, is of the tenant, too."""
    async with roles(dsn, "acme") as ((acme, own),):
        await execute(
            dsn,
            "alter table agent_sessions enable row level security",
            f"create policy own on agent_sessions to {acme} using (tenant_id = 'acme')",
        )
        async with PostgresSaver.from_conn_string(own, tenant="acme") as saver:
            await asyncio.to_thread(put, saver, config_of("t"), {"c": 1})
            await saver.acopy_thread("t", "u")
            await saver.adelete_thread("t")
            await saver.adelete_thread("never there")
            page = await Sessions(saver.db).list()
            assert [session.thread_id for session in page.sessions] == ["u"]


async def everything(dsn: str) -> dict[str, int]:
    """How many rows each table has."""
    counts = {}
    for name in SESSION_TABLES:
        (row,) = await rows(dsn, f"select count(*) from {name}")
        counts[name] = row["count"]
    return counts
