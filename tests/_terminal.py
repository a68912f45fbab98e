"""A command at a terminal of its own."""

from __future__ import annotations

import os
import pty
import select
import sys
import time
from collections.abc import Mapping

import psutil  # type: ignore[import-untyped]

from tests._cli import NO_DSN
from tests._limits import HANG_SECONDS


def at_terminal(
    *args: str, answers: Mapping[str, str] | None = None, columns: int = 80
) -> tuple[int, str]:
    """Runs pgsaga in a pseudo-terminal; its exit code and all that it showed.

    `answers` says what is typed once a text is shown.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        environment = {**NO_DSN, "TERM": "xterm", "COLUMNS": str(columns)}
        os.execve(sys.executable, [sys.executable, "-m", "langgraph_pgsaga", *args], environment)
    shown, waiting = "", dict(answers or {})
    deadline = time.monotonic() + HANG_SECONDS
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 0.1)[0]:
            continue
        try:
            shown += os.read(terminal, 65536).decode(errors="replace")
        except OSError:  # its end was closed
            break
        for text in [text for text in waiting if text in shown]:
            _wait_until_it_reads(pid)
            os.write(terminal, waiting.pop(text).encode())
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown


def _wait_until_it_reads(pid: int) -> None:
    """A Ctrl-C just before Python reads a line is noticed when the line has come, as it says."""
    process = psutil.Process(pid)
    deadline = time.monotonic() + HANG_SECONDS
    while process.status() != psutil.STATUS_SLEEPING:
        assert time.monotonic() < deadline
        time.sleep(0.01)
