"""diagnose, on databases that something is wrong with."""

from __future__ import annotations

import asyncio
from urllib.parse import urlencode, urlsplit

import asyncpg
import pytest

from langgraph_pgsaga import Database, PostgresSaver, doctor
from langgraph_pgsaga.doctor import Check, CheckStatus, Diagnosis, diagnose
from tests._cli import order
from tests.conftest import execute

pytestmark = pytest.mark.anyio


async def diagnosed(dsn: str, **options: str) -> Diagnosis:
    async with Database(dsn, pooler=True, schema=options.get("schema")) as database:
        return await diagnose(database)


async def check(dsn: str, name: str) -> Check:
    found = await diagnosed(dsn)
    (one,) = (one for one in found.checks if one.name == name)
    assert bool(one.advice) or one.status is CheckStatus.OK
    return one


async def test_a_new_database_is_well(dsn: str) -> None:
    """On a migrated database nothing fails, and each check says what it found."""
    found = await diagnosed(dsn)
    assert all(one.status is not CheckStatus.FAIL for one in found.checks)
    assert all(one.found for one in found.checks)
    names = [one.name for one in found.checks]
    assert len(set(names)) == len(names)
    assert {"server", "migrations", "indexes", "sessions", "replicas"} <= set(names)


async def test_missing_pending_and_changed_migrations_fail(dsn: str, empty_dsn: str) -> None:
    """Each is told apart, and the tables aren't looked at where they may not be there."""
    missing = await diagnosed(empty_dsn)
    assert missing.status is CheckStatus.FAIL
    assert missing.checks[-1].name == "migrations"
    assert "no tables" in missing.checks[-1].found
    last = "(select max(version) from pgsaga_migrations)"
    await execute(dsn, f"delete from pgsaga_migrations where version = {last}")
    assert "pending: 0" in (await check(dsn, "migrations")).found
    await execute(dsn, "update pgsaga_migrations set sha256 = 'x' where version = 1")
    changed = await check(dsn, "migrations")
    assert "another text" in changed.found
    assert changed.status is CheckStatus.FAIL


async def test_a_setting_that_loses_states_is_told(dsn: str) -> None:
    """synchronous_commit off, as the database sets it, warns."""
    name = urlsplit(dsn).path.removeprefix("/")
    await execute(dsn, f'alter database "{name}" set synchronous_commit = off')
    found = await check(dsn, "synchronous_commit")
    assert (found.status, found.found) == (CheckStatus.WARN, "off")


async def test_transactions_that_stay_open_are_named(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that idles and one that works are each told, with pid and application."""
    monkeypatch.setattr(doctor, "_IDLE_SECONDS", -1)
    monkeypatch.setattr(doctor, "_ACTIVE_SECONDS", -1)
    idle = await asyncpg.connect(dsn, server_settings={"application_name": "idler"})
    busy = await asyncpg.connect(dsn)
    await idle.execute("begin; select 1")
    working = asyncio.ensure_future(busy.execute("select pg_sleep(60)"))
    while not await idle.fetchval(
        "select 1 from pg_stat_activity where pid = $1 and state = 'active'", busy.get_server_pid()
    ):
        await asyncio.sleep(0.01)
        await idle.execute("rollback; begin; select 1")
    found = await check(dsn, "idle in transaction")
    assert found.status is CheckStatus.WARN
    assert f"pid {idle.get_server_pid()} of" in found.found
    assert "(idler)" in found.found
    assert f"pid {busy.get_server_pid()} of" in (await check(dsn, "long transactions")).found
    working.cancel()
    busy.terminate()
    idle.terminate()


async def test_an_invalid_index_fails(dsn: str) -> None:
    """As a concurrent build that failed leaves it."""
    assert (await check(dsn, "indexes")).status is CheckStatus.OK
    await execute(
        dsn,
        "update pg_index set indisvalid = false "
        "where indexrelid = 'agent_messages_words_idx'::regclass",
    )
    found = await check(dsn, "indexes")
    assert found.status is CheckStatus.FAIL
    assert "agent_messages_words_idx on agent_messages" in found.found


async def test_sessions_that_wait_for_a_sweep(dsn: str) -> None:
    """Those that expired just now are normal, those of two days ago warn."""
    await asyncio.to_thread(order, dsn, "order-1", "tea")
    await execute(dsn, "update agent_sessions set expires_at = now()")
    found = await check(dsn, "sessions")
    assert (found.status, found.found) == (CheckStatus.OK, "1, of which 1 have expired")
    await execute(dsn, "update agent_sessions set expires_at = now() - interval '2 days'")
    assert (await check(dsn, "sessions")).status is CheckStatus.WARN


async def test_dead_rows_and_updates_that_touch_indexes(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bloat, and an index of one's own that makes supersteps slow, are seen in the statistics."""
    monkeypatch.setattr(doctor, "_MANY_DEAD", 10)
    monkeypatch.setattr(doctor, "_MANY_UPDATES", 10)
    await asyncio.to_thread(order, dsn, "order-1", "tea")
    touch = "update agent_sessions set last_activity_at = clock_timestamp()"
    await execute(
        dsn,
        "alter table agent_sessions set (autovacuum_enabled = off)",
        "create index mine on agent_sessions (last_activity_at)",
        *[touch] * 20,
        "select pg_stat_force_next_flush()",
    )
    dead = await check(dsn, "dead rows")
    assert dead.status is CheckStatus.WARN
    assert "agent_sessions has" in dead.found
    assert (await check(dsn, "HOT updates")).status is CheckStatus.WARN


async def test_a_slot_that_nobody_reads_warns_once_it_keeps_much(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The WAL kept for it counts."""
    name = f"doctor_{urlsplit(dsn).path.removeprefix('/pgsaga_test_')}"
    await execute(dsn, f"select pg_create_physical_replication_slot('{name}', true)")
    try:
        assert name in (await check(dsn, "idle slots")).found
        monkeypatch.setattr(doctor, "_LARGEST_KEPT_BYTES", -1)
        assert (await check(dsn, "idle slots")).status is CheckStatus.WARN
    finally:
        await execute(dsn, f"select pg_drop_replication_slot('{name}')")


async def test_other_schemas_are_not_mixed_up(dsn: str) -> None:
    """With a schema of one's own, sizes and sessions are those of its tables."""
    await asyncio.to_thread(order, dsn, "order-1", "tea")
    async with Database(dsn, schema='my "odd" one') as database:
        await PostgresSaver(database).asetup()
    found = {one.name: one for one in (await diagnosed(dsn, schema='my "odd" one')).checks}
    assert found["sessions"].found == "0, of which 0 have expired"
    assert found["migrations"].status is CheckStatus.OK


async def test_what_a_user_may_not_see_is_a_warning(dsn: str) -> None:
    """A user without rights on the tables gets warnings, not an exception."""
    role = f"nobody_{urlsplit(dsn).path.removeprefix('/pgsaga_test_')}"
    await execute(dsn, f"create role {role}", f"grant select on pgsaga_migrations to {role}")
    try:
        url = urlsplit(dsn)
        found = await diagnosed(
            url._replace(query=f"{url.query}&{urlencode({'role': role})}").geturl()
        )
        (sessions,) = (one for one in found.checks if one.name == "sessions")
        assert sessions.status is CheckStatus.WARN
        assert "can't be looked at: permission denied" in sessions.found
    finally:
        await execute(dsn, f"drop owned by {role}", f"drop role {role}")
