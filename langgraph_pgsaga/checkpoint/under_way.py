"""Calls of runs with leases that aren't stored yet, also where their run is over already."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from uuid import UUID

from langgraph_pgsaga import _fork
from langgraph_pgsaga.checkpoint.lease import Lease
from langgraph_pgsaga.checkpoint.run import Owner

_log = logging.getLogger("langgraph_pgsaga.checkpoint")
_TOLD_EVERY_SECONDS = 5.0
# What waits for a call in LangGraph, such as the next checkpoint, calls within so many.
_TURNS_BETWEEN = 4
_NOT_NOTED: AbstractContextManager[None] = nullcontext()


class CallsUnderWay:
    """Those of one saver, from when they are made until they are stored, or aren't.

    A run that is cancelled while it ends leaves calls behind that nobody waits for. Stored late,
    one would shut out the run that has begun meanwhile. Safe to use from several threads.
    """

    def __init__(self) -> None:
        self.after_fork()
        _fork.watch(self)

    def after_fork(self) -> None:
        """The parent's calls are the parent's."""
        self._calls: dict[UUID, dict[Future[None], Owner]] = {}
        self._lock = threading.Lock()

    def noted(self, lease: Lease | None) -> AbstractContextManager[None]:
        """The block is a call under this lease; one that is no run's isn't noted."""
        if lease is None or lease.course is None:
            return _NOT_NOTED
        return self._noted(lease.session_id, lease.course.owner)

    @contextmanager
    def _noted(self, session_id: UUID, owner: Owner) -> Iterator[None]:
        done: Future[None] = Future()
        done.set_running_or_notify_cancel()  # so that who waits for it can't cancel it
        with self._lock:
            self._calls.setdefault(session_id, {})[done] = owner
        try:
            yield
        finally:
            with self._lock:
                calls = self._calls.get(session_id, {})
                calls.pop(done, None)
                if not calls:
                    self._calls.pop(session_id, None)
            done.set_result(None)

    async def settle(self, session_id: UUID) -> None:
        """Returns when no run of the session that is over has calls under way."""
        begun = time.monotonic()
        while left := self._left(session_id):
            waited_for = [asyncio.wrap_future(done) for done in left]
            _, pending = await asyncio.wait(waited_for, timeout=_TOLD_EVERY_SECONDS)
            if pending:
                told = "session %s: %d calls of runs that ended are waited for, for %.0f s now"
                _log.warning(told, session_id, len(pending), time.monotonic() - begun)
            for _ in range(_TURNS_BETWEEN):
                await asyncio.sleep(0)

    def _left(self, session_id: UUID) -> list[Future[None]]:
        with self._lock:
            calls = [*self._calls.get(session_id, {}).items()]
        return [done for done, owner in calls if owner.is_elsewhere]
