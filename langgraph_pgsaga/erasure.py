"""What is about a user, erased from every system's tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from uuid import UUID

from langgraph_pgsaga._arguments import checked_flag, checked_instance, required_text
from langgraph_pgsaga.checkpoint import delete_claimed
from langgraph_pgsaga.database import LONG, BoundStatement, Connection, Database, load_statements
from langgraph_pgsaga.errors import InvalidArgumentError, ServerError
from langgraph_pgsaga.events import erase_subject
from langgraph_pgsaga.memory import erase_memories, scopes_of_namespaces
from langgraph_pgsaga.tenants import Tenants

_STATEMENTS = load_statements("erasure")
_INSUFFICIENT_PRIVILEGE = "42501"

# By system, the tables with what is about a user, and how it goes.
TABLES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "sessions": MappingProxyType(
            {
                "agent_sessions": "rows of the user's sessions are deleted",
                "agent_states": "with their session",
                "agent_state_values": "with their session",
                "agent_state_writes": "with their session",
                "agent_state_blobs": "with their session",
                "agent_messages": "with their session",
            }
        ),
        "memory": MappingProxyType(
            {
                "agent_memory": "the user's, and those of the user's sessions, are deleted",
                "agent_memory_vectors": "with their memory",
            }
        ),
        "store": MappingProxyType(
            {
                "agent_store_items": "those of the namespaces that are named are deleted",
                "agent_store_vectors": "with their item",
            }
        ),
        "events": MappingProxyType(
            {
                "event_subjects": "the user's keys are deleted",
                "agent_events": "personal fields can't be read any more",
                "event_snapshots": "those with personal fields can't be read any more",
                "event_dead_letters": "personal fields can't be read any more",
            }
        ),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgottenUser:
    """What `forget_user` did.

    Args:
        rows: how many were deleted, by table; tables without any aren't in it. Vectors go with what
            they are of, and aren't counted.
        dry_run: nothing was: so many would be.
    """

    user_id: str
    rows: Mapping[str, int] = field(default_factory=dict)
    dry_run: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing about the user."""
        return not self.rows


async def forget_user(
    db: Database,
    user_id: str,
    *,
    tenant: str | None = None,
    namespaces: Sequence[Sequence[str]] = (),
    dry_run: bool = False,
    on_progress: Callable[[ForgottenUser], None] | None = None,
) -> ForgottenUser:
    """Erases what is about a user of a tenant, from every system's tables.

    Those are sessions whose `user_id` it is, with their checkpoints, messages and memories; the
    user's memories in all threads; the keys of the user's personal data in events, where the
    subject is the user's id; and the items of the store's `namespaces`, with those below them: no
    item says whose it is. Events and their seals stay, and so does what stands in clear in them.

    Each session goes in a transaction of its own, the rest in one. A run of such a session that
    goes on meanwhile gets a ThreadDeletedError. After a call that failed or was cancelled the
    next one does the rest.

    Args:
        tenant: whose user it is; None is the Database's.
        dry_run: only counts.
        on_progress: called after each session with what was done so far.

    Raises:
        InvalidArgumentError: an argument can't be used.
        MissingTenantError: the Database requires a tenant and there is none.
        ServerError: row security shows rows of a session that it lets nobody delete; and its
            subclasses.
    """
    checked_instance("db", db, Database, "Pass a Database, such as saver.db")
    name = required_text("user_id", user_id)
    if not name:
        raise InvalidArgumentError(argument="user_id", problem="is empty, so it is nobody's")
    tenant_id = Tenants(db.tenant, is_required=db.require_tenant).of_call(tenant)
    scopes = [scope.values() for scope in scopes_of_namespaces("namespaces", namespaces)]
    checked_flag("dry_run", dry_run)
    erasure = _Erasure(db, tenant_id, name, scopes, on_progress)
    return await (erasure.count() if dry_run else erasure.run())


class _Erasure:
    def __init__(
        self,
        db: Database,
        tenant_id: str,
        user_id: str,
        scopes: Sequence[Mapping[str, str | None]],
        on_progress: Callable[[ForgottenUser], None] | None,
    ) -> None:
        self._db = db
        self._tenant_id = tenant_id
        self._user_id = user_id
        self._scopes = scopes
        self._on_progress = on_progress
        self._rows: Counter[str] = Counter()

    async def count(self) -> ForgottenUser:
        """What there is, in one snapshot."""

        async def work(conn: Connection) -> Counter[str]:
            rows: Counter[str] = Counter()
            for session_id in await self._sessions(conn):
                # The user's own memories are counted below.
                rows += await self._rows_of(session_id, conn, but_of=self._user_id)
            for table, statement in self._counts():
                rows[table] += await self._counted(statement, conn)
            return rows

        self._rows = await self._db.snapshot(work, limits=LONG)
        return self._done(dry_run=True)

    async def run(self) -> ForgottenUser:
        """Erases it, with sessions that begin meanwhile."""
        kept: list[UUID] = []
        while sessions := await self._sessions():
            if sessions == kept:
                raise self._refused()
            kept = [session_id for session_id in sessions if not await self._delete(session_id)]
        self._rows += await self._db.run(self._erase_rest, once=True, limits=LONG)
        return self._done()

    def _done(self, *, dry_run: bool = False) -> ForgottenUser:
        rows = {table: count for table, count in sorted(self._rows.items()) if count}
        return ForgottenUser(user_id=self._user_id, rows=rows, dry_run=dry_run)

    async def _sessions(self, conn: Connection | None = None) -> list[UUID]:
        statement = _STATEMENTS["list_user_sessions"].bind(
            tenant_id=self._tenant_id, user_id=self._user_id
        )
        # In one order for everybody, so that two transactions can't wait for each other.
        return sorted(row["session_id"] for row in await self._db.fetch(statement, conn=conn))

    async def _delete(self, session_id: UUID) -> bool:
        """Deletes a session; whether it was there, and the user's still."""

        async def work(conn: Connection) -> Counter[str]:
            lock = _STATEMENTS["lock_user_session"].bind(
                session_id=session_id, user_id=self._user_id
            )
            if not await self._db.fetch(lock, conn=conn):
                return Counter()
            rows = await self._rows_of(session_id, conn)
            await delete_claimed(self._db, conn, session_id)
            return rows

        rows = await self._db.run(work, once=True, limits=LONG)
        self._rows += rows
        if rows and self._on_progress is not None:
            self._on_progress(self._done())
        return bool(rows)

    async def _rows_of(
        self, session_id: UUID, conn: Connection, *, but_of: str | None = None
    ) -> Counter[str]:
        """What a session has, itself included; without memories of one user."""
        statement = _STATEMENTS["count_session_rows"].bind(session_id=session_id)
        found = await self._db.fetch(statement, conn=conn)
        rows = Counter({row["table_name"]: row["row_count"] for row in found})
        memories = _STATEMENTS["count_session_memories"].bind(session_id=session_id, but_of=but_of)
        rows["agent_memory"] = await self._counted(memories, conn)
        rows["agent_sessions"] = 1
        return rows

    def _counts(self) -> Iterator[tuple[str, BoundStatement]]:
        """What is of no session, by table."""
        tenant_id, user_id = self._tenant_id, self._user_id
        memories = _STATEMENTS["count_user_memories"]
        yield "agent_memory", memories.bind(tenant_id=tenant_id, user_id=user_id)
        keys = _STATEMENTS["count_subject_keys"]
        yield "event_subjects", keys.bind(tenant_id=tenant_id, subject=user_id)
        for scope in self._scopes:
            items = _STATEMENTS["count_items"]
            yield "agent_store_items", items.bind(tenant_id=tenant_id, **scope)

    async def _counted(self, statement: BoundStatement, conn: Connection) -> int:
        (row,) = await self._db.fetch(statement, conn=conn)
        count: int = row["row_count"]
        return count

    async def _erase_rest(self, conn: Connection) -> Counter[str]:
        db, tenant_id, user_id = self._db, self._tenant_id, self._user_id
        rows: Counter[str] = Counter()
        rows["agent_memory"] = await erase_memories(db, tenant_id, user_id, conn)
        rows["event_subjects"] = await erase_subject(db, tenant_id, user_id, conn)
        for scope in self._scopes:
            erased = _STATEMENTS["erase_items"].bind(tenant_id=tenant_id, **scope)
            rows["agent_store_items"] += await self._counted(erased, conn)
        return rows

    def _refused(self) -> ServerError:
        detail = (
            "row security shows sessions of the user and lets none be deleted: it needs policies "
            "for update and delete, too"
        )
        return ServerError(dsn=self._db.dsn, sqlstate=_INSUFFICIENT_PRIVILEGE, detail=detail)
