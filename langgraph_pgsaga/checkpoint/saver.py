"""PostgresSaver: LangGraph's checkpointer on PostgreSQL."""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any, Unpack

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol, maybe_add_typed_methods

from langgraph_pgsaga import _langgraph
from langgraph_pgsaga._arguments import (
    checked_flag,
    checked_instance,
    checked_items,
    checked_limit,
    checked_seconds,
    checked_texts,
    shown,
)
from langgraph_pgsaga._process_bound import ProcessBound
from langgraph_pgsaga.checkpoint import retention
from langgraph_pgsaga.checkpoint.arguments import check_put, check_writes, checked_filter
from langgraph_pgsaga.checkpoint.call_store import CallStore, JoinedTransaction
from langgraph_pgsaga.checkpoint.contents import status_at
from langgraph_pgsaga.checkpoint.decode import (
    FetchedCheckpoint,
    add_pending_sends,
    decode_fetched,
    is_last_known,
    needs_pending_sends,
    placed,
    reading,
    small_values_of,
)
from langgraph_pgsaga.checkpoint.delta_history import delta_channel_history, pending_sends
from langgraph_pgsaga.checkpoint.encode import Values, encode_put, encode_values, encode_writes
from langgraph_pgsaga.checkpoint.lease import NO_BASE, Base, Leases
from langgraph_pgsaga.checkpoint.lease_block import LeaseBlock, Renewals
from langgraph_pgsaga.checkpoint.listing import CheckpointListing
from langgraph_pgsaga.checkpoint.options import (
    PostgresSaverOptions,
    SaverOptions,
    split_options,
)
from langgraph_pgsaga.checkpoint.recording import (
    checked_log,
    told_error,
    told_put,
)
from langgraph_pgsaga.checkpoint.riders import Riders, RidingQueue
from langgraph_pgsaga.checkpoint.run_tracker import RunTracker, SessionChange
from langgraph_pgsaga.checkpoint.session_cache import NOTHING_KNOWN, SessionCache
from langgraph_pgsaga.checkpoint.small_values import SmallValueCache
from langgraph_pgsaga.checkpoint.stored_message import MessageCodec
from langgraph_pgsaga.checkpoint.under_way import CallsUnderWay
from langgraph_pgsaga.checkpoint.versions import next_version
from langgraph_pgsaga.checkpoint.write_queue import WriteQueue
from langgraph_pgsaga.database import Connection, Database, load_statements
from langgraph_pgsaga.errors import BlockingCallError, InvalidArgumentError
from langgraph_pgsaga.serde import Codec, as_safe, with_allowlist
from langgraph_pgsaga.tenants import Tenants, TenantScope
from langgraph_pgsaga.threads import (
    Address,
    SessionStatus,
    ThreadId,
    checkpoint_config,
    optional_checkpoint_id,
    session_id_of,
    thread_id_text,
)
from langgraph_pgsaga.work import RecordsSteps, StepKeeper

_STATEMENTS = load_statements("checkpoint")
_ON_A_DATABASE = (
    "Pass a Database, or make the saver by PostgresSaver.from_conn_string('postgresql://...')"
)


class PostgresSaver(ProcessBound, BaseCheckpointSaver[str]):
    """Keeps the state of LangGraph threads in PostgreSQL.

    Pass it to `workflow.compile(checkpointer=...)`. The same object serves `invoke`
    and `ainvoke`, any number of threads and event loops, and notebook cells. Call
    `setup()` or `asetup()` once per database to make or update the tables.

    `put`, `put_writes` and `get_tuple` take one round trip; writes that wait for one
    go together in the next. What they acknowledge is committed. They are repeated when
    the connection is lost: each is idempotent.

    `copy.copy` gives another saver on the same database, which closes nothing. Copied deeply, or
    pickled, it raises CopyError.

    Args:
        db: the database; the saver doesn't close it (the class methods' savers do).
        serde: None for the safe serializer; an EncryptedSerializer to store nothing in
            clear; or a serializer of your own, whose rules are then your own too.
        allow: types (or (module, name) pairs) that stored values may become, beyond
            LangGraph's own and the data classes that the application has imported.
        strict: True leaves only LangGraph's own types and `allow`.
        lenient: what may not, or can't, be loaded (its class isn't here, isn't allowed or
            has changed) comes as a Placeholder, so that states can be looked at and
            `update_state` can put things right. Stored again it is what it was.
        single_writer: each run takes its thread's lease with the first thing it stores,
            and gives it back with the last. Another run meanwhile, or one that was
            overtaken, gets a LeaseError. See `lease`.
        lease_seconds: for how long after its latest checkpoint a run keeps the lease when
            it ends unseen: killed, cancelled, or at a breakpoint.
        events: an EventStore of the same database, in which checkpoints, new messages and errors
            are told of as events of the aggregate `session` that has the thread's id, in the
            statement that stores them.

    A thread is its tenant's: that of `configurable["tenant_id"]`, else the Database's, else ''.
    Methods without a config take `tenant`; where configs here have named tenants, they refuse to
    be called without.
    """

    def __init__(
        self,
        db: Database,
        *,
        serde: SerializerProtocol | None = None,
        allow: Iterable[type | tuple[str, str]] = (),
        strict: bool = False,
        lenient: bool = False,
        single_writer: bool = False,
        lease_seconds: float = 60.0,
        events: RecordsSteps | None = None,
    ) -> None:
        checked_instance("db", db, Database, _ON_A_DATABASE)
        allow = checked_items("allow", allow)
        if serde is not None and not (hasattr(serde, "loads_typed") or hasattr(serde, "loads")):
            problem = f"must be a serializer with dumps_typed and loads_typed, not {shown(serde)}"
            raise InvalidArgumentError(argument="serde", problem=problem)
        checked_flag("strict", strict)
        checked_flag("lenient", lenient)
        checked_flag("single_writer", single_writer)
        super().__init__()
        # Not by way of the base class, which takes a serializer of length 0 for none.
        safe = as_safe(serde, allow=allow, strict=strict, lenient=lenient)
        self.serde = maybe_add_typed_methods(safe)
        checked_seconds("lease_seconds", lease_seconds, least=1)
        self.db = db
        self._recorder = checked_log(events, db)
        self.tenants = Tenants(db.tenant, is_required=db.require_tenant)
        self._owns_db = False
        self._renewals = Renewals(db)
        # Its copies' too: graphs of several allowlists may run one thread.
        self._under_way = CallsUnderWay()
        self._begin(Codec(self.serde), Leases(lease_seconds if single_writer else None))

    def _begin(self, codec: Codec, leases: Leases) -> None:
        self._leases = leases
        self._tracker = RunTracker(leases)
        self.codec = MessageCodec(codec)
        self._cache = SessionCache()
        self._riders = Riders(self.db, self._cache, self.tenants)
        self._small_values = SmallValueCache()
        self._queues: dict[asyncio.AbstractEventLoop, WriteQueue] = {}

    @classmethod
    def from_conn_string(
        cls, dsn: str | None = None, **options: Unpack[PostgresSaverOptions]
    ) -> PostgresSaver:
        """A saver with a Database of its own, for `with`, `async with`, or `close()`.

        `options` are the saver's and Database's: strict, schema, max_size, pooler, ...
        """
        own, of_database = split_options(options)
        return cls._with_own(Database(dsn, **of_database), own)

    @classmethod
    def embedded(
        cls, path: str | os.PathLike[str] | None = None, **options: Unpack[PostgresSaverOptions]
    ) -> PostgresSaver:
        """A saver on the embedded development server; `path` as Database.embedded has it."""
        own, of_database = split_options(options)
        return cls._with_own(Database.embedded(path, **of_database), own)

    @classmethod
    def _with_own(cls, db: Database, options: SaverOptions) -> PostgresSaver:
        try:
            saver = cls(db, **options)
        except BaseException:
            db.close()
            raise
        saver._owns_db = True
        return saver

    # Life

    def setup(self) -> Awaitable[None]:
        """Makes or updates the tables. Safe to call at every start, by many processes at once.

        In a running event loop it doesn't block: `await saver.setup()`, as one would with
        AsyncPostgresSaver; see `Database.setup`.
        """
        return self.db.setup()

    async def asetup(self) -> None:
        """`setup` for async callers."""
        await self.db.asetup()

    def close(self) -> None:
        """Closes the database if this saver made it."""
        if self._owns_db:
            self.db.close()

    async def aclose(self) -> None:
        """`close` for async callers."""
        if self._owns_db:
            await self.db.aclose()

    def __enter__(self) -> PostgresSaver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> PostgresSaver:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # Reading

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that `config` names, or the latest of its thread and namespace.

        Raises:
            MissingThreadIdError, InvalidArgumentError: `config` can't be used.
            UnloadableValueError: a value may not, or can't, be loaded.
            ServerError and its subclasses.
        """
        address = Address.of(config, self.tenants)
        fetched = await self._fetch(address)
        self._begin_run(address, config, fetched)
        return fetched.found if fetched else None

    async def _fetch(self, address: Address) -> FetchedCheckpoint | None:
        if self._leases.is_automatic:
            # A call that is stored late would shut out the run that begins here.
            await self._under_way.settle(address.session_id)
            await self._queue().settle(address.session_id)
        fetched = await self._fetch_state(address)
        if fetched is not None and fetched.found is not None:
            if _has_sends_of_parent(fetched.found):
                # Its own state and its parent's writes, as of one moment.
                fetched = await self.db.snapshot(lambda conn: self._fetch_old(address, conn))
            self._remember(address, fetched)
        return fetched

    async def _fetch_state(
        self, address: Address, *, conn: Connection | None = None
    ) -> FetchedCheckpoint | None:
        known = self._cache.known(address.session_id)
        with reading(thread_id=address.thread_id, checkpoint_id=address.checkpoint_id):
            rows = await self.db.fetch(
                _STATEMENTS["get_checkpoint"],
                address.session_id,
                address.stored_ns,
                address.checkpoint_id,
                known.epoch if known else None,
                known.held if known else None,
                # Blobs that are known are sent all the same.
                *(known.last if known else NOTHING_KNOWN)[:4],
                conn=conn,
            )
        if known is not None and not is_last_known(rows):
            known = self._cache.doubt(address.session_id, known)
        return await decode_fetched(self.codec, address, rows, known)

    async def _fetch_old(self, address: Address, conn: Connection) -> FetchedCheckpoint | None:
        """A checkpoint of a format before 4, which kept its Sends as writes of its parent."""
        fetched = await self._fetch_state(address, conn=conn)
        found = fetched.found if fetched else None
        parent = found.parent_config if found and _has_sends_of_parent(found) else None
        if found is not None and parent is not None:
            parent_id = parent["configurable"]["checkpoint_id"]
            sends = await pending_sends(self.db, self.codec, address, parent_id, conn)
            add_pending_sends(found.checkpoint, sends, self.get_next_version(None, None))
        return fetched

    def _begin_run(
        self, address: Address, config: RunnableConfig, fetched: FetchedCheckpoint | None
    ) -> None:
        found = fetched.found if fetched else None
        base = Base(fetched.lease_id, fetched.last_position or 0) if fetched else NO_BASE
        session = fetched.session if fetched else None
        self._tracker.begin(address, config, found, base, session.epoch if session else None)
        if found is not None and found.pending_writes:
            is_replay = address.checkpoint_id is not None
            self._riders.note_read(address, config, found, is_replay=is_replay)
        if address.checkpoint_ns:
            self._riders.enter(address, config)

    def _remember(self, address: Address, fetched: FetchedCheckpoint | None) -> None:
        if fetched is None or fetched.found is None or fetched.session is None:
            return  # without its row, what is here was written without it
        session, sent = fetched.session, fetched.messages.items()
        self._small_values.learn(address, fetched.found.checkpoint, fetched.inline)
        self._cache.learn(
            address.session_id,
            session.epoch,
            session.message_count,
            ((message.digest, number) for number, message in sent),
            states=[(address.stored_ns, fetched.found.config["configurable"]["checkpoint_id"])],
            deletion_count=session.deletion_count,
            position=session.position,
            contents=sent,
            since=fetched.known,
            begins=True,
        )

    async def aget_iter(self, config: RunnableConfig) -> AsyncIterator[CheckpointTuple]:
        """The checkpoint of `aget_tuple`, or nothing."""
        found = await self.aget_tuple(config)
        if found is not None:
            yield found

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
        tenant: TenantScope = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """The checkpoints that fit, newest first, fetched in pages as they are asked for.

        Args:
            config: the thread; with a namespace, that one only (else all of the
                thread's); with a checkpoint id, that one only. None is all threads.
            filter: metadata that must be contained, as PostgreSQL's `@>` has it.
            before: only checkpoints written before the one that this config names (of
                whatever namespace of the thread), or, where that isn't stored, with lower ids.
            limit: how many at most.
            tenant: whose threads, where all are asked for: ALL is everybody's.
        """
        listing = self._listing(config, filter, before, limit, tenant)
        begins = self._enter_replayed(config)
        while page := await listing.next_page():
            for found in page:
                if begins is not None:
                    self._riders.note_read(*begins, found, is_replay=True)
                yield found

    def _enter_replayed(
        self, config: RunnableConfig | None
    ) -> tuple[Address, RunnableConfig] | None:
        """The subgraph that begins with a checkpoint of a listing: of a past state run on from.

        LangGraph lists what was before that, instead of asking for the subgraph's latest.
        """
        run = _langgraph.run_key(config) if config else None
        if not config or run is None or not run.is_nested:
            return None
        address = Address.of(config, self.tenants)
        if not address.checkpoint_ns:
            return None
        self._riders.enter(address, config)
        return address, config

    def _listing(
        self,
        config: RunnableConfig | None,
        filter_: Mapping[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
        tenant: TenantScope,
    ) -> CheckpointListing:
        if before is not None and optional_checkpoint_id(before, "before") is None:
            problem = "its config names no checkpoint. Pass the config of one, or None"
            raise InvalidArgumentError(argument="before", problem=problem)
        return CheckpointListing(
            self.db,
            self.codec,
            self._cache,
            config,
            filter=None if filter_ is None else checked_filter(filter_),
            before=before,
            limit=checked_limit(limit),
            first_version=self.get_next_version(None, None),
            tenants=self.tenants,
            scope=tenant,
        )

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Per channel its writes since, and its value at, the nearest ancestor that stored one.

        Raises:
            CheckpointDeletedError: the checkpoint was deleted since this saver read it, or
                what it is built on.
        """
        names = checked_texts("channels", channels)
        return await delta_channel_history(
            self.db, self.codec, self._cache, Address.of(config, self.tenants), names
        )

    # Writing

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
        *,
        conn: Connection | None = None,
    ) -> RunnableConfig:
        """Stores a checkpoint; once it returns, the checkpoint is committed.

        With `conn`, a connection of `db.transaction()`, it is committed or rolled back with
        that, and nothing is repeated. The transaction holds the thread until it ends: whoever
        else writes to it waits.

        Raises:
            UnstorableValueError: a value couldn't be loaded again; nothing was stored.
            CheckpointDeletedError: its parent was deleted since this saver read or wrote it.
            ThreadDeletedError, LeaseError: the thread was deleted, or somebody else's.
            ServerError and its subclasses.
        """
        address = Address.of(config, self.tenants)
        check_put(checkpoint, metadata, new_versions)
        seen = self._cache.epoch(address.session_id)
        change = self._tracker.of_put(address, config, checkpoint, metadata, seen)
        try:
            known = self._cache.known(address.session_id)
            numbers = known.numbers if known else {}
            values = encode_values(self.codec, checkpoint, new_versions, numbers)
            given = address, config, checkpoint, metadata, new_versions, values, change
            with self._under_way.noted(change.lease):
                riding = None
                if self._riders.is_used and conn is None:
                    riding = await self._riders.of_put(address, config, checkpoint, metadata)
                if riding is None:
                    await self._put(self._queue_of(conn), *given, conn=conn)
                else:
                    riders = self._riders.ride(riding, self._call_store(), address, config)
                    async with riders as queue:
                        await self._put(queue, *given)
        except BaseException as error:
            self._riders.note_failed(address, config, error)
            raise
        return address.config(checkpoint["id"])

    async def _put(
        self,
        queue: WriteQueue | JoinedTransaction | RidingQueue,
        address: Address,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
        values: Values,
        change: SessionChange,
        *,
        conn: Connection | None = None,
    ) -> None:
        if self._small_values.lacks_parent(address, checkpoint, new_versions):
            await self._ask_parent(address, conn)
        if self._recorder is not None:
            await self._recorder.prepare(address.tenant_id)
        await queue.turn()
        known = self._cache.known(address.session_id)
        call = encode_put(
            self.codec,
            address,
            config,
            checkpoint,
            metadata,
            values,
            known.numbers if known else {},
            change,
            self._small_values.of_put(address, checkpoint, new_versions),
        )
        if self._recorder is not None:
            told = told_put(address, config, checkpoint["id"], metadata, new_versions, call.session)
            call = call._replace(told=told)
        await queue.store(call)

    async def _ask_parent(self, address: Address, conn: Connection | None) -> None:
        """Learns which small values stand in the row of the checkpoint that a put is below."""
        parent_id = address.checkpoint_id
        if parent_id is None or not self.codec.values.readable:  # encrypted, none stand in rows
            return
        place = address.session_id, address.stored_ns, parent_id
        rows = await self.db.fetch(_STATEMENTS["find_state_data"], *place, conn=conn)
        with placed(address.given_thread_id, address.stored_ns, parent_id):
            for row in rows:
                versions, small = small_values_of(row["state_data"])
                self._small_values.learn_parent(address, parent_id, versions, small)

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
        *,
        conn: Connection | None = None,
    ) -> None:
        """Stores a task's pending writes at the checkpoint that `config` names.

        A regular write is stored once and never replaced; errors, interrupts and the
        other special writes replace the earlier one. The checkpoint may be put later.
        `conn` is as in `aput`.

        Raises:
            InvalidArgumentError: `config` names no checkpoint.
            UnstorableValueError: a value couldn't be loaded again; nothing was stored.
            ServerError and its subclasses.
        """
        address = Address.of(config, self.tenants)
        checkpoint_id = address.checkpoint_id
        if checkpoint_id is None:
            raise InvalidArgumentError(
                argument="checkpoint_id", problem="put_writes needs the checkpoint it belongs to"
            )
        check_writes(writes, task_id, task_path)
        if not writes:
            return
        riding = None
        if self._riders.is_used and conn is None:
            writes, riding = self._riders.of_writes(address, config, writes, task_id, task_path)
            if not writes:
                return
        change = self._tracker.of_writes(address, config, checkpoint_id, writes, task_path)
        given = address, config, checkpoint_id, writes, task_id, task_path, change
        with self._under_way.noted(change.lease):
            if riding is None:
                await self._put_writes(self._queue_of(conn), *given)
            else:
                async with self._riders.ride(riding, self._call_store(), address, config) as queue:
                    await self._put_writes(queue, *given)

    async def _put_writes(
        self,
        queue: WriteQueue | JoinedTransaction | RidingQueue,
        address: Address,
        config: RunnableConfig,
        checkpoint_id: str,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str,
        change: SessionChange,
    ) -> None:
        # Before anything is awaited: the values are the graph's own, which it changes.
        call = encode_writes(
            self.codec, address, config, checkpoint_id, writes, task_id, task_path, change
        )
        if self._recorder is not None:
            await self._recorder.prepare(address.tenant_id)
        await queue.turn()
        if self._recorder is not None:
            readable = self.codec.values.readable
            told = told_error(
                address, config, checkpoint_id, writes, task_id, task_path, readable=readable
            )
            call = call._replace(told=told)
        await queue.store(call)

    @property
    def memory(self) -> SessionCache:
        """What this process remembers of sessions."""
        return self._cache

    @property
    def steps(self) -> StepKeeper:
        """That by which `this_step()` and `step_is_stored()` find this saver."""
        return self._riders

    def _queue_of(self, conn: Connection | None) -> WriteQueue | JoinedTransaction:
        return self._queue() if conn is None else JoinedTransaction(self._call_store(), conn)

    def _queue(self) -> WriteQueue:
        """That of the running loop."""
        loop = asyncio.get_running_loop()
        queue = self._queues.get(loop)
        if queue is None:
            for ended in [other for other in self._queues if other.is_closed()]:
                self._queues.pop(ended, None)
            queue = self._queues[loop] = WriteQueue(self._call_store())
        return queue

    def _call_store(self) -> CallStore:
        return CallStore(self.db, self.codec, self._cache, self._tracker, self._recorder)

    def get_next_version(self, current: str | int | None, channel: None) -> str:
        """The version after `current`: see `versions.next_version`."""
        return next_version(current)

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> PostgresSaver:
        """A copy that may also load these types; it shares this saver's database."""
        serde = with_allowlist(self.serde, checked_items("extra_allowlist", extra_allowlist))
        if serde is self.serde:
            return self
        clone = copy.copy(self)
        clone.serde = serde
        # What one may load, the other may not: nothing decoded is shared.
        clone._begin(Codec(serde, digest_key=self.codec.values.digest_key), self._leases)
        return clone

    def anew(self, *, tenant: str | None = None) -> PostgresSaver:
        """A copy that has read nothing, so that it gives what the server has.

        It takes no leases by itself; in a `lease` block of this saver it may write. With
        `tenant`, that is the tenant of what is called without one.
        """
        clone = copy.copy(self)
        if tenant is not None:
            required = self.tenants.is_required
            clone.tenants = Tenants(self.tenants.of_call(tenant), is_required=required)
        clone._begin(self.codec.values, self._leases.of_blocks())
        return clone

    def __copy__(self) -> PostgresSaver:
        """As LangGraph makes one for other types: the database stays this one's to close."""
        clone = type(self).__new__(type(self))
        vars(clone).update(vars(self), _owns_db=False)
        return clone

    # One writer per thread

    @property
    def is_single_writer(self) -> bool:
        """Whether runs take leases by themselves."""
        return self._leases.is_automatic

    def lease(
        self,
        thread_id: ThreadId,
        *,
        seconds: float = 30.0,
        wait_seconds: float = 0.0,
        tenant: str | None = None,
    ) -> LeaseBlock:
        """A block, `with` or `async with`, whose runs alone may write to the thread.

        Others get ThreadLeasedError, from any process and whether or not they use leases
        themselves. In the block everything that is called from it may write, also
        `update_state`. The lease is renewed while the block lasts. A block in a block of the
        same thread has the same lease, with the outer one's `seconds`, until the last ends.

        Args:
            seconds: how long the lease outlives a process that was killed.
            wait_seconds: how long to wait for somebody else's to end.
            tenant: whose thread it is; None is the Database's.

        Raises:
            ThreadLeasedError: at the block's begin, where somebody else has the lease.
            LeaseLostError: from writing, after the lease ended (this process or its way
                to the server stood still) and somebody else wrote, or may.
        """
        return LeaseBlock(
            self.db,
            self._leases,
            self._renewals,
            self._cache,
            thread_id,
            tenant_id=self.tenants.of_call(tenant),
            seconds=seconds,
            wait_seconds=wait_seconds,
        )

    # Deleting and copying

    async def adelete_thread(
        self, thread_id: str, *, tenant: str | None = None, conn: Connection | None = None
    ) -> None:
        """Deletes the thread from every table. A thread that isn't there is no error.

        `conn` is as in `aput`.
        """
        tenant_id = self.tenants.of_call(tenant)
        await retention.delete_thread(self.db, thread_id, tenant_id, conn=conn)

    async def adelete_for_runs(
        self,
        run_ids: Sequence[str],
        *,
        tenant: TenantScope = None,
        conn: Connection | None = None,
    ) -> None:
        """Deletes the checkpoints and writes of these runs, and what only they used.

        Delta channels of later checkpoints that were built on them lose those writes. Each
        thread has a transaction of its own, unless all are to join that of `conn`. Threads of
        other tenants stay as they are, unless `tenant` is ALL.
        """
        scope = self.tenants.of_listing(tenant)
        await retention.delete_for_runs(self.db, run_ids, scope, conn=conn)

    async def acopy_thread(
        self,
        source_thread_id: str,
        target_thread_id: str,
        *,
        checkpoint_id: str | None = None,
        tenant: str | None = None,
        conn: Connection | None = None,
    ) -> None:
        """Copies a thread with its whole history. A source that isn't there copies nothing.

        Args:
            source_thread_id: the thread, which stays as it is.
            target_thread_id: a thread that holds nothing. A session that it has already keeps
                its user, agent type, priority and metadata, where these are set.
            checkpoint_id: one of the root graph: the copy is the thread as it stood there.
                The latest is copied with all that its tasks wrote, so a paused run can be
                resumed in the copy. Of an earlier one the tasks are unfinished again; the
                questions they asked are open.
            tenant: whose both threads are.
            conn: as in `aput`; what the transaction stored is copied, too. An error leaves it
                usable.

        Raises:
            ThreadExistsError: the target holds state already.
            ThreadLeasedError, LeaseLostError: the target's lease is another's (see `lease`).
            MissingCheckpointError: the source has no such checkpoint.
        """
        status, tenant_id = None, self.tenants.of_call(tenant)
        if checkpoint_id is not None:
            at = checkpoint_config(source_thread_id, "", checkpoint_id, tenant_id)
            status = await self._status_at(Address.of(at), conn)
        target_id = session_id_of(thread_id_text(target_thread_id), tenant_id)
        await retention.copy_thread(
            self.db,
            source_thread_id,
            target_thread_id,
            tenant_id,
            checkpoint_id=checkpoint_id,
            status=status,
            lease=self._leases.of_block(target_id),
            conn=conn,
        )

    async def _status_at(self, address: Address, conn: Connection | None) -> SessionStatus | None:
        if conn is not None:
            return await status_at(self.db, self.codec, address, conn)
        return await self.db.snapshot(lambda own: status_at(self.db, self.codec, address, own))

    async def aprune(
        self,
        thread_ids: Sequence[str],
        *,
        strategy: str = "keep_latest",
        tenant: str | None = None,
        conn: Connection | None = None,
    ) -> None:
        """Prunes threads, each in a transaction of its own, unless all are to join `conn`'s.

        "keep_latest" keeps the latest checkpoint of each namespace and its pending
        writes, for delta channels also the ancestors it is rebuilt from, and of
        subgraph calls those that a kept checkpoint can resume. "delete" (or
        "delete_all") deletes the threads.

        Raises:
            InvalidArgumentError: another strategy.
        """
        tenant_id = self.tenants.of_call(tenant)
        await retention.prune(self.db, thread_ids, strategy, tenant_id, conn=conn)

    # The same for sync callers

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """`aget_tuple` for sync callers."""
        address = Address.of(config, self.tenants)
        try:
            fetched = self.db.portal.call(self._fetch, address)
        except BlockingCallError:
            raise BlockingCallError(call=PostgresSaver.aget_tuple.__qualname__) from None
        self._begin_run(address, config, fetched)
        return fetched.found if fetched else None

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
        tenant: TenantScope = None,
    ) -> Iterator[CheckpointTuple]:
        """`alist` for sync callers."""
        listing = self._listing(config, filter, before, limit, tenant)
        begins = self._enter_replayed(config)
        while page := self.db.portal.call(listing.next_page):
            for found in page:
                if begins is not None:
                    self._riders.note_read(*begins, found, is_replay=True)
                yield found

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """`aget_delta_channel_history` for sync callers."""
        return self.db.portal.call(
            self.aget_delta_channel_history, config=config, channels=channels
        )

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """`aput` for sync callers."""
        return self.db.portal.call(self.aput, config, checkpoint, metadata, new_versions)

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """`aput_writes` for sync callers."""
        self.db.portal.call(self.aput_writes, config, writes, task_id, task_path)

    def delete_thread(self, thread_id: str, *, tenant: str | None = None) -> None:
        """`adelete_thread` for sync callers."""
        self.db.portal.call(self.adelete_thread, thread_id, tenant=tenant)

    def delete_for_runs(self, run_ids: Sequence[str], *, tenant: TenantScope = None) -> None:
        """`adelete_for_runs` for sync callers."""
        self.db.portal.call(self.adelete_for_runs, run_ids, tenant=tenant)

    def copy_thread(
        self,
        source_thread_id: str,
        target_thread_id: str,
        *,
        checkpoint_id: str | None = None,
        tenant: str | None = None,
    ) -> None:
        """`acopy_thread` for sync callers."""
        self.db.portal.call(
            self.acopy_thread,
            source_thread_id,
            target_thread_id,
            checkpoint_id=checkpoint_id,
            tenant=tenant,
        )

    def prune(
        self,
        thread_ids: Sequence[str],
        *,
        strategy: str = "keep_latest",
        tenant: str | None = None,
    ) -> None:
        """`aprune` for sync callers."""
        self.db.portal.call(self.aprune, thread_ids, strategy=strategy, tenant=tenant)


def _has_sends_of_parent(found: CheckpointTuple) -> bool:
    return found.parent_config is not None and needs_pending_sends(found.checkpoint)
