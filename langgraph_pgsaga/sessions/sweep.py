"""Deleting what has expired, and what policies don't keep."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice
from uuid import UUID

import asyncpg

from langgraph_pgsaga._arguments import (
    checked_instance,
    checked_integer,
    checked_items,
    checked_text,
)
from langgraph_pgsaga.checkpoint import delete_claimed, prune_free
from langgraph_pgsaga.database import LONG, BoundStatement, Connection, Database, load_statements
from langgraph_pgsaga.errors import InvalidArgumentError, ServerError

_STATEMENTS = load_statements("sessions")
_log = logging.getLogger("langgraph_pgsaga.sessions")
# The class of SQLSTATEs of data that an operation can't take.
_BAD_DATA = "22"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """How long the sessions of an agent type, and their checkpoints, are kept.

    Args:
        agent_type: None is for all agent types that no other policy of the sweep names.
        max_idle: sessions without a checkpoint for that long are deleted as a whole.
        keep_last: how many checkpoints of each namespace are kept, beside what these need.
        keep_named: checkpoints with a name are kept, and so are idle sessions with one.
            What has expired is deleted all the same.
    """

    agent_type: str | None = None
    max_idle: timedelta | None = None
    keep_last: int | None = None
    keep_named: bool = True

    def __post_init__(self) -> None:
        checked_text("agent_type", self.agent_type)
        if self.max_idle is not None:
            hint = "Pass timedelta(days=30), or None"
            if checked_instance("max_idle", self.max_idle, timedelta, hint) <= timedelta(0):
                problem = f"{self.max_idle} isn't above 0"
                raise InvalidArgumentError(argument="max_idle", problem=problem)
        if self.keep_last is not None:
            checked_integer("keep_last", self.keep_last, least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """What a sweep did so far. `deleted_checkpoints` are those of the pruned sessions only.

    `damaged_sessions` weren't pruned: their rows aren't what a saver wrote. A warning of the
    logger `langgraph_pgsaga.sessions` names each.
    """

    deleted_sessions: int = 0
    pruned_sessions: int = 0
    deleted_checkpoints: int = 0
    damaged_sessions: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """A policy, and the agent types that others of the sweep are for."""

    policy: RetentionPolicy
    other_types: list[str]


def scoped(policies: Sequence[RetentionPolicy]) -> list[Scope]:
    """The policies with what each of them is for; no two may be for the same."""
    hint = "Pass a list of RetentionPolicy"
    for policy in (policies := checked_items("policies", policies)):
        checked_instance("policies", policy, RetentionPolicy, hint)
    types = [policy.agent_type for policy in policies]
    if len(set(types)) < len(types):
        problem = "two of them are for the same agent type"
        raise InvalidArgumentError(argument="policies", problem=problem)
    named = [name for name in types if name is not None]
    return [
        Scope(policy=policy, other_types=named if policy.agent_type is None else [])
        for policy in policies
    ]


class Sweep:
    """One run through a tenant's sessions (None: those of all) that are to be deleted or pruned."""

    def __init__(
        self,
        db: Database,
        tenant_id: str | None,
        scopes: Sequence[Scope],
        batch: int,
        on_progress: Callable[[SweepResult], None] | None,
    ) -> None:
        self._db = db
        self._tenant_id = tenant_id
        self._scopes = scopes
        self._batch = batch
        self._on_progress = on_progress
        self._done = SweepResult()

    async def run(self) -> SweepResult:
        """Deletes and prunes, a page at a time; what it did."""
        claim = _STATEMENTS["claim_expired"].bind(page=self._batch, tenant_id=self._tenant_id)
        while await self._delete_batch(claim) == self._batch:
            pass
        for scope in self._scopes:
            await self._apply(scope)
        return self._done

    async def count(self) -> SweepResult:
        """What `run` would do."""
        expired = _STATEMENTS["count_expired"].bind(tenant_id=self._tenant_id)
        (row,) = await self._fetch(expired)
        self._report(deleted_sessions=row["expired"])
        for scope in self._scopes:
            async for page in self._pages(scope):
                left = [row for row in page if not row["is_expired"]]
                idle = sum(row["is_idle"] for row in left)
                long = sum(row["is_long"] and not row["is_idle"] for row in left)
                self._report(deleted_sessions=idle, pruned_sessions=long)
        return self._done

    async def _pages(self, scope: Scope) -> AsyncIterator[list[asyncpg.Record]]:
        """What the policy says of each session, a thousand at a time."""
        policy, after = scope.policy, None
        while page := await self._fetch(
            _STATEMENTS["select_swept"].bind(
                after_id=after,
                agent_type=policy.agent_type,
                other_types=scope.other_types,
                max_idle=policy.max_idle,
                keep_named=policy.keep_named,
                keep_last=policy.keep_last,
                tenant_id=self._tenant_id,
            )
        ):
            after = page[-1]["session_id"]
            yield page

    async def _fetch(self, statement: BoundStatement) -> list[asyncpg.Record]:
        """What goes through all sessions of a tenant may take as long as their deletion."""

        async def work(conn: Connection) -> list[asyncpg.Record]:
            return await self._db.fetch(statement, conn=conn)

        return await self._db.run(work, limits=LONG)

    async def _apply(self, scope: Scope) -> None:
        policy = scope.policy
        async for page in self._pages(scope):
            for idle in self._batches(row["session_id"] for row in page if row["is_idle"]):
                claim = _STATEMENTS["claim_idle"].bind(
                    session_ids=idle, max_idle=policy.max_idle, keep_named=policy.keep_named
                )
                await self._delete_batch(claim)
            long = (row["session_id"] for row in page if row["is_long"] and not row["is_idle"])
            for session_ids in self._batches(long):
                await self._prune_batch(session_ids, policy)

    def _batches(self, session_ids: Iterable[UUID]) -> Iterator[Sequence[UUID]]:
        left = iter(session_ids)
        while found := tuple(islice(left, self._batch)):
            yield found

    async def _delete_batch(self, claim: BoundStatement) -> int:
        """Claims a batch of sessions and deletes them, in one transaction."""

        async def work(conn: Connection) -> int:
            rows = await self._db.fetch(claim, conn=conn)
            for row in rows:
                await delete_claimed(self._db, conn, row["session_id"])
            return len(rows)

        deleted = await self._db.run(work, limits=LONG)
        if deleted:
            self._report(deleted_sessions=deleted)
        return deleted

    async def _prune_batch(self, session_ids: Sequence[UUID], policy: RetentionPolicy) -> None:
        # One transaction each: a running graph then waits for no other session's.
        deleted = [await self._pruned(session_id, policy) for session_id in session_ids]
        counts = [count for count in deleted if count is not None]
        self._report(
            pruned_sessions=sum(count > 0 for count in counts),
            deleted_checkpoints=sum(counts),
            damaged_sessions=len(deleted) - len(counts),
        )

    async def _pruned(self, session_id: UUID, policy: RetentionPolicy) -> int | None:
        """How many checkpoints went; None where the session's rows were damaged or forged."""
        try:
            return await prune_free(
                self._db,
                session_id,
                keep_last=policy.keep_last or 1,
                keep_named=policy.keep_named,
            )
        except ServerError as error:
            if not (error.sqlstate or "").startswith(_BAD_DATA):
                raise
            told = "session %s isn't pruned, its rows are damaged (SQLSTATE %s)"
            _log.warning(told, session_id, error.sqlstate)
            return None

    def _report(
        self,
        *,
        deleted_sessions: int = 0,
        pruned_sessions: int = 0,
        deleted_checkpoints: int = 0,
        damaged_sessions: int = 0,
    ) -> None:
        done = self._done
        self._done = replace(
            done,
            deleted_sessions=done.deleted_sessions + deleted_sessions,
            pruned_sessions=done.pruned_sessions + pruned_sessions,
            deleted_checkpoints=done.deleted_checkpoints + deleted_checkpoints,
            damaged_sessions=done.damaged_sessions + damaged_sessions,
        )
        if self._on_progress is not None:
            self._on_progress(self._done)
