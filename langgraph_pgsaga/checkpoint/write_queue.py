"""The way of puts and writes to the server: in order per session, together where they wait."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Sequence
from uuid import UUID

from langgraph_pgsaga.checkpoint.call_store import CallStore, needs_look
from langgraph_pgsaga.checkpoint.encode import EncodedCall, EncodedWrites
from langgraph_pgsaga.checkpoint.lease import Lease
from langgraph_pgsaga.database import Limits
from langgraph_pgsaga.errors import (
    ClosedError,
    LockTimeoutError,
    MissingMigrationsError,
    ReadOnlyServerError,
    ServerConnectionError,
    StatementTimeoutError,
    copy_of,
)

_log = logging.getLogger("langgraph_pgsaga.checkpoint")
_LANES = 4
_MOST_CALLS = 200
# Two more pass until the next statement's task has begun.
_TURNS_BETWEEN = 1
_MOST_BYTES = 8_000_000
# Callers beyond this wait before they encode.
_MOST_QUEUED_BYTES = 64_000_000
# What befalls every call alike, and is waited for each time it is tried.
_OF_ALL_CALLS = (
    ServerConnectionError,
    ReadOnlyServerError,
    MissingMigrationsError,
    ClosedError,
)

# What one session may do to a statement for many; the calls of the others can be stored.
_HELD_UP = (LockTimeoutError, StatementTimeoutError)
_AT_ONCE = Limits(lock_seconds=0.1, statement_seconds=5.0)


class _Queued:
    """A call and the future of its caller."""

    __slots__ = ("call", "done")

    def __init__(self, call: EncodedCall, done: asyncio.Future[None]) -> None:
        self.call = call
        self.done = done


class WriteQueue:
    """The puts and writes of one event loop.

    A caller awaits its `turn`, encodes its call, and awaits `store`, with nothing awaited in
    between: so what is queued has a limit, and a session's calls are stored in the order in
    which they came.

    Calls that wait while a statement runs go together in the next one, of whatever sessions
    (group commit); an idle lane sends on the next turn of the loop. A call that fails fails
    alone.
    """

    def __init__(self, store: CallStore) -> None:
        # Asking for it costs a system call.
        self._loop = asyncio.get_running_loop()
        self._lanes = [_Lane(self._loop, store) for _ in range(_LANES)]
        self._queued_bytes = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_waking = False

    async def turn(self) -> None:
        """Returns at once, unless too much is queued already, or others wait."""
        # Behind those that wait or were just woken, since one of them may be of this session.
        if self._waiting or self._is_waking or self._queued_bytes > _MOST_QUEUED_BYTES:
            await self._wait()

    async def store(self, call: EncodedCall) -> None:
        """Returns when the call is committed.

        A cancelled call that isn't sent yet never is; one that is sent may be stored or not.

        Raises:
            UnstorableValueError: the server has no such value; nothing was stored.
            ServerError and its subclasses.
        """
        self._queued_bytes += call.size
        try:
            lane = self._lanes[call.session_id.int % _LANES]
            queued = lane.add(call)
            try:
                await queued.done
            except asyncio.CancelledError:
                lane.give_up_unwanted()
                raise
        finally:
            self._queued_bytes -= call.size
            self._wake_next()

    async def settle(self, session_id: UUID) -> None:
        """Returns when no call of the session is on its way that nobody waits for any more.

        Once the caller of one was cancelled, it can still be stored.
        """
        await self._lanes[session_id.int % _LANES].settle(session_id)

    async def _wait(self) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():  # it had been this one's turn
                self._end_turn()
            raise
        # By then this caller has queued its call, or failed to encode it.
        self._loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._is_waking = False
        self._wake_next()

    def _wake_next(self) -> None:
        """Lets one caller go on: the next one only when this one has said what it adds."""
        while self._waiting and not self._is_waking and self._queued_bytes <= _MOST_QUEUED_BYTES:
            waiter = self._waiting.popleft()
            if not waiter.cancelled():
                self._is_waking = True
                waiter.set_result(None)


class _Lane:
    """One statement at a time, for the sessions that are this lane's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, store: CallStore) -> None:
        self._loop = loop
        self._store = store
        self._queue: deque[_Queued] = deque()
        self._task: asyncio.Task[None] | None = None
        self._taken: list[_Queued] = []
        self._gave_up = False

    def add(self, call: EncodedCall) -> _Queued:
        """Queues the call, and sees to it that somebody stores it."""
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

    async def settle(self, session_id: UUID) -> None:
        """Waits for the statement while a cancelled call of the session is in it."""
        while self._task is not None and self._has_cancelled(session_id):
            await asyncio.wait([self._task])

    def _has_cancelled(self, session_id: UUID) -> bool:
        return any(
            queued.done.cancelled() and queued.call.session_id == session_id
            for queued in self._taken
        )

    def _begin(self) -> None:
        """Stores what is next, in a task of its own: what cancels it ends nothing else."""
        # Not in the caller's context: the statement is everybody's.
        nobody = contextvars.Context()
        self._task = self._loop.create_task(self._store_next(), context=nobody)
        self._task.add_done_callback(self._go_on, context=nobody)

    async def _store_next(self) -> None:
        self._taken = self._take()
        for queued in await self._store_together(self._taken):
            await self._store_alone(queued)
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
            is_of_another = _is_of_another(call, leases) or self._is_elsewhere(call, taken)
            if taken and (size > _MOST_BYTES or call.key in keys or is_of_another):
                break
            self._queue.popleft()
            if not queued.done.cancelled():
                keys.add(call.key)
                taken.append(queued)
        return taken

    def _is_elsewhere(self, call: EncodedCall, taken: Sequence[_Queued]) -> bool:
        """Whether the call's session may be on another server than that of those taken."""
        first = taken[0].call.session_id if taken else call.session_id
        return self._store.is_distributed and first != call.session_id

    async def _store_together(self, taken: Sequence[_Queued]) -> list[_Queued]:
        """Stores what was taken in one statement; the result are those to be stored alone."""
        try:
            stale = await self._store.store_together([queued.call for queued in taken])
        except Exception as error:
            if isinstance(error, _HELD_UP) and len(taken) > 1:
                await self._store_what_is_free(taken)
                return []
            if _may_be_of_one_call(error, among=len(taken)):
                return list(taken)
            for queued in taken:
                _fail(queued, error)
            return []
        for queued in taken:
            if queued.call.session_id not in stale:
                _acknowledge(queued)
        return [queued for queued in taken if queued.call.session_id in stale]

    async def _store_what_is_free(self, taken: Sequence[_Queued]) -> None:
        """Stores the calls of sessions that nothing holds up, now that all waited for their time.

        Whoever waits behind them has waited for as long, so none of these is waited for again.
        """
        held: dict[UUID, Exception] = {}
        _log.warning("%d calls waited in vain; those that can are stored one by one", len(taken))
        for queued in taken:
            session_id = queued.call.session_id
            if queued.done.done():
                continue
            if session_id not in held:
                try:
                    await self._store.store_alone(queued.call, limits=_AT_ONCE)
                except Exception as error:
                    held[session_id] = error
                else:
                    _acknowledge(queued)
                    continue
            _fail(queued, held[session_id])

    async def _store_alone(self, queued: _Queued) -> None:
        """A call that failed among others, or that counted on what isn't so any more."""
        if queued.done.done():
            return
        try:
            await self._store.store_alone(queued.call)
        except Exception as error:
            _fail(queued, error)
        else:
            _acknowledge(queued)


def _is_of_another(call: EncodedCall, leases: dict[UUID, Lease | None]) -> bool:
    """Whether the call is written under another lease than its session's calls before it."""
    lease = call.change.lease
    if lease is None and isinstance(call, EncodedWrites):
        return False
    return leases.setdefault(call.session_id, lease) is not lease


def _may_be_of_one_call(error: Exception, *, among: int) -> bool:
    """Whether the calls should be tried one by one."""
    if needs_look(error):
        return True
    return among > 1 and not isinstance(error, _OF_ALL_CALLS)


def _acknowledge(queued: _Queued) -> None:
    if not queued.done.done():
        queued.done.set_result(None)


def _fail(queued: _Queued, error: Exception) -> None:
    """Gives each caller an error of its own, also where it is a defect: nobody waits for ever."""
    if not queued.done.done():
        queued.done.set_exception(copy_of(error))
