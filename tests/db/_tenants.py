"""What tests of tenants ask a database, and look for in what they are given."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import asyncpg

from tests.db._puts import config_of

TABLES = (
    "agent_sessions",
    "agent_states",
    "agent_state_values",
    "agent_state_blobs",
    "agent_state_writes",
    "agent_messages",
)


def of(tenant: str, thread_id: str = "t", **more: Any) -> Any:
    """The config of a tenant's thread."""
    return config_of(thread_id, tenant_id=tenant, **more)


def fetch(dsn: str, query: str, *args: Any) -> list[asyncpg.Record]:
    """The rows of a query."""

    async def work() -> list[asyncpg.Record]:
        conn = await asyncpg.connect(dsn)
        try:
            rows: list[asyncpg.Record] = await conn.fetch(query, *args)
            return rows
        finally:
            await conn.close()

    return asyncio.run(work())


def rows_of(dsn: str, tenant: str) -> list[str]:
    """Every row of a tenant's, as text."""
    parts = [
        f"select '{table} ' || r::text as row from {table} r where r.session_id in"
        " (select s.session_id from agent_sessions s where s.tenant_id = $1)"
        for table in TABLES
    ]
    return sorted(row["row"] for row in fetch(dsn, " union all ".join(parts), tenant))


def configs_of(found: Any) -> Iterator[Any]:
    """Those that anything of a snapshot or a tuple carries."""
    for config in (found.config, found.parent_config):
        if config is not None:
            yield config
    for task in getattr(found, "tasks", ()):
        if isinstance(task.state, dict):
            yield task.state
        elif task.state is not None:
            yield from configs_of(task.state)
