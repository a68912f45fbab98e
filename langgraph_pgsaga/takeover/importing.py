"""import_threads: threads of another saver, with their whole history, into a PostgresSaver."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, CheckpointTuple

from langgraph_pgsaga._arguments import (
    checked_instance,
    checked_integer,
    checked_items,
    checked_time,
)
from langgraph_pgsaga.checkpoint import PostgresSaver, encode_put, encode_values, encode_writes
from langgraph_pgsaga.database import Connection, Database, load_statements
from langgraph_pgsaga.errors import (
    BlockingCallError,
    ClosedError,
    InvalidArgumentError,
    LockLostError,
    MigrationError,
    MissingThreadError,
    PgSagaError,
    ReadOnlyServerError,
    ServerConnectionError,
    TakeoverMismatchError,
    ThreadDivergedError,
    UnreadableThreadError,
    UnstorableValueError,
)
from langgraph_pgsaga.takeover.equality import first_difference
from langgraph_pgsaga.takeover.pending import calls_of, results_of
from langgraph_pgsaga.takeover.report import ImportProgress, ImportReport, ThreadReport
from langgraph_pgsaga.takeover.source import (
    CheckpointKey,
    Saver,
    SourceReader,
    key_of,
    thread_config,
    thread_of,
)
from langgraph_pgsaga.threads import Address, stored_namespace, thread_id_text

T = TypeVar("T")
_log = logging.getLogger("langgraph_pgsaga.takeover")
_STATEMENTS = load_statements("takeover")
_LIFT_LIMITS = load_statements("migrate")["lift_limits"]
_BATCH = 50
_CLOSE_SECONDS = 5.0
_KEEP_SECONDS = 10.0
_SESSION_KEYS = ("user_id", "agent_type", "priority")
# These are the server's or the caller's trouble, not a thread's: the import ends with them.
_FATAL = (
    BlockingCallError,
    ClosedError,
    MigrationError,
    ReadOnlyServerError,
    ServerConnectionError,
)


async def import_threads(
    source: Saver,
    target: PostgresSaver,
    *,
    thread_ids: Iterable[str] | None = None,
    batch: int = _BATCH,
    dry_run: bool = False,
    on_progress: Callable[[ImportProgress], None] | None = None,
    tenant: str | None = None,
) -> ImportReport:
    """Takes threads over from another saver: every checkpoint, exactly, and pending writes.

    The source is only read, by `alist` and `aget_tuple` (or their sync forms). Each
    checkpoint is read back from PostgreSQL and compared. One that is here already isn't
    written again: the same call continues an import that was interrupted, and brings
    what came since. Two at once do no harm: a thread has one taker at a time.

    Savers don't tell the paths of tasks: pending writes keep their order under others.

    Args:
        thread_ids: None for every thread of the source; one that it hasn't got is an error.
        batch: how many checkpoints are in memory at once.
        dry_run: write nothing, and find out what couldn't be stored.
        on_progress: called after each batch.
        tenant: whose threads they become; None is that of the target's Database. Of a source
            that knows tenants they are those of its own Database's.

    Returns:
        A report of each thread. What is wrong with one (it can't be read or stored, it
        differs, it has gone on here: see TakeoverError) doesn't stop the others.

    Raises:
        InvalidArgumentError: `batch` is below 1.
        MissingTenantError: no tenant is given, and one is needed.
        ServerConnectionError, MigrationError and the like: nothing can be stored at all.
        What the source raises when its threads are listed.
    """
    checked_integer("batch", batch, least=1)
    checked_instance("target", target, PostgresSaver, "Pass the saver that the threads go to")
    target = target.anew(tenant=target.tenants.of_call(tenant))
    reader = SourceReader("source", source)
    if thread_ids is None:
        wanted = await _all_threads(reader, batch)
    else:
        wanted = [_thread(thread_id) for thread_id in checked_items("thread_ids", thread_ids)]
    threads = list(dict.fromkeys(wanted))
    progress = _Progress(len(threads), on_progress)
    reports: list[ThreadReport] = []
    for thread_id in threads:
        taking = _Takeover(reader, target, thread_id, batch, progress)
        taking.is_named = thread_ids is not None
        reports.append(await (taking.try_out() if dry_run else taking.run()))
        progress.threads_done += 1
    return ImportReport(threads=tuple(reports), dry_run=dry_run)


async def take_active(
    reader: SourceReader, target: PostgresSaver, thread_id: str, tenant_id: str
) -> None:
    """`import_threads` of one that is about to be written to, and so counts as active now.

    Raises:
        TakeoverError, UnstorableValueError: the thread isn't whole in the target.
    """
    target = target.anew(tenant=tenant_id)
    taking = _Takeover(reader, target, thread_id, _BATCH, _Progress(1, None))
    report = await taking.run(is_active=True)
    ImportReport(threads=(report,), dry_run=False).raise_first()


class _Progress:
    """Tells the caller how far it is."""

    def __init__(self, threads: int, tell: Callable[[ImportProgress], None] | None) -> None:
        self._threads = threads
        self._tell = tell
        self._checkpoints_done = 0
        self.threads_done = 0

    def note(self, thread_id: str, checkpoints: int) -> None:
        """So many more of the thread's checkpoints are here."""
        self._checkpoints_done += checkpoints
        if self._tell is not None:
            self._tell(
                ImportProgress(
                    thread_id=thread_id,
                    threads_done=self.threads_done,
                    threads=self._threads,
                    checkpoints_done=self._checkpoints_done,
                )
            )


def _thread(given: Any) -> str:
    """A thread id as text; one that can't be stored fails in its report."""
    return given if isinstance(given, str) else thread_id_text(given)


async def _all_threads(reader: SourceReader, batch: int) -> list[str]:
    found: dict[str, None] = {}
    async for page in reader.pages(thread_of, None, size=batch):
        found.update(dict.fromkeys(page))
    return list(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenOver:
    """What is known of a thread that came whole: the newest checkpoint that came with it,
    and whether it has newer ones of its own."""

    checkpoint_id: str
    went_on: bool

    @classmethod
    async def of(cls, db: Database, session_id: UUID) -> TakenOver | None:
        """None where the session's thread didn't come, or not whole."""
        statement = _STATEMENTS["select_taken_over"]
        row = await db.fetch_one(statement.bind(session_id=session_id))
        return None if row is None else cls(**dict(row))


class _Lock:
    """Keeps other takers of a thread out, in whatever process, while its transaction is open.

    On a connection of its own: the pool may have but one, and the import needs that.
    """

    def __init__(self, db: Database, conn: Connection) -> None:
        self._db = db
        self._conn = conn
        self._transaction = conn.transaction()
        # A connection does one thing at a time.
        self._one_at_a_time = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def of(cls, db: Database, session_id: UUID) -> AsyncIterator[_Lock]:
        """Waits for the lock, and holds it to the end of the block or until `end`."""
        conn = await db.connect()
        try:
            lock = cls(db, conn)
            await lock._begin(session_id)
            keeping = asyncio.create_task(lock._keep())
            try:
                yield lock
            finally:
                keeping.cancel()
        finally:
            with suppress(Exception):  # lost or closed, the transaction ends
                await conn.close(timeout=_CLOSE_SECONDS)

    async def check(self) -> None:
        """LockLostError where the lock is lost."""
        await self._fetch("check_takeover")

    async def order(self, session_id: UUID, keys: Sequence[CheckpointKey]) -> None:
        """Puts the thread's checkpoints, oldest first, in this order."""
        places = [(stored_namespace(key.checkpoint_ns), key.checkpoint_id) for key in keys]
        namespaces, ids = map(list, zip(*places, strict=True))
        await self._fetch(
            "order_checkpoints",
            session_id=session_id,
            checkpoint_nss=namespaces,
            checkpoint_ids=ids,
        )

    async def end(self, session_id: UUID, taken_over_to: str | None, *, is_active: bool) -> None:
        """Stores what came of it, which only the lock's holder can, and gives the lock back."""
        await self._fetch(
            "end_takeover",
            session_id=session_id,
            taken_over_to=taken_over_to,
            is_active=is_active,
        )
        with self._telling():
            await self._transaction.commit()

    async def _begin(self, session_id: UUID) -> None:
        with self._telling():
            await self._transaction.start()
        with self._telling():
            await self._db.fetch(_LIFT_LIMITS, conn=self._conn)
        await self._fetch("lock_takeover", session_id=session_id)

    async def _keep(self) -> None:
        """What stands between here and the server may close a connection that is silent."""
        try:
            while True:
                await asyncio.sleep(_KEEP_SECONDS)
                await self.check()
        except LockLostError as error:  # the next check raises it
            _log.warning("an import lost its lock: %s", error.detail)

    async def _fetch(self, name: str, **values: Any) -> None:
        with self._telling():
            async with self._one_at_a_time:
                await self._db.fetch(_STATEMENTS[name].bind(**values), conn=self._conn)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            with self._db.translating(OSError):
                yield
        except ServerConnectionError as error:
            sqlstate, detail = error.sqlstate, error.detail
            raise LockLostError(dsn=error.dsn, sqlstate=sqlstate, detail=detail) from error


class _Takeover:
    """The import of one thread: it becomes that tenant's which is the target's by default."""

    def __init__(
        self,
        reader: SourceReader,
        target: PostgresSaver,
        thread_id: str,
        batch: int,
        progress: _Progress,
    ) -> None:
        self._reader = reader
        self._target = target.anew()
        self._stored_here = target.anew()
        self._thread_id = thread_id
        self._batch = batch
        self._progress = progress
        # None where nothing is to be stored.
        self._lock: _Lock | None = None
        self._versions: set[tuple[str, str, str]] = set()
        self._checkpoints = self._stored = self._writes = 0
        self._errors: list[PgSagaError] = []
        self._newest: CheckpointKey | None = None
        self._order: Sequence[CheckpointKey] = ()
        # The tasks whose results are here, at checkpoints that lack writes.
        self._results: dict[CheckpointKey, set[str]] = {}
        self._came_to = ""
        # Whether somebody asked for this thread, so that it should be there.
        self.is_named = False

    async def run(self, *, is_active: bool = False) -> ThreadReport:
        """Imports the thread; what goes wrong with it stands in the report."""
        with self._reporting():
            session_id = self._session_id()
            async with _Lock.of(self._target.db, session_id) as self._lock:
                with self._reporting():
                    await self._take()
                is_whole = self._newest is not None and not self._errors
                came_to = self._newest.checkpoint_id if self._newest and is_whole else None
                if self._stored and is_whole:
                    await self._lock.order(session_id, self._order)
                if self._stored or (is_whole and came_to != self._came_to):
                    await self._lock.end(session_id, came_to, is_active=is_active)
        return self._report()

    def _session_id(self) -> UUID:
        return Address.of(thread_config(self._thread_id), self._target.tenants).session_id

    async def try_out(self) -> ThreadReport:
        """Finds out what `run` would do."""
        with self._reporting():
            thread_id_text(self._thread_id)
            await self._take()
        return self._report()

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """What is wrong with the thread doesn't end the import of the others."""
        try:
            yield
        except _FATAL:
            raise
        except PgSagaError as error:
            self._errors.append(error)

    def _report(self) -> ThreadReport:
        if self.is_named and not (self._checkpoints or self._errors):
            self._errors.append(MissingThreadError(thread_id=self._thread_id))
        return ThreadReport(
            thread_id=self._thread_id,
            checkpoints=self._checkpoints,
            stored=self._stored,
            writes=self._writes,
            errors=tuple(self._errors),
        )

    async def _take(self) -> None:
        """All there is, and what came to it meanwhile."""
        seen: list[CheckpointKey] = []
        while (keys := await self._keys(self._reader)) != seen:
            seen, self._order, self._newest = keys, keys, keys[-1] if keys else None
            self._checkpoints = len(keys)
            await self._take_keys(keys)
            if self._lock is None or self._errors or self._newest is None:
                return
            with self._reading():
                newest = await self._reader.newest(self._thread_id)
            if newest == self._newest.checkpoint_id:
                return

    async def _keys(self, reader: SourceReader) -> list[CheckpointKey]:
        """Those of the thread's checkpoints, oldest first."""
        found: list[CheckpointKey] = []
        with self._reading():
            config = thread_config(self._thread_id)
            async for page in reader.pages(key_of, config, size=self._batch):
                found += page
        return reader.in_order(found)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """What the source raises inside the block is told as this thread's error."""
        try:
            yield
        except PgSagaError:
            raise
        except Exception as error:
            problem = type(error).__name__
            raise UnreadableThreadError(thread_id=self._thread_id, problem=problem) from error

    async def _take_keys(self, keys: Sequence[CheckpointKey]) -> None:
        here = set(await self._keys(SourceReader("target", self._stored_here)))
        # What came over already and isn't here was pruned or deleted since.
        came = await TakenOver.of(self._target.db, self._session_id())
        self._came_to = came_to = came.checkpoint_id if came else ""
        common = [key for key in keys if key in here]
        missing = [key for key in _after(keys, came_to) if key not in here]
        went_on = len(here) > len(common)
        behind: list[CheckpointKey] = []
        for chunk in _chunks(common, self._batch):
            has_more, lacks = await self._compared(
                chunk, here, is_over=went_on and not missing, was_whole=bool(came_to)
            )
            went_on = went_on or has_more
            behind += lacks
        if went_on and missing:
            raise ThreadDivergedError(thread_id=self._thread_id)
        if went_on:
            return
        taken = {*missing, *behind}
        if taken and came_to and self._lock is not None:
            session_id = self._session_id()
            begin = _STATEMENTS["begin_takeover"].bind(session_id=session_id)
            await self._target.db.fetch(begin)
        for chunk in _chunks([key for key in keys if key in taken], self._batch):
            await self._take_chunk([await self._read(key) for key in chunk], here)
            self._progress.note(self._thread_id, len(chunk))

    async def _compared(
        self,
        keys: Sequence[CheckpointKey],
        here: set[CheckpointKey],
        *,
        is_over: bool,
        was_whole: bool,
    ) -> tuple[bool, list[CheckpointKey]]:
        """Compares checkpoints that are here with the source's.

        Returns whether one has writes here of which the source knows nothing, and those
        that lack writes. Once the thread has gone on here, its writes are its own.
        """
        has_more, behind = False, []
        whole = [await self._read(key) for key in keys]
        if self._lock is not None and not was_whole:  # it was interrupted before it told them
            await self._set_times(whole)
        for key, expected in zip(keys, whole, strict=True):
            found = await self._read_back(key)
            if found is None:
                continue
            if was_whole and found.parent_config is None and _parent_key(expected) not in here:
                expected = expected._replace(parent_config=None)
            if not self._check(expected, found, with_writes=False) or is_over:
                continue
            theirs, ours = _places(expected), _places(found)
            has_more = has_more or bool(ours - theirs)
            if first_difference(expected, found, self._reader.stored) is not None:
                behind.append(key)
                self._results[key] = results_of(found)
        self._progress.note(self._thread_id, len(keys) - len(behind))
        return has_more, behind

    async def _take_chunk(self, found: Sequence[CheckpointTuple], here: set[CheckpointKey]) -> None:
        """Stores checkpoints, or finds out whether they could be, and compares what was stored.

        Writes go first: a checkpoint that is here has all that was pending at it.
        """
        new = [one for one in found if key_of(one) not in here]
        self._stored += len(new)
        self._writes += sum(len(one.pending_writes or ()) for one in found)
        if self._lock is None:
            self._try(found)
            return
        await self._lock.check()
        await _all(self._write(one) for one in found)
        await _all(self._put(one) for one in new)
        await self._set_times(found)
        for expected in found:
            self._check(expected, await self._read_back(key_of(expected)))

    async def _read(self, key: CheckpointKey) -> CheckpointTuple:
        config = self._config(key, key.checkpoint_id)
        with self._reading():
            found = await self._reader.call("get_tuple", config)
        if not isinstance(found, CheckpointTuple):
            problem = f"checkpoint {key.checkpoint_id} is listed but can't be found"
            raise UnreadableThreadError(thread_id=self._thread_id, problem=problem)
        self._check_versions(found)
        return found

    def _check_versions(self, found: CheckpointTuple) -> None:
        """Versions here are text, and LangGraph can't compare text with numbers."""
        if not all(isinstance(v, str) for v in found.checkpoint["channel_versions"].values()):
            problem = "they are numbers, and the thread couldn't go on from them"
            raise UnstorableValueError(where="channel_versions", problem=problem)

    async def _read_back(self, key: CheckpointKey) -> CheckpointTuple | None:
        return await self._stored_here.aget_tuple(self._config(key, key.checkpoint_id))

    def _config(self, key: CheckpointKey, checkpoint_id: str | None) -> RunnableConfig:
        configurable = {"thread_id": self._thread_id, "checkpoint_ns": key.checkpoint_ns}
        if checkpoint_id is not None:
            configurable["checkpoint_id"] = checkpoint_id
        return {"configurable": configurable}

    def _put_arguments(self, found: CheckpointTuple) -> tuple[RunnableConfig, ChannelVersions]:
        """The config that adds nothing to the metadata, and the versions not stored yet."""
        parent = _parent_key(found)
        config = self._config(key_of(found), parent.checkpoint_id if parent else None)
        metadata: dict[str, Any] = {**found.metadata}
        # What it says of the session stands in the metadata already.
        config["metadata"] = {key: metadata[key] for key in _SESSION_KEYS if key in metadata}
        checkpoint, namespace = found.checkpoint, key_of(found).checkpoint_ns
        new: ChannelVersions = {}
        for channel, version in checkpoint["channel_versions"].items():
            place = namespace, channel, str(version)
            # Named as new, a channel without a value has none, whatever its parent's is.
            if channel not in checkpoint["channel_values"]:
                new[channel] = version
            elif place not in self._versions:
                self._versions.add(place)
                new[channel] = version
        return config, new

    async def _put(self, found: CheckpointTuple) -> None:
        config, new_versions = self._put_arguments(found)
        await self._target.aput(config, found.checkpoint, found.metadata, new_versions)

    async def _write(self, found: CheckpointTuple) -> None:
        config = self._config(key_of(found), key_of(found).checkpoint_id)
        for call in calls_of(found, self._results.get(key_of(found), ())):
            await self._target.aput_writes(config, call.writes, call.task_id, call.task_path)

    async def _set_times(self, found: Sequence[CheckpointTuple]) -> None:
        """Of those whose time can be told; the others are of now."""
        given = [
            (stored_namespace(key_of(one).checkpoint_ns), one.checkpoint["id"], time)
            for one in found
            if (time := _time_of(one)) is not None
        ]
        if given:
            namespaces, ids, times = map(list, zip(*given, strict=True))
            statement = _STATEMENTS["set_times"].bind(
                session_id=self._session_id(),
                checkpoint_nss=namespaces,
                checkpoint_ids=ids,
                times=times,
            )
            await self._target.db.fetch(statement)

    def _try(self, found: Sequence[CheckpointTuple]) -> None:
        """Encodes everything as for storing it."""
        codec = self._target.codec
        for one in found:
            config, new = self._put_arguments(one)
            try:
                address = Address.of(config, self._target.tenants)
                values = encode_values(codec, one.checkpoint, new, {})
                encode_put(codec, address, config, one.checkpoint, one.metadata, values, {})
                checkpoint_id = one.checkpoint["id"]
                for call in calls_of(one):
                    path, writes = call.task_path, call.writes
                    encode_writes(codec, address, config, checkpoint_id, writes, call.task_id, path)
            except UnstorableValueError as error:
                self._errors.append(error)

    def _check(
        self, expected: CheckpointTuple, found: CheckpointTuple | None, *, with_writes: bool = True
    ) -> bool:
        """Notes where `found` isn't `expected`."""
        place = "all of it"
        if found is not None:
            stored = self._reader.stored
            difference = first_difference(expected, found, stored, with_writes=with_writes)
            if difference is None:
                return True
            place = difference
        key = key_of(expected)
        self._errors.append(
            TakeoverMismatchError(
                thread_id=self._thread_id,
                checkpoint_ns=key.checkpoint_ns,
                checkpoint_id=key.checkpoint_id,
                place=place,
            )
        )
        return False


def _time_of(found: CheckpointTuple) -> datetime | None:
    """When the source stored it, if it tells."""
    try:
        return checked_time("ts", datetime.fromisoformat(found.checkpoint["ts"]))
    except (InvalidArgumentError, KeyError, TypeError, ValueError):
        return None


def _after(keys: Sequence[CheckpointKey], came_to: str) -> Sequence[CheckpointKey]:
    """Those of the keys, oldest first, that follow the one up to which the thread came."""
    ids = [key.checkpoint_id for key in keys]
    if came_to in ids:
        return keys[ids.index(came_to) + 1 :]
    return [key for key in keys if key.checkpoint_id > came_to]


def _parent_key(found: CheckpointTuple) -> CheckpointKey | None:
    parent = found.parent_config
    if parent is None:
        return None
    return CheckpointKey(parent["configurable"]["checkpoint_id"], key_of(found).checkpoint_ns)


def _places(found: CheckpointTuple) -> set[tuple[str, str]]:
    return {(task_id, channel) for task_id, channel, _ in found.pending_writes or ()}


def _chunks(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


async def _all(calls: Iterable[Any]) -> None:
    """Runs them together; all have ended when the first error is raised."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
