"""How encoded calls come into the tables: together, or one alone after looking at its session."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence, Set
from typing import TypeAlias
from uuid import UUID

import asyncpg

from langgraph_pgsaga.checkpoint.batch import Batch
from langgraph_pgsaga.checkpoint.counters import check_counters, of_taken_number
from langgraph_pgsaga.checkpoint.encode import EncodedCall, EncodedPut, EncodedWrites
from langgraph_pgsaga.checkpoint.lease import refusal
from langgraph_pgsaga.checkpoint.run_tracker import RunTracker, joined
from langgraph_pgsaga.checkpoint.session_cache import (
    NOTHING_KNOWN,
    SessionCache,
    StateKey,
    is_same_session,
)
from langgraph_pgsaga.checkpoint.stored_message import MessageCodec
from langgraph_pgsaga.database import Connection, Database, Limits, load_statements
from langgraph_pgsaga.errors import (
    CheckpointDeletedError,
    CorruptSessionError,
    LeaseLostError,
    ServerError,
    ThreadDeletedError,
)
from langgraph_pgsaga.work import Rider, StepRecorder

_log = logging.getLogger("langgraph_pgsaga.checkpoint")
_STATEMENTS = load_statements("checkpoint")
_RETENTION = load_statements("retention")
# Each means that the session was deleted and made anew meanwhile.
_MOST_TRIES = 20
_UNIQUE_VIOLATION = "23505"
# By session its row of what the statement returns.
_Live: TypeAlias = Mapping[UUID, asyncpg.Record]
_OUT_OF_RANGE = "22003"


class CallStore:
    """Stores the calls of one saver. What is committed, and nothing else, is remembered."""

    def __init__(
        self,
        db: Database,
        codec: MessageCodec,
        cache: SessionCache,
        tracker: RunTracker,
        recorder: StepRecorder | None = None,
    ) -> None:
        self._db = db
        self._codec = codec
        self._cache = cache
        self._tracker = tracker
        self._recorder = recorder

    @property
    def is_distributed(self) -> bool:
        """Whether a statement takes the calls of one session only."""
        return self._db.distributed

    async def store_together(self, calls: Sequence[EncodedCall]) -> Set[UUID]:
        """Stores the calls in one statement.

        Returns:
            The sessions that weren't as expected: of their calls nothing is stored.
        """
        batch = self._batch(calls, self._cache)
        stale = self._remember(batch, await self._execute(batch))
        if stale:
            told = "%d of the %d sessions in a statement weren't as expected, and are looked at"
            _log.info(told, len(stale), len(batch.sessions))
        return stale

    async def store_alone(self, call: EncodedCall, *, limits: Limits | None = None) -> None:
        """Stores one call that counted on what isn't so (any more).

        With `limits`, for one whose session is held up by others, it waits for no longer.

        Raises:
            ThreadDeletedError, CheckpointDeletedError, ThreadLeasedError, LeaseLostError:
                the call may not write.
            CorruptSessionError: what its session's rows are counted by was damaged.
            ServerError and its subclasses.
        """
        try:
            if limits is None and await self._store_after_looking(call):
                return
            # Others write to this very session: from here on they wait for their turn.
            for _ in range(_MOST_TRIES):
                if await self._store_under_lock(call, limits):
                    return
        except ThreadDeletedError:
            deletion = _STATEMENTS["delete_stray_writes"].bind(session_id=call.session_id)
            await self._db.fetch(deletion)
            raise
        raise self._never_still(call)

    async def store_within(self, call: EncodedCall, conn: Connection) -> None:
        """Stores one call in the caller's transaction, which holds the session until it ends.

        Nothing of it is remembered, since it may be rolled back: to this process it is as if
        another one had stored it.

        Raises: as store_alone.
        """
        for _ in range(_MOST_TRIES):
            lock = _RETENTION["lock_session"].bind(session_id=call.session_id)
            await self._db.fetch(lock, conn=conn)
            found = SessionCache()
            await self._look(call, found, conn=conn)
            batch = self._batch([call], found)
            try:
                live = await self._execute(batch, conn=conn)
            except ServerError as error:
                if _is_of_taken_number(error):
                    raise self._miscounted(call, found) from error
                raise
            if not batch.sessions.keys() - live.keys():
                return
        raise self._never_still(call)

    async def store_with(
        self,
        call: EncodedCall,
        riders: Sequence[Rider],
        *,
        checks: Sequence[Rider] = (),
        place: StateKey | None,
    ) -> None:
        """Stores one call and what the riders do, in one transaction that holds the session.

        With `place`, only while that checkpoint is there. What raises in `checks` is asked before.

        Raises: as store_alone, and what a rider raises: then nothing is stored.
        """

        async def work(conn: Connection) -> tuple[Batch, _Live]:
            lock = _RETENTION["lock_session"].bind(session_id=call.session_id)
            await self._db.fetch(lock, conn=conn)
            has_parent = await self._look(call, self._cache, conn=conn, place=place)
            if place is not None and not has_parent:
                raise CheckpointDeletedError(thread_id=call.thread_id, checkpoint_id=place[1])
            for check in checks:
                await check(conn)
            batch = self._batch([call], self._cache)
            try:
                live = await self._execute(batch, conn=conn)
            except ServerError as error:
                if _is_of_taken_number(error):
                    raise self._miscounted(call, self._cache) from error
                raise
            if not batch.sessions.keys() - live.keys():
                for rider in riders:
                    await rider(conn)
            return batch, live

        for _ in range(_MOST_TRIES):
            if not self._remember(*await self._db.run(work, once=True)):
                return
        raise self._never_still(call)

    async def store_and(self, call: EncodedCall, riders: Sequence[Rider]) -> None:
        """Stores a call whose session likely is as expected, and asks what the riders ask.

        It doesn't look first, as store_with does, and is repeated when the connection is lost: so
        these riders change nothing.

        Raises: as store_with.
        """

        async def work(conn: Connection) -> tuple[Batch, _Live]:
            batch = self._batch([call], self._cache)
            live = await self._execute(batch, conn=conn)
            if not batch.sessions.keys() - live.keys():
                for rider in riders:
                    await rider(conn)
            return batch, live

        try:
            if not self._remember(*await self._db.run(work)):
                return
        except ServerError as error:
            if not needs_look(error):
                raise
        await self.store_with(call, riders, place=None)

    def _never_still(self, call: EncodedCall) -> ServerError:
        return ServerError(
            dsn=self._db.dsn,
            sqlstate=None,
            detail=f"thread {call.thread_id!r} was deleted and begun anew again and again "
            f"while this call was to be stored ({_MOST_TRIES} tries), or row security shows this "
            "user its row of agent_sessions and doesn't let it be changed",
        )

    async def _store_after_looking(self, call: EncodedCall) -> bool:
        """Asks how the session stands, and stores the call where it still does then."""
        await self._look(call, self._cache)
        try:
            return not await self.store_together([call])
        except ServerError as error:
            if not _is_of_taken_number(error):
                raise
            return False

    async def _store_under_lock(self, call: EncodedCall, limits: Limits | None) -> bool:
        """The same in one transaction that holds the session, where it is there."""

        async def work(conn: Connection) -> tuple[Batch, _Live]:
            # By a statement of its own: the next one sees all that those before it stored.
            lock = _RETENTION["lock_session"].bind(session_id=call.session_id)
            await self._db.fetch(lock, conn=conn)
            await self._look(call, self._cache, conn=conn)
            batch = self._batch([call], self._cache)
            return batch, await self._execute(batch, conn=conn)

        try:
            batch, live = await self._db.run(work, limits=limits)
        except ServerError as error:
            if _is_of_taken_number(error):
                raise self._miscounted(call, self._cache) from error
            raise
        return not self._remember(batch, live)

    def _miscounted(self, call: EncodedCall, cache: SessionCache) -> CorruptSessionError:
        known = cache.known(call.session_id)
        return of_taken_number(call.thread_id, None if known is None else known.message_count)

    async def _look(
        self,
        call: EncodedCall,
        cache: SessionCache,
        *,
        conn: Connection | None = None,
        place: StateKey | None = None,
    ) -> bool:
        """Has the cache learn what numbering the call's messages takes.

        Returns whether the checkpoint of `place`, or the one that it is put below, is there.

        Raises:
            ThreadDeletedError, CheckpointDeletedError, ThreadLeasedError, LeaseLostError:
                the call may not write.
            CorruptSessionError: it can't be counted on from there.
        """
        session_id = call.session_id
        digests = list({message.digest for message in call.messages})
        parent = place or call.parent_key
        namespace, parent_id = parent or (None, None)
        known = cache.known(session_id)
        find = _STATEMENTS["find_session"].bind(
            session_id=session_id,
            digests=digests,
            checkpoint_ns=namespace,
            parent_id=parent_id,
            **(known.last if known else NOTHING_KNOWN).by_name(),
        )
        row = await self._db.fetch_one(find, conn=conn)
        self._check_may_write(call, row)
        if row is not None:
            numbers_messages = isinstance(call, EncodedPut) and bool(call.messages)
            check_counters(call.thread_id, row, numbers_messages=numbers_messages)
        if row is None:
            cache.forget(session_id)
            return False
        if known is not None and not row["is_last_known"]:
            known = cache.doubt(session_id, known)
        if conn is not None and known and known.message_count > row["message_count"]:
            # Another epoch, or damaged: the session is locked, so its row is what counts.
            cache.forget(session_id)
            known = None
        has_parent = row["parent_position"] is not None
        cache.learn(
            session_id,
            row["message_epoch"],
            row["message_count"],
            zip(row["digests"] or (), row["message_nos"] or (), strict=True),
            states=[parent] if parent and has_parent else (),
            deletion_count=row["deletion_count"],
            position=row["parent_position"],
            since=known,
        )
        return has_parent

    def _check_may_write(self, call: EncodedCall, row: asyncpg.Record | None) -> None:
        """Raises where the call may not write to the session as find_session found it."""
        known, change = self._cache.known(call.session_id), call.change
        epoch = change.epoch
        if epoch is None and known is not None:
            epoch = known.epoch
        was_there = epoch is not None or (change.lease is not None and change.lease.is_claimed)
        is_another = epoch is not None and (
            row is None or not is_same_session(epoch, row["message_epoch"])
        )
        if was_there and (row is None or is_another) and not change.may_begin_thread:
            raise ThreadDeletedError(thread_id=call.thread_id)
        if row is not None:
            no_matter = change.lease is None and isinstance(call, EncodedWrites)
            refused = refusal(call.thread_id, change.lease, row)
            if refused is not None and not no_matter:
                if isinstance(refused, LeaseLostError):
                    _log.warning("session %s: a run lost its lease", call.session_id)
                raise refused
            # Begun anew, the thread has none of the checkpoints of before.
            parent = None if is_another else call.parent_key
            if parent and row["parent_position"] is None and call.counts_on_parent(known):
                raise CheckpointDeletedError(thread_id=call.thread_id, checkpoint_id=parent[1])

    def _batch(self, calls: Sequence[EncodedCall], cache: SessionCache) -> Batch:
        return Batch.of(self._codec, calls, cache, self._tracker, self._recorder)

    async def _execute(self, batch: Batch, *, conn: Connection | None = None) -> _Live:
        """The sessions that were as expected, and how they stand."""
        arguments = batch.arguments()
        for part in batch.sessions.values():
            if part.lease is not None:
                part.lease.note_sent()
        rows = await self._db.fetch(_STATEMENTS[batch.statement], *arguments, conn=conn)
        live = {row["session_id"]: row for row in rows}
        live.pop(None, None)  # of events alone
        return live

    def _remember(self, batch: Batch, live: _Live) -> Set[UUID]:
        """What is committed, of the sessions that are `live`; the result are the others."""
        stale = batch.sessions.keys() - live.keys()
        for session_id, change in batch.changes:
            if session_id not in stale:
                stored = batch.sessions.get(session_id)
                self._tracker.note_stored(change, stored.epoch if stored else None)
        for part in batch.sessions.values():
            if part.session_id not in stale:
                row = live[part.session_id]
                self._cache.learn(
                    part.session_id,
                    part.epoch,
                    part.message_count + len(part.fresh),
                    part.fresh.items(),
                    stored=part.fresh_hashes,
                    stored_hash=row["stored_hash"],
                    states=part.stored_states,
                    deletion_count=row["deletion_count"],
                    position=row["position"],
                    contents=part.stored,
                    since=part.known,
                )
                for _, message in part.stored:
                    message.readable = None  # it has been needed
        if batch.events and self._recorder is not None:
            self._recorder.note_stored(batch.told_tenants)
        return stale


class JoinedTransaction:
    """Takes the calls of a caller's transaction, by the methods of a WriteQueue."""

    def __init__(self, store: CallStore, conn: Connection) -> None:
        self._store = store
        self._conn = conn

    async def turn(self) -> None:
        """Returns at once: the transaction's calls are nobody else's."""

    async def store(self, call: EncodedCall) -> None:
        """Returns when the call is stored; it is committed with the transaction."""
        await self._store.store_within(call._replace(change=joined(call.change)), self._conn)


def needs_look(error: Exception) -> bool:
    """Whether looking at the session tells more: it has a message that the statement took for
    new, or a counter that can't go on."""
    is_past_end = isinstance(error, ServerError) and error.sqlstate == _OUT_OF_RANGE
    return is_past_end or _is_of_taken_number(error)


def _is_of_taken_number(error: Exception) -> bool:
    return isinstance(error, ServerError) and error.sqlstate == _UNIQUE_VIOLATION
