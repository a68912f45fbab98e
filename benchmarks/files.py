"""deepagents' files: FileBackend beside StoreBackend, both on MemoryStore.

    python -m benchmarks.files [--files 10000] [--rounds 3] [--dsn URL]

The same files in one store: of 40 lines each, in 100 directories. A ratio is the median of the
rounds' ratios, above 1 where FileBackend is faster. Edits are of one file, by 16 tasks at once:
there the number is how many were kept, of 100.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import sys
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from langgraph.store.base import PutOp

from benchmarks.events import _server as server_of
from langgraph_pgsaga.memory import MemoryStore

_NAMESPACE = ("files",)
_EDITS, _TASKS = 100, 16
Call = Callable[[Any], Awaitable[Any]]
CALLS: dict[str, Call] = {
    "ls of the root": lambda backend: backend.als("/"),
    "ls of a directory": lambda backend: backend.als("/d7"),
    "glob **/*77.md": lambda backend: backend.aglob("**/*77.md"),
    "glob d7/*.md": lambda backend: backend.aglob("d7/*.md"),
    "grep of all": lambda backend: backend.agrep("word 777 "),
    "grep of a directory": lambda backend: backend.agrep("word 777 ", "/d7"),
}


def pair_of(store: MemoryStore) -> tuple[Any, Any]:
    """Ours and theirs."""
    theirs = importlib.import_module("deepagents.backends.store").StoreBackend
    ours = importlib.import_module("langgraph_pgsaga.memory.files").FileBackend
    return ours(namespace=_NAMESPACE, store=store), theirs(
        namespace=lambda _: _NAMESPACE, store=store
    )


async def fill(store: MemoryStore, count: int) -> None:
    """Puts the files, a thousand at a time."""
    at = "2026-01-01T00:00:00+00:00"
    for begin in range(0, count, 1000):
        puts = []
        for number in range(begin, min(begin + 1000, count)):
            text = "\n".join(f"line {n}, word {number} of it" for n in range(40))
            value = {"content": text, "encoding": "utf-8", "created_at": at, "modified_at": at}
            puts.append(PutOp(_NAMESPACE, f"/d{number % 100}/f{number}.md", value))
        await store.abatch(puts)


async def seconds(call: Call, backend: Any) -> float:
    begun = time.perf_counter()
    await call(backend)
    return time.perf_counter() - begun


async def kept(backend: Any) -> int:
    """How many edits of one file are there, of as many that were acknowledged."""
    await backend.awrite("/one", "".join(f"[{n}]" for n in range(_EDITS)))
    numbers = iter(range(_EDITS))

    async def work() -> None:
        for number in numbers:
            done = await backend.aedit("/one", f"[{number}]", f"<{number}>")
            assert done.error is None

    await asyncio.gather(*(work() for _ in range(_TASKS)))
    (found,) = (await backend.agrep("", "/one")).matches
    return int(found["text"].count("<"))


async def measured(dsn: str, count: int, rounds: int) -> None:
    """Prints a line for each call."""
    async with MemoryStore.from_conn_string(dsn) as store:
        await store.asetup()
        await fill(store, count)
        conn = await asyncpg.connect(dsn)
        await conn.execute("vacuum analyze")
        await conn.close()
        ours, theirs = pair_of(store)
        print(f"{f'{count:,} files':28} {'ratio':>8} {'ours, ms':>9} {'theirs':>9}")
        for name, call in CALLS.items():
            pairs = [
                (await seconds(call, ours), await seconds(call, theirs)) for _ in range(rounds)
            ]
            ratio = median(their / our for our, their in pairs)
            our, their = (median(side) * 1e3 for side in zip(*pairs, strict=True))
            print(f"{name:28} {ratio:8.1f} {our:9,.1f} {their:9,.1f}")
        print(f"edits kept, of {_EDITS}: ours {await kept(ours)}, theirs {await kept(theirs)}")


async def run(server: str, count: int, rounds: int) -> None:
    name = f"pgsaga_bench_files_{os.getpid()}"
    admin = await asyncpg.connect(server)
    await admin.execute(f'create database "{name}"')
    try:
        await measured(urlunsplit(urlsplit(server)._replace(path=f"/{name}")), count, rounds)
    finally:
        await admin.execute(f'drop database "{name}" with (force)')
        await admin.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.files")
    parser.add_argument("--files", type=int, default=10_000, help="(10,000)")
    parser.add_argument("--rounds", type=int, default=3, help="(3)")
    parser.add_argument("--dsn", help="a URL of a server to make databases on")
    given = parser.parse_args()
    with server_of(given.dsn) as dsn:
        asyncio.run(run(dsn, given.files, given.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
