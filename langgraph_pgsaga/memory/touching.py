"""Touches: accesses of memories, counted apart from the calls that read them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from uuid import UUID
from weakref import WeakKeyDictionary

from langgraph_pgsaga.database import Database, load_statements
from langgraph_pgsaga.errors import PgSagaError

_log = logging.getLogger("langgraph_pgsaga.memory")
_STATEMENTS = load_statements("memory")
_AFTER_SECONDS = 0.5

Key = tuple[UUID, UUID]


class _Waiting:
    """What an event loop has counted and not written yet, and who writes it."""

    def __init__(self) -> None:
        self.counts: dict[Key, tuple[int, datetime]] = {}
        self.timer: asyncio.TimerHandle | None = None
        self.writing: set[asyncio.Task[None]] = set()


class Touches:
    """Counts of accesses, which are written together, half a second after the first of them.

    Those that a process has counted when it ends, and not written, are lost.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._waiting: WeakKeyDictionary[asyncio.AbstractEventLoop, _Waiting] = WeakKeyDictionary()

    def add(self, keys: Iterable[Key]) -> None:
        """Counts an access of each scope's memory; it doesn't wait."""
        loop = asyncio.get_running_loop()
        waiting = self._waiting.setdefault(loop, _Waiting())
        now = datetime.now(UTC)
        for key in keys:
            count, _ = waiting.counts.get(key, (0, now))
            waiting.counts[key] = (count + 1, now)
        if waiting.counts and waiting.timer is None:
            waiting.timer = loop.call_later(_AFTER_SECONDS, self._begin, waiting)

    async def flush(self) -> None:
        """Writes what this event loop has counted."""
        waiting = self._waiting.setdefault(asyncio.get_running_loop(), _Waiting())
        if waiting.timer is not None:
            waiting.timer.cancel()
            waiting.timer = None
        await asyncio.gather(*waiting.writing)
        await self._write(waiting)

    def _begin(self, waiting: _Waiting) -> None:
        waiting.timer = None
        task = asyncio.get_running_loop().create_task(self._written(waiting))
        waiting.writing.add(task)
        task.add_done_callback(waiting.writing.discard)

    async def _written(self, waiting: _Waiting) -> None:
        try:
            await self._write(waiting)
        except PgSagaError as error:
            _log.warning("accesses of memories weren't counted: %s", error)

    async def _write(self, waiting: _Waiting) -> None:
        counts, waiting.counts = waiting.counts, {}
        if counts:
            statement = _STATEMENTS["touch_memories"].bind(
                scope_ids=[scope_id for scope_id, _ in counts],
                memory_ids=[memory_id for _, memory_id in counts],
                counts=[count for count, _ in counts.values()],
                accessed_at=[at for _, at in counts.values()],
            )
            # Twice would count twice.
            await self._db.fetch(statement, repeat=False)
