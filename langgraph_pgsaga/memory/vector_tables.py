"""VectorTables: whether a database has what memories with vectors need, and making it."""

from __future__ import annotations

from langgraph_pgsaga.database import Database, load_statements, render
from langgraph_pgsaga.errors import MissingVectorsError, ServerError

_STATEMENTS = load_statements("memory")
_TABLE = "{schema}.agent_memory_vectors"
# feature_not_supported, as pgsaga_create_vectors() says it.
_NO_PGVECTOR = "0A000"


class VectorTables:
    """Those of a database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._are_there = False

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
