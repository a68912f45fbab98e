"""`saver.lease(...)`: a block that alone may write to a thread."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeAlias
from uuid import UUID

import asyncpg

from langgraph_pgsaga import _fork
from langgraph_pgsaga._arguments import checked_seconds
from langgraph_pgsaga.checkpoint.lease import Lease, Leases, holder, leased_error
from langgraph_pgsaga.checkpoint.session_cache import NOTHING_KNOWN, SessionCache
from langgraph_pgsaga.database import Connection, Database, Limits, load_statements
from langgraph_pgsaga.errors import (
    ClosedError,
    InvalidArgumentError,
    LockTimeoutError,
    PgSagaError,
    ThreadLeasedError,
)
from langgraph_pgsaga.threads import ThreadId, session_id_of, thread_id_text

_log = logging.getLogger("langgraph_pgsaga.checkpoint")
_STATEMENTS = load_statements("checkpoint")
_SHORTEST_SECONDS = 1.0
_PAUSE_SECONDS = 0.1
_TICK_SECONDS = 0.2
_TOLD_EVERY_SECONDS = 5.0
_AT_ONCE = Limits(lock_seconds=0.1)
# Each takes a connection of the portal's pool.
_MOST_IN_LINE = 2
# In one statement, which holds the sessions' rows until it is committed.
_MOST_AT_ONCE = 1_000

# A lease as the statements take it: session, lease, seconds.
_Row: TypeAlias = tuple[UUID, UUID, float]


class LeaseBlock:
    """Holds a thread's lease while its block runs, for `with` and `async with`.

    The lease is renewed in the background, by the database's own thread, and given back at
    the end of the block. Where it isn't (the process was killed), it ends after `seconds`.
    Where the context is in a block of the thread already, its lease is this one's, too, and the
    last of them to end gives it back.
    """

    def __init__(
        self,
        db: Database,
        leases: Leases,
        renewals: Renewals,
        cache: SessionCache,
        thread_id: ThreadId,
        *,
        tenant_id: str,
        seconds: float,
        wait_seconds: float,
    ) -> None:
        checked_seconds("seconds", seconds, least=_SHORTEST_SECONDS)
        checked_seconds("wait_seconds", wait_seconds, least=0)
        self._db = db
        self._leases = leases
        self._renewals = renewals
        self._cache = cache
        self._thread_id = thread_id_text(thread_id)
        self._session_id = session_id_of(self._thread_id, tenant_id)
        self._tenant_id = tenant_id
        self._seconds = seconds
        self._wait_seconds = wait_seconds
        self._let_go: Callable[[], None] | None = None
        self._lease: Lease | None = None

    def __enter__(self) -> None:
        if not self._joins():
            self._hold(self._db.portal.call(self._claim))

    def __exit__(self, *_: object) -> None:
        if (lease := self._end()) is not None:
            self._db.portal.call(self._release, lease)

    async def __aenter__(self) -> None:
        if not self._joins():
            self._hold(await self._claim())

    async def __aexit__(self, *_: object) -> None:
        if (lease := self._end()) is not None:
            await self._release(lease)

    def _joins(self) -> bool:
        """Whether the context is in a block of the thread, which this one is part of then."""
        if self._lease is not None:
            problem = "its block has begun already. Call lease() again for another one"
            raise InvalidArgumentError(argument="lease", problem=problem)
        lease = self._leases.of_block(self._session_id)
        if lease is None or not lease.enter():
            return False
        self._lease, self._let_go = lease, lambda: None
        return True

    def _hold(self, lease: Lease) -> None:
        self._let_go = self._leases.hold(lease)
        self._lease = lease
        self._renewals.add(lease)

    def _end(self) -> Lease | None:
        """The lease to give back, if no other block is in it."""
        lease, let_go = self._lease, self._let_go
        if lease is None or let_go is None:
            raise InvalidArgumentError(argument="lease", problem="its block hasn't begun")
        self._lease = self._let_go = None
        let_go()
        if lease.is_inherited or not lease.leave():
            return None
        self._renewals.remove(lease)
        return lease

    async def _claim(self) -> Lease:
        lease = Lease(session_id=self._session_id, thread_id=self._thread_id, seconds=self._seconds)
        with self._giving_back(lease):
            await self._claim_in_turn(lease)
        return lease

    async def _claim_in_turn(self, lease: Lease) -> None:
        claim = _STATEMENTS["claim_lease"].bind(
            session_id=self._session_id,
            thread_id=self._thread_id,
            tenant_id=self._tenant_id,
            lease_id=lease.lease_id,
            lease_holder=holder(),
            lease_seconds=self._seconds,
        )
        begun = time.monotonic()
        deadline, tell_at = begun + self._wait_seconds, begun + _TOLD_EVERY_SECONDS
        while True:
            row = await self._db.fetch_one(claim)
            if row is not None:
                break
            refused = await self._refusal()
            if refused is not None and time.monotonic() >= deadline:
                raise refused
            if (now := time.monotonic()) >= tell_at:
                tell_at = now + _TOLD_EVERY_SECONDS
                told = "session %s: its lease is waited for, for %.0f s now"
                _log.warning(told, self._session_id, now - begun)
            await asyncio.sleep(_PAUSE_SECONDS if refused else 0)
        lease.is_claimed, lease.is_session_new = True, row["is_new"]
        self._cache.learn(self._session_id, row["message_epoch"], row["message_count"])

    async def _refusal(self) -> ThreadLeasedError | None:
        find = _STATEMENTS["find_session"].bind(
            session_id=self._session_id,
            digests=[],
            checkpoint_ns=None,
            parent_id=None,
            **NOTHING_KNOWN.by_name(),
        )
        row = await self._db.fetch_one(find)
        is_leased = row is not None and row["is_leased"]
        return leased_error(self._thread_id, row) if row is not None and is_leased else None

    async def _release(self, lease: Lease) -> None:
        with self._giving_back(lease):
            await self._give_back(lease)

    async def _give_back(self, lease: Lease) -> None:
        statement = _STATEMENTS["release_lease"]
        await self._db.fetch(statement.bind(session_id=lease.session_id, lease_id=lease.lease_id))

    @contextmanager
    def _giving_back(self, lease: Lease) -> Iterator[None]:
        """Cancelled, it sees to it in the background that the server doesn't keep the lease."""
        try:
            yield
        except asyncio.CancelledError:
            with suppress(ClosedError):
                self._db.portal.start(lambda: self._give_back(lease))
            raise


class Renewals:
    """Renews the leases of blocks that last, from the portal's loop.

    Many in one statement, which waits for nobody. Those whose session somebody else holds are
    tried again at each tick, and wait in line besides, each by itself.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self.after_fork()
        _fork.watch(self)

    def after_fork(self) -> None:
        """The parent's leases are renewed by the parent."""
        # When each is due next.
        self._due: dict[UUID, tuple[Lease, float]] = {}
        self._in_line: dict[UUID, asyncio.Task[None]] = {}
        self._is_running = False
        self._lock = threading.Lock()

    def add(self, lease: Lease) -> None:
        """Renews the lease from now on."""
        with self._lock:
            self._due[lease.lease_id] = lease, _next_due(lease)
            if not self._is_running:
                self._is_running = True
                self._db.portal.start(self._run)

    def remove(self, lease: Lease) -> None:
        """Renews it no more."""
        with self._lock:
            self._due.pop(lease.lease_id, None)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            with self._lock:
                if not self._due:
                    self._is_running = False
                    return
                now = time.monotonic()
                due = [lease for lease, time_due in self._due.values() if time_due <= now]
            if due:
                await self._renew(due)

    async def _renew(self, leases: Sequence[Lease]) -> None:
        rows, done = sorted(map(_row_of, leases)), set[UUID]()
        if self._db.distributed:  # where no statement passes over what is held
            for row in rows:
                done |= await self._execute("renew_leases", [row], limits=_AT_ONCE)
        else:
            for first in range(0, len(rows), _MOST_AT_ONCE):
                part = rows[first : first + _MOST_AT_ONCE]
                done |= await self._execute("renew_free_leases", part)
        self._put_off([lease for lease in leases if lease.lease_id in done])
        for lease in leases:
            is_in_line = lease.lease_id in self._in_line
            if lease.lease_id not in done and not is_in_line and len(self._in_line) < _MOST_IN_LINE:
                task = asyncio.create_task(self._renew_alone(lease))
                self._in_line[lease.lease_id] = task

    async def _renew_alone(self, lease: Lease) -> None:
        try:
            await self._execute("renew_leases", [_row_of(lease)])
            self._put_off([lease])
        finally:
            self._in_line.pop(lease.lease_id, None)

    async def _execute(
        self, name: str, rows: Sequence[_Row], *, limits: Limits | None = None
    ) -> set[UUID]:
        """The leases that were renewed; all where it failed, to be tried when they are due again.

        With `limits` a session that is held is none that failed.
        """
        session_ids, lease_ids, seconds = map(list, zip(*rows, strict=True))
        renewal = _STATEMENTS[name].bind(
            session_ids=session_ids, lease_ids=lease_ids, lease_seconds=seconds
        )

        async def work(conn: Connection) -> list[asyncpg.Record]:
            return await self._db.fetch(renewal, conn=conn)

        # What is lost says so to whoever writes next; meanwhile it is tried again.
        try:
            found = await (self._db.run(work, limits=limits) if limits else self._db.fetch(renewal))
            return {row["lease_id"] for row in found}
        except PgSagaError as error:
            if limits and isinstance(error, LockTimeoutError):
                return set()
            told = "the leases of %d threads weren't renewed: %s"
            _log.warning(told, len(rows), type(error).__name__)
            return set(lease_ids)

    def _put_off(self, leases: Sequence[Lease]) -> None:
        with self._lock:
            for lease in leases:
                if lease.lease_id in self._due:
                    self._due[lease.lease_id] = lease, _next_due(lease)


def _row_of(lease: Lease) -> _Row:
    return lease.session_id, lease.lease_id, lease.seconds


def _next_due(lease: Lease) -> float:
    return time.monotonic() + lease.seconds / 3
