"""Work in the background: claims that were lost, and workers that can't begin."""

from __future__ import annotations

from dataclasses import dataclass

from langgraph_pgsaga.errors.root import PgSagaError


@dataclass(kw_only=True, eq=False)
class ClaimLostError(PgSagaError):
    """A row is no longer this process's to work at. Nothing was written.

    `claim` names the row, `fence` says how often it had been claimed when this process had it.
    """

    claim: str
    fence: int

    def __str__(self) -> str:
        return (
            f"the claim of {self.claim} (fence {self.fence}) was lost: it wasn't renewed in time, "
            "or somebody else has the row now, or it is gone. Nothing was written. Let this work "
            "end; it is begun again by whoever claims the row"
        )


@dataclass(kw_only=True, eq=False)
class UnfinishedClaimError(PgSagaError):
    """A job's `run` returned and left its row claimed."""

    claim: str

    def __str__(self) -> str:
        return (
            f"the job's run() returned without having ended its claim of {self.claim}: the row "
            "would be done again. Write its outcome by `await claim.end(statement, ...)`"
        )


@dataclass(kw_only=True, eq=False)
class WorkerRunningError(PgSagaError):
    """A Worker is entered, or run, a second time before it has ended."""

    def __str__(self) -> str:
        return "this worker runs already. Wait for it to end, or make another one"
