"""What a batch of the store reads: items, searches and namespaces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
from langgraph.store.base import GetOp, ListNamespacesOp, Result, SearchOp

from langgraph_pgsaga.database import BoundStatement, Connection, Database, load_statements
from langgraph_pgsaga.memory.filters import Filter
from langgraph_pgsaga.memory.item import FoundItem, StoredItem
from langgraph_pgsaga.memory.namespaces import paths_of, scope_of, stored_namespace
from langgraph_pgsaga.memory.operations import Operations, Place
from langgraph_pgsaga.memory.vectors import Vectors

_STATEMENTS = load_statements("store")


class Reader:
    """Answers what a batch asks of a tenant's items, each kind of operation by its statements."""

    def __init__(self, db: Database, tenant_id: str, vectors: Vectors | None) -> None:
        self._db = db
        self._tenant_id = tenant_id
        self._vectors = vectors

    async def results(self, operations: Operations, conn: Connection | None) -> list[Result]:
        """The results in the order of the operations; that of a put is None."""
        results: list[Any] = [None] * operations.count
        refreshed: set[Place] = set()
        if operations.gets:
            refreshed |= await self._get(operations.gets, results, conn)
        queries = await self._embedded([op for _, op, _ in operations.searches])
        for number, search, narrowed in operations.searches:
            if self._vectors is not None and search.query:
                query = queries[search.query]
                rows = await self._vectors.search(search, narrowed, query, conn)
            else:
                rows = await self._search(search, narrowed, conn)
            results[number] = [FoundItem.from_row(row) for row in rows]
            refreshed |= _living(rows) if search.refresh_ttl else set()
        for number, listing in operations.listings:
            results[number] = await self._list(listing, conn)
        if refreshed:
            await self._refresh(sorted(refreshed), conn)
        return results

    async def _get(
        self, gets: Sequence[tuple[int, GetOp]], results: list[Any], conn: Connection | None
    ) -> set[Place]:
        """Puts in the items, and returns the places of those that are to live on."""
        places = [(stored_namespace(op.namespace), op.key) for _, op in gets]
        namespaces, keys = map(list, zip(*places, strict=True))
        look = self._bound("get_items", namespaces=namespaces, keys=keys)
        found = {
            (row["namespace"], row["key"]): row for row in await self._db.fetch(look, conn=conn)
        }
        read = []
        for place, (number, op) in zip(places, gets, strict=True):
            if (row := found.get(place)) is not None:
                results[number] = StoredItem.from_row(row)
                read += [row] if op.refresh_ttl else []
        return _living(read)

    async def _embedded(self, searches: Sequence[SearchOp]) -> dict[str, str]:
        """The vectors of what is searched for; without an index a query is none."""
        asked = list(dict.fromkeys(op.query for op in searches if op.query))
        if self._vectors is None or not asked:
            return {}
        vectors = await self._vectors.index.queries(asked)
        return dict(zip(asked, vectors, strict=True))

    async def _search(
        self, op: SearchOp, narrowed: Filter, conn: Connection | None
    ) -> list[asyncpg.Record]:
        search = self._bound(
            "search_items",
            **scope_of(op.namespace_prefix).values(),
            **narrowed.values(),
            limit_count=op.limit,
            offset_count=op.offset,
        )
        return await self._db.fetch(search, conn=conn)

    async def _list(self, op: ListNamespacesOp, conn: Connection | None) -> list[tuple[str, ...]]:
        paths = paths_of(op)
        if paths is None:
            return []
        listing = self._bound(
            "list_namespaces",
            **paths.scope.values(),
            prefix=paths.prefix,
            suffix=paths.suffix or None,
            max_depth=op.max_depth,
            limit_count=op.limit,
            offset_count=op.offset,
        )
        return [tuple(row["labels"]) for row in await self._db.fetch(listing, conn=conn)]

    async def _refresh(self, places: Sequence[Place], conn: Connection | None) -> None:
        """Has items that were read live on."""
        namespaces, keys = map(list, zip(*places, strict=True))
        await self._db.fetch(
            self._bound("refresh_items", namespaces=namespaces, keys=keys), conn=conn
        )

    def _bound(self, name: str, **values: Any) -> BoundStatement:
        return _STATEMENTS[name].bind(tenant_id=self._tenant_id, **values)


def _living(rows: Sequence[asyncpg.Record]) -> set[Place]:
    """Where the items are that live for a time only."""
    return {(row["namespace"], row["key"]) for row in rows if row["ttl_minutes"] is not None}
