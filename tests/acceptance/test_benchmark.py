"""The benchmark, run as a process on tiny counts."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "compare.py"
TINY = ("--turns", "2", "--crowd", "2", "--calls", "3")
MEASURES = [
    "put, ms",
    "put_writes, ms",
    "get_tuple, ms",
    "chat, s",
    "chat, ms per turn in the first tenth",
    "chat, ms per turn in the last tenth",
    "chat, KB of text",
    "chat, KB of tables",
    "chat, KB of WAL",
    "chat, s to read its history",
    "crowd, ms per turn",
]


def compare(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", str(SCRIPT), *args],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def databases(server_dsn: str) -> list[str]:
    async def read() -> list[str]:
        conn = await asyncpg.connect(server_dsn)
        rows = await conn.fetch("select datname from pg_database where datname like '%bench%'")
        await conn.close()
        return [row["datname"] for row in rows]

    return asyncio.run(read())


def expected_ratio(result: Mapping[str, Any]) -> float | None:
    pairs = zip(result["reference"], result["ours"], strict=True)
    ratios = [theirs / ours for theirs, ours in pairs if ours > 0]
    return median(ratios) if ratios else None


def test_every_measure_is_taken_of_both_and_nothing_stays(server_dsn: str, tmp_path: Path) -> None:
    """Two rounds on a given server give both contenders' readings, the medians of their
    ratios, and leave no database behind."""
    file = tmp_path / "result.json"
    done = compare(*TINY, "--rounds", "2", "--dsn", server_dsn, "--json", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(file.read_text())
    results = {result["measure"]: result for result in found["results"]}
    assert list(results) == MEASURES
    for measure, result in results.items():
        assert f"\n{measure} " in done.stdout
        assert len(result["ours"]) == len(result["reference"]) == 2
        # Two turns may fit into pages that the tables have already.
        least = 0 if measure == "chat, KB of tables" else 1e-9
        assert min(*result["ours"], *result["reference"]) >= least
        assert result["ratio"] == expected_ratio(result)
    floors = [measure for measure, result in results.items() if len(result["floor"]) == 2]
    assert floors == ["put, ms", "put_writes, ms", "chat, s", "crowd, ms per turn"]
    assert databases(server_dsn) == []


def test_contenders_hold_the_same_conversations(server_dsn: str, tmp_path: Path) -> None:
    """Both, in this run and in the next, are given the same text, another in each round."""
    texts = []
    for name in ("first", "second"):
        file = tmp_path / name
        done = compare(*TINY, "--rounds", "2", "--dsn", server_dsn, "--json", str(file))
        assert done.returncode == 0
        results = json.loads(file.read_text())["results"]
        (text,) = (result for result in results if result["measure"] == "chat, KB of text")
        texts += [text["ours"], text["reference"]]
    assert texts[0][0] != texts[0][1]
    assert texts == [texts[0]] * 4


def test_without_a_server_it_starts_one_and_removes_it(public_tmp: Path) -> None:
    """By default it measures on an embedded server that syncs its commits, whose folder goes."""
    folder = public_tmp / "benchmark"
    folder.mkdir()
    done = compare(*TINY, "--rounds", "1", TMPDIR=str(folder))
    assert (done.returncode, done.stderr) == (0, "")
    assert "fsync: on" in done.stdout
    assert "synchronous_commit: on" in done.stdout
    assert list(folder.iterdir()) == []


def test_counts_below_one_are_refused() -> None:
    """A count of nothing is a usage error, not an empty table."""
    done = compare("--rounds", "0")
    assert done.returncode == 2
    assert "0 isn't above zero" in done.stderr
