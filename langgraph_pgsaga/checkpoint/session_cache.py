"""What this process remembers of the sessions it works with: what is stored, and messages."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence, Set
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
    return lasting(epoch) == lasting(other)


def lasting(epoch: int) -> int:
    """What of an epoch stays for as long as it is the same session."""
    return epoch >> _CHANGING_BITS


class LastKnown(NamedTuple):
    """The latest of each kind that is known of a session; None of a kind that isn't.

    A server can lose what it had acknowledged: a standby takes over that was behind, or an older
    copy is put in its place. It loses the latest, never what came before something that is still
    there. So while these are there, all that is known is; and no statement counts on anything
    that is known without asking for them. A message and a blob are named only while no checkpoint
    is known to have come with them or after. The columns of pgsaga_known_session.
    """

    known_ns: str | None = None
    known_id: str | None = None
    known_no: int | None = None
    known_digest: bytes | None = None
    known_hash: bytes | None = None

    def by_name(self) -> dict[str, str | int | bytes | None]:
        """As parameters of a statement."""
        return {
            "known_ns": self.known_ns,
            "known_id": self.known_id,
            "known_no": self.known_no,
            "known_digest": self.known_digest,
            "known_hash": self.known_hash,
        }


NOTHING_KNOWN = LastKnown()


class KnownSession(NamedTuple):
    """A session as this process knows it, good under `epoch` and while `last` is there.

    `message_count` is the highest number given out as far as known. `contents` are the
    messages themselves, from 1 to `held` without a gap. `states` are the checkpoints that
    this process read or wrote: each with the session's deletion_count of when it was there.
    They are good for as long as it is the same session, but for the `doubtful` ones, for which
    `last` says nothing. `generation` is another one when what was known turned out to be lost.
    """

    epoch: int
    generation: int
    message_count: int
    numbers: Mapping[bytes, int]
    hashes: Set[bytes]
    contents: Mapping[int, StoredMessage]
    held: int
    states: Mapping[StateKey, int]
    doubtful: Set[StateKey]
    last: LastKnown


@dataclass(slots=True)
class _Session:
    epoch: int
    generation: int
    message_count: int = 0
    numbers: dict[bytes, int] = field(default_factory=dict)
    hashes: set[bytes] = field(default_factory=set)
    contents: dict[int, StoredMessage] = field(default_factory=dict)
    held: int = 0
    content_bytes: int = 0
    states: dict[StateKey, int] = field(default_factory=dict)
    doubtful: set[StateKey] = field(default_factory=set)
    last: LastKnown = NOTHING_KNOWN
    # Those of `hashes` that no checkpoint has followed yet; only while there are some, `last` has
    # one of them.
    pending: set[bytes] = field(default_factory=set)
    # That of the last checkpoint: positions rise in the order of writing.
    position: int | None = None

    @property
    def weight(self) -> int:
        return _SESSION_NUMBERS + len(self.numbers) + len(self.hashes) + len(self.states)

    def known(self) -> KnownSession:
        """As it is now."""
        # By place, not by name: this is part of every call.
        return KnownSession(
            self.epoch,
            self.generation,
            self.message_count,
            self.numbers,
            self.hashes,
            self.contents,
            self.held,
            self.states,
            self.doubtful,
            self.last,
        )

    def add_states(
        self, states: Sequence[StateKey], deletion_count: int, position: int | None
    ) -> None:
        """Adds checkpoints in the order of writing, the last one at `position`."""
        if position is None:
            self.doubtful.update(key for key in states if key not in self.states)
        elif states:
            key = states[-1]
            is_later = self.position is None or position > self.position
            # One that is put again was there before what was stored with it.
            if is_later and (key not in self.states or key in self.doubtful):
                last = self.last
                self.last = LastKnown(*key, last.known_no, last.known_digest, last.known_hash)
                self.position = position
            self.doubtful.difference_update(states)
        self.states.update(dict.fromkeys(states, deletion_count))

    def add_numbers(self, found: Mapping[bytes, int]) -> None:
        """Adds messages by digest that are there, be it later than the last checkpoint."""
        if not found:
            return
        self.numbers.update(found)
        digest = max(found, key=found.__getitem__)
        if self.last.known_no is None or found[digest] > self.last.known_no:
            self.last = self.last._replace(known_no=found[digest], known_digest=digest)

    def add_stored(
        self, numbers: Mapping[bytes, int], hashes: Set[bytes], since: KnownSession | None
    ) -> None:
        """Adds messages and blobs that came with a new checkpoint, on what was known `since`.

        That it is there tells from now on that all of this is.
        """
        self.numbers.update(numbers)
        self.hashes |= hashes
        if since is None or self.last[2:] == NOTHING_KNOWN[2:]:
            return
        if since.last.known_no == self.last.known_no:
            self.last = self.last._replace(known_no=None, known_digest=None)
        if since.last.known_hash == self.last.known_hash:
            self.pending.clear()
            self.last = self.last._replace(known_hash=None)

    def add_pending(self, hashes: Set[bytes], stored_hash: bytes | None) -> None:
        """Adds blobs of pending writes that were stored at once.

        That they are there tells nothing of those that others had stored before: `stored_hash`
        is one that came with them. Without it none is added, so the next checkpoint brings them.
        """
        if stored_hash is not None:
            self.hashes |= hashes
            self.pending |= hashes
            self.last = self.last._replace(known_hash=stored_hash)

    def drop_pending(self) -> None:
        """Forgets the blobs of pending writes: they may be another process's by now, and later."""
        if self.pending:
            self.hashes = self.hashes - self.pending
            self.pending = set()
            self.last = self.last._replace(known_hash=None)

    def add_contents(self, messages: Iterable[tuple[int, StoredMessage]]) -> None:
        """Keeps messages by number."""
        for number, message in messages:
            if number not in self.contents:
                self.contents[number] = message
                self.content_bytes += message.size
        while self.held + 1 in self.contents:
            self.held += 1


class SessionCache:
    """Remembers sessions; the least recently used give up their messages, then all.

    What is stale can do no harm: the server checks the epoch, and that the last of each kind is
    there. Safe to use from several threads.

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
        self._weight = 0
        self._content_bytes = 0
        self._sessions: OrderedDict[UUID, _Session] = OrderedDict()
        # Those of the sessions that have contents, in the same order.
        self._with_contents: OrderedDict[UUID, None] = OrderedDict()
        self._generations = itertools.count(1)
        self._lock = threading.Lock()

    def known(self, session_id: UUID) -> KnownSession | None:
        """What is remembered of the session, which counts as used now."""
        with self._lock:
            session = self._sessions.get(session_id)
            if session is None:
                return None
            self._use(session_id)
            return session.known()

    def epoch(self, session_id: UUID) -> int | None:
        """The epoch under which the session is remembered."""
        session = self._sessions.get(session_id)
        return None if session is None else session.epoch

    def generation(self, session_id: UUID) -> int | None:
        """Another one when what was remembered of the session is no longer; None without any."""
        session = self._sessions.get(session_id)
        return None if session is None else session.generation

    def learn(
        self,
        session_id: UUID,
        epoch: int,
        message_count: int,
        found: Iterable[tuple[bytes, int]] = (),
        *,
        stored: Set[bytes] | None = None,
        stored_hash: bytes | None = None,
        states: Sequence[StateKey] = (),
        deletion_count: int = 0,
        position: int | None = None,
        contents: Iterable[tuple[int, StoredMessage]] = (),
        since: KnownSession | None = None,
        begins: bool = False,
    ) -> None:
        """Adds numbers by digest, hashes of stored blobs, checkpoints that are there, messages.

        Whoever stored something gives the hashes of its blobs, and as `stored_hash` one that wasn't
        there before. A run, or whatever was loaded for, `begins`: another process may have gone
        on from what was written to the last one's tasks, and stored it again where it was lost.

        What was learned under another epoch is forgotten first; of the same session not the
        checkpoints: that they were there is what tells a deleted one from one that never was.

        `position` is that of the last of `states`; of what was stored, where that is new. Whoever
        gives it asked for what was known `since`; where that turned out to be lost meanwhile,
        nothing is learned. Without it, the states are doubtful. So they are, and the rest isn't
        learned, where nothing was known then and something is now: others may have asked since,
        after a loss.
        """
        with self._lock:
            if message_count > MOST_MESSAGES:
                self._drop(session_id)  # each call then asks, and is told
                return
            session = self._sessions.get(session_id)
            if since and session and session.generation != since.generation:
                return
            if since is None and session and session.epoch == epoch:
                found, stored, position, contents = (), None, None, ()
            if session is None or session.epoch != epoch:
                session = self._anew(session_id, epoch)
            session.message_count = max(session.message_count, message_count)
            self._weight -= session.weight
            if begins:
                session.drop_pending()
            is_new = position is not None and bool(states) and states[-1] not in session.states
            if stored is not None and is_new:
                session.add_stored(dict(found), stored, since)
            else:
                session.add_numbers(dict(found))
                if stored:
                    session.add_pending(stored, stored_hash)
            session.add_states(states, deletion_count, position)
            self._weight += session.weight
            self._content_bytes -= session.content_bytes
            session.add_contents(contents)
            self._content_bytes += session.content_bytes
            if session.contents:
                self._with_contents[session_id] = None
            self._use(session_id)
            while self._content_bytes > self._most_content_bytes:
                self._drop_contents(next(iter(self._with_contents)))
            while self._weight > self._most_numbers:
                self._drop(next(iter(self._sessions)))

    def doubt(self, session_id: UUID, known: KnownSession) -> KnownSession:
        """Forgets what was `known`, since the last of it isn't there any more.

        Its checkpoints are doubtful from here on: who counts on one asks for it first. The result
        is what whoever found out may learn more since: nothing, where others had by then.
        """
        with self._lock:
            session = self._sessions.get(session_id)
            if session is None or session.generation != known.generation:
                return known._replace(numbers={}, hashes=set(), contents={}, held=0)
            self._drop(session_id)
            states = session.states
            return self._enter(
                session_id, session.epoch, states=states, doubtful=set(states)
            ).known()

    def forget(self, session_id: UUID) -> None:
        """Nothing of the session is known any more."""
        with self._lock:
            self._drop(session_id)

    @property
    def weight(self) -> int:
        """How much is remembered, as `most_numbers` counts it."""
        return self._weight

    @property
    def content_bytes(self) -> int:
        """What the messages that are held take, about."""
        return self._content_bytes

    def _anew(self, session_id: UUID, epoch: int) -> _Session:
        """The session anew, under another epoch."""
        old = self._sessions.get(session_id)
        self._drop(session_id)
        if old is None or not is_same_session(old.epoch, epoch):
            return self._enter(session_id, epoch)
        session = self._enter(session_id, epoch, states=old.states, doubtful=old.doubtful)
        session.generation, session.position = old.generation, old.position
        session.last = LastKnown(*old.last[:2])
        return session

    def _enter(
        self,
        session_id: UUID,
        epoch: int,
        *,
        states: dict[StateKey, int] | None = None,
        doubtful: set[StateKey] | None = None,
    ) -> _Session:
        session = _Session(
            epoch, next(self._generations), states=states or {}, doubtful=doubtful or set()
        )
        self._sessions[session_id] = session
        self._weight += session.weight
        return session

    def _use(self, session_id: UUID) -> None:
        self._sessions.move_to_end(session_id)
        if session_id in self._with_contents:
            self._with_contents.move_to_end(session_id)

    def _drop(self, session_id: UUID) -> None:
        self._drop_contents(session_id)
        session = self._sessions.pop(session_id, None)
        if session is not None:
            self._weight -= session.weight

    def _drop_contents(self, session_id: UUID) -> None:
        if session_id not in self._with_contents:
            return
        del self._with_contents[session_id]
        session = self._sessions[session_id]
        self._content_bytes -= session.content_bytes
        # Anew, not cleared: a reader may hold what `known` gave it.
        session.contents, session.content_bytes, session.held = {}, 0, 0
