"""A process that uses a saver and ends without closing it: `_unclosed.py DSN WAY`.

WAY is sync, async, both, running (a call is still under way in another thread), background
(asyncio.run ends over running puts) or fork (a forked child ends first, through its
interpreter's end, and the parent goes on).
"""

import asyncio
import os
import sys
import threading
from contextlib import suppress

from langchain_core.runnables import RunnableConfig

from langgraph_pgsaga import PostgresSaver

CONFIG: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_id": "1"}}


async def write(saver: PostgresSaver) -> None:
    await saver.aput_writes(CONFIG, [("channel", 1)], "task")


async def write_on_and_on(saver: PostgresSaver, begun: threading.Event | asyncio.Event) -> None:
    while True:
        await write(saver)
        begun.set()


async def write_in_the_background(saver: PostgresSaver) -> None:
    begun = asyncio.Event()
    tasks = [asyncio.ensure_future(write_on_and_on(saver, begun)) for _ in range(5)]
    await begun.wait()
    assert tasks


def run_on(saver: PostgresSaver, begun: threading.Event) -> None:
    with suppress(Exception):  # the process ends under it
        saver.db.portal.call(write_on_and_on, saver, begun)


def fork(saver: PostgresSaver) -> None:
    write_sync(saver)
    child = os.fork()
    write_sync(saver)
    asyncio.run(write(saver))
    if child:
        _, status = os.waitpid(child, 0)
        assert status == 0
        write_sync(saver)


def write_sync(saver: PostgresSaver) -> None:
    saver.put_writes(CONFIG, [("channel", 1)], "task")


def main(dsn: str, way: str) -> PostgresSaver:
    saver = PostgresSaver.from_conn_string(dsn)
    if way == "fork":
        fork(saver)
    if way in ("sync", "both"):
        write_sync(saver)
    if way in ("async", "both"):
        asyncio.run(write(saver))
    if way == "background":
        asyncio.run(write_in_the_background(saver))
    if way == "running":
        begun = threading.Event()
        threading.Thread(target=run_on, args=(saver, begun), daemon=True).start()
        begun.wait()
    return saver


left_open = main(*sys.argv[1:])
