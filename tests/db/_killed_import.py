"""Imports a SQLite saver's threads two checkpoints at a time, and says so after each two."""

from __future__ import annotations

import asyncio
import sys
import time

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.takeover import ImportProgress, import_threads


def say(progress: ImportProgress) -> None:
    print(progress.checkpoints_done, flush=True)
    if progress.checkpoints_done >= 6:
        time.sleep(60)  # until it is killed


async def main(path: str, dsn: str) -> None:
    async with (
        AsyncSqliteSaver.from_conn_string(path) as source,
        PostgresSaver.from_conn_string(dsn) as target,
    ):
        await import_threads(source, target, batch=2, on_progress=say)


asyncio.run(main(*sys.argv[1:]))
