"""A process that is killed anywhere in a run leaves each step's effects with its result, once."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from langgraph_pgsaga import PostgresSaver
from tests.conftest import execute
from tests.db._effects import Effects, once

FULL = bool(os.environ.get("PGSAGA_FULL"))
ROOT = Path(__file__).resolve().parents[2]
GRAPHS = ["plain", "parallel", "subgraphs", "functional"]
DONE = {
    "plain": once("a", "b", "c"),
    "parallel": once("spread", "one0", "one1", "one2", "end"),
    "subgraphs": once("top", "i1", "d1", "d2", "leaves", "other"),
    "functional": once("task0", "task1", "task2", "flow"),
}


def run(dsn: str, what: str, how: str, at: int) -> int | None:
    """Runs the graph to its end, or to the point at which it is killed: how many it passed."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.db._step_process", dsn, what, how, str(at)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    if ended.returncode == -signal.SIGKILL:
        return None
    assert ended.returncode == 0, ended.stderr
    return int(ended.stdout.split()[0])


def stored_results(dsn: str, namespace: str | None = None) -> set[str]:
    """The names that tasks gave: in states and in pending writes, of one namespace or of all."""
    place = {} if namespace is None else {"checkpoint_ns": namespace}
    config: Any = {"configurable": {"thread_id": "t", **place}}

    async def results() -> set[str]:
        found: set[str] = set()
        async with PostgresSaver.from_conn_string(dsn) as saver:
            async for state in saver.alist(config):
                values = [value for _, _, value in state.pending_writes or ()]
                values += state.checkpoint["channel_values"].values()
                found |= {
                    name for name in itertools.chain(*DONE.values()) if repr(name) in repr(values)
                }
        return found

    return asyncio.run(results())


def forget(dsn: str) -> None:
    async def forgotten() -> None:
        async with PostgresSaver.from_conn_string(dsn) as saver:
            await saver.adelete_thread("t")
        await execute(dsn, "truncate effects")

    asyncio.run(forgotten())


def kill_and_resume(effects: Effects, what: str, how: str, points: list[int]) -> None:
    """Kills one process after the other, each somewhere in what is left; then lets one end."""
    for at in points:
        if run(effects.dsn, what, how, at) is not None:
            break
        found = effects.found_now()
        assert set(found.values()) <= {1}, (what, how, points)
        # A subgraph may have begun whose thread hasn't stored yet what it begins with.
        assert stored_results(effects.dsn, "") <= set(found), (what, how, points)
        assert set(found) <= stored_results(effects.dsn), (what, how, points)
    else:
        run(effects.dsn, what, how, 0)
    assert effects.found_now() == DONE[what], (what, how, points)


def kill_often(dsn: str, what: str, how: str, rounds: int, seed: int) -> None:
    effects = Effects(dsn)
    asyncio.run(effects.make())
    whole = run(dsn, what, how, 0)
    assert whole is not None
    assert effects.found_now() == DONE[what]
    chance = random.Random(seed)
    for _ in range(rounds):
        forget(dsn)
        points = [chance.randint(1, whole) for _ in range(chance.choice([1, 1, 2]))]
        kill_and_resume(effects, what, how, points)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "how"),
    [("plain", "sync"), ("parallel", "async"), ("subgraphs", "async"), ("functional", "exit")],
)
def test_a_killed_run_has_effects_where_it_has_results(dsn: str, what: str, how: str) -> None:
    """Killed at a few points and resumed, each effect is there once."""
    kill_often(dsn, what, how, rounds=3, seed=1)


@pytest.mark.full
@pytest.mark.skipif(not FULL, reason="takes an hour: make test-full")
@pytest.mark.parametrize("how", ["sync", "async", "exit"])
@pytest.mark.parametrize("what", GRAPHS)
def test_killed_three_hundred_times(dsn: str, what: str, how: str) -> None:
    """The same at any point, 25 times for each graph and durability."""
    kill_often(dsn, what, how, rounds=25, seed=7)
