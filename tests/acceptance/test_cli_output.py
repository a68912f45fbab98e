"""What the commands do where their output can't be written as it is, or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests._cli import NO_DSN, order, pgsaga
from tests._limits import HANG_SECONDS

PGSAGA = (sys.executable, "-m", "langgraph_pgsaga")
COMMANDS = (["--help"], ["--version"], ["sessions", "list"], ["messages", "--export", "-"])


def started(command: list[str], dsn: str, redirection: str) -> tuple[int, str]:
    """The exit code and stderr of a command whose output goes there, in a shell."""
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *PGSAGA, *command],
        env={**NO_DSN, "PGSAGA_DSN": dsn},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_full_disk_is_one_line(dsn: str, command: list[str]) -> None:
    """Also of help, which isn't ours; where stderr is full, too, the exit code is left."""
    order(dsn, "order-1", "tea")
    code, said = started(command, dsn, "> /dev/full")
    problem = "[Errno 28] No space left on device"
    assert (code, said) == (1, f"pgsaga: the output can't be written: {problem}\n")
    assert started(command, dsn, "> /dev/full 2> /dev/full") == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_no_mistake_in_the_command(dsn: str) -> None:
    """Of a file that is named, too."""
    order(dsn, "order-1", "tea")
    done = pgsaga("messages", "--export", "/dev/full", "--dsn", dsn)
    problem = "[Errno 28] No space left on device"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"pgsaga: the output can't be written: {problem}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_reader_that_went_and_a_closed_output_are_quiet(dsn: str, command: list[str]) -> None:
    """The code of a broken pipe for the one; the other was wanted."""
    order(dsn, "order-1", "tea")
    with subprocess.Popen(
        [*PGSAGA, *command],
        env={**NO_DSN, "PGSAGA_DSN": dsn},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
    assert started(command, dsn, ">&-") == (0, "")


def test_output_in_ascii_is_still_to_be_read(dsn: str) -> None:
    """Lines are drawn in ASCII, other characters escaped; JSON stays JSON with the same values."""
    order(dsn, "order-1", "zwei Stück für 😀")
    ascii_only = {"PYTHONIOENCODING": "ascii", "PGSAGA_DSN": dsn}
    table = pgsaga("messages", "--search", "für", **ascii_only)
    assert ">>f\\xfcr<<" in table.stdout
    assert set(table.stdout.splitlines()[1]) == {"-"}
    for args in (["messages", "--json"], ["messages", "--export", "-"]):
        printed = pgsaga(*args, **ascii_only).stdout
        assert printed.isascii()
        found = json.loads(printed if "--json" in args else printed.splitlines()[0])
        first = found["messages"][0] if "--json" in args else found
        assert first["content"] == "zwei Stück für 😀"


def test_without_a_stdin_nothing_is_deleted(dsn: str) -> None:
    """Nobody can be asked there."""
    code, said = started(["sessions", "delete", "order-1", "--yes"], dsn, "<&-")
    assert (code, said.count("\n")) == (1, 1)
    order(dsn, "order-1", "tea")
    code, said = started(["sessions", "delete", "order-1"], dsn, "<&-")
    assert (code, "nobody is there to ask" in said) == (2, True)
