"""Workers that are killed anywhere leave what their projection did once, in order."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

import pytest

from langgraph_pgsaga import Database
from langgraph_pgsaga.database import Connection
from langgraph_pgsaga.events import AgentEvent, EventStore, Projection
from langgraph_pgsaga.work import Worker
from tests import _chores
from tests._connections import connected
from tests.db import _consumers
from tests.db._consumer_process import PARTITIONS
from tests.db._events import everything, noted, settled

pytestmark = [pytest.mark.anyio, pytest.mark.alone]
FULL = bool(os.environ.get("PGSAGA_FULL"))
ROOT = Path(__file__).resolve().parents[2]
KILLS = 200 if FULL else 6
AGGREGATES = 7
# Of a process that works at a dozen events.
_MOST_POINTS = 80


async def start(dsn: str, name: str, last: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.db._consumer_process", dsn, name, str(last)),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )


async def ended(store: EventStore, process: asyncio.subprocess.Process) -> None:
    """Returns when it has died, or is killed once there is nothing more for it to do."""

    async def is_over() -> bool:
        return process.returncode is not None or await _consumers.is_caught_up(store, "totals")

    await _consumers.until(is_over)
    if process.returncode is None:
        process.kill()
    await process.wait()


async def test_killed_workers_apply_each_event_once_and_in_order(dsn: str) -> None:
    """Two processes at a time, one of which dies at a random point; what they applied is the log.

    A worker that takes over waits for the lease of the one that died, and no longer.
    """
    await _consumers.make(dsn)
    async with Database(dsn) as db:
        store = EventStore(db)
        for number in range(KILLS):
            for aggregate in range(AGGREGATES):
                events = [noted(number), noted(number)]
                await store.append(f"a{aggregate}", events, aggregate_type="desk")
            await settled(store)
            dying = await start(dsn, f"dies {number}", random.randint(1, _MOST_POINTS))
            # What is left, or was never begun, is the next one's.
            if number % 6 == 3:
                other = await start(dsn, f"stays {number}", 0)
                _, said = await other.communicate()
                assert other.returncode == 0, said
            await ended(store, dying)
            assert dying.returncode == -signal.SIGKILL
        last = await start(dsn, "last", 0)
        _, said = await last.communicate()
        assert last.returncode == 0, said
        log = [(e.aggregate_id, e.version, e.event_data["n"]) for e in await everything(store)]
    rows = [row[:3] for row in await _consumers.applied(dsn)]
    assert sorted(rows) == sorted(log)
    for aggregate in range(AGGREGATES):
        versions = [version for name, version, _ in rows if name == f"a{aggregate}"]
        assert versions == sorted(versions)


async def test_a_killed_workers_partitions_are_anothers_once_its_lease_has_ended(dsn: str) -> None:
    """Not before, by the server's clock, and with the next look, which is within a second."""
    await _consumers.make(dsn)

    async def apply(event: AgentEvent, conn: Connection) -> None:
        at = (event.aggregate_id, event.version, event.event_data["n"])
        await conn.execute(_consumers.APPLY, *at, "next")

    async with Database(dsn) as db, connected(dsn) as conn:
        store = EventStore(db)
        await conn.execute("alter table applied add done_at timestamptz default clock_timestamp()")
        for aggregate in range(AGGREGATES):
            await store.append(f"a{aggregate}", [noted(0)], aggregate_type="desk")
        await settled(store)
        async with conn.transaction():
            await conn.execute("lock table applied in exclusive mode")  # to be killed in handlers
            dying = await start(dsn, "dies", 0)
            await _chores.until(dsn, "count(claimed_by) = 2 from event_consumers")
            dying.kill()
            await dying.wait()
        leases = await conn.fetch("select partition, claim_expires_at from event_consumers")
        made = Projection(name="totals", handler=apply, partitions=PARTITIONS)
        async with Worker(db, store.job(made)):
            begun_at = await conn.fetchval("select clock_timestamp()")
            await _consumers.until(lambda: _consumers.is_caught_up(store, "totals"))
        rows = await conn.fetch(
            "select pgsaga_event_partition('desk', aggregate_id, $1) as partition, by_whom, "
            "done_at from applied",
            PARTITIONS,
        )
    ends = {row["partition"]: row["claim_expires_at"] for row in leases}
    assert [row["by_whom"] for row in rows] == ["next"] * AGGREGATES
    for row in rows:
        end = ends[row["partition"]]
        assert row["done_at"] >= end
        # A look a second, and what a busy machine takes; a lease that isn't the process's is 30 s.
        assert (row["done_at"] - max(end, begun_at)).total_seconds() < 10
