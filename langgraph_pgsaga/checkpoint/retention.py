"""Deleting, pruning and copying threads. Nothing here decodes a value."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any
from uuid import UUID

import asyncpg
from langgraph.checkpoint.serde.types import TASKS

from langgraph_pgsaga import _json
from langgraph_pgsaga._arguments import checked_choice, checked_items, required_text
from langgraph_pgsaga.checkpoint.lease import Lease, refusal
from langgraph_pgsaga.database import LONG, Connection, Database, load_statements
from langgraph_pgsaga.errors import (
    InvalidArgumentError,
    MissingCheckpointError,
    ServerError,
    ThreadExistsError,
)
from langgraph_pgsaga.tenants import AllTenants, stored_scope
from langgraph_pgsaga.threads import SessionStatus, session_id_of, thread_id_text

_STATEMENTS = load_statements("retention")
_HISTORY = load_statements("history")
_INSUFFICIENT_PRIVILEGE = "42501"
# Of the 21 bits of an epoch that change, and the 31 of a deletion_count.
_LARGEST_STEP = 1 << 12


async def delete_thread(
    db: Database, thread_id: Any, tenant_id: str, *, conn: Connection | None = None
) -> None:
    """Everything of the thread, from every table. A thread that isn't there is no error."""
    session_id = session_id_of(thread_id_text(thread_id), tenant_id)
    await _delete_session(db, session_id, tenant_id, conn)


async def delete_for_runs(
    db: Database,
    run_ids: Sequence[str],
    scope: str | AllTenants,
    *,
    conn: Connection | None = None,
) -> None:
    """The checkpoints and writes of the runs, and what only they used; one transaction a thread.

    Only in the threads of the one tenant, unless `scope` is ALL.
    """
    ids = [_run_id(run_id) for run_id in checked_items("run_ids", run_ids)]
    sessions: dict[UUID, None] = {}
    for run_id in ids:
        metadata = _json.dump(_json.project({"run_id": run_id}))
        find = _STATEMENTS["select_sessions_of_run"].bind(
            metadata=metadata, tenant_id=stored_scope(scope)
        )
        found = await db.fetch(find, conn=conn)
        sessions.update(dict.fromkeys(row["session_id"] for row in found))
    for session_id in sorted(sessions):

        async def work(conn: Connection, session_id: UUID = session_id) -> None:
            if not await _lock(db, conn, session_id):
                return
            deletion = _STATEMENTS["delete_checkpoints_of_runs"].bind(
                session_id=session_id, run_ids=ids, step=_step()
            )
            await db.fetch(deletion, conn=conn)
            await _collect(db, conn, session_id)

        await _within(db, conn, work)


async def prune(
    db: Database,
    thread_ids: Sequence[Any],
    strategy: str,
    tenant_id: str,
    *,
    conn: Connection | None = None,
) -> None:
    """Prunes each thread in a transaction of its own; see PostgresSaver.prune."""
    checked_choice("strategy", strategy, ("keep_latest", "delete", "delete_all"))
    threads = checked_items("thread_ids", thread_ids)
    # In one order for everybody, so that two transactions can't wait for each other.
    for session_id in sorted(session_id_of(thread_id_text(t), tenant_id) for t in threads):
        if strategy == "keep_latest":
            await _keep_latest(db, session_id, conn)
        else:
            await _delete_session(db, session_id, tenant_id, conn)


async def copy_thread(
    db: Database,
    source: Any,
    target: Any,
    tenant_id: str,
    *,
    checkpoint_id: str | None = None,
    status: SessionStatus | None = None,
    lease: Lease | None = None,
    conn: Connection | None = None,
) -> None:
    """Everything of `source` under `target`, or what there is of it `checkpoint_id` a checkpoint.

    Both are threads of one tenant.

    A source that isn't there copies nothing. `status` is what that checkpoint leaves its thread
    with, where it tells. `lease` is that of the target which the caller's block holds, if any.
    See PostgresSaver.acopy_thread.

    Raises:
        ThreadExistsError: the target holds state already.
        ThreadLeasedError: somebody else has the target's lease.
        LeaseLostError: the caller's block lost it.
        MissingCheckpointError: the source has no such checkpoint.
    """
    if checkpoint_id is not None and not required_text("checkpoint_id", checkpoint_id):
        raise InvalidArgumentError(argument="checkpoint_id", problem="must name a checkpoint")
    source_id = session_id_of(thread_id_text(source), tenant_id)
    target_text = thread_id_text(target)
    target_id = session_id_of(target_text, tenant_id)

    async def work(conn: Connection) -> None:
        locked: dict[UUID, bool] = {}
        # In one order for everybody, so that two copies can't wait for each other.
        for session_id in sorted((source_id, target_id)):
            if session_id == target_id != source_id:
                claim = _STATEMENTS["claim_session"].bind(
                    session_id=session_id, tenant_id=tenant_id
                )
                await db.fetch(claim, conn=conn)
            locked[session_id] = await _lock(db, conn, session_id)
        if checkpoint_id is not None:
            await _require_checkpoint(db, conn, source, tenant_id, checkpoint_id)
        if not locked[source_id]:
            raise _NothingToCopyError
        (held,) = await db.fetch(_STATEMENTS["find_target"].bind(session_id=target_id), conn=conn)
        if held["is_there"]:
            raise ThreadExistsError(thread_id=target_text)
        # A block whose thread was deleted holds nothing, and keeps nobody from it.
        if held["lease_id"] and (refused := refusal(target_text, lease, held)):
            raise refused
        copying = _STATEMENTS["copy_session"].bind(
            source_id=source_id,
            target_id=target_id,
            thread_id=target_text,
            tenant_id=tenant_id,
            until_id=checkpoint_id,
            until_status=status and status.value,
            lease_id=lease and lease.lease_id,
        )
        await db.fetch(copying, conn=conn)
        if checkpoint_id is not None:
            await _collect(db, conn, target_id)

    with suppress(_NothingToCopyError):
        if conn is None:
            await db.run(work, once=True, limits=LONG)
        else:
            await _in_savepoint(db, conn, work)


def _run_id(given: Any) -> str:
    """A run's id as stored metadata has it."""
    if not isinstance(given, str | UUID):
        problem = f"must be a list of str or UUID, not of {type(given).__name__}"
        raise InvalidArgumentError(argument="run_ids", problem=problem)
    return _json.clean_text(str(given))


async def _require_checkpoint(
    db: Database, conn: Connection, thread_id: Any, tenant_id: str, checkpoint_id: str
) -> None:
    session_id = session_id_of(thread_id_text(thread_id), tenant_id)
    look = _STATEMENTS["exists_checkpoint"].bind(session_id=session_id, checkpoint_id=checkpoint_id)
    (found,) = await db.fetch(look, conn=conn)
    if not found["is_there"]:
        raise MissingCheckpointError(thread_id=thread_id_text(thread_id))


class _NothingToCopyError(Exception):
    """Rolls the transaction back, and with it the claim on the target."""


async def delete_claimed(db: Database, conn: Connection, session_id: UUID) -> None:
    """Everything of a session whose row the transaction of `conn` has locked.

    Raises:
        ServerError: row security shows some of it and lets none be deleted.
    """
    memories = _STATEMENTS["delete_session_memories"].bind(session_id=session_id)
    (row,) = await db.fetch(memories, conn=conn)
    if row["is_kept"]:
        raise _refused(db, "agent_memory")
    deletion = _STATEMENTS["delete_session"].bind(session_id=session_id)
    kept_in = ""
    # What somebody else deletes meanwhile (delete_stray_writes) isn't seen a second time.
    for _ in range(2):
        (row,) = await db.fetch(deletion, conn=conn)
        kept_in = row["kept_in"]
        if kept_in is None:
            return
    raise _refused(db, kept_in)


async def prune_free(db: Database, session_id: UUID, *, keep_last: int, keep_named: bool) -> int:
    """Prunes a session to its last checkpoints, unless somebody else holds it.

    Returns:
        How many checkpoints were deleted.
    """

    async def work(conn: Connection) -> int:
        lock = _STATEMENTS["lock_free_session"].bind(session_id=session_id)
        if not await db.fetch(lock, conn=conn):
            return 0
        rule = (keep_last, keep_named, True)
        deleted = await _delete_older(db, conn, session_id, rule)
        if deleted:
            await _collect(db, conn, session_id)
        return deleted

    return await db.run(work, limits=LONG)


def _refused(db: Database, table: str) -> ServerError:
    detail = (
        f"row security shows this user rows of {table} and lets it delete none, so nothing was "
        "deleted: it needs a policy for delete, too"
    )
    return ServerError(dsn=db.dsn, sqlstate=_INSUFFICIENT_PRIVILEGE, detail=detail)


async def _delete_session(
    db: Database, session_id: UUID, tenant_id: str, conn: Connection | None = None
) -> None:
    async def work(conn: Connection) -> None:
        claim = _STATEMENTS["claim_session"].bind(session_id=session_id, tenant_id=tenant_id)
        await db.fetch(claim, conn=conn)
        await db.fetch(_STATEMENTS["lock_session"].bind(session_id=session_id), conn=conn)
        await delete_claimed(db, conn, session_id)

    await _within(db, conn, work)


async def _within(
    db: Database, conn: Connection | None, work: Callable[[Connection], Awaitable[None]]
) -> None:
    """The work in the caller's transaction, or, where there is none, in one of its own."""
    await (db.run(work, limits=LONG) if conn is None else work(conn))


async def _in_savepoint(
    db: Database, conn: Connection, work: Callable[[Connection], Awaitable[None]]
) -> None:
    """The work in the caller's transaction, which an error of it leaves as it was."""
    with db.translating():
        async with conn.transaction():
            await work(conn)


async def _keep_latest(db: Database, session_id: UUID, conn: Connection | None) -> None:
    async def work(conn: Connection) -> None:
        if not await _lock(db, conn, session_id):
            return
        await _delete_older(db, conn, session_id, (1, False, False))
        await _collect(db, conn, session_id)

    await _within(db, conn, work)


async def _delete_older(
    db: Database, conn: Connection, session_id: UUID, rule: tuple[int, bool, bool]
) -> int:
    """Deletes all checkpoints but those that select_heads gives for `rule` and what they need.

    `rule` is its keep_last, keep_named and keep_replays. Values and contents that nothing
    names any more are left for `_collect`.
    """
    keep_last, keep_named, keep_replays = rule
    select = _STATEMENTS["select_heads"].bind(
        session_id=session_id,
        sends_channel=TASKS,
        keep_last=keep_last,
        keep_named=keep_named,
        keep_replays=keep_replays,
    )
    heads = await db.fetch(select, conn=conn)
    kept_roots: set[str] = set()
    deleted = 0
    # The root graph's namespace comes first.
    for namespace, group in groupby(heads, key=lambda head: str(head["checkpoint_ns"])):
        chosen = list(group)
        if _is_call_over(chosen[0], kept_roots):
            chosen = [head for head in chosen if head["is_named"]]
        kept: set[str] = set()
        for head in chosen:
            kept |= await _kept_ids(db, conn, session_id, head)
        if not namespace:
            kept_roots = kept
        deletion = _STATEMENTS["delete_checkpoints_but"].bind(
            session_id=session_id, checkpoint_ns=namespace, kept_ids=sorted(kept), step=_step()
        )
        (row,) = await db.fetch(deletion, conn=conn)
        if row["is_refused"]:
            raise _refused(db, "agent_states")
        deleted += row["deleted"]
    return deleted


async def _lock(db: Database, conn: Connection, session_id: UUID) -> bool:
    """Whether there is a session to lock; where there is none, nothing may be collected."""
    lock = _STATEMENTS["lock_session"].bind(session_id=session_id)
    return bool(await db.fetch(lock, conn=conn))


async def _kept_ids(
    db: Database, conn: Connection, session_id: UUID, head: asyncpg.Record
) -> set[str]:
    """The head and what it can't be rebuilt without."""
    kept = {head["checkpoint_id"]}
    if head["sends_parent_id"]:
        kept.add(head["sends_parent_id"])
    if head["delta_channels"]:
        steps = _HISTORY["walk_delta_channels"].bind(
            session_id=session_id,
            checkpoint_ns=head["checkpoint_ns"],
            checkpoint_id=head["checkpoint_id"],
            channels=head["delta_channels"],
        )
        walk = await db.fetch(steps, conn=conn)
        kept.update(row["checkpoint_id"] for row in walk)
    return kept


def _is_call_over(head: asyncpg.Record, kept_roots: set[str]) -> bool:
    """Whether the namespace is that of a subgraph call which no kept checkpoint can resume.

    Such a call's namespace has its task id after a colon; it goes with the root
    checkpoint that it started from, but only once that one is saved: a call's
    checkpoints can be saved before it.
    """
    is_call = ":" in head["checkpoint_ns"]
    return is_call and head["is_root_saved"] and head["root_id"] not in kept_roots


async def _collect(db: Database, conn: Connection, session_id: UUID) -> None:
    for name in ("cut_parents", "delete_unused_values"):
        await db.fetch(_STATEMENTS[name].bind(session_id=session_id), conn=conn)
    deletion = _STATEMENTS["delete_unused_contents"].bind(session_id=session_id, step=_step())
    await db.fetch(deletion, conn=conn)


def _step() -> int:
    """By how much a count of deletions goes up.

    One by one, a server that lost a deletion would count the next one like it; what was read in
    between would be taken for what is there. Few bits, since the counts begin anew at their end.
    """
    return 1 + secrets.randbelow(_LARGEST_STEP)
