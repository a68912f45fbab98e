"""Consumers of events: which aren't there, or aren't what they are told to be."""

from __future__ import annotations

from dataclasses import dataclass

from langgraph_pgsaga.errors.events import EventError


@dataclass(kw_only=True, eq=False)
class MissingConsumerError(EventError):
    """There is no consumer of this name, of this tenant. Nothing was changed."""

    consumer: str

    def __str__(self) -> str:
        return (
            f"there is no consumer {self.consumer!r}. One is there from its first start in a "
            "worker on; `pgsaga events consumers` lists them"
        )


@dataclass(kw_only=True, eq=False)
class ConsumerConflictError(EventError):
    """A consumer of this name is there, and is another: see `problem`."""

    consumer: str
    problem: str

    def __str__(self) -> str:
        return f"consumer {self.consumer!r} {self.problem}"


@dataclass(kw_only=True, eq=False)
class ProjectionBehindError(EventError):
    """The projection that is to take another's place hasn't come as far. Nothing was changed.

    `events` is how many it is behind (counted to 10,000), `dead_letters` for how many aggregates
    it waits.
    """

    consumer: str
    events: int
    dead_letters: int

    def __str__(self) -> str:
        return (
            f"projection {self.consumer!r} is {self.events} events behind the one whose place it "
            f"is to take, and {self.dead_letters} aggregates of it wait. Let a worker run it "
            "until it has come as far, and switch again"
        )


@dataclass(kw_only=True, eq=False)
class MissingDeadLetterError(EventError):
    """No aggregate waits for this event, for this consumer. Nothing was changed."""

    consumer: str
    event_id: str

    def __str__(self) -> str:
        return (
            f"consumer {self.consumer!r} has no dead letter of event {self.event_id!r}: it was "
            "handled, or skipped, or never failed. `pgsaga events dead-letters list` has them"
        )
