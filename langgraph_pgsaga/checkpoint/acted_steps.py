"""Which steps of a run have acted, so that no checkpoint has the result of what was lost.

A server can lose what it had acknowledged: a standby takes over that was behind, or it crashes
without synchronous_commit. It loses the latest. What a step did is committed before the
checkpoint that has its result is sent: lost in between, the result would be there without it. So
that put asks, in its own transaction, whether there still is what came with the effects: the
writes of the task, or a later checkpoint of its subgraph.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from typing import NamedTuple
from uuid import UUID

from langgraph_pgsaga import _langgraph
from langgraph_pgsaga.checkpoint.run import LONGEST_RUN_SECONDS, ByRun
from langgraph_pgsaga.database import Connection, Database, load_statements
from langgraph_pgsaga.errors import StepNotStoredError
from langgraph_pgsaga.threads import Address, stored_namespace
from langgraph_pgsaga.work import Level, Rider

_STATEMENTS = load_statements("checkpoint")


class Sign(NamedTuple):
    """What came with effects or after them: a task's writes, or, without a task, a checkpoint."""

    session_id: UUID
    checkpoint_ns: str
    checkpoint_id: str
    task_id: str | None


class _Run:
    """What tells that the effects of a run are there, which no checkpoint of its root graph has."""

    __slots__ = ("control", "noted_at", "signs")

    def __init__(self, control: object) -> None:
        self.control = control
        self.signs: frozenset[Sign] = frozenset()
        self.noted_at = time.monotonic()

    @property
    def is_over(self) -> bool:
        return not self.signs or time.monotonic() > self.noted_at + LONGEST_RUN_SECONDS


class ActedSteps:
    """Those of one saver's runs. Safe to use from several threads."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """Begins anew: the parent's runs aren't the child's."""
        self._runs: ByRun[_Run] = ByRun()
        self._lock = threading.Lock()

    def of_put(self, control: object, address: Address) -> frozenset[Sign]:
        """What must be there for a checkpoint: it has the results of its graph and those below."""
        run = self._runs.get(address.session_id, control)
        if run is None:
            return frozenset()
        return frozenset(
            sign
            for sign in run.signs
            if _langgraph.is_within(sign.checkpoint_ns, address.checkpoint_ns)
        )

    def note_task(self, control: object, level: Level) -> None:
        """The writes of a task are stored, and effects with them."""
        sign = Sign(level.session_id, level.checkpoint_ns, level.checkpoint_id, level.task_id)
        self._change(control, level.session_id, (), (sign,))

    def note_put(
        self, control: object, address: Address, checkpoint_id: str, signs: Collection[Sign]
    ) -> None:
        """A checkpoint is stored for which these were there; of a subgraph it tells of them now."""
        own = Sign(address.session_id, address.checkpoint_ns, checkpoint_id, None)
        news = (own,) if address.checkpoint_ns else ()
        self._change(control, address.session_id, signs, news)

    def _change(
        self, control: object, session_id: UUID, gone: Collection[Sign], new: Sequence[Sign]
    ) -> None:
        with self._lock:
            run = self._runs.get(session_id, control)
            if run is None:
                run = _Run(control)
                self._runs.set(session_id, run)
            run.signs = (run.signs - frozenset(gone)) | frozenset(new)
            run.noted_at = time.monotonic()


def signs_of(levels: Sequence[Level]) -> list[Sign]:
    """The checkpoints at which these tasks were planned."""
    return [Sign(each.session_id, each.checkpoint_ns, each.checkpoint_id, None) for each in levels]


def asking_for(db: Database, signs: Collection[Sign]) -> Rider:
    """Asks in a transaction whether these are there.

    Raises:
        StepNotStoredError: one isn't.
    """
    wanted = sorted(signs, key=lambda sign: sign[1:3])
    statement = _STATEMENTS["find_missing_step"].bind(
        session_id=wanted[0].session_id,
        namespaces=[stored_namespace(sign.checkpoint_ns) for sign in wanted],
        checkpoint_ids=[sign.checkpoint_id for sign in wanted],
        task_ids=[sign.task_id for sign in wanted],
    )

    async def ask(conn: Connection, /) -> None:
        for row in await db.fetch(statement, conn=conn):
            raise _lost(row["checkpoint_id"])

    return ask


def _lost(checkpoint_id: str) -> StepNotStoredError:
    problem = (
        "what a step of it stored isn't there any more: it was deleted, or lost with a server "
        "whose standby or copy was behind. So no checkpoint with its result is stored. Run the "
        "thread again from what is"
    )
    return StepNotStoredError(checkpoint_id=checkpoint_id, problem=problem)
