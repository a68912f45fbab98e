"""Re-embedding: vectors of another model, made beside those that are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg

from langgraph_pgsaga.database import LONG, Connection, Database, load_statements
from langgraph_pgsaga.errors import DimensionsError
from langgraph_pgsaga.memory.embedding import Embedder

_DELETED_AT_ONCE = 5_000

Key: TypeAlias = tuple[UUID, UUID]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingProgress:
    """How many memories got a vector, and how many there were without one when it began."""

    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """The vectors of a tenant's memories by a model."""

    db: Database
    tenant_id: str
    embedder: Embedder
    model: str
    is_half: bool

    async def fill(
        self, batch: int, on_progress: Callable[[EmbeddingProgress], object] | None = None
    ) -> EmbeddingProgress:
        """Embeds what has no vector yet, batch by batch, each of which is stored at once, until
        there is none.

        Raises:
            DimensionsError: there are vectors of the model that are of other dimensions.
        """
        count = _statement("count_unembedded").bind(
            tenant_id=self.tenant_id, model=self.model, dims=self.embedder.dims
        )
        (row,) = await self.db.run(lambda conn: self.db.fetch(count, conn=conn), limits=LONG)
        if row["other_dims"] is not None:
            raise DimensionsError(given=self.embedder.dims, expected=row["other_dims"])
        progress = EmbeddingProgress(done=0, total=row["unembedded"])
        while True:
            before = progress.done
            after: Key | None = None
            while rows := await self._unembedded(batch, after=after):
                await self.store(rows, {})
                progress = EmbeddingProgress(done=progress.done + len(rows), total=progress.total)
                if on_progress is not None:
                    on_progress(progress)
                after = rows[-1]["scope_id"], rows[-1]["memory_id"]
            # What came meanwhile may stand before the place.
            if progress.done == before:
                return progress

    async def fill_these(self, keys: Sequence[Key], known: Mapping[Key, Sequence[float]]) -> None:
        """Gives some memories the vectors that they lack: those that are known, else new ones."""
        rows = await self._unembedded(len(keys), keys=keys)
        await self.store([row for row in rows if _key(row) in known], known)
        await self.store([row for row in rows if _key(row) not in known], {})

    async def store(
        self, rows: Sequence[asyncpg.Record], known: Mapping[Key, Sequence[float]]
    ) -> None:
        """Stores vectors for memories: those that are known for all of them, else new ones."""
        if not rows:
            return
        vectors: Sequence[Sequence[float]]
        if known:
            vectors = [known[_key(row)] for row in rows]
        else:
            vectors = await self.embedder.of_texts([row["content_text"] for row in rows])
        statement = _statement("store_each_vector").bind(
            scope_ids=[row["scope_id"] for row in rows],
            memory_ids=[row["memory_id"] for row in rows],
            model=self.model,
            dims=self.embedder.dims,
            vectors=[float(value) for vector in vectors for value in vector],
            is_half=self.is_half,
        )
        for row in await self.db.fetch(statement):
            raise DimensionsError(given=self.embedder.dims, expected=row["other_dims"])

    async def _unembedded(
        self, page: int, *, after: Key | None = None, keys: Sequence[Key] | None = None
    ) -> list[asyncpg.Record]:
        statement = _statement("list_unembedded").bind(
            tenant_id=self.tenant_id,
            model=self.model,
            scope_ids=None if keys is None else [scope_id for scope_id, _ in keys],
            memory_ids=None if keys is None else [memory_id for _, memory_id in keys],
            after_scope=after and after[0],
            after_id=after and after[1],
            page=page,
        )
        return await self.db.fetch(statement)


async def delete_vectors(db: Database, tenant_id: str, model: str) -> int:
    """Deletes the vectors of a tenant's memories by a model; how many they were."""
    statement = _statement("delete_vectors").bind(
        tenant_id=tenant_id, model=model, most=_DELETED_AT_ONCE
    )

    async def work(conn: Connection) -> int:
        (row,) = await db.fetch(statement, conn=conn)
        count: int = row["vectors"]
        return count

    deleted = 0
    while count := await db.run(work, limits=LONG):
        deleted += count
    return deleted


def _key(row: asyncpg.Record) -> Key:
    return row["scope_id"], row["memory_id"]


def _statement(name: str) -> Any:
    return load_statements("memory_vectors")[name]
