"""Processes that put to one thread at once: `_crowd.py DSN PROCESSES PUTS`; says what failed.

They are forked, so that none waits for its imports, and begin when all are ready.
"""

import os
import sys
import traceback

from langchain_core.messages import HumanMessage

from langgraph_pgsaga import PostgresSaver
from tests.db._puts import config_of, put

MESSAGES = 20


def main(dsn: str, processes: int, puts: int) -> int:
    start, held = os.pipe()
    ready, is_ready = os.pipe()
    children = []
    for number in range(processes):
        child = os.fork()
        if not child:
            os.close(held)
            os._exit(min(write(dsn, number, puts, is_ready, start), 100))
        children.append(child)
    for _ in children:
        os.read(ready, 1)
    os.close(held)
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return min(sum(map(abs, ends)), 100)


def write(dsn: str, number: int, puts: int, is_ready: int, start: int) -> int:
    """How many of the puts failed."""
    failed = 0
    with PostgresSaver.from_conn_string(dsn) as saver:
        put(saver, config_of(f"own {number}"), {"warm": "up"})
        os.write(is_ready, b".")
        os.read(start, 1)
        for turn in range(puts):
            said = [HumanMessage(f"{number} {turn} {place}") for place in range(MESSAGES)]
            try:
                put(saver, config_of("everybody's"), {"messages": said})
            except Exception:
                failed += 1
                traceback.print_exc()
                sys.stderr.flush()
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(int, sys.argv[2:])))
