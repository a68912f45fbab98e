"""Handlers of types of events, which run where events are appended, or else in a worker."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from langgraph_pgsaga.database import Connection, Database, load_statements
from langgraph_pgsaga.errors import ClosedError, InvalidArgumentError
from langgraph_pgsaga.events.condition import checked_type
from langgraph_pgsaga.events.consumer import END, Consumer
from langgraph_pgsaga.events.consumer_job import ConsumerJob
from langgraph_pgsaga.events.event import EventType
from langgraph_pgsaga.events.subjects import SubjectKeys
from langgraph_pgsaga.events.upcasting import Upcasters
from langgraph_pgsaga.work import Claim, Claims, Retry, described

_log = logging.getLogger("langgraph_pgsaga.events")
_NEXT_DUE = load_statements("consumers")["get_next_due"]
_JOB_NAME = "event handlers"
_LEAST_PAUSE_SECONDS = 0.005
_LONGEST_PAUSE_SECONDS = 1.0
# After the last append, since others' open transactions may hold its events back.
_STAYS_SECONDS = 5.0
_MOST_TENANTS = 10_000


class Handlers:
    """Those of a store: each a consumer of its own, in the order in which they were registered."""

    def __init__(self, db: Database, upcasters: Upcasters, subjects: SubjectKeys | None) -> None:
        self._db = db
        self._upcasters = upcasters
        self._subjects = subjects
        self._consumers: dict[str, Consumer] = {}
        # Which of them are refused, by tenant.
        self._prepared: dict[str, set[str]] = {}
        self._runs: dict[tuple[asyncio.AbstractEventLoop, str], _Run] = {}

    @property
    def consumers(self) -> tuple[Consumer, ...]:
        """The handlers."""
        return tuple(self._consumers.values())

    @property
    def predecessors(self) -> dict[str, str]:
        """By the handler's name the one of the same type before it."""
        found: dict[str, str] = {}
        last: dict[tuple[Any, ...], str] = {}
        for one in self._consumers.values():
            kinds = tuple(one.types or ())
            if kinds in last:
                found[one.name] = last[kinds]
            last[kinds] = one.name
        return found

    def register(
        self,
        event_type: EventType | str,
        handler: Callable[..., Any],
        name: str | None,
        retry: Retry | None,
    ) -> None:
        """One more; its name is what its place in the log is kept by."""
        kind = checked_type("event_type", event_type)
        if name is None:
            name = f"{kind}: {_name_of(handler)}"
        made = Consumer(
            name=name, handler=handler, types=[kind], start_from=END, retry=retry or Retry()
        )
        if name in self._consumers:
            problem = f"there is a handler {name!r} already: pass name= of its own for this one"
            raise InvalidArgumentError(argument="handler", problem=problem)
        self._consumers[name] = made
        self._prepared.clear()

    def job(self, tenant_id: str) -> ConsumerJob:
        """What runs them."""
        found = ConsumerJob(
            name=_JOB_NAME,
            db=self._db,
            tenant_id=tenant_id,
            consumers=self.consumers,
            upcasters=self._upcasters,
            subjects=self._subjects,
            concurrency=1,
            predecessors=self.predecessors,
        )
        found.refused.update(self._prepared.get(tenant_id, ()))
        return found

    async def prepare(self, tenant_id: str, conn: Connection | None = None) -> None:
        """Makes their places before a tenant's first append, so that they get it.

        One of whose name there is another doesn't run, and the log says so: no append fails by it.
        """
        if not self._consumers or tenant_id in self._prepared:
            return
        job = self.job(tenant_id)
        await job.prepare(self._db, conn)
        if len(self._prepared) >= _MOST_TENANTS:
            self._prepared.clear()
        self._prepared[tenant_id] = job.refused

    def wake(self, tenant_id: str) -> None:
        """Events were appended, or are about to be committed: they are handled in this loop."""
        if not self._consumers:
            return
        loop = asyncio.get_running_loop()
        run = self._runs.get((loop, tenant_id))
        if run is not None and not run.is_over:
            run.wake()
            return
        for key in [key for key, one in self._runs.items() if key[0].is_closed() or one.is_over]:
            del self._runs[key]
        self._runs[loop, tenant_id] = _Run(self._db, partial(self.job, tenant_id))


def _name_of(handler: Callable[..., Any]) -> str:
    kind = type(handler)
    module = getattr(handler, "__module__", kind.__module__)
    return f"{module}.{getattr(handler, '__qualname__', kind.__qualname__)}"


class _Run:
    """Runs a tenant's handlers in this event loop, as long as there is something to do."""

    def __init__(self, db: Database, job: Callable[[], ConsumerJob]) -> None:
        # From here on it looks at nothing any more: the next append begins another one.
        self.is_over = False
        self._db = db
        # Asked each time, since handlers are registered meanwhile, too.
        self._job = job
        self._woken = asyncio.Event()
        self._woken_at = time.monotonic()
        # Not as part of the run of a graph that appended.
        self.task = asyncio.get_running_loop().create_task(
            self._run(), name="langgraph_pgsaga event handlers", context=contextvars.Context()
        )

    def wake(self) -> None:
        """There is something."""
        self._woken_at = time.monotonic()
        self._woken.set()

    async def _run(self) -> None:
        claims = Claims(self._db)
        try:
            await self._serve(claims)
        except ClosedError:
            return
        except Exception as error:
            _log.warning("handlers are left to a worker, or the next append: %s", described(error))
        finally:
            self.is_over = True
            await claims.aclose()

    async def _serve(self, claims: Claims) -> None:
        pause = _LEAST_PAUSE_SECONDS
        while True:
            self._woken.clear()
            job = self._job()
            found = await claims.claim(job.table, 1)
            for claim in found:
                await _handle(job, claims, claim)
            pause = _LEAST_PAUSE_SECONDS if found else min(pause * 2, _LONGEST_PAUSE_SECONDS)
            stays = time.monotonic() - self._woken_at < _STAYS_SECONDS
            if not found and not stays:
                seconds = await self._next_due(job)
                if self._woken.is_set():  # meanwhile
                    continue
                if seconds is None:
                    self.is_over = True
                    return
                pause = max(_LEAST_PAUSE_SECONDS, min(seconds, 60.0))
            if not found:
                await self._wait(pause)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return

    async def _next_due(self, job: ConsumerJob) -> float | None:
        """In how many seconds one of them is to be tried again; None: none is."""
        names = [consumer.name for consumer in job.consumers]
        bound = _NEXT_DUE.bind(tenant_id=job.tenant_id, consumers=names)
        row = await self._db.fetch_one(bound)
        seconds: float | None = None if row is None else row["seconds"]
        return seconds


async def _handle(job: ConsumerJob, claims: Claims, claim: Claim) -> None:
    try:
        await job.run(claim)
    except asyncio.CancelledError:
        await claims.release([claim])
        raise
    except ClosedError:
        raise
    except Exception as error:
        _log.warning("handlers can't go on just now: %s", described(error))
        delay = job.retry.delay(claim.attempt)
        await claims.fail(claim, error=described(error), delay_seconds=delay)
    finally:
        claims.drop(claim)
