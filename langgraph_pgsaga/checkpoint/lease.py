"""One writer per thread: who holds a lease, and which one a call writes under.

The rule is in the statements that write. A session's row has the lease that was written
under last. Whoever writes under that one may go on; another may begin only where it has
ended or was given back. So a run whose thread was taken over writes nothing more, however
late it wakes up: the lease is its fencing token.

A lease is `new` until the session's row has it, then `held` while its time runs, `lapsed` when
that is over, `ended` when it was given back; `lost` once the row has another, or none, instead.
What comes of each event, by rows:

| event                        | new       | held        | lapsed | ended | lost    |
|------------------------------|-----------|-------------|--------|-------|---------|
| it writes                    | held (1)  | held        | held   | held  | refused |
| it writes its run's last     | ended (1) | ended       | ended  | ended | refused |
| it fails, or is cancelled    | new (2)   | held        | lapsed | ended | lost    |
| its time passes              | new       | lapsed      | lapsed | ended | lost    |
| a block's is renewed         | -         | held        | held   | -     | lost    |
| a block ends                 | -         | lost        | lost   | -     | lost    |
| another run writes first     | new       | refused (3) | lost   | lost  | lost    |
| another block begins         | new       | refused     | lost   | lost  | lost    |
| a block in a block begins    | -         | held (4)    | lapsed | -     | lost    |
| somebody writes without one  | new       | refused     | lost   | lost  | lost    |
| its process forks            | the child may write as somebody without one; it stays     |

Refused, nothing changes: ThreadLeasedError while another's lease runs, else LeaseLostError.
(1) Where no other's time runs, and the row has the lease and the position of when the run began
(`base`); else refused. A block claims what isn't held, whatever was written since.
(2) Sent, the row may have it: the next write is held all the same. So is that of one which
joins a transaction, of which nothing is remembered.
(3) It supersedes, and this one is lost, where it began after the last write and this one's run,
of the same process, was over then: its task or thread had ended.
(4) It is the same lease, and the last of these blocks to end gives it back. Nobody asks the server.

`tests/db/test_lease_model.py` takes every event in every state against a server.
"""

from __future__ import annotations

import copy
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Set
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, TypeAlias
from uuid import UUID

import asyncpg
from langchain_core.runnables import RunnableConfig

from langgraph_pgsaga import _fork
from langgraph_pgsaga._langgraph import RunKey, run_key
from langgraph_pgsaga._times import time_of_row
from langgraph_pgsaga.checkpoint.run import Course, Remembered
from langgraph_pgsaga.errors import LeaseError, LeaseLostError, ThreadLeasedError

# Looks at threads that one context remembers: what one of them saw counts for an update that
# follows it, and that so many others follow at once.
_MOST_LOOKS = 1_000


class LeaseColumns(NamedTuple):
    """What a row of pgsaga_new_session says of the lease."""

    lease_id: UUID | None
    lease_holder: str | None
    lease_seconds: float | None
    is_claim: bool | None
    is_superseding: bool
    base_lease_id: UUID | None


class Base(NamedTuple):
    """How a thread was found: the lease it was written under last, its last position."""

    lease_id: UUID | None = None
    position: int = 0


NO_BASE = Base()
# Without a lease a checkpoint may be written wherever nobody has one.
NO_LEASE = LeaseColumns(None, None, None, True, False, None)
# Pending writes without one leave the thread's lease as it is.
ANY_LEASE = NO_LEASE._replace(is_claim=None)


def _new_id() -> UUID:
    return UUID(bytes=os.urandom(16))


class _Process:
    """This one: what a parent holds isn't its forked child's."""

    def __init__(self) -> None:
        self.after_fork()
        _fork.watch(self)

    def after_fork(self) -> None:
        self.identity = object()
        # Of its blocks, while one begins or ends.
        self.lock = threading.Lock()


_process = _Process()


@dataclass(slots=True, kw_only=True, eq=False)
class Lease:
    """The right to write to a thread, as a run, or a `with` block, has it.

    `seconds` is how long it lasts after it was renewed, as each checkpoint does. A run's
    own lease is claimed by what the run writes first: `is_claimed` says whether the server
    has it. It is given only where the thread is as the run found it, which is `base`: nobody
    may have written since. The lease of then must have ended, unless `is_superseding`, where
    it was of a run of this process that is over. `loaded` are the checkpoints that an update
    can go on from, and `loaded_before` those of the look before. A run that `has_ended` gives
    the lease back, and may still write until somebody takes it. `is_of_update`: it is of calls
    that no run makes, such as update_state's.
    `course` is None for a block, whose lease is for all that happens in it, and for the `blocks`
    that are in it.
    """

    session_id: UUID
    thread_id: str
    seconds: float
    lease_id: UUID = field(default_factory=_new_id)
    is_claimed: bool = False
    is_session_new: bool = False
    loaded: set[str | None] = field(default_factory=set)
    loaded_before: Set[str | None] = frozenset()
    base: Base = NO_BASE
    is_superseding: bool = False
    has_ended: bool = False
    is_of_update: bool = False
    course: Course | None = None
    process: object = field(default_factory=lambda: _process.identity)
    blocks: int = 1
    written_at: float = field(default_factory=time.monotonic)

    def columns(self, *, ends_run: bool | None) -> LeaseColumns:
        """It, as the session's row of a statement has it.

        `ends_run` is what the calls of the statement say of the run's end; None leaves it as
        it is. A block's lease ends with the block.
        """
        says_it = ends_run is not None and self.course is not None
        has_ended = ends_run if says_it else self.has_ended
        return LeaseColumns(
            self.lease_id,
            holder(),
            None if has_ended else self.seconds,
            not self.is_claimed,
            self.is_superseding,
            self.base.lease_id,
        )

    def note_sent(self) -> None:
        """A statement under it is on its way: from now on the server may have the lease."""
        self.written_at = time.monotonic()
        if self.course is not None:
            self.course.note_call()
            if _claimed.get(self.lease_id) is None:
                _claimed.set(self.lease_id, _Claimed(self))

    def note_stored(self, *, checkpoint_id: str | None, ends_run: bool | None) -> None:
        """A call under it is stored: one that puts this checkpoint of the root graph, if any."""
        self.is_claimed, self.is_session_new = True, False
        if self.course is None:
            return
        if checkpoint_id is not None:
            self.loaded.add(checkpoint_id)
        if ends_run is not None:
            self.has_ended = ends_run
            # Writes may come after a run's end, but nothing after its last checkpoint.
            self.course.note_end(is_complete=ends_run and checkpoint_id is not None)

    def enter(self) -> bool:
        """Whether one more block is in it; none is once the last has ended."""
        with _process.lock:
            if not self.has_ended:
                self.blocks += 1
            return not self.has_ended

    def leave(self) -> bool:
        """Whether the block that ends was the last one, so that it is to be given back."""
        with _process.lock:
            self.blocks -= 1
            self.has_ended = self.blocks == 0
            return self.has_ended

    @property
    def is_inherited(self) -> bool:
        """Whether it is the parent's of this process, and so somebody else's."""
        return self.process is not _process.identity

    @property
    def is_over(self) -> bool:
        """Whether nothing is written under it any more."""
        return self.has_ended if self.course is None else self.course.is_over


class _Run:
    """A run's lease. The control is kept, so that no other one gets its place in memory."""

    __slots__ = ("control", "is_nested", "lease")

    def __init__(self, run: RunKey, lease: Lease) -> None:
        self.control = run.control
        self.is_nested = run.is_nested
        self.lease = lease

    @property
    def is_over(self) -> bool:
        return self.lease.is_over


class _Claimed:
    """A lease that this process's run took, until it has ended on the server, too."""

    __slots__ = ("lease",)

    def __init__(self, lease: Lease) -> None:
        self.lease = lease

    @property
    def is_over(self) -> bool:
        lease = self.lease
        return lease.has_ended or time.monotonic() > lease.written_at + 2 * lease.seconds


class Leases:
    """The leases that the calls of one saver write under.

    A call is of the run that LangGraph's config says makes it. Where none does (update_state),
    or in a block, its lease is that of the context it is made in.

    Args:
        seconds: of the leases that runs take by themselves; None where they take none.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._key = object()
        self._is_used = seconds is not None
        self._runs: Remembered[_Run] = Remembered()

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
        self._is_used = True
        place = self._key, lease.session_id
        before = _blocks.get().get(place)

        def hold(held: Lease | None) -> None:
            others = {key: value for key, value in _blocks.get().items() if key != place}
            _blocks.set(others if held is None else {**others, place: held})

        hold(lease)
        return lambda: hold(before)

    def begin(
        self,
        session_id: UUID,
        thread_id: str,
        config: RunnableConfig,
        *,
        namespace: str,
        loaded: tuple[str | None, ...],
        base: Base,
    ) -> None:
        """A graph's state was loaded: a run begins, or an update, or somebody just looks.

        Of a subgraph's namespace only those that no run loads: its runs are its root's.
        """
        if not self._is_used:
            return
        run = run_key(config)
        known = self._lease_of(session_id, run)
        if run is not None and known is None and run.is_nested:
            # What a node looks at, or changes, in its own thread is its run's.
            known = self._lease_above(session_id, run)
        if known is None or not known.is_claimed or known.has_ended:
            known = self.of_block(session_id)
        if known is not None:
            if run is not None:
                self._remember(session_id, run, known)
            return
        if self.seconds is None:
            return
        claimed = _claimed.get(base.lease_id)
        latest = claimed.lease.course if claimed else None
        lease = Lease(
            session_id=session_id,
            thread_id=thread_id,
            seconds=self.seconds,
            loaded=set(loaded),
            base=base,
            is_superseding=latest is not None and latest.owner.is_elsewhere,
            is_of_update=run is None,
            course=Course(),
        )
        if run is not None:
            self._remember(session_id, run, lease)
        else:
            self._note_look(lease, namespace)

    def of_call(
        self,
        session_id: UUID,
        thread_id: str,
        config: RunnableConfig,
        *,
        namespace: str,
        parent_id: str | None,
    ) -> Lease | None:
        """The lease to write under.

        Raises:
            LeaseLostError: of the run that calls nothing is known (any more).
        """
        if not self._is_used:
            return None
        run, is_root = run_key(config), not namespace
        found = self._lease_of(session_id, run, is_root=is_root) or self.of_block(session_id)
        if found is not None:
            return found
        if run is not None:
            if is_root and self.is_automatic:
                raise LeaseLostError(thread_id=thread_id)
            return None
        look = _looks.get().get((self._key, session_id, namespace))
        if look is None or look.is_inherited:
            return None
        return look if parent_id in look.loaded | look.loaded_before else None

    def of_block(self, session_id: UUID) -> Lease | None:
        """That of the context's block of the thread, also where it was lost."""
        block = _blocks.get().get((self._key, session_id))
        return None if block is None or block.is_inherited else block

    def _remember(self, session_id: UUID, run: RunKey, lease: Lease) -> None:
        """The run's calls are under the lease, and those of its subgraphs."""
        found = _Run(run, lease)
        self._runs.set((session_id, "runtime", id(run.runtime)), found)
        if not run.is_nested or self._lease_above(session_id, run) is None:
            self._runs.set((session_id, "control", id(run.control)), found)

    def _lease_of(
        self, session_id: UUID, run: RunKey | None, *, is_root: bool = True
    ) -> Lease | None:
        if run is None:
            return None
        own = ("runtime", id(run.runtime)) if is_root else ("control", id(run.control))
        found = self._runs.get((session_id, *own))
        return found.lease if found is not None and found.control is run.control else None

    def _lease_above(self, session_id: UUID, run: RunKey) -> Lease | None:
        """Of the run in whose node this one is, if that is of the same thread."""
        found = self._runs.get((session_id, "control", id(run.control)))
        is_above = found is not None and found.control is run.control and not found.is_nested
        return found.lease if found is not None and is_above else None

    def _note_look(self, lease: Lease, namespace: str) -> None:
        place, before = (self._key, lease.session_id, namespace), _looks.get()
        if place in before:
            # Updating the past, LangGraph looks at the latest checkpoint, too.
            lease.loaded_before = before[place].loaded
        looks = {
            key: look
            for key, look in before.items()
            if key != place and not (look.has_ended or look.is_over)
        }
        if len(looks) >= _MOST_LOOKS:
            del looks[next(iter(looks))]
        _looks.set({**looks, place: lease})


def refusal(thread_id: str, lease: Lease | None, row: asyncpg.Record) -> LeaseError | None:
    """Why nobody may write as a call would to the session that find_session found.

    The statements that write decide; this says why they did.
    """
    held_id = row["lease_id"]
    if held_id == (lease.lease_id if lease else None):
        return None
    if lease is not None and lease.is_claimed:
        return LeaseLostError(thread_id=thread_id)
    is_superseding = lease is not None and lease.is_superseding and held_id == lease.base.lease_id
    if row["is_leased"] and not is_superseding:
        return leased_error(thread_id, row)
    if lease is not None and lease.base != Base(held_id, row["last_position"]):
        return LeaseLostError(thread_id=thread_id)
    return None


def leased_error(thread_id: str, row: asyncpg.Record) -> ThreadLeasedError:
    """That somebody has the lease, of the session that find_session found."""
    return ThreadLeasedError(
        thread_id=thread_id,
        holder=row["lease_holder"],
        expires_at=time_of_row(row["lease_expires_at"]),
    )


def holder() -> str:
    """Who this process is, for people: host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


_Thread: TypeAlias = tuple[object, UUID]
_Graph: TypeAlias = tuple[object, UUID, str]

# The leases of the blocks that a context is in, and of what was looked at there: of a thread's
# graph or of one of its subgraphs, by the namespace.
_blocks: ContextVar[Mapping[_Thread, Lease]] = ContextVar("_blocks", default=MappingProxyType({}))
_looks: ContextVar[Mapping[_Graph, Lease]] = ContextVar("_looks", default=MappingProxyType({}))
# The leases of this process's runs by their id, of whatever saver.
_claimed: Remembered[_Claimed] = Remembered()
