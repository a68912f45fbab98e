"""Steps of a run: effects that are to be stored with one, and whether one is stored."""

from __future__ import annotations

from dataclasses import dataclass

from langgraph_pgsaga.errors.root import PgSagaError


@dataclass(kw_only=True, eq=False)
class StepError(PgSagaError):
    """What belongs to a step of a run can't be done. `problem` says why, and what to do."""

    problem: str

    def __str__(self) -> str:
        return self.problem


@dataclass(kw_only=True, eq=False)
class NoStepError(StepError):
    """There is no step that would be stored: no node is running, or no such saver is there."""


@dataclass(kw_only=True, eq=False)
class StepEndedError(StepError):
    """The attempt of the node `node` has ended; nothing was written."""

    node: str
    problem: str = "has ended"

    def __str__(self) -> str:
        return (
            f"this_step() of node {self.node!r} {self.problem}: it returned, failed, or ran out "
            "of time, so nothing can be stored with it any more, and nothing was. Call "
            "this_step() anew in each attempt, and await what it is passed to before the node "
            "returns"
        )


@dataclass(kw_only=True, eq=False)
class StepNotStoredError(StepError):
    """A step isn't stored where it has to be: its checkpoint, or what it wrote."""

    checkpoint_id: str

    def __str__(self) -> str:
        return f"checkpoint {self.checkpoint_id!r}: {self.problem}"
