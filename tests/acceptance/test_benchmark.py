"""The benchmark, run as a process on tiny counts."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg
import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "compare.py"
TINY = ("--turns", "2", "--crowd", "2", "--calls", "3")
CALLS = ["put, ms", "put_writes, ms", "get_tuple, ms"]
MEASURES = [
    *CALLS,
    "chat, s",
    "chat, ms per turn in the first tenth",
    "chat, ms per turn in the last tenth",
    "chat, KB of text",
    "chat, KB of tables",
    "chat, KB of WAL",
    "chat, s to read its history",
    "crowd, ms per turn",
]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A run that succeeded without a word on stderr: what it printed, its results by measure."""

    printed: str
    results: dict[str, Any]


def start(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", str(SCRIPT), *args],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run(file: Path, *args: str, **environment: str) -> Outcome:
    done = start(*TINY, "--json", str(file), *args, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    results = json.loads(file.read_text())["results"]
    return Outcome(printed=done.stdout, results={result["measure"]: result for result in results})


def databases(server_dsn: str) -> list[str]:
    async def read() -> list[str]:
        conn = await asyncpg.connect(server_dsn)
        made = "select datname from pg_database where datname like 'pgsaga%bench%'"
        rows = await conn.fetch(made)
        await conn.close()
        return [row["datname"] for row in rows]

    return asyncio.run(read())


def expected_rounds(measure: str) -> int:
    return 10 if measure in CALLS else 2


def expected_ratio(result: Mapping[str, Any]) -> float | None:
    pairs = zip(result["reference"], result["ours"], strict=True)
    ratios = [theirs / ours for theirs, ours in pairs if ours > 0]
    return median(ratios) if ratios else None


@pytest.fixture(scope="module")
def two_rounds(server_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Of two rounds on the tests' server."""
    file = tmp_path_factory.mktemp("benchmark") / "result.json"
    return run(file, "--rounds", "2", "--dsn", server_dsn)


def test_every_measure_is_taken_of_both(two_rounds: Outcome) -> None:
    """Each round has a reading of each measure for each contender, and the ratio is the
    median of the rounds' ratios."""
    assert list(two_rounds.results) == MEASURES
    for measure, result in two_rounds.results.items():
        assert f"\n{measure} " in two_rounds.printed
        assert len(result["ours"]) == len(result["reference"]) == expected_rounds(measure)
        # Two turns may fit into pages that the tables have already.
        least = 0 if measure == "chat, KB of tables" else 1e-9
        assert min(*result["ours"], *result["reference"]) >= least
        assert result["ratio"] == expected_ratio(result)


def test_the_floor_is_measured_where_there_is_one(two_rounds: Outcome) -> None:
    """Writing has a floor in every round, and so have conversations."""
    found = {m: len(result["floor"]) for m, result in two_rounds.results.items()}
    with_floor = {"put, ms", "put_writes, ms", "chat, s", "crowd, ms per turn"}
    assert found == {m: expected_rounds(m) if m in with_floor else 0 for m in MEASURES}


def test_no_database_stays_on_a_given_server(two_rounds: Outcome, server_dsn: str) -> None:
    """The databases it made are dropped."""
    assert two_rounds.results
    assert databases(server_dsn) == []


def test_without_a_dsn_it_starts_a_server_and_removes_it(
    two_rounds: Outcome, public_tmp: Path, tmp_path: Path
) -> None:
    """By default it measures on a server that syncs its commits, and whose folder goes; both
    contenders, in this run as in any other, hold the same conversation in the same round."""
    folder = public_tmp / "benchmark"
    folder.mkdir()
    own = run(tmp_path / "result.json", "--rounds", "1", TMPDIR=str(folder))
    assert "fsync: on" in own.printed
    assert "synchronous_commit: on" in own.printed
    assert list(folder.iterdir()) == []
    text, same = (outcome.results["chat, KB of text"] for outcome in (two_rounds, own))
    assert text["ours"] == text["reference"]
    assert text["ours"][0] != text["ours"][1]
    assert same["ours"] == same["reference"] == text["ours"][:1]


def test_counts_below_one_are_refused() -> None:
    """A count of nothing is a usage error, not an empty table."""
    done = start("--rounds", "0")
    assert done.returncode == 2
    assert "0 isn't above zero" in done.stderr
