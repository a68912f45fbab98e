"""Distributing the tables: what is run, and where it can't be. `make test-citus` does it."""

from __future__ import annotations

import re
from typing import Any

import asyncpg
import pytest
from langchain_core.messages import HumanMessage

from langgraph_pgsaga import Database, PostgresSaver
from langgraph_pgsaga.database import BoundStatement, Statement, load_statements, migrate
from langgraph_pgsaga.distribution import distribute, distribution_sql
from langgraph_pgsaga.errors import MissingCitusError, MissingMigrationsError
from tests._cli import output, pgsaga
from tests._require import require_package
from tests.db._puts import checkpoint_of, config_of

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


# Rows that are claimed over all of them, events, which have one order for all, and memories, which
# may be a user's: one server.
_WORK = {"agent_workers", "agent_jobs"}
_EVENTS = {"agent_events", "event_eras", "event_guards", "event_snapshots"}
_EVENTS |= {"event_seal_heads", "event_seals", "event_subjects"}
_EVENTS |= {"event_consumers", "event_dead_letters"}
# A tenant's items, by namespace and key.
_STORE = {"agent_store_items"}
_MEMORIES = {"agent_memory"}
_ON_COORDINATOR = _WORK | _EVENTS | _STORE | _MEMORIES


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
    assert by_session | everywhere | _ON_COORDINATOR == {row["name"] for row in rows}
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


_PLANS = Statement(
    name="plans",
    text="select current_setting('plan_cache_mode') as mode",
    params=(),
    columns=(),
    shard="all, of a test",
)


@pytest.mark.parametrize(
    ("given", "variable", "mode"),
    [
        (None, None, "force_generic_plan"),
        (None, "0", "force_generic_plan"),
        (None, "1", "auto"),
        (True, None, "auto"),
        (False, "1", "force_generic_plan"),
    ],
)
async def test_plans_are_made_with_the_values(
    dsn: str, monkeypatch: pytest.MonkeyPatch, given: Any, variable: str | None, mode: str
) -> None:
    """Where an option, or else the environment, says that the tables are distributed."""
    monkeypatch.delenv("PGSAGA_DISTRIBUTED", raising=False)
    if variable is not None:
        monkeypatch.setenv("PGSAGA_DISTRIBUTED", variable)
    async with Database(dsn, distributed=given) as db:
        row = await db.fetch_one(_PLANS)
    assert row is not None
    assert row["mode"] == mode


async def test_no_statement_that_is_for_one_session_is_of_two(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the checkpoints of all threads are read, with what they have."""
    sent: list[tuple[str, int]] = []

    def note(statement: Any, args: tuple[Any, ...]) -> None:
        if isinstance(statement, BoundStatement):
            statement, args = statement
        names = [name for name, _ in statement.params]
        if statement.shard in names:
            value = args[names.index(statement.shard)]
            each = value if isinstance(value, list) else [value]
            of = {one[0] if isinstance(one, tuple) else one for one in each}
            sent.append((statement.name, len(of)))

    async with PostgresSaver.from_conn_string(dsn, distributed=True) as saver:
        fetch = saver.db.fetch

        async def noted(statement: Any, *args: Any, **options: Any) -> Any:
            note(statement, args)
            return await fetch(statement, *args, **options)

        monkeypatch.setattr(saver.db, "fetch", noted)
        for thread in ("a", "b", "c"):
            values = {"messages": [HumanMessage(thread)], "large": thread * 10_000, "list": [1]}
            checkpoint = checkpoint_of(saver, values)
            config = await saver.aput(
                config_of(thread), checkpoint, {"run_id": "r"}, checkpoint["channel_versions"]
            )
            await saver.aput_writes(config, [("messages", [HumanMessage("more")])], "task")
        found = [one async for one in saver.anew().alist(None)]
        assert [len(one.pending_writes or ()) for one in found] == [1, 1, 1]
        assert {one.checkpoint["channel_values"]["large"][0] for one in found} == {"a", "b", "c"}
        await saver.adelete_for_runs(["r"])
    assert [(name, count) for name, count in sent if count > 1] == []
    assert {"select_values", "select_messages", "select_writes"} <= {name for name, _ in sent}
