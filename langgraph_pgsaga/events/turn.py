"""A turn: one claim of a partition of a consumer, and what is done in it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg

from langgraph_pgsaga.database import Connection, Database, check_in_transaction, load_statements
from langgraph_pgsaga.errors import ServerConnectionError, ServerError, TransactionEndedError
from langgraph_pgsaga.events.calling import HandlerFailedError, call, is_passing
from langgraph_pgsaga.events.consumer import Consumer
from langgraph_pgsaga.events.erasure import ring_for
from langgraph_pgsaga.events.place import EventPlace
from langgraph_pgsaga.events.read_events import Page, ReadEvents
from langgraph_pgsaga.events.subjects import SubjectKeys
from langgraph_pgsaga.events.upcasting import Upcasters
from langgraph_pgsaga.work import Claim

_STATEMENTS = load_statements("consumers")
_WINDOW = 10_000

Write: TypeAlias = "Callable[[Connection | None, int], Awaitable[asyncpg.Record]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A consumer's partition that this process has for a while."""

    db: Database
    upcasters: Upcasters
    subjects: SubjectKeys | None
    consumer: Consumer
    predecessor: str | None
    claim: Claim

    def is_ending(self) -> bool:
        """Whether the worker takes on nothing new, or the claim is another's."""
        return self.claim.draining.is_set() or self.claim.is_lost

    def named(self) -> dict[str, Any]:
        """The parameters that name the consumer."""
        row = self.claim.row
        return {"tenant_id": row["tenant_id"], "consumer": row["name"]}

    async def hold(self, conn: Connection) -> asyncpg.Record:
        """Has the transaction, of which it gives the row, be the owner's: the claim is nobody
        else's until it ends.

        Raises:
            ClaimLostError: it is by now.
        """
        return await self.claim.write(_STATEMENTS["hold_consumer"], conn=conn)

    async def apply(self, events: ReadEvents, write: Write) -> int:
        """Has the handler do some of the events, from the first on: how many.

        `write(conn, done)` writes that; for a projection in the transaction of its effects, whose
        number it gives.

        Raises:
            HandlerFailedError: at one of them. Of a projection nothing was stored then.
        """
        if not self.consumer.is_projection:
            done = await call(self.consumer, events, None, self.is_ending)
            await write(None, done)
            return done

        async def work(conn: Connection) -> int:
            done = await call(self.consumer, events, conn, self.is_ending)
            check_in_transaction(conn)
            written = await write(conn, done)
            check_in_transaction(conn, written["transaction"])
            return done

        try:
            return await self.db.run(work, once=True)
        except (ServerError, TransactionEndedError) as error:
            self.claim.is_ended = False
            if isinstance(error, ServerConnectionError) or is_passing(error, None):
                raise
            # Of a statement whose error the handler kept to itself, or of a constraint that is
            # looked at when the transaction ends.
            raise HandlerFailedError(0 if len(events) == 1 else None, error) from error
        except BaseException:
            self.claim.is_ended = False
            raise

    # Reading

    async def read(self, after: EventPlace, page: int) -> Page:
        """What comes after a place for this partition, at most a page of it."""
        row, consumer = self.claim.row, self.consumer
        asked = {
            **self.named(),
            **after.after(),
            "predecessor": self.predecessor,
            "partition": row["partition"],
            "page": page,
        }
        kinds = consumer.aggregate_types
        narrowed: dict[str, Any] = {
            **consumer.asked(),
            "aggregate_types": None if kinds is None else list(kinds),
        }
        if row["partition_count"] == 1 and not any(n is not None for n in narrowed.values()):
            return await self._read_every(after, asked)
        narrowed |= {"partition_count": row["partition_count"], "window_rows": _WINDOW}
        rows = await self.db.fetch(_STATEMENTS["read_batch"].bind(**asked, **narrowed))
        first = rows[0]
        reached = EventPlace.of_columns(first, "reached")
        found = rows if first["event_id"] is not None else []
        return Page(
            events=await self.opened(found),
            reached=max(after, reached),
            is_end=first["is_end"],
            has_waiting=first["has_waiting"],
        )

    async def opened(self, rows: Sequence[asyncpg.Record]) -> ReadEvents:
        """Rows as events, with the keys of the personal data in them."""
        texts = [row["event_data"] for row in rows]
        tenant_id = self.claim.row["tenant_id"]
        return ReadEvents(
            rows, self.upcasters, await ring_for(self.db, self.subjects, tenant_id, texts)
        )

    async def _read_every(self, after: EventPlace, asked: dict[str, Any]) -> Page:
        """Where nothing is left out, the last row says how far it is."""
        rows = await self.db.fetch(_STATEMENTS["read_every"].bind(**asked))
        events = await self.opened(rows)
        return Page(
            events=events,
            reached=events.place(-1) if rows else after,
            is_end=len(rows) < asked["page"],
            has_waiting=bool(rows) and rows[0]["has_waiting"],
        )
