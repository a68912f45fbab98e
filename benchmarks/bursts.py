"""One checkout's part of `benchmarks.before`: some calls whenever a line asks for them.

    python benchmarks/bursts.py DSN < NUMBERS

It sets up the tables, says "ready", and answers each number of turns with microseconds per call:
of put, put_writes and get_tuple each the wall's, this process's and the server process's.
The package is whatever PYTHONPATH has: of earlier releases, too, so this counts on little of it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6

from langgraph_pgsaga import PostgresSaver

_MESSAGES_OF_A_THREAD = 60


class Chat:
    """Threads that grow by a message with each checkpoint."""

    def __init__(self, saver: PostgresSaver, server_pid: int) -> None:
        self._saver = saver
        self._server = Path(f"/proc/{server_pid}/schedstat")
        self._step = 0
        self._config: Any = None
        self._said: list[HumanMessage] = []

    def _now(self) -> tuple[float, float, float]:
        """Seconds: the wall's, and of the processors this process's and the server's."""
        server = int(self._server.read_text().split()[0]) / 1e9
        return time.perf_counter(), time.process_time(), server

    async def burst(self, turns: int) -> list[float]:
        """Microseconds per call: wall, client and server of put, then put_writes, get_tuple."""
        total = [0.0] * 9
        for _ in range(turns):
            for place, call in enumerate(self._turn()):
                before = self._now()
                await call()
                taken = (b - a for a, b in zip(before, self._now(), strict=True))
                for kind, seconds in enumerate(taken):
                    total[3 * place + kind] += seconds
        return [round(seconds / turns * 1e6, 1) for seconds in total]

    def _turn(self) -> list[Any]:
        number = self._step
        self._step += 1
        if number % _MESSAGES_OF_A_THREAD == 0:
            self._said = []
            self._config = {"configurable": {"thread_id": f"chat {number}", "checkpoint_ns": ""}}
        thread = self._config["configurable"]["thread_id"]
        text = f"message {number} " + "word " * 20
        self._said = [*self._said, HumanMessage(text, id=f"{thread}-{number}")]
        versions: Any = dict.fromkeys(("messages", "step", "note"), f"{number + 1:032}.0.5")
        checkpoint: Any = {
            **empty_checkpoint(),
            "v": 4,
            "id": str(uuid6(clock_seq=number % 16384)),
            "channel_values": {"messages": self._said, "step": number, "note": {"a": ["x"] * 5}},
            "channel_versions": versions,
            "versions_seen": {"node": {"messages": versions["messages"]}},
        }
        writes = [("messages", self._said[-1:]), ("step", number)]
        latest: Any = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}

        async def put() -> None:
            metadata: Any = {"source": "loop", "step": number, "parents": {}}
            self._config = await self._saver.aput(self._config, checkpoint, metadata, versions)

        async def put_writes() -> None:
            task = f"00000000-0000-0000-0000-{number:012}"
            await self._saver.aput_writes(self._config, writes, task)

        async def get_tuple() -> None:
            await self._saver.aget_tuple(latest)

        return [put, put_writes, get_tuple]


async def main(dsn: str) -> None:
    """Answers lines until there are none."""
    async with PostgresSaver.from_conn_string(dsn) as saver:
        await saver.asetup()
        pid = await saver.db.run(lambda conn: conn.fetchval("select pg_backend_pid()"))
        chat = Chat(saver, pid)
        await chat.burst(2 * _MESSAGES_OF_A_THREAD)
        print("ready", flush=True)
        loop = asyncio.get_running_loop()
        while turns := await loop.run_in_executor(None, sys.stdin.readline):
            print(*await chat.burst(int(turns)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
