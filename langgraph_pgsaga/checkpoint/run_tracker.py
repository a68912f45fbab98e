"""Where a call leaves its thread's run: its status, and the lease it is written under."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT

from langgraph_pgsaga import _langgraph
from langgraph_pgsaga._langgraph import run_key
from langgraph_pgsaga.checkpoint.lease import Base, Lease, Leases
from langgraph_pgsaga.checkpoint.run import Course, Remembered
from langgraph_pgsaga.checkpoint.status import status_of
from langgraph_pgsaga.threads import Address, SessionStatus

_CANCELLED = (asyncio.CancelledError, concurrent.futures.CancelledError)


class SessionChange(NamedTuple):
    """What a call says of its thread's run.

    `status` is that of agent_sessions, where the call tells it: active, or one of those at
    which a run has ended. `lease` is what it writes under. `begins_thread`: it needs nothing
    that is stored.
    """

    status: SessionStatus | None = None
    lease: Lease | None = None
    begins_thread: bool = False


NO_CHANGE = SessionChange()


class _Run:
    """What a root graph's run has said of itself.

    `loaded` are the steps of the checkpoints that it can begin at, `idle` is the one of them
    that starts no node. `stops` is where it stopped: interrupts and errors can be written
    before their checkpoint is.
    """

    __slots__ = ("control", "course", "idle", "last_step", "loaded", "stops")

    def __init__(self, control: object) -> None:
        # Kept, so that no other one gets its place in memory.
        self.control = control
        self.course = Course()
        self.loaded: dict[str | None, int] = {}
        self.idle: str | None = None
        self.last_step: int | None = None
        self.stops: dict[str, SessionStatus] = {}

    @property
    def is_over(self) -> bool:
        return self.course.is_over

    def is_at_its_limit(
        self, parent_id: str | None, config: RunnableConfig, metadata: Mapping[str, Any]
    ) -> bool:
        """Whether LangGraph goes on with no further step, be nodes left or not.

        Its loop ends after step `first + recursion_limit + 1`, where `first` is the one after
        the checkpoint that it began at.
        """
        limit, step = config.get("recursion_limit"), metadata.get("step")
        if parent_id in self.loaded and isinstance(limit, int):
            self.last_step = self.loaded[parent_id] + limit + 2
            self.loaded.clear()
        return self.last_step is not None and isinstance(step, int) and step >= self.last_step


class RunTracker:
    """Where the calls of one saver leave their threads' runs."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._runs: Remembered[_Run] = Remembered()

    def begin(
        self, address: Address, config: RunnableConfig, found: CheckpointTuple | None, base: Base
    ) -> None:
        """A thread's state was loaded: a run begins, or somebody looks.

        It has to be called where the caller is: in its task or thread, and in its context.
        """
        if address.checkpoint_ns:
            return
        found_id = found.checkpoint["id"] if found else None
        parent = found.parent_config if found else None
        ids = (found_id, parent["configurable"]["checkpoint_id"] if parent else None)
        self._leases.begin(address.session_id, address.thread_id, config, loaded=ids, base=base)
        if run_key(config) is not None:
            step = found.metadata.get("step") if found else _langgraph.STEP_BEFORE_FIRST
            if isinstance(step, int):
                run = self._run(address, config)
                run.loaded[found_id] = step
                is_idle = self._leases.is_automatic and found is not None and _is_idle(found)
                run.idle = found_id if is_idle else None

    def of_put(
        self,
        address: Address,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
    ) -> SessionChange:
        """That of a `put`, which from now on counts as stored."""
        is_root, parent_id = not address.checkpoint_ns, address.checkpoint_id
        lease = self._lease(address, config)
        status = None
        if is_root:
            status = self._status(address, config, checkpoint, metadata)
            has_ended = status not in (None, SessionStatus.ACTIVE)
            if lease is not None:
                lease.note_end(has_ended=has_ended, is_complete=has_ended)
                if lease.course is not None:
                    lease.loaded.add(checkpoint["id"])
        return SessionChange(status, lease, begins_thread=is_root and parent_id is None)

    def of_writes(
        self,
        address: Address,
        config: RunnableConfig,
        checkpoint_id: str,
        writes: Sequence[tuple[str, Any]],
        task_path: str,
    ) -> SessionChange:
        """That of a `put_writes`."""
        is_of_node = not address.checkpoint_ns and not task_path.startswith(_langgraph.CALLED_PATH)
        has_ended, status = _end_of_writes(writes) if is_of_node else (False, None)
        if status is not None:
            self._run(address, config).stops[checkpoint_id] = status
        lease = self._lease(address, config)
        if lease is not None and (
            has_ended or self._starts_nothing(address, config, checkpoint_id, writes)
        ):
            lease.note_end(has_ended=True, is_complete=False)
        return SessionChange(status, lease)

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

    def _status(
        self,
        address: Address,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
    ) -> SessionStatus | None:
        """That of the root graph's checkpoint, by what its run has said so far."""
        status = status_of(checkpoint["channel_versions"], checkpoint["channel_values"], metadata)
        run = self._runs.get(_key(address, config))
        if run is None:
            return status
        if (
            run.is_at_its_limit(address.checkpoint_id, config, metadata)
            and status == SessionStatus.ACTIVE
        ):
            status = SessionStatus.FAILED
        status = run.stops.pop(checkpoint["id"], status)
        run.course.note_call()
        run.course.note_end(is_complete=status not in (None, SessionStatus.ACTIVE))
        return status

    def _lease(self, address: Address, config: RunnableConfig) -> Lease | None:
        return self._leases.of_call(
            address.session_id,
            address.thread_id,
            config,
            is_root=not address.checkpoint_ns,
            parent_id=address.checkpoint_id,
        )

    def _run(self, address: Address, config: RunnableConfig) -> _Run:
        """That which makes a call; those that none makes count as one."""
        key, run = _key(address, config), run_key(config)
        control = None if run is None else run.control
        found = self._runs.get(key)
        if found is None or found.control is not control:
            found = _Run(control)
            self._runs.set(key, found)
        return found


def _key(address: Address, config: RunnableConfig) -> tuple[UUID, int | None]:
    run = run_key(config)
    return address.session_id, None if run is None else id(run.runtime)


def _is_idle(found: CheckpointTuple) -> bool:
    """Whether a root graph's checkpoint starts no node."""
    checkpoint = found.checkpoint
    status = status_of(checkpoint["channel_versions"], checkpoint["channel_values"], found.metadata)
    return status is SessionStatus.COMPLETED


def _end_of_writes(writes: Sequence[tuple[str, Any]]) -> tuple[bool, SessionStatus | None]:
    """Whether a node that writes this is its run's last, and the status at which that ends."""
    values = dict(writes)
    if ERROR in values:
        if _langgraph.ERROR_SOURCE in values:  # an error handler goes on
            return False, None
        # Cancelling a run is no failure of its nodes.
        return True, None if isinstance(values[ERROR], _CANCELLED) else SessionStatus.FAILED
    return (True, SessionStatus.PAUSED) if INTERRUPT in values else (False, None)
