"""Where a call leaves its thread's run: its status, and the lease it is written under."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT

from langgraph_pgsaga import _langgraph
from langgraph_pgsaga._langgraph import run_key
from langgraph_pgsaga.checkpoint.lease import Base, Lease, Leases
from langgraph_pgsaga.checkpoint.run import Course, Remembered
from langgraph_pgsaga.checkpoint.session_cache import StateKey
from langgraph_pgsaga.checkpoint.status import status_of
from langgraph_pgsaga.threads import Address, SessionStatus

# How long a checkpoint can be behind the writes that say that its run stopped there: both were
# on their way at once.
_STOP_SECONDS = 60.0
CANCELLED = (asyncio.CancelledError, concurrent.futures.CancelledError)


# A checkpoint of a session's root graph.
_Place: TypeAlias = tuple[UUID, str]


class SessionChange(NamedTuple):
    """What a call says of its thread's run. It takes effect when the call is stored.

    `status` is that of agent_sessions, where the call tells it: active, or one of those at
    which a run has ended. `lease` is what it writes under. `begins_thread`: it needs nothing
    that is stored, if also the run `below` which it is made has stored nothing. `ends_run` is
    whether the run under the lease ends with it, where the call tells. `puts` is the root
    graph's checkpoint that it stores, `stops_at` the one at which it says that its run stopped.
    `run` makes the put, and with it begins to be `limited_to` a step. `root` is the root graph's
    run that it belongs to, `seen` the session's epoch as the process knew it when it was called.
    """

    status: SessionStatus | None = None
    lease: Lease | None = None
    begins_thread: bool = False
    below: _Run | None = None
    ends_run: bool | None = None
    puts: _Place | None = None
    stops_at: _Place | None = None
    run: _Run | None = None
    limited_to: int | None = None
    root: _Run | None = None
    seen: int | None = None

    @property
    def epoch(self) -> int | None:
        """That of the session that it is for; None where it can be the first of any."""
        if self.may_begin_thread:
            return None
        return self.seen if self.root is None or self.root.epoch is None else self.root.epoch

    def counts_on(self, parent: StateKey) -> bool:
        """Whether it needs the checkpoint that it is put below.

        So it does where its run has read or stored one, and didn't look for that one in vain.
        """
        root = self.root
        return root is not None and root.epoch is not None and parent not in root.absent

    @property
    def may_begin_thread(self) -> bool:
        """Whether it may be the first of its thread, as things stand now."""
        return self.begins_thread and (self.below is None or not self.below.has_put)


NO_CHANGE = SessionChange()


def joined(change: SessionChange) -> SessionChange:
    """The same of a call that joins a transaction.

    What belongs to no run gives its lease back with the call: until the transaction ends the
    session's row is locked, so nobody else comes in between.
    """
    is_of_update = change.lease is not None and change.lease.is_of_update
    return change._replace(ends_run=True) if is_of_update else change


class _Run:
    """What a root graph's run has stored so far.

    `loaded` are the steps of the checkpoints that it can begin at, until it has begun; `idle`
    is the one of them that starts no node. `has_put`: one of its own checkpoints is stored.
    `epoch` is that of the session that it found, or made: one that was begun anew isn't its own.
    `absent` are checkpoints that it, or a subgraph of it, was to begin at and that aren't there.
    """

    __slots__ = ("absent", "control", "course", "epoch", "has_put", "idle", "last_step", "loaded")

    def __init__(self, control: object) -> None:
        # Kept, so that no other one gets its place in memory.
        self.control = control
        self.course = Course()
        self.loaded: dict[str | None, int] = {}
        self.idle: str | None = None
        self.last_step: int | None = None
        self.has_put = False
        self.epoch: int | None = None
        self.absent: set[StateKey] = set()

    @property
    def is_over(self) -> bool:
        return self.course.is_over

    def limit(self, parent_id: str | None, config: RunnableConfig) -> int | None:
        """The step that the run ends after, of a put that begins it; None of any other.

        LangGraph's loop ends after step `first + recursion_limit + 1`, where `first` is the
        one after the checkpoint that it began at.
        """
        limit = config.get("recursion_limit")
        if parent_id in self.loaded and isinstance(limit, int):
            return self.loaded[parent_id] + limit + 2
        return None

    def note_absent(self, address: Address) -> None:
        """The checkpoint of this address, if it names one, was looked for in vain."""
        if address.checkpoint_id is not None:
            self.absent.add((address.stored_ns, address.checkpoint_id))

    def note_put(self, *, is_last: bool, limited_to: int | None) -> None:
        """A put of it is stored."""
        self.has_put = True
        if limited_to is not None:
            self.last_step = limited_to
            self.loaded.clear()
        self.course.note_call()
        self.course.note_end(is_complete=is_last)


class _Stop:
    """Where a run stopped: interrupts and errors can be stored before their checkpoint is."""

    __slots__ = ("noted_at", "status")

    def __init__(self, status: SessionStatus) -> None:
        self.status = status
        self.noted_at = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether the checkpoint, which was on its way, was stored before."""
        return time.monotonic() > self.noted_at + _STOP_SECONDS


class RunTracker:
    """Where the calls of one saver leave their threads' runs.

    `of_put` and `of_writes` look at what is stored, and change nothing. What calls say counts
    from `note_stored` on; until then only for those that are stored in the same statement.
    """

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._runs: Remembered[_Run] = Remembered()
        # Those that found nothing in their thread, by what they share with their subgraphs.
        self._first_runs: Remembered[_Run] = Remembered()
        # All of them, by the same.
        self._roots: Remembered[_Run] = Remembered()
        self._stops: Remembered[_Stop] = Remembered()

    def begin(
        self,
        address: Address,
        config: RunnableConfig,
        found: CheckpointTuple | None,
        base: Base,
        epoch: int | None = None,
    ) -> None:
        """A thread's state was loaded, of a session of this epoch: a run begins, or somebody looks.

        It has to be called where the caller is: in its task or thread, and in its context.
        """
        if address.checkpoint_ns and run_key(config) is not None:  # a subgraph's
            if found is None and (root := self._root(address, config)) is not None:
                root.note_absent(address)
            return  # its run is its root's
        found_id = found.checkpoint["id"] if found else None
        parent = found.parent_config if found else None
        ids = (found_id, parent["configurable"]["checkpoint_id"] if parent else None)
        self._leases.begin(
            address.session_id,
            address.thread_id,
            config,
            namespace=address.stored_ns,
            loaded=ids,
            base=base,
        )
        if (key := run_key(config)) is not None:
            step = found.metadata.get("step") if found else _langgraph.STEP_BEFORE_FIRST
            if isinstance(step, int):
                run = self._run(address, config)
                # LangGraph goes on from one that isn't there as if it were an empty one.
                run.loaded[found_id or address.checkpoint_id] = step
                is_idle = self._leases.is_automatic and found is not None and _is_idle(found)
                run.idle = found_id if is_idle else None
                run.epoch = epoch if run.epoch is None else run.epoch
                self._roots.set((address.session_id, id(key.control)), run)
                if found is None:
                    run.note_absent(address)
                    self._first_runs.set((address.session_id, id(key.control)), run)

    def of_put(
        self,
        address: Address,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        seen: int | None = None,
    ) -> SessionChange:
        """What a `put` says, of a session `seen` by this process under that epoch."""
        lease, root = self._lease(address, config), self._root(address, config)
        seen = seen if root is None else None
        if address.checkpoint_ns:
            return self._of_subgraph(address, config, lease, root, seen)
        is_of_run = run_key(config) is not None
        status = status_of(checkpoint, checkpoint["channel_values"], metadata, is_of_run=is_of_run)
        run = self._runs.get(_key(address, config))
        limited_to = None
        if run is not None:
            limited_to = run.limit(address.checkpoint_id, config)
            last_step = run.last_step if limited_to is None else limited_to
            # Further than that LangGraph doesn't go, be nodes left or not.
            if status == SessionStatus.ACTIVE and _is_reached(last_step, metadata):
                status = SessionStatus.FAILED
        return SessionChange(
            status=status,
            lease=lease,
            begins_thread=address.checkpoint_id is None,
            ends_run=status not in (None, SessionStatus.ACTIVE) or _is_of_update(lease, metadata),
            puts=(address.session_id, checkpoint["id"]),
            run=run,
            limited_to=limited_to,
            root=root,
            seen=seen,
        )

    def _of_subgraph(
        self,
        address: Address,
        config: RunnableConfig,
        lease: Lease | None,
        root: _Run | None,
        seen: int | None,
    ) -> SessionChange:
        """What a put of a subgraph says: it can be stored before any of the graph's own.

        Its namespace's first begins the thread where no run makes it, or one that found nothing.
        """
        below = self._first_run(address, config)
        is_of_first = run_key(config) is None or below is not None
        return SessionChange(
            lease=lease,
            begins_thread=address.checkpoint_id is None and is_of_first,
            below=below,
            ends_run=True if lease is not None and lease.is_of_update else None,
            root=root,
            seen=seen,
        )

    def of_writes(
        self,
        address: Address,
        config: RunnableConfig,
        checkpoint_id: str,
        writes: Sequence[tuple[str, Any]],
        task_path: str,
    ) -> SessionChange:
        """What a `put_writes` says.

        An input that is a Command is written before the first checkpoint of its run.
        """
        is_of_node = not address.checkpoint_ns and not task_path.startswith(_langgraph.CALLED_PATH)
        has_ended, status = _end_of_writes(writes) if is_of_node else (False, None)
        lease = self._lease(address, config)
        if lease is not None and self._starts_nothing(address, config, checkpoint_id, writes):
            has_ended = True
        root, below = self._root(address, config), self._first_run(address, config)
        if lease is None and not has_ended and root is None:
            return NO_CHANGE
        return SessionChange(
            status=status,
            lease=lease,
            begins_thread=below is not None,
            below=below,
            ends_run=True if has_ended else None,
            stops_at=None if status is None else (address.session_id, checkpoint_id),
            root=root,
        )

    def in_order(self, changes: Iterable[SessionChange]) -> list[SessionChange]:
        """What calls say that are stored together, each after those before it.

        A checkpoint at which its run stopped already, as writes said, ends the run with that.
        """
        said: list[SessionChange] = []
        stopped: dict[_Place, SessionStatus] = {}
        for change in changes:
            if change.stops_at is not None and change.status is not None:
                stopped[change.stops_at] = change.status
            elif change.puts is not None:
                earlier = self._stops.get(change.puts)
                status = stopped.get(change.puts, earlier.status if earlier else None)
                if status is not None:
                    change = change._replace(status=status, ends_run=True)
            said.append(change)
        return said

    def note_stored(self, change: SessionChange, epoch: int | None = None) -> None:
        """A call is stored, in a session of this epoch: what `in_order` gave of it counts."""
        if change.root is not None and epoch is not None:
            change.root.epoch = epoch
        puts, stops_at = change.puts, change.stops_at
        if change.lease is not None:
            checkpoint_id = None if puts is None else puts[1]
            change.lease.note_stored(checkpoint_id=checkpoint_id, ends_run=change.ends_run)
        if change.run is not None:
            is_last = bool(change.ends_run)
            change.run.note_put(is_last=is_last, limited_to=change.limited_to)
        if stops_at is not None and change.status is not None:
            self._stops.set(stops_at, _Stop(change.status))
        elif puts is not None and self._stops.get(puts) is not None:
            self._stops.drop(puts)

    def _starts_nothing(
        self,
        address: Address,
        config: RunnableConfig,
        checkpoint_id: str,
        writes: Sequence[tuple[str, Any]],
    ) -> bool:
        """Whether nothing may follow: an answer, or an update, to a run that is complete."""
        run = self._runs.get(_key(address, config))
        if run is None or run.idle != checkpoint_id:
            return False
        return not any(_langgraph.is_trigger(channel) for channel, _ in writes)

    def _lease(self, address: Address, config: RunnableConfig) -> Lease | None:
        return self._leases.of_call(
            address.session_id,
            address.thread_id,
            config,
            namespace=address.stored_ns,
            parent_id=address.checkpoint_id,
        )

    def _root(self, address: Address, config: RunnableConfig) -> _Run | None:
        """The root graph's run that makes a call, or of one of whose subgraphs it is."""
        key = run_key(config)
        found = key and self._roots.get((address.session_id, id(key.control)))
        return found if key is not None and found and found.control is key.control else None

    def _first_run(self, address: Address, config: RunnableConfig) -> _Run | None:
        """The same, where it found nothing in its thread."""
        key = run_key(config)
        found = key and self._first_runs.get((address.session_id, id(key.control)))
        return found if key is not None and found and found.control is key.control else None

    def _run(self, address: Address, config: RunnableConfig) -> _Run:
        """That which makes a call; those that none makes count as one."""
        key, run = _key(address, config), run_key(config)
        control = None if run is None else run.control
        found = self._runs.get(key)
        if found is None or found.control is not control:
            found = _Run(control)
            self._runs.set(key, found)
        return found


def _is_of_update(lease: Lease | None, metadata: Mapping[str, Any]) -> bool:
    """Whether update_state makes the checkpoint, be there nodes that it starts or not."""
    is_made = metadata.get("source") in ("update", "fork", "input")
    return is_made and lease is not None and lease.is_of_update


def _is_reached(last_step: int | None, metadata: Mapping[str, Any]) -> bool:
    step = metadata.get("step")
    return last_step is not None and isinstance(step, int) and step >= last_step


def _key(address: Address, config: RunnableConfig) -> tuple[UUID, int | None]:
    run = run_key(config)
    return address.session_id, None if run is None else id(run.runtime)


def _is_idle(found: CheckpointTuple) -> bool:
    """Whether a root graph's checkpoint starts no node."""
    checkpoint = found.checkpoint
    status = status_of(checkpoint, checkpoint["channel_values"], found.metadata)
    return status is SessionStatus.COMPLETED


def _end_of_writes(writes: Sequence[tuple[str, Any]]) -> tuple[bool, SessionStatus | None]:
    """Whether a node that writes this is its run's last, and the status at which that ends."""
    values = dict(writes)
    if ERROR in values:
        if _langgraph.ERROR_SOURCE in values:  # an error handler goes on
            return False, None
        # Cancelling a run is no failure of its nodes.
        return True, None if isinstance(values[ERROR], CANCELLED) else SessionStatus.FAILED
    return (True, SessionStatus.PAUSED) if INTERRUPT in values else (False, None)
