"""Aggregates: what an aggregate's events add up to, from the last snapshot on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from langgraph_pgsaga._arguments import checked_integer, shown
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.events.condition import checked_name
from langgraph_pgsaga.events.event import AgentEvent

StateT = TypeVar("StateT")


def _same(state: Any) -> Any:
    return state


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate(Generic[StateT]):
    """How the events of a type of aggregate add up to a state.

    A state is never changed: `apply` returns the one that follows.

    Args:
        initial: makes the state of an aggregate without events.
        apply: the state after an event.
        schema_version: of the snapshots. Raise it when the state gets another form: snapshots of
            another version are passed over.
        snapshot_every: after so many events that were read without a snapshot, `fold` stores
            one; None stores none.
        dump, load: the state as what a snapshot holds, a dict, a dataclass or a pydantic model;
            and the state of the dict that comes back. Needed for another state than a dict.
    """

    aggregate_type: str
    initial: Callable[[], StateT]
    apply: Callable[[StateT, AgentEvent], StateT]
    schema_version: int = 1
    snapshot_every: int | None = None
    dump: Callable[[StateT], Any] = _same
    load: Callable[[dict[str, Any]], StateT] = _same

    def __post_init__(self) -> None:
        checked_name("aggregate_type", self.aggregate_type)
        checked_integer("schema_version", self.schema_version, least=1)
        if self.snapshot_every is not None:
            checked_integer("snapshot_every", self.snapshot_every, least=1)
        for argument in ("initial", "apply", "dump", "load"):
            if not callable(given := getattr(self, argument)):
                problem = f"must be a function, not {shown(given)}"
                raise InvalidArgumentError(argument=argument, problem=problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded(Generic[StateT]):
    """The state of an aggregate at a version, which is what to expect when appending to it."""

    state: StateT
    version: int
