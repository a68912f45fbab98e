"""A run that stores nothing before it ends: its steps, and the order of its last calls."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future

from langgraph_pgsaga.checkpoint.run import LONGEST_RUN_SECONDS
from langgraph_pgsaga.work import StepMark


class ExitingRun:
    """What a run with durability "exit" did: the marks of its steps, as they began.

    `control` is the run's own, whose place in memory it is known by. Safe to use from several
    threads and event loops.
    """

    __slots__ = ("_last", "_lock", "control", "marks", "noted_at")

    def __init__(self, control: object) -> None:
        self.control = control
        self.marks: list[StepMark] = []
        self.noted_at = time.monotonic()
        self._last: Future[None] | None = None
        self._lock = threading.Lock()

    @property
    def is_over(self) -> bool:
        """Whether it needn't be remembered."""
        is_silent = time.monotonic() > self.noted_at + LONGEST_RUN_SECONDS
        return is_silent or all(mark.is_closed for mark in self.marks)

    @property
    def is_settled(self) -> bool:
        """Whether no later call can have the result of a step that isn't stored yet."""
        return not any(
            not (mark.is_closed or mark.is_empty) and mark.has_finished_below(1)
            for mark in self.marks
        )

    async def turn(self) -> Future[None]:
        """Returns when the run's calls before have ended, with what is to be set when this one has.

        Whoever is cancelled while it waits gives its turn to the next.
        """
        own: Future[None] = Future()
        with self._lock:
            before, self._last = self._last, own
        if before is not None:
            try:
                await asyncio.shield(asyncio.wrap_future(before))
            except BaseException:
                before.add_done_callback(lambda _: own.set_result(None))
                raise
        return own
