"""Claims: a row is one owner's at a time, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import tests
from langgraph_pgsaga import Database
from langgraph_pgsaga.errors import ClaimLostError, InvalidArgumentError
from langgraph_pgsaga.work import Claim, Claims, ClaimTable, Worker
from tests import _chores
from tests._chores import CLAIM, FINISH, RELEASE, TABLE, Chores
from tests._connections import connected
from tests._forked import assert_succeeds, in_child, needs_fork
from tests._limits import HANG_SECONDS
from tests._proxy import Proxy

pytestmark = pytest.mark.anyio

ROOT = Path(tests.__path__[0]).parent
ROUNDS = 1000 if os.environ.get("PGSAGA_FULL") else 2
LEASE_SECONDS = 0.8


@pytest.fixture
async def chores(dsn: str) -> str:
    """The DSN of a database with one chore."""
    await _chores.make(dsn)
    return dsn


@asynccontextmanager
async def claims_of(dsn: str, **options: Any) -> AsyncIterator[Claims]:
    async with Database(dsn) as db:
        claims = Claims(db, **options)
        try:
            yield claims
        finally:
            await claims.aclose()


async def ended(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while not condition():
            await asyncio.sleep(0.002)


# One owner


async def test_a_row_is_claimed_once_until_its_lease_ends(chores: str) -> None:
    """Meanwhile nobody else gets it; then the next one does, with a higher fence."""
    async with claims_of(chores) as first, claims_of(chores) as second:
        (claim,) = await first.claim(TABLE, 10)
        assert (claim.fence, claim.attempt, claim.key) == (1, 1, {"chore_id": 1})
        assert await second.claim(TABLE, 10) == []
        await _chores.rows(chores, "update chores set claim_expires_at = now()")
        (taken,) = await second.claim(TABLE, 10)
        assert (taken.fence, taken.attempt) == (2, 2)
        with pytest.raises(ClaimLostError) as caught:
            await claim.end(FINISH)
        assert (caught.value.claim, caught.value.fence) == ("chore_id 1", 1)
        await taken.end(FINISH)
    await _chores.assert_each_was_done_once(chores)


async def test_racers_share_the_rows(dsn: str) -> None:
    """Twenty claim at once what is there: each row is one's, and none is left."""
    await _chores.make(dsn, 200)
    async with Database(dsn) as db:
        racers = [Claims(db) for _ in range(20)]
        got = await asyncio.gather(*(claims.claim(TABLE, 10) for claims in racers))
        rest = await racers[0].claim(TABLE, 200)
        ids = [claim.row["chore_id"] for claims in (*got, rest) for claim in claims]
        assert sorted(ids) == list(range(1, 201))
        assert all(len(claims) <= 10 for claims in got)
        for claims in racers:
            await claims.aclose()


async def test_what_is_given_back_is_due_at_once(chores: str) -> None:
    """As if it hadn't been claimed: the attempt doesn't count. The fence does."""
    async with claims_of(chores) as first, claims_of(chores) as second:
        claims = await first.claim(TABLE, 1)
        await first.release(claims)
        assert first.held == 0
        (again,) = await second.claim(TABLE, 1)
        assert (again.fence, again.attempt) == (2, 1)
        await first.release(claims)  # too late: it is somebody else's
        await again.end(FINISH)


async def test_a_lost_claim_fails_and_gives_back_nothing(chores: str) -> None:
    """What the first owner says of the row changes nothing of the second's."""
    async with claims_of(chores) as first, claims_of(chores) as second:
        (claim,) = await first.claim(TABLE, 1)
        await _chores.rows(chores, "update chores set claim_expires_at = now()")
        (taken,) = await second.claim(TABLE, 1)
        before = await _chores.rows(chores, "select * from chores")
        assert not await first.fail(claim, error="x", delay_seconds=1)
        await first.release([claim])
        assert await _chores.rows(chores, "select * from chores") == before
        await taken.end(FINISH)


async def test_a_write_joins_its_caller_s_transaction(chores: str) -> None:
    """With the claim lost, nothing of the transaction is stored."""
    async with claims_of(chores) as claims:
        (claim,) = await claims.claim(TABLE, 1)

        async def effect(conn: Any) -> None:
            await conn.execute("insert into chore_log (chore_id, what) values (1, 'effect')")
            await claim.end(FINISH, conn=conn)

        await _chores.rows(chores, "update chores set fence = fence + 1")
        with pytest.raises(ClaimLostError):
            await claims.db.run(effect)
        assert not await _chores.rows(chores, "select from chore_log where what = 'effect'")
        assert claim.is_lost


# Renewal


async def test_claims_are_renewed_together(dsn: str) -> None:
    """By one statement for the table, however many there are, on one connection."""
    await _chores.make(dsn, 50)
    with Proxy(dsn) as proxy:
        async with claims_of(proxy.dsn(), lease_seconds=1.0) as claims:
            held = await claims.claim(TABLE, 50)
            first = {claim: claim.until for claim in held}
            await ended(lambda: all(claim.until > first[claim] for claim in held))
            with proxy.recording() as traffic:
                before = {claim: claim.until for claim in held}
                await ended(lambda: all(claim.until > before[claim] for claim in held))
            assert len(traffic.messages) == 1
            assert traffic.statements <= 2
    found = await _chores.rows(dsn, "select max(claim_expires_at - now()) as left from chores")
    assert found[0]["left"].total_seconds() > 0


async def test_work_that_lasts_is_kept(chores: str) -> None:
    """Until it has been renewed for two leases more nobody else gets it."""
    lease = LEASE_SECONDS
    async with claims_of(chores, lease_seconds=lease) as first, claims_of(chores) as second:
        (claim,) = await first.claim(TABLE, 1)
        kept_until = claim.until + 2 * lease
        async with asyncio.timeout(HANG_SECONDS):
            while claim.until < kept_until:
                assert await second.claim(TABLE, 1) == []
                await asyncio.sleep(0.02)
        await claim.end(FINISH)


async def test_a_row_that_its_own_work_has_locked_is_not_lost(chores: str) -> None:
    """Renewing passes it over, and doesn't wait; once it is free it is renewed again."""
    async with claims_of(chores, lease_seconds=1.5) as claims:
        (claim,) = await claims.claim(TABLE, 1)
        async with connected(chores) as conn:
            async with conn.transaction():
                await conn.execute("select from chores for update")
                until = claim.until
                await claims._renew_all()
                assert (claim.until, claim.is_lost) == (until, False)
            await claims._renew_all()
            assert claim.until > until
        await claim.end(FINISH)


async def test_the_work_of_a_lost_claim_is_cancelled(chores: str) -> None:
    """When renewing finds somebody else in the row, or no row; the others' goes on."""
    await _chores.add(chores, 2, 3)
    async with claims_of(chores) as claims:
        held = await claims.claim(TABLE, 3)
        tasks = [asyncio.create_task(asyncio.sleep(HANG_SECONDS)) for _ in held]
        for claim, task in zip(held, tasks, strict=True):
            claim.cancels(task)
        await _chores.rows(chores, "update chores set fence = fence + 1 where chore_id = 1")
        await _chores.rows(chores, "delete from chores where chore_id = 2")
        await claims._renew_all()
        await ended(lambda: tasks[0].cancelled() and tasks[1].cancelled())
        assert [claim.is_lost for claim in held] == [True, True, False]
        assert claims.held == 1
        tasks[2].cancel()
        await held[2].end(FINISH)


async def test_what_can_not_be_renewed_is_cancelled_before_its_lease_ends(chores: str) -> None:
    """The server gives no answer: the work ends by this process's clock, while it is its own."""
    with Proxy(chores) as proxy:
        async with claims_of(proxy.dsn(), lease_seconds=1.2) as claims:
            (claim,) = await claims.claim(TABLE, 1)
            stopped_at = 0.0

            async def work() -> None:
                nonlocal stopped_at
                try:
                    await asyncio.sleep(HANG_SECONDS)
                finally:
                    stopped_at = time.monotonic()

            task = asyncio.create_task(work())
            claim.cancels(task)
            proxy.swallows = True
            await asyncio.wait([task])
            until = claim.until
            assert claim.is_lost
            assert stopped_at < until
            (left,) = await _chores.rows(chores, "select claim_expires_at > now() as l from chores")
            assert left["l"] or time.monotonic() > until


async def test_the_clock_of_the_client_does_not_matter(
    chores: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set back by a day while a claim is held, it neither ends it nor makes it last."""
    async with claims_of(chores, lease_seconds=0.5) as first, claims_of(chores) as second:
        (claim,) = await first.claim(TABLE, 1)
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now - 86_400)
        until = claim.until
        await ended(lambda: claim.until > until)
        assert await second.claim(TABLE, 1) == []
        await first.aclose()
        await _chores.until(chores, "claim_expires_at <= clock_timestamp() from chores")
        (taken,) = await second.claim(TABLE, 1)
        with pytest.raises(ClaimLostError):
            await claim.write(FINISH)
        await taken.end(FINISH)


async def test_a_cut_connection_costs_no_claim(chores: str) -> None:
    """The renewal connects again in time; the work goes on, and is done once."""
    async with Database(chores) as db:
        release = asyncio.Event()

        async def work(claim: Claim) -> None:
            await release.wait()

        async with Worker(db, Chores(work), lease_seconds=1.5) as worker:
            await _chores.until(chores, "claimed_by is not null from chores")
            for _ in range(3):
                await _chores.rows(
                    chores,
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where pid <> pg_backend_pid() and datname = current_database()",
                )
                (before,) = await _chores.rows(chores, "select claim_expires_at as at from chores")
                await _chores.until(chores, "claim_expires_at > $1 from chores", before["at"])
            release.set()
            await _chores.all_done(chores)
            assert worker.status is not None
    (row,) = await _chores.rows(chores, "select fence from chores")
    assert row["fence"] == 1
    await _chores.assert_each_was_done_once(chores)


async def test_an_answer_that_was_lost_is_not_taken_for_a_lost_claim(chores: str) -> None:
    """The outcome was committed, and the connection lost before it was told: it is asked for."""
    async with claims_of(chores) as claims:
        (claim,) = await claims.claim(TABLE, 1)
        lose_answer(claims.db)
        await claim.end(FINISH)
        assert claim.is_ended
    await _chores.assert_each_was_done_once(chores)


def lose_answer(db: Database) -> None:
    """The next commit's answer is lost."""
    run = db._run
    lost: list[bool] = []

    async def losing(work: Any, *args: Any, **options: Any) -> Any:
        async def then_lost(conn: Any) -> Any:
            result = await work(conn)
            if not lost:
                lost.append(True)
                commit = conn.plain().execute

                async def execute(query: str, *rest: Any, **more: Any) -> Any:
                    answer = await commit(query, *rest, **more)
                    if query.startswith("COMMIT"):
                        conn.plain().terminate()
                        raise ConnectionResetError("cut after the commit")
                    return answer

                conn.plain().execute = execute
            return result

        return await run(then_lost, *args, **options)

    db._run = losing  # type: ignore[method-assign]


@needs_fork
def test_a_forked_child_has_none_of_its_parent_s_claims(dsn: str) -> None:
    """It may not write about them, and its own are another owner's."""

    async def run() -> None:
        await _chores.make(dsn)
        async with claims_of(dsn) as claims:
            (claim,) = await claims.claim(TABLE, 1)
            owner = claims.owner

            def child() -> None:
                assert claim.is_lost
                assert claims.held == 0
                assert claims.owner != owner
                with pytest.raises(ClaimLostError):
                    claim.check()

            assert_succeeds(in_child(child))
            await claim.end(FINISH)

    asyncio.run(run())


# Real processes


@asynccontextmanager
async def process(dsn: str, folder: Path, *args: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker of its own, which says what it does line by line."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "tests" / "_chore_process.py"),
        dsn,
        str(LEASE_SECONDS),
        str(folder),
        *args,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{ROOT}"},
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.send_signal(signal.SIGCONT)
            child.kill()
        await child.wait()


async def says(child: asyncio.subprocess.Process, *wanted: str) -> str:
    """The next line that begins in one of these ways."""
    assert child.stdout is not None
    async with asyncio.timeout(HANG_SECONDS):
        while line := (await child.stdout.readline()).decode().strip():
            if line.startswith(wanted):
                return line
    raise AssertionError(f"it ended without a word of {wanted!r}")


@pytest.mark.parametrize("mode", ["", "blind"])
async def test_who_slept_through_its_lease_writes_nothing(
    chores: str, tmp_path: Path, mode: str
) -> None:
    """Stopped past the lease, it knows by its clock once it goes on; blind to it, by the fence."""
    async with process(chores, tmp_path, *([mode] if mode else [])) as sleeper:
        for number in range(1, ROUNDS + 1):
            await says(sleeper, "begun")
            sleeper.send_signal(signal.SIGSTOP)
            async with Database(chores) as db, Worker(db, Chores()):
                await _chores.all_done(chores)
            (tmp_path / "go").touch()
            sleeper.send_signal(signal.SIGCONT)
            said = await says(sleeper, "wrote", "lost")  # its write may be cancelled, too
            if not said.startswith("lost"):
                assert (mode, said) == ("blind", "wrote 0")
                await says(sleeper, "lost")
            (tmp_path / "go").unlink()
            await _chores.assert_each_was_done_once(chores)
            await _chores.add(chores, number + 1)


async def test_who_dies_is_followed_within_lease_and_poll(chores: str, tmp_path: Path) -> None:
    """Killed in the middle: another worker begins when the lease has ended, by its next look."""
    async with Database(chores) as db:
        for number in range(1, ROUNDS + 1):
            async with process(chores, tmp_path) as child:
                await says(child, "begun")
                async with Worker(db, Chores()):
                    child.kill()
                    (at,) = await _chores.rows(
                        chores,
                        "select claim_expires_at as at from chores order by chore_id desc limit 1",
                    )
                    await _chores.all_done(chores)
            (row,) = await _chores.rows(
                chores,
                "select max(at) - $1 as late, max(fence) as fence from chore_log"
                " where chore_id = $2 and what = 'claimed'",
                at["at"],
                number,
            )
            assert row["fence"] == 2
            assert row["late"].total_seconds() >= 0
            # The lease that was read may be renewed once more before the end.
            assert row["late"].total_seconds() < LEASE_SECONDS + 1.0 + _SLACK_SECONDS
            await _chores.add(chores, number + 1)


_SLACK_SECONDS = 5.0


# The contract


def test_statements_that_do_not_fit_are_refused() -> None:
    """When the table is made, with what the statement lacks."""
    with pytest.raises(InvalidArgumentError, match="claim_chores must have the parameters"):
        ClaimTable(key=("chore_id",), claim=CLAIM, renew=CLAIM, release=RELEASE, fail=TABLE.fail)
