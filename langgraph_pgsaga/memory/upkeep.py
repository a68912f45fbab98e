"""What memories need from time to time: to be forgotten by rules, and to be merged."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from uuid import UUID

from langgraph_pgsaga._arguments import checked_flag, shown
from langgraph_pgsaga.database import Connection
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.memory.base import MemoryBase
from langgraph_pgsaga.memory.consolidating import (
    Consolidation,
    ConsolidationResult,
    Merge,
    checked_threshold,
)
from langgraph_pgsaga.memory.forgetting import (
    ForgettingPolicy,
    ForgettingResult,
    checked_policies,
    erase_memories,
    forget_by,
)
from langgraph_pgsaga.memory.remembering import type_names
from langgraph_pgsaga.memory.row import MemoryType
from langgraph_pgsaga.memory.scope import checked_name
from langgraph_pgsaga.threads import ThreadId
from langgraph_pgsaga.work import Job, Periodic

_log = logging.getLogger("langgraph_pgsaga.memory")


class Upkeep(MemoryBase):
    """What is done to all memories of a tenant, or of a user."""

    async def forget_user(self, user_id: str, *, conn: Connection | None = None) -> int:
        """Erases all memories of a user, those in threads, too; how many they were."""
        name = checked_name("user_id", user_id)
        return await erase_memories(self.db, self._tenant_id(), name, conn)

    async def sweep(
        self, policies: Sequence[ForgettingPolicy], *, dry_run: bool = False
    ) -> ForgettingResult:
        """Forgets what policies say, one after the other, of all users and threads of the tenant.

        Args:
            dry_run: only counts, for each policy as if it were alone.
        """
        rules = checked_policies(policies)
        checked_flag("dry_run", dry_run)
        return await forget_by(self.db, self._tenant_id(), rules, dry_run=dry_run)

    def job(
        self,
        policies: Sequence[ForgettingPolicy],
        *,
        every_seconds: float = 3600.0,
        name: str | None = None,
    ) -> Job:
        """A job for a Worker: `sweep(policies)` again and again, in one process at a time.

        Workers that have it under one name share it, whatever their policies are. How many memories
        it took stands in the log.

        Args:
            every_seconds: how long after a sweep the next one begins.
            name: in the log and in `agent_jobs`; None is "forget", with the tenant's name if there
                is one.
        """
        rules, tenant_id = checked_policies(policies), self._tenant_id()

        async def work() -> ForgettingResult:
            done = await forget_by(self.db, tenant_id, rules, dry_run=False)
            _log.info("swept: %s", done)
            return done

        return Periodic(
            name=(f"forget {tenant_id}" if tenant_id else "forget") if name is None else name,
            every_seconds=every_seconds,
            work=work,
            tenant_id=tenant_id,
        )

    async def consolidate(
        self,
        *,
        user_id: str | None = None,
        thread_id: ThreadId | None = None,
        types: Sequence[MemoryType | str] | None = None,
        threshold: float = 0.95,
        merge: Merge | None = None,
    ) -> ConsolidationResult:
        """Makes one of live memories that say nearly the same, of one scope and type, by their
        vectors.

        By itself it leaves the most important of them (of these the most accessed, then the newest)
        as it is, with the counts and metadata of all, and has it supersede the others. `sources`
        tell where all came from. A second run changes nothing more. Each cluster is merged or
        isn't, in transactions of bounded size; those that hold at different times stay apart.

        Args:
            user_id, thread_id: of this user, thread, or user in a thread alone; without both, all
                of the tenant's.
            types: of one of these; None is any.
            threshold: the least cosine similarity to the one that stays, above 0 and up to 1.
            merge: a function, sync or async, that is given a tuple of up to 50 memories, the
                oldest first, and gives what supersedes them: NewMemory, or texts, one or a list;
                None leaves them. It is called outside of any transaction, and not for memories of
                which all were merged before.

        Raises:
            InvalidArgumentError: this memory was made without `embed`; `merge` gave something else.
            MissingVectorsError: there are no tables of vectors.
        """
        scope_ids = None
        if user_id is not None or thread_id is not None:
            scope_ids = [self._scope(user_id, thread_id).scope_id]
        return await (await self._consolidation(scope_ids, types, threshold, merge)).run()

    def consolidate_job(
        self,
        *,
        types: Sequence[MemoryType | str] | None = None,
        threshold: float = 0.95,
        merge: Merge | None = None,
        every_seconds: float = 86_400.0,
        name: str | None = None,
    ) -> Job:
        """A job for a Worker: `consolidate` of all the tenant's, again and again, in one process at
        a time.

        Args:
            types, threshold, merge: as of `consolidate`.
            every_seconds: how long after a run the next one begins.
            name: in the log and in `agent_jobs`; None is "consolidate", with the tenant's name if
                there is one.
        """
        tenant_id = self._tenant_id()
        checked_threshold(threshold)

        async def work() -> ConsolidationResult:
            done = await (await self._consolidation(None, types, threshold, merge, tenant_id)).run()
            _log.info("consolidated: %s", done)
            return done

        usual = f"consolidate {tenant_id}" if tenant_id else "consolidate"
        return Periodic(
            name=usual if name is None else name,
            every_seconds=every_seconds,
            work=work,
            tenant_id=tenant_id,
        )

    async def _consolidation(
        self,
        scope_ids: Sequence[UUID] | None,
        types: Sequence[MemoryType | str] | None,
        threshold: float,
        merge: Merge | None,
        tenant_id: str | None = None,
    ) -> Consolidation:
        if merge is not None and not callable(merge):
            problem = f"must be a function of a tuple of memories, not {shown(merge)}"
            raise InvalidArgumentError(argument="merge", problem=problem)
        made = Consolidation(
            db=self.db,
            tenant_id=self._tenant_id() if tenant_id is None else tenant_id,
            scope_ids=scope_ids,
            types=type_names(types),
            model=self._model,
            language=self._language,
            threshold=checked_threshold(threshold),
            merge=merge,
            embed=self._vectors_of,
        )
        self._require_embedder("consolidate")
        await self._tables.check()
        return made
