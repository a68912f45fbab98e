"""Which workers there are."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from langgraph_pgsaga import __version__
from langgraph_pgsaga.database import BoundStatement, Database, load_statements

_STATEMENTS = load_statements("work")
HEARTBEAT_SECONDS = 10.0
_SILENT_SECONDS = 60.0
_DEAD_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """A worker as it was when read.

    `is_alive` is whether it said so within the last minute. The row of one that died stays for an
    hour; one that ended as it should has none. Since `draining_at` it takes on nothing new.
    """

    worker_id: UUID
    host: str
    pid: int
    version: str
    jobs: tuple[str, ...]
    started_at: datetime
    heartbeat_at: datetime
    draining_at: datetime | None
    is_alive: bool

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> WorkerInfo:
        """The worker of a row that has these columns."""
        return cls(**{**dict(row), "jobs": tuple(row["jobs"])})


async def list_workers(db: Database) -> list[WorkerInfo]:
    """All workers of the database, the oldest first."""
    bound = _STATEMENTS["list_workers"].bind(silent_seconds=_SILENT_SECONDS)
    return [WorkerInfo.from_row(row) for row in await db.fetch(bound)]


def heartbeat(worker_id: UUID, jobs: Sequence[str], *, is_draining: bool) -> BoundStatement:
    """A worker of this process says that it is alive."""
    return _STATEMENTS["upsert_worker"].bind(
        worker_id=worker_id,
        host=socket.gethostname(),
        pid=os.getpid(),
        version=__version__,
        jobs=list(jobs),
        is_draining=is_draining,
    )


def farewell(worker_id: UUID) -> BoundStatement:
    """It ends."""
    return _STATEMENTS["delete_worker"].bind(worker_id=worker_id)


def burial() -> BoundStatement:
    """Those that died long ago have no row any more."""
    return _STATEMENTS["delete_dead_workers"].bind(silent_seconds=_DEAD_SECONDS)
