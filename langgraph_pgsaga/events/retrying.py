"""Aggregates that wait for an event that failed: tried again, and parked for good."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import asyncpg

from langgraph_pgsaga.database import Connection, load_statements
from langgraph_pgsaga.events.calling import HandlerFailedError
from langgraph_pgsaga.events.place import EventPlace
from langgraph_pgsaga.events.read_events import ReadEvents
from langgraph_pgsaga.events.turn import Turn
from langgraph_pgsaga.work import delay_after, described

_log = logging.getLogger("langgraph_pgsaga.events")
_STATEMENTS = load_statements("consumers")
_MOST_DUE = 100
_PAGE = 100
_NOT_ENDED = "the attempt hasn't ended: it goes on, or its process or connection was lost"


class _ChangedError(Exception):
    """Somebody else said meanwhile what is to become of the event."""


class Retrying:
    """What waits in a turn's partition, up to a place in the log."""

    def __init__(self, turn: Turn, place: EventPlace) -> None:
        self._turn = turn
        self._place = place

    async def run(self) -> None:
        """Tries again what is due."""
        turn = self._turn
        bound = _STATEMENTS["list_due"].bind(
            **turn.named(), partition=turn.claim.row["partition"], page=_MOST_DUE
        )
        for row in await turn.db.fetch(bound):
            if turn.is_ending():
                return
            await self.try_aggregate(row)

    async def try_aggregate(self, row: asyncpg.Record) -> None:
        """Handles an aggregate's events, from the one that it waits for on, until one fails."""
        version, attempts = row["version"], row["attempts"]
        while version is not None:
            events = await self._read(row, version)
            if not events:
                await self._turn.db.run(partial(self._free, row, version), once=True)
                return
            is_all = len(events) < _PAGE
            for number in range(len(events)):
                if self._turn.is_ending():
                    return
                is_last = is_all and number + 1 == len(events)
                one = events[number : number + 1]
                if not await self._try_event(row, one, version, attempts + 1, is_last=is_last):
                    return
                version, attempts = events.row(number)["version"] + 1, 0
            if is_all:
                return

    async def _read(self, row: asyncpg.Record, version: int) -> ReadEvents:
        turn = self._turn
        bound = _STATEMENTS["read_waiting"].bind(
            tenant_id=turn.claim.row["tenant_id"],
            aggregate_type=row["aggregate_type"],
            aggregate_id=row["aggregate_id"],
            version=version,
            **self._place.named(),
            **turn.consumer.asked(),
            page=_PAGE,
        )
        return await turn.opened(await turn.db.fetch(bound))

    async def _try_event(
        self, row: asyncpg.Record, one: ReadEvents, version: int, attempt: int, *, is_last: bool
    ) -> bool:
        """Whether an event was handled, and what follows may be tried."""
        turn, event = self._turn, one.row(0)
        begun = await turn.claim.write(
            _STATEMENTS["begin_attempt"],
            aggregate_type=row["aggregate_type"],
            aggregate_id=row["aggregate_id"],
            version=version,
            event_version=event["version"],
            event_id=event["event_id"],
            event_type=event["event_type"],
            attempts=attempt,
            delay_seconds=turn.consumer.retry.delay(attempt),
            error=_NOT_ENDED,
        )
        if begun["attempts"] is None:
            return False

        async def write(conn: Connection | None, _: int) -> asyncpg.Record:
            if conn is None:
                moved = partial(self._moved, row, event, is_last=is_last)
                return await turn.db.run(moved, once=True)
            return await self._moved(row, event, conn, is_last=is_last)

        try:
            await turn.apply(one, write)
        except HandlerFailedError as failed:
            await self._failed(row, event, attempt, failed.error)
            return False
        except _ChangedError:
            return False
        return True

    async def _moved(
        self, row: asyncpg.Record, event: asyncpg.Record, conn: Connection, *, is_last: bool
    ) -> asyncpg.Record:
        """The event was handled: the aggregate waits for the next one, or no more."""
        held = await self._turn.hold(conn)
        if is_last:
            await self._free(row, event["version"], conn, is_held=True)
            return held
        bound = _STATEMENTS["move_dead_letter"].bind(
            **self._of(row), version=event["version"], next_version=event["version"] + 1
        )
        if not await self._turn.db.fetch(bound, conn=conn):
            raise _ChangedError
        return held

    async def _free(
        self, row: asyncpg.Record, version: int, conn: Connection, *, is_held: bool = False
    ) -> None:
        """The aggregate waits no more."""
        if not is_held:
            await self._turn.hold(conn)
        bound = _STATEMENTS["delete_dead_letter"].bind(**self._of(row), version=version)
        if not await self._turn.db.fetch(bound, conn=conn) and is_held:
            raise _ChangedError

    async def _failed(
        self, row: asyncpg.Record, event: asyncpg.Record, attempt: int, error: BaseException
    ) -> None:
        turn = self._turn
        delay = delay_after(turn.consumer.retry, error, attempt)
        bound = _STATEMENTS["fail_attempt"].bind(
            **self._of(row),
            version=event["version"],
            attempts=attempt,
            delay_seconds=delay,
            error=described(error),
        )

        async def work(conn: Connection) -> None:
            await turn.hold(conn)
            await turn.db.fetch(bound, conn=conn)

        await turn.db.run(work)
        tell(turn, event["event_id"], attempt, delay, error)

    def _of(self, row: asyncpg.Record) -> dict[str, Any]:
        names = {name: row[name] for name in ("aggregate_type", "aggregate_id")}
        return {**self._turn.named(), **names}


async def park(
    turn: Turn, row: asyncpg.Record, event: EventPlace, error: BaseException | None
) -> None:
    """Has an event's aggregate wait from here on, and writes that the consumer is behind it.

    `error` is why its first attempt failed; None, that there was none: it is due at once.
    """
    attempt = 0 if error is None else 1
    delay = 0.0 if error is None else delay_after(turn.consumer.retry, error, 1)
    bound = _STATEMENTS["insert_dead_letter"].bind(
        **turn.named(),
        partition=turn.claim.row["partition"],
        aggregate_type=row["aggregate_type"],
        aggregate_id=row["aggregate_id"],
        version=row["version"],
        event_id=row["event_id"],
        event_type=row["event_type"],
        attempts=attempt,
        delay_seconds=delay,
        error=None if error is None else described(error),
    )

    async def work(conn: Connection) -> None:
        await turn.claim.write(_STATEMENTS["move_consumer"], conn=conn, **event.named())
        await turn.db.fetch(bound, conn=conn)

    await turn.db.run(work, once=True)
    if error is not None:
        tell(turn, row["event_id"], attempt, delay, error)


def tell(
    turn: Turn, event_id: str, attempt: int, delay: float | None, error: BaseException
) -> None:
    """A line in the log of an attempt that failed."""
    then = "it is a dead letter now" if delay is None else f"again in {delay:.1f} s"
    _log.warning(
        "consumer %s failed at event %s, attempt %d, %s: %s",
        turn.consumer.name, event_id, attempt, then, described(error),
    )  # fmt: skip
