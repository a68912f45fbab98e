"""A takeover holds a lock, whatever limits are set, and only its holder ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeAlias

import asyncpg
import pytest
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.database import load_statements
from langgraph_pgsaga.errors import (
    LockLostError,
)
from langgraph_pgsaga.takeover import import_threads, importing
from langgraph_pgsaga.threads import session_id_of
from tests._limits import HANG_SECONDS
from tests.db import _histories as histories
from tests.db._histories import config_of
from tests.db._old_savers import MARK, all_of, rows_of, value_of

pytestmark = pytest.mark.anyio


_HELD = """
  select
    a.pid,
    a.state = 'idle in transaction'
      and clock_timestamp() - a.state_change > interval '0.4 s' as is_idle
  from pg_locks l join pg_stat_activity a using (pid)
  where l.locktype = 'advisory' and l.granted and a.datname = current_database()
"""


class WatchedSaver(InMemorySaver):
    """Does something between the import's taking its lock and its storing anything."""

    def __init__(self, old: InMemorySaver, watch: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._old, self._watch = old, watch

    async def alist(self, *args: Any, **kwargs: Any) -> AsyncIterator[CheckpointTuple]:
        async for found in self._old.alist(*args, **kwargs):
            yield found

    async def aget_tuple(self, config: Any) -> CheckpointTuple | None:
        await self._watch()
        return await self._old.aget_tuple(config)


Connection: TypeAlias = "asyncpg.Connection[Any]"


@pytest.fixture
async def watcher(dsn: str) -> AsyncIterator[Connection]:
    """A connection beside those of the import."""
    conn = await asyncpg.connect(dsn)
    yield conn
    await conn.close()


async def test_no_time_out_takes_the_lock_away(dsn: str, watcher: Connection) -> None:
    """However long the source takes: limits that are set for statements and idle transactions
    aren't for the lock, which is still held when everything is stored."""
    old = InMemorySaver()
    await histories.talk(histories.chat(old), config_of("t"))
    for name in ("idle_in_transaction_session_timeout", "transaction_timeout"):
        await _limit(watcher, name, "100ms")
    pids: set[int] = set()

    async def watch() -> None:
        async with asyncio.timeout(HANG_SECONDS):
            while (rows := await watcher.fetch(_HELD)) and not rows[0]["is_idle"]:
                await asyncio.sleep(0.01)
        pids.update({row["pid"] for row in rows} or {0})

    async with PostgresSaver.from_conn_string(dsn) as target:
        report = await import_threads(WatchedSaver(old, watch), target, batch=100)
    assert report.failed == ()
    assert len(pids) == 1
    assert 0 not in pids


async def _limit(conn: Connection, name: str, value: str) -> None:
    """Sets a time-out of the database, where the server knows it."""
    if await conn.fetchval("select count(*) from pg_settings where name = $1", name):
        database = await conn.fetchval("select current_database()")
        await conn.execute(f"alter database \"{database}\" set {name} = '{value}'")


async def test_no_time_out_ends_the_wait_for_the_lock(dsn: str, watcher: Connection) -> None:
    """Who comes second waits for as long as the first one takes."""
    old = InMemorySaver()
    await histories.talk(histories.chat(old), config_of("t"))
    text = load_statements("takeover")["lock_takeover"].text.replace("_xact", "")
    await watcher.fetch(text, session_id_of("t"))
    for name in ("lock_timeout", "statement_timeout"):
        await _limit(watcher, name, "50ms")
    async with PostgresSaver.from_conn_string(dsn) as target:
        importing = asyncio.create_task(import_threads(old, target))
        async with asyncio.timeout(HANG_SECONDS):
            while not importing.done() and not await watcher.fetchval(_WAITS_LONG):
                await asyncio.sleep(0.01)
        assert not importing.done()
        importing.cancel()
        with suppress(asyncio.CancelledError):
            await importing


_WAITS_LONG = """
  select exists (
    select from pg_stat_activity
    where datname = current_database() and wait_event = 'advisory'
      and clock_timestamp() - query_start > interval '0.3 s'
  )
"""


async def test_an_import_that_lost_its_lock_ends(
    saver: PostgresSaver,
    watcher: Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing more of the thread is stored, and it isn't marked; the next import goes on. The log
    tells it as soon as it is noticed."""
    monkeypatch.setattr(importing, "_KEEP_SECONDS", 0.01)
    old = InMemorySaver()
    await histories.talk(histories.chat(old), config_of("t"))
    rows_before: list[int] = []

    async def cut() -> None:
        for row in await watcher.fetch(_HELD):
            await watcher.fetch("select pg_terminate_backend($1, 5000)", row["pid"])
        rows_before[:] = await rows_of(saver)
        async with asyncio.timeout(HANG_SECONDS):
            while "an import lost its lock" not in caplog.text:
                await asyncio.sleep(0.01)

    with pytest.raises(LockLostError, match="Import again"):
        await import_threads(WatchedSaver(old, cut), saver, batch=2)
    assert await rows_of(saver) == rows_before == [0] * 5
    assert (await import_threads(old, saver)).failed == ()


async def test_only_the_locks_holder_says_that_a_thread_is_whole(
    saver: PostgresSaver, dsn: str, watcher: Connection
) -> None:
    """A lock that is lost after the last checkpoint was stored leaves the thread unmarked."""
    old = InMemorySaver()
    await histories.talk(histories.chat(old), config_of("t"))

    class CuttingSaver(PostgresSaver):
        async def aget_tuple(self, config: Any) -> CheckpointTuple | None:
            for row in await watcher.fetch(_HELD):
                await watcher.fetch("select pg_terminate_backend($1, 5000)", row["pid"])
            return await super().aget_tuple(config)

    async with CuttingSaver.from_conn_string(dsn) as target:
        with pytest.raises(LockLostError):
            await import_threads(old, target, batch=1000)
    assert (await rows_of(saver))[1] == len(await all_of(old))
    assert await value_of(saver, MARK) is None
