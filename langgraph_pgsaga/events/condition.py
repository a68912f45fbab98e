"""Conditions: an append that depends on what others append, whatever aggregates it is in.

The idea is the "dynamic consistency boundary": a decision is made from the events that have some
types and tags, and holds as long as no other of these came.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from langgraph_pgsaga._arguments import checked_integer, checked_items, required_text
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.events.event import AgentEvent, EventType
from langgraph_pgsaga.threads import session_id_of

LARGEST_POSITION = 2**63 - 1
LONGEST_NAME_BYTES = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """No event that has one of the types, and all of the tags, came after a position.

    The types have to be guarded (`EventStore.guard`). `after` is the position of the last event
    that the decision was made from, as `EventStore.read_matching` gives it; 0 is the beginning.
    """

    types: Sequence[EventType | str]
    tags: Sequence[str]
    after: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "types", tuple(checked_types("types", self.types)))
        object.__setattr__(self, "tags", tuple(checked_tags("tags", self.tags)))
        checked_integer("after", self.after, least=0, most=LARGEST_POSITION)
        for argument, given in (("types", self.types), ("tags", self.tags)):
            if not given:
                problem = "has none: a condition is about events of some types with some tags"
                raise InvalidArgumentError(argument=argument, problem=problem)

    @property
    def type_names(self) -> tuple[str, ...]:
        """The types, as they are stored."""
        return tuple(map(str, self.types))


def checked_types(argument: str, given: Iterable[EventType | str]) -> list[str]:
    """The names of types of events, each given as an EventType or as text."""
    return [checked_type(argument, one) for one in checked_items(argument, given)]


def checked_type(argument: str, given: EventType | str) -> str:
    """The name of a type of events."""
    name = given.value if isinstance(given, EventType) else given
    return checked_name(argument, name)


def checked_name(argument: str, given: str) -> str:
    """Text that an index holds, and that isn't empty."""
    # Nearly always; each event has several.
    is_short = type(given) is str and given.isascii() and 0 < len(given) <= LONGEST_NAME_BYTES
    if is_short and "\0" not in given:
        return given
    name = str.__str__(required_text(argument, given))
    if not name or len(name.encode()) > LONGEST_NAME_BYTES:
        problem = f"must have 1 to {LONGEST_NAME_BYTES} bytes in UTF-8, not {len(name.encode())}"
        raise InvalidArgumentError(argument=argument, problem=problem)
    return name


def aggregate_id_of(thread_id: str, tenant_id: str) -> str:
    """A thread's id; where that is longer than an index takes, its session's."""
    if len(thread_id.encode()) <= LONGEST_NAME_BYTES:
        return thread_id
    return str(session_id_of(thread_id, tenant_id))


def checked_tags(argument: str, given: Iterable[str]) -> list[str]:
    """Tags, each once."""
    if type(given) is tuple and not given:
        return []
    return list(
        dict.fromkeys(checked_name(argument, one) for one in checked_items(argument, given))
    )


def locked_keys(
    tenant_id: str,
    events: Iterable[AgentEvent],
    guarded: Iterable[str],
    condition: Condition | None,
) -> list[int]:
    """What an append locks, in order: each guarded type with each tag, of events and condition."""
    known = set(guarded)
    pairs = {(str(e.event_type), tag) for e in events for tag in e.tags} if known else set()
    pairs = {(name, tag) for name, tag in pairs if name in known}
    if condition is not None:
        pairs |= {(name, tag) for name in condition.type_names for tag in condition.tags}
    return sorted({_key(tenant_id, name, tag) for name, tag in pairs})


def _key(tenant_id: str, event_type: str, tag: str) -> int:
    # A byte that UTF-8 hasn't got between them, so that no two make the same bytes.
    named = b"\xff".join((b"events", tenant_id.encode(), event_type.encode(), tag.encode()))
    return int.from_bytes(hashlib.sha256(named).digest()[:8], "big", signed=True)
