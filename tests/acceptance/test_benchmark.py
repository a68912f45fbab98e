"""The benchmark, run as a process on tiny counts."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from xml.etree import ElementTree

import asyncpg
import pytest

from tests._limits import HANG_SECONDS
from tests._prepared import run_prepared

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    *("--turns", "2", "3", "--crowd", "2", "--crowd-turns", "1", "--calls", "3", "--steps", "3"),
    *("--network-turns", "1", "--sync-turns", "1"),
)
SIZES = ("KB of tables", "KB of WAL")
CHAT = (
    "supersteps per s",
    "ms per turn in the first tenth",
    "ms per turn in the last tenth",
    *SIZES,
    "KB of text",
    "ms of get_state",
    "ms of a history of 50",
    "ms of all its history",
)
MEASURES = [
    *("put, ms", "put_writes, ms", "get_tuple, ms"),
    *(f"chat {turns}, {measure}" for turns in (2, 3) for measure in CHAT),
    "crowd, supersteps per s",
    "crowd at a 1 ms flush, supersteps per s",
    *(f"{graph}, {m}" for graph in ("fan", "send", "files") for m in ("ms per superstep", *SIZES)),
    "network of 2 ms, ms per turn",
    "chat, statements per turn",
    "chat, round trips per turn",
    "sync chat, ms per turn",
]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A run that succeeded without a word on stderr: what it printed, its results by measure."""

    printed: str
    results: dict[str, Any]


def start(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "benchmarks", *args],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )


def run(folder: Path, *args: str, **environment: str) -> Outcome:
    done = start(*TINY, "--results", str(folder), *args, **environment)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 1, "something else than progress"
    assert (folder / "table.txt").read_text() == done.stdout
    results = json.loads((folder / "results.json").read_text())["results"]
    return Outcome(printed=done.stdout, results={result["measure"]: result for result in results})


def databases(server_dsn: str) -> list[str]:
    async def read() -> list[str]:
        conn = await asyncpg.connect(server_dsn)
        made = "select datname from pg_database where datname like 'pgsaga%bench%'"
        rows = await conn.fetch(made)
        await conn.close()
        return [row["datname"] for row in rows]

    return asyncio.run(read())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmark")


@pytest.fixture(scope="module")
def two_rounds(server_dsn: str, folder: Path) -> Outcome:
    """Of two rounds on the tests' server."""
    return run(folder, "--rounds", "2", "--dsn", server_dsn)


def test_every_measure_is_taken_of_both(two_rounds: Outcome) -> None:
    """Each round has a reading of each measure for each contender, and the ratio is the
    median of the rounds' ratios."""
    assert list(two_rounds.results) == MEASURES
    for measure, result in two_rounds.results.items():
        assert f"\n{measure} " in two_rounds.printed
        ours, reference = result["readings"]["pgsaga"], result["readings"]["reference"]
        assert len(ours) == len(reference) >= 1
        # A few turns may fit into pages that the tables have already.
        least = 0 if measure.endswith("KB of tables") else 1e-9
        assert min(*ours, *reference) >= least
        pairs = zip(ours, reference, strict=True)
        ratios = [one / other for one, other in pairs if other > 0]
        assert result["ratio_to_reference"] == (median(ratios) if ratios else None)


def test_the_floor_and_memory_are_measured(two_rounds: Outcome) -> None:
    """Single writes are compared with a plain insert, graphs with a saver that stores nothing."""
    with_floor = {m for m, result in two_rounds.results.items() if "floor" in result["readings"]}
    with_memory = {m for m, result in two_rounds.results.items() if "memory" in result["readings"]}
    assert with_floor == {"put, ms", "put_writes, ms"}
    assert "crowd, supersteps per s" in with_memory
    assert {f"{graph}, ms per superstep" for graph in ("fan", "send", "files")} <= with_memory
    assert len(two_rounds.results["put, ms"]["readings"]["floor"]) == 10


def test_a_turn_is_a_round_trip_per_superstep_and_one_for_the_start(two_rounds: Outcome) -> None:
    """Counted on the wire, as the benchmark reports it."""
    found = two_rounds.results["chat, round trips per turn"]["readings"]
    assert found["pgsaga"] == [6.0]
    assert found["reference"][0] > 6


def test_the_chart_shows_every_ratio(two_rounds: Outcome, folder: Path) -> None:
    """An SVG that parses, with a bar for each measure that has a ratio."""
    root = ElementTree.fromstring((folder / "chart.svg").read_text())
    texts = {"".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")}
    for measure, result in two_rounds.results.items():
        if result["ratio_to_reference"] and not measure.endswith("KB of text"):
            assert measure in texts


def test_no_database_and_no_setting_stays_on_a_given_server(
    two_rounds: Outcome, server_dsn: str
) -> None:
    """The databases it made are dropped, the settings reset."""
    assert two_rounds.results
    assert databases(server_dsn) == []

    async def read() -> str:
        conn = await asyncpg.connect(server_dsn)
        found: str = await conn.fetchval("show commit_delay")
        await conn.close()
        return found

    assert asyncio.run(read()) == "0"


def test_without_a_dsn_it_starts_a_server_and_removes_it(
    two_rounds: Outcome, public_tmp: Path, tmp_path: Path
) -> None:
    """By default it measures on a server that syncs its commits, and whose folder goes; both
    contenders, in this run as in any other, hold the same conversation in the same round."""
    folder = public_tmp / "benchmark"
    folder.mkdir()
    own = run(tmp_path, "--rounds", "1", "--only", "chat 2", TMPDIR=str(folder))
    assert "fsync: on" in own.printed
    assert "synchronous_commit: on" in own.printed
    assert list(folder.iterdir()) == []
    text, same = (outcome.results["chat 2, KB of text"] for outcome in (two_rounds, own))
    found = [*text["readings"].values(), *same["readings"].values()]
    assert all(readings[:1] == found[0][:1] for readings in found)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [(("--rounds", "0"), "0 isn't above zero"), (("--only", "chess"), "no workload chess")],
)
def test_what_makes_no_sense_is_refused(arguments: tuple[str, ...], problem: str) -> None:
    """A count of nothing, or work that isn't there, is a usage error, not an empty table."""
    done = run_prepared("-m", "benchmarks", *arguments, env=dict(os.environ), cwd=ROOT)
    assert done.returncode == 2
    assert problem in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the server's time is the kernel's")
def test_two_checkouts_are_compared() -> None:
    """A checkout against itself: a ratio for each call, of wall, client and server."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.before", str(ROOT), "--starts", "1", "--bursts", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _, *lines = done.stdout.splitlines()
    kinds = {(call, kind) for call, kind, *_ in map(str.split, lines)}
    calls = ("put", "put_writes", "get_tuple")
    assert kinds == {(call, kind) for call in calls for kind in ("wall", "client", "server")}
    assert all(0.1 < float(line.split()[2]) < 10 for line in lines)
