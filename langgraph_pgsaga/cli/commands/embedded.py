"""`pgsaga serve-embedded`: the development server, for as long as one likes."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from langgraph_pgsaga.cli.options import Json
from langgraph_pgsaga.cli.output import note, write_json, write_line
from langgraph_pgsaga.errors import EmbeddedServerError

if TYPE_CHECKING:
    from langgraph_pgsaga.embedded import EmbeddedServer

_LOOK_EVERY_SECONDS = 1.0


def serve_embedded(
    path: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            envvar="PGSAGA_EMBEDDED_PATH",
            show_envvar=True,
            help="Where its data is; without it .pgsaga.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the embedded development server until Ctrl-C.

    It prints the server's DSN; SIGTERM ends it, too. The server stops when the last process
    that uses it has gone, so one that others use goes on. Exit code 0 where it was told to stop,
    1 where it couldn't start, or ended by itself.

    \b
    Examples:
      pgsaga serve-embedded
      pgsaga serve-embedded --path /srv/agents/.pgsaga
    """
    from langgraph_pgsaga.embedded import EmbeddedServer

    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()

    # Ctrl-C is for the foreground: a shell's script has it ignored in its background jobs.
    is_foreground = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    for number in (signal.SIGINT, signal.SIGTERM) if is_foreground else (signal.SIGTERM,):
        signal.signal(number, stop)
    with EmbeddedServer.start(path) if path else EmbeddedServer.start_default() as server:
        if as_json:
            write_json({"dsn": server.dsn, "path": str(server.path)})
        else:
            write_line(server.dsn)
        note("it runs until Ctrl-C" if is_foreground else "it runs until SIGTERM")
        _wait(server, stopping)
    note("it goes on for other processes" if _runs(server) else "stopped")


def _wait(server: EmbeddedServer, stopping: threading.Event) -> None:
    while not stopping.wait(_LOOK_EVERY_SECONDS):
        if not _runs(server):
            problem = "the server ended by itself; server.log there may say why"
            raise EmbeddedServerError(path=str(server.path), problem=problem)


def _runs(server: EmbeddedServer) -> bool:
    return (server.path / "data" / "postmaster.pid").exists()
