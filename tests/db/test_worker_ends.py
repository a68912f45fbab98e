"""A worker ends, or loses its server, without losing anything, and its row says so."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from langgraph_pgsaga import Database
from langgraph_pgsaga.errors import WorkerRunningError
from langgraph_pgsaga.work import Claim, Notifier, Retry, Worker, list_workers
from tests import _chores
from tests._chores import Chores
from tests._connections import connected
from tests._limits import HANG_SECONDS
from tests.db import test_pooler
from tests.db._workers import until
from tests.db.test_claims import process, says
from tests.db.test_pooler import MakePooled
from tests.db.test_recovery import Server

pytestmark = pytest.mark.anyio
pooled = test_pooler.pooled


# Its end


async def test_what_runs_is_finished_and_nothing_more_is_claimed(dsn: str) -> None:
    """Within the grace time; the rest is left as it was."""
    await _chores.make(dsn, 5)
    begun, release = asyncio.Event(), asyncio.Event()

    async def work(claim: Claim) -> None:
        begun.set()
        await claim.draining.wait()
        await release.wait()

    async with Database(dsn) as db:
        worker = Worker(db, Chores(work, concurrency=2))
        run = asyncio.create_task(worker.run())
        await begun.wait()
        worker.stop()
        await _chores.until(dsn, "exists (select from agent_workers where draining_at is not null)")
        assert worker.status is not None
        assert worker.status.is_draining
        release.set()
        await asyncio.wait_for(run, HANG_SECONDS)
        assert worker.status is None
        assert await list_workers(db) == []
    found = await _chores.rows(dsn, "select outcome, fence from chores order by chore_id")
    assert [tuple(row) for row in found] == [("done", 1), ("done", 1), *[(None, 0)] * 3]


async def test_what_does_not_finish_is_given_back_at_once(dsn: str) -> None:
    """After the grace time, without waiting for the lease; the attempt doesn't count."""
    await _chores.make(dsn, 3)
    begun = asyncio.Event()

    async def endless(claim: Claim) -> None:
        begun.set()
        await asyncio.sleep(HANG_SECONDS)

    async with Database(dsn) as db:
        async with Worker(db, Chores(endless, concurrency=3), grace_seconds=0.05):
            await _chores.until(dsn, "(select count(*) from chores where claimed_by is null) = 0")
        found = await _chores.rows(dsn, "select attempts, claimed_by from chores")
        assert [tuple(row) for row in found] == [(0, None)] * 3
        async with Worker(db, Chores()):
            await _chores.all_done(dsn)
    await _chores.assert_each_was_done_once(dsn)


async def test_a_run_that_is_cancelled_gives_back_what_it_had(dsn: str) -> None:
    """It doesn't wait for the grace time, and the cancellation is the caller's."""
    await _chores.make(dsn)
    begun = asyncio.Event()

    async def endless(claim: Claim) -> None:
        begun.set()
        await asyncio.sleep(HANG_SECONDS)

    async with Database(dsn) as db:
        run = asyncio.create_task(Worker(db, Chores(endless), grace_seconds=600).run())
        await begun.wait()
        run.cancel()
        await _chores.until(dsn, "exists (select from agent_workers where draining_at is not null)")
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(run, HANG_SECONDS)
        (row,) = await _chores.rows(dsn, "select attempts, claimed_by from chores")
        assert tuple(row) == (0, None)


async def test_work_that_does_not_end_when_cancelled_writes_nothing_more(dsn: str) -> None:
    """The worker ends all the same, and the row is another's."""
    await _chores.make(dsn)
    begun, go = asyncio.Event(), asyncio.Event()
    errors: list[Exception] = []

    async def stubborn(claim: Claim) -> None:
        begun.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue
        try:
            await claim.end(_chores.FINISH)
        except Exception as error:
            errors.append(error)
            raise

    async with Database(dsn) as db:
        async with Worker(db, Chores(stubborn), grace_seconds=0):
            await begun.wait()
        go.set()
        await until(lambda: bool(errors))
        (row,) = await _chores.rows(dsn, "select outcome from chores")
        assert row["outcome"] is None
        async with Worker(db, Chores()):
            await _chores.all_done(dsn)
    await _chores.assert_each_was_done_once(dsn)


async def test_sigterm_drains_a_process(dsn: str, tmp_path: Path) -> None:
    """What runs finishes within its grace time, or is given back; the exit is clean."""
    await _chores.make(dsn, 3)
    async with process(dsn, tmp_path) as child:
        for _ in range(3):
            await says(child, "begun")
        child.send_signal(signal.SIGTERM)
        await _chores.until(dsn, "exists (select from agent_workers where draining_at is not null)")
        (tmp_path / "go").touch()
        await says(child, "ended")
        assert await asyncio.wait_for(child.wait(), HANG_SECONDS) == 0
    await _chores.assert_each_was_done_once(dsn)
    await _chores.add(dsn, 4)
    (tmp_path / "go").unlink()
    async with process(dsn, tmp_path) as child:
        await says(child, "begun")
        child.send_signal(signal.SIGTERM)
        await says(child, "ended")
    (row,) = await _chores.rows(dsn, "select claimed_by, attempts from chores where chore_id = 4")
    assert tuple(row) == (None, 0)


async def test_stop_before_it_begins_ends_the_run_at_once(dsn: str) -> None:
    """A signal may come at any time; the run after that is a usual one again."""
    await _chores.make(dsn)
    async with Database(dsn) as db:
        worker = Worker(db, Chores())
        worker.stop()
        await asyncio.wait_for(worker.run(), HANG_SECONDS)
        async with worker:
            await _chores.all_done(dsn)
            with pytest.raises(WorkerRunningError):
                await worker.run()


# Servers


@pytest.fixture
def server(public_tmp: Path, dsn: str) -> Iterator[Server]:
    server = Server(public_tmp / "worker")
    yield server
    server.hold.stop()


@pytest.mark.slow
async def test_a_server_that_is_away_costs_no_work_and_no_restart(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor a busy loop: some attempts to connect, and hardly any time of the processor."""
    caplog.set_level(logging.WARNING)
    async with Database(server.dsn, retry_seconds=1.0) as db:
        await db.setup()
        await _chores.make(server.dsn, 3)
        begun, release = asyncio.Event(), asyncio.Event()

        async def work(claim: Claim) -> None:
            begun.set()
            if claim.row["chore_id"] == 1:
                await release.wait()

        async with Worker(db, Chores(work), lease_seconds=1.5) as worker:
            await begun.wait()
            await asyncio.to_thread(server.stop)
            caplog.clear()
            used = time.process_time()
            await asyncio.sleep(_AWAY_SECONDS)
            used = time.process_time() - used
            told = len(caplog.records)
            await asyncio.to_thread(server.start)
            release.set()
            await _chores.all_done(server.dsn)
            assert worker.status is not None
            assert worker.status.is_working
    assert used < 0.15 * _AWAY_SECONDS
    assert told < 15 * _AWAY_SECONDS
    await _chores.assert_each_was_done_once(server.dsn)


_AWAY_SECONDS = 60.0 if _chores.FULL else 4.0


async def test_through_a_pooler_it_works_by_polling(dsn: str, pooled: MakePooled) -> None:
    """Claims, renewals, failures and the end; with a direct_dsn news come, too."""
    await _chores.make(dsn, 5)
    failed: set[int] = set()

    async def work(claim: Claim) -> None:
        if claim.row["chore_id"] not in failed:
            failed.add(claim.row["chore_id"])
            raise OSError
        claimed_until = claim.until
        await until(lambda: claim.until > claimed_until)

    through = pooled(dsn)
    job = Chores(work, concurrency=5, retry=Retry(backoff_seconds=0.01))
    async with (
        Database(through, pooler=True) as db,
        Worker(db, job, lease_seconds=0.6) as worker,
    ):
        await _chores.all_done(dsn)
        assert worker.status is not None
        assert not worker.status.is_listening
        Notifier.of(db).notify("chores")
    await _chores.assert_each_was_done_once(dsn)
    async with Database(through, pooler=True, direct_dsn=dsn) as db, Worker(db, job):
        await until(lambda: Notifier.of(db).is_listening)


# Who there is


async def test_the_row_says_who_works(dsn: str) -> None:
    """Since when, where, with which jobs; it is gone when the worker has ended."""
    import os
    import socket

    from langgraph_pgsaga import __version__

    await _chores.make(dsn, 0)
    async with Database(dsn) as db:
        async with Worker(db, Chores()) as worker:
            (info,) = await list_workers(db)
            assert worker.status is not None
            assert info.worker_id == worker.status.worker_id
            assert (info.host, info.pid, info.version, info.jobs, info.is_alive) == (
                socket.gethostname(), os.getpid(), __version__, ("chores",), True,
            )  # fmt: skip
            assert info.draining_at is None
        assert await list_workers(db) == []


LAST_HEARTBEAT_WAITS = """
create function wait_for_test() returns trigger language plpgsql as $$ begin
  if new.draining_at is not null then perform pg_advisory_xact_lock(1); end if;
  return new;
end $$;
create trigger wait_for_test before insert or update on agent_workers
for each row execute function wait_for_test()
"""
HEARTBEAT_IS_ON_ITS_WAY = """
exists (
  select from pg_locks where locktype = 'advisory' and not granted
  and database = (select oid from pg_database where datname = current_database())
)
"""


async def test_a_last_heartbeat_that_is_slow_leaves_no_row_behind(dsn: str) -> None:
    """The worker's row goes once the server has answered it, so that nothing makes it anew."""
    await _chores.make(dsn, 1)
    async with Database(dsn) as db, connected(dsn) as other:
        await other.execute(LAST_HEARTBEAT_WAITS)
        await other.execute("select pg_advisory_lock(1)")
        worker = Worker(db, Chores())
        running = asyncio.create_task(worker.run())
        await _chores.all_done(dsn)
        worker.stop()
        await _chores.until(dsn, HEARTBEAT_IS_ON_ITS_WAY)
        await asyncio.wait([running], timeout=0.5)  # one that waits for no answer has ended by now
        await other.execute("select pg_advisory_unlock(1)")
        await running
        await _chores.until(dsn, f"not {HEARTBEAT_IS_ON_ITS_WAY}")
        assert await list_workers(db) == []


async def test_the_dead_are_told_from_the_living_and_go(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a minute of silence a worker counts as dead, after an hour its row goes."""
    monkeypatch.setattr("langgraph_pgsaga.work.worker.HEARTBEAT_SECONDS", 0.02)
    await _chores.make(dsn, 0)
    dead = (
        "insert into agent_workers (worker_id, host, pid, version, jobs, heartbeat_at)"
        " values (gen_random_uuid(), $2, 1, '1', '{{}}', now() - $1::text::interval)"
    ).replace("{{}}", "{}")
    await _chores.rows(dsn, dead, "61 seconds", "silent")
    await _chores.rows(dsn, dead, "3601 seconds", "dead")
    async with Database(dsn) as db, Worker(db, Chores()):
        await _chores.until(dsn, "not exists (select from agent_workers where host = 'dead')")
        found = {info.host: info.is_alive for info in await list_workers(db)}
        assert found.pop("silent") is False
        assert list(found.values()) == [True]
