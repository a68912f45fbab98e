"""Which messages a session already holds, as far as this process knows."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

_MOST_NUMBERS = 500_000


@dataclass(frozen=True, slots=True)
class KnownMessages:
    """Message numbers by digest, good under `epoch` only (None: nothing is known)."""

    epoch: int | None = None
    numbers: Mapping[bytes, int] = field(default_factory=dict)


class MessageNumbers:
    """Remembers message numbers per session, least recently used sessions go first.

    Holds at most `most` numbers. A stale number can do no harm: the server checks
    the epoch. Safe to use from several threads.
    """

    def __init__(self, most: int = _MOST_NUMBERS) -> None:
        self._most = most
        self._begin()
        _live.add(self)

    def _begin(self) -> None:
        self._held = 0
        self._sessions: OrderedDict[UUID, tuple[int, dict[bytes, int]]] = OrderedDict()
        self._lock = threading.Lock()

    def known(self, session_id: UUID) -> KnownMessages:
        """What is remembered of the session; it counts as used now."""
        with self._lock:
            entry = self._sessions.get(session_id)
            if entry is None:
                return KnownMessages()
            self._sessions.move_to_end(session_id)
            return KnownMessages(*entry)

    def learn(self, session_id: UUID, epoch: int, numbers: Iterable[tuple[bytes, int]]) -> None:
        """Adds numbers by digest; what was learned under another epoch is forgotten first."""
        with self._lock:
            entry = self._sessions.get(session_id)
            if entry is None or entry[0] != epoch:
                self._drop(session_id)
                entry = self._sessions[session_id] = (epoch, {})
            before = len(entry[1])
            entry[1].update(numbers)
            self._held += len(entry[1]) - before
            self._sessions.move_to_end(session_id)
            while self._held > self._most:
                self._drop(next(iter(self._sessions)))

    def forget(self, session_id: UUID) -> None:
        with self._lock:
            self._drop(session_id)

    def __len__(self) -> int:
        return self._held

    def _drop(self, session_id: UUID) -> None:
        entry = self._sessions.pop(session_id, None)
        if entry is not None:
            self._held -= len(entry[1])


_live: weakref.WeakSet[MessageNumbers] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    # Another thread of the parent may have held the lock, halfway through a change.
    for numbers in list(_live):
        numbers._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
