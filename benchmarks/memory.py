"""Memory: recalls by the size of a scope, and accesses beside a row that has its vector.

    python -m benchmarks.memory [--rounds 40] [--dims 384] [--dsn URL]

Texts are words drawn as often as in a natural language, each memory with the one before as context;
vectors are random, so nothing is said of quality here. Times are end to end, without the embedding:
the median, and the best of all. Without --dsn it is a new embedded server, with fsync on.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg

from langgraph_pgsaga import AgentMemory, Database
from langgraph_pgsaga.database import load_statements
from langgraph_pgsaga.embedded import EmbeddedServer
from langgraph_pgsaga.memory import HYBRID, SEMANTIC, TEXT, Memory, NewMemory

_SIZES = (600, 2000)
_VOCABULARY = [f"w{n:x}" for n in range(6000)]
_FREQUENCIES = [1 / (rank + 10) for rank in range(len(_VOCABULARY))]
_NAIVE_DIMS = 1536
_NAIVE = """
  create table naive (
    memory_id uuid primary key, user_id text, memory_type text, content_text text,
    content_vector real[], importance_score double precision default 0.0,
    access_count integer default 0, last_accessed_at timestamptz default now()
  );
  create index on naive (user_id, memory_type, importance_score desc);
  create index on naive (last_accessed_at, access_count)
"""
_TOUCH = """
  update naive set access_count = access_count + 1, last_accessed_at = clock_timestamp()
  where memory_id = any($1)
"""


def text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(_VOCABULARY, _FREQUENCIES, k=words))


def embedding(rng: random.Random, dims: int) -> Callable[[Sequence[str]], list[list[float]]]:
    return lambda texts: [[rng.gauss(0, 1) for _ in range(dims)] for _ in texts]


async def timed(rounds: int, work: Callable[[], Awaitable[Any]]) -> tuple[float, float]:
    """Milliseconds of a call: the median, and the least."""
    await work()
    found = []
    for _ in range(rounds):
        begun = time.perf_counter()
        await work()
        found.append((time.perf_counter() - begun) * 1000)
    return median(found), min(found)


async def fill(memory: AgentMemory, rng: random.Random, size: int) -> tuple[Memory, ...]:
    said = [text(rng, rng.randint(8, 40)) for _ in range(size)]
    given = [
        NewMemory(text=f"{n} {one}", context=said[n - 1] if n else None)
        for n, one in enumerate(said)
    ]
    return await memory.remember_many(given, user_id=str(size))


async def recalls(memory: AgentMemory, rng: random.Random, rounds: int) -> None:
    """By words, by vectors, by both: for each size of a scope."""
    for size in _SIZES:
        begun = time.perf_counter()
        await fill(memory, rng, size)
        print(f"remember {size} at once: {(time.perf_counter() - begun) * 1000:.0f} ms")
    async with memory.db.transaction() as conn:
        await conn.execute("analyze agent_memory")
        await conn.execute("analyze agent_memory_vectors")
    queries = itertools.cycle([text(rng, 5) for _ in range(40)])
    for size in _SIZES:
        for name, scoring in (("words", TEXT), ("vectors", SEMANTIC), ("hybrid", HYBRID)):

            async def recall(size: int = size, scoring: Any = scoring) -> None:
                await memory.recall(next(queries), user_id=str(size), scoring=scoring, touch=False)

            middle, least = await timed(rounds, recall)
            print(f"recall of {size} by {name}: {middle:.2f} ms, at best {least:.2f} ms")


async def accesses(memory: AgentMemory, rng: random.Random, rounds: int) -> None:
    """A touch of eight memories, beside the same of rows with vectors and indexed counts."""
    stored = await fill(memory, rng, 1000)
    async with memory.db.transaction() as conn:
        await conn.execute(_NAIVE)
        await conn.execute("create extension if not exists vector")
        await conn.execute(
            "alter table naive alter content_vector type vector using content_vector::vector,"
            " alter content_vector set storage plain"
        )
        await conn.execute(
            "insert into naive (memory_id, user_id, memory_type, content_text, content_vector)"
            " select memory_id, user_id, memory_type, content_text,"
            "   array(select random() from generate_series(1, $1) where not m.pinned)::vector"
            " from agent_memory m where user_id = '1000'",
            _NAIVE_DIMS,
        )
    statement = load_statements("memory")["touch_memories"]

    async def touch() -> None:
        chosen = rng.sample(stored, 8)
        await memory.db.fetch(
            statement.bind(
                scope_ids=[one.scope_id for one in chosen],
                memory_ids=[one.memory_id for one in chosen],
                counts=[1] * 8,
                accessed_at=[one.created_at for one in chosen],
            )
        )

    async def naive() -> None:
        chosen = [one.memory_id for one in rng.sample(stored, 8)]
        async with memory.db.transaction() as conn:
            await conn.execute(_TOUCH, chosen)

    for name, work in (("touch", touch), ("naive", naive)):
        async with memory.db.transaction() as conn:
            before = await conn.fetchval("select pg_current_wal_insert_lsn()")
        middle, least = await timed(rounds * 5, work)
        async with memory.db.transaction() as conn:
            size = await conn.fetchval(
                "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1)", before
            )
        each = float(size) / (rounds * 5 + 1) / 8
        print(f"{name} of 8: {middle:.2f} ms, at best {least:.2f} ms, {each:.0f} B of WAL for each")


async def run(dsn: str, dims: int, rounds: int) -> None:
    rng = random.Random(1)
    admin = await asyncpg.connect(dsn)
    name = f"memory_{int(time.time())}"
    await admin.execute(f"create database {name}")
    try:
        database = dsn.replace("/postgres?", f"/{name}?") if "/postgres?" in dsn else dsn
        async with Database(database) as db:
            memory = AgentMemory(db, embed=embedding(rng, dims), dims=dims)
            await memory.setup()
            await recalls(memory, rng, rounds)
            await accesses(memory, rng, rounds)
    finally:
        await admin.execute(f"drop database {name} with (force)")
        await admin.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--dims", type=int, default=384)
    parser.add_argument("--dsn")
    given = parser.parse_args()
    if given.dsn:
        asyncio.run(run(given.dsn, given.dims, given.rounds))
        return
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # run by root, the server is another user's
        with EmbeddedServer.start(Path(folder) / "server") as server:
            asyncio.run(run(server.dsn, given.dims, given.rounds))


if __name__ == "__main__":
    main()
