"""VectorTables: whether a database has what memories with vectors need, and making it."""

from __future__ import annotations

import time
from typing import NamedTuple

from langgraph_pgsaga.database import Connection, Database, Limits, load_statements, render
from langgraph_pgsaga.errors import MissingVectorsError, ServerError

_STATEMENTS = load_statements("memory")
_TABLE = "{schema}.agent_memory_vectors"
# feature_not_supported, as pgsaga_create_vectors() says it.
_NO_PGVECTOR = "0A000"
_LOOKED_FOR_SECONDS = 60.0
# A million vectors take hours.
_OF_BUILDING = Limits(statement_seconds=86_400.0)


class VectorKind(NamedTuple):
    """Vectors of one model: what an approximate index is of."""

    model: str
    dims: int
    is_half: bool

    def values(self) -> dict[str, str | int]:
        """Those of a statement's parameters."""
        return {"model": self.model, "dims": self.dims, "is_half": self.is_half}


class VectorTables:
    """Those of a database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._are_there = False
        # When it was last looked for an index, of each that there may be, and what was found.
        self._indexes: dict[VectorKind, tuple[float, bool]] = {}

    async def make(self) -> None:
        """Makes them, unless they are there.

        Raises:
            MissingVectorsError: the server has no pgvector.
        """
        try:
            await self._db.fetch(_STATEMENTS["create_memory_vectors"].bind())
        except ServerError as error:
            if error.sqlstate != _NO_PGVECTOR:
                raise
            detail = "the server has no pgvector. Install it, or leave embed= out"
            raise MissingVectorsError(detail=detail) from error
        self._are_there = True

    async def check(self) -> None:
        """Looks for them, until they were found once.

        Raises:
            MissingVectorsError: they aren't there.
        """
        if self._are_there:
            return
        find = _STATEMENTS["find_memory_vectors"].bind(table=render(_TABLE, self._db.schema))
        (row,) = await self._db.fetch(find)
        self._are_there = row["is_there"]
        if not self._are_there:
            raise MissingVectorsError(detail="call await memory.setup() once per database")

    async def make_index(self, kind: VectorKind) -> None:
        """Makes the approximate index of vectors of a kind, unless it is there."""
        statement = load_statements("memory_vectors")["create_memory_index"].bind(**kind.values())

        async def work(conn: Connection) -> None:
            await self._db.fetch(statement, conn=conn)

        await self._db.run(work, limits=_OF_BUILDING)
        self._indexes[kind] = time.monotonic(), True

    async def has_index(self, kind: VectorKind) -> bool:
        """Whether there is one; that there is none is asked again after a while."""
        looked, is_there = self._indexes.get(kind, (0.0, False))
        if is_there or (looked and time.monotonic() - looked < _LOOKED_FOR_SECONDS):
            return is_there
        statement = load_statements("memory_vectors")["find_memory_index"].bind(
            schema_name=self._db.schema, **kind.values()
        )
        (row,) = await self._db.fetch(statement)
        self._indexes[kind] = time.monotonic(), row["is_there"]
        return bool(row["is_there"])
