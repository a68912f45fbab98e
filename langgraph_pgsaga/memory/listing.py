"""Where a page of memories ended, and how they are listed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from langgraph_pgsaga._arguments import checked_time
from langgraph_pgsaga._cursor import cursor_of, place_of_cursor
from langgraph_pgsaga.errors import InvalidArgumentError, InvalidCursorError
from langgraph_pgsaga.memory.row import Memory
from langgraph_pgsaga.memory.scoring import checked_number

MemoryOrder = Literal["importance", "created", "accessed"]
STATEMENTS: dict[str, str] = {
    "importance": "list_important",
    "created": "list_newest",
    "accessed": "list_accessed",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where in an order a page ended; both None is before the first."""

    value: Any = None
    memory_id: UUID | None = None

    @classmethod
    def of_cursor(cls, cursor: str | None, order: MemoryOrder) -> Place:
        """The place of a cursor; InvalidCursorError where it is none of this order."""
        if cursor is None:
            return cls()
        given = place_of_cursor(cursor, order, f"a listing by {order}")
        try:
            value, memory_id = given
            if order == "importance":
                return cls(checked_number("after", float(value)), UUID(memory_id))
            return cls(checked_time("after", datetime.fromisoformat(value)), UUID(memory_id))
        except (AttributeError, InvalidArgumentError, TypeError, ValueError):
            pass
        raise InvalidCursorError(cursor=cursor, problem="isn't a cursor of a listing")


def cursor_behind(memory: Memory, order: MemoryOrder) -> str:
    """The cursor of the page that a memory ended."""
    times: dict[str, datetime] = {
        "created": memory.created_at,
        "accessed": memory.last_accessed_at,
    }
    value = times[order].isoformat() if order in times else repr(memory.importance_score)
    place: Sequence[str] = [value, str(memory.memory_id)]
    return cursor_of(order, place)
