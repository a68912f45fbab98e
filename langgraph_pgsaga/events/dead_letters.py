"""DeadLetters: events that consumers couldn't handle, and what is to become of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import asyncpg

from langgraph_pgsaga._arguments import checked_instance, checked_integer
from langgraph_pgsaga._cursor import cursor_of, place_of_cursor
from langgraph_pgsaga.database import Database, load_statements
from langgraph_pgsaga.errors import (
    InvalidCursorError,
    MissingConsumerError,
    MissingDeadLetterError,
)
from langgraph_pgsaga.events.condition import checked_name
from langgraph_pgsaga.events.news import TOPIC
from langgraph_pgsaga.tenants import Tenants, checked_tenant
from langgraph_pgsaga.work import Notifier

_STATEMENTS = load_statements("consumers")
_MOST_PER_PAGE = 10_000
_LISTING = "dead letters"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """An aggregate that waits, for one consumer, since an event of it failed.

    The event at `version` is the next; later ones wait. `is_dead` is whether it isn't tried any
    more by itself; else it is at `due_at`. `event_id` and `event_type` are None once the event was
    skipped, or handled and the next one hasn't been tried. `error` is the class of the error and
    where it was raised.
    """

    consumer: str
    aggregate_type: str
    aggregate_id: str
    version: int
    event_id: str | None
    event_type: str | None
    attempts: int
    due_at: datetime | None
    error: str | None
    first_failed_at: datetime
    failed_at: datetime

    @property
    def is_dead(self) -> bool:
        """Whether it isn't tried any more by itself."""
        return self.due_at is None

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> DeadLetter:
        """A row of list_dead_letters."""
        return cls(**dict(row))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterPage:
    """Dead letters by consumer and aggregate. `next_cursor` is None on the last page."""

    dead_letters: tuple[DeadLetter, ...]
    next_cursor: str | None


class DeadLetters:
    """What a tenant's consumers couldn't handle: listed, tried again, or skipped.

    Workers do what is said here, at once if one runs: the events of an aggregate in their order,
    from the one that failed on.

    Args:
        db: the database.
        tenant: whose they are. None is the Database's.

    Raises:
        MissingTenantError: from calls, where the Database requires a tenant and there is none.
    """

    def __init__(self, db: Database, *, tenant: str | None = None) -> None:
        self.db = checked_instance("db", db, Database, "Pass a Database, such as store.db")
        self._tenant = None if tenant is None else checked_tenant("tenant", tenant)
        self._tenants = Tenants(db.tenant, is_required=db.require_tenant)
        self._tenants.of_call(tenant)

    async def list(
        self, consumer: str | None = None, *, after: str | None = None, limit: int = 100
    ) -> DeadLetterPage:
        """Those of a consumer, or of all, dead and still tried, a page of them.

        Args:
            after: the `next_cursor` of the page before.
            limit: at most 10,000.

        Raises:
            InvalidCursorError: `after` isn't a cursor of dead letters.
        """
        checked_integer("limit", limit, least=1, most=_MOST_PER_PAGE)
        place = _place(after)
        bound = _STATEMENTS["list_dead_letters"].bind(
            tenant_id=self._tenants.of_call(self._tenant),
            consumer=None if consumer is None else checked_name("consumer", consumer),
            after_consumer=place[0],
            after_type=place[1],
            after_id=place[2],
            page=limit,
        )
        found = tuple(map(DeadLetter.from_row, await self.db.fetch(bound)))
        cursor = None
        if len(found) == limit:
            last = found[-1]
            cursor = cursor_of(_LISTING, [last.consumer, last.aggregate_type, last.aggregate_id])
        return DeadLetterPage(dead_letters=found, next_cursor=cursor)

    async def retry(self, consumer: str, event_id: str | None = None) -> int:
        """Has an event tried again at once, with all attempts; without an id all of the
        consumer's. How many aggregates that are.

        Raises:
            MissingConsumerError: there is no such consumer.
            MissingDeadLetterError: no aggregate waits for this event.
        """
        return await self._change("retry_dead_letters", consumer, event_id)

    async def skip(self, consumer: str, event_id: str) -> None:
        """Has the consumer never get an event; those of the aggregate that wait follow at once.

        Raises:
            MissingConsumerError: there is no such consumer.
            MissingDeadLetterError: no aggregate waits for this event.
        """
        await self._change("skip_dead_letter", consumer, checked_name("event_id", event_id))

    async def _change(self, statement: str, consumer: str, event_id: str | None) -> int:
        named = {
            "tenant_id": self._tenants.of_call(self._tenant),
            "consumer": checked_name("consumer", consumer),
            "event_id": None if event_id is None else checked_name("event_id", event_id),
        }
        rows = await self.db.fetch(_STATEMENTS[statement].bind(**named))
        if not rows:
            await self._explain(named["tenant_id"], consumer, event_id)
        Notifier.of(self.db).notify(TOPIC)
        return len(rows)

    async def _explain(self, tenant_id: str | None, consumer: str, event_id: str | None) -> None:
        find = _STATEMENTS["find_consumer"].bind(tenant_id=tenant_id, name=consumer)
        if await self.db.fetch_one(find) is None:
            raise MissingConsumerError(consumer=consumer)
        if event_id is not None:
            raise MissingDeadLetterError(consumer=consumer, event_id=event_id)


def _place(after: str | None) -> tuple[str, str, str]:
    if after is None:
        return ("", "", "")
    found = place_of_cursor(after, _LISTING, "dead letters")
    if len(found) != 3 or not all(isinstance(part, str) for part in found):
        raise InvalidCursorError(cursor=after, problem="isn't a cursor of dead letters")
    return (found[0], found[1], found[2])
