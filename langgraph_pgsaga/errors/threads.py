"""Threads, their checkpoints and who may write to them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from langgraph_pgsaga.errors.root import PgSagaError


@dataclass(kw_only=True, eq=False)
class ThreadExistsError(PgSagaError):
    """`copy_thread` never merges into, or overwrites, a thread that holds state."""

    thread_id: str

    def __str__(self) -> str:
        return (
            f"thread {self.thread_id!r} already holds state. "
            "Copy to a new thread id, or delete_thread() it first"
        )


@dataclass(kw_only=True, eq=False)
class SessionExistsError(PgSagaError):
    """A session is created once; a run of the thread makes it, too."""

    thread_id: str

    def __str__(self) -> str:
        return f"thread {self.thread_id!r} has a session already. Change it with update()"


@dataclass(kw_only=True, eq=False)
class MissingThreadError(PgSagaError):
    """The thread isn't there: it never ran, no session was created for it, or it was deleted."""

    thread_id: str

    def __str__(self) -> str:
        return (
            f"there is no thread {self.thread_id!r}. Check the id, the database, the schema and "
            "the tenant; a thread is there once a graph has run with its id"
        )


@dataclass(kw_only=True, eq=False)
class ThreadDeletedError(PgSagaError):
    """The thread was deleted while a run of it went on. Nothing of it comes back."""

    thread_id: str

    def __str__(self) -> str:
        return (
            f"thread {self.thread_id!r} was deleted while this run of it went on: what the run "
            "would store now is refused. Begin anew with an input"
        )


@dataclass(kw_only=True, eq=False)
class LeaseError(PgSagaError):
    """A thread has one writer at a time. Nothing was stored."""

    thread_id: str

    def __str__(self) -> str:
        return f"thread {self.thread_id!r} is somebody else's to write to"


@dataclass(kw_only=True, eq=False)
class ThreadLeasedError(LeaseError):
    """Somebody else has the lease: `holder` (host and process) until `expires_at`, or longer."""

    holder: str | None
    expires_at: datetime | None

    def __str__(self) -> str:
        until = f" until {self.expires_at}" if self.expires_at else ""
        return (
            f"thread {self.thread_id!r} is being written to by {self.holder or 'somebody else'}, "
            f"whose lease lasts{until} and is renewed as it goes on. Try again when it has ended"
        )


@dataclass(kw_only=True, eq=False)
class LeaseLostError(LeaseError):
    """Somebody else has written to the thread, or may, since this run or block began."""

    def __str__(self) -> str:
        return (
            f"this run may not write to thread {self.thread_id!r} any more: its lease ended, or "
            "another run came first. Begin anew from the thread's latest state"
        )


@dataclass(kw_only=True, eq=False)
class MissingCheckpointError(PgSagaError):
    """The thread has no checkpoint like the one asked for."""

    thread_id: str

    def __str__(self) -> str:
        return (
            f"thread {self.thread_id!r} has no such checkpoint. "
            "list(history(graph, config)) shows those it has"
        )


@dataclass(kw_only=True, eq=False)
class CheckpointDeletedError(MissingCheckpointError):
    """A checkpoint that this process read, or wrote, isn't there any more, or what it is built on.

    It was deleted, or the server lost it: a standby took over that was behind, or an older copy
    of the database was put in its place.
    """

    checkpoint_id: str

    def __str__(self) -> str:
        return (
            f"checkpoint {self.checkpoint_id!r} of thread {self.thread_id!r}, or what it is built "
            "on, isn't there any more: it was deleted since it was read here (by prune, sweep or "
            "delete_for_runs), or lost with a server whose standby or copy was behind. Nothing "
            "can be read or stored below it. Begin with the thread's latest state"
        )


@dataclass(kw_only=True, eq=False)
class NameTakenError(PgSagaError):
    """Another checkpoint of the thread has this name already."""

    thread_id: str
    name: str

    def __str__(self) -> str:
        return (
            f"thread {self.thread_id!r} has a checkpoint named {self.name!r} already. "
            "Choose another name, or take it away from that one: name_checkpoint(..., None)"
        )
