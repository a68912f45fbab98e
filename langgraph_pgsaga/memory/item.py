"""An item of the store, as LangGraph has it, with its version."""

from __future__ import annotations

from typing import Any

import asyncpg
from langgraph.store.base import Item, SearchItem

from langgraph_pgsaga import _json
from langgraph_pgsaga.memory.namespaces import labels_of


class StoredItem(Item):
    """LangGraph's Item, with its version: what `put(..., expected_version=)` takes."""

    __slots__ = ("version",)

    def __init__(self, *, version: int, **of_item: Any) -> None:
        super().__init__(**of_item)
        self.version = version

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> StoredItem:
        """The item of a row of `get_items`."""
        return cls(**_of_row(row))


class FoundItem(SearchItem):
    """LangGraph's SearchItem, with its version; the score is None without a query."""

    __slots__ = ("version",)

    def __init__(self, *, version: int, **of_item: Any) -> None:
        super().__init__(**of_item)
        self.version = version

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> FoundItem:
        """The item of a row of a search."""
        return cls(**_of_row(row), score=row.get("score"))


def _of_row(row: asyncpg.Record) -> dict[str, Any]:
    return {
        "namespace": labels_of(row["namespace"]),
        "key": row["key"],
        "value": _json.load(row["value"]),
        "version": row["version"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
    }
