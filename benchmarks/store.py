"""The store beside LangGraph's PostgresStore: puts, batches, searches and bytes.

    python -m benchmarks.store [--items 20000] [--rounds 3] [--dsn URL]

Both work on one server, each in a database of its own, in turns; a ratio is the median of the
rounds' ratios, above 1 where ours is faster (of bytes: smaller below 1). LangGraph's store has a
pool of 8 connections, and its own settings but for the index that is named: where there is none its
setup makes one all the same, which is dropped. Embeddings are random vectors of 384 numbers that
cost nothing, the same for both.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from statistics import median
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from langchain_core.embeddings import Embeddings
from langgraph.store.base import BaseStore, PutOp
from langgraph.store.postgres import AsyncPostgresStore

from benchmarks.events import _server as server_of
from langgraph_pgsaga.memory import MemoryStore

_DIMS = 384
_NAMESPACES = 200
_BATCH = 1000
_SINGLE = 200
_SEARCHES = 100
_numbers = itertools.count()


class RandomVectors(Embeddings):
    """A text's vector is random, the same each time."""

    def __init__(self) -> None:
        self._vectors: dict[str, list[float]] = {}

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        if text not in self._vectors:
            seeded = random.Random(text)
            self._vectors[text] = [seeded.uniform(-1, 1) for _ in range(_DIMS)]
        return self._vectors[text]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.embed_documents(texts)

    async def aembed_query(self, text: str) -> list[float]:
        return self.embed_query(text)


EMBED = RandomVectors()


def index_of(kind: str) -> Any:
    return {"dims": _DIMS, "embed": EMBED, "fields": ["text"], "ann_index_config": {"kind": kind}}


def puts(count: int, *, namespaces: int = _NAMESPACES) -> list[PutOp]:
    """Puts of new items; their vectors are made here, so that nobody's time has that."""
    made = []
    for number in itertools.islice(_numbers, count):
        text = f"what the user said, number {number}"
        EMBED.embed_query(text)
        value = {"text": text, "kind": "fact", "number": number}
        made.append(PutOp(("users", str(number % namespaces)), str(number), value))
    return made


async def timed(work: Callable[[], Awaitable[Any]]) -> float:
    begun = time.perf_counter()
    await work()
    return time.perf_counter() - begun


async def fill(store: BaseStore, items: Sequence[PutOp]) -> None:
    for chunk in (items[n : n + _BATCH] for n in range(0, len(items), _BATCH)):
        await store.abatch(chunk)


async def single_puts(store: BaseStore, items: Sequence[PutOp]) -> None:
    for op in items:
        await store.aput(op.namespace, op.key, op.value or {})


async def searches(store: BaseStore, queries: Sequence[tuple[str, str]]) -> None:
    for namespace, query in queries:
        found = await store.asearch(("users", namespace), query=query, limit=10)
        assert len(found) == 10


async def gets(store: BaseStore, items: Sequence[PutOp]) -> None:
    for op in items:
        assert await store.aget(op.namespace, op.key) is not None


Pair = tuple[BaseStore, BaseStore]


async def both(pair: Pair, work: Callable[[BaseStore], Awaitable[Any]]) -> tuple[float, float]:
    """The seconds of each, who goes first by chance."""
    taken = {}
    for place in random.sample((0, 1), 2):
        taken[place] = await timed(lambda store=pair[place]: work(store))  # type: ignore[misc]
    return taken[0], taken[1]


async def bytes_of(dsn: str, table: str) -> int:
    conn = await asyncpg.connect(dsn)
    await conn.execute(f"vacuum {table}")
    size: int = await conn.fetchval("select pg_table_size($1::regclass)", table)
    await conn.close()
    return size


async def measured(dsns: tuple[str, str], items: int, kind: str) -> dict[str, tuple[float, float]]:
    """Ours and theirs, in seconds, and the bytes of the tables of vectors."""
    own, other = dsns
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(
            MemoryStore.from_conn_string(own, index=index_of(kind))
        )
        pool: Any = {"min_size": 8, "max_size": 8}
        theirs = await stack.enter_async_context(
            AsyncPostgresStore.from_conn_string(other, pool_config=pool, index=index_of("hnsw"))
        )
        await ours.asetup()
        await theirs.setup()
        if kind == "flat":
            await _execute(other, "drop index store_vectors_embedding_idx")
        pair = ours, theirs
        warm = puts(50)
        for store in pair:
            await fill(store, warm)
        found: dict[str, tuple[float, float]] = {}
        batch = puts(_BATCH)
        name = f"batch put of {_BATCH:,}, index {kind}, ms"
        found[name] = await both(pair, lambda store: store.abatch(batch))
        if kind != "flat":
            return found
        single = puts(_SINGLE)
        found[f"{_SINGLE} single puts, ms"] = await both(pair, lambda s: single_puts(s, single))
        found[f"{_SINGLE} gets, ms"] = await both(pair, lambda s: gets(s, single))
        rest = puts(items - _BATCH)
        for store in pair:
            await fill(store, rest)
        for dsn in dsns:
            await _execute(dsn, "vacuum analyze")
        queries = [(str(random.randrange(_NAMESPACES)), f"question {n}") for n in range(_SEARCHES)]
        found[f"{_SEARCHES} searches by query, {items:,} items, ms"] = await both(
            pair, lambda store: searches(store, queries)
        )
        found["MB of vectors"] = (
            await bytes_of(own, "agent_store_vectors") / 1e9,
            await bytes_of(other, "store_vectors") / 1e9,
        )
        return found


async def _execute(dsn: str, statement: str) -> None:
    conn = await asyncpg.connect(dsn)
    await conn.execute(statement)
    await conn.close()


async def rounds(server: str, count: int, items: int) -> None:
    """Measures, and prints the medians."""
    results: list[dict[str, tuple[float, float]]] = []
    admin = await asyncpg.connect(server)
    for number in range(count):
        result: dict[str, tuple[float, float]] = {}
        for kind in ("flat", "hnsw"):
            names = [f"pgsaga_bench_store_{os.getpid()}_{number}_{kind}_{who}" for who in "ab"]
            for name in names:
                await admin.execute(f'create database "{name}"')
            own, other = (urlunsplit(urlsplit(server)._replace(path=f"/{name}")) for name in names)
            result |= await measured((own, other), items, kind)
            for name in names:
                await admin.execute(f'drop database "{name}" with (force)')
        results.append(result)
    await admin.close()
    print(f"{'':48} {'ratio':>6} {'ours':>9} {'theirs':>9}")
    for measure in results[0]:
        pairs = [result[measure] for result in results]
        is_size = measure.startswith("MB")
        ratio = median(own / other if is_size else other / own for own, other in pairs)
        own, other = (median(side) * 1e3 for side in zip(*pairs, strict=True))
        print(f"{measure:48} {ratio:6.2f} {own:9,.1f} {other:9,.1f}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store")
    parser.add_argument("--items", type=int, default=20_000, help="in 200 namespaces (20,000)")
    parser.add_argument("--rounds", type=int, default=3, help="(3)")
    parser.add_argument("--dsn", help="a URL of a server to make databases on")
    given = parser.parse_args()
    with server_of(given.dsn) as dsn:
        asyncio.run(rounds(dsn, given.rounds, given.items))
    return 0


if __name__ == "__main__":
    sys.exit(main())
