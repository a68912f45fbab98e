"""A worker with a projection, in a process that dies at a point: `DSN NAME LAST`.

Points are around each thing that is sent, commits too, and each call of the handler. It dies at
the point of the number LAST; with 0 it ends once it has come as far as the log.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import signal
import sys
from typing import Any

import asyncpg

from langgraph_pgsaga import Database
from langgraph_pgsaga.database.connection import PlainConnection
from langgraph_pgsaga.events import AgentEvent, EventStore, Projection
from langgraph_pgsaga.work import Worker
from tests.db._consumers import APPLY, is_caught_up

PARTITIONS = 2
LEASE_SECONDS = 0.5
_points = itertools.count(1)


def pass_one(last: int) -> None:
    if next(_points) == last:
        os.kill(os.getpid(), signal.SIGKILL)


def watch(last: int) -> None:
    """Has each thing that is sent be a point before it and one after it."""
    for cls, name in ((PlainConnection, "fetch"), (asyncpg.Connection, "execute")):
        setattr(PlainConnection, name, _around(getattr(cls, name), last))


def _around(real: Any, last: int) -> Any:
    @functools.wraps(real)
    async def call(*args: Any, **kwargs: Any) -> Any:
        pass_one(last)
        answer = await real(*args, **kwargs)
        pass_one(last)
        return answer

    return call


async def main(dsn: str, name: str, last: int) -> None:
    async with Database(dsn) as db:
        store = EventStore(db)

        async def apply(event: AgentEvent, conn: Any) -> None:
            pass_one(last)
            await conn.execute(
                APPLY, event.aggregate_id, event.version, event.event_data["n"], name
            )

        made = Projection(name="totals", handler=apply, partitions=PARTITIONS, batch=5)
        async with Worker(db, store.job(made), lease_seconds=LEASE_SECONDS):
            watch(last)
            while last or not await is_caught_up(store, "totals"):
                await asyncio.sleep(0.02)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
