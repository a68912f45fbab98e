"""Where something became true, found by halving."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langgraph_pgsaga._arguments import checked_instance
from langgraph_pgsaga.timetravel.steps import History, Step

_HINT = "Pass history(graph, config)"


def bisect(steps: History, predicate: Callable[[Any], bool]) -> Step | None:
    """The first checkpoint on the way to the latest whose state makes `predicate` true.

    `predicate` gets the state's values, as `graph.get_state(...).values`. As with git
    bisect it has to stay true once it is; then 10,000 checkpoints take 14 states to
    load. None if it isn't true of the latest.

    Raises:
        MissingCheckpointError: one was deleted since the history was fetched.
    """
    checked_instance("steps", steps, History, _HINT)
    way = _Way(list(steps), predicate)
    while (step := way.next()) is not None:
        way.judge(steps.values(step))
    return way.found


async def abisect(steps: History, predicate: Callable[[Any], bool]) -> Step | None:
    """`bisect` for async callers."""
    checked_instance("steps", steps, History, _HINT)
    way = _Way([step async for step in steps], predicate)
    while (step := way.next()) is not None:
        way.judge(await steps.avalues(step))
    return way.found


class _Way:
    """The search: which state to look at next, and what was found."""

    def __init__(self, steps: list[Step], predicate: Callable[[Any], bool]) -> None:
        # Oldest first; other branches don't lead to the latest.
        self._steps = [step for step in reversed(steps) if step.branch == 0]
        self._predicate = predicate
        self._low, self._high = 0, len(self._steps)
        self._is_first = True

    def next(self) -> Step | None:
        """The next step to judge; None when the search is over."""
        return self._steps[self._place] if self._low < self._high else None

    def judge(self, values: Any) -> None:
        """Narrows the search by the values of the step that `next` gave."""
        holds = self._predicate(values)
        if self._is_first:  # of the latest: nothing is to be found where it doesn't hold
            self._is_first = False
            self._low, self._high = (0, len(self._steps) - 1) if holds else (len(self._steps),) * 2
        elif holds:
            self._high = self._place
        else:
            self._low = self._place + 1

    @property
    def found(self) -> Step | None:
        """The first step that fits, once the search is over."""
        return self._steps[self._low] if self._low < len(self._steps) else None

    @property
    def _place(self) -> int:
        return len(self._steps) - 1 if self._is_first else (self._low + self._high) // 2
