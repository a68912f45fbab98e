"""A table of the application's own, which nodes write to with their step."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from tests.conftest import execute, fetch

INSERT = "insert into effects (name) values ($1)"


class Effects:
    """What was done, by name."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    async def make(self) -> None:
        await execute(self.dsn, "create table effects (name text not null check (name <> 'bad'))")

    async def found(self) -> dict[str, int]:
        """How often each was done."""
        return await asyncio.to_thread(self.found_now)

    def found_now(self) -> dict[str, int]:
        rows = fetch(self.dsn, "select name from effects order by name")
        return dict(Counter(row["name"] for row in rows))


def once(*names: Any) -> dict[str, int]:
    return {str(name): 1 for name in sorted(map(str, names))}
