"""The systems for sync callers: the same names, without await and without `conn`.

Each call goes through the database's own thread, as the saver's sync methods do. It may be
made anywhere but on that thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from langgraph_pgsaga import sessions
from langgraph_pgsaga.database import Database
from langgraph_pgsaga.sessions import (
    UNCHANGED,
    RetentionPolicy,
    Session,
    SessionOrder,
    SessionPage,
    SessionStatus,
    SweepResult,
    ThreadId,
    Unchanged,
)


class Sessions:
    """`langgraph_pgsaga.sessions.Sessions` for sync callers."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self._sessions = sessions.Sessions(db)

    def create(
        self,
        thread_id: ThreadId,
        *,
        user_id: str = "",
        agent_type: str = "",
        priority: int = 0,
        metadata: Mapping[str, Any] | None = None,
        expires_at: datetime | None = None,
    ) -> Session:
        """A new, active session; runs of the thread then use it."""
        return self.db.portal.call(
            self._sessions.create,
            thread_id,
            user_id=user_id,
            agent_type=agent_type,
            priority=priority,
            metadata=metadata,
            expires_at=expires_at,
        )

    def get(self, thread_id: ThreadId) -> Session | None:
        """The thread's session, or None where there is none."""
        return self.db.portal.call(self._sessions.get, thread_id)

    def update(
        self,
        thread_id: ThreadId,
        *,
        user_id: str | None = None,
        agent_type: str | None = None,
        status: SessionStatus | None = None,
        priority: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        expires_at: datetime | Unchanged | None = UNCHANGED,
    ) -> Session:
        """Changes what is given, and returns the session as it then is."""
        return self.db.portal.call(
            self._sessions.update,
            thread_id,
            user_id=user_id,
            agent_type=agent_type,
            status=status,
            priority=priority,
            metadata=metadata,
            expires_at=expires_at,
        )

    def set_status(self, thread_id: ThreadId, status: SessionStatus) -> Session:
        """`update` of the status alone."""
        return self.db.portal.call(self._sessions.set_status, thread_id, status)

    def delete(self, thread_id: ThreadId) -> None:
        """Deletes the thread from every table. A thread that isn't there is no error."""
        self.db.portal.call(self._sessions.delete, thread_id)

    def list(
        self,
        *,
        user_id: str | None = None,
        agent_type: str | None = None,
        status: SessionStatus | None = None,
        metadata: Mapping[str, Any] | None = None,
        active_since: datetime | None = None,
        active_before: datetime | None = None,
        text: str | None = None,
        order: SessionOrder = "activity",
        limit: int = 50,
        after: str | None = None,
    ) -> SessionPage:
        """A page of the sessions that all of the given fit."""
        return self.db.portal.call(
            self._sessions.list,
            user_id=user_id,
            agent_type=agent_type,
            status=status,
            metadata=metadata,
            active_since=active_since,
            active_before=active_before,
            text=text,
            order=order,
            limit=limit,
            after=after,
        )

    def sweep(
        self,
        policies: Sequence[RetentionPolicy] = (),
        *,
        batch: int = 100,
        on_progress: Callable[[SweepResult], None] | None = None,
    ) -> SweepResult:
        """Deletes what has expired, then what the policies don't keep.

        `on_progress` is called on the database's thread, so it may call nothing of the
        package that is sync.
        """
        return self.db.portal.call(
            self._sessions.sweep, policies, batch=batch, on_progress=on_progress
        )
