"""Events: appends, batches, readers and conditions, each beside what it is held against.

    python -m benchmarks.events [--seconds 3] [--rounds 3] [--flush-ms 0] [--dsn URL]

Contenders work on one server, each in a database of its own, in rounds that take turns; a ratio is
the median of the rounds' ratios. Without --dsn it is a new embedded server, fsync on, on a disk
whose time for a flush is printed. The recorders of the `eventsourcing` library are left out where
it isn't installed.

A slower disk is had by connections with commit_delay and commit_siblings = 0, for which the role
has to be a superuser: each flush of the log begins with a pause, in which there is no other one.
Who commits meanwhile goes with it, while with a disk that takes so long he waits for the next
one. What is held against a lock of the table is measured at a pause of 1 ms; with --flush-ms all
else is, too, at that.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

import asyncpg

from langgraph_pgsaga import Database
from langgraph_pgsaga.database import Statement
from langgraph_pgsaga.embedded import EmbeddedServer
from langgraph_pgsaga.events import AgentEvent, Condition, Consumer, EventStore
from langgraph_pgsaga.work import Worker

_DATA = {"step": "answer", "status": "completed", "output": {"cents": 900, "note": "x" * 100}}
_WRITERS = 16
_JSON = json.dumps(_DATA)
_BARE = Statement(
    name="insert_bare",
    text="""
      insert into agent_events
        (aggregate_id, aggregate_type, version, era, event_id, event_type, event_data)
      values ($1, 'desk', 1, 1, $2, 'noted', $3)
    """,
    params=(("aggregate_id", "text"), ("event_id", "text"), ("event_data", "jsonb")),
    columns=(),
    shard="all",
)
_HELD = Statement(
    name="count_events",
    text="select count(*) as events from agent_events",
    params=(),
    columns=(("events", "bigint"),),
    shard="all",
)
_LOCKED_WRITERS = 32
_FLUSHES = 200
_numbers = itertools.count()
_SLOW_FLUSH = {"commit_delay": "1000", "commit_siblings": "0"}
_BATCH = 1000
_LEAST_CONSUMED = 100_000

Work = Callable[[], Awaitable[None]]


def event(*tags: str) -> AgentEvent:
    return AgentEvent(event_type="noted", event_data=_DATA, tags=tags)


class Bench:
    """A database with a store, and what is measured on it, per second."""

    def __init__(self, db: Database, seconds: float) -> None:
        self.db = db
        self.store = EventStore(db)
        self._seconds = seconds
        self.own: Any = None

    def name(self) -> str:
        return f"{os.getpid()} {next(_numbers)}"

    async def rate(self, work: Work, writers: int) -> float:
        """Calls per second of so many tasks."""
        done = 0
        began = time.perf_counter()

        async def write() -> None:
            nonlocal done
            while time.perf_counter() - began < self._seconds:
                await work()
                done += 1

        await asyncio.gather(*(write() for _ in range(writers)))
        return done / (time.perf_counter() - began)

    async def append(self) -> None:
        await self.store.append(self.name(), [event()], aggregate_type="desk")

    async def bare(self) -> None:
        """The same row by a plain insert."""
        bound = _BARE.bind(aggregate_id=self.name(), event_id=event().event_id, event_data=_JSON)
        await self.db.fetch(bound)

    async def batch(self) -> None:
        events = [event() for _ in range(_BATCH)]
        await self.store.append(self.name(), events, aggregate_type="desk")

    async def copy(self) -> None:
        """The same rows by COPY."""
        name = self.name()
        records = [
            (name, "desk", version, 1, event().event_id, "noted", _JSON)
            for version in range(1, _BATCH + 1)
        ]
        columns = ["aggregate_id", "aggregate_type", "version", "era", "event_id", "event_type"]
        columns.append("event_data")
        self.own = self.own or await self.db.connect()
        await self.own.copy_records_to_table("agent_events", records=records, columns=columns)

    async def locked(self) -> None:
        """As logs are that number their events under a lock of the table."""
        async with self.db.transaction() as conn:
            await conn.execute("lock table agent_events in share row exclusive mode")
            await self.store.append(self.name(), [event()], aggregate_type="desk", conn=conn)

    async def conditional(self) -> None:
        name = self.name()
        condition = Condition(types=["noted"], tags=[name])
        await self.store.append(name, [event(name)], aggregate_type="desk", condition=condition)

    async def caught_up(self) -> float:
        """Events per second of a reader of the whole log."""
        page = await self.store.read_all(limit=1)
        count, began = 0, time.perf_counter()
        while True:
            page = await self.store.read_all(after=page.next_cursor, limit=5000)
            count += len(page.events)
            if page.is_last or time.perf_counter() - began > self._seconds:
                return count / (time.perf_counter() - began)

    async def consumed(self) -> float:
        """Events per second of a new consumer whose handler does nothing, from its first on."""
        held = await self.db.fetch(_HELD)
        least = min(held[0]["events"], _LEAST_CONSUMED)
        count, began = 0, 0.0
        is_over = asyncio.Event()

        async def handle(events: Sequence[AgentEvent]) -> None:
            nonlocal count, began
            began = began or time.perf_counter()
            count += len(events)
            if count >= least or time.perf_counter() - began > self._seconds:
                is_over.set()

        made = Consumer(name=self.name(), handler=handle, in_batches=True, batch=5000)
        async with Worker(self.db, self.store.job(made)):
            await is_over.wait()
            return count / (time.perf_counter() - began)

    async def followed(self, readers: int) -> float:
        """Appends per second under so many subscribers."""
        start = await self.store.latest()

        async def read() -> None:
            async for _ in self.store.subscribe(after=start):
                pass

        tasks = [asyncio.create_task(read()) for _ in range(readers)]
        try:
            return await self.rate(self.append, _WRITERS)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class Library:
    """The recorders of the eventsourcing library."""

    def __init__(self, dsn: str, seconds: float) -> None:
        from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore

        parts = urlsplit(dsn)
        query = dict(pair.split("=", 1) for pair in parts.query.split("&") if pair)
        self.store = PostgresDatastore(
            dbname=parts.path.removeprefix("/"),
            host=query.get("host") or parts.hostname or "",
            port=query.get("port") or str(parts.port or 5432),
            user=parts.username or "postgres",
            password=parts.password or "",
            pool_size=_WRITERS,
            max_overflow=_WRITERS,
        )
        self.recorder = PostgresApplicationRecorder(self.store, events_table_name="recorded")
        self.recorder.create_table()
        self._seconds = seconds

    def rate(self) -> float:
        """Inserts per second of 16 threads."""
        from uuid import uuid4

        from eventsourcing.persistence import StoredEvent

        state = b"x" * 160
        began = time.perf_counter()

        def write() -> int:
            done = 0
            while time.perf_counter() - began < self._seconds:
                self.recorder.insert_events([StoredEvent(uuid4(), 1, "noted", state)])
                done += 1
            return done

        with ThreadPoolExecutor(_WRITERS) as pool:
            total = sum(pool.map(lambda _: write(), range(_WRITERS)))
        return total / (time.perf_counter() - began)

    def dcb_rate(self) -> float:
        """Conditional appends per second of 16 threads, each with a tag of its own."""
        from uuid import uuid4

        from eventsourcing.dcb.api import DCBAppendCondition, DCBEvent, DCBQuery, DCBQueryItem
        from eventsourcing.dcb.postgres_tt import PostgresDCBRecorderTT

        recorder = PostgresDCBRecorderTT(self.store)
        recorder.create_table()
        began = time.perf_counter()

        def write() -> int:
            done = 0
            while time.perf_counter() - began < self._seconds:
                tag = str(uuid4())
                query = DCBQuery(items=[DCBQueryItem(types=["noted"], tags=[tag])])
                made = DCBEvent(type="noted", data=b"x" * 160, tags=[tag])
                recorder.append([made], DCBAppendCondition(fail_if_events_match=query, after=None))
                done += 1
            return done

        with ThreadPoolExecutor(_WRITERS) as pool:
            total = sum(pool.map(lambda _: write(), range(_WRITERS)))
        return total / (time.perf_counter() - began)


async def connected(db: Database) -> None:
    """Opens all of its connections, which is nobody's time."""
    are_open = asyncio.Barrier(_LOCKED_WRITERS)

    async def hold() -> None:
        async with db.transaction():
            await are_open.wait()

    await asyncio.gather(*(hold() for _ in range(_LOCKED_WRITERS)))


async def measured(dsn: str, seconds: float) -> dict[str, tuple[float, float]]:
    """One round: of each measure the rate, and the rate of what it is held against."""
    async with Database(dsn, max_size=_LOCKED_WRITERS) as db:
        bench = Bench(db, seconds)
        await bench.store.initialize()
        await bench.store.guard(["other"])
        await connected(db)
        found = {
            "append / bare insert, 1 writer": (
                await bench.rate(bench.append, 1),
                await bench.rate(bench.bare, 1),
            ),
            "append / bare insert, 16 writers": (
                await bench.rate(bench.append, _WRITERS),
                await bench.rate(bench.bare, _WRITERS),
            ),
            "batch of 1,000 / COPY": (
                _BATCH * await bench.rate(bench.batch, 1),
                _BATCH * await bench.rate(bench.copy, 1),
            ),
            "append with 16 subscribers / without": (
                await bench.followed(16),
                await bench.followed(0),
            ),
            "events read per second / 50,000": (await bench.caught_up(), 50_000.0),
            "events consumed per second / 50,000": (await bench.consumed(), 50_000.0),
        }
        with suppress(ImportError):
            library = await asyncio.to_thread(Library, dsn, seconds)
            recorded = await asyncio.to_thread(library.rate)
            own = await bench.rate(bench.append, _WRITERS)
            found["append / eventsourcing's recorder, 16 writers"] = (own, recorded)
            await bench.store.guard(["noted"])
            conditional = await bench.rate(bench.conditional, _WRITERS)
            with suppress(ImportError):
                dcb = await asyncio.to_thread(library.dcb_rate)
                found["conditional / eventsourcing's DCB recorder, 16"] = (conditional, dcb)
            await asyncio.to_thread(library.store.close)
        await bench.own.close()
        return found


async def at_slow_flush(dsn: str, seconds: float) -> tuple[float, float]:
    """Appends of many writers, and the same under a lock of the table, at a flush of 1 ms."""
    separator = "&" if urlsplit(dsn).query else "?"
    slow = f"{dsn}{separator}{urlencode(_SLOW_FLUSH)}"
    async with Database(slow, max_size=_LOCKED_WRITERS) as db:
        bench = Bench(db, seconds)
        await connected(db)
        own = await bench.rate(bench.append, _LOCKED_WRITERS)
        return own, await bench.rate(bench.locked, _LOCKED_WRITERS)


def flush_seconds(folder: Path) -> float:
    """The median of what a flush of a page takes there, as a commit does it."""
    taken = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(_FLUSHES):
            os.pwrite(file.fileno(), bytes(8192), 0)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    return median(taken)


async def slow_down(admin: asyncpg.Connection[asyncpg.Record], name: str, flush_ms: float) -> None:
    """Has everybody's flushes in that database begin with a pause."""
    for setting, value in (("commit_delay", round(flush_ms * 1000)), ("commit_siblings", 0)):
        await admin.execute(f'alter database "{name}" set {setting} = {value}')


async def rounds(server: str, count: int, seconds: float, flush_ms: float) -> None:
    """Measures, and prints the medians."""
    results: list[dict[str, tuple[float, float]]] = []
    admin = await asyncpg.connect(server)
    for number in range(count):
        name = f"pgsaga_bench_events_{os.getpid()}_{number}"
        await admin.execute(f'create database "{name}"')
        if flush_ms:
            await slow_down(admin, name, flush_ms)
        try:
            dsn = urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
            found = await measured(dsn, seconds)
            found["append / under a table lock, 32, 1 ms"] = await at_slow_flush(dsn, seconds)
            results.append(found)
        finally:
            await admin.execute(f'drop database "{name}" with (force)')
    await admin.close()
    print(f"{'':48} {'ratio':>6} {'per second':>11} {'against':>11}")
    for measure in results[0]:
        pairs = [result[measure] for result in results if measure in result]
        ratio = median(own / other for own, other in pairs)
        own, other = (median(side) for side in zip(*pairs, strict=True))
        print(f"{measure:48} {ratio:6.2f} {own:11,.0f} {other:11,.0f}")


@contextmanager
def _server(dsn: str | None) -> Iterator[str]:
    if dsn is not None:
        yield dsn
        return
    folder = Path(tempfile.mkdtemp(prefix="pgsaga-bench-"))
    try:
        folder.chmod(0o755)  # run by root, the server is another user's
        print(f"a flush takes {flush_seconds(folder) * 1e3:.2f} ms")
        with EmbeddedServer.start(folder / "server") as server:
            yield server.dsn
    finally:
        shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.events")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measure (3)")
    parser.add_argument("--rounds", type=int, default=3, help="(3)")
    parser.add_argument("--flush-ms", type=float, default=0.0, help="a pause before each (0)")
    parser.add_argument("--dsn", help="a URL of a server to make databases on")
    given = parser.parse_args()
    with _server(given.dsn) as dsn:
        asyncio.run(rounds(dsn, given.rounds, given.seconds, given.flush_ms))
    return 0


if __name__ == "__main__":
    sys.exit(main())
