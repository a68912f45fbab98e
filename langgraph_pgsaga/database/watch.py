"""Who waits for what, so that no call waits in silence, or for ever."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from langgraph_pgsaga.database.connection import Connection

T = TypeVar("T")

_log = logging.getLogger("langgraph_pgsaga.database")

FOR_CONNECTION = "a connection of the pool"
FOR_SERVER = "the server's answer, or a lock there"

_LONG_SECONDS = 5.0
# Up to so long a blocked loop isn't told from a server that takes its time.
_LOOK_SECONDS = 0.5
_LATE_SECONDS = 0.25
_SOON_SECONDS = 0.05
_TOLD_EVERY_SECONDS = 10.0


class Wait:
    """One call that waits, from its making until the end of a `with` block."""

    __slots__ = (
        "_blocked_before",
        "_cancelling",
        "_connection",
        "_is_given_up",
        "_task",
        "_watch",
        "begun",
        "name",
        "what",
    )

    def __init__(self, watch: Watch, name: str, what: str) -> None:
        self._watch = watch
        self.name = name
        self.what = what
        self.begun = time.monotonic()
        self._blocked_before = watch.blocked_seconds
        self._connection: Connection | None = None
        self._task: asyncio.Task[object] | None = None
        self._is_given_up = False

    def __enter__(self) -> Wait:
        self._watch.add(self)
        return self

    def __exit__(
        self, cls: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self._watch.remove(self)

    def begin(self, name: str | None, connection: Connection) -> None:
        """It has its connection; a statement waits for the server now, work waits for itself."""
        if name is None:
            self._watch.remove(self)
        else:
            self.what = FOR_SERVER
            self.begun = time.monotonic()
            self._blocked_before = self._watch.blocked_seconds
            self._connection = connection
            self._task = asyncio.current_task()
            self._cancelling = self._task.cancelling() if self._task is not None else 0

    def seconds(self, now: float) -> float:
        """How long it has waited, without the time for which nodes blocked the loop."""
        return now - self.begun - (self._watch.blocked_seconds - self._blocked_before)

    async def answered(self, answer: Awaitable[T]) -> T:
        """The answer. What follows it isn't given up any more.

        Raises:
            TimeoutError: the server didn't answer; the watch gave the call up.
        """
        try:
            return await answer
        except asyncio.CancelledError as error:
            if self._is_given_up_here():
                raise TimeoutError from error
            raise
        finally:
            self._connection = None

    def look(self, now: float) -> None:
        """Gives the statement up where the server should have ended it long ago."""
        if self._connection is None or self._task is None or self._is_given_up:
            return
        try:
            seconds = self._connection.plain().answer_seconds  # type: ignore[union-attr]
        except AttributeError:
            return  # it was lost just now: the pool has let go of it, and the statement ends
        if seconds is not None and self.seconds(now) >= seconds:
            self._is_given_up = True
            self._task.cancel()

    def _is_given_up_here(self) -> bool:
        """Whether a cancellation that came out of the statement is this watch's, and ends here."""
        if not self._is_given_up or self._task is None:
            return False
        return self._task.uncancel() <= self._cancelling


class Watch:
    """The waits of one event loop.

    A line in the log tells, now and then, of all that have waited for long; another of each
    statement that took longer than `slow_seconds`, once it has ended. They name statements,
    and hold neither text nor values. Time for which nodes blocked the loop isn't the server's.

    It also ends the waiting for a server that doesn't even end the statement. The driver has
    a timer for each statement, which costs as much as a fiftieth of a short one.
    """

    def __init__(self, slow_seconds: float | None) -> None:
        self._slow_seconds = slow_seconds
        self._waits: set[Wait] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._look_at = 0.0
        self._was_late = False
        self._told_at = 0.0
        # How long nodes have blocked the loop so far: answers lay in the sockets, unread.
        self.blocked_seconds = 0.0

    def wait(self, name: str, what: str) -> Wait:
        """A block that waits; `name` is the statement's."""
        return Wait(self, name, what)

    def add(self, wait: Wait) -> None:
        """A wait begins: from now on it is told if it lasts."""
        self._waits.add(wait)
        if self._timer is None:
            self._look_later(time.monotonic(), _LOOK_SECONDS)

    def remove(self, wait: Wait) -> None:
        """A wait has ended; a statement that took long is told."""
        self._waits.discard(wait)
        if self._slow_seconds is None or wait.what is not FOR_SERVER:
            return
        taken = wait.seconds(time.monotonic())
        if taken >= self._slow_seconds:
            _log.warning("statement %s took %.1f s", wait.name, taken)

    def close(self) -> None:
        """Looks no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if not self._waits:
            return
        now = time.monotonic()
        late = now - self._look_at
        is_late = late >= _LATE_SECONDS
        if is_late:
            self.blocked_seconds += late
            if not self._was_late:  # what came meanwhile is read first
                self._was_late = True
                self._look_later(now, _SOON_SECONDS)
                return
        self._was_late = is_late
        self._look_later(now, _LOOK_SECONDS)
        for wait in self._waits:
            wait.look(now)
        long = [wait for wait in self._waits if wait.seconds(now) >= _LONG_SECONDS]
        if long and now - self._told_at >= _TOLD_EVERY_SECONDS:
            self._told_at = now
            self._tell(long, now)

    def _look_later(self, now: float, seconds: float) -> None:
        self._look_at = now + seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _tell(self, long: list[Wait], now: float) -> None:
        for what, count in Counter(wait.what for wait in long).items():
            these = [wait for wait in long if wait.what is what]
            names = ", ".join(sorted({wait.name for wait in these})[:5])
            longest = max(wait.seconds(now) for wait in these)
            _log.warning(
                "%d calls wait for %s, the longest for %.0f s: %s", count, what, longest, names
            )
