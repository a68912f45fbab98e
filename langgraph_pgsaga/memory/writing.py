"""What a batch of the store writes: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langgraph_pgsaga.database import BoundStatement, Connection, Database, load_statements
from langgraph_pgsaga.errors import ItemConflictError
from langgraph_pgsaga.memory.namespaces import labels_of
from langgraph_pgsaga.memory.operations import Put

_STATEMENTS = load_statements("store")


class Writer:
    """The puts and deletions of a batch, one for each place, in the order they are locked in."""

    def __init__(self, db: Database, tenant_id: str, puts: Sequence[Put]) -> None:
        self._db = db
        self._tenant_id = tenant_id
        plain = [put for put in puts if put.expected_version is None]
        self._stored = [put for put in plain if put.value is not None]
        self._deleted = [put for put in plain if put.value is None]
        self._versioned = [put for put in puts if put.expected_version is not None]

    async def write(self, conn: Connection | None) -> None:
        """Does all of it, in the transaction of `conn` if there is one.

        Raises:
            ItemConflictError: an item hasn't the version that was expected; nothing was stored.
        """
        statements = self._statements()
        if not self._versioned and len(statements) == 1:
            await self._db.fetch(statements[0], conn=conn)
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
        for statement in self._statements():
            await self._db.fetch(statement, conn=conn)
        for put in self._versioned:
            await self._write_at(put, conn)

    def _statements(self) -> list[BoundStatement]:
        """Those of what expects no version."""
        statements = []
        if self._stored:
            store = self._bound(
                "put_items",
                namespaces=[put.namespace for put in self._stored],
                keys=[put.key for put in self._stored],
                item_values=[put.value for put in self._stored],
                ttls=[put.ttl_minutes for put in self._stored],
            )
            statements.append(store)
        if self._deleted:
            delete = self._bound(
                "delete_items",
                namespaces=[put.namespace for put in self._deleted],
                keys=[put.key for put in self._deleted],
            )
            statements.append(delete)
        return statements

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
