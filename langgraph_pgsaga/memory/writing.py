"""What a batch of the store writes: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langgraph_pgsaga.database import BoundStatement, Connection, Database, load_statements
from langgraph_pgsaga.errors import ItemConflictError, ServerError
from langgraph_pgsaga.memory.namespaces import labels_of
from langgraph_pgsaga.memory.operations import Put
from langgraph_pgsaga.memory.vectors import TextVectors, Vectors

_STATEMENTS = load_statements("store")
# Somebody else has put another text meanwhile, in place of one whose vector was to stay.
_CHANGED_MEANWHILE = "PSV01"
_ATTEMPTS_THAT_KEEP = 3


class Writer:
    """The puts and deletions of a batch, one for each place, in the order they are locked in."""

    def __init__(
        self, db: Database, tenant_id: str, puts: Sequence[Put], vectors: Vectors | None
    ) -> None:
        self._db = db
        self._tenant_id = tenant_id
        plain = [put for put in puts if put.expected_version is None]
        self._stored = [put for put in plain if put.value is not None]
        self._deleted = [put for put in plain if put.value is None]
        self._versioned = [put for put in puts if put.expected_version is not None]
        self._vectors = vectors
        self._texts = None if vectors is None else TextVectors(vectors, puts)

    async def embed(self, conn: Connection | None) -> None:
        """Embeds all texts, so that `write` has nothing to wait for in a caller's transaction."""
        if self._texts is not None:
            await self._texts.embed(keep=False, conn=conn)

    async def write(self, conn: Connection | None) -> None:
        """Does all of it, in the transaction of `conn` if there is one, after `embed`.

        Raises:
            ItemConflictError: an item hasn't the version that was expected; nothing was stored.
        """
        if conn is not None or self._texts is None:
            await self._write(conn)
            return
        for attempt in range(_ATTEMPTS_THAT_KEEP + 1):
            await self._texts.embed(keep=attempt < _ATTEMPTS_THAT_KEEP)
            try:
                await self._write(None)
            except ServerError as error:
                if error.sqlstate != _CHANGED_MEANWHILE:
                    raise
            else:
                return

    async def _write(self, conn: Connection | None) -> None:
        statements = self._statements()
        if not self._versioned and len(statements) == 1:
            await self._do(*statements[0], conn)
        elif conn is None:
            # What expects a version isn't the same when done twice.
            await self._db.run(self._write_all, once=bool(self._versioned))
        elif self._versioned:
            # What is refused leaves the caller's transaction as it was.
            with self._db.translating():
                async with conn.transaction():
                    await self._write_all(conn)
        else:
            await self._write_all(conn)

    async def _write_all(self, conn: Connection) -> None:
        for name, values in self._statements():
            await self._do(name, values, conn)
        for put in self._versioned:
            await self._write_at(put, conn)
        stored = [put for put in self._versioned if put.value is not None]
        if self._texts is not None and stored:
            await self._do("put_vectors", self._texts.parameters(stored), conn)

    def _statements(self) -> list[tuple[str, dict[str, Any]]]:
        """Those of what expects no version, and their parameters."""
        statements: list[tuple[str, dict[str, Any]]] = []
        if stored := self._stored:
            items = {
                "item_values": [put.value for put in stored],
                "ttls": _lifetimes(stored),
            }
            if self._texts is None:
                statements.append(("put_items", {**_places(stored), **items}))
            else:
                statements.append(
                    ("put_indexed_items", {**self._texts.parameters(stored), **items})
                )
        if self._deleted:
            statements.append(("delete_items", _places(self._deleted)))
        return statements

    async def _do(self, name: str, values: dict[str, Any], conn: Connection | None) -> None:
        if self._vectors is not None and name not in _STATEMENTS:
            await self._vectors.fetch(name, conn=conn, **values)
        else:
            await self._db.fetch(self._bound(name, **values), conn=conn)

    async def _write_at(self, put: Put, conn: Connection) -> None:
        """Does what is to take the place of a version, or refuses it."""
        if await self._db.fetch(self._statement_at(put), conn=conn):
            return
        look = self._bound("get_items", namespaces=[put.namespace], keys=[put.key])
        row = await self._db.fetch_one(look, conn=conn)
        actual = 0 if row is None else row["version"]
        expected = put.expected_version or 0
        if put.value is None and actual == expected == 0:
            return
        raise ItemConflictError(
            namespace=labels_of(put.namespace), key=put.key, expected=expected, actual=actual
        )

    def _statement_at(self, put: Put) -> BoundStatement:
        place: dict[str, Any] = {"namespace": put.namespace, "key": put.key}
        if put.value is None:
            return self._bound("delete_item_at", **place, expected_version=put.expected_version)
        value = {"value": put.value, "ttl_minutes": put.ttl_minutes}
        if not put.expected_version:
            return self._bound("put_new_item", **place, **value)
        return self._bound("put_item_at", **place, **value, expected_version=put.expected_version)

    def _bound(self, name: str, **values: Any) -> BoundStatement:
        return _STATEMENTS[name].bind(tenant_id=self._tenant_id, **values)


def _lifetimes(puts: Sequence[Put]) -> list[float | None]:
    """How long each lives; none at all where they live for ever, which is the same to `unnest`."""
    found = [put.ttl_minutes for put in puts]
    return [] if all(minutes is None for minutes in found) else found


def _places(puts: Sequence[Put]) -> dict[str, Any]:
    return {"namespaces": [put.namespace for put in puts], "keys": [put.key for put in puts]}
