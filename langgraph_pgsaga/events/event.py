"""AgentEvent: what happened, and EventType: what kind of thing that is."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any, ClassVar
from uuid import UUID

from langgraph_pgsaga.events.place import EventPlace


@dataclass(frozen=True, slots=True)
class EventType:
    """A kind of event. Your own are made as these: `REFUND_PAID = EventType("refund_paid")`."""

    value: str

    SESSION_CREATED: ClassVar[EventType]
    MESSAGE_RECEIVED: ClassVar[EventType]
    TOOL_EXECUTED: ClassVar[EventType]
    STATE_UPDATED: ClassVar[EventType]
    AGENT_ASSIGNED: ClassVar[EventType]
    WORKFLOW_STARTED: ClassVar[EventType]
    COORDINATION_UPDATED: ClassVar[EventType]
    ERROR_OCCURRED: ClassVar[EventType]

    def __str__(self) -> str:
        return self.value


for _name in (
    *("session_created", "message_received", "tool_executed", "state_updated"),
    *("agent_assigned", "workflow_started", "coordination_updated", "error_occurred"),
):
    setattr(EventType, _name.upper(), EventType(_name))

event_type_of = lru_cache(maxsize=4096)(EventType)


# The bits of a UUID that say how it was made.
_VERSION_BITS = 0xF000 << 64 | 0xC000 << 48
_VERSION_7 = 0x7000 << 64 | 0x8000 << 48


def new_event_id() -> str:
    """A UUID (version 7) as text: later ones come last, so that an index grows at its end."""
    milliseconds = time.time_ns() // 1_000_000
    number = milliseconds << 80 | int.from_bytes(os.urandom(10), "big")
    text = f"{number & ~_VERSION_BITS | _VERSION_7:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _now() -> datetime:
    return datetime.now(UTC)


class _Slots:
    """Those of an AgentEvent. What is filled as one of these, and becomes one, takes a tenth of
    what a frozen dataclass takes to be made."""

    __slots__ = (
        *("event_type", "aggregate_id", "aggregate_type", "event_id", "event_data", "metadata"),
        *("timestamp", "version", "correlation_id", "causation_id", "tags", "schema_version"),
        *("session_id", "checkpoint_id", "subject", "erased", "place", "recorded_at"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentEvent(_Slots):
    """Something that happened, as one event of an aggregate.

    To append one, its type and data are enough: `append` names the aggregate. `event_data` may be a
    dict, a dataclass or a pydantic model; of an event that was read it is a dict.

    What an event has once it is stored: its `version` in the aggregate (from 1), its `place` in
    the log and when it was `recorded_at`. Before, these are None.

    Args:
        event_id: an id of yours makes an append that can be repeated, also by another process.
        tags: what conditions and reads may ask for, such as "account:7".
        schema_version: the form of `event_data`; older ones are brought up to date by upcasters.
        correlation_id, causation_id: what it belongs to, and what brought it about. Within a run
            of a graph, None becomes the thread's id, and the run's (without one the checkpoint's).
        session_id, checkpoint_id: of the step that appended it.
        subject: whom its personal fields are about, such as "user-7": they are encrypted by that
            one's key. Of an event that was read None, where none of them can be read.
        erased: of an event that was read, the fields that were erased, whose values are None.
        timestamp: when it happened.
    """

    event_type: EventType | str
    aggregate_id: str = ""
    aggregate_type: str = ""
    event_id: str = field(default_factory=new_event_id)
    event_data: Any = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    timestamp: datetime = field(default_factory=_now)
    version: int | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    tags: Sequence[str] = ()
    schema_version: int = 1
    session_id: UUID | None = None
    checkpoint_id: str | None = None
    subject: str | None = None
    erased: Sequence[str] = ()
    place: EventPlace | None = None
    recorded_at: datetime | None = None

    def __post_init__(self) -> None:
        if isinstance(self.event_type, str):
            object.__setattr__(self, "event_type", event_type_of(self.event_type))

    def but(self, **changed: Any) -> AgentEvent:
        """The event with other values: `dataclasses.replace`, without a new id for it."""
        fields = zip(_FIELDS, _values_of(self), strict=True)
        return made_event(*(changed.get(name, value) for name, value in fields))

    def note_stored(self, version: int, place: EventPlace, recorded_at: datetime) -> None:
        """It is stored there: of an event that nobody but the append has yet."""
        _set(self, "version", version)
        _set(self, "place", place)
        _set(self, "recorded_at", recorded_at)

    @property
    def position(self) -> int | None:
        """Its number in the log, unique in the database; the order of reading is `cursor`'s."""
        return None if self.place is None else self.place.position

    @property
    def cursor(self) -> str | None:
        """Where to go on behind it: `after=` of `read_all` and `subscribe`."""
        return None if self.place is None else self.place.cursor()


def made_event(
    event_type: EventType | str,
    aggregate_id: str,
    aggregate_type: str,
    event_id: str,
    event_data: Any,
    metadata: Mapping[str, Any],
    timestamp: datetime,
    version: int | None,
    correlation_id: str | None,
    causation_id: str | None,
    tags: Sequence[str],
    schema_version: int,
    session_id: UUID | None,
    checkpoint_id: str | None,
    subject: str | None,
    erased: Sequence[str],
    place: EventPlace | None,
    recorded_at: datetime | None,
) -> AgentEvent:
    """An AgentEvent of its fields in their order, for each that is read or appended."""
    made: Any = _Slots()
    made.event_type = event_type
    made.aggregate_id = aggregate_id
    made.aggregate_type = aggregate_type
    made.event_id = event_id
    made.event_data = event_data
    made.metadata = metadata
    made.timestamp = timestamp
    made.version = version
    made.correlation_id = correlation_id
    made.causation_id = causation_id
    made.tags = tags
    made.schema_version = schema_version
    made.session_id = session_id
    made.checkpoint_id = checkpoint_id
    made.subject = subject
    made.erased = erased
    made.place = place
    made.recorded_at = recorded_at
    made.__class__ = AgentEvent
    found: AgentEvent = made
    return found


_FIELDS = tuple(AgentEvent.__dataclass_fields__)
_values_of = attrgetter(*_FIELDS)
_set = object.__setattr__
