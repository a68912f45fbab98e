"""Calls that are cancelled, fail, or find no connection."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from contextlib import suppress
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint

from langgraph_pgsaga import Database, PostgresSaver
from langgraph_pgsaga.database import database
from langgraph_pgsaga.errors import (
    PoolTimeoutError,
    ReadOnlyServerError,
    UnstorableValueError,
)
from tests._connections import connected
from tests._limits import HANG_SECONDS
from tests.db._outages import (
    BACKENDS,
    FULL,
    QUESTION,
    Ledger,
    all_finished,
    chat_graph,
    comes_true,
    config_of,
    new_threads,
    no_transaction_stays_open,
)

pytestmark = pytest.mark.anyio


async def test_cancelled_runs_poison_nothing(dsn: str) -> None:
    """However often runs and puts are cancelled, at whatever point, later calls work."""
    async with PostgresSaver.from_conn_string(dsn, max_size=5) as saver:
        graph, seed = chat_graph(saver), random.Random(0)
        await graph.ainvoke(QUESTION, config_of("timing"))
        begun = time.monotonic()
        await graph.ainvoke(QUESTION, config_of("timing too"))
        lasts = time.monotonic() - begun
        for turn in range(300 if FULL else 30):
            ledger = Ledger(saver)
            tasks = [
                asyncio.ensure_future(graph.ainvoke(QUESTION, config_of(f"run {turn} {n}")))
                for n in range(3)
            ]
            chain = ledger.chain(f"chain {turn}", lambda: False)
            tasks.append(asyncio.ensure_future(chain))
            await asyncio.sleep(seed.uniform(0, lasts))
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            unexpected = [r for r in results if isinstance(r, Exception)]
            assert unexpected == []
            assert await ledger.missing() == []
        await no_transaction_stays_open(saver)
        again = [f"run {turn} {n}" for turn in range(5) for n in range(3)]
        for thread in again:
            await saver.adelete_thread(thread)
        await asyncio.gather(*(graph.ainvoke(QUESTION, config_of(t)) for t in again))
        await all_finished(saver, again)


async def test_a_call_that_is_cancelled_twice_is_no_error_of_the_loop(dsn: str) -> None:
    """Where its rollback is cancelled in its turn, the connection serves others, silently."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with Database(dsn, max_size=1) as db, connected(dsn) as watcher:
        for cancellations in (1, 2, 3):
            call = asyncio.ensure_future(db.run(lambda conn: conn.execute("select pg_sleep(60)")))
            async with asyncio.timeout(HANG_SECONDS):
                is_active = BACKENDS.format("count(*)") + " and state = 'active'"
                while not await watcher.fetchval(is_active):
                    await asyncio.sleep(0)
            for _ in range(cancellations):
                call.cancel()
                await asyncio.sleep(0)
            await asyncio.wait([call])
            assert call.cancelled()
        assert await db.run(lambda conn: conn.fetchval("select 1")) == 1
    assert told == []


async def test_a_begin_that_is_cancelled_tells_nobody(dsn: str) -> None:
    """A listing that is cancelled while its transaction begins: its connection serves others."""
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: told.append(said["message"]))
    async with PostgresSaver.from_conn_string(dsn, max_size=1) as saver:

        async def look() -> None:
            async for _ in saver.alist({"configurable": {"thread_id": "t"}}):
                pass

        await look()
        cancelled = 0
        for turns in range(1, 16):
            looking = asyncio.create_task(look())
            for _ in range(turns):
                await asyncio.sleep(0)
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking
            cancelled += looking.cancelled()
            await look()
        assert cancelled > 5
    assert told == []


async def test_a_cancelled_wait_for_a_lock_ends_on_the_server_too(dsn: str) -> None:
    """A put that is cancelled while it waits for a lock leaves nobody waiting in the server."""
    waiting = BACKENDS.format("count(*)") + " and wait_event_type = 'Lock'"
    async with (
        PostgresSaver.from_conn_string(dsn, max_size=2) as saver,
        connected(dsn) as watcher,
        connected(dsn) as locker,
    ):
        await chat_graph(saver).ainvoke(QUESTION, config_of("t"))

        async def waits() -> bool:
            return bool(await watcher.fetchval(waiting) == 1)

        async def nobody_waits() -> bool:
            return not await waits()

        for _ in range(5):
            async with locker.transaction():
                await locker.execute("select * from agent_sessions for update")
                put = asyncio.ensure_future(Ledger(saver).chain("t", lambda: False))
                await comes_true(waits)
                put.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await put
                # While the lock is still held.
                await comes_true(nobody_waits)
        await no_transaction_stays_open(saver)


# Calls that fail


async def test_a_put_that_fails_leaves_the_others_untouched(dsn: str) -> None:
    """An unstorable value is refused alone; puts at the same time are stored."""
    async with PostgresSaver.from_conn_string(dsn) as saver:
        ledger, good, bad = Ledger(saver), new_threads(10), new_threads(10)

        async def refused(thread: str) -> None:
            checkpoint = empty_checkpoint()
            checkpoint["channel_values"] = {"value": lambda: None}
            checkpoint["channel_versions"] = {"value": "1"}
            for _ in range(10):
                with pytest.raises(UnstorableValueError, match="channel 'value'"):
                    await saver.aput(config_of(thread), checkpoint, {}, {"value": "1"})
                config = config_of(thread)
                config["configurable"]["checkpoint_id"] = "1"
                with pytest.raises(UnstorableValueError, match="channel 'value'"):
                    await saver.aput_writes(config, [("value", lambda: None)], "t")

        async def good_chain(thread: str) -> None:
            turns = iter(range(10))
            await ledger.chain(thread, lambda: next(turns, None) is None)

        await asyncio.gather(*map(refused, bad), *map(good_chain, good))
        assert len(ledger.acknowledged) == 10 * 10 * 2
        assert await ledger.missing() == []
        assert [await saver.aget_tuple(config_of(t)) for t in bad] == [None] * len(bad)
        await no_transaction_stays_open(saver)


async def _puts_and_prunes(saver: PostgresSaver) -> None:
    """Two chains of puts and a prune of one thread, at once, until 60 checkpoints are put."""
    [thread] = new_threads(1)
    ledger = Ledger(saver)

    def ended() -> bool:
        return len(ledger.acknowledged) >= 120

    async def prune() -> None:
        while not ended():
            await saver.aprune([thread])

    await asyncio.gather(ledger.chain(thread, ended), ledger.chain(thread, ended), prune())
    *_, last = (c for _, c, task in ledger.acknowledged if task is None)
    latest = await saver.aget_tuple(config_of(thread))
    assert latest is not None
    assert latest.checkpoint["id"] == last
    await saver.aprune([thread])
    kept = [found async for found in saver.alist(config_of(thread))]
    assert [found.checkpoint["id"] for found in kept] == [last]


async def test_puts_and_prunes_of_one_thread_get_along(dsn: str) -> None:
    """Of puts and prunes of one thread at once only those raise whose parent was pruned, and the
    latest checkpoint is never lost."""
    async with PostgresSaver.from_conn_string(dsn) as saver:
        await _puts_and_prunes(saver)


@pytest.mark.parametrize("level", ["serializable", "repeatable read"])
async def test_a_stricter_default_isolation_works(dsn: str, level: str) -> None:
    """Where the database's default isolation asks for repeats, the calls are repeated."""
    async with connected(dsn) as conn:
        name = await conn.fetchval("select current_database()")
        await conn.execute(f"alter database {name} set default_transaction_isolation = '{level}'")
    async with PostgresSaver.from_conn_string(dsn) as saver:
        await _puts_and_prunes(saver)
        threads = new_threads()
        graph = chat_graph(saver)
        await asyncio.gather(*(graph.ainvoke(QUESTION, config_of(t)) for t in threads))
        await all_finished(saver, threads)


async def test_a_read_only_database_is_a_clear_error(dsn: str) -> None:
    """It reads; a write is a ReadOnlyServerError, which says what to do."""
    async with PostgresSaver.from_conn_string(dsn) as saver:
        await chat_graph(saver).ainvoke(QUESTION, config_of("t"))
    async with connected(dsn) as conn:
        name = await conn.fetchval("select current_database()")
        await conn.execute(f"alter database {name} set default_transaction_read_only = on")
    async with PostgresSaver.from_conn_string(dsn, retry_seconds=0.2) as saver:
        await all_finished(saver, ["t"])
        with pytest.raises(ReadOnlyServerError, match="Point the DSN at the primary") as caught:
            await saver.aput_writes(
                {"configurable": {"thread_id": "t", "checkpoint_id": "1"}}, [("a", 1)], "task"
            )
        assert caught.value.sqlstate == "25006"


async def test_calls_that_wait_say_so(
    dsn: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line in the log now and then, for however many calls wait for a server; another when they
    go on."""
    monkeypatch.setattr(database, "_TOLD_EVERY_SECONDS", 1000.0)
    caplog.set_level(logging.INFO, "langgraph_pgsaga.database")
    async with connected(dsn) as conn, PostgresSaver.from_conn_string(dsn) as saver:
        name = await conn.fetchval("select current_database()")
        await conn.execute(f"alter database {name} set default_transaction_read_only = on")
        ids = [{"thread_id": f"t{number}", "checkpoint_id": "1"} for number in range(8)]
        waiting = asyncio.gather(
            *(saver.aput_writes({"configurable": one}, [("a", 1)], "task") for one in ids)
        )
        refused = "select xact_rollback from pg_stat_database where datname = current_database()"

        async def was_refused() -> bool:
            return bool(await conn.fetchval(refused) >= 15)

        await comes_true(was_refused)
        (told,) = [record.getMessage() for record in caplog.records]
        assert told.startswith("calls are repeated, for up to 30 s: cannot execute ")
        await conn.execute("set transaction_read_only = off")
        await conn.execute(f"alter database {name} reset default_transaction_read_only")
        await waiting
        went_on = [record.getMessage() for record in caplog.records[1:]]
        assert went_on == ["calls go on: the server answers again"]


async def test_a_failover_is_waited_for(dsn: str) -> None:
    """A write refused by a server that takes none, as a standby, succeeds once it does."""
    async with connected(dsn) as conn, PostgresSaver.from_conn_string(dsn) as saver:
        name = await conn.fetchval("select current_database()")
        await conn.execute(f"alter database {name} set default_transaction_read_only = on")
        run = asyncio.ensure_future(chat_graph(saver).ainvoke(QUESTION, config_of("t")))
        refused = "select xact_rollback from pg_stat_database where datname = current_database()"

        async def was_refused() -> bool:
            return bool(await conn.fetchval(refused) >= 2)

        await comes_true(was_refused)
        await conn.execute("set transaction_read_only = off")
        await conn.execute(f"alter database {name} reset default_transaction_read_only")
        await run
        await all_finished(saver, ["t"])


# A pool with too few connections


async def test_one_connection_serves_many_calls(dsn: str) -> None:
    """With max_size=1, fifty runs at once wait for their turn."""
    async with PostgresSaver.from_conn_string(dsn, max_size=1) as saver, connected(dsn) as conn:
        threads, graph = new_threads(50), chat_graph(saver)
        runs = asyncio.gather(*(graph.ainvoke(QUESTION, config_of(t)) for t in threads))
        most = 0
        while not runs.done():
            most = max(most, await conn.fetchval(BACKENDS.format("count(*)")))
        await runs
        assert most == 1
        await all_finished(saver, threads[:3])


async def test_a_pool_that_stays_full_is_a_clear_error(dsn: str) -> None:
    """A call that gets no connection raises PoolTimeoutError, and works when one is free."""
    options: dict[str, Any] = {"max_size": 2, "acquire_timeout_seconds": 0.2}
    async with PostgresSaver.from_conn_string(dsn, **options) as saver:
        async with saver.db.transaction(), saver.db.transaction():
            with pytest.raises(PoolTimeoutError, match=r"all 2 were busy for 0\.2 s"):
                await saver.aget_tuple(config_of("t"))
            with pytest.raises(PoolTimeoutError):
                async with saver.db.transaction():
                    pytest.fail("there were only two")
        assert await saver.aget_tuple(config_of("t")) is None


async def test_errors_of_the_callers_own_work_pass_unchanged(dsn: str) -> None:
    """What isn't the driver's or the network's fault is neither translated nor repeated."""
    async with Database(dsn) as db:
        tries = 0

        async def work(conn: Any) -> None:
            nonlocal tries
            tries += 1
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            await db.run(work)
        with pytest.raises(KeyError, match="mine"):
            async with db.transaction() as conn:
                await work(conn)
        assert tries == 2
