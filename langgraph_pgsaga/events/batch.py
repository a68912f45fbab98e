"""The events of one append as the arrays of its statement, checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID

import asyncpg

from langgraph_pgsaga import _json
from langgraph_pgsaga._arguments import (
    checked_integer,
    checked_items,
    checked_text,
    checked_time,
    shown,
)
from langgraph_pgsaga.errors import InvalidArgumentError, UnstorableValueError
from langgraph_pgsaga.events.condition import (
    aggregate_id_of,
    checked_name,
    checked_tags,
    checked_type,
)
from langgraph_pgsaga.events.data import encode_data, encode_plain, encode_tags
from langgraph_pgsaga.events.event import AgentEvent, made_event
from langgraph_pgsaga.events.place import EventPlace
from langgraph_pgsaga.events.subjects import MARK, check_unmarked
from langgraph_pgsaga.threads import session_id_of
from langgraph_pgsaga.work import RunContext

MOST_EVENTS = 10_000
_LARGEST_BATCH_BYTES = 64 * 2**20


class ExpectedVersion(Enum):
    """What an append expects of the aggregate, other than a version."""

    ANY = "any"
    NONE = "none"
    EXISTS = "exists"


ANY: Final = ExpectedVersion.ANY
NONE: Final = ExpectedVersion.NONE
EXISTS: Final = ExpectedVersion.EXISTS
Expected: TypeAlias = int | ExpectedVersion

# As the statement takes them.
_STORED: dict[ExpectedVersion, int | None] = {ANY: None, NONE: 0, EXISTS: -1}


def stored_expected(expected: Expected) -> int | None:
    """What the statement takes: null is any, -1 exists, else the version."""
    if isinstance(expected, ExpectedVersion):
        return _STORED[expected]
    try:
        return checked_integer("expected_version", expected, least=0)
    except InvalidArgumentError as error:
        problem = (
            f"{error.problem}. Besides there are NONE, EXISTS and ANY of langgraph_pgsaga.events"
        )
        raise InvalidArgumentError(argument=error.argument, problem=problem) from None


def told_expected(expected: Expected) -> int | str:
    """What an error says."""
    return expected.value if isinstance(expected, ExpectedVersion) else expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Checked events of one aggregate, and their columns.

    The events are copies of those that were given, and become what is returned of them.
    """

    tenant_id: str
    aggregate_id: str
    aggregate_type: str
    events: Sequence[AgentEvent]
    event_data: list[str]
    metadata: list[str]
    tags: list[str | None]

    @classmethod
    def of(
        cls,
        tenant_id: str,
        aggregate_id: str,
        aggregate_type: str,
        events: Iterable[AgentEvent],
        expected: Expected,
    ) -> Batch:
        """The events, with what the run that this is part of says of them.

        Raises:
            InvalidArgumentError, UnstorableValueError: what can't be appended.
        """
        given = checked_items("events", events)
        if not 0 < len(given) <= MOST_EVENTS:
            problem = f"must be 1 to {MOST_EVENTS:,} events, not {len(given):,}"
            raise InvalidArgumentError(argument="events", problem=problem)
        aggregate = (
            checked_name("aggregate_id", aggregate_id),
            checked_name("aggregate_type", aggregate_type),
        )
        run = RunContext.current()
        first = expected + 1 if isinstance(expected, int) else None
        checked = [
            _checked(event, aggregate, None if first is None else first + number, run, tenant_id)
            for number, event in enumerate(given)
        ]
        _check_ids(checked)
        batch = cls(
            tenant_id=tenant_id,
            aggregate_id=aggregate[0],
            aggregate_type=aggregate[1],
            events=checked,
            event_data=[_encoded_data(e) for e in checked],
            metadata=[_encoded(e, "metadata", e.metadata) for e in checked],
            tags=[encode_tags(e.tags) for e in checked],
        )
        size = sum(map(len, batch.event_data)) + sum(map(len, batch.metadata))
        if size > _LARGEST_BATCH_BYTES:
            problem = f"they have more than {_LARGEST_BATCH_BYTES // 2**20} MiB; append in parts"
            raise UnstorableValueError(where="the events", problem=problem)
        return batch

    def named(self) -> dict[str, Any]:
        """The parameters that name the aggregate."""
        return {
            "tenant_id": self.tenant_id,
            "aggregate_id": self.aggregate_id,
            "aggregate_type": self.aggregate_type,
        }

    def content(self) -> dict[str, Any]:
        """The columns that an append that is repeated must have again."""
        return {
            "event_ids": [e.event_id for e in self.events],
            "event_types": [str(e.event_type) for e in self.events],
            "schema_versions": _column([e.schema_version for e in self.events], 1),
            "event_data": self.event_data,
            "metadata": _column(self.metadata, "{}"),
            "tags": _column(self.tags, None),
        }

    def circumstances(self) -> dict[str, Any]:
        """The other columns."""
        return {
            "correlation_ids": _column([e.correlation_id for e in self.events], None),
            "causation_ids": _column([e.causation_id for e in self.events], None),
            "session_ids": _column([e.session_id for e in self.events], None),
            "checkpoint_ids": _column([e.checkpoint_id for e in self.events], None),
            "timestamps": [e.timestamp for e in self.events],
        }

    def stored(self, row: asyncpg.Record) -> tuple[AgentEvent, ...]:
        """The events as the statement stored them."""
        first, era, tx = row["first_version"], row["era"], row["tx"]
        return tuple(
            _stored(event, first + number, EventPlace(era, tx, position), row["recorded_at"])
            for number, (event, position) in enumerate(
                zip(self.events, row["positions"], strict=True)
            )
        )

    def stored_together(self, row: asyncpg.Record) -> tuple[AgentEvent, ...]:
        """The one event, as a statement for many stored it."""
        [event] = self.events
        place = EventPlace.of_row(row)
        return (_stored(event, row["version"], place, row["recorded_at"]),)

    def resent(self, rows: Iterable[asyncpg.Record]) -> tuple[AgentEvent, ...]:
        """The events as they were stored before."""
        by_id = {event.event_id: event for event in self.events}
        return tuple(
            replace(
                _stored(
                    by_id[row["event_id"]],
                    row["version"],
                    EventPlace.of_row(row),
                    row["recorded_at"],
                ),
                timestamp=row["timestamp"],
                correlation_id=row["correlation_id"],
                causation_id=row["causation_id"],
                session_id=row["session_id"],
                checkpoint_id=row["checkpoint_id"],
            )
            for row in rows
        )


def _column(values: list[Any], default: Any) -> list[Any] | None:
    """A column's values; None where all are the default, which takes nobody any time."""
    return None if values.count(default) == len(values) else values


def _checked(
    event: AgentEvent,
    aggregate: tuple[str, str],
    version: int | None,
    run: RunContext | None,
    tenant_id: str,
) -> AgentEvent:
    """The event with its columns as they are stored; `version` is what it is going to have."""
    if not isinstance(event, AgentEvent):
        problem = f"must be AgentEvents, not {shown(event)}"
        raise InvalidArgumentError(argument="events", problem=problem)
    if event.aggregate_id not in ("", aggregate[0]):
        raise _other_aggregate("aggregate_id", event.aggregate_id, aggregate[0])
    if event.aggregate_type not in ("", aggregate[1]):
        raise _other_aggregate("aggregate_type", event.aggregate_type, aggregate[1])
    if event.version is not None and event.version != version:
        problem = (
            f"must be None, or what it is going to be by expected_version, not "
            f"{shown(event.version)}"
        )
        raise InvalidArgumentError(argument="version", problem=problem)
    checked_type("event_type", event.event_type)
    own = of_run(event, run, tenant_id)
    return made_event(
        event.event_type,
        aggregate[0],
        aggregate[1],
        checked_name("event_id", event.event_id),
        event.event_data,
        event.metadata,
        _time(event.timestamp),
        None,
        own.correlation_id,
        own.causation_id,
        tuple(checked_tags("tags", event.tags)),
        checked_integer("schema_version", event.schema_version, least=1),
        own.session_id,
        own.checkpoint_id,
        _optional_name("subject", event.subject),
        (),
        None,
        None,
    )


def _other_aggregate(argument: str, own: Any, other: str) -> InvalidArgumentError:
    problem = f"{other!r} isn't the event's own, {shown(own)}; append it to that one"
    return InvalidArgumentError(argument=argument, problem=problem)


def _time(given: datetime) -> datetime:
    if type(given) is datetime and given.tzinfo is UTC:
        return given
    time = checked_time("timestamp", given)
    if time is None:
        problem = "must be a datetime with a time zone, such as datetime.now(timezone.utc)"
        raise InvalidArgumentError(argument="timestamp", problem=problem)
    return time


class OfRun(NamedTuple):
    """What an event has of the run that it is part of."""

    correlation_id: str | None = None
    causation_id: str | None = None
    session_id: UUID | None = None
    checkpoint_id: str | None = None


_OF_NONE = OfRun()
_NO_CONTEXT = (None,) * 4
_own_context = attrgetter("correlation_id", "causation_id", "session_id", "checkpoint_id")


def of_run(event: AgentEvent, run: RunContext | None, tenant_id: str) -> OfRun:
    """The event's own, else the run's."""
    if run is None and _own_context(event) == _NO_CONTEXT:
        return _OF_NONE
    correlation_id, causation_id = event.correlation_id, event.causation_id
    session_id, checkpoint_id = event.session_id, event.checkpoint_id
    if run is not None:
        own_session = session_id_of(run.thread_id, tenant_id) if run.thread_id else None
        correlation_id = thread_of(run) if correlation_id is None else correlation_id
        cause = run.run_id or run.checkpoint_id or None
        causation_id = cause if causation_id is None else causation_id
        session_id = own_session if session_id is None else session_id
        checkpoint_id = (run.checkpoint_id or None) if checkpoint_id is None else checkpoint_id
    if session_id is not None and not isinstance(session_id, UUID):
        problem = f"must be a UUID, as session_id_of gives it, not {shown(session_id)}"
        raise InvalidArgumentError(argument="session_id", problem=problem)
    return OfRun(
        _optional_name("correlation_id", correlation_id),
        _optional_name("causation_id", causation_id),
        session_id,
        checked_text("checkpoint_id", checkpoint_id),
    )


def thread_of(run: RunContext) -> str | None:
    """The id of the run's thread; where that is longer than an index takes, its session's."""
    return aggregate_id_of(run.thread_id, run.tenant_id) if run.thread_id else None


def _optional_name(argument: str, given: str | None) -> str | None:
    return None if given is None else checked_name(argument, given)


def _check_ids(events: Sequence[AgentEvent]) -> None:
    if len(events) == 1:
        return
    [(event_id, times)] = Counter(e.event_id for e in events).most_common(1)
    if times > 1:
        problem = f"{event_id!r} is the id of {times} of the events; each has its own"
        raise InvalidArgumentError(argument="event_id", problem=problem)


def _stored(
    event: AgentEvent, version: int, place: EventPlace, recorded_at: datetime
) -> AgentEvent:
    event.note_stored(version, place, recorded_at)
    return event


def _encoded_data(event: AgentEvent) -> str:
    text = _encoded(event, "event_data", event.event_data)
    if MARK in text:
        check_unmarked(_json.load(text), _where(event, "event_data"))
    return text


def _encoded(event: AgentEvent, field: str, value: Any) -> str:
    text = encode_plain(value)
    return encode_data(value, _where(event, field)) if text is None else text


def _where(event: AgentEvent, field: str) -> str:
    return f"{field} of event {event.event_id[:40]!r}"
