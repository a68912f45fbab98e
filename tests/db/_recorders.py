"""The recorders of the `eventsourcing` library over an EventStore, as far as its tests go.

Its notification ids count the log in the order in which all readers see it. Its versions begin
anywhere; the first one of an aggregate is this store's 1.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Sequence
from itertools import groupby
from typing import Any
from uuid import UUID

import asyncpg
from eventsourcing import persistence

from langgraph_pgsaga import Database
from langgraph_pgsaga.database import Connection
from langgraph_pgsaga.errors import VersionConflictError
from langgraph_pgsaga.events import NONE, AgentEvent, EventStore, Expected
from tests._limits import HANG_SECONDS

_TRACKING = """
  create table if not exists tracking (
    application_name text, notification_id bigint, primary key (application_name, notification_id)
  )
"""
_TRACK = """
  insert into tracking select $1, $2 where not exists (
    select from tracking t where t.application_name = $1 and t.notification_id >= $2
  ) returning 1
"""
_TRACKED = "select max(notification_id) from tracking where application_name = $1"


class AggregateRecorder(persistence.AggregateRecorder):
    """Events of aggregates."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.store = EventStore(db)

    def insert_events(
        self, stored_events: Sequence[persistence.StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        self.db.portal.call(self._insert, stored_events, kwargs.get("tracking"))
        return None

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[persistence.StoredEvent]:
        found = self.db.portal.call(self.store.get_events, str(originator_id))
        events = [_stored(event, type(originator_id)) for event in found]
        events = [e for e in events if gt is None or e.originator_version > gt]
        events = [e for e in events if lte is None or e.originator_version <= lte]
        return events[:: -1 if desc else 1][:limit]

    async def _insert(
        self,
        stored_events: Sequence[persistence.StoredEvent],
        tracking: persistence.Tracking | None,
    ) -> list[AgentEvent]:
        found: list[AgentEvent] = []
        async with self.db.transaction() as conn:
            if tracking is not None:
                await _track(conn, tracking)
            for originator_id, group in groupby(stored_events, lambda e: e.originator_id):
                found += await self._append(str(originator_id), list(group), conn)
        return found

    async def _append(
        self, name: str, events: list[persistence.StoredEvent], conn: Connection
    ) -> Sequence[AgentEvent]:
        first = events[0].originator_version
        if [e.originator_version for e in events] != list(range(first, first + len(events))):
            raise persistence.IntegrityError
        begun = await self.store.get_events(name, to_version=1, conn=conn)
        expected: Expected = first - begun[0].event_data["version"] if begun else NONE
        if isinstance(expected, int) and expected < 0:
            raise persistence.IntegrityError
        try:
            return await self.store.append(
                name,
                [_event(event) for event in events],
                aggregate_type="originator",
                expected_version=expected,
                conn=conn,
            )
        except VersionConflictError as error:
            raise persistence.IntegrityError from error


class ApplicationRecorder(AggregateRecorder, persistence.ApplicationRecorder):
    """With the log, of which this keeps the order as far as it was read."""

    def __init__(self, db: Database) -> None:
        super().__init__(db)
        self._known: list[AgentEvent] = []
        self._numbers: dict[str, int] = {}
        self._cursor: str | None = None
        self._reading = threading.Lock()

    def insert_events(
        self, stored_events: Sequence[persistence.StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        stored = self.db.portal.call(self._insert, stored_events, kwargs.get("tracking"))
        wanted = [event.event_id for event in stored]
        deadline = time.monotonic() + HANG_SECONDS
        while True:
            self._log()
            if all(name in self._numbers for name in wanted):
                return [self._numbers[name] for name in wanted]
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[persistence.Notification]:
        log = self._log()
        begin = 0 if start is None else max(start - inclusive_of_start, 0)
        found = [
            _notification(event, number)
            for number, event in enumerate(log[begin:stop], begin + 1)
            if not topics or str(event.event_type) in topics
        ]
        return found[:limit]

    def max_notification_id(self) -> int | None:
        return len(self._log()) or None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Any:
        return Subscription(self, gt, topics)

    def _log(self) -> list[AgentEvent]:
        with self._reading:
            is_last = False
            while not is_last:
                page = self.db.portal.call(self.store.read_all, after=self._cursor, limit=10_000)
                for event in page.events:
                    self._known.append(event)
                    self._numbers[event.event_id] = len(self._known)
                self._cursor, is_last = page.next_cursor, page.is_last
            return self._known


class ProcessRecorder(ApplicationRecorder, persistence.ProcessRecorder):
    """With what was processed of other logs."""

    def __init__(self, db: Database) -> None:
        super().__init__(db)
        self._of_connection(lambda conn: conn.execute(_TRACKING))

    def insert_tracking(self, tracking: persistence.Tracking) -> None:
        self._of_connection(lambda conn: _track(conn, tracking))

    def max_tracking_id(self, application_name: str) -> int | None:
        found: int | None = self._of_connection(
            lambda conn: conn.fetchval(_TRACKED, application_name)
        )
        return found

    def _of_connection(self, work: Any) -> Any:
        return self.db.portal.call(self.db.run, work)


class Subscription(persistence.Subscription[ApplicationRecorder]):
    """Looks for the next notification until there is one."""

    def __next__(self) -> persistence.Notification:
        while not self._has_been_stopped:
            found = self._recorder.select_notifications(
                self._last_notification_id or 0, 1, topics=self._topics, inclusive_of_start=False
            )
            if found:
                self._last_notification_id = found[0].id
                return found[0]
            time.sleep(0.005)
        raise StopIteration


async def _track(conn: Connection, tracking: persistence.Tracking) -> None:
    try:
        found = await conn.fetchval(_TRACK, tracking.application_name, tracking.notification_id)
    except asyncpg.UniqueViolationError as error:
        raise persistence.IntegrityError from error
    if found is None:
        raise persistence.IntegrityError


def _event(event: persistence.StoredEvent) -> AgentEvent:
    state = base64.b64encode(event.state).decode()
    return AgentEvent(
        event_type=event.topic, event_data={"state": state, "version": event.originator_version}
    )


def _fields(event: AgentEvent, kind: type[UUID | str]) -> dict[str, Any]:
    return {
        "originator_id": kind(event.aggregate_id),
        "originator_version": event.event_data["version"],
        "topic": str(event.event_type),
        "state": base64.b64decode(event.event_data["state"]),
    }


def _stored(event: AgentEvent, kind: type[UUID | str]) -> persistence.StoredEvent:
    return persistence.StoredEvent(**_fields(event, kind))


def _notification(event: AgentEvent, number: int) -> persistence.Notification:
    return persistence.Notification(id=number, **_fields(event, UUID))
