"""The sessions in a database: making, changing, listing, deleting and sweeping them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, get_args
from uuid import UUID

import asyncpg

from langgraph_pgsaga._arguments import (
    checked_choice,
    checked_instance,
    checked_integer,
    checked_text,
    checked_time,
    required_text,
)
from langgraph_pgsaga.checkpoint import delete_thread
from langgraph_pgsaga.database import BoundStatement, Connection, Database, load_statements
from langgraph_pgsaga.errors import MissingThreadError, SessionExistsError
from langgraph_pgsaga.sessions.arguments import checked_metadata, checked_status
from langgraph_pgsaga.sessions.cursor import Place
from langgraph_pgsaga.sessions.session import (
    UNCHANGED,
    Session,
    SessionOrder,
    SessionPage,
    Unchanged,
)
from langgraph_pgsaga.sessions.sweep import RetentionPolicy, Sweep, SweepResult, scoped
from langgraph_pgsaga.tenants import (
    AllTenants,
    Tenants,
    TenantScope,
    single_tenant,
    stored_scope,
)
from langgraph_pgsaga.threads import SessionStatus, ThreadId, session_id_of, thread_id_text
from langgraph_pgsaga.work import Job, Periodic

_log = logging.getLogger("langgraph_pgsaga.sessions")
_STATEMENTS = load_statements("sessions")
_MOST_PER_PAGE = 10_000


class Sessions:
    """A tenant's sessions in a database. A thread has one from its first run, or from `create`.

    A thread id is a str, an int or a UUID, as in a run's config. Methods with `conn` join
    that connection's transaction, and none of them is repeated there; without, they commit on
    their own, and are repeated when the connection is lost, as Database has it.

    Args:
        db: the database.
        tenant: whose sessions they are; None is the Database's. With ALL `list` and `sweep` go
            over everybody's, and what takes a thread id is refused.

    Raises:
        MissingTenantError: the Database requires a tenant, and none is given.
    """

    def __init__(self, db: Database, *, tenant: TenantScope = None) -> None:
        self.db = checked_instance("db", db, Database, "Pass a Database, such as saver.db")
        tenants = Tenants(db.tenant, is_required=db.require_tenant)
        self._scope = tenants.of_listing(tenant)

    async def create(
        self,
        thread_id: ThreadId,
        *,
        user_id: str = "",
        agent_type: str = "",
        priority: int = 0,
        metadata: Mapping[str, Any] | None = None,
        expires_at: datetime | None = None,
        conn: Connection | None = None,
    ) -> Session:
        """A new, active session; runs of the thread then use it.

        Where the connection is lost, the server is asked whether it was committed before it
        is repeated.

        Raises:
            SessionExistsError: the thread has one.
            InvalidArgumentError, UnstorableValueError: an argument can't be stored.
        """
        name = thread_id_text(thread_id)
        creation = _STATEMENTS["create_session"].bind(
            session_id=self._session_id(name),
            tenant_id=single_tenant(self._scope),
            thread_id=name,
            user_id=required_text("user_id", user_id),
            agent_type=required_text("agent_type", agent_type),
            priority=checked_integer("priority", priority),
            metadata=checked_metadata({} if metadata is None else metadata),
            expires_at=checked_time("expires_at", expires_at),
        )

        async def work(conn: Connection) -> asyncpg.Record | None:
            return await self.db.fetch_one(creation, conn=conn)

        row = await (self.db.run(work, once=True) if conn is None else work(conn))
        if row is None:
            raise SessionExistsError(thread_id=name)
        return Session.from_row(row)

    async def get(self, thread_id: ThreadId) -> Session | None:
        """The thread's session, or None where there is none."""
        session_id = self._session_id(thread_id_text(thread_id))
        row = await self.db.fetch_one(_STATEMENTS["get_session"].bind(session_id=session_id))
        return None if row is None else Session.from_row(row)

    async def update(
        self,
        thread_id: ThreadId,
        *,
        user_id: str | None = None,
        agent_type: str | None = None,
        status: SessionStatus | None = None,
        priority: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        expires_at: datetime | Unchanged | None = UNCHANGED,
        conn: Connection | None = None,
    ) -> Session:
        """Changes what is given, and returns the session as it then is.

        `metadata` replaces all of the old; `expires_at=None` lets the session live on.
        This is no activity: `last_activity_at` stays.

        Raises:
            MissingThreadError: the thread has no session.
            InvalidArgumentError, UnstorableValueError: an argument can't be stored.
        """
        name = thread_id_text(thread_id)
        changes_expiry = expires_at is not UNCHANGED
        update = _STATEMENTS["update_session"].bind(
            session_id=self._session_id(name),
            user_id=checked_text("user_id", user_id),
            agent_type=checked_text("agent_type", agent_type),
            status=None if status is None else checked_status(status),
            priority=None if priority is None else checked_integer("priority", priority),
            metadata=None if metadata is None else checked_metadata(metadata),
            expires_at=checked_time("expires_at", expires_at) if changes_expiry else None,
            changes_expiry=changes_expiry,
        )
        row = await self.db.fetch_one(update, conn=conn)
        if row is None:
            raise MissingThreadError(thread_id=name)
        return Session.from_row(row)

    async def set_status(
        self, thread_id: ThreadId, status: SessionStatus, *, conn: Connection | None = None
    ) -> Session:
        """`update` of the status alone."""
        return await self.update(thread_id, status=status, conn=conn)

    async def delete(self, thread_id: ThreadId, *, conn: Connection | None = None) -> None:
        """Deletes the thread from every table. A thread that isn't there is no error.

        A run of the thread that goes on meanwhile gets a ThreadDeletedError, and brings
        nothing back.
        """
        await delete_thread(self.db, thread_id, single_tenant(self._scope), conn=conn)

    async def list(
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
        checked_choice("order", order, get_args(SessionOrder))
        checked_integer("limit", limit, least=1, most=_MOST_PER_PAGE)
        place = Place() if after is None else Place.of_cursor(after, order)
        narrowed = {
            "user_id": checked_text("user_id", user_id),
            "metadata": None if metadata is None else checked_metadata(metadata),
            "query": checked_text("text", text),
        }
        asked = {
            "agent_type": checked_text("agent_type", agent_type),
            "status": None if status is None else checked_status(status),
            "active_since": checked_time("active_since", active_since),
            "active_before": checked_time("active_before", active_before),
            "after_time": place.time,
            "after_id": place.session_id,
            "page": limit + 1,
        }
        rows = await self.db.fetch(_listing(order, narrowed, asked, place.priority, self._scope))
        shown, is_last = rows[:limit], len(rows) <= limit
        return SessionPage(
            sessions=tuple(Session.from_row(row) for row in shown),
            next_cursor=None if is_last else Place.of_row(shown[-1], order).cursor(order),
        )

    async def sweep(
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
        checked_integer("batch", batch, least=1, most=_MOST_PER_PAGE)
        sweep = Sweep(self.db, stored_scope(self._scope), scoped(policies), batch, on_progress)
        return await (sweep.count() if dry_run else sweep.run())

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
        scopes = scoped(policies)
        checked_integer("batch", batch, least=1, most=_MOST_PER_PAGE)
        tenant_id = stored_scope(self._scope)
        of = {None: " all tenants", "": ""}.get(tenant_id, f" {tenant_id}")

        async def work() -> SweepResult:
            done = await Sweep(self.db, tenant_id, scopes, batch, None).run()
            _log.info("swept: %s", done)
            return done

        return Periodic(
            name=f"sweep{of}" if name is None else name,
            every_seconds=every_seconds,
            work=work,
            tenant_id=tenant_id or "",
        )

    def _session_id(self, thread_id: str) -> UUID:
        return session_id_of(thread_id, single_tenant(self._scope))


def _listing(
    order: SessionOrder,
    narrowed: Mapping[str, Any],
    asked: Mapping[str, Any],
    after_priority: int | None,
    scope: str | AllTenants,
) -> BoundStatement:
    """The listing whose index serves what is given."""
    sorted_by = {"order_name": order, "after_priority": after_priority}
    tenant_id = stored_scope(scope)
    if any(given is not None for given in narrowed.values()):
        narrowed = {**narrowed, "tenant_id": tenant_id}
        return _STATEMENTS["list_narrowed"].bind(**narrowed, **asked, **sorted_by)
    if tenant_id is None:
        return _STATEMENTS["list_every"].bind(**asked, **sorted_by)
    asked = {**asked, "tenant_id": tenant_id}
    if asked["agent_type"] is None:
        of_all = {name: value for name, value in asked.items() if name != "agent_type"}
        more = {"after_priority": after_priority} if order == "priority" else {}
        return _STATEMENTS[f"list_by_{order}"].bind(**of_all, **more)
    if order == "created":
        return _STATEMENTS["list_type_by_created"].bind(**asked)
    return _STATEMENTS["list_type_sorted"].bind(**asked, **sorted_by)
