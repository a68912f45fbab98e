"""What goes over one tenant's threads reads an index of its own, and nobody else's rows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.database import load_statements
from tests.db.test_session_plans import nodes, rows_read

pytestmark = pytest.mark.anyio

COUNT, FEW = 20_000, 60
MANY = """
insert into agent_sessions (session_id, tenant_id, thread_id, agent_type, created_at)
select
  pgsaga_session_id(a, n::text), a, n::text, 'type ' || n % 10, now() - n * interval '1 second'
from (
  select '' as a, n from generate_series(1, $1) n
  union all select 'big', n from generate_series(1, $1) n
  union all select 'small', n from generate_series(1, $2) n
) s
"""
STATES = """
insert into agent_states
  (session_id, checkpoint_ns, checkpoint_id, state_data, metadata, position)
select s.session_id, '', '1', '{}', '{}', row_number() over () from agent_sessions s
"""
MESSAGES = """
insert into agent_messages
  (session_id, message_no, message_type, role, content, metadata, digest, payload_type, payload)
select s.session_id, 1, 'human', 'user', 'word', '{}', '', 'msgpack', '' from agent_sessions s
"""
TYPED = {"agent_type": "type 1"}
SORTED = TYPED | {"order_name": "activity"}
# What is asked, and the indexes of sessions and their rows that answer it.
ASKED: list[tuple[str, str, dict[str, Any], set[str]]] = [
    ("sessions", "list_by_activity", {}, {"agent_sessions_tenant_idx"}),
    ("sessions", "list_by_created", {}, {"agent_sessions_newest_idx"}),
    ("sessions", "list_by_priority", {}, {"agent_sessions_queue_idx"}),
    ("sessions", "list_type_by_created", TYPED, {"agent_sessions_type_idx"}),
    ("sessions", "list_type_sorted", SORTED, {"agent_sessions_type_idx"}),
    ("sessions", "select_swept", {"other_types": "{}"}, {"agent_sessions_tenant_idx"}),
    ("messages", "list_tenant_messages", {}, {"agent_sessions_tenant_idx"}),
    ("history", "list_tenant", {}, {"agent_sessions_tenant_idx"}),
]  # fmt: skip


@pytest.fixture
async def many(saver: PostgresSaver) -> PostgresSaver:
    """Two tenants with many threads, one of them '', and one with a few."""
    async with saver.db.transaction() as conn:
        await conn.execute(MANY, COUNT, FEW)
        await conn.execute(STATES)
        await conn.execute(MESSAGES)
    async with saver.db.transaction() as conn:
        for table in ("agent_sessions", "agent_states", "agent_messages"):
            await conn.execute(f"analyze {table}")
    return saver


async def test_a_small_tenant_reads_its_own_rows(many: PostgresSaver) -> None:
    """Listings, sweeps, messages and checkpoints: as many rows as it has threads, at each table."""
    for system, name, given, indexes in ASKED:
        statement = load_statements(system)[name]
        values = {"tenant_id": "small", "page": 50, **given}
        literals = [
            "null" if (value := values.get(param)) is None else f"'{value}'"
            for param, _ in statement.params
        ]
        types = ", ".join(sql_type for _, sql_type in statement.params)
        async with many.db.transaction() as conn:
            await conn.execute(f"prepare probe ({types}) as {many.db.text(statement)}")
            answer = await conn.fetchval(
                f"explain (analyze, format json) execute probe ({', '.join(literals)})"
            )
            await conn.execute("deallocate probe")
        plan = json.loads(answer)[0]["Plan"]
        read = [node for node in nodes(plan) if "Relation Name" in node]
        assert plan["Actual Rows"] > 0, name
        assert {n["Node Type"] for n in read if rows_read(n)} <= {
            "Index Scan",
            "Index Only Scan",
            "Bitmap Heap Scan",
        }, name
        assert max(map(rows_read, read)) <= FEW, (name, plan)
        used = {n.get("Index Name") for n in nodes(plan) if n.get("Actual Rows")}
        assert indexes <= used, (name, used)
