"""The way of puts and writes to the server: in order per session, together where they wait."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

import asyncpg

from langgraph_pgsaga.checkpoint.batch import Batch
from langgraph_pgsaga.checkpoint.encode import EncodedCall, EncodedWrites
from langgraph_pgsaga.checkpoint.lease import Lease, refusal
from langgraph_pgsaga.checkpoint.session_cache import SessionCache, is_same_session
from langgraph_pgsaga.checkpoint.stored_message import MessageCodec
from langgraph_pgsaga.database import Connection, Database, load_statements
from langgraph_pgsaga.errors import (
    CheckpointDeletedError,
    ClosedError,
    MissingMigrationsError,
    ReadOnlyServerError,
    ServerConnectionError,
    ServerError,
    ThreadDeletedError,
    copy_of,
)

_STATEMENTS = load_statements("checkpoint")
_RETENTION = load_statements("retention")
_LANES = 4
_MOST_CALLS = 200
# Two more pass until the next statement's task has begun.
_TURNS_BETWEEN = 1
_MOST_BYTES = 8_000_000
# Callers beyond this wait before they encode.
_MOST_QUEUED_BYTES = 64_000_000
# Each means that the session was deleted and made anew meanwhile.
_MOST_TRIES = 20
_UNIQUE_VIOLATION = "23505"
# What befalls every call alike, and is waited for each time it is tried.
_OF_ALL_CALLS = (
    ServerConnectionError,
    ReadOnlyServerError,
    MissingMigrationsError,
    ClosedError,
)


class _Queued:
    """A call and the future of its caller."""

    __slots__ = ("call", "done")

    def __init__(self, call: EncodedCall, done: asyncio.Future[None]) -> None:
        self.call = call
        self.done = done


class WriteQueue:
    """The puts and writes of one event loop.

    A session's calls are stored in the order in which they came. Calls that wait while
    a statement runs go together in the next one, of whatever sessions (group commit);
    an idle lane sends on the next turn of the loop. A call that fails fails alone.

    `write` returns when the call is committed. A cancelled call that isn't sent yet never
    is; one that is sent may be stored or not.
    """

    def __init__(self, db: Database, codec: MessageCodec, cache: SessionCache) -> None:
        # Asking for it costs a system call.
        self._loop = asyncio.get_running_loop()
        self._lanes = [_Lane(self._loop, db, codec, cache) for _ in range(_LANES)]
        self._queued_bytes = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_waking = False

    async def write(self, session_id: UUID, encode: Callable[[], EncodedCall]) -> None:
        """Stores what `encode` gives: at once, unless too much is queued already.

        Raises:
            UnstorableValueError: the server has no such value; nothing was stored.
            ServerError and its subclasses.
        """
        # Behind those that wait or were just woken, since one of them may be of this session.
        if self._waiting or self._is_waking or self._queued_bytes > _MOST_QUEUED_BYTES:
            await self._turn()
        size = 0
        try:
            call = encode()
            size = call.size
            self._queued_bytes += size
            self._wake_next()
            lane = self._lanes[session_id.int % _LANES]
            queued = lane.add(call)
            try:
                await queued.done
            except asyncio.CancelledError:
                lane.give_up_unwanted()
                raise
        finally:
            self._queued_bytes -= size
            self._wake_next()

    async def _turn(self) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():  # it had been this one's turn
                self._is_waking = False
                self._wake_next()
            raise
        self._is_waking = False

    def _wake_next(self) -> None:
        """Lets one caller go on, who wakes the next: each has to say first what it adds."""
        while self._waiting and not self._is_waking and self._queued_bytes <= _MOST_QUEUED_BYTES:
            waiter = self._waiting.popleft()
            if not waiter.cancelled():
                self._is_waking = True
                waiter.set_result(None)


class _Lane:
    """One statement at a time, for the sessions that are this lane's."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        db: Database,
        codec: MessageCodec,
        cache: SessionCache,
    ) -> None:
        self._loop = loop
        self._db = db
        self._codec = codec
        self._cache = cache
        self._queue: deque[_Queued] = deque()
        self._task: asyncio.Task[None] | None = None
        self._taken: list[_Queued] = []
        self._gave_up = False

    def add(self, call: EncodedCall) -> _Queued:
        """Queues the call, and sees to it that somebody sends it."""
        queued = _Queued(call, self._loop.create_future())
        self._queue.append(queued)
        if self._task is None:
            self._begin()
        return queued

    def give_up_unwanted(self) -> None:
        """Cancels the statement, once, where nobody waits for it any more."""
        is_unwanted = self._taken and all(queued.done.done() for queued in self._taken)
        if self._task and is_unwanted and not self._gave_up:
            self._gave_up = True
            self._task.cancel()

    def _begin(self) -> None:
        """Sends the next statement, in a task of its own: what cancels it ends nothing else."""
        # Not in the caller's context: the statement is everybody's.
        nobody = contextvars.Context()
        self._task = self._loop.create_task(self._send_next(), context=nobody)
        self._task.add_done_callback(self._go_on, context=nobody)

    async def _send_next(self) -> None:
        self._taken = self._take()
        await self._send(self._taken)
        self._taken = []
        # What waited for these calls, such as the next checkpoint, joins the next statement.
        for _ in range(_TURNS_BETWEEN):
            await asyncio.sleep(0)

    def _go_on(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() and not self._gave_up:  # by the end of its loop
            for queued in (*self._taken, *self._queue):
                queued.done.cancel()
        self._task, self._taken, self._gave_up = None, [], False
        while self._queue and self._queue[0].done.cancelled():
            self._queue.popleft()
        if self._queue:
            self._begin()

    def _take(self) -> list[_Queued]:
        """The next calls that fit into one statement, in order."""
        taken: list[_Queued] = []
        keys: set[object] = set()
        leases: dict[UUID, Lease | None] = {}
        size = 0
        while self._queue and len(taken) < _MOST_CALLS:
            queued = self._queue[0]
            call = queued.call
            size += call.size
            is_of_another = _is_of_another(call, leases)
            if taken and (size > _MOST_BYTES or call.key in keys or is_of_another):
                break
            self._queue.popleft()
            if not queued.done.cancelled():
                keys.add(call.key)
                taken.append(queued)
        return taken

    async def _send(self, taken: Sequence[_Queued]) -> None:
        try:
            left = await self._store(taken)
        except Exception as error:
            if not _may_be_of_one_call(error, among=len(taken)):
                for queued in taken:
                    _fail(queued, error)
                return
            left = list(taken)
        for queued in left:
            await self._send_alone(queued)

    async def _send_alone(self, queued: _Queued) -> None:
        """A call that failed among others, or that counted on what isn't so any more."""
        if queued.done.done():
            return
        try:
            await self._store_alone(queued)
        except Exception as error:
            _fail(queued, error)

    async def _store_alone(self, queued: _Queued) -> None:
        try:
            if await self._store_as_found(queued):
                return
            # Others write to this very session: from here on they wait for their turn.
            for _ in range(_MOST_TRIES):
                if await self._store_locked(queued):
                    return
        except ThreadDeletedError:
            statement = _STATEMENTS["delete_stray_writes"]
            await self._db.fetch(statement, queued.call.session_id)
            raise
        raise ServerError(
            dsn=self._db.dsn,
            sqlstate=None,
            detail=f"thread {queued.call.thread_id!r} was deleted and begun anew again and again "
            f"while this call was to be stored ({_MOST_TRIES} tries)",
        )

    async def _store_as_found(self, queued: _Queued) -> bool:
        """Asks how the session stands, and stores the call where it still does then."""
        await self._find_session(queued.call)
        try:
            return not await self._store([queued])
        except ServerError as error:
            if error.sqlstate != _UNIQUE_VIOLATION:
                raise
            return False

    async def _store_locked(self, queued: _Queued) -> bool:
        """The same in one transaction that holds the session, where it is there."""
        call = queued.call

        async def work(conn: Connection) -> tuple[Batch, dict[UUID, int]]:
            # By a statement of its own: the next one sees all that those before it stored.
            await self._db.fetch(_RETENTION["lock_session"], call.session_id, conn=conn)
            await self._find_session(call, conn=conn)
            batch = Batch.of(self._codec, [call], self._cache)
            return batch, await self._execute(batch, conn=conn)

        try:
            batch, live = await self._db.run(work)
        except ServerError as error:
            if error.sqlstate != _UNIQUE_VIOLATION:
                raise
            return False
        return not self._acknowledge([queued], batch, live)

    async def _find_session(self, call: EncodedCall, *, conn: Connection | None = None) -> None:
        """Learns what numbering the call's messages takes.

        Raises:
            ThreadDeletedError, CheckpointDeletedError, ThreadLeasedError, LeaseLostError:
                the call may not write.
        """
        session_id = call.session_id
        digests = list({message.digest for message in call.messages})
        parent = call.parent_key
        rows = await self._db.fetch(
            _STATEMENTS["find_session"], session_id, digests, *(parent or (None, None)), conn=conn
        )
        self._check_may_write(call, rows[0] if rows else None)
        if not rows:
            self._cache.forget(session_id)
            return
        row = rows[0]
        found = zip(row["digests"] or (), row["message_nos"] or (), strict=True)
        self._cache.learn(
            session_id,
            row["message_epoch"],
            row["message_count"],
            found,
            states=[parent] if parent and row["has_parent"] else (),
            deletion_count=row["deletion_count"],
        )

    def _check_may_write(self, call: EncodedCall, row: asyncpg.Record | None) -> None:
        """Raises where the call may not write to the session as find_session found it."""
        known, change = self._cache.known(call.session_id), call.change
        was_there = known is not None or (change.lease is not None and change.lease.is_claimed)
        is_another = known is not None and (
            row is None or not is_same_session(known.epoch, row["message_epoch"])
        )
        if was_there and (row is None or is_another) and not change.begins_thread:
            raise ThreadDeletedError(thread_id=call.thread_id)
        if row is not None:
            no_matter = change.lease is None and isinstance(call, EncodedWrites)
            refused = refusal(call.thread_id, change.lease, row)
            if refused is not None and not no_matter:
                raise refused
            # Begun anew, the thread has none of the checkpoints of before.
            parent = None if known is None or is_another else call.parent_key
            if parent and known and parent in known.states and not row["has_parent"]:
                raise CheckpointDeletedError(thread_id=call.thread_id, checkpoint_id=parent[1])

    async def _store(self, taken: Sequence[_Queued]) -> list[_Queued]:
        """Stores the calls, and answers those whose session wasn't as expected."""
        batch = Batch.of(self._codec, [queued.call for queued in taken], self._cache)
        return self._acknowledge(taken, batch, await self._execute(batch))

    async def _execute(self, batch: Batch, *, conn: Connection | None = None) -> dict[UUID, int]:
        """The sessions that were as expected, with their deletion_count."""
        statement = _STATEMENTS[batch.statement]
        rows = await self._db.fetch(statement, *batch.arguments(), conn=conn)
        return {row["session_id"]: row["deletion_count"] for row in rows}

    def _acknowledge(
        self, taken: Sequence[_Queued], batch: Batch, live: Mapping[UUID, int]
    ) -> list[_Queued]:
        """What is committed is remembered and answered; the result are the others."""
        stale = batch.sessions.keys() - live.keys()
        for part in batch.sessions.values():
            if part.session_id not in stale:
                part.note_stored()
                count = part.message_count + len(part.fresh)
                self._cache.learn(
                    part.session_id,
                    part.epoch,
                    count,
                    part.fresh.items(),
                    part.fresh_hashes,
                    part.stored_states,
                    live[part.session_id],
                )
                self._cache.hold(part.session_id, part.epoch, part.stored)
                for _, message in part.stored:
                    message.readable = None  # it has been needed
        left = [queued for queued in taken if queued.call.session_id in stale]
        for queued in taken:
            if queued.call.session_id not in stale and not queued.done.done():
                queued.done.set_result(None)
        return left


def _is_of_another(call: EncodedCall, leases: dict[UUID, Lease | None]) -> bool:
    """Whether the call is written under another lease than its session's calls before it."""
    lease = call.change.lease
    if lease is None and isinstance(call, EncodedWrites):
        return False
    return leases.setdefault(call.session_id, lease) is not lease


def _may_be_of_one_call(error: Exception, *, among: int) -> bool:
    """Whether the calls should be tried one by one."""
    if isinstance(error, ServerError) and error.sqlstate == _UNIQUE_VIOLATION:
        return True  # a message that this process didn't know: it can be found
    return among > 1 and not isinstance(error, _OF_ALL_CALLS)


def _fail(queued: _Queued, error: Exception) -> None:
    """Gives each caller an error of its own, also where it is a defect: nobody waits for ever."""
    if not queued.done.done():
        queued.done.set_exception(copy_of(error))
