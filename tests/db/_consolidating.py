"""A process that consolidates, and is killed in the middle: `_consolidating.py DSN`.

Its function says `cluster N`, and of the second one it says nothing more and doesn't end.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from langgraph_pgsaga import AgentMemory, Database
from tests._embedders import DIMS, hashed

_given: list[Any] = []


async def merge(cluster: Any) -> str:
    _given.append(cluster)
    print("cluster", len(_given), flush=True)
    if len(_given) == 2:
        await asyncio.Event().wait()
    return together(cluster)


def together(cluster: Any) -> str:
    """One text that has the words of all."""
    return " ".join(dict.fromkeys(" ".join(one.content_text for one in cluster).split()))


async def main(dsn: str) -> None:
    async with Database(dsn) as db:
        await AgentMemory(db, embed=hashed, dims=DIMS).consolidate(merge=merge, threshold=0.75)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
