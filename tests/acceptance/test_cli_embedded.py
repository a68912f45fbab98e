"""`pgsaga serve-embedded`, as a process, and what commands do where there is no server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest

from langgraph_pgsaga.embedded import EmbeddedServer
from tests._cli import NO_DSN, pgsaga
from tests._limits import HANG_SECONDS

COMMAND = [sys.executable, "-m", "langgraph_pgsaga", "serve-embedded"]


IN_BACKGROUND = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]


@contextmanager
def served(folder: Path, *wrapper: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The running command and the first line that it printed."""
    with subprocess.Popen(
        [*wrapper, *COMMAND, "--path", str(folder)],
        env=NO_DSN,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


async def answers(dsn: str) -> bool:
    try:
        conn = await asyncpg.connect(dsn)
    except OSError:
        return False
    await conn.close()
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_its_dsn_and_stops_when_told(public_tmp: Path, number: signal.Signals) -> None:
    """The DSN works until then; after it the server is gone, and the exit code is 0."""
    with served(public_tmp / f"served-{number}") as (process, dsn):
        assert asyncio.run(answers(dsn))
        process.send_signal(number)
        _, said = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0
    assert said.splitlines() == ["it runs until Ctrl-C", "stopped"]
    assert not asyncio.run(answers(dsn))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_ctrl_c_that_is_ignored_stays_so(public_tmp: Path) -> None:
    """In a job that a script put into the background, Ctrl-C isn't for it; SIGTERM is."""
    with served(public_tmp / "served-ignoring", *IN_BACKGROUND) as (process, dsn):
        process.send_signal(signal.SIGINT)
        assert asyncio.run(answers(dsn))
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0
    assert said.splitlines() == ["it runs until SIGTERM", "stopped"]


def test_others_keep_it_running(public_tmp: Path) -> None:
    """Where another process uses the server, it goes on after the command, which says so."""
    folder = public_tmp / "served-shared"
    with served(folder) as (process, dsn), EmbeddedServer.start(folder):
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=HANG_SECONDS)
        assert "it goes on for other processes" in said
        assert asyncio.run(answers(dsn))
    assert not asyncio.run(answers(dsn))


def test_a_server_that_ends_is_noticed(public_tmp: Path) -> None:
    """Where somebody else stops it, the command ends with code 1."""
    folder = public_tmp / "served-killed"
    with served(folder) as (process, _):
        pid = int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, signal.SIGINT)
        _, said = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 1
    assert "ended by itself" in said


def test_a_folder_that_holds_other_things_is_refused(tmp_path: Path) -> None:
    """Nothing is started in it."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    done = pgsaga("serve-embedded", "--path", str(tmp_path / "mine"))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)


def test_commands_find_the_embedded_server(public_tmp: Path) -> None:
    """Without a DSN they use it; where there is none they make none, but for migrate up."""
    folder = public_tmp / "found"
    where = {"PGSAGA_EMBEDDED_PATH": str(folder)}
    for command in (["sessions", "list"], ["doctor"], ["migrate", "status"]):
        done = pgsaga(*command, **where)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "pgsaga migrate up" in done.stderr
    assert not folder.exists()
    assert pgsaga("migrate", "up", **where).returncode == 0
    done = pgsaga("sessions", "list", "--json", **where)
    assert json.loads(done.stdout)["sessions"] == []
