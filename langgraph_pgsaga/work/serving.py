"""One job of a running worker: finds what is due, and works at so much of it at once."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Literal, TypeVar

from langgraph_pgsaga._pause import pause
from langgraph_pgsaga.database import Database
from langgraph_pgsaga.errors import PgSagaError, UnfinishedClaimError
from langgraph_pgsaga.work.claims import Claim, Claims
from langgraph_pgsaga.work.error_text import described
from langgraph_pgsaga.work.job import Job
from langgraph_pgsaga.work.notifier import Notifier
from langgraph_pgsaga.work.retry import Retry, delay_after

T = TypeVar("T")
Outcome = Literal["done", "failed", "lost", "given_back"]

_log = logging.getLogger("langgraph_pgsaga.work")
_MOST_AT_ONCE = 100
_LONGEST_PAUSE_SECONDS = 5.0
_WAITING = Retry(attempts=None, backoff_seconds=0.1, longest_seconds=_LONGEST_PAUSE_SECONDS)
_TOLD_EVERY = 12
# What a job was refused is asked for again: somebody may have mended it.
_REFUSED_SECONDS = 30.0


class Serving:
    """Finds rows of the job, and runs them, until the claims are to be drained.

    `unfinished` are the claims of what was cancelled to end the worker.
    """

    def __init__(self, db: Database, job: Job, claims: Claims) -> None:
        self.job = job
        self.outcomes: Counter[Outcome] = Counter()
        self.unfinished: list[Claim] = []
        self.is_ending = False
        self._db = db
        self._claims = claims
        self._wake = asyncio.Event()
        self._prepared_at = 0.0
        self._tasks: dict[asyncio.Task[None], Claim] = {}

    @property
    def tasks(self) -> dict[asyncio.Task[None], Claim]:
        """What runs now."""
        return self._tasks

    @property
    def refused(self) -> tuple[str, ...]:
        """The names of what the job doesn't do, as it says itself."""
        return tuple(sorted(getattr(self.job, "refused", ())))

    async def serve(self) -> None:
        """Finds and begins what is due, until the claims are to be drained."""
        await self._prepare()
        watch = Notifier.of(self._db).watch(
            self.job.topic, self._wake.set, longest_seconds=self.job.longest_poll_seconds
        )
        try:
            while not self._claims.draining.is_set():
                free = min(self.job.concurrency - len(self._tasks), _MOST_AT_ONCE)
                if self.refused and time.monotonic() >= self._prepared_at + _REFUSED_SECONDS:
                    await self._prepare()
                if free > 0:
                    found = await self._patiently(partial(self._claim, free))
                    watch.again(found=bool(found))
                await self._wake.wait()
                self._wake.clear()
        finally:
            watch.close()

    async def _prepare(self) -> None:
        await self._patiently(lambda: self.job.prepare(self._db))
        self._prepared_at = time.monotonic()

    def wake(self) -> None:
        """Has `serve` look at once, and at whether it is to end."""
        self._wake.set()

    async def _claim(self, limit: int) -> int:
        claims = await self._claims.claim(self.job.table, limit)
        for claim in claims:
            task = asyncio.create_task(self._run(claim), name=f"langgraph_pgsaga {self.job.name}")
            self._tasks[task] = claim
            task.add_done_callback(self._ended)
            claim.cancels(task)
        return len(claims)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        self._wake.set()

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """The result of `work()`, tried until it succeeds; None where it is to end before."""
        attempt = 0
        while not self._claims.draining.is_set():
            attempt += 1
            try:
                result = await work()
            except Exception as error:
                if attempt % _TOLD_EVERY == 1:
                    _log.warning("job %s can't look for work: %s", self.job.name, described(error))
                await pause(_WAITING.delay(attempt), until=self._claims.draining.wait())
            else:
                if attempt > 1:
                    _log.info("job %s looks for work again", self.job.name)
                return result
        return None

    async def _run(self, claim: Claim) -> None:
        try:
            outcome = await self._outcome(claim)
        except asyncio.CancelledError:
            if claim.is_lost:
                outcome = "lost"
            else:
                outcome = "given_back"
                self.unfinished.append(claim)
        self.outcomes[outcome] += 1
        if outcome != "given_back":
            self._claims.drop(claim)

    async def _outcome(self, claim: Claim) -> Outcome:
        try:
            await self.job.run(claim)
            if not claim.is_ended:
                raise UnfinishedClaimError(claim=str(claim))
        except asyncio.CancelledError as error:
            if claim.is_lost or self.is_ending:
                raise
            return await self._failed(claim, error)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:
            if claim.is_lost:
                return "lost"
            return await self._failed(claim, error)
        return "done"

    async def _failed(self, claim: Claim, error: BaseException) -> Outcome:
        again = delay_after(self.job.retry, error, claim.attempt)
        told = "it isn't tried again" if again is None else f"again in {again:.1f} s"
        where = "".join(traceback.format_tb(error.__traceback__))
        why = described(error)
        _log.warning(
            "job %s failed, attempt %d, %s: %s\n%s", self.job.name, claim.attempt, told, why, where
        )
        try:
            await self._claims.fail(claim, error=why, delay_seconds=again)
        except PgSagaError as lost:
            _log.warning(
                "that job %s failed couldn't be stored; it is due again when its lease has ended: "
                "%s", self.job.name, lost,
            )  # fmt: skip
        return "failed"
