"""This checkout against another one of the project: what a change costs put, put_writes, get_tuple.

    git worktree add ../before COMMIT
    python -m benchmarks.before ../before [--starts 6] [--bursts 20]

Both work on one embedded server, each in a database of its own, in short bursts that take turns.
It prints the medians of the ratios, after to before, of wall time and of the processors' time of
client and server. The processors' hold on a busy machine, too; wall time on a quiet one. One
start of a process tells less than 5 %: the order of its dicts and heaps differs from the
next one's, so there are several. Linux only: the server's time is the kernel's.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from langgraph_pgsaga.embedded import EmbeddedServer

_ROOT = Path(__file__).resolve().parents[1]
_CALLS = ("put", "put_writes", "get_tuple")
_KINDS = ("wall", "client", "server")
_TURNS = 60


class Checkout:
    """A process that works with one checkout's package."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(_ROOT / "benchmarks" / "bursts.py"), dsn],
            env={**os.environ, "PYTHONPATH": str(folder)},
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._line() != "ready\n":
            raise SystemExit(f"{folder} can't be measured: see above")

    def burst(self) -> list[float]:
        """Microseconds per call, as benchmarks/bursts.py answers."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{_TURNS}\n")
        self.process.stdin.flush()
        return [float(word) for word in self._line().split()]

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


async def _new_databases(dsn: str, names: list[str]) -> list[str]:
    conn = await asyncpg.connect(dsn)
    try:
        for name in names:
            await conn.execute(f'create database "{name}"')
    finally:
        await conn.close()
    return [urlunsplit(urlsplit(dsn)._replace(path=f"/{name}")) for name in names]


def _started(folders: list[Path], dsns: list[str], bursts: int) -> list[list[float]]:
    """The ratios of the bursts of one start of each."""
    with ExitStack() as stack:
        both = []
        for folder, dsn in zip(folders, dsns, strict=True):
            checkout = Checkout(folder, dsn)
            stack.enter_context(checkout.process)  # ends with its standard input
            both.append(checkout)
        ratios = []
        for number in range(bursts):
            taken: dict[int, list[float]] = {}
            for place in (0, 1) if number % 2 else (1, 0):
                taken[place] = both[place].burst()
            ratios.append(
                [after / before for before, after in zip(taken[0], taken[1], strict=True)]
            )
        return ratios


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.before", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("before", type=Path, help="the other checkout")
    parser.add_argument("--starts", type=int, default=6)
    parser.add_argument("--bursts", type=int, default=20)
    given: Any = parser.parse_args()
    folders = [given.before.resolve(), _ROOT]
    starts: list[list[list[float]]] = []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # the server's user enters it
        with EmbeddedServer.start(Path(folder) / "server") as server:
            for number in range(given.starts):
                names = [f"before_{number}", f"after_{number}"]
                dsns = asyncio.run(_new_databases(server.dsn, names))
                starts.append(_started(folders, dsns, given.bursts))
    print(f"after / before, medians of {given.starts} starts (and the lowest and highest of them)")
    for place, call in enumerate(_CALLS):
        for kind, name in enumerate(_KINDS):
            each = sorted(median(burst[3 * place + kind] for burst in start) for start in starts)
            print(f"{call:11} {name:7} {median(each):.3f}  ({each[0]:.3f} to {each[-1]:.3f})")


if __name__ == "__main__":
    main()
