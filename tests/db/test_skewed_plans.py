"""What a long thread costs among many short ones: rows that grow with it, not with its square.

A plan is made for the thread of the average size. Among short ones that has few rows, and joining
few rows with few, each with each, costs nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import pytest

from langgraph_pgsaga import Database
from langgraph_pgsaga.database import Connection, load_statements
from langgraph_pgsaga.threads import session_id_of
from tests.db.test_plans import nodes

pytestmark = pytest.mark.anyio

LONG = 600
# Of a statement that goes through all of a thread, in all of its parts.
MOST_ROWS = 60 * LONG
SESSION, COPY = session_id_of("long", ""), session_id_of("copy", "")

# Each checkpoint has a large value, one that is messages, and a write. $1 are threads, $2 how long.
FILL = (
    (
        "insert into agent_sessions (session_id, thread_id, last_position) "
        "select pgsaga_session_id(t), t, 1000000 from unnest($1::text[]) t where $2::integer > 0"
    ),
    """
    insert into agent_states (session_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id,
      state_data, metadata, position)
    select pgsaga_session_id(t), '', lpad(i::text, 8, '0'),
      case when i > 1 then lpad((i - 1)::text, 8, '0') end,
      jsonb_build_object('v', 4, 'channel_values', '{}'::jsonb, 'channel_versions',
        jsonb_build_object('c', lpad(i::text, 8, '0'), 'm', lpad(i::text, 8, '0'))),
      jsonb_build_object('step', i, 'run_id', 'r' || i % 2), i
    from unnest($1::text[]) t, generate_series(1, $2::integer) i
    """,
    """
    insert into agent_state_values
      (session_id, checkpoint_ns, channel, version, type, blob_hashes, message_runs)
    select pgsaga_session_id(t), '', c, lpad(i::text, 8, '0'), 'msgpack',
      case c when 'c' then array[sha256((t || i)::bytea)] end,
      case c when 'm' then array[1, i] end
    from unnest($1::text[]) t, generate_series(1, $2::integer) i, unnest('{c,m}'::text[]) c
    """,
    (
        "insert into agent_state_blobs (session_id, hash, payload) "
        "select pgsaga_session_id(t), sha256((t || i)::bytea), '' "
        "from unnest($1::text[]) t, generate_series(1, $2::integer) i"
    ),
    """
    insert into agent_state_writes (session_id, checkpoint_ns, checkpoint_id, task_id, idx, channel,
      type, task_path, blob_hashes)
    select pgsaga_session_id(t), '', lpad(i::text, 8, '0'), 't', 0, 'c', 'msgpack', '',
      array[sha256((t || i)::bytea)]
    from unnest($1::text[]) t, generate_series(1, $2::integer) i
    """,
    """
    insert into agent_messages (session_id, message_no, message_id, parent_message_no, message_type,
      role, content, metadata, digest, payload_type, payload)
    select pgsaga_session_id(t), i, 'id' || i, nullif(i - 1, 0), 'human', 'user', 'word ' || i,
      '{}', sha256((t || i)::bytea), 'msgpack', ''
    from unnest($1::text[]) t, generate_series(1, $2::integer) i
    """,
)


def _ids(first: int, last: int) -> list[str]:
    return [f"{number:08}" for number in range(first, last + 1)]


_PAGE = _ids(LONG - 199, LONG)
_HALF = _ids(LONG // 2, LONG)
CALLS: Sequence[tuple[str, str, dict[str, Any]]] = (
    ("checkpoint", "get_checkpoint", {"checkpoint_ns": ""}),
    (
        "checkpoint",
        "find_session",
        {"digests": [hashlib.sha256(b"long%d" % i).digest() for i in range(200)]},
    ),
    ("history", "list_thread", {"page": 200}),
    ("history", "list_namespace", {"checkpoint_ns": "", "page": 200}),
    (
        "history",
        "select_values",
        {
            "session_ids": [SESSION] * 200,
            "checkpoint_nss": [""] * 200,
            "channels": ["c"] * 200,
            "versions": _PAGE,
        },
    ),
    (
        "history",
        "select_writes",
        {"session_ids": [SESSION] * 200, "checkpoint_nss": [""] * 200, "checkpoint_ids": _PAGE},
    ),
    (
        "history",
        "select_messages",
        {"session_ids": [SESSION], "first_nos": [1], "last_nos": [LONG]},
    ),
    ("history", "walk_delta_channels", {"checkpoint_ns": "", "channels": ["none"]}),
    (
        "history",
        "select_channel_writes",
        {"checkpoint_ns": "", "checkpoint_ids": _PAGE, "channels": ["c"]},
    ),
    ("timetravel", "list_steps", {"checkpoint_ns": "", "page": 200}),
    (
        "retention",
        "select_heads",
        {
            "sends_channel": "__pregel_tasks",
            "keep_last": LONG // 2,
            "keep_named": True,
            "keep_replays": True,
        },
    ),
    ("retention", "delete_checkpoints_but", {"checkpoint_ns": "", "kept_ids": _HALF, "step": 1}),
    ("retention", "delete_checkpoints_of_runs", {"run_ids": ["r1"], "step": 1}),
    ("retention", "cut_parents", {}),
    ("retention", "delete_unused_values", {}),
    ("retention", "delete_unused_contents", {"step": 1}),
    (
        "retention",
        "copy_session",
        {"source_id": SESSION, "target_id": COPY, "thread_id": "copy", "tenant_id": ""},
    ),
    (
        "retention",
        "copy_session",
        {
            "source_id": SESSION,
            "target_id": COPY,
            "thread_id": "copy",
            "tenant_id": "",
            "until_id": _HALF[0],
            "until_status": "completed",
        },
    ),
)


def _literal(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, int):
        return str(value).lower()
    if isinstance(value, bytes):
        return f"'\\x{value.hex()}'::bytea"
    if isinstance(value, list):
        return f"array[{', '.join(map(_literal, value))}]"
    return f"'{value}'::{'uuid' if isinstance(value, UUID) else 'text'}"


def _rows(plan: dict[str, Any]) -> Iterator[float]:
    """What each part of the plan gave or passed over."""
    for node in nodes(plan):
        removed = sum(count for name, count in node.items() if name.startswith("Rows Removed"))
        yield (node["Actual Rows"] + removed) * node["Actual Loops"]


async def _rows_of(db: Database, conn: Connection, system: str, name: str, given: Any) -> float:
    statement = load_statements(system)[name]
    types = ", ".join(sql_type for _, sql_type in statement.params)
    arguments = {"session_id": SESSION, **given}
    values = ", ".join(
        f"{_literal(arguments.get(param))}::{sql_type}" for param, sql_type in statement.params
    )
    await conn.execute(f"prepare probe ({types}) as {db.text(statement)}")
    await conn.execute("savepoint before")
    try:
        answer = await conn.fetchval(
            f"explain (analyze, timing off, format json) execute probe ({values})"
        )
        return sum(_rows(json.loads(answer)[0]["Plan"]))
    finally:
        await conn.execute("rollback to before")
        await conn.execute("deallocate probe")


@pytest.mark.parametrize("short_threads", [150, 600, 2_000])
async def test_a_long_thread_among_short_ones_is_not_gone_through_again_and_again(
    dsn: str, short_threads: int
) -> None:
    """Whether the average thread has about five checkpoints, two or one."""
    many = {}
    async with Database(dsn) as db, db.transaction() as conn:
        for threads, length in (([f"t{i}" for i in range(short_threads)], 1), (["long"], LONG)):
            for statement in FILL:
                await conn.execute(statement, threads, length)
        await conn.execute("analyze")
        # A hash that the planner takes for too large for it is none.
        await conn.execute("set local work_mem = '64kB'")
        for number, (system, name, given) in enumerate(CALLS):
            rows = await _rows_of(db, conn, system, name, given)
            if rows > MOST_ROWS:
                many[number, name] = rows
    assert many == {}


@pytest.mark.parametrize("name", ["renew_free_leases", "renew_leases"])
async def test_many_leases_are_renewed_each_once(dsn: str, name: str) -> None:
    """Those of a process's thousands of threads, too."""
    ids = [session_id_of(f"t{i}", "") for i in range(LONG)]
    async with Database(dsn) as db, db.transaction() as conn:
        await conn.execute(FILL[0], [f"t{i}" for i in range(LONG)], 1)
        await conn.execute("update agent_sessions set lease_id = session_id")
        await conn.execute("analyze agent_sessions")
        given = {"session_ids": ids, "lease_ids": ids, "lease_seconds": [30] * LONG}
        assert await _rows_of(db, conn, "checkpoint", name, given) < MOST_ROWS
