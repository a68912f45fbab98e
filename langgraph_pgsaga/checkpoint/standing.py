"""Where a call leaves its thread's run: its status, and the lease it is written under."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT

from langgraph_pgsaga.checkpoint import triggers
from langgraph_pgsaga.checkpoint.address import Address, root_checkpoint_id
from langgraph_pgsaga.checkpoint.lease import Lease, Leases

# agent_sessions.status.
ACTIVE, PAUSED, COMPLETED, FAILED = "active", "paused", "completed", "failed"

_MOST_STOPS = 10_000


class Standing(NamedTuple):
    """What a call says of its thread's run.

    `status` is that of agent_sessions, where the call tells it: active, or one of those at
    which a run has ended. `lease` is what it writes under, `may_claim` whether that may
    begin with it. `begins_thread`: it needs nothing that is stored.
    """

    status: str | None = None
    lease: Lease | None = None
    may_claim: bool = False
    begins_thread: bool = False


NO_STANDING = Standing()


class Standings:
    """Where the calls of one saver leave their threads' runs."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        # Where runs stopped: interrupts and errors can be written before their checkpoint is.
        self._stops: OrderedDict[tuple[UUID, str], str] = OrderedDict()
        self._lock = threading.Lock()

    def of_put(
        self,
        address: Address,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
    ) -> Standing:
        """That of a `put`, which from now on counts as stored."""
        is_root, parent_id = not address.checkpoint_ns, address.checkpoint_id
        lease = self._lease(address, config, is_root_put=is_root)
        status, may_claim = None, lease is not None
        if is_root:
            with self._lock:
                stopped = self._stops.pop((address.session_id, checkpoint["id"]), None)
            status = stopped or status_of(checkpoint, metadata)
            if lease is not None:
                may_claim = self._leases.may_begin(lease, parent_id)
                lease.note_end(has_ended=status not in (None, ACTIVE))
                self._leases.stored_under(lease, checkpoint["id"])
        begins_thread = is_root and parent_id is None
        return Standing(status, lease, may_claim, begins_thread)

    def of_writes(
        self,
        address: Address,
        config: RunnableConfig,
        checkpoint_id: str,
        writes: Sequence[tuple[str, Any]],
    ) -> Standing:
        """That of a `put_writes`."""
        status = None if address.checkpoint_ns else _status_of_writes(writes)
        if status is not None:
            with self._lock:
                self._stops[address.session_id, checkpoint_id] = status
                if len(self._stops) > _MOST_STOPS:
                    self._stops.popitem(last=False)
        lease = self._lease(address, config, is_root_put=False)
        if lease is not None and status is not None:
            lease.note_end(has_ended=True)
        return Standing(status=status, lease=lease, may_claim=lease is not None)

    def _lease(
        self, address: Address, config: RunnableConfig, *, is_root_put: bool
    ) -> Lease | None:
        root_id = root_checkpoint_id(config, address)
        return self._leases.of_call(address.session_id, root_id, is_root_put=is_root_put)


def status_of(checkpoint: Checkpoint, metadata: CheckpointMetadata) -> str | None:
    """The status that the root graph's checkpoint leaves its thread with, if it tells."""
    if not triggers.is_known(checkpoint["channel_versions"]):
        return None
    if not triggers.next_nodes(checkpoint["channel_values"]):
        return COMPLETED
    # A state that somebody made waits for a run.
    return PAUSED if metadata.get("source") in ("update", "fork") else ACTIVE


def _status_of_writes(writes: Sequence[tuple[str, Any]]) -> str | None:
    channels = {channel for channel, _ in writes}
    if ERROR in channels:
        return FAILED
    return PAUSED if INTERRUPT in channels else None
