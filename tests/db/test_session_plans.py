"""Listings of sessions among many read the index that is for them, and little else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.database import load_statements

pytestmark = pytest.mark.anyio

# A million under PGSAGA_FULL, which take a minute or two to make.
COUNT = 1_000_000 if os.environ.get("PGSAGA_FULL") else 20_000
PAGE = 51
# A user has a ten-thousandth of them, an agent type a tenth, and the rare one a hundredth.
MANY = """
insert into agent_sessions
  (session_id, thread_id, user_id, agent_type, status, priority, created_at, last_activity_at)
select
  pgsaga_session_id(n::text), n::text, 'user ' || n % 10000,
  case when n % 100 = 0 then 'rare' else 'type ' || n % 10 end,
  case when n % 100 < 3 then 'active' else 'completed' end,
  case when n % 50 = 0 then n % 7 - 3 else 0 end,
  now() - n * interval '1 second', now() - n * 7919::bigint % 1000003 * interval '1 second'
from generate_series(1, $1) n
"""
TYPED = {"agent_type": "rare", "page": PAGE}
# What is asked, which index answers it, and how many of its rows are read at most.
ASKED: list[tuple[str, dict[str, Any], str, int]] = [
    ("list_by_created", {"page": PAGE}, "agent_sessions_newest_idx", PAGE),
    ("list_by_priority", {"page": PAGE}, "agent_sessions_queue_idx", PAGE),
    ("list_type_by_created", TYPED, "agent_sessions_type_idx", PAGE),
    (
        "list_type_by_created",
        TYPED | {"status": "active"},
        "agent_sessions_type_idx",
        PAGE,
    ),
    (
        "list_type_sorted",
        TYPED | {"order_name": "priority"},
        "agent_sessions_type_idx",
        COUNT // 100,
    ),
    (
        "list_type_sorted",
        TYPED | {"order_name": "activity"},
        "agent_sessions_type_idx",
        COUNT // 100,
    ),
    (
        "list_narrowed",
        {"user_id": "user 7", "status": "completed", "order_name": "activity", "page": PAGE},
        "agent_sessions_user_idx",
        COUNT // 10000,
    ),
]


async def plan_of(saver: PostgresSaver, name: str, given: dict[str, Any]) -> dict[str, Any]:
    """What the server did for a listing, under the settings of every connection."""
    statement = load_statements("sessions")[name]
    values = [_literal(given.get(param)) for param, _ in statement.params]
    types = ", ".join(sql_type for _, sql_type in statement.params)
    async with saver.db.transaction() as conn:
        await conn.execute(f"prepare probe ({types}) as {saver.db.text(statement)}")
        answer = await conn.fetchval(
            f"explain (analyze, format json) execute probe ({', '.join(values)})"
        )
        await conn.execute("deallocate probe")
    plan: dict[str, Any] = json.loads(answer)[0]["Plan"]
    return plan


def _literal(value: Any) -> str:
    return "null" if value is None else f"'{value}'"


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def rows_read(node: dict[str, Any]) -> float:
    """By all loops and workers, with those that a filter took out."""
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return float((node["Actual Rows"] + removed) * node["Actual Loops"])


@pytest.mark.slow
async def test_listings_among_many_sessions_read_their_index(saver: PostgresSaver) -> None:
    """By agent type, by user and status, newest first, and as a queue: no table is read whole."""
    async with saver.db.transaction() as conn:
        await conn.execute(MANY, COUNT)
    async with saver.db.transaction() as conn:
        await conn.execute("analyze agent_sessions")
    for name, given, index, most in ASKED:
        plan = await plan_of(saver, name, given)
        found = list(nodes(plan))
        used = [node for node in found if node.get("Index Name") == index]
        print(f"{name} {given}: {plan['Actual Total Time']} ms")
        assert len(used) == 1, (name, plan)
        assert rows_read(used[0]) <= most, (name, used)
        assert "Seq Scan" not in {node["Node Type"] for node in found}
        # Candidates that aren't asked for come from other indexes, which aren't read.
        others = {node.get("Index Name", index) for node in found} - {index}
        assert others <= {
            "agent_sessions_pkey",
            "agent_sessions_metadata_idx",
            "agent_messages_words_idx",
        }
