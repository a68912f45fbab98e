"""How far the runs are that a saver's calls belong to, and when one is over."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from typing import Any, Generic, Protocol, TypeAlias, TypeVar
from uuid import UUID

from langgraph_pgsaga import _fork

_FEWEST_REMEMBERED = 1_000
# A run that has ended may still have calls under way, for as long as a task of its last step
# takes, unless its last checkpoint is there already.
_ENDED_SECONDS = 60.0
LONGEST_RUN_SECONDS = 86_400.0


# What a run runs in: while that goes on with other things, the run is over.
_Owner: TypeAlias = "asyncio.Task[Any] | threading.Thread"


class Owner:
    """The task or thread in which a run was begun."""

    __slots__ = ("_reference",)

    def __init__(self) -> None:
        self._reference: weakref.ref[_Owner] = weakref.ref(_current())

    @property
    def is_gone(self) -> bool:
        """Whether it has ended."""
        owner = self._reference()
        return owner is None or not _goes_on(owner)

    @property
    def is_elsewhere(self) -> bool:
        """Whether it has ended, or does what is done here and now."""
        return self.is_gone or self._reference() is _current()


def _goes_on(owner: _Owner) -> bool:
    return owner.is_alive() if isinstance(owner, threading.Thread) else not owner.done()


def _current() -> _Owner:
    try:
        return asyncio.current_task() or threading.current_thread()
    except RuntimeError:  # no running loop
        return threading.current_thread()


class Course:
    """How far a run has come: when it called last, and whether no further call is to come."""

    __slots__ = ("_called_at", "_is_complete", "owner")

    def __init__(self) -> None:
        self.owner = Owner()
        self._is_complete = False
        self._called_at = time.monotonic()

    def note_call(self) -> None:
        """The run calls now, so it isn't over."""
        self._called_at = time.monotonic()

    def note_end(self, *, is_complete: bool) -> None:
        """Whether the run's last checkpoint is there."""
        self._is_complete = is_complete

    @property
    def is_over(self) -> bool:
        """Whether it needn't be remembered: its own calls don't come any more."""
        silent_seconds = time.monotonic() - self._called_at
        has_ended = self._is_complete or self.owner.is_gone
        return silent_seconds > (_ENDED_SECONDS if has_ended else LONGEST_RUN_SECONDS)


class Passing(Protocol):
    """Something that is needed for a while."""

    @property
    def is_over(self) -> bool:
        """Whether it is needed no more."""


P = TypeVar("P", bound=Passing)


class Remembered(Generic[P]):
    """What is to be remembered for as long as it isn't over, and forgotten some time after.

    Its size follows that of what isn't over. Safe to use from several threads.
    """

    def __init__(self) -> None:
        self.after_fork()
        _fork.watch(self)

    def after_fork(self) -> None:
        """Forgets all: what a parent remembers isn't its forked child's."""
        self._found: dict[object, P] = {}
        self._most = _FEWEST_REMEMBERED
        self._lock = threading.Lock()

    def get(self, key: object) -> P | None:
        """What is remembered under the key, if it is still."""
        return self._found.get(key)

    def set(self, key: object, value: P) -> None:
        """Remembers it in the place of what was there; forgets others that are over."""
        with self._lock:
            self._found[key] = value
            if len(self._found) > self._most:
                self._found = {k: v for k, v in self._found.items() if not v.is_over}
                self._most = max(_FEWEST_REMEMBERED, 2 * len(self._found))

    def drop(self, key: object) -> None:
        """Forgets what is remembered under the key, if anything."""
        with self._lock:
            self._found.pop(key, None)


class OfRun(Passing, Protocol):
    """What is remembered of a run. It keeps the run's control, whose place in memory is its key."""

    control: object


R = TypeVar("R", bound=OfRun)


class ByRun(Generic[R]):
    """One thing for each run, by its session and its control. Safe to use from several threads.

    A control can be given to runs of many threads, and its place in memory to another one later.
    """

    def __init__(self) -> None:
        self._found: Remembered[R] = Remembered()

    def get(self, session_id: UUID, control: object) -> R | None:
        """What is remembered of that run, if anything."""
        found = self._found.get((session_id, id(control)))
        return found if found is not None and found.control is control else None

    def set(self, session_id: UUID, found: R) -> None:
        """Remembers it of its run, in the place of what was there."""
        self._found.set((session_id, id(found.control)), found)

    def drop(self, session_id: UUID, control: object) -> None:
        """Forgets what is remembered of that run."""
        self._found.drop((session_id, id(control)))
