"""Which steps a graph, or a task, may have heard of before it began.

Their results are in what it was given. So nothing that it stores may be found before their calls
have ended, nor at all where one of them failed.

What has begun waits only for what had finished before: so no two wait for each other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from uuid import UUID

from langgraph_pgsaga.checkpoint.run import Remembered
from langgraph_pgsaga.checkpoint.step_places import is_of_graph
from langgraph_pgsaga.threads import Address
from langgraph_pgsaga.work import Level, StepMark

_LONGEST_SECONDS = 3600.0


class _Given:
    """The steps that a subgraph's input may be made of."""

    __slots__ = ("control", "marks", "noted_at")

    def __init__(self, control: object, marks: Sequence[StepMark]) -> None:
        self.control = control
        self.marks = marks
        self.noted_at = time.monotonic()

    @property
    def is_over(self) -> bool:
        return all(map(_is_stored, self.marks)) or (
            time.monotonic() > self.noted_at + _LONGEST_SECONDS
        )


class HeardSteps:
    """Those of one saver's subgraphs. Safe to use from several threads."""

    def __init__(self) -> None:
        self._given: Remembered[_Given] = Remembered()
        self._lock = threading.Lock()

    def after_fork(self) -> None:
        """Begins anew: the parent's runs aren't the child's."""
        self._given.after_fork()
        self._lock = threading.Lock()

    def note_begun(self, address: Address, control: object, marks: Iterable[StepMark]) -> None:
        """A subgraph was begun, when these were known to be what it heard of."""
        found = [mark for mark in marks if not _is_stored(mark)]
        with self._lock:
            if found or self._of(address, control) is not None:
                self._given.set(_place(address, control), _Given(control, found))

    def of_put(self, address: Address, control: object) -> list[StepMark]:
        """Those that a checkpoint of the graph may not come before."""
        found = self._of(address, control)
        return [] if found is None else [mark for mark in found.marks if not _is_stored(mark)]

    def _of(self, address: Address, control: object) -> _Given | None:
        found = self._given.get(_place(address, control))
        return found if found is not None and found.control is control else None


def heard_by_graph(
    above: Sequence[Level], callers: Iterable[str], marks: Iterable[StepMark]
) -> list[StepMark]:
    """Those of a run's open steps that a subgraph may have heard of that begins now.

    Args:
        above: the tasks that it is in.
        callers: the ids of these, and of those that called them.
    """
    known = frozenset(callers)
    return [
        mark
        for mark in marks
        if not mark.is_stored_at_exit and (_was_before(mark, above) or _was_called(mark, known))
    ]


def heard_by_task(callers: Iterable[str], marks: Iterable[StepMark]) -> list[StepMark]:
    """Those that were called before by the tasks that called one which begins, or ends, now."""
    known = frozenset(callers)
    return [mark for mark in marks if _was_called(mark, known)]


def called_beside(address: Address, marks: Iterable[StepMark]) -> list[StepMark]:
    """Those that tasks of the graph had called by now, at the checkpoint of the address.

    Which of them called the task that asks isn't known.
    """
    return [
        mark
        for mark in marks
        if _has_ended(mark, 0)
        and any(
            level.checkpoint_id == address.checkpoint_id
            and is_of_graph(level, address)
            and (index > 0 or mark.called_by)
            for index, level in enumerate(mark.levels)
        )
    ]


def is_dropped(mark: StepMark, address: Address) -> bool:
    """Whether a step that a task of the graph heard of isn't stored, since their caller failed.

    So it is under durability "exit" of one in a subgraph, which goes with its caller's result.
    """
    if not mark.is_stored_at_exit or mark.is_closed or mark.is_going:
        return False
    above = (level for level in mark.levels[1:] if is_of_graph(level, address))
    return any(not level.is_finishing(mark) or level.goes_on(mark) for level in above)


def _was_before(mark: StepMark, above: Sequence[Level]) -> bool:
    """Whether it is of an earlier superstep of a graph above."""
    return any(
        own.session_id == level.session_id
        and own.checkpoint_ns == level.checkpoint_ns
        and own.step < level.step
        and _has_ended(mark, index)
        for level in above
        for index, own in enumerate(mark.levels)
    )


def _was_called(mark: StepMark, callers: frozenset[str]) -> bool:
    return not callers.isdisjoint(mark.callers) and _has_ended(mark, 0)


def _has_ended(mark: StepMark, index: int) -> bool:
    """Whether its result was given to the task at a level, and may still be refused or was."""
    if mark.settled.done():
        return mark.settled.exception() is not None
    if mark.is_closed or mark.is_going:
        return True
    own = mark.levels[0]
    return mark.has_finished_below(index + 1) and not own.goes_on(mark)


def _is_stored(mark: StepMark) -> bool:
    return mark.settled.done() and mark.settled.exception() is None


def _place(address: Address, control: object) -> tuple[UUID, str, int]:
    return address.session_id, address.checkpoint_ns, id(control)
