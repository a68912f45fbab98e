"""A process that uses the embedded server: `_embedded_user.py PATH [fork|abandon]`.

It prints the DSN once the server runs, and leaves when its standard input ends.
fork: a child that holds the inherited object ends first, through its exit handlers.
abandon: it kills itself at once, the hard way.
"""

import os
import signal
import sys

from langgraph_pgsaga.embedded import EmbeddedServer


def end_a_forked_child(server: EmbeddedServer) -> None:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    server.stop()
    sys.exit()


def main(path: str, mode: str = "") -> None:
    server = EmbeddedServer.start(path)
    if mode == "fork":
        end_a_forked_child(server)
    print(server.dsn, flush=True)
    if mode == "abandon":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()


main(*sys.argv[1:])
