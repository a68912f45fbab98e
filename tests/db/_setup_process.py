"""Ten processes that migrate at once: `_setup_process.py DSN SCHEMA [serves]`.

With a third argument every other one is of a newer release, whose migration serves this one.
They are forked, so that none waits for its imports, and begin when the pipe closes.
"""

import os
import sys
import traceback
from typing import Any

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.database import migrations

PROCESSES = 10


def main(dsn: str, schema: str, serves: str = "") -> int:
    start, held = os.pipe()
    children = []
    for number in range(PROCESSES):
        child = os.fork()
        if not child:
            os.close(held)
            if serves and number % 2:
                become_newer()
            os._exit(setup(dsn, schema, start))
        children.append(child)
    os.close(held)
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(ends.count(0))
    return sum(map(abs, ends))


def become_newer() -> None:
    these = migrations.load_migrations()
    last = these[-1].version
    sql = f"-- serves: {last:04}\ncreate table {{schema}}.newer (a int);"
    newer = migrations.Migration(version=last + 1, name=f"{last + 1:04}_newer", sql=sql)
    migrations.load_migrations = lambda: [*these, newer]


def setup(dsn: str, schema: str, start: int) -> int:
    options: Any = {"slow_seconds": None}  # they wait for each other
    try:
        with PostgresSaver.from_conn_string(dsn, schema=schema or None, **options) as saver:
            os.read(start, 1)
            saver.setup()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        return 1
    return 0


sys.exit(main(*sys.argv[1:]))
