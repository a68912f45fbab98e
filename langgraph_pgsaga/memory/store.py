"""MemoryStore: LangGraph's store on PostgreSQL."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, Literal, Unpack

from langgraph.store.base import (
    NOT_PROVIDED,
    BaseStore,
    NotProvided,
    Op,
    PutOp,
    Result,
    TTLConfig,
)

from langgraph_pgsaga._arguments import checked_instance, checked_integer, required_text
from langgraph_pgsaga._process_bound import ProcessBound
from langgraph_pgsaga.database import Connection, Database, load_statements
from langgraph_pgsaga.memory.index import Index, StoreIndex
from langgraph_pgsaga.memory.operations import Operations, VersionedPut
from langgraph_pgsaga.memory.options import (
    MemoryStoreOptions,
    StoreOptions,
    checked_ttl,
    split_options,
    sweep_seconds,
)
from langgraph_pgsaga.memory.packing import VectorCodec
from langgraph_pgsaga.memory.reading import Reader
from langgraph_pgsaga.memory.vectors import Vectors, create_vectors
from langgraph_pgsaga.memory.writing import Writer
from langgraph_pgsaga.tenants import Tenants, TenantScope, single_tenant, stored_scope
from langgraph_pgsaga.work import Job, Periodic, Step, written

_log = logging.getLogger("langgraph_pgsaga.memory")
_STATEMENTS = load_statements("store")
_ON_A_DATABASE = (
    "Pass a Database, or make the store by MemoryStore.from_conn_string('postgresql://...')"
)
_SWEPT_AT_ONCE = 1000


class MemoryStore(ProcessBound, BaseStore):
    """Keeps items by namespace and key, across threads: LangGraph's BaseStore in PostgreSQL.

    Pass it to `workflow.compile(store=...)`. The same object serves sync and async callers, any
    number of event loops, and notebook cells. Call `setup()` or `asetup()` once per database to
    make or update the tables.

    What a call acknowledges is committed. Puts and deletions of a batch are stored together or not
    at all; what it reads is as it was before them. Calls are repeated when the connection is lost.

    Args:
        db: the database; the store doesn't close it (the class methods' stores do).
        index: LangGraph's settings for searches by meaning, as its PostgresStore takes them: dims,
            embed (an Embeddings, or a function), fields, distance_type, ann_index_config. By
            default vectors are halfvec and no index is approximate. None is no such searches.
        ttl: LangGraph's settings of how long items live, in minutes: default_ttl, refresh_on_read,
            sweep_interval_minutes (of `job`). Items that have expired are never given,
            whatever omit_expired says.
        tenant: whose items they are; None is the Database's. With ALL only sweeps can be done.

    Raises:
        MissingTenantError: the Database requires a tenant, and none is given.
    """

    supports_ttl = True

    def __init__(
        self,
        db: Database,
        *,
        index: StoreIndex | None = None,
        ttl: TTLConfig | None = None,
        tenant: TenantScope = None,
    ) -> None:
        self.db = checked_instance("db", db, Database, _ON_A_DATABASE)
        self._index = Index.of(index)
        self._codec = VectorCodec(self.db)
        self.ttl_config = checked_ttl(ttl)
        self._scope = Tenants(db.tenant, is_required=db.require_tenant).of_listing(tenant)
        self._owns_db = False

    @classmethod
    def from_conn_string(
        cls, dsn: str | None = None, **options: Unpack[MemoryStoreOptions]
    ) -> MemoryStore:
        """A store with a Database of its own, for `with`, `async with`, or `close()`.

        `options` are the store's and Database's: index, ttl, schema, tenant, max_size, pooler, ...
        """
        own, of_database = split_options(options)
        return cls._with_own(Database(dsn, **of_database), own)

    @classmethod
    def embedded(
        cls, path: str | os.PathLike[str] | None = None, **options: Unpack[MemoryStoreOptions]
    ) -> MemoryStore:
        """A store on the embedded development server; `path` as Database.embedded has it."""
        own, of_database = split_options(options)
        return cls._with_own(Database.embedded(path, **of_database), own)

    @classmethod
    def _with_own(cls, db: Database, options: StoreOptions) -> MemoryStore:
        try:
            store = cls(db, **options)
        except BaseException:
            db.close()
            raise
        store._owns_db = True
        return store

    @property
    def tenant_id(self) -> str:
        """Whose the items are; '' is no tenant's.

        Raises:
            InvalidArgumentError: they are all tenants', which only sweeps can be of.
        """
        return single_tenant(self._scope)

    # Life

    def setup(self) -> Awaitable[None]:
        """Makes or updates the tables, those of vectors, too, if there is an index.

        Safe to call at every start, by many processes at once.

        In a running event loop it doesn't block: `await store.setup()`, as one would with
        AsyncPostgresStore; see `Database.setup`.
        """
        return self.db.begun("setup", self.asetup)

    async def asetup(self) -> None:
        """`setup` for async callers.

        Raises:
            MissingVectorsError: there is an index, and the server has no pgvector.
            VectorTypeError: the database has vectors of another type or length.
        """
        await self.db.asetup()
        if self._index is not None:
            self._codec.forget()
            await create_vectors(self.db, self._index)

    def close(self) -> None:
        """Closes the database if this store made it."""
        if self._owns_db:
            self.db.close()

    async def aclose(self) -> None:
        """`close` for async callers."""
        if self._owns_db:
            await self.db.aclose()

    def __enter__(self) -> MemoryStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> MemoryStore:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # LangGraph's contract

    async def abatch(
        self, ops: Iterable[Op], *, conn: Connection | Step | None = None
    ) -> list[Result]:
        """The results of the operations, in their order.

        All are checked before any is done. What reads is answered as it was before the batch's
        puts, of which the last on a key counts. Puts and deletions are stored all or none; a
        VersionedPut among them that isn't done refuses all.

        Args:
            conn: a connection, whose transaction all of them are part of; or this_step(), with
                which the puts are stored when the node's result is.

        Raises:
            InvalidNamespaceError: LangGraph's, for labels that there can't be.
            InvalidFilterError, InvalidArgumentError, UnstorableValueError: an operation can't be
                done; none was.
            ItemConflictError: an item hasn't the version that was expected.
        """
        operations = Operations.of(ops)
        tenant_id = self.tenant_id
        vectors = None
        if self._index is not None:
            vectors = Vectors(self.db, tenant_id, self._index, self._codec)
        reader = Reader(self.db, tenant_id, vectors)
        joined = None if isinstance(conn, Step) else conn
        results = await reader.results(operations, joined)
        if operations.puts:
            writer = Writer(self.db, tenant_id, operations.puts, vectors)
            if conn is not None:
                await writer.embed(joined)
            await written(conn, self.db, writer.write, known=None)
        return results

    def batch(self, ops: Iterable[Op], *, conn: Step | None = None) -> list[Result]:
        """`abatch` for sync callers; `conn` is this_step()."""
        return self.db.portal.call(self.abatch, ops, conn=conn)

    async def aput(
        self,
        namespace: tuple[str, ...],
        key: str,
        value: Mapping[str, Any],
        index: Literal[False] | list[str] | None = None,
        *,
        ttl: float | NotProvided | None = NOT_PROVIDED,
        expected_version: int | None = None,
        conn: Connection | Step | None = None,
    ) -> None:
        """Stores an item, over the one that is there.

        Args:
            value: a dict that JSON holds: text, numbers, booleans, None, lists and dicts of these.
            index: the paths of the texts that searches find it by, in place of the index's fields;
                False is none.
            ttl: minutes that it lives after it was put or read; None is for ever; by default
                what the store's settings say.
            expected_version: the `version` of the item that this one takes the place of; 0 says
                that there is none.
            conn: a connection, whose transaction it is part of; or this_step(), with which it is
                stored when the node's result is.

        Raises:
            ItemConflictError: there is another version.
            InvalidNamespaceError, InvalidArgumentError, UnstorableValueError: it can't be stored.
        """
        await self.abatch([self._put_op(namespace, key, value, index, ttl, expected_version)],
                          conn=conn)  # fmt: skip

    def put(
        self,
        namespace: tuple[str, ...],
        key: str,
        value: Mapping[str, Any],
        index: Literal[False] | list[str] | None = None,
        *,
        ttl: float | NotProvided | None = NOT_PROVIDED,
        expected_version: int | None = None,
        conn: Step | None = None,
    ) -> None:
        """`aput` for sync callers; `conn` is this_step()."""
        self.batch([self._put_op(namespace, key, value, index, ttl, expected_version)], conn=conn)

    async def adelete(
        self,
        namespace: tuple[str, ...],
        key: str,
        *,
        expected_version: int | None = None,
        conn: Connection | Step | None = None,
    ) -> None:
        """Deletes an item. One that isn't there is no error; arguments are as of `aput`.

        Raises:
            ItemConflictError: there is another version than the expected one.
        """
        await self.abatch([_put_at(namespace, key, None, None, None, expected_version)], conn=conn)

    def delete(
        self,
        namespace: tuple[str, ...],
        key: str,
        *,
        expected_version: int | None = None,
        conn: Step | None = None,
    ) -> None:
        """`adelete` for sync callers; `conn` is this_step()."""
        self.batch([_put_at(namespace, key, None, None, None, expected_version)], conn=conn)

    # Sweeping

    async def asweep_ttl(self) -> int:
        """Deletes the items that have expired, and returns how many they were.

        They are there for nobody before that, too. Any number of sweeps may run at once.
        """
        deleted = 0
        statement = _STATEMENTS["sweep_items"].bind(
            tenant_id=stored_scope(self._scope), batch=_SWEPT_AT_ONCE
        )
        while rows := await self.db.fetch(statement):
            deleted += len(rows)
            if len(rows) < _SWEPT_AT_ONCE:
                break
        return deleted

    def sweep_ttl(self) -> int:
        """`asweep_ttl` for sync callers."""
        return self.db.portal.call(self.asweep_ttl)

    def job(self, *, every_seconds: float | None = None, name: str | None = None) -> Job:
        """A job for a Worker: `asweep_ttl` again and again, in one process at a time.

        Args:
            every_seconds: how long after a sweep the next one begins; None takes the settings'
                sweep_interval_minutes, else five minutes.
            name: in the log and in `agent_jobs`; None is "sweep store", with the tenant's name if
                there is one.
        """
        tenant_id = stored_scope(self._scope)
        of = {None: " of all tenants", "": ""}.get(tenant_id, f" of {tenant_id}")

        async def work() -> int:
            deleted = await self.asweep_ttl()
            _log.info("store items that had expired: %d", deleted)
            return deleted

        return Periodic(
            name=f"sweep store{of}" if name is None else name,
            every_seconds=sweep_seconds(self.ttl_config, every_seconds),
            work=work,
            tenant_id=tenant_id or "",
        )

    def _put_op(
        self,
        namespace: tuple[str, ...],
        key: str,
        value: Mapping[str, Any],
        index: Literal[False] | list[str] | None,
        ttl: float | NotProvided | None,
        expected_version: int | None,
    ) -> PutOp:
        if isinstance(ttl, NotProvided):
            ttl = (self.ttl_config or {}).get("default_ttl")
        return _put_at(namespace, key, value, index, ttl, expected_version)


def _put_at(
    namespace: tuple[str, ...],
    key: str,
    value: Mapping[str, Any] | None,
    index: Literal[False] | list[str] | None,
    ttl: float | None,
    expected_version: int | None,
) -> PutOp:
    key = required_text("key", str(key))
    if expected_version is None:
        return PutOp(namespace, key, value, index, ttl)
    return VersionedPut(
        namespace, key, value, index, ttl, expected_version=checked_integer(
            "expected_version", expected_version, least=0, most=2**62)
    )  # fmt: skip
