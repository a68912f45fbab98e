"""One writer per thread: who holds a lease, and which one a call writes under.

The rule is in the statements that write. A session's row has the lease that was written
under last. Whoever writes under that one may go on; another may begin only where it has
ended or was given back. So a run whose thread was taken over writes nothing more, however
late it wakes up: the lease is its fencing token.
"""

from __future__ import annotations

import asyncio
import copy
import os
import socket
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

import asyncpg

from langgraph_pgsaga.errors import LeaseError, LeaseLostError, ThreadLeasedError

_MOST_REMEMBERED = 10_000
_MOST_HELD = 16

# What a run runs in: while that goes on with other things, the run is over.
_Owner: TypeAlias = asyncio.Task[Any] | threading.Thread


class LeaseColumns(NamedTuple):
    """What a row of pgsaga_new_session says of the lease."""

    lease_id: UUID | None
    lease_holder: str | None
    lease_seconds: float | None
    is_claim: bool | None
    is_superseding: bool
    base_lease_id: UUID | None


# Without a lease a checkpoint may be written wherever nobody has one.
NO_LEASE = LeaseColumns(None, None, None, True, False, None)
# Pending writes without one leave the thread's lease as it is.
ANY_LEASE = NO_LEASE._replace(is_claim=None)


def _new_id() -> UUID:
    return UUID(bytes=os.urandom(16))


@dataclass(slots=True, kw_only=True, eq=False)
class Lease:
    """The right to write to a thread, as a run, or a `with` block, has it.

    `seconds` is how long it lasts after it was renewed, as each checkpoint does. A run's
    own lease is claimed by what the run writes first: `is_claimed` says whether the server
    has it. When the run began, `base_lease_id` was the lease written under last: nobody may
    have written under another since, and it must have ended unless `is_superseding`, where
    it was of a run of this process that is over. `loaded` are the checkpoints that the run
    can begin from. A run that `has_ended` gives the lease back, and may still write until
    somebody takes it. `owner` is None for a block, whose lease is for all that happens in it.
    """

    session_id: UUID
    thread_id: str
    seconds: float
    lease_id: UUID = field(default_factory=_new_id)
    is_claimed: bool = False
    is_session_new: bool = False
    loaded: set[str | None] = field(default_factory=set)
    base_lease_id: UUID | None = None
    is_superseding: bool = False
    has_ended: bool = False
    owner: weakref.ref[_Owner] | None = None

    def columns(self, *, is_claim: bool) -> LeaseColumns:
        """It, as the session's row of a statement has it."""
        return LeaseColumns(
            self.lease_id,
            holder(),
            None if self.has_ended else self.seconds,
            is_claim and not self.is_claimed,
            self.is_superseding,
            self.base_lease_id,
        )

    def is_current(self, lease_id: UUID | None) -> bool:
        """Whether it is under way, and was the lease that the session was written under last."""
        return self.is_claimed and not self.has_ended and self.lease_id == lease_id

    def note_end(self, *, has_ended: bool) -> None:
        """Whether the run under it has ended; a block's lease ends with the block."""
        if self.owner is not None:
            self.has_ended = has_ended

    def begin_again(self, loaded_id: str | None) -> None:
        """Another run of the same owner begins, or its run just looks at its thread.

        It goes on under another id, so that whoever loaded the state before is refused.
        """
        self.base_lease_id, self.lease_id = self.lease_id, _new_id()
        self.is_claimed, self.is_superseding = False, True
        self.loaded = {loaded_id}

    def is_held_by(self, owner: _Owner) -> bool:
        """Whether what happens in `owner` is under this lease."""
        return self.owner is None or self.owner() is owner

    @property
    def is_over(self) -> bool:
        """Whether the run has ended for sure."""
        owner = self.owner() if self.owner is not None else None
        if isinstance(owner, threading.Thread):
            return not owner.is_alive() or owner is threading.current_thread()
        return owner is None or owner.done() or owner is _current_owner()


class Leases:
    """The leases that the calls of one saver write under.

    A call's lease is that of the context it is made in: LangGraph makes a run's calls in
    copies of the context that the run began in. Where a context got lost on the way (the
    writes of sync tasks that run side by side have none), a call is of the run that stored
    the root graph's checkpoint it belongs to.

    Args:
        seconds: of the leases that runs take by themselves; None where they take none.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._key = object()
        self._is_used = False
        self._of_checkpoint: OrderedDict[Any, Lease] = OrderedDict()
        self._lock = threading.Lock()

    def of_blocks(self) -> Leases:
        """The same for calls that belong to no run, but may be made in a block."""
        found = copy.copy(self)
        found.seconds = None
        return found

    @property
    def is_automatic(self) -> bool:
        """Whether runs take leases by themselves."""
        return self.seconds is not None

    def hold(self, lease: Lease) -> Callable[[], None]:
        """Makes it the context's lease of its thread; the result takes that back."""
        before = self._held(lease.session_id)
        self._set(lease.session_id, lease)
        return lambda: self._set(lease.session_id, before)

    def begin_run(
        self,
        session_id: UUID,
        thread_id: str,
        *,
        loaded_id: str | None,
        base_lease_id: UUID | None,
    ) -> None:
        """The context has loaded a thread's state: a run begins, or somebody just looks."""
        if self.seconds is None:
            return
        owner = _current_owner()
        held = self._held(session_id)
        if held and held.is_current(base_lease_id) and held.is_held_by(owner):
            if held.owner is not None:
                held.begin_again(loaded_id)
            return
        latest = _claimed.get(base_lease_id) if base_lease_id else None
        # A run that is to begin at a checkpoint looks at the latest one, too.
        loaded = held.loaded if held and not held.is_claimed and held.is_held_by(owner) else set()
        lease = Lease(
            session_id=session_id,
            thread_id=thread_id,
            seconds=self.seconds,
            loaded={*loaded, loaded_id},
            base_lease_id=base_lease_id,
            is_superseding=latest is not None and latest.is_over,
            owner=weakref.ref(owner),
        )
        self._set(session_id, lease)

    def may_begin(self, lease: Lease, parent_id: str | None) -> bool:
        """Whether a run under the lease can begin with a checkpoint after this one."""
        is_own = self._of_checkpoint.get((lease.session_id, parent_id)) is lease
        return not lease.is_claimed and (is_own or parent_id in lease.loaded)

    def of_call(self, session_id: UUID, root_id: str | None, *, is_root_put: bool) -> Lease | None:
        """The lease to write under; `root_id` is the root graph's checkpoint of the call."""
        if not self._is_used:
            return None
        held = self._held(session_id)
        if held is not None:
            if root_id is not None:
                self._note(held, root_id)
            return held
        found = self._of_checkpoint.get((session_id, root_id))
        if found is None or found.has_ended or (is_root_put and found.owner is None):
            return None  # what follows on a block's checkpoint may be anybody's
        return found

    def stored_under(self, lease: Lease, root_id: str) -> None:
        """The root graph's checkpoint is stored under the lease."""
        self._note(lease, root_id)
        if lease.owner is not None:
            with _claimed_lock:
                _remember(_claimed, lease.lease_id, lease)

    def _note(self, lease: Lease, root_id: str) -> None:
        """What belongs to the checkpoint is written under the lease, unless another run goes on."""
        key = lease.session_id, root_id
        with self._lock:
            before = self._of_checkpoint.get(key)
            if before is None or before.has_ended or not before.is_claimed:
                _remember(self._of_checkpoint, key, lease)

    def _held(self, session_id: UUID) -> Lease | None:
        return _held.get().get((self._key, session_id))

    def _set(self, session_id: UUID, lease: Lease | None) -> None:
        self._is_used = True
        place = self._key, session_id
        leases = {key: held for key, held in _held.get().items() if key != place}
        if lease is not None:
            leases[place] = lease
        _held.set(dict(list(leases.items())[-_MOST_HELD:]))


def refusal(
    thread_id: str, lease: Lease | None, may_claim: bool, row: asyncpg.Record
) -> LeaseError | None:
    """Why nobody may write as a call would to the session that find_session found.

    The statements that write decide; this says why they did.
    """
    held_id = row["lease_id"]
    if held_id == (lease.lease_id if lease else None):
        return None
    if lease is not None and lease.is_claimed:
        return LeaseLostError(thread_id=thread_id)
    is_superseding = lease is not None and lease.is_superseding and held_id == lease.base_lease_id
    if row["is_leased"] and not is_superseding:
        return leased_error(thread_id, row)
    if lease is not None and (not may_claim or held_id != lease.base_lease_id):
        return LeaseLostError(thread_id=thread_id)
    return None


def leased_error(thread_id: str, row: asyncpg.Record) -> ThreadLeasedError:
    """That somebody has the lease, of the session that find_session found."""
    return ThreadLeasedError(
        thread_id=thread_id, holder=row["lease_holder"], expires_at=row["lease_expires_at"]
    )


def holder() -> str:
    """Who this process is, for people: host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _current_owner() -> _Owner:
    try:
        return asyncio.current_task() or threading.current_thread()
    except RuntimeError:  # no running loop
        return threading.current_thread()


_Key: TypeAlias = tuple[object, UUID]

_held: ContextVar[Mapping[_Key, Lease]] = ContextVar("_held", default=MappingProxyType({}))


# The leases of this process's runs, of whatever saver.
_claimed: OrderedDict[UUID, Lease] = OrderedDict()
_claimed_lock = threading.Lock()


def _remember(found: OrderedDict[Any, Lease], key: object, lease: Lease) -> None:
    found[key] = lease
    found.move_to_end(key)
    if len(found) > _MOST_REMEMBERED:
        found.popitem(last=False)
