"""The hot statements use their indexes from the first row on, whatever the statistics say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from langgraph_pgsaga import Database, PostgresSaver
from langgraph_pgsaga.database import load_statements
from langgraph_pgsaga.database.statements import Statement
from tests.db._puts import checkpoint_of, config_of

pytestmark = pytest.mark.anyio

_HOT = [
    ("checkpoint", "get_checkpoint"),
    ("checkpoint", "write_batch"),
    ("checkpoint", "write_states"),
    ("checkpoint", "write_turns"),
    ("checkpoint", "write_dependent"),
    ("checkpoint", "write_pending"),
    ("checkpoint", "find_session"),
    ("checkpoint", "select_pending_sends"),
    ("history", "find_place"),
    ("history", "list_namespace"),
    ("history", "list_thread"),
    ("history", "list_all"),
    ("history", "list_by_metadata"),
    ("history", "select_values"),
    ("history", "select_messages"),
    ("history", "select_writes"),
    ("history", "walk_delta_channels"),
    ("history", "select_channel_writes"),
]

SYSTEMS = ("checkpoint", "history", "messages", "retention", "sessions", "takeover", "timetravel")


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


@pytest.mark.parametrize(("system", "name"), _HOT)
async def test_a_plan_made_on_empty_tables_reads_indexes(dsn: str, system: str, name: str) -> None:
    """No table is read from end to end, and what names a session is looked up by it."""
    statement = load_statements(system)[name]
    async with Database(dsn) as db, db.transaction() as conn:
        types = ", ".join(sql_type for _, sql_type in statement.params)
        nothing = ", ".join("null" for _ in statement.params)
        await conn.execute(f"prepare probe ({types}) as {db.text(statement)}")
        answer = await conn.fetchval(f"explain (format json) execute probe ({nothing})")
    found = list(nodes(json.loads(answer)[0]["Plan"]))
    tables = [n for n in found if n.get("Relation Name", "").startswith("agent_")]
    reads = [n for n in tables if n["Node Type"] != "ModifyTable"]
    assert reads or name.startswith("write_")
    assert {n["Node Type"] for n in reads} <= {
        "Index Scan",
        "Index Only Scan",
        "Bitmap Heap Scan",
        "LockRows",
    }
    for node in reads:
        if node["Node Type"] == "Index Scan" and name not in ("list_all", "list_by_metadata"):
            assert "session_id" in node.get("Index Cond", ""), node


@pytest.mark.parametrize("system", SYSTEMS)
async def test_a_plan_made_among_few_rows_finds_a_session_by_its_key(dsn: str, system: str) -> None:
    """Where all indexes cost the same, none that would be read from end to end is taken."""
    async with PostgresSaver.from_conn_string(dsn) as saver:
        await saver.aput(config_of("t"), checkpoint_of(saver, {"c": 1}), {}, {})
    wrong = []
    async with Database(dsn) as db, db.transaction() as conn:
        await conn.execute("analyze")
        for number, (name, statement) in enumerate(load_statements(system).items()):
            probe = f"probe{number}"
            types, nothing = _signature(statement)
            await conn.execute(f"prepare {probe}{types} as {db.text(statement)}")
            answer = await conn.fetchval(f"explain (format json) execute {probe}{nothing}")
            for node in nodes(json.loads(answer)[0]["Plan"]):
                condition = node.get("Index Cond", "")
                if "(session_id = " in condition and "_sessions_" in node["Index Name"]:
                    wrong += [name] * (node["Index Name"] != "agent_sessions_pkey")
    assert wrong == []


def _signature(statement: Statement) -> tuple[str, str]:
    """The types of its parameters, and a null for each."""
    if not statement.params:
        return "", ""
    types = ", ".join(sql_type for _, sql_type in statement.params)
    return f"({types})", f"({', '.join('null' for _ in statement.params)})"


async def test_a_setting_in_the_dsn_wins(dsn: str) -> None:
    """The planner settings are defaults: who names another in the DSN gets that."""
    dsn += ("&" if "?" in dsn else "?") + "plan_cache_mode=auto"
    async with Database(dsn) as db, db.transaction() as conn:
        assert await conn.fetchval("show plan_cache_mode") == "auto"
        assert await conn.fetchval("show jit") == "off"
