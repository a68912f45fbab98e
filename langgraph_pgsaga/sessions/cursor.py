"""Where a page of sessions ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from langgraph_pgsaga._arguments import checked_integer, checked_time
from langgraph_pgsaga._cursor import cursor_of, place_of_cursor
from langgraph_pgsaga.errors import InvalidArgumentError, InvalidCursorError
from langgraph_pgsaga.sessions.session import Session, SessionOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in an order a page ended; all None is before the first."""

    priority: int | None = None
    time: datetime | None = None
    session_id: UUID | None = None

    @classmethod
    def of_session(cls, session: Session, order: SessionOrder) -> Place:
        """The place of a session that a page ended with."""
        return cls(
            priority=session.priority if order == "priority" else 0,
            time=session.last_activity_at if order == "activity" else session.created_at,
            session_id=session.session_id,
        )

    def cursor(self, order: SessionOrder) -> str:
        """The place as opaque text, which is good for this order only."""
        time = self.time.isoformat() if self.time else ""
        return cursor_of(order, [self.priority, time, str(self.session_id)])

    @classmethod
    def of_cursor(cls, cursor: str, order: SessionOrder) -> Place:
        """The inverse; InvalidCursorError where the text is no such place."""
        given = place_of_cursor(cursor, order, f"a listing by {order}")
        try:
            priority, time, session_id = given
            place = cls(
                priority=checked_integer("priority", priority),
                time=checked_time("time", datetime.fromisoformat(time)),
                session_id=UUID(session_id),
            )
        except (AttributeError, InvalidArgumentError, TypeError, ValueError):
            place = cls()
        if place.cursor(order) != cursor:
            raise InvalidCursorError(cursor=cursor, problem="isn't a cursor of a listing")
        return place
