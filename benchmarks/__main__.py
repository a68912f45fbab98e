"""Times this package's saver against others, on one server, in one run.

Each contender has a database, or a folder, of its own. In every round each of them does
the same work, one after the other, so that what else the machine does meets all alike:
trust the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from psycopg import Capabilities

from benchmarks import report
from benchmarks.contenders import CONTENDERS, OURS, Contender, Stand
from benchmarks.report import FLOOR, Result
from benchmarks.workloads import Options, Readings, Workload, workloads
from langgraph_pgsaga.embedded import EmbeddedServer

_PACKAGES = (
    "langgraph-checkpoint-postgres",
    "langgraph-checkpoint-sqlite",
    "langgraph",
    "langchain-core",
    "asyncpg",
    "psycopg",
)
_SETTINGS = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_compression")
_RESULTS = Path(__file__).parent / "results"


async def compare(
    dsn: str, options: Options, chosen: list[Workload]
) -> tuple[dict[str, str], list[Result]]:
    """The environment, and the results in the order of the workloads."""
    async with AsyncExitStack() as stack:
        stands = {c.name: await stack.enter_async_context(_stand(dsn, c)) for c in CONTENDERS}
        results: list[Result] = []
        for workload in chosen:
            print(f"{workload.name} ...", end=" ", file=sys.stderr, flush=True)
            async with _settings(stands[OURS.name], workload):
                rounds = [
                    await _round(workload, stands, options, number)
                    for number in range(workload.rounds(options))
                ]
            results += _results(rounds)
        print(file=sys.stderr)
        return await _environment(stands[OURS.name]), results


async def _round(
    workload: Workload, stands: dict[str, Stand], options: Options, round_no: int
) -> dict[str, Readings]:
    if round_no == 0:
        # What is prepared, cached and compiled at a first time isn't what is compared.
        small = replace(options, calls=5, crowd=10, crowd_turns=1, steps=4, network_turns=2)
        if "chat" not in workload.name and workload.name not in ("wire", "sync"):
            for contender in workload.contenders:
                await workload.run(stands[contender.name], small, -1)
    found: dict[str, Readings] = {}
    for contender in workload.contenders:
        gc.collect()
        found[contender.name] = await workload.run(stands[contender.name], options, round_no)
    if workload.floor is not None:
        found[FLOOR] = await workload.floor(stands[OURS.name], options, round_no)
    return found


def _results(rounds: list[dict[str, Readings]]) -> Iterator[Result]:
    for measure in rounds[0][OURS.name]:
        names = [name for name, readings in rounds[0].items() if measure in readings]
        found = {name: [one[name][measure] for one in rounds] for name in names}
        yield Result(measure=measure, readings=found)


@asynccontextmanager
async def _settings(stand: Stand, workload: Workload) -> AsyncIterator[None]:
    """The workload's settings of the server, for all of its connections, new and old."""
    assert stand.conn is not None
    for name, value in workload.settings:
        await stand.conn.execute(f"alter system set {name} = {value}")
    await stand.conn.execute("select pg_reload_conf()")
    try:
        yield
    finally:
        for name, _ in workload.settings:
            await stand.conn.execute(f"alter system reset {name}")
        await stand.conn.execute("select pg_reload_conf()")


@asynccontextmanager
async def _stand(server_dsn: str, contender: Contender) -> AsyncIterator[Stand]:
    """The contender at work in a database, or a folder, that exists for as long."""
    if not contender.uses_server:
        with tempfile.TemporaryDirectory(prefix="pgsaga-bench-") as folder:
            async with contender.open_saver(folder) as saver:
                yield Stand(contender=contender, saver=saver, place=folder, conn=None)
        return
    name = f"pgsaga_bench_{os.getpid()}_{contender.name}"
    dsn = urlunsplit(urlsplit(server_dsn)._replace(path=f"/{name}"))
    admin = await asyncpg.connect(server_dsn)
    try:
        await admin.execute(f'create database "{name}"')
        try:
            async with contender.open_saver(dsn) as saver:
                conn = await asyncpg.connect(dsn)
                yield Stand(contender=contender, saver=saver, place=dsn, conn=conn)
                await conn.close()
        finally:
            await admin.execute(f'drop database "{name}" with (force)')
    finally:
        await admin.close()


async def _environment(stand: Stand) -> dict[str, str]:
    assert stand.conn is not None
    settings = {n: await stand.conn.fetchval("select current_setting($1)", n) for n in _SETTINGS}
    return {
        "langgraph-pgsaga": version("langgraph-pgsaga"),
        **{package: version(package) for package in _PACKAGES},
        "pipeline of libpq": "yes" if Capabilities().has_pipeline() else "no",
        "python": platform.python_version(),
        "cores": str(os.cpu_count()),
        **settings,
    }


@contextmanager
def _server(dsn: str | None) -> Iterator[str]:
    """The DSN of the server to use: the one given, else a new one of our own."""
    if dsn is not None:
        yield dsn
        return
    folder = Path(tempfile.mkdtemp(prefix="pgsaga-bench-"))
    try:
        folder.chmod(0o755)  # run by root, the server is another user's
        with EmbeddedServer.start(folder / "server") as server:
            yield server.dsn
    finally:
        shutil.rmtree(folder)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} isn't above zero")
    return number


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(__doc__ or "").partition("\n")[0]
    )
    names = [workload.name for workload in workloads(Options())]
    parser.add_argument("--rounds", type=_positive, default=5, help="of most workloads (5)")
    parser.add_argument(
        "--turns", type=_positive, nargs="+", default=[150, 300, 600], help="of the chats"
    )
    parser.add_argument("--crowd", type=_positive, default=200, help="chats at once (200)")
    parser.add_argument("--crowd-turns", type=_positive, default=5, help="of each (5)")
    parser.add_argument("--calls", type=_positive, default=40, help="of put and the like (40)")
    parser.add_argument("--steps", type=_positive, default=50, help="of fan, send and files (50)")
    parser.add_argument("--network-turns", type=_positive, default=30, help="(30)")
    parser.add_argument("--sync-turns", type=_positive, default=100, help="(100)")
    parser.add_argument("--only", nargs="+", metavar="WORKLOAD", help=f"of {', '.join(names)}")
    parser.add_argument(
        "--dsn", help="a URL of a server to make databases on (a new embedded one, fsync on)"
    )
    parser.add_argument(
        "--results", type=Path, metavar="FOLDER", help="where table, JSON and chart are written"
    )
    return parser.parse_args()


def main() -> int:
    given = _arguments()
    options = Options(
        rounds=given.rounds,
        calls=given.calls,
        turns=tuple(given.turns),
        crowd=given.crowd,
        crowd_turns=given.crowd_turns,
        steps=given.steps,
        network_turns=given.network_turns,
        sync_turns=given.sync_turns,
    )
    every = workloads(options)
    chosen = [w for w in every if not given.only or w.name in given.only]
    if unknown := set(given.only or ()) - {workload.name for workload in every}:
        print(f"there is no workload {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    gc.freeze()  # what was imported needn't be looked through between the rounds
    with _server(given.dsn) as dsn:
        environment, results = asyncio.run(compare(dsn, options, chosen))
    table = report.table(environment, options, results)
    print(table)
    if given.results is not None:
        _write(given.results, table, environment, options, results)
    return 0


def _write(
    folder: Path,
    table: str,
    environment: dict[str, str],
    options: Options,
    results: list[Result],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    reference = f"langgraph-checkpoint-postgres {environment['langgraph-checkpoint-postgres']}"
    (folder / "table.txt").write_text(table + "\n")
    (folder / "results.json").write_text(report.as_json(environment, options, results))
    (folder / "chart.svg").write_text(report.chart(results, f"Times better than {reference}"))


if __name__ == "__main__":
    sys.exit(main())
