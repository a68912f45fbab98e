"""A connection beside the pool, for what mustn't wait for others to give theirs back."""

from __future__ import annotations

import asyncio
import time

import asyncpg

from langgraph_pgsaga.database import BoundStatement, Connection, Database


class OwnConnection:
    """Made at its first use, and anew after it was lost. One statement at a time, each for so many
    seconds at most."""

    def __init__(self, db: Database, seconds: float) -> None:
        self._db = db
        self._seconds = seconds
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()

    async def fetch(self, bound: BoundStatement) -> tuple[float, list[asyncpg.Record]]:
        """When a statement was sent, by the monotonic clock, and its rows. It isn't repeated.

        Raises:
            ServerError and the like. After one, as after a cancellation, the connection is made
                anew.
        """
        async with self._turn:
            try:
                return await self._fetch(bound)
            except BaseException:
                self.close()
                raise

    async def _fetch(self, bound: BoundStatement) -> tuple[float, list[asyncpg.Record]]:
        with self._db.translating(OSError, EOFError, TimeoutError):
            async with asyncio.timeout(self._seconds):
                if self._connection is None or self._connection.is_closed():
                    self._connection = await self._db.connect()
                sent_at = time.monotonic()
                return sent_at, await self._db.fetch(bound, conn=self._connection)

    def close(self) -> None:
        """Closes it, without waiting for the server."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
