"""The systems for sync callers: the same names, without await and without `conn`.

Each call goes through the database's own thread, as the saver's sync methods do. It may be
made anywhere but on that thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TextIO

from langchain_core.messages import BaseMessage

from langgraph_pgsaga import messages, sessions
from langgraph_pgsaga.checkpoint import PostgresSaver
from langgraph_pgsaga.database import Database
from langgraph_pgsaga.messages import MessageHit, MessagePage, MessageTree
from langgraph_pgsaga.sessions import (
    UNCHANGED,
    RetentionPolicy,
    Session,
    SessionOrder,
    SessionPage,
    SessionStatus,
    SweepResult,
    Unchanged,
)
from langgraph_pgsaga.threads import ThreadId


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
        dry_run: bool = False,
        on_progress: Callable[[SweepResult], None] | None = None,
    ) -> SweepResult:
        """Deletes what has expired, then what the policies don't keep.

        `on_progress` is called on the database's thread, so it may call nothing of the
        package that is sync.
        """
        return self.db.portal.call(
            self._sessions.sweep,
            policies,
            batch=batch,
            dry_run=dry_run,
            on_progress=on_progress,
        )


class Messages:
    """`messages.Messages` for sync callers."""

    def __init__(self, saver: PostgresSaver) -> None:
        self.saver = saver
        self._messages = messages.Messages(saver)

    def conversation(
        self,
        thread_id: ThreadId,
        *,
        checkpoint_id: str | None = None,
        checkpoint_ns: str = "",
        channel: str = "messages",
    ) -> list[BaseMessage]:
        """As `messages.Messages.conversation`."""
        return self.saver.db.portal.call(
            self._messages.conversation,
            thread_id,
            checkpoint_id=checkpoint_id,
            checkpoint_ns=checkpoint_ns,
            channel=channel,
        )

    def rows(
        self,
        thread_id: ThreadId | None = None,
        *,
        types: Sequence[str] | None = None,
        roles: Sequence[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        text: str | None = None,
        checkpoint_id: str | None = None,
        checkpoint_ns: str = "",
        limit: int = 100,
        after: str | None = None,
    ) -> MessagePage:
        """As `messages.Messages.rows`."""
        return self.saver.db.portal.call(
            self._messages.rows,
            thread_id,
            types=types,
            roles=roles,
            since=since,
            until=until,
            text=text,
            checkpoint_id=checkpoint_id,
            checkpoint_ns=checkpoint_ns,
            limit=limit,
            after=after,
        )

    def search(
        self,
        text: str,
        *,
        user_id: str | None = None,
        thread_id: ThreadId | None = None,
        order: Literal["best", "newest"] = "best",
        limit: int = 20,
    ) -> list[MessageHit]:
        """As `messages.Messages.search`."""
        return self.saver.db.portal.call(
            self._messages.search,
            text,
            user_id=user_id,
            thread_id=thread_id,
            order=order,
            limit=limit,
        )

    def tree(self, thread_id: ThreadId) -> MessageTree:
        """As `messages.Messages.tree`."""
        return self.saver.db.portal.call(self._messages.tree, thread_id)

    def export(
        self,
        file: str | os.PathLike[str] | TextIO,
        *,
        thread_id: ThreadId | None = None,
        types: Sequence[str] | None = None,
        roles: Sequence[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        text: str | None = None,
        checkpoint_id: str | None = None,
        checkpoint_ns: str = "",
        full: bool = False,
    ) -> int:
        """As `messages.Messages.export`; a file object is written to on another thread."""
        return self.saver.db.portal.call(
            self._messages.export,
            file,
            thread_id=thread_id,
            types=types,
            roles=roles,
            since=since,
            until=until,
            text=text,
            checkpoint_id=checkpoint_id,
            checkpoint_ns=checkpoint_ns,
            full=full,
        )
