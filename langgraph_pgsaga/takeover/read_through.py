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
from langgraph_pgsaga.errors import BlockingCallError, InvalidArgumentError
from langgraph_pgsaga.takeover.importing import TakenOver, take_active
from langgraph_pgsaga.takeover.source import Saver, SourceReader, key_of, thread_of
from langgraph_pgsaga.threads import Address, thread_id_text

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

    Neither saver is opened or closed here. The sync methods may be called from any thread
    but that of the event loop to which `old` is bound.

    Raises:
        InvalidArgumentError: `new` has single_writer.
        TakeoverError, UnstorableValueError: from everything that moves a thread: it couldn't
            be moved; nothing was written.
    """

    def __init__(self, new: PostgresSaver, old: Saver) -> None:
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
        # The threads whose home is known to be `new`; those used least recently go first.
        self._moved: dict[str, None] = {}
        self._locks: WeakKeyDictionary[
            asyncio.AbstractEventLoop, WeakValueDictionary[str, asyncio.Lock]
        ] = WeakKeyDictionary()

    # Where a thread is

    async def _is_new(self, thread_id: str) -> bool:
        if thread_id in self._moved:
            return True
        came = await TakenOver.of(self.new.db, thread_id)
        if came is not None and came.went_on:
            self._remember(thread_id)
            return True
        newest = await self._reader.newest(thread_id)
        if newest is None:
            return True
        return came is not None and not self._reader.is_after(newest, came.checkpoint_id)

    def _remember(self, thread_id: str) -> None:
        self._moved[thread_id] = None
        if len(self._moved) > _REMEMBERED_THREADS:
            self._moved.pop(next(iter(self._moved)), None)

    async def ais_imported(self, thread_id: str) -> bool:
        """Whether the thread is `new`'s: it was moved, or `old` hasn't got it."""
        return await self._is_new(thread_id_text(thread_id))

    async def aimport_thread(self, thread_id: str) -> None:
        """Takes the thread over, if `old` has it still, as the first write does."""
        await self._move(thread_id_text(thread_id))

    async def _move(self, thread_id: str) -> None:
        """Makes `new` the thread's home."""
        if thread_id in self._moved:
            return
        async with self._lock(thread_id):
            if not await self._is_new(thread_id):
                await take_active(self._reader, self.new, thread_id)
            self._remember(thread_id)

    def _lock(self, thread_id: str) -> asyncio.Lock:
        """Spares this process idle takers; those of other loops and processes wait in `new`."""
        locks = self._locks.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
        return locks.setdefault(thread_id, asyncio.Lock())

    # Reading

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As PostgresSaver's, from the thread's home."""
        thread_id = Address.of(config).thread_id
        if not await self._is_new(thread_id):
            found: CheckpointTuple | None = await self._reader.call("get_tuple", config)
            return found
        here = await self.new.aget_tuple(config)
        if here is not None:
            self._remember(thread_id)
        return here

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """As PostgresSaver's: each thread from its home, all of them newest first."""
        options: dict[str, Any] = {"filter": filter, "before": before}
        if config is not None:
            is_new = await self._is_new(Address.of(config).thread_id)
            found = (
                self.new.alist(config, limit=limit, **options)
                if is_new
                else self._listed_in_old(config, limit=limit, **options)
            )
        else:
            found = self._listed_in_both(options)
        left = checked_limit(limit)
        if left is not None and left <= 0:
            return
        async for one in found:
            yield one
            left = None if left is None else left - 1
            if left == 0:
                return

    async def _listed_in_old(
        self, config: RunnableConfig | None, **options: Any
    ) -> AsyncIterator[CheckpointTuple]:
        async for page in self._reader.pages(_itself, config, size=_PAGE, **options):
            if not self._reader.is_ordered:
                page = sorted(page, key=key_of, reverse=True)
            for one in page:
                yield one

    async def _listed_in_both(self, options: dict[str, Any]) -> AsyncIterator[CheckpointTuple]:
        homes: dict[str, bool] = {}

        async def at_home(
            found: AsyncIterator[CheckpointTuple], *, is_new: bool
        ) -> AsyncIterator[CheckpointTuple]:
            async for one in found:
                thread_id = thread_of(one)
                if thread_id not in homes:
                    homes[thread_id] = await self._is_new(thread_id)
                if homes[thread_id] is is_new:
                    yield one

        new = at_home(self.new.alist(None, **options), is_new=True)
        old = at_home(self._listed_in_old(None, **options), is_new=False)
        async for one in _merged(new, old):
            yield one

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """As PostgresSaver's, from the thread's home."""
        if await self._is_new(Address.of(config).thread_id):
            return await self.new.aget_delta_channel_history(config=config, channels=channels)
        found: Mapping[str, DeltaChannelHistory] = await self._reader.call(
            "get_delta_channel_history", config=config, channels=channels
        )
        return found

    # Writing

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As PostgresSaver's, once the thread is there."""
        await self._move(Address.of(config).thread_id)
        return await self.new.aput(config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """As PostgresSaver's, once the thread is there."""
        await self._move(Address.of(config).thread_id)
        await self.new.aput_writes(config, writes, task_id, task_path)

    def get_next_version(self, current: str | int | None, channel: None) -> str:
        """As PostgresSaver's: it sorts after `current`, whichever saver made that."""
        return self.new.get_next_version(current, channel)

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> ReadThroughSaver:
        """A copy whose savers may also load these types."""
        return ReadThroughSaver(
            self.new.with_allowlist(extra_allowlist), self.old.with_allowlist(extra_allowlist)
        )

    # Deleting and copying

    async def adelete_thread(self, thread_id: str) -> None:
        """Deletes the thread in both, in `old` first: half done, it isn't as it once was."""
        await self._reader.call("delete_thread", thread_id_text(thread_id))
        await self.new.adelete_thread(thread_id)
        self._moved.pop(thread_id_text(thread_id), None)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Moves the threads of these runs, then deletes the runs from them.

        `old`, which many a saver couldn't do this in, keeps them, unread.
        """
        threads: dict[str, None] = {}
        for run_id in (run_ids := checked_items("run_ids", run_ids)):
            pages = self._reader.pages(thread_of, None, filter={"run_id": run_id}, size=_PAGE)
            async for page in pages:
                threads.update(dict.fromkeys(page))
        for thread_id in threads:
            await self._move(thread_id)
        await self.new.adelete_for_runs(run_ids)

    async def acopy_thread(
        self, source_thread_id: str, target_thread_id: str, *, checkpoint_id: str | None = None
    ) -> None:
        """Moves both threads (the target is hardly there), then copies as PostgresSaver.

        Raises:
            ThreadExistsError: the target holds state already, in either saver.
        """
        for thread_id in (source_thread_id, target_thread_id):
            await self._move(thread_id_text(thread_id))
        await self.new.acopy_thread(source_thread_id, target_thread_id, checkpoint_id=checkpoint_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """As PostgresSaver's, once the threads are there; "delete" deletes them in both."""
        for thread_id in (thread_ids := checked_items("thread_ids", thread_ids)):
            if strategy in ("delete", "delete_all"):
                await self.adelete_thread(thread_id)
            else:
                await self._move(thread_id_text(thread_id))
        await self.new.aprune(thread_ids, strategy=strategy)

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
    ) -> Iterator[CheckpointTuple]:
        """`alist` for sync callers."""
        found = self.alist(config, filter=filter, before=before, limit=limit)

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

    def delete_thread(self, thread_id: str) -> None:
        """`adelete_thread` for sync callers."""
        self.call(self.adelete_thread, thread_id)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """`adelete_for_runs` for sync callers."""
        self.call(self.adelete_for_runs, run_ids)

    def copy_thread(
        self, source_thread_id: str, target_thread_id: str, *, checkpoint_id: str | None = None
    ) -> None:
        """`acopy_thread` for sync callers."""
        self.call(
            self.acopy_thread, source_thread_id, target_thread_id, checkpoint_id=checkpoint_id
        )

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """`aprune` for sync callers."""
        self.call(self.aprune, thread_ids, strategy=strategy)


def _itself(found: CheckpointTuple) -> CheckpointTuple:
    return found


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
