"""The worker: does what is due, once or again and again, and tries again what fails."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import quote

import pytest

from langgraph_pgsaga import Database
from langgraph_pgsaga.errors import (
    CopyError,
    InvalidArgumentError,
    MissingMigrationsError,
    PgSagaError,
)
from langgraph_pgsaga.work import Claim, Notifier, Periodic, Retry, Worker, waiting
from tests import _chores
from tests._chores import Chores
from tests._limits import HANG_SECONDS
from tests.db._workers import until

pytestmark = pytest.mark.anyio
SECRET = "a secret payload"


async def test_everything_is_done_once(dsn: str) -> None:
    """A hundred chores by three workers, up to five at once each; none is done twice."""
    await _chores.make(dsn, 100)
    most = running = 0

    async def work(claim: Claim) -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1

    async with Database(dsn) as db:
        workers = [Worker(db, Chores(work, concurrency=5)) for _ in range(3)]
        async with workers[0], workers[1], workers[2]:
            await _chores.all_done(dsn)
            await until(lambda: sum(s.jobs[0].done for w in workers if (s := w.status)) == 100)
    assert most <= 15
    await _chores.assert_each_was_done_once(dsn)


async def test_news_have_it_done_before_the_poll(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Polls are ten minutes apart, so that each chore is done by its notification alone."""
    monkeypatch.setattr(waiting, "LEAST_SECONDS", 600.0)
    job = Chores()
    job.longest_poll_seconds = 600.0
    found_nothing, again = asyncio.Event(), waiting.Watch.again

    def again_and_tell(watch: waiting.Watch, *, found: bool) -> None:
        again(watch, found=found)
        if not found:
            found_nothing.set()

    monkeypatch.setattr(waiting.Watch, "again", again_and_tell)
    await _chores.make(dsn, 0)
    async with Database(dsn) as db, Worker(db, job):
        await until(lambda: Notifier.of(db).is_listening)
        for number in range(1, 11):
            await asyncio.wait_for(found_nothing.wait(), HANG_SECONDS)
            found_nothing.clear()
            await _chores.add(dsn, number)
            Notifier.of(db).notify("chores")
            await _chores.all_done(dsn)


# What fails


async def test_what_fails_is_tried_again_and_ends_nobody(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It waits as its Retry says; the log says which job, how often and where, and no payload."""
    await _chores.make(dsn, 2)
    attempts: list[int] = []

    async def work(claim: Claim) -> None:
        if claim.row["chore_id"] == 1 and claim.attempt < 3:
            attempts.append(claim.attempt)
            raise ValueError(SECRET)

    retry = Retry(backoff_seconds=0.05, jitter=0)
    async with Database(dsn) as db, Worker(db, Chores(work, retry=retry)) as worker:
        await _chores.all_done(dsn)
        await until(lambda: worker.status is not None and worker.status.jobs[0].done == 2)
        assert worker.status is not None
        assert worker.status.jobs[0].failed == 2
    assert attempts == [1, 2]
    (row,) = await _chores.rows(dsn, "select attempts, last_error from chores where chore_id = 1")
    assert row["attempts"] == 3
    assert row["last_error"].startswith("ValueError at ")
    assert "job chores failed, attempt 2, again in 0.1 s: ValueError" in caplog.text
    assert "secret" not in caplog.text + row["last_error"]


async def test_what_is_not_worth_another_attempt_ends(dsn: str) -> None:
    """By its class, or by its number."""
    await _chores.make(dsn, 2)

    async def work(claim: Claim) -> None:
        raise (KeyError if claim.row["chore_id"] == 1 else OSError)

    retry = Retry(attempts=3, backoff_seconds=0, on=(OSError,))
    async with Database(dsn) as db, Worker(db, Chores(work, retry=retry)):
        await _chores.until(dsn, "not exists (select from chores where outcome is null)")
    found = await _chores.rows(dsn, "select attempts, outcome from chores order by chore_id")
    assert [tuple(row) for row in found] == [(1, "failed"), (3, "failed")]


class OddError(BaseException):
    """None of Exception's."""


@pytest.mark.parametrize("error", [asyncio.CancelledError, OddError])
async def test_work_that_cancels_itself_has_failed(dsn: str, error: type[BaseException]) -> None:
    """It isn't taken for the worker's end, which would give it back at once, for ever; and what
    isn't an Exception doesn't keep its row claimed."""
    await _chores.make(dsn)
    begun: list[int] = []

    async def work(claim: Claim) -> None:
        begun.append(claim.attempt)
        if claim.attempt == 1:
            raise error

    retry = Retry(backoff_seconds=0.01)
    async with Database(dsn) as db, Worker(db, Chores(work, retry=retry)) as worker:
        await _chores.all_done(dsn)
        assert worker.status is not None
        assert worker.status.jobs[0].failed == 1
    assert begun == [1, 2]


async def test_a_job_that_forgets_its_outcome_has_failed(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A row that nobody ended would be done again and again; the error says what to call."""
    await _chores.make(dsn)

    class Forgetful(Chores):
        async def run(self, claim: Claim) -> None:
            if claim.attempt > 1:
                await super().run(claim)

    async with (
        Database(dsn) as db,
        Worker(db, Forgetful(retry=Retry(backoff_seconds=0))),
    ):
        await _chores.all_done(dsn)
    assert "UnfinishedClaimError" in caplog.text
    assert "chore_id 1" in caplog.text


async def test_attempts_and_due_times_survive_a_restart(dsn: str) -> None:
    """A wait of a minute: the next worker keeps it, until the clock says that it is over."""
    await _chores.make(dsn)
    failing = True

    async def work(claim: Claim) -> None:
        if failing:
            raise OSError

    job = Chores(work, retry=Retry(backoff_seconds=60, jitter=0))
    async with Database(dsn) as db, Worker(db, job):
        await _chores.until(dsn, "last_error is not null from chores")
    failing = False
    await _chores.add(dsn, 2)
    async with Database(dsn) as db, Worker(db, job):
        await _chores.until(dsn, "outcome = 'done' from chores where chore_id = 2")
    (row,) = await _chores.rows(dsn, "select *, now() from chores where chore_id = 1")
    assert (row["outcome"], row["attempts"]) == (None, 1)
    assert 0 < (row["due_at"] - row["now"]).total_seconds() <= 60
    later = f"{dsn}&pgsaga.now={quote(str(row['due_at']))}"
    async with Database(later) as db, Worker(db, job):
        await _chores.all_done(dsn)
    (row,) = await _chores.rows(dsn, "select attempts from chores where chore_id = 1")
    assert row["attempts"] == 2


# Mistakes


async def test_a_server_without_tables_is_told_at_the_start(empty_dsn: str) -> None:
    """Not in a log, again and again."""
    async with Database(empty_dsn) as db:
        worker = Worker(db, Chores())
        for _ in range(2):
            with pytest.raises(MissingMigrationsError):
                await worker.run()


@pytest.mark.parametrize(
    ("jobs", "problem"),
    [
        ((), "there are none"),
        ((Chores(), Chores()), "two have the name 'chores'"),
        ((Chores,), "must be jobs"),
        (("sweep",), "must be jobs"),
    ],
)
async def test_what_is_no_job_is_refused(dsn: str, jobs: Any, problem: str) -> None:
    """When the worker is made."""
    async with Database(dsn) as db:
        with pytest.raises(InvalidArgumentError, match=problem):
            Worker(db, *jobs)


@pytest.mark.parametrize("name", ["grace_seconds", "lease_seconds"])
@pytest.mark.parametrize("value", [-1, "30", None, True, float("nan")])
async def test_times_are_checked(dsn: str, name: str, value: Any) -> None:
    """Numbers of seconds, by name."""
    async with Database(dsn) as db:
        with pytest.raises(InvalidArgumentError, match=name):
            Worker(db, Chores(), **{name: value})
        with pytest.raises(CopyError):
            copy.copy(Worker(db, Chores()))


# What comes again and again


async def test_a_periodic_job_is_one_workers_at_a_time(dsn: str) -> None:
    """Two workers have it; when its time has come, one of them does it."""
    done: list[int] = []

    async def work() -> None:
        done.append(len(done))

    async with Database(dsn) as db:
        job = Periodic(name="tidy", every_seconds=3600, work=work)
        async with Worker(db, job), Worker(db, job):
            await _chores.until(
                dsn, "exists (select from agent_jobs where finished_at is not null)"
            )
            await _chores.rows(dsn, "update agent_jobs set due_at = now()")
            async with Worker(db, job):
                await _chores.until(dsn, "fence = 2 and claimed_by is null from agent_jobs")
        async with Worker(db, job):
            await _chores.until(dsn, "exists (select from agent_workers)")
    (row,) = await _chores.rows(dsn, "select *, now() from agent_jobs")
    assert done == [0, 1]
    assert (row["name"], row["tenant_id"], row["attempts"]) == ("tidy", "", 0)
    assert 3500 < (row["due_at"] - row["now"]).total_seconds() <= 3600


async def test_a_periodic_job_that_fails_comes_sooner(dsn: str) -> None:
    """By waits that grow up to its period, and that stand in the table."""

    async def work() -> None:
        raise OSError

    job = Periodic(name="tidy", every_seconds=3600, work=work)
    async with Database(dsn) as db, Worker(db, job):
        await _chores.until(dsn, "last_error is not null from agent_jobs")
    (row,) = await _chores.rows(dsn, "select *, now() from agent_jobs")
    assert row["attempts"] == 1
    assert row["last_error"].startswith("OSError at ")
    assert 5 < (row["due_at"] - row["now"]).total_seconds() <= 10


async def test_periodic_work_that_is_not_async_says_so(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What a function returns is known when it was called; until then it is tried again."""
    job = Periodic(name="tidy", every_seconds=3600, work=cast("Any", lambda: 5))
    async with Database(dsn) as db, Worker(db, job):
        await _chores.until(dsn, "last_error is not null from agent_jobs")
    (row,) = await _chores.rows(dsn, "select last_error from agent_jobs")
    assert "work: must be async" in row["last_error"]
    assert "asyncio.to_thread" in caplog.text


async def never() -> None:
    raise AssertionError


@pytest.mark.parametrize(
    ("make", "problem"),
    [(never, "must be a function, not what it returned"), (lambda: 5, "not int")],
)
def test_periodic_work_is_a_function(make: Callable[[], Any], problem: str) -> None:
    """A call of it in its place is told, and leaves no coroutine that nobody awaits."""
    with pytest.raises(InvalidArgumentError, match=problem):
        Periodic(name="tidy", every_seconds=5, work=make())


@pytest.mark.parametrize(("name", "value"), [("name", 5), ("every_seconds", 0), ("name", "a\0")])
def test_a_periodic_job_s_arguments_are_checked(name: str, value: Any) -> None:
    """When it is made."""
    given: dict[str, Any] = {"name": "n", "every_seconds": 5, "work": None, name: value}
    with pytest.raises(PgSagaError, match=name):
        Periodic(**given)
