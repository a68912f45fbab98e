"""The vectors of a store's items: made once for each text, and found by the nearest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import asyncpg
from langgraph.store.base import SearchOp

from langgraph_pgsaga.database import BoundStatement, Connection, Database, load_statements
from langgraph_pgsaga.errors import (
    MissingMigrationsError,
    MissingVectorsError,
    ServerError,
    VectorTypeError,
)
from langgraph_pgsaga.memory.filters import Filter
from langgraph_pgsaga.memory.index import Index
from langgraph_pgsaga.memory.namespaces import scope_of
from langgraph_pgsaga.memory.operations import Place, Put
from langgraph_pgsaga.memory.packing import PackedVector, VectorCodec

_STATEMENTS = load_statements("store_vectors")
# Up to here all vectors of a scope are read, which is exact, also where there is another index.
_MOST_EXACT = 10_000
# What of an approximate index is fetched, and sorted exactly.
_FETCHED_TIMES, _FETCHED_MORE = 4, 40
# A text that is embedded in less: a look for its vector takes longer.
_QUICK_SECONDS = 50e-6
_NOT_SUPPORTED = "0A000"
_HASH_BYTES = 16


async def create_vectors(db: Database, index: Index) -> None:
    """Makes the table of vectors and the index, unless they are there.

    Raises:
        MissingVectorsError: the server has no pgvector.
        VectorTypeError: there are vectors, of another type or length.
    """
    make = _STATEMENTS["create_store_vectors"].bind(dims=index.dims, kind=index.vector_type)
    try:
        (row,) = await db.fetch(make)
    except ServerError as error:
        if error.sqlstate != _NOT_SUPPORTED:
            raise
        raise MissingVectorsError(detail=error.detail) from error
    if row["stored"] != index.stored_type:
        raise VectorTypeError(stored=row["stored"], wanted=index.stored_type)
    if index.kind != "flat":
        await db.fetch(
            _STATEMENTS["create_store_index"].bind(
                kind=index.kind, distance=index.distance, settings=index.settings
            )
        )


class Vectors:
    """A tenant's vectors, by the index of a store."""

    def __init__(self, db: Database, tenant_id: str, index: Index, codec: VectorCodec) -> None:
        self._db = db
        self._tenant_id = tenant_id
        self.index = index
        self.codec = codec

    async def fetch(
        self, name: str, *, conn: Connection | None, **values: Any
    ) -> list[asyncpg.Record]:
        """The rows of a statement on the tenant's vectors.

        Raises:
            MissingVectorsError: their table isn't there.
        """
        prepare = self.codec.prepare if "vectors" in values else None
        try:
            return await self._db.fetch(self._bound(name, **values), conn=conn, prepare=prepare)
        except MissingMigrationsError as error:
            detail = f"{error.detail}. Call the store's setup() once, with its index"
            raise MissingVectorsError(detail=detail) from error

    async def search(
        self, op: SearchOp, narrowed: Filter, query: str, conn: Connection | None
    ) -> list[asyncpg.Record]:
        """The items whose vectors are nearest to the query's."""
        scope = scope_of(op.namespace_prefix).values()
        given = {
            **scope,
            **narrowed.values(),
            "limit_count": op.limit,
            "offset_count": op.offset,
            "query": query,
        }
        if self.index.kind != "flat":
            most = _MOST_EXACT + 1
            (row,) = await self.fetch("count_vectors", conn=conn, **scope, most=most)
            if row["vectors"] >= most:
                found = await self._search_nearest(op, given, conn)
                if len(found) == op.limit:
                    return found
        number = self.index.distance_number
        return await self.fetch("search_exactly", conn=conn, **given, distance=number)

    async def _search_nearest(
        self, op: SearchOp, given: dict[str, Any], conn: Connection | None
    ) -> list[asyncpg.Record]:
        """By the approximate index; fewer than asked for where it gives no more."""
        fetched = (op.limit + op.offset) * _FETCHED_TIMES + _FETCHED_MORE

        async def work(conn: Connection) -> list[asyncpg.Record]:
            await self._db.fetch(_STATEMENTS["scan_on"].bind(), conn=conn)
            name = f"search_nearest_{self.index.distance}"
            return await self.fetch(name, conn=conn, **given, fetched=fetched)

        return await (self._db.snapshot(work) if conn is None else work(conn))

    def _bound(self, name: str, **values: Any) -> BoundStatement:
        return _STATEMENTS[name].bind(tenant_id=self._tenant_id, **values)


class TextVectors:
    """The vectors that the items of a batch are to have."""

    def __init__(self, vectors: Vectors, puts: Sequence[Put]) -> None:
        self._vectors = vectors
        self._puts = [put for put in puts if put.value is not None]
        self._texts: dict[bytes, str] = {}
        self._known: dict[bytes, PackedVector] = {}
        self._held: set[tuple[str, str, str, bytes]] = set()
        self._wanted: dict[Place, dict[str, bytes]] = {}
        for put in self._puts:
            wanted = self._wanted[put.place] = {}
            for path, text in vectors.index.texts_of(put.op):
                # What PostgreSQL can't hold isn't stored, but hashed.
                wanted[path] = _hash_of(text)
                self._texts[wanted[path]] = text

    async def embed(self, *, keep: bool, conn: Connection | None = None) -> None:
        """Embeds the texts by one call: with `keep` only those that have no vector yet.

        All of them where the model is so quick that to look which have one takes longer.
        """
        index, codec = self._vectors.index, self._vectors.codec
        keep = keep and bool(self._texts) and index.embedder.fastest_seconds > _QUICK_SECONDS
        self._held = await self._look() if keep else set()
        missing = {
            text_hash
            for (namespace, key), wanted in self._wanted.items()
            for path, text_hash in wanted.items()
            if (namespace, key, path, text_hash) not in self._held
        }
        new = sorted(missing - self._known.keys())
        if new:
            kind = await codec.kind(conn)
            found = await index.embedder.of_texts([self._texts[one] for one in new])
            self._known |= zip(new, map(kind.of, found), strict=True)

    async def _look(self) -> set[tuple[str, str, str, bytes]]:
        namespaces, keys = map(list, zip(*self._wanted, strict=True))
        rows = await self._vectors.fetch(
            "get_text_hashes", conn=None, namespaces=namespaces, keys=keys
        )
        return {(row["namespace"], row["key"], row["path"], row["text_hash"]) for row in rows}

    def parameters(self, puts: Sequence[Put]) -> dict[str, Any]:
        """Those of a statement that stores the vectors of these puts; the new ones come first."""
        new: list[tuple[int, str, bytes]] = []
        kept: list[tuple[int, str, bytes]] = []
        for number, put in enumerate(puts, start=1):
            for path, text_hash in self._wanted[put.place].items():
                is_held = (*put.place, path, text_hash) in self._held
                (kept if is_held else new).append((number, path, text_hash))
        both = [*new, *kept]
        return {
            "namespaces": [put.namespace for put in puts],
            "keys": [put.key for put in puts],
            "items": [number for number, _, _ in both],
            "paths": [path for _, path, _ in both],
            "hashes": [text_hash for _, _, text_hash in both],
            "vectors": [self._known[text_hash] for _, _, text_hash in new],
        }


def _hash_of(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).digest()
