"""Connections of a test's own, which are closed however it ends: also where it is skipped."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from langgraph_pgsaga import Database


@asynccontextmanager
async def connected(dsn: str, **options: Any) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """The driver's."""
    conn = await asyncpg.connect(dsn, **options)
    try:
        yield conn
    finally:
        await conn.close()


@asynccontextmanager
async def connection_of(db: Database) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """The database's, outside its pools."""
    conn = await db.connect()
    try:
        yield conn
    finally:
        await conn.close()
