"""The savers that are compared: how each is opened, and what its tables take."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres import PostgresSaver as ReferenceSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver as AsyncReferenceSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from psycopg import AsyncConnection, Connection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from langgraph_pgsaga import PostgresSaver

Saver: TypeAlias = BaseCheckpointSaver[Any]

POOL_SIZE = 10
_TABLE_BYTES = """
select coalesce(sum(pg_total_relation_size(relid)), 0)::bigint
from pg_catalog.pg_stat_user_tables
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A saver to time. `place` is the DSN of its own database, or the folder of its files."""

    name: str
    open_saver: Callable[[str], AbstractAsyncContextManager[Saver]]
    open_sync_saver: Callable[[str], AbstractContextManager[Saver]] | None = None
    uses_server: bool = True
    uses_files: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """A contender at work: its open saver, where it is, and a connection of ours to it."""

    contender: Contender
    saver: Saver
    place: str
    conn: asyncpg.Connection[asyncpg.Record] | None

    async def table_bytes(self) -> float:
        """What is stored, indexes and TOAST included; 0 for memory."""
        if self.conn is not None:
            return float(await self.conn.fetchval(_TABLE_BYTES))
        return float(_file_bytes(self.place)) if self.contender.uses_files else 0.0

    async def wal_position(self) -> float:
        """Of the whole server: nothing else may write to it meanwhile."""
        if self.conn is None:
            return 0.0
        since = "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8"
        return float(await self.conn.fetchval(since))


def _file_bytes(folder: str) -> int:
    return sum(file.stat().st_size for file in Path(folder).iterdir())


@asynccontextmanager
async def _open_pgsaga(dsn: str) -> AsyncIterator[Saver]:
    async with PostgresSaver.from_conn_string(dsn, max_size=POOL_SIZE) as saver:
        await saver.asetup()
        yield saver


@contextmanager
def _open_sync_pgsaga(dsn: str) -> Iterator[Saver]:
    with PostgresSaver.from_conn_string(dsn, max_size=POOL_SIZE) as saver:
        saver.setup()
        yield saver


# As the reference's documentation advises; on a pool it uses a pipeline wherever libpq has them.
_OPTIONS: dict[str, Any] = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}


@asynccontextmanager
async def _open_reference(dsn: str) -> AsyncIterator[Saver]:
    pool: AsyncConnectionPool[AsyncConnection[DictRow]] = AsyncConnectionPool(
        dsn, min_size=POOL_SIZE, max_size=POOL_SIZE, kwargs=_OPTIONS, open=False
    )
    async with pool:
        saver = AsyncReferenceSaver(pool)
        await saver.setup()
        yield saver


@contextmanager
def _open_sync_reference(dsn: str) -> Iterator[Saver]:
    pool: ConnectionPool[Connection[DictRow]] = ConnectionPool(
        dsn, min_size=POOL_SIZE, max_size=POOL_SIZE, kwargs=_OPTIONS, open=False
    )
    with pool:
        saver = ReferenceSaver(pool)
        saver.setup()
        yield saver


@asynccontextmanager
async def _open_sqlite(folder: str) -> AsyncIterator[Saver]:
    async with AsyncSqliteSaver.from_conn_string(str(Path(folder) / "saver.sqlite")) as saver:
        await saver.setup()
        yield saver


@asynccontextmanager
async def _open_memory(_: str) -> AsyncIterator[Saver]:
    yield InMemorySaver()


OURS = Contender(name="pgsaga", open_saver=_open_pgsaga, open_sync_saver=_open_sync_pgsaga)
REFERENCE = Contender(
    name="reference", open_saver=_open_reference, open_sync_saver=_open_sync_reference
)
SQLITE = Contender(name="sqlite", open_saver=_open_sqlite, uses_server=False, uses_files=True)
# What no saver can beat: nothing is written anywhere.
MEMORY = Contender(name="memory", open_saver=_open_memory, uses_server=False)
CONTENDERS = (OURS, REFERENCE, SQLITE, MEMORY)
