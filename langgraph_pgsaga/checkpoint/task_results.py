"""Which tasks had a result when a run read them, so that nobody acts for one a second time.

Two executions of one task can overlap: a run was cancelled and its last call is still on its way
when the thread is resumed, or two runs go on from one checkpoint. The result that is stored
first stays. Whoever comes later asks, in its own transaction, whether the task has a result that
its run has neither read nor stored itself; a run that replays a checkpoint has read it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from uuid import UUID

from langgraph.checkpoint.base import WRITES_IDX_MAP, CheckpointTuple
from langgraph.checkpoint.serde.types import ERROR

from langgraph_pgsaga.checkpoint.run import LONGEST_RUN_SECONDS, ByRun
from langgraph_pgsaga.database import Connection, Database, load_statements
from langgraph_pgsaga.errors import StepNotStoredError
from langgraph_pgsaga.threads import Address, stored_namespace
from langgraph_pgsaga.work import Level, Rider, StepMark

_STATEMENTS = load_statements("checkpoint")


class _Run:
    """The tasks whose results a run has read or stored: namespace, checkpoint id, task id.

    Those of `done` it goes on from: who executes them all the same does nothing by it.
    """

    __slots__ = ("control", "done", "noted_at", "tasks")

    def __init__(self, control: object) -> None:
        self.control = control
        self.tasks: frozenset[tuple[str, str, str]] = frozenset()
        self.done: frozenset[tuple[str, str, str]] = frozenset()
        self.noted_at = time.monotonic()

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self.noted_at + LONGEST_RUN_SECONDS


class TaskResults:
    """Those that one saver's runs have read or stored. Safe to use from several threads."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """Begins anew: the parent's runs aren't the child's."""
        self._runs: ByRun[_Run] = ByRun()
        self._lock = threading.Lock()

    def note_read(
        self, control: object, address: Address, found: CheckpointTuple, *, is_replay: bool
    ) -> None:
        """A run begins with this checkpoint, or a graph of it does.

        A replay executes its tasks again. Else those that have a result aren't executed, but for
        error handlers.
        """
        writes = found.pending_writes or ()
        place = address.checkpoint_ns, found.checkpoint["id"]
        failed = {task_id for task_id, channel, _ in writes if channel == ERROR}
        for task_id in {task for task, channel, _ in writes if channel not in WRITES_IDX_MAP}:
            is_done = not is_replay and task_id not in failed
            self._add(control, address.session_id, (*place, task_id), is_done=is_done)

    def note_stored(self, control: object, level: Level) -> None:
        """A run has stored this task's result, whose step goes with a later call."""
        self._add(control, level.session_id, _key(level))

    def _add(
        self,
        control: object,
        session_id: UUID,
        task: tuple[str, str, str],
        *,
        is_done: bool = False,
    ) -> None:
        with self._lock:
            run = self._runs.get(session_id, control)
            if run is None:
                run = _Run(control)
                self._runs.set(session_id, run)
            run.tasks |= {task}
            run.done = run.done | {task} if is_done else run.done - {task}
            run.noted_at = time.monotonic()

    def is_done(self, mark: StepMark) -> bool:
        """Whether the task of a step, or one that it is in, had its result when its run began."""
        run = self._runs.get(mark.levels[0].session_id, mark.control)
        return run is not None and any(_key(level) in run.done for level in mark.levels)

    def unknown_to(self, control: object, marks: Sequence[StepMark]) -> list[Level]:
        """The tasks of these steps, but for those whose results the run has read or stored."""
        levels = {_key(level): level for mark in marks for level in mark.levels}
        if not levels:
            return []
        run = self._runs.get(marks[0].levels[0].session_id, control)
        known = run.tasks if run is not None else frozenset()
        return [level for key, level in levels.items() if key not in known]


def _key(level: Level) -> tuple[str, str, str]:
    return level.checkpoint_ns, level.checkpoint_id, level.task_id


def refusing_results(db: Database, levels: Sequence[Level]) -> Rider:
    """Asks in a transaction whether one of these tasks has a result.

    Raises:
        StepNotStoredError: one has.
    """
    wanted = sorted(levels, key=_key)
    statement = _STATEMENTS["find_result"].bind(
        session_id=wanted[0].session_id,
        namespaces=[stored_namespace(level.checkpoint_ns) for level in wanted],
        checkpoint_ids=[level.checkpoint_id for level in wanted],
        task_ids=[level.task_id for level in wanted],
    )

    async def ask(conn: Connection, /) -> None:
        for row in await db.fetch(statement, conn=conn):
            raise _done_by_another(row["checkpoint_id"])

    return ask


def _done_by_another(checkpoint_id: str) -> StepNotStoredError:
    problem = (
        "has the result of a task that this run executed, too: another execution of it stored "
        "that meanwhile, with what its step did. So nothing of this one is stored. Run the "
        "thread again from what is"
    )
    return StepNotStoredError(checkpoint_id=checkpoint_id, problem=problem)
