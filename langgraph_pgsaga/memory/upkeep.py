"""What memories need from time to time: rules by which they are forgotten."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from langgraph_pgsaga._arguments import checked_flag
from langgraph_pgsaga.database import Connection
from langgraph_pgsaga.memory.base import MemoryBase
from langgraph_pgsaga.memory.forgetting import (
    ForgettingPolicy,
    ForgettingResult,
    checked_policies,
    erase_memories,
    forget_by,
)
from langgraph_pgsaga.memory.scope import checked_name
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
