"""The hot statements use their indexes from the first row on, whatever the statistics say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from langgraph_pgsaga import Database
from langgraph_pgsaga.database import load_statements

pytestmark = pytest.mark.anyio

_HOT = [
    ("checkpoint", "get_checkpoint"),
    ("checkpoint", "write_batch"),
    ("checkpoint", "write_states"),
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


async def test_a_setting_in_the_dsn_wins(dsn: str) -> None:
    """The planner settings are defaults: who names another in the DSN gets that."""
    dsn += ("&" if "?" in dsn else "?") + "plan_cache_mode=auto"
    async with Database(dsn) as db, db.transaction() as conn:
        assert await conn.fetchval("show plan_cache_mode") == "auto"
        assert await conn.fetchval("show jit") == "off"
