"""Vectors in pgvector's binary form, which the server reads twenty times as fast as text."""

from __future__ import annotations

import struct
from typing import Any, ClassVar

from langgraph_pgsaga import _json
from langgraph_pgsaga.database import Connection, Database, Packed, load_statements, render
from langgraph_pgsaga.errors import EmbeddingError, MissingVectorsError
from langgraph_pgsaga.memory.embedding import Vector

_STATEMENTS = load_statements("store_vectors")
_TABLE = "{schema}.agent_store_vectors"
# How many dimensions there are, and two bytes that mean nothing yet.
_HEAD, _HEAD_BYTES = ">HH", 4


class PackedVector(Packed):
    """One of pgvector's types."""

    number: ClassVar[str]

    @classmethod
    def of(cls, vector: Vector) -> PackedVector:
        """A vector's bytes.

        Raises:
            EmbeddingError: a number is none, or larger than the type holds.
        """
        try:
            return cls(struct.pack(f"{_HEAD}{len(vector)}{cls.number}", len(vector), 0, *vector))
        except (struct.error, OverflowError) as error:
            problem = f"a number of it can't be stored ({error})"
            raise EmbeddingError(problem=problem) from error

    @classmethod
    def sent(cls, value: Any) -> bytes:
        """What a connection sends, which without this codec takes text."""
        return value if isinstance(value, Packed) else cls.of(_json.load(value))

    @classmethod
    def received(cls, given: bytes) -> str:
        """What a connection gives, which without this codec is text."""
        return cls(given).text()

    def text(self) -> str:
        """As pgvector reads it."""
        (dims,) = struct.unpack_from(">H", self)
        return _json.dump(struct.unpack_from(f">{dims}{self.number}", self, _HEAD_BYTES))


class PackedHalves(PackedVector):
    """A halfvec, two bytes for each dimension."""

    number = "e"


class PackedFloats(PackedVector):
    """A vector, four bytes for each dimension."""

    number = "f"


_KINDS: dict[str, type[PackedVector]] = {"halfvec": PackedHalves, "vector": PackedFloats}


class VectorCodec:
    """The type that a store's vectors have, and how connections send it."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._found: tuple[str, str] | None = None

    def forget(self) -> None:
        """Has the type looked for again, where the table may be another."""
        self._found = None

    async def kind(self, conn: Connection | None) -> type[PackedVector]:
        """What packs a vector.

        Raises:
            MissingVectorsError: the table isn't there.
        """
        _, name = await self._find(conn)
        return _KINDS[name]

    async def prepare(self, conn: Connection) -> None:
        """Has a connection send what is packed, unless it does already."""
        schema, name = await self._find(conn)
        plain = getattr(conn, "plain", None)
        if plain is not None and (schema, name) in plain().codecs:
            return
        kind = _KINDS[name]
        await conn.set_type_codec(
            name, schema=schema, encoder=kind.sent, decoder=kind.received, format="binary"
        )

    async def _find(self, conn: Connection | None) -> tuple[str, str]:
        if self._found is None:
            find = _STATEMENTS["find_vector_type"].bind(table=render(_TABLE, self._db.schema))
            row = await self._db.fetch_one(find, conn=conn)
            if row is None:
                problem = "agent_store_vectors isn't there. Call the store's setup() once, with its"
                raise MissingVectorsError(detail=f"{problem} index")
            self._found = row["home"], row["kind"]
        return self._found
