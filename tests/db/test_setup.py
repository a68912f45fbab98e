"""`setup()` by everybody's habit: sync, awaited, and in a running loop without await."""

from __future__ import annotations

import asyncio
import gc
import logging
import warnings
from collections.abc import AsyncIterator, Awaitable
from typing import TypeAlias

import asyncpg
import pytest

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.database.migrations import _LOCK_KEY
from langgraph_pgsaga.errors import ClosedError, MissingDatabaseError
from tests._limits import HANG_SECONDS
from tests.conftest import with_database
from tests.db._puts import config_of, put

pytestmark = pytest.mark.anyio
CONFIG = config_of("t")
Gate: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
NEVER = "setup.* was never awaited"


def test_without_a_loop_it_is_done_when_it_returns(empty_dsn: str) -> None:
    """Nothing warns, whatever becomes of what it returned."""
    with warnings.catch_warnings(), PostgresSaver.from_conn_string(empty_dsn) as saver:
        warnings.simplefilter("error")
        saver.setup()
        done = saver.setup()
        assert saver.get_tuple(CONFIG) is None
        asyncio.run(_awaited(done))
        del done
        gc.collect()


async def _awaited(one: Awaitable[None]) -> None:
    await one


async def test_it_is_awaited_as_asyncpostgressavers(empty_dsn: str) -> None:
    """`async with`, then `await saver.setup()`: the tables are there."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with PostgresSaver.from_conn_string(empty_dsn) as saver:
            await saver.setup()
            await saver.setup()
            assert await saver.aget_tuple(CONFIG) is None


@pytest.fixture
async def gate(empty_dsn: str) -> AsyncIterator[Gate]:
    """Keeps migrations waiting."""
    conn = await asyncpg.connect(empty_dsn)
    await conn.execute(f"select pg_advisory_lock({_LOCK_KEY})")
    yield conn
    await conn.close()


async def begun(saver: PostgresSaver, gate: Gate) -> asyncio.Future[None]:
    """A set-up that waits at the gate, as is seen from the same loop, which goes on."""
    waiting = asyncio.ensure_future(saver.setup())
    async with asyncio.timeout(HANG_SECONDS):
        while not await gate.fetchval(_WAITS):
            await asyncio.sleep(0.01)
    return waiting


_WAITS = """
  select count(*) from pg_stat_activity
  where datname = current_database() and wait_event = 'advisory'
"""


async def test_it_doesnt_block_the_loop(empty_dsn: str, gate: Gate) -> None:
    """While it waits for the server the loop goes on, and it ends when the server lets it."""
    async with PostgresSaver.from_conn_string(empty_dsn) as saver:
        waiting = await begun(saver, gate)
        assert not waiting.done()
        await gate.execute(f"select pg_advisory_unlock({_LOCK_KEY})")
        await waiting
        assert await saver.aget_tuple(CONFIG) is None


async def test_what_fails_is_raised_where_it_is_awaited(server_dsn: str) -> None:
    """With its own type."""
    missing = with_database(server_dsn, "no_such_database")
    async with PostgresSaver.from_conn_string(missing) as saver:
        with pytest.raises(MissingDatabaseError):
            await saver.setup()


async def test_without_await_it_is_reported_and_done(empty_dsn: str) -> None:
    """As of a coroutine that nobody awaited; but sync calls that follow find the tables."""
    async with PostgresSaver.from_conn_string(empty_dsn) as saver:
        with pytest.warns(RuntimeWarning, match=NEVER):
            saver.setup()
        put(saver, CONFIG, {"c": 1})
        assert saver.get_tuple(CONFIG) is not None


async def test_without_await_a_failure_is_logged(
    server_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody else would hear of it; the calls that follow fail for themselves."""
    missing = with_database(server_dsn, "no_such_database")
    async with PostgresSaver.from_conn_string(missing) as saver:
        with caplog.at_level(logging.ERROR, "langgraph_pgsaga"):
            with pytest.warns(RuntimeWarning, match=NEVER):
                saver.setup()
            with pytest.raises(MissingDatabaseError):
                saver.get_tuple(CONFIG)
    assert ["no_such_database" in record.getMessage() for record in caplog.records] == [True]


async def test_a_saver_that_is_closed_meanwhile_says_so(empty_dsn: str, gate: Gate) -> None:
    """Whoever waits isn't cancelled, and isn't left waiting."""
    saver = PostgresSaver.from_conn_string(empty_dsn)
    waiting = await begun(saver, gate)
    await saver.aclose()
    with pytest.raises(ClosedError):
        await waiting
    with pytest.raises(ClosedError):
        await saver.setup()


async def test_a_wait_that_is_cancelled_ends_the_work(empty_dsn: str, gate: Gate) -> None:
    """As of a coroutine; the next one does it."""
    async with PostgresSaver.from_conn_string(empty_dsn) as saver:
        waiting = await begun(saver, gate)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await gate.execute(f"select pg_advisory_unlock({_LOCK_KEY})")
        await saver.setup()
        assert await saver.aget_tuple(CONFIG) is None


async def test_on_a_worker_thread_it_blocks(empty_dsn: str) -> None:
    """Only the thread of a running loop mayn't."""
    async with PostgresSaver.from_conn_string(empty_dsn) as saver:
        await asyncio.to_thread(saver.setup)
        assert await saver.aget_tuple(CONFIG) is None
