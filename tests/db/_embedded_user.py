"""A process that uses the embedded server: `_embedded_user.py PATH [fork|abandon]`.

It prints the DSN once the server runs, and leaves when its standard input ends.
fork: a child that holds the inherited object ends first, through its exit handlers.
abandon: it kills itself at once, the hard way.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langgraph_pgsaga.embedded import EmbeddedServer


def skip_the_front_door() -> None:
    """Let `embedded` be imported without the package's __init__, whose LangGraph takes seconds."""
    package = ModuleType("langgraph_pgsaga")
    package.__path__ = [str(Path(__file__).parents[2] / "langgraph_pgsaga")]
    sys.modules[package.__name__] = package


def end_a_forked_child(server: EmbeddedServer) -> None:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    server.stop()
    sys.exit()


def main(path: str, mode: str = "") -> None:
    skip_the_front_door()
    from langgraph_pgsaga.embedded import EmbeddedServer

    server = EmbeddedServer.start(path)
    if mode == "fork":
        end_a_forked_child(server)
    print(server.dsn, flush=True)
    if mode == "abandon":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()


main(*sys.argv[1:])
