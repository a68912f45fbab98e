"""ReadThroughSaver: from another saver to PostgresSaver while the application runs."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)

from langgraph_pgsaga._arguments import checked_instance, checked_items, checked_limit
from langgraph_pgsaga.checkpoint import PostgresSaver
from langgraph_pgsaga.database import Connection
from langgraph_pgsaga.errors import BlockingCallError, InvalidArgumentError
from langgraph_pgsaga.takeover.importing import TakenOver, take_active
from langgraph_pgsaga.takeover.source import Saver, SourceReader, key_of, thread_of
from langgraph_pgsaga.tenants import ALL, AllTenants, TenantScope, check_no_scope
from langgraph_pgsaga.threads import (
    Address,
    TenantsThreadId,
    checkpoint_config,
    configurable_of,
    session_id_of,
    thread_id_text,
    told,
)
from langgraph_pgsaga.work import StepKeeper

T = TypeVar("T")
_PAGE = 50
_REMEMBERED_THREADS = 100_000


class ReadThroughSaver(BaseCheckpointSaver[str]):
    """Writes to `new`; a thread that only `old` has is read there until it is written to.

    Each thread has one home. It is `old` while that has the thread and `import_threads`
    hasn't marked it as whole in `new`, or `old` has newer checkpoints than came with it;
    else `new`. The first write moves the thread: `import_threads` takes it over before
    the write is stored. Moving is idempotent and one taker at a time does it, so that
    several processes may use the same two savers. A move that was interrupted leaves the
    home where it was. Once a thread has gone on in `new`, what `old` has of it isn't looked
    at any more: whoever still writes to `old` alone is not heard.

    What `old` has is one tenant's: the threads of others are in `new` only.

    `conn=` is as PostgresSaver has it, for what is done in `new`; a move commits by itself before.

    Neither saver is opened or closed here. The sync methods may be called from any thread
    but that of the event loop to which `old` is bound.

    Args:
        new: the saver that takes the threads over.
        old: the saver that has them.
        tenant: whose threads `old` has; None is that of the new saver's Database.

    Raises:
        InvalidArgumentError: `new` has single_writer.
        MissingTenantError: no tenant is given, and one is needed.
        TakeoverError, UnstorableValueError: from everything that moves a thread: it couldn't
            be moved; nothing was written.
    """

    def __init__(self, new: PostgresSaver, old: Saver, *, tenant: str | None = None) -> None:
        checked_instance("new", new, PostgresSaver, "Pass the saver that takes the threads over")
        super().__init__()
        # Not by way of the base class, which takes a serializer of length 0 for none.
        self.serde = new.serde
        if new.is_single_writer:
            problem = "can't have single_writer: a run begins in the old saver. Use its lease()"
            raise InvalidArgumentError(argument="new", problem=problem)
        self.new = new
        self.old = old
        self._reader = SourceReader("old", old)
        self.tenants = new.tenants
        self._tenant_id = new.tenants.of_call(tenant)
        # Of its threads those whose home is known to be `new`, with a number for what that
        # remembered of them; the ones that were noted first go first.
        self._moved: dict[str, int] = {}
        self._locks: WeakKeyDictionary[
            asyncio.AbstractEventLoop, WeakValueDictionary[str, asyncio.Lock]
        ] = WeakKeyDictionary()

    # Where a thread is

    def _may_be_old(self, tenant_id: str | AllTenants) -> bool:
        """Whether `old` may have threads of the tenant."""
        return tenant_id in (ALL, self._tenant_id)

    async def _is_at_new(self, address: Address) -> bool:
        return not self._may_be_old(address.tenant_id) or await self._is_new(address.thread_id)

    async def _is_new(self, thread_id: str) -> bool:
        """Whether `new` is the home of a thread of the tenant whose threads `old` has."""
        if self._is_known(thread_id):
            return True
        came = await TakenOver.of(self.new.db, session_id_of(thread_id, self._tenant_id))
        if came is not None and came.went_on:
            self._remember(thread_id)
            return True
        newest = await self._reader.newest(thread_id)
        if newest is None:
            return True
        return came is not None and not self._reader.is_after(newest, came.checkpoint_id)

    def _is_known(self, thread_id: str) -> bool:
        """Whether `new` is known to be its home, and hasn't lost what was known of it since."""
        noted = self._moved.get(thread_id)
        return noted is not None and noted == self._memory_of(thread_id)

    def _memory_of(self, thread_id: str) -> int | None:
        return self.new.memory.generation(session_id_of(thread_id, self._tenant_id))

    def _remember(self, thread_id: str) -> None:
        memory = self._memory_of(thread_id)
        if memory is None:
            return
        self._moved[thread_id] = memory
        if len(self._moved) > _REMEMBERED_THREADS:
            self._moved.pop(next(iter(self._moved)), None)

    async def ais_imported(self, thread_id: str, *, tenant: str | None = None) -> bool:
        """Whether the thread is `new`'s: it was moved, or `old` hasn't got it."""
        return await self._is_at_new(self._address(thread_id, self.tenants.of_call(tenant)))

    async def aimport_thread(self, thread_id: str, *, tenant: str | None = None) -> None:
        """Takes the thread over, if `old` has it still, as the first write does."""
        await self._move_at(self._address(thread_id, self.tenants.of_call(tenant)))

    def _address(self, thread_id: str, tenant_id: str) -> Address:
        return Address.of(checkpoint_config(thread_id, "", "", tenant_id))

    async def _move_at(self, address: Address) -> None:
        """Makes `new` the thread's home."""
        if self._may_be_old(address.tenant_id):
            await self._move(address.thread_id)

    async def _move(self, thread_id: str) -> None:
        if self._is_known(thread_id):
            return
        async with self._lock(thread_id):
            if not await self._is_new(thread_id):
                await take_active(self._reader, self.new, thread_id, self._tenant_id)
                # It may have been here before, and been lost.
                self.new.memory.forget(session_id_of(thread_id, self._tenant_id))
            self._remember(thread_id)

    def _lock(self, thread_id: str) -> asyncio.Lock:
        """Spares this process idle takers; those of other loops and processes wait in `new`."""
        locks = self._locks.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
        return locks.setdefault(thread_id, asyncio.Lock())

    # Reading

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As PostgresSaver's, from the thread's home."""
        address = Address.of(config, self.tenants)
        was_known = self._is_known(address.thread_id)
        if not await self._is_at_new(address):
            found: CheckpointTuple | None = await self._reader.call("get_tuple", _untold(config))
            return None if found is None else self._told(found)
        here = await self.new.aget_tuple(config)
        if was_known and not self._is_known(address.thread_id):
            return await self.aget_tuple(config)  # it isn't known any more where the thread is
        if here is not None and self._may_be_old(address.tenant_id):
            self._remember(address.thread_id)
        return here

    def _told(self, found: CheckpointTuple) -> CheckpointTuple:
        """A tuple of the old saver, whose configs say whose thread it is."""
        parent = found.parent_config
        return found._replace(
            config=self._told_config(found.config),
            parent_config=None if parent is None else self._told_config(parent),
        )

    def _told_config(self, config: RunnableConfig) -> RunnableConfig:
        tenant_id = self.tenants.in_config(self._tenant_id)
        config = _untold(config)
        if tenant_id is None:
            return config
        return {**config, "configurable": told(config["configurable"], tenant_id)}

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
        tenant: TenantScope = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """As PostgresSaver's: each thread from its home, all of them newest first."""
        options: dict[str, Any] = {"filter": filter, "before": before}
        if config is not None:
            check_no_scope(tenant)
            address = Address.of(config, self.tenants)
            self._moved.pop(address.thread_id, None)  # a listing doesn't tell what was lost
            is_new = await self._is_at_new(address)
            found = (
                self.new.alist(config, limit=limit, **options)
                if is_new
                else self._listed_in_old(config, limit=limit, **options)
            )
        elif self._may_be_old(self.tenants.of_listing(tenant)):
            found = self._listed_in_both(tenant, options)
        else:
            found = self.new.alist(None, limit=limit, tenant=tenant, **options)
        left = checked_limit(limit)
        if left is not None and left <= 0:
            return
        async for one in found:
            yield one
            left = None if left is None else left - 1
            if left == 0:
                return

    async def _listed_in_old(
        self, config: RunnableConfig | None, *, before: RunnableConfig | None, **options: Any
    ) -> AsyncIterator[CheckpointTuple]:
        config = None if config is None else _untold(config)
        options["before"] = None if before is None else _untold(before)
        async for page in self._reader.pages(self._told, config, size=_PAGE, **options):
            if not self._reader.is_ordered:
                page = sorted(page, key=key_of, reverse=True)
            for one in page:
                yield one

    async def _listed_in_both(
        self, tenant: TenantScope, options: dict[str, Any]
    ) -> AsyncIterator[CheckpointTuple]:
        homes: dict[str, bool] = {}

        async def at_home(
            found: AsyncIterator[CheckpointTuple], *, is_new: bool
        ) -> AsyncIterator[CheckpointTuple]:
            async for one in found:
                thread_id, carried = thread_of(one), one.config["configurable"].get("tenant_id")
                if not self._may_be_old(self.tenants.of_found(carried)):
                    yield one
                    continue
                if thread_id not in homes:
                    homes[thread_id] = await self._is_new(thread_id)
                if homes[thread_id] is is_new:
                    yield one

        new = at_home(self.new.alist(None, tenant=tenant, **options), is_new=True)
        old = at_home(self._listed_in_old(None, **options), is_new=False)
        async for one in _merged(new, old):
            yield one

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """As PostgresSaver's, from the thread's home."""
        if await self._is_at_new(Address.of(config, self.tenants)):
            return await self.new.aget_delta_channel_history(config=config, channels=channels)
        found: Mapping[str, DeltaChannelHistory] = await self._reader.call(
            "get_delta_channel_history", config=_untold(config), channels=channels
        )
        return found

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
        """As PostgresSaver's, once the thread is there."""
        await self._move_at(Address.of(config, self.tenants))
        return await self.new.aput(config, checkpoint, metadata, new_versions, conn=conn)

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
        *,
        conn: Connection | None = None,
    ) -> None:
        """As PostgresSaver's, once the thread is there."""
        await self._move_at(Address.of(config, self.tenants))
        await self.new.aput_writes(config, writes, task_id, task_path, conn=conn)

    @property
    def steps(self) -> StepKeeper:
        """As PostgresSaver's: steps are stored in `new`."""
        return self.new.steps

    def get_next_version(self, current: str | int | None, channel: None) -> str:
        """As PostgresSaver's: it sorts after `current`, whichever saver made that."""
        return self.new.get_next_version(current, channel)

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> ReadThroughSaver:
        """A copy whose savers may also load these types."""
        return ReadThroughSaver(
            self.new.with_allowlist(extra_allowlist),
            self.old.with_allowlist(extra_allowlist),
            tenant=self._tenant_id,
        )

    # Deleting and copying

    async def adelete_thread(
        self, thread_id: str, *, tenant: str | None = None, conn: Connection | None = None
    ) -> None:
        """Deletes the thread in both, in `old` first: half done, it isn't as it once was.

        With `conn` it is moved before, so that it is in `new` if that is rolled back.
        """
        name, tenant_id = thread_id_text(thread_id), self.tenants.of_call(tenant)
        if conn is not None:
            await self._move_at(self._address(thread_id, tenant_id))
        if self._may_be_old(tenant_id):
            await self._reader.call("delete_thread", name)
        await self.new.adelete_thread(thread_id, tenant=tenant_id, conn=conn)
        if self._may_be_old(tenant_id):
            self._moved.pop(name, None)

    async def adelete_for_runs(
        self,
        run_ids: Sequence[str],
        *,
        tenant: TenantScope = None,
        conn: Connection | None = None,
    ) -> None:
        """Moves the threads of these runs, then deletes the runs from them.

        `old`, which many a saver couldn't do this in, keeps them, unread.
        """
        threads: dict[str, None] = {}
        scope = self.tenants.of_listing(tenant)
        run_ids = checked_items("run_ids", run_ids)
        for run_id in run_ids if self._may_be_old(scope) else ():
            pages = self._reader.pages(thread_of, None, filter={"run_id": run_id}, size=_PAGE)
            async for page in pages:
                threads.update(dict.fromkeys(page))
        for thread_id in threads:
            await self._move(thread_id)
        await self.new.adelete_for_runs(run_ids, tenant=scope, conn=conn)

    async def acopy_thread(
        self,
        source_thread_id: str,
        target_thread_id: str,
        *,
        checkpoint_id: str | None = None,
        tenant: str | None = None,
        conn: Connection | None = None,
    ) -> None:
        """Moves both threads (the target is hardly there), then copies as PostgresSaver.

        Raises:
            ThreadExistsError: the target holds state already, in either saver.
        """
        tenant_id = self.tenants.of_call(tenant)
        for thread_id in (source_thread_id, target_thread_id):
            await self._move_at(self._address(thread_id, tenant_id))
        await self.new.acopy_thread(
            source_thread_id,
            target_thread_id,
            checkpoint_id=checkpoint_id,
            tenant=tenant_id,
            conn=conn,
        )

    async def aprune(
        self,
        thread_ids: Sequence[str],
        *,
        strategy: str = "keep_latest",
        tenant: str | None = None,
        conn: Connection | None = None,
    ) -> None:
        """As PostgresSaver's, once the threads are there; "delete" deletes them in both."""
        tenant_id = self.tenants.of_call(tenant)
        for thread_id in (thread_ids := checked_items("thread_ids", thread_ids)):
            if strategy in ("delete", "delete_all"):
                await self.adelete_thread(thread_id, tenant=tenant_id, conn=conn)
            else:
                await self._move_at(self._address(thread_id, tenant_id))
        await self.new.aprune(thread_ids, strategy=strategy, tenant=tenant_id, conn=conn)

    # The same for sync callers

    def call(self, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """What `await function(...)` gives in the loop of the new saver's database.

        Raises:
            BlockingCallError: called from the loop that the old saver is bound to.
        """
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is not None and here is self._reader.loop:
            raise BlockingCallError(call=function.__name__.removeprefix("a"))
        return self.new.db.portal.call(function, *args, **kwargs)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """`aget_tuple` for sync callers."""
        return self.call(self.aget_tuple, config)

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
        found = self.alist(config, filter=filter, before=before, limit=limit, tenant=tenant)

        async def following() -> CheckpointTuple | None:
            return await anext(found, None)

        while (one := self.call(following)) is not None:
            yield one

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """`aget_delta_channel_history` for sync callers."""
        return self.call(self.aget_delta_channel_history, config=config, channels=channels)

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """`aput` for sync callers."""
        return self.call(self.aput, config, checkpoint, metadata, new_versions)

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """`aput_writes` for sync callers."""
        self.call(self.aput_writes, config, writes, task_id, task_path)

    def delete_thread(self, thread_id: str, *, tenant: str | None = None) -> None:
        """`adelete_thread` for sync callers."""
        self.call(self.adelete_thread, thread_id, tenant=tenant)

    def delete_for_runs(self, run_ids: Sequence[str], *, tenant: TenantScope = None) -> None:
        """`adelete_for_runs` for sync callers."""
        self.call(self.adelete_for_runs, run_ids, tenant=tenant)

    def copy_thread(
        self,
        source_thread_id: str,
        target_thread_id: str,
        *,
        checkpoint_id: str | None = None,
        tenant: str | None = None,
    ) -> None:
        """`acopy_thread` for sync callers."""
        self.call(
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
        self.call(self.aprune, thread_ids, strategy=strategy, tenant=tenant)


def _untold(config: RunnableConfig) -> RunnableConfig:
    """The config without a tenant, as the old saver takes it: its thread id knows none either."""
    configurable = configurable_of(config)
    thread_id = configurable.get("thread_id")
    knows_tenant = type(thread_id) is TenantsThreadId
    if "tenant_id" not in configurable and not knows_tenant:
        return config
    rest = {key: value for key, value in configurable.items() if key != "tenant_id"}
    return {
        **config,
        "configurable": {**rest, "thread_id": str(thread_id)} if knows_tenant else rest,
    }


async def _merged(
    left: AsyncIterator[CheckpointTuple], right: AsyncIterator[CheckpointTuple]
) -> AsyncIterator[CheckpointTuple]:
    """Both, each of which is in order, newest first."""
    one, other = await anext(left, None), await anext(right, None)
    while one is not None or other is not None:
        if other is None or (one is not None and key_of(one) >= key_of(other)):
            assert one is not None
            yield one
            one = await anext(left, None)
        else:
            yield other
            other = await anext(right, None)
