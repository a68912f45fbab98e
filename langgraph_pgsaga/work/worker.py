"""Worker: runs the jobs of a process, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from uuid import UUID

from langgraph_pgsaga import _fork
from langgraph_pgsaga._arguments import (
    checked_instance,
    checked_integer,
    checked_seconds,
    required_text,
)
from langgraph_pgsaga._pause import pause
from langgraph_pgsaga._process_bound import ProcessBound
from langgraph_pgsaga.database import BoundStatement, Database
from langgraph_pgsaga.errors import InvalidArgumentError, WorkerRunningError
from langgraph_pgsaga.work.claims import Claims
from langgraph_pgsaga.work.error_text import described
from langgraph_pgsaga.work.job import Job
from langgraph_pgsaga.work.members import HEARTBEAT_SECONDS, burial, farewell, heartbeat
from langgraph_pgsaga.work.notifier import Notifier, checked_topic
from langgraph_pgsaga.work.serving import Serving

_log = logging.getLogger("langgraph_pgsaga.work")
# For what is cancelled to stop, and for the server to answer a worker that ends.
_STOPPING_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """A job in a running worker: how many of its rows are worked at now, and how it went since the
    worker began. `lost` are those that another worker took over, `given_back` those that were cut
    short when the worker ended. `refused` are the names of what it doesn't do, such as of consumers
    that have other partitions; the log says why."""

    name: str
    running: int
    done: int
    failed: int
    lost: int
    given_back: int
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """A running worker. `heard_seconds` is how long ago the server last answered it; one that isn't
    `is_working` has stopped looking for work, by a defect."""

    worker_id: UUID
    is_working: bool
    is_draining: bool
    is_listening: bool
    heard_seconds: float
    jobs: tuple[JobStatus, ...]


class Worker(ProcessBound):
    """Runs jobs in the running event loop: `async with Worker(db, job):` for as long as the block
    lasts, or `await worker.run()` until `stop()`.

    Any number of workers, in any number of processes, share the work; each row is one's at a time.
    When it ends, nothing new is claimed, and what runs has grace_seconds to finish. What hasn't by
    then is cancelled and given back, so that others go on with it at once.

    A job that fails is tried again; the worker goes on. So it does when the server is away.

    Args:
        db: the database. Who made it closes it, after the worker has ended.
        jobs: what it does, each of another name.
        grace_seconds: how long what runs may go on once the worker ends.
        lease_seconds: how long what a worker had stays its own after it died.
    """

    def __init__(
        self,
        db: Database,
        *jobs: Job,
        grace_seconds: float = 30.0,
        lease_seconds: float = 30.0,
    ) -> None:
        self.db = checked_instance("db", db, Database, "Pass a Database, such as saver.db")
        self.jobs = _checked_jobs(jobs)
        self.grace_seconds = checked_seconds("grace_seconds", grace_seconds, least=0)
        self.lease_seconds = checked_seconds("lease_seconds", lease_seconds, least=0.1)
        self._life: _Life | None = None
        self._is_stopped = False
        _fork.watch(self)

    async def __aenter__(self) -> Worker:
        """Begins, once the server has its name.

        Raises:
            ServerError and the like: the server can't be reached, or has no tables.
            WorkerRunningError: it runs already.
        """
        if self._life is not None:
            raise WorkerRunningError
        self._life = life = _Life(self)
        try:
            await life.begin()
        except BaseException:
            self._life = None
            raise
        if self._is_stopped:  # before it had begun
            life.stop()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        life = self._life
        assert life is not None
        try:
            await life.end(self.grace_seconds)
        finally:
            self._life, self._is_stopped = None, False

    async def run(self) -> None:
        """Works until `stop` is called, or this is cancelled; then it ends as the block does."""
        async with self:
            assert self._life is not None
            await self._life.draining.wait()

    def stop(self) -> None:
        """Has it take on nothing new, and `run` end. It doesn't wait; from any thread."""
        self._is_stopped = True
        life = self._life
        if life is not None:
            with suppress(RuntimeError):  # the loop is closed, so it has ended
                life.loop.call_soon_threadsafe(life.stop)

    def after_fork(self) -> None:
        """In a forked child: it is the parent that works."""
        self._life, self._is_stopped = None, False

    @property
    def status(self) -> WorkerStatus | None:
        """How it is; None where it doesn't run."""
        return None if self._life is None else self._life.status()


class _Life:
    """A worker from its beginning to its end, in one event loop."""

    def __init__(self, worker: Worker) -> None:
        self.loop = asyncio.get_running_loop()
        self._db = worker.db
        self._claims = Claims(worker.db, lease_seconds=worker.lease_seconds)
        self.draining = self._claims.draining
        self._servings = [Serving(worker.db, job, self._claims) for job in worker.jobs]
        self._names = [job.name for job in worker.jobs]
        self._over = asyncio.Event()
        self._heard_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        await self._db.fetch(self._heartbeat())
        self._heard_at = time.monotonic()
        _log.info("worker %s begins: %s", self._claims.owner, ", ".join(self._names))
        works = [self._beat(), *(serving.serve() for serving in self._servings)]
        self._tasks = [asyncio.create_task(work) for work in works]

    def stop(self) -> None:
        self.draining.set()
        for serving in self._servings:
            serving.wake()

    async def end(self, grace_seconds: float) -> None:
        """Ends it. Cancelled, it waits for nothing more, and gives back what it had."""
        self.stop()
        until = self.loop.time() + grace_seconds
        cancelled: asyncio.CancelledError | None = None
        try:
            # What was claimed in this moment is begun, and counts.
            await _wait(self._tasks[1:], min(grace_seconds, _STOPPING_SECONDS))
            await _wait(self._running(), until - self.loop.time())
        except asyncio.CancelledError as error:
            cancelled = error
        ending = asyncio.create_task(self._end_now())
        while not ending.done():
            try:
                await asyncio.shield(ending)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        ending.result()

    async def _end_now(self) -> None:
        for serving in self._servings:
            serving.is_ending = True
        await _cancel(self._tasks[1:])
        await _cancel(self._running())
        given_back = [claim for serving in self._servings for claim in serving.unfinished]
        given_back += [claim for serving in self._servings for claim in serving.tasks.values()]
        try:
            async with asyncio.timeout(_STOPPING_SECONDS):
                await self._claims.release(given_back)
                self._over.set()
                # A heartbeat that is on its way would make the row anew.
                await _wait(self._tasks[:1], _STOPPING_SECONDS)
                await self._db.fetch(farewell(self._claims.owner))
        except Exception as error:
            _log.warning("a worker ends unheard, its leases by their time: %s", described(error))
        await _cancel(self._tasks[:1])
        await self._claims.aclose()
        _log.info("worker %s has ended; given back: %d", self._claims.owner, len(given_back))

    def _running(self) -> list[asyncio.Task[None]]:
        return [task for serving in self._servings for task in serving.tasks]

    async def _beat(self) -> None:
        """Says again and again that it is alive; at once when it begins to drain."""
        is_told = False
        while True:
            awaited = self._over if self.draining.is_set() else self.draining
            await pause(HEARTBEAT_SECONDS, until=awaited.wait())
            if self._over.is_set():
                return
            try:
                for statement in (self._heartbeat(), burial()):
                    await self._claims.line.fetch(statement)
                self._heard_at, is_told = time.monotonic(), False
            except Exception as error:
                if not is_told:
                    _log.warning("a worker can't say that it is alive: %s", described(error))
                is_told = True

    def _heartbeat(self) -> BoundStatement:
        jobs = [_told(serving) for serving in self._servings]
        return heartbeat(self._claims.owner, jobs, is_draining=self.draining.is_set())

    def status(self) -> WorkerStatus:
        return WorkerStatus(
            worker_id=self._claims.owner,
            is_working=self.draining.is_set() or not any(task.done() for task in self._tasks),
            is_draining=self.draining.is_set(),
            is_listening=Notifier.of(self._db).is_listening,
            heard_seconds=time.monotonic() - self._heard_at,
            jobs=tuple(
                JobStatus(
                    name=serving.job.name,
                    running=len(serving.tasks),
                    done=serving.outcomes["done"],
                    failed=serving.outcomes["failed"],
                    lost=serving.outcomes["lost"],
                    given_back=serving.outcomes["given_back"],
                    refused=serving.refused,
                )
                for serving in self._servings
            ),
        )


def _told(serving: Serving) -> str:
    """A job as `pgsaga worker list` shows it."""
    if not serving.refused:
        return serving.job.name
    return f"{serving.job.name} (refused: {', '.join(serving.refused)})"


def _checked_jobs(jobs: Iterable[Job]) -> tuple[Job, ...]:
    found = tuple(jobs)
    names = []
    for job in found:
        if isinstance(job, type) or not callable(getattr(job, "run", None)):
            problem = (
                "must be jobs, such as Sessions(db).job(...) or EventStore(db).job(...), "
                f"not {type(job).__name__}"
            )
            raise InvalidArgumentError(argument="jobs", problem=problem)
        checked_topic(job.topic)
        checked_integer("concurrency", job.concurrency, least=1)
        names.append(required_text("jobs", job.name))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not found:
        problem = f"two have the name {twice[0]!r}" if twice else "there are none: pass one or more"
        raise InvalidArgumentError(argument="jobs", problem=problem)
    return found


async def _wait(tasks: list[asyncio.Task[None]], seconds: float) -> None:
    if tasks and seconds > 0:
        await asyncio.wait(tasks, timeout=seconds)


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await _wait(tasks, _STOPPING_SECONDS)
