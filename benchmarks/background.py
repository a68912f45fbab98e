"""Work in the background: how soon it begins, and how much of it there may be.

`python -m benchmarks.background` prints the figures; on the embedded server, in one process. News
are those of another Database than the one that waits.
"""

from __future__ import annotations

import asyncio
import random
import time

from langgraph_pgsaga import Database
from langgraph_pgsaga.embedded import EmbeddedServer
from langgraph_pgsaga.work import Claims, Notifier, Periodic, Watch

_NEWS = 500
_ROUNDS = 500
_WATCHES = 1000


async def measured(dsn: str) -> None:
    """Prints all figures."""
    async with Database(dsn) as db, Database(dsn) as sender:
        await db.setup()
        print(f"news, ms until the consumer is called: {await _news(db, sender)}")
        print(f"claim and outcome, per s: {await _claims(db):,.0f}")
        print(
            f"{_WATCHES:,} watches that poll every second, % of a processor: {await _idle(db):.1f}"
        )


async def _news(db: Database, sender: Database) -> str:
    called = asyncio.Event()
    watch = Notifier.of(db).watch("benchmark", called.set, longest_seconds=600)
    await asyncio.sleep(1)  # by then it listens
    waits = []
    for _ in range(_NEWS):
        for _ in range(20):
            watch.again(found=False)
        called.clear()
        await asyncio.sleep(random.uniform(0, 0.03))
        begun = time.perf_counter()
        Notifier.of(sender).notify("benchmark")
        await called.wait()
        waits.append((time.perf_counter() - begun) * 1000)
    watch.close()
    waits.sort()
    return f"p50 {waits[_NEWS // 2]:.1f}, p95 {waits[_NEWS * 95 // 100]:.1f}, max {waits[-1]:.1f}"


async def _claims(db: Database) -> float:
    async def nothing() -> None:
        """No work."""

    job = Periodic(name="benchmark", every_seconds=1, work=nothing)
    await job.prepare(db)
    claims = Claims(db)
    begun = time.perf_counter()
    for _ in range(_ROUNDS):
        async with db.transaction() as conn:
            await conn.execute("update agent_jobs set due_at = now()")
        (claim,) = await claims.claim(job.table, 1)
        await job.run(claim)
        claims.drop(claim)
    taken = time.perf_counter() - begun
    await claims.aclose()
    return _ROUNDS / taken


async def _idle(db: Database) -> float:
    notifier = Notifier.of(db)
    watches: list[Watch] = []
    for number in range(_WATCHES):

        def look(number: int = number) -> None:
            watches[number].again(found=False)

        watches.append(notifier.watch(f"topic {number}", look))
    await asyncio.sleep(3)
    used = time.process_time()
    await asyncio.sleep(5)
    used = time.process_time() - used
    for watch in watches:
        watch.close()
    return used / 5 * 100


def main() -> None:
    with EmbeddedServer.start_default() as server:
        asyncio.run(measured(server.dsn))


if __name__ == "__main__":
    main()
