"""Reading the log: rows become events, brought up to date and, where there are keys, in clear."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any
from uuid import UUID

import asyncpg

from langgraph_pgsaga.database import Connection, Database, load_statements
from langgraph_pgsaga.errors import AmbiguousAggregateError
from langgraph_pgsaga.events.condition import Condition
from langgraph_pgsaga.events.erasure import KeyRing, ring_for
from langgraph_pgsaga.events.event import AgentEvent
from langgraph_pgsaga.events.place import EventPlace
from langgraph_pgsaga.events.row import MOST_COUNTED, EventPage, Lag, Matching, Scan, event_of
from langgraph_pgsaga.events.subjects import SubjectKey, SubjectKeys
from langgraph_pgsaga.events.subscription import Wanted, follow
from langgraph_pgsaga.events.tail import Reader
from langgraph_pgsaga.events.upcasting import Upcasters

_STATEMENTS = load_statements("events")
# How many rows one statement goes through, for however few that fit.
_WINDOW = 10_000
_STREAM_PAGE = 5_000
_SUBSCRIBED_PAGE = 1_000


class LogReader:
    """Reads the events of any tenant of a database. What it is asked for is checked before."""

    def __init__(self, db: Database, upcasters: Upcasters, subjects: SubjectKeys | None) -> None:
        self._db = db
        self._upcasters = upcasters
        self._subjects = subjects

    async def type_of(
        self, tenant_id: str, aggregate_id: str, conn: Connection | None
    ) -> str | None:
        """The type of the aggregate that has the id; None where none has.

        Raises:
            AmbiguousAggregateError: several have.
        """
        statement = _STATEMENTS["list_types_of"].bind(
            tenant_id=tenant_id, aggregate_id=aggregate_id
        )
        found = [row["aggregate_type"] for row in await self._db.fetch(statement, conn=conn)]
        if len(found) > 1:
            raise AmbiguousAggregateError(aggregate_id=aggregate_id, aggregate_types=tuple(found))
        return found[0] if found else None

    async def stream(
        self,
        tenant_id: str,
        aggregate_id: str,
        aggregate_type: str,
        version: int,
        last: int,
        conn: Connection | None = None,
    ) -> tuple[list[AgentEvent], Mapping[UUID, SubjectKey]]:
        """An aggregate's events above a version, and the keys by which they were read."""
        found: list[AgentEvent] = []
        keys: dict[UUID, SubjectKey] = {}
        while True:
            statement = _STATEMENTS["read_stream"].bind(
                tenant_id=tenant_id,
                aggregate_id=aggregate_id,
                aggregate_type=aggregate_type,
                from_version=version,
                to_version=last,
                page=_STREAM_PAGE,
            )
            rows = await self._db.fetch(statement, conn=conn)
            ring = await self._ring(tenant_id, rows, conn)
            keys.update({} if ring is None else ring.keys)
            found += [event_of(row, self._upcasters, ring) for row in rows]
            if len(rows) < _STREAM_PAGE:
                return found, keys
            version = rows[-1]["version"]

    async def event(self, tenant_id: str, event_id: str) -> AgentEvent | None:
        """The event of an id; None where there is none."""
        statement = _STATEMENTS["get_event"].bind(tenant_id=tenant_id, event_id=event_id)
        row = await self._db.fetch_one(statement)
        if row is None:
            return None
        ring = await self._ring(tenant_id, [row])
        return event_of(row, self._upcasters, ring)

    async def page(
        self,
        tenant_id: str,
        after: EventPlace,
        asked: Mapping[str, Any],
        narrowed: Mapping[str, Any],
        limit: int,
    ) -> EventPage:
        """Up to so many events after a place: `asked` are their types and tags, `narrowed` what is
        rare, None each where it doesn't matter."""
        if asked["tags"] or any(given is not None for given in narrowed.values()):
            scan = await self._scan(
                "read_narrowed", tenant_id, after, **asked, **narrowed, page=limit
            )
            return _page(scan.events, scan)
        found: list[AgentEvent] = []
        place = after
        while True:
            scan = await self._read_page(tenant_id, place, asked, limit - len(found))
            found += scan.events
            place = scan.reached
            if scan.is_end or len(found) == limit:
                return _page(found, scan)

    async def matching(
        self, tenant_id: str, condition: Condition, conn: Connection | None
    ) -> Matching:
        """The events that match a condition, and the position of the last one."""
        statement = _STATEMENTS["read_matching"].bind(
            tenant_id=tenant_id,
            types=condition.type_names,
            tags=condition.tags,
            after_position=condition.after,
        )
        rows = await self._db.fetch(statement, conn=conn)
        ring = await self._ring(tenant_id, rows, conn)
        events = tuple(event_of(row, self._upcasters, ring) for row in rows)
        position = rows[-1]["position"] if rows else condition.after
        return Matching(events=events, position=position)

    def follow(
        self, tenant_id: str, after: EventPlace, asked: Mapping[str, list[str] | None]
    ) -> AsyncIterator[AgentEvent]:
        """Each event after a place, of the types and with the tags that are asked for."""

        def reader(asked: Mapping[str, list[str] | None]) -> Reader:
            async def read(place: EventPlace) -> Scan:
                return await self._read_page(tenant_id, place, asked, _SUBSCRIBED_PAGE)

            async def lag(place: EventPlace) -> Lag:
                return await self.lag(tenant_id, place)

            return Reader(read, lag)

        # Events are the same for those who bring them up to date, and decrypt them, alike.
        name = (tenant_id, self._upcasters.identity, id(self._subjects))
        shared = reader({"types": None, "tags": None})
        return follow(self._db, name, reader(asked), shared, after, Wanted(**asked))

    async def horizon(self) -> EventPlace:
        """The place below which everything that will ever be there is there."""
        row = await self._db.fetch_one(_STATEMENTS["get_horizon"].bind())
        assert row is not None, "a migration makes the first era"
        return EventPlace(row["era"], row["tx"], 0)

    async def lag(self, tenant_id: str, after: EventPlace) -> Lag:
        """How far a reader is behind who has read up to a place."""
        statement = _STATEMENTS["measure_lag"].bind(
            tenant_id=tenant_id, **after.after(), most=MOST_COUNTED
        )
        row = await self._db.fetch_one(statement)
        assert row is not None
        return Lag.from_row(row)

    async def _read_page(
        self, tenant_id: str, after: EventPlace, asked: Mapping[str, Any], page: int
    ) -> Scan:
        return await self._scan(
            "read_page", tenant_id, after, **asked, page=page, window_rows=_WINDOW
        )

    async def _scan(self, name: str, tenant_id: str, after: EventPlace, **asked: Any) -> Scan:
        statement = _STATEMENTS[name].bind(tenant_id=tenant_id, **after.after(), **asked)
        rows = await self._db.fetch(statement)
        ring = await self._ring(tenant_id, rows)
        return Scan.of(rows, after, self._upcasters, ring)

    async def _ring(
        self, tenant_id: str, rows: Iterable[asyncpg.Record], conn: Connection | None = None
    ) -> KeyRing | None:
        """The keys that rows need to be read."""
        texts = (row["event_data"] for row in rows)
        return await ring_for(self._db, self._subjects, tenant_id, texts, conn)


def _page(events: Iterable[AgentEvent], scan: Scan) -> EventPage:
    return EventPage(events=tuple(events), next_cursor=scan.reached.cursor(), is_last=scan.is_end)
