"""A process that embeds anew, and is killed in the middle: `_reembedding.py DSN`."""

from __future__ import annotations

import asyncio
import sys

from langgraph_pgsaga import AgentMemory, Database
from langgraph_pgsaga.memory import EmbeddingProgress
from tests._embedders import DIMS, HashingEmbedder, hashed


def told(progress: EmbeddingProgress) -> None:
    print(progress.done, progress.total, flush=True)
    if progress.done == 20:
        sys.stdin.read()  # until it is killed


async def main(dsn: str) -> None:
    async with Database(dsn) as db:
        memory = AgentMemory(db, embed=hashed, dims=DIMS)
        embed = HashingEmbedder(dims=16)
        await memory.reembed(embed=embed, dims=16, model="new", batch=10, on_progress=told)


asyncio.run(main(*sys.argv[1:]))
