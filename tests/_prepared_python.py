"""A Python that has imported what commands import, and is one of them in each of its forks.

Run with the number of a socket. Each byte that comes there brings four files: the command's
stdin, stdout and stderr, and a socket on which its request is read and its exit code written.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
from types import ModuleType
from typing import Any

import typer.main

from langgraph_pgsaga import cli
from tests._commands import build_once
from tests._limits import HANG_SECONDS

# With all that they import; nothing is started by it.
_IMPORTED = (
    "langgraph.checkpoint.postgres.aio",
    "langgraph.checkpoint.sqlite.aio",
    "langgraph.graph",
    "langgraph.types",
    "langgraph_pgsaga.database",
    "langgraph_pgsaga.doctor",
    "langgraph_pgsaga.embedded",
    "langgraph_pgsaga.messages",
    "langgraph_pgsaga.sessions",
    "langgraph_pgsaga.sync",
    "langgraph_pgsaga.takeover",
    "langgraph_pgsaga.timetravel",
)


def wait_for_requests(requests: socket.socket) -> dict[str, Any] | None:
    """What a fork of this process is to be; None in this one, when nobody asks any more."""
    while True:
        byte, files, _, _ = socket.recv_fds(requests, 1, 4)
        if not byte:
            return None
        pid = os.fork()
        if pid == 0:
            requests.close()
            # Its own child: this one tells how that ended.
            return _forked(*files)
        for file in files:
            os.close(file)


def _forked(stdin: int, stdout: int, stderr: int, reply: int) -> dict[str, Any]:
    """The request, in the child that is to fulfil it; its parent waits for it and ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with socket.socket(fileno=reply) as answers, answers.makefile("r") as lines:
        request: dict[str, Any] = json.loads(lines.readline())
        pid = os.fork()
        if pid:
            _, status = os.waitpid(pid, 0)
            answers.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
            os._exit(0)
    for number, file in enumerate((stdin, stdout, stderr)):
        os.dup2(file, number)
        os.close(file)
    return request


def become(request: dict[str, Any]) -> None:
    """Does what an interpreter does with these arguments (`-c` or `-m`), there, with those."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.alarm(int(HANG_SECONDS))
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    kind, what, *arguments = request["arguments"]
    if kind == "-m":
        sys.path[0] = request["cwd"]
        sys.argv = [what, *arguments]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = ""
        sys.argv = ["-c", *arguments]
        sys.modules["__main__"] = main = ModuleType("__main__")
        exec(compile(what, "<string>", "exec"), main.__dict__)


if __name__ == "__main__":
    # Ctrl-C ends the tests, and they end this. Nobody waits for the forks' parents.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for name in _IMPORTED:
        importlib.import_module(name)
    build_once()
    typer.main.get_command(cli.app)
    # No fork looks through what there is, at its end least of all: that took half a second.
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as asked:
        found = wait_for_requests(asked)
    if found is not None:
        become(found)
