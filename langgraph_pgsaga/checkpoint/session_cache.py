"""What this process remembers of the sessions it works with: what is stored, and messages."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias
from uuid import UUID

from langgraph_pgsaga import _fork
from langgraph_pgsaga.checkpoint.counters import MOST_MESSAGES
from langgraph_pgsaga.checkpoint.stored_message import StoredMessage

_MOST_NUMBERS = 500_000
_MOST_CONTENT_BYTES = 64_000_000
# What a remembered session takes beside its messages, in numbers.
_SESSION_NUMBERS = 10
# A checkpoint of a session: its namespace as it is stored, and its id.
StateKey: TypeAlias = tuple[str, str]


# Of an epoch, the bits that change while it stays the same session.
_CHANGING_BITS = 21


def is_same_session(epoch: int, other: int) -> bool:
    """Whether these are epochs of one session, and not of one that was made after it."""
    return epoch >> _CHANGING_BITS == other >> _CHANGING_BITS


class KnownSession(NamedTuple):
    """A session as this process knows it, good under `epoch` only.

    `message_count` is the highest number given out as far as known. `contents` are the
    messages themselves, from 1 to `held` without a gap. `states` are the checkpoints that
    this process read or wrote: each with the session's deletion_count of when it was there.
    They are good for as long as it is the same session.
    """

    epoch: int
    message_count: int
    numbers: Mapping[bytes, int]
    hashes: Set[bytes]
    contents: Mapping[int, StoredMessage]
    held: int
    states: Mapping[StateKey, int]


@dataclass(slots=True)
class _Session:
    epoch: int
    message_count: int = 0
    numbers: dict[bytes, int] = field(default_factory=dict)
    hashes: set[bytes] = field(default_factory=set)
    contents: dict[int, StoredMessage] = field(default_factory=dict)
    held: int = 0
    content_bytes: int = 0
    states: dict[StateKey, int] = field(default_factory=dict)

    @property
    def weight(self) -> int:
        return _SESSION_NUMBERS + len(self.numbers) + len(self.hashes) + len(self.states)


class SessionCache:
    """Remembers sessions; the least recently used give up their messages, then all.

    What is stale can do no harm: the server checks the epoch. Safe to use from
    several threads.

    Args:
        most_numbers: how many message numbers, hashes of blobs and checkpoints are
            remembered, of all sessions; a session itself counts as ten.
        most_content_bytes: what the remembered messages take, about.
    """

    def __init__(
        self,
        most_numbers: int = _MOST_NUMBERS,
        most_content_bytes: int = _MOST_CONTENT_BYTES,
    ) -> None:
        self._most_numbers = most_numbers
        self._most_content_bytes = most_content_bytes
        self.after_fork()
        _fork.watch(self)

    def after_fork(self) -> None:
        """Begins anew: the parent's lock may have been held halfway through a change."""
        self._numbers = 0
        self._content_bytes = 0
        self._sessions: OrderedDict[UUID, _Session] = OrderedDict()
        # Those of the sessions that have contents, in the same order.
        self._with_contents: OrderedDict[UUID, None] = OrderedDict()
        self._lock = threading.Lock()

    def known(self, session_id: UUID) -> KnownSession | None:
        """What is remembered of the session, which counts as used now."""
        with self._lock:
            session = self._sessions.get(session_id)
            if session is None:
                return None
            self._use(session_id)
            return KnownSession(
                epoch=session.epoch,
                message_count=session.message_count,
                numbers=session.numbers,
                hashes=session.hashes,
                contents=session.contents,
                held=session.held,
                states=session.states,
            )

    def epoch(self, session_id: UUID) -> int | None:
        """The epoch under which the session is remembered."""
        session = self._sessions.get(session_id)
        return None if session is None else session.epoch

    def learn(
        self,
        session_id: UUID,
        epoch: int,
        message_count: int,
        found: Iterable[tuple[bytes, int]],
        hashes: Iterable[bytes] = (),
        states: Iterable[StateKey] = (),
        deletion_count: int = 0,
    ) -> None:
        """Adds numbers by digest, hashes of stored blobs, and checkpoints that are there.

        What was learned under another epoch is forgotten first; of the same session not the
        checkpoints: that they were there is what tells a deleted one from one that never was.
        """
        with self._lock:
            if message_count > MOST_MESSAGES:
                self._drop(session_id)  # each call then asks, and is told
                return
            session = self._entered(session_id, epoch)
            session.message_count = max(session.message_count, message_count)
            self._numbers -= session.weight
            session.numbers.update(found)
            session.hashes.update(hashes)
            session.states.update(dict.fromkeys(states, deletion_count))
            self._numbers += session.weight
            self._use(session_id)
            while self._numbers > self._most_numbers:
                self._drop(next(iter(self._sessions)))

    def hold(
        self, session_id: UUID, epoch: int, messages: Iterable[tuple[int, StoredMessage]]
    ) -> None:
        """Keeps messages by number, of a session that was learned under this epoch."""
        with self._lock:
            session = self._sessions.get(session_id)
            if session is None or session.epoch != epoch:
                return
            before = session.content_bytes
            for number, message in messages:
                if number not in session.contents:
                    session.contents[number] = message
                    session.content_bytes += message.size
            while session.held + 1 in session.contents:
                session.held += 1
            self._content_bytes += session.content_bytes - before
            self._with_contents[session_id] = None
            self._use(session_id)
            while self._content_bytes > self._most_content_bytes:
                self._drop_contents(next(iter(self._with_contents)))

    def forget(self, session_id: UUID) -> None:
        """Nothing of the session is known any more."""
        with self._lock:
            self._drop(session_id)

    @property
    def weight(self) -> int:
        """The numbers remembered, and ten for each session."""
        return self._numbers

    @property
    def content_bytes(self) -> int:
        """What the messages that are held take, about."""
        return self._content_bytes

    def _entered(self, session_id: UUID, epoch: int) -> _Session:
        session = self._sessions.get(session_id)
        if session is None or session.epoch != epoch:
            is_same = session is not None and is_same_session(session.epoch, epoch)
            states = session.states if session is not None and is_same else {}
            self._drop(session_id)
            session = self._sessions[session_id] = _Session(epoch, states=states)
            self._numbers += session.weight
        return session

    def _use(self, session_id: UUID) -> None:
        self._sessions.move_to_end(session_id)
        if session_id in self._with_contents:
            self._with_contents.move_to_end(session_id)

    def _drop(self, session_id: UUID) -> None:
        self._drop_contents(session_id)
        session = self._sessions.pop(session_id, None)
        if session is not None:
            self._numbers -= session.weight

    def _drop_contents(self, session_id: UUID) -> None:
        if session_id not in self._with_contents:
            return
        del self._with_contents[session_id]
        session = self._sessions[session_id]
        self._content_bytes -= session.content_bytes
        # Anew, not cleared: a reader may hold what `known` gave it.
        session.contents, session.content_bytes, session.held = {}, 0, 0
