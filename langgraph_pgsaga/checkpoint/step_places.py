"""Where a step is among the tasks and checkpoints of its thread's graphs."""

from __future__ import annotations

from collections.abc import Sequence

from langgraph_pgsaga.errors import StepNotStoredError
from langgraph_pgsaga.threads import Address
from langgraph_pgsaga.work import Level, StepMark


def is_of_task(level: Level, address: Address, task_id: str) -> bool:
    """Whether a level of a step is this task, of the address's graph."""
    return (
        level.task_id == task_id
        and level.checkpoint_ns == address.checkpoint_ns
        and level.session_id == address.session_id
    )


def index_of_task(mark: StepMark, address: Address, task_id: str) -> int | None:
    """Where the task is among those that a step is part of."""
    found = (i for i, level in enumerate(mark.levels) if is_of_task(level, address, task_id))
    return next(found, None)


def is_of_graph(level: Level, address: Address) -> bool:
    """Whether a level of a step is a task of the address's graph."""
    return level.checkpoint_ns == address.checkpoint_ns and level.session_id == address.session_id


def index_until(mark: StepMark, address: Address, step: int) -> int | None:
    """Where the task is whose result a checkpoint of its graph has: one of its step or before.

    Steps rise in a run. Ids don't: the checkpoint that it went on from may be of a host whose
    clock is ahead.
    """
    for index, level in enumerate(mark.levels):
        if is_of_graph(level, address) and level.step <= step:
            return index
    return None


def is_at(level: Level, address: Address, checkpoint_id: str) -> bool:
    """Whether a level of a step was planned at this checkpoint."""
    return is_of_graph(level, address) and level.checkpoint_id == checkpoint_id


def may_be_lost(mark: StepMark) -> bool:
    """Whether what a step did may not be stored, of which nobody has been told."""
    if mark.is_empty or mark.held_at is not None:
        return False
    return not mark.settled.done() or mark.settled.exception() is not None


def is_counted_on(mark: StepMark, address: Address) -> bool:
    """Whether a task of this graph, which called the step's, counts on its call."""
    if mark.settled.done():
        return mark.settled.exception() is not None
    own = mark.levels[0]
    if mark.is_stored_at_exit and not is_of_graph(own, address):
        return False  # it waits for what makes it found
    # What goes on has given nothing yet; of an attempt that failed nothing is stored.
    return mark.is_closed or (own.is_finishing(mark) and not own.goes_on(mark))


def not_stored(level: Level) -> StepNotStoredError:
    """That the checkpoint at which a task was planned isn't there."""
    problem = (
        "isn't stored, so that nobody would find what a step of it wrote; nothing of the step "
        "was stored. Run the thread again from what is"
    )
    return StepNotStoredError(checkpoint_id=level.checkpoint_id, problem=problem)


def cancelled(marks: Sequence[StepMark]) -> StepNotStoredError:
    """That the call which stores these steps was cancelled."""
    problem = "was cancelled while a step of it was stored. Run the thread again from what is"
    found = next((mark.levels[0].checkpoint_id for mark in marks), "")
    return StepNotStoredError(checkpoint_id=found, problem=problem)
