"""What is done in a turn: what waits is tried again, what has come is read and handled."""

from __future__ import annotations

import asyncio
import time

import asyncpg

from langgraph_pgsaga.database import Connection, load_statements
from langgraph_pgsaga.events.calling import HandlerFailedError
from langgraph_pgsaga.events.place import EventPlace
from langgraph_pgsaga.events.read_events import Page, ReadEvents, aggregate_of
from langgraph_pgsaga.events.retrying import Retrying, park
from langgraph_pgsaga.events.turn import Turn

_STATEMENTS = load_statements("consumers")
# After so long a partition is given up, for others to have a turn.
_LONGEST_SECONDS = 1.0
# Where so many workers died at one place, or so many claims ended there by what is nobody's fault,
# such as a connection that was lost, what may have been in work there is handled event by event,
# each attempt counted before it begins: the event that ends processes or connections is a dead
# letter then.
_SUSPECT_DEATHS = 2
_SUSPECT_ATTEMPTS = 5
# A turn's first page has so many events, and each later one up to so many times as many.
_FIRST_PAGE = 100
_GROWTH = 4
_PAGE_CHARACTERS = 16 * 2**20


class Following:
    """A turn's work."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        row = turn.claim.row
        self._place = EventPlace.of_row(row)
        self._is_suspect = row["deaths"] >= _SUSPECT_DEATHS or row["attempts"] >= _SUSPECT_ATTEMPTS
        # A page may have been read before an event of it was parked.
        self._has_parked = False
        # What may have killed others by its size is read one by one at first.
        self._size = _PageSize(turn.consumer.batch, 1 if self._is_suspect else _FIRST_PAGE)

    async def run(self) -> None:
        """Handles what is there, for a while; then the claim is ended."""
        turn = self._turn
        await Retrying(turn, self._place).run()
        until = time.monotonic() + _LONGEST_SECONDS
        next_page: asyncio.Task[Page] | None = None
        try:
            while not turn.claim.is_ended:
                page = await (next_page or self._read(self._place))
                self._size.note(page.events)
                next_page = None
                is_last = page.is_end or turn.is_ending() or time.monotonic() >= until
                if not is_last:  # read beside the handling
                    next_page = asyncio.create_task(self._read(page.reached))
                is_whole = await self._handle(page, is_last=is_last)
                if is_last or not is_whole:
                    await self._end()
        finally:
            if next_page is not None:
                next_page.cancel()
                await asyncio.wait([next_page])

    async def _read(self, after: EventPlace) -> Page:
        return await self._turn.read(after, self._size.events)

    async def _end(self) -> None:
        if not self._turn.claim.is_ended:
            await self._write(None, self._place, is_last=True)

    async def _handle(self, page: Page, *, is_last: bool) -> bool:
        """Has a page's events handled, and writes how far that is; whether it is all of them."""
        events = page.events
        if page.has_waiting or self._has_parked:
            events = events.without(await self._waiting(events))
        if self._is_suspect:
            events = await self._handle_carefully(events)
            self._is_suspect = False
        part = _Part(self._turn.consumer.batch)
        while len(events) and not self._turn.is_ending():
            events = await self._handle_some(events, part, page, is_last=is_last)
        if len(events):
            return False
        if self._place != page.reached and not self._turn.claim.is_ended:
            await self._write(None, page.reached, is_last=is_last)
            self._place = page.reached
        return True

    async def _handle_some(
        self, events: ReadEvents, part: _Part, page: Page, *, is_last: bool
    ) -> ReadEvents:
        """What is left of the events, after some were handled, or one was parked."""
        if part.error is not None and part.failed == 0:
            row = events.row(0)
            await park(self._turn, row, events.place(0), part.error)
            self._has_parked = True
            self._place = events.place(0)
            part.forget()
            return events[1:].without({aggregate_of(row)})

        def place_of(done: int) -> EventPlace:
            return page.reached if done == len(events) else events.place(done - 1)

        async def write(conn: Connection | None, done: int) -> asyncpg.Record:
            return await self._write(conn, place_of(done), is_last=is_last and done == len(events))

        try:
            done = await self._turn.apply(events[: part.size()], write)
        except HandlerFailedError as failed:
            part.fail(failed, min(part.size(), len(events)))
            if failed.index and not self._turn.consumer.is_projection:
                part.handled(failed.index)
                return events[failed.index :]
            return events
        self._place = place_of(done)
        part.handled(done)
        return events[done:]

    async def _write(
        self, conn: Connection | None, place: EventPlace, *, is_last: bool
    ) -> asyncpg.Record:
        claim = self._turn.claim
        if is_last:
            return await claim.end(_STATEMENTS["end_consumer"], conn=conn, **place.named())
        return await claim.write(_STATEMENTS["move_consumer"], conn=conn, **place.named())

    async def _waiting(self, events: ReadEvents) -> set[tuple[str, str]]:
        """Which of their aggregates wait."""
        names = list(events.aggregates())
        bound = _STATEMENTS["list_waiting"].bind(
            **self._turn.named(),
            aggregate_types=[kind for kind, _ in names],
            aggregate_ids=[name for _, name in names],
        )
        return set(map(aggregate_of, await self._turn.db.fetch(bound)))

    async def _handle_carefully(self, events: ReadEvents) -> ReadEvents:
        """Handles each as one that waits."""
        while len(events) and not self._turn.is_ending():
            row, self._place = events.row(0), events.place(0)
            await park(self._turn, row, self._place, None)
            self._has_parked = True
            await Retrying(self._turn, self._place).run()
            events = events[1:]
            events = events.without(await self._waiting(events[:1]))
        return events


class _PageSize:
    """How many events are read at once: as many as are wanted, of large ones fewer."""

    def __init__(self, most: int, first: int) -> None:
        self._most = most
        self.events = min(most, first)

    def note(self, page: ReadEvents) -> None:
        """A page was read: the next one has no more characters than it should, as far as these
        tell."""
        room = _PAGE_CHARACTERS * max(len(page), 1) // max(page.characters(), 1)
        self.events = max(1, min(self._most, room, _GROWTH * self.events))


class _Part:
    """How many events are handled together next, and which one is known to fail."""

    def __init__(self, most: int) -> None:
        self._most = self._size = most
        self.failed: int | None = None
        self.error: BaseException | None = None

    def size(self) -> int:
        """How many."""
        return self.failed or self._size

    def fail(self, failed: HandlerFailedError, size: int) -> None:
        """One of so many failed."""
        if failed.index is None:
            self._size = max(1, size // 2)
            self.forget()
        else:
            self.failed, self.error = failed.index, failed.error

    def handled(self, done: int) -> None:
        """So many were handled."""
        self._size = min(self._size * 2, self._most)
        if self.failed is not None:
            self.failed -= done

    def forget(self) -> None:
        """Of what comes now nothing is known."""
        self.failed = self.error = None
