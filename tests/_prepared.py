"""Commands in forks of a Python that has imported everything: 20 ms where a new one takes 1 s.

Each is a process of its own, with its own exit code, environment, files and end. What it has
from its parent are modules; whatever is about how Python starts (PYTHON... variables, -W, what
is imported when) needs a Python of its own.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path

from tests._limits import HANG_SECONDS

_ROOT = Path(__file__).resolve().parents[1]


class _Prepared:
    """The process that forks; it ends when this one has closed its socket."""

    def __init__(self) -> None:
        self._requests, its = socket.socketpair()
        self._lock = threading.Lock()
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests._prepared_python", str(its.fileno())],
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
            )
        atexit.register(self._end)

    def start(self, files: list[int]) -> None:
        with self._lock:
            socket.send_fds(self._requests, [b"."], files)

    def _end(self) -> None:
        self._requests.close()
        self._process.wait(HANG_SECONDS)


_prepared = cache(_Prepared)


def run_prepared(
    *arguments: str, env: dict[str, str], cwd: Path | None = None, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run([sys.executable, *arguments])` with `-c` or `-m`, to its end."""
    request = {"arguments": arguments, "env": env, "cwd": str(cwd or Path.cwd())}
    ours, its = socket.socketpair()
    with (
        ours,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        tempfile.TemporaryFile() if stdin is not None else Path(os.devnull).open("rb") as given,
    ):
        if stdin is not None:
            given.write(stdin.encode())
            given.seek(0)
        with its:
            _prepared().start([given.fileno(), out.fileno(), err.fileno(), its.fileno()])
        ours.settimeout(HANG_SECONDS)
        ours.sendall(json.dumps(request).encode() + b"\n")
        with ours.makefile() as answers:
            code = int(answers.readline())
        out.seek(0)
        err.seek(0)
        printed, said = out.read().decode(), err.read().decode()
    return subprocess.CompletedProcess(arguments, code, printed, said)
