"""Sessions for sync callers, made from `langgraph_pgsaga.sessions` by `make docs`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from langgraph_pgsaga.database import Database
from langgraph_pgsaga.sessions import (
    UNCHANGED,
    RetentionPolicy,
    Session,
    SessionOrder,
    SessionPage,
    SweepResult,
    Unchanged,
)
from langgraph_pgsaga.sessions import Sessions as AsyncSessions
from langgraph_pgsaga.tenants import TenantScope
from langgraph_pgsaga.threads import SessionStatus, ThreadId
from langgraph_pgsaga.work import Job


class Sessions:
    """A tenant's sessions in a database. A thread has one from its first run, or from `create`.

    `langgraph_pgsaga.sessions.Sessions` for sync callers.
    """

    def __init__(self, db: Database, *, tenant: TenantScope = None) -> None:
        self._async = AsyncSessions(db, tenant=tenant)
        self.db = self._async.db

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
        """A new, active session; runs of the thread then use it.

        Where the connection is lost, the server is asked whether it was committed before it
        is repeated.

        Raises:
            SessionExistsError: the thread has one.
            InvalidArgumentError, UnstorableValueError: an argument can't be stored.
        """
        return self.db.portal.call(
            self._async.create,
            thread_id,
            user_id=user_id,
            agent_type=agent_type,
            priority=priority,
            metadata=metadata,
            expires_at=expires_at,
        )

    def get(self, thread_id: ThreadId) -> Session | None:
        """The thread's session, or None where there is none."""
        return self.db.portal.call(self._async.get, thread_id)

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
        """Changes what is given, and returns the session as it then is.

        `metadata` replaces all of the old; `expires_at=None` lets the session live on.
        This is no activity: `last_activity_at` stays.

        Raises:
            MissingThreadError: the thread has no session.
            InvalidArgumentError, UnstorableValueError: an argument can't be stored.
        """
        return self.db.portal.call(
            self._async.update,
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
        return self.db.portal.call(self._async.set_status, thread_id, status)

    def delete(self, thread_id: ThreadId) -> None:
        """Deletes the thread from every table. A thread that isn't there is no error.

        A run of the thread that goes on meanwhile gets a ThreadDeletedError, and brings
        nothing back.
        """
        self.db.portal.call(self._async.delete, thread_id)

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
        """A page of the sessions that all of the given fit.

        No session comes twice while pages follow each other, unless its priority falls
        meanwhile. One whose activity or priority rises moves to the front, which earlier
        pages showed, so that the rest may pass it over.

        Args:
            metadata: what the session's must contain, as PostgreSQL's `@>` has it.
            active_since: with that activity or later ones.
            active_before: with earlier activity only.
            text: words in a message that the session has stored, in the form of a web
                search: `refund -invoice`, `"lost parcel"`. Encrypted messages have none.
            order: those active last first, or the newest first, or by priority, as in a
                queue: the highest first, and of each the oldest.
            limit: sessions per page, at most 10,000.
            after: the `next_cursor` of the page before, with the same filters and order.

        Raises:
            InvalidCursorError: `after` isn't such a cursor.
            InvalidArgumentError: another argument can't be used.
        """
        return self.db.portal.call(
            self._async.list,
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

        Sessions are deleted up to `batch` in a transaction, and pruned in one each.
        Sessions that somebody else holds just then, such as another sweep, are left to the
        next one, so any number of them may run at once. The server's clock decides. A
        sweep that was cancelled or failed has done whole batches, and the next one goes on.

        Args:
            policies: policies aren't stored: the application that knows them passes them.
            dry_run: deletes nothing, and counts the sessions that would be deleted, and
                those that may be pruned: all with more than `keep_last` checkpoints.
            on_progress: called after each batch with what was done so far.

        Raises:
            InvalidArgumentError: two policies for one agent type.
        """
        return self.db.portal.call(
            self._async.sweep, policies, batch=batch, dry_run=dry_run, on_progress=on_progress
        )

    def job(
        self,
        policies: Sequence[RetentionPolicy] = (),
        *,
        every_seconds: float = 3600.0,
        batch: int = 100,
        name: str | None = None,
    ) -> Job:
        """A job for a Worker: `sweep(policies)` again and again, in one process at a time.

        Workers that have it under one name share it, whatever their policies are: so those with
        other policies give it another name. How many it swept stands in the log.

        Args:
            policies: as of `sweep`.
            every_seconds: how long after a sweep the next one begins.
            batch: as of `sweep`.
            name: in the log and in `agent_jobs`; None is "sweep", with the tenant's name if there
                is one.

        Raises:
            InvalidArgumentError: two policies for one agent type, or another argument.
        """
        return self._async.job(policies, every_seconds=every_seconds, batch=batch, name=name)
