"""What an import did, thread by thread."""

from __future__ import annotations

from dataclasses import dataclass

from langgraph_pgsaga.errors import PgSagaError, copy_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadReport:
    """One thread. Under `dry_run`, `stored` and `writes` are what would be stored."""

    thread_id: str
    # Checkpoints of the source, in all namespaces.
    checkpoints: int
    # Of these, stored by this import; the others were here already.
    stored: int
    # Pending writes stored with them.
    writes: int
    # Why the thread isn't whole here, or can't be; empty where all is well.
    errors: tuple[PgSagaError, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """All threads, in the order in which they were taken."""

    threads: tuple[ThreadReport, ...]
    dry_run: bool

    @property
    def failed(self) -> tuple[ThreadReport, ...]:
        """The threads that have errors."""
        return tuple(thread for thread in self.threads if thread.errors)

    @property
    def checkpoints(self) -> int:
        """How many checkpoints the source has of these threads."""
        return sum(thread.checkpoints for thread in self.threads)

    @property
    def stored(self) -> int:
        """How many of them this import stored (or, under `dry_run`, would store)."""
        return sum(thread.stored for thread in self.threads)

    @property
    def writes(self) -> int:
        """How many pending writes came with them."""
        return sum(thread.writes for thread in self.threads)

    def raise_first(self) -> None:
        """Raises the first error, if there is one."""
        for thread in self.failed:
            raise copy_of(thread.errors[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportProgress:
    """How far an import is, after each batch of checkpoints."""

    thread_id: str
    threads_done: int
    threads: int
    checkpoints_done: int
