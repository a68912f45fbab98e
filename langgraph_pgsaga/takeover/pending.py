"""Pending writes of a checkpoint as the calls that store them anew, at the places they had."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from langgraph.checkpoint.base import WRITES_IDX_MAP, CheckpointTuple

from langgraph_pgsaga._langgraph import INPUT_TASK_ID, is_answer
from langgraph_pgsaga.takeover.equality import by_task


class TaskWrites(NamedTuple):
    """What one `put_writes` is given; `task_path` is one under which tasks keep their order."""

    task_id: str
    task_path: str
    writes: Sequence[tuple[str, Any]]


def calls_of(found: CheckpointTuple, results: Collection[str] = ()) -> list[TaskWrites]:
    """The writes of each task. Of those whose `results` are stored, only the special ones.

    Pending writes are sorted by path, task id and place. While ids rise, the path can stay
    empty.
    """
    calls = []
    count, previous = 0, ""
    for task_id, writes in by_task(found.pending_writes or ()).items():
        count += task_id < previous
        previous = task_id
        given = [w for w in writes if w[0] in WRITES_IDX_MAP] if task_id in results else writes
        if given:
            path = f"{count:08}" if count else ""
            placed = given if task_id == INPUT_TASK_ID else _placed(given)
            calls.append(TaskWrites(task_id, path, placed))
    return calls


def results_of(found: CheckpointTuple) -> set[str]:
    """The tasks with writes that are stored once: a result, or a part of one."""
    writes = found.pending_writes or ()
    return {task_id for task_id, channel, _ in writes if channel not in WRITES_IDX_MAP}


def _placed(writes: Sequence[tuple[str, Any]]) -> Sequence[tuple[str, Any]]:
    """A task's writes, the special ones last, as LangGraph's own call had them.

    A saver stores a write by its place in the call, and once. A task that was answered writes its
    answers so far with each question, before what it gives; whoever executes it again does so, too.
    """
    answers = [write for write in writes if is_answer(write[0])]
    if len(answers) != 1 or not isinstance(answers[0][1], list):
        return writes
    others = (write for write in writes if not is_answer(write[0]))
    return [*answers * max(1, len(answers[0][1])), *others]
