"""Threads of other savers."""

from __future__ import annotations

from dataclasses import dataclass

from langgraph_pgsaga.errors.root import PgSagaError


@dataclass(kw_only=True, eq=False)
class TakeoverError(PgSagaError):
    """A thread can't be taken over from another saver. There it is as it was."""

    thread_id: str

    def __str__(self) -> str:
        return f"thread {self.thread_id!r} can't be taken over"


@dataclass(kw_only=True, eq=False)
class ThreadDivergedError(TakeoverError):
    """Each saver has checkpoints of the thread that the other lacks. Nothing was mixed."""

    def __str__(self) -> str:
        return (
            f"thread {self.thread_id!r} went on in both savers, each its own way. "
            "Keep one: delete_thread() it here and import it again, or leave it out"
        )


@dataclass(kw_only=True, eq=False)
class TakeoverMismatchError(TakeoverError):
    """A checkpoint here isn't what the other saver has; `place` says where in it."""

    checkpoint_ns: str
    checkpoint_id: str
    place: str

    def __str__(self) -> str:
        return (
            f"thread {self.thread_id!r}, namespace {self.checkpoint_ns!r}, checkpoint "
            f"{self.checkpoint_id!r}: {self.place} differs from the saver it was taken from"
        )


@dataclass(kw_only=True, eq=False)
class UnreadableThreadError(TakeoverError):
    """The other saver raised, or lost the thread meanwhile. The cause is chained."""

    problem: str

    def __str__(self) -> str:
        return f"thread {self.thread_id!r} can't be read from the other saver: {self.problem}"
