"""Deleting, pruning and copying beside others who hold the same rows."""

from __future__ import annotations

import asyncio
from uuid import UUID

import asyncpg
import pytest
from langgraph.checkpoint.base import CheckpointMetadata, empty_checkpoint

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.threads import checkpoint_config, session_id_of
from tests._limits import HANG_SECONDS

pytestmark = pytest.mark.anyio

THREAD = "contended"


async def put_two(saver: PostgresSaver) -> UUID:
    config = checkpoint_config(THREAD, "", "")
    for _ in range(2):
        config = await saver.aput(config, empty_checkpoint(), CheckpointMetadata(), {})
    return session_id_of(THREAD)


async def until_locks_are_waited_for(dsn: str, count: int = 1) -> int:
    """Waits for `count` backends to wait for locks; the pid of one."""
    # A connection of its own: a transaction sees pg_stat_activity as it first looked.
    conn = await asyncpg.connect(dsn)
    waiting = (
        "select pid from pg_stat_activity"
        " where wait_event_type = 'Lock' and datname = current_database()"
    )
    try:
        async with asyncio.timeout(HANG_SECONDS):
            while len(pids := await conn.fetch(waiting)) < count:
                await asyncio.sleep(0.01)
            return int(pids[0]["pid"])
    finally:
        await conn.close()


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
        pid = await until_locks_are_waited_for(dsn)
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
            await until_locks_are_waited_for(dsn)
            await other.execute(sessions, session_id)
        await pruning
        deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
        assert await other.fetchval("select count(*) from agent_states") == 1
        await saver.aclose()
        async with asyncio.timeout(HANG_SECONDS):
            while not await other.fetchval(deadlocks):
                await asyncio.sleep(0.05)
        await other.close()


async def test_a_copy_holds_off_a_put_to_its_target(dsn: str, saver: PostgresSaver) -> None:
    """A put to a thread that is being made by a copy waits, and joins what was copied."""
    source_id = await put_two(saver)
    other = await asyncpg.connect(dsn)
    async with other.transaction():
        # Stops the copy between the lock of its target and its writing; no put comes here.
        await other.execute("lock table agent_state_writes in exclusive mode")
        copying = asyncio.create_task(saver.acopy_thread(THREAD, "copy"))
        await until_locks_are_waited_for(dsn)
        later = checkpoint_config("copy", "", "")
        putting = asyncio.create_task(
            saver.aput(later, empty_checkpoint(), CheckpointMetadata(), {})
        )
        await until_locks_are_waited_for(dsn, count=2)
    await asyncio.gather(copying, putting)
    rows = await other.fetch("select session_id, count(*) as held from agent_states group by 1")
    assert {row["session_id"]: row["held"] for row in rows} == {
        source_id: 2,
        session_id_of("copy"): 3,
    }
    names = await other.fetch("select thread_id from agent_sessions order by 1")
    assert {row["thread_id"] for row in names} == {THREAD, "copy"}
    await other.close()


async def test_copying_nothing_leaves_nothing(dsn: str, saver: PostgresSaver) -> None:
    """A source that isn't there makes no target, not even an empty session."""
    await saver.acopy_thread("absent", "copy")
    async with saver.db.transaction() as conn:
        assert await conn.fetchval("select count(*) from agent_sessions") == 0


async def test_a_copy_has_no_writes_without_their_checkpoint(
    dsn: str, saver: PostgresSaver
) -> None:
    """Those of a checkpoint that is on its way, as of a running thread: it would never come."""
    await put_two(saver)
    found = await saver.aget_tuple({"configurable": {"thread_id": THREAD}})
    assert found is not None
    for config in (found.config, checkpoint_config(THREAD, "", "on its way")):
        await saver.aput_writes(config, [("c", 2)], "task")
    await saver.acopy_thread(THREAD, "copy")
    conn = await asyncpg.connect(dsn)
    copied = await conn.fetch(
        "select checkpoint_id from agent_state_writes where session_id = $1", session_id_of("copy")
    )
    await conn.close()
    assert [row["checkpoint_id"] for row in copied] == [found.checkpoint["id"]]
