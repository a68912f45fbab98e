"""`pgsaga worker`, as a process."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import tests
from tests import _chores
from tests._cli import NO_DSN, answer, output, pgsaga
from tests._limits import HANG_SECONDS

pytestmark = pytest.mark.anyio

ROOT = Path(tests.__path__[0]).parent
MODULE = """
import asyncio, os
from langgraph_pgsaga import Database
from langgraph_pgsaga.work import Worker
from tests._chores import Chores

async def endless(claim):
    await asyncio.sleep(600)

def make(**options):
    return Worker(Database(os.environ["DSN"]), Chores(), **options)

async def make_slow():
    return Worker(Database(os.environ["DSN"]), Chores(endless), grace_seconds=600)

class app:
    worker = make()

number = 5
takes = lambda name: None
fails = lambda: 1 / 0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "some_app.py").write_text(MODULE)
    no_dsn = "from langgraph_pgsaga import Database\nworker = Database()\n"
    (tmp_path / "no_dsn.py").write_text(no_dsn)
    (tmp_path / "no_setting.py").write_text("import os\nos.environ['NO_SUCH_SETTING']\n")
    return tmp_path


@asynccontextmanager
async def process(folder: Path, dsn: str, *args: str) -> AsyncIterator[asyncio.subprocess.Process]:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "langgraph_pgsaga",
        "worker",
        *args,
        cwd=folder,
        env={**NO_DSN, "DSN": dsn, "PYTHONPATH": str(ROOT)},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def told(child: asyncio.subprocess.Process, pattern: str) -> str:
    """What a line of stderr has at the pattern's group."""
    assert child.stderr is not None
    async with asyncio.timeout(HANG_SECONDS):
        while line := (await child.stderr.readline()).decode():
            if found := re.search(pattern, line):
                return found[1]
    raise AssertionError(f"it ended without a word of {pattern}")


async def got(url: str, request: bytes | None = None) -> tuple[int, str]:
    """Status and body of a GET, or of whatever is sent instead."""
    _, _, host, path = url.split("/", 3)
    name, port = host.split(":")
    reader, writer = await asyncio.open_connection(name, int(port))
    writer.write(request or f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    writer.write_eof()
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]) if head else 0, body.decode()


async def test_it_works_until_sigterm(dsn: str, folder: Path) -> None:
    """What is due is done; the port says how it is; it is listed until it has ended."""
    await _chores.make(dsn, 3)
    async with process(folder, dsn, "some_app:make", "--port", "0") as child:
        url = await told(child, r"(http://[0-9.:]+)/healthz")
        await _chores.all_done(dsn)
        status, body = await got(f"{url}/healthz")
        health = json.loads(body)
        assert (status, health["status"]) == (200, "working")
        async with asyncio.timeout(HANG_SECONDS):
            done = 'pgsaga_job_runs_total{job="chores",outcome="done"} 3.0\n'
            while done not in (await got(f"{url}/metrics?x=1"))[1]:
                await asyncio.sleep(0.01)
        assert (await got(f"{url}/other"))[0] == 404
        for odd in (b"", b"x", b"\xff\r\n\r\n", b"GET\r\n\r\n", b"x" * 20_000):
            assert (await got(f"{url}/", odd or b"\r\n"))[0] in (0, 404)
        found = await asyncio.to_thread(answer, "worker", "list", "--dsn", dsn)
        (listed,) = found["workers"]
        assert (listed["worker_id"], listed["pid"]) == (health["worker_id"], child.pid)
        table = await asyncio.to_thread(output, "worker", "list", "--dsn", dsn)
        assert re.search(rf"{listed['worker_id'][:8]} .* {child.pid} .* working .* chores", table)
        child.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(child.wait(), HANG_SECONDS) == 0
    none = await asyncio.to_thread(pgsaga, "worker", "list", "--dsn", dsn)
    assert (none.returncode, none.stdout, none.stderr) == (0, "", "no workers\n")


async def test_told_twice_it_gives_back_what_runs(dsn: str, folder: Path) -> None:
    """The first Ctrl-C waits, the second doesn't; the exit code says so. The function is async."""
    await _chores.make(dsn)
    async with process(folder, dsn, "some_app:make_slow") as child:
        await _chores.until(dsn, "claimed_by is not null from chores")
        child.send_signal(signal.SIGINT)
        await _chores.until(dsn, "draining_at is not null from agent_workers")
        child.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(child.wait(), HANG_SECONDS) == 130
    (row,) = await _chores.rows(dsn, "select claimed_by, attempts from chores")
    assert tuple(row) == (None, 0)


async def test_a_worker_may_be_an_attribute(dsn: str, folder: Path) -> None:
    """Also of something in the module."""
    await _chores.make(dsn)
    async with process(folder, dsn, "some_app:app.worker") as child:
        await _chores.all_done(dsn)
        child.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(child.wait(), HANG_SECONDS) == 0


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("some_app", "is neither MODULE:ATTRIBUTE"),
        (":worker", "is neither MODULE:ATTRIBUTE"),
        ("no_such_module:worker", "No module named"),
        ("some_app:no_such", "has no attribute 'no_such'"),
        ("some_app:number", "is no Worker, and no function that makes one: it is of type int"),
        ("some_app:takes", "is called without arguments: missing a required argument: 'name'"),
        ("some_app.py:make", "is a file; write the module's name, some_app:make"),
        ("./some/app.py:make", "is a file; write the module's name, some.app:make"),
        ("no_dsn:worker", "no_dsn:worker can't be imported: InvalidArgumentError: dsn"),
        ("no_setting:worker", "can't be imported: KeyError at"),
        ("no_setting:worker", "no_setting.py:2 in <module>"),
    ],
)
def test_what_is_no_worker_is_a_mistake(dsn: str, folder: Path, target: str, said: str) -> None:
    """Told in a line, with the exit code of a mistake in the command."""
    path = os.pathsep.join([str(folder), str(ROOT)])
    done: Any = pgsaga("worker", target, DSN=dsn, PYTHONPATH=path)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize("option", ["--dsn=postgresql:///other", "--schema=other", "--json"])
def test_options_of_the_list_are_no_workers(folder: Path, option: str) -> None:
    """A worker has its own Database, so it is refused to name another."""
    path = os.pathsep.join([str(folder), str(ROOT)])
    done: Any = pgsaga("worker", "some_app:make", option, DSN="postgresql://", PYTHONPATH=path)
    assert done.returncode == 2
    assert "is for list; a worker works on its own Database" in " ".join(done.stderr.split())
