"""Where a page of sessions ended."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import asyncpg

from langgraph_pgsaga._arguments import checked_integer
from langgraph_pgsaga._cursor import cursor_of, place_of_cursor
from langgraph_pgsaga._times import time_of_row
from langgraph_pgsaga.errors import InvalidArgumentError, InvalidCursorError
from langgraph_pgsaga.sessions.session import SessionOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in an order a page ended; all None is before the first.

    The time is as the row has it, since a datetime can't name every time that rows have.
    """

    priority: int | None = None
    time: str | None = None
    session_id: UUID | None = None

    @classmethod
    def of_row(cls, row: asyncpg.Record, order: SessionOrder) -> Place:
        """The place of the session that a page ended with."""
        return cls(
            priority=row["priority"] if order == "priority" else 0,
            time=row["last_activity_at" if order == "activity" else "created_at"],
            session_id=row["session_id"],
        )

    def cursor(self, order: SessionOrder) -> str:
        """The place as opaque text, which is good for this order only."""
        return cursor_of(order, [self.priority, self.time, str(self.session_id)])

    @classmethod
    def of_cursor(cls, cursor: str, order: SessionOrder) -> Place:
        """The inverse; InvalidCursorError where the text is no such place."""
        given = place_of_cursor(cursor, order, f"a listing by {order}")
        try:
            priority, time, session_id = given
            time_of_row(time)
            place = cls(
                priority=checked_integer("priority", priority),
                time=time,
                session_id=UUID(session_id),
            )
        except (AttributeError, InvalidArgumentError, TypeError, ValueError):
            place = cls()
        if place.cursor(order) != cursor:
            raise InvalidCursorError(cursor=cursor, problem="isn't a cursor of a listing")
        return place
