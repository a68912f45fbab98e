"""Deleting, pruning and copying beside others who hold the same rows."""

from __future__ import annotations

import asyncio
from uuid import UUID

import asyncpg
import pytest
from langgraph.checkpoint.base import CheckpointMetadata, empty_checkpoint

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.checkpoint.address import checkpoint_config, session_id_of

pytestmark = pytest.mark.anyio

THREAD = "contended"


async def put_two(saver: PostgresSaver) -> UUID:
    config = checkpoint_config(THREAD, "", "")
    for _ in range(2):
        config = await saver.aput(config, empty_checkpoint(), CheckpointMetadata(), {})
    return session_id_of(THREAD)


async def until_someone_waits_for_a_lock(conn: asyncpg.Connection) -> int:
    """The pid of the backend that waits, within ten seconds."""
    async with asyncio.timeout(10):
        while True:
            pid = await conn.fetchval(
                "select pid from pg_stat_activity"
                " where wait_event_type = 'Lock' and datname = current_database()"
            )
            if pid is not None:
                return int(pid)
            await asyncio.sleep(0.01)


async def test_a_prune_whose_backend_is_terminated_is_repeated(
    dsn: str, saver: PostgresSaver
) -> None:
    """A transaction that is safe to repeat survives the loss of its connection."""
    session_id = await put_two(saver)
    other = await asyncpg.connect(dsn)
    async with other.transaction():
        await other.execute(
            "select from agent_sessions where session_id = $1 for update", session_id
        )
        pruning = asyncio.create_task(saver.aprune([THREAD]))
        pid = await until_someone_waits_for_a_lock(other)
        assert await other.fetchval("select pg_terminate_backend($1)", pid)
    await pruning
    assert await other.fetchval("select count(*) from agent_states") == 1
    await other.close()


async def test_a_prune_that_is_a_deadlocks_victim_is_repeated(dsn: str) -> None:
    """Somebody who locks in the other order makes it wait, not fail."""
    options = ("&" if "?" in dsn else "?") + "deadlock_timeout=1s"
    async with PostgresSaver.from_conn_string(dsn + options) as saver:
        session_id = await put_two(saver)
        other = await asyncpg.connect(dsn, server_settings={"deadlock_timeout": "30s"})
        async with other.transaction():
            states = "select from agent_states where session_id = $1 for update"
            sessions = "select from agent_sessions where session_id = $1 for update"
            await other.execute(states, session_id)
            pruning = asyncio.create_task(saver.aprune([THREAD]))
            await until_someone_waits_for_a_lock(other)
            await other.execute(sessions, session_id)
        await pruning
        deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
        assert await other.fetchval("select count(*) from agent_states") == 1
        await saver.aclose()
        async with asyncio.timeout(10):
            while not await other.fetchval(deadlocks):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await other.close()
