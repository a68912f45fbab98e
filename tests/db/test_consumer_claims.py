"""Who is given which events of a log when: claims, horizons, predecessors, and what waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from langgraph_pgsaga import Database
from langgraph_pgsaga.database import Connection, load_statements
from langgraph_pgsaga.events import AgentEvent, Consumer, DeadLetters, EventStore, following
from langgraph_pgsaga.events.turn import Turn
from langgraph_pgsaga.work import Retry, Worker
from tests import _chores
from tests._connections import connected
from tests.db._consumers import caught_up, letters, until
from tests.db._events import PLAIN_INSERT, begin_writing, noted, settled

pytestmark = pytest.mark.anyio
STATEMENTS = load_statements("consumers")
A_MINUTE = Retry(attempts=5, backoff_seconds=60.0, factor=1.0, jitter=0.0)


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[EventStore]:
    async with Database(dsn) as db:
        yield EventStore(db)


async def prepared(store: EventStore, *names: str) -> None:
    """Consumers of these names, which begin at the beginning."""
    job: Any = store.job(*(Consumer(name=name, handler=print) for name in names))
    await job.prepare(store.db)


async def append(store: EventStore, *names: str) -> list[AgentEvent]:
    """An event of each aggregate, numbered in all, each by a transaction of its own."""
    found: list[AgentEvent] = []
    for number, name in enumerate(names):
        found += await store.append(name, [noted(number)], aggregate_type="desk")
    await settled(store)
    return found


async def claimed(
    store: EventStore,
    name: str,
    *,
    predecessor: str | None = None,
    owner: UUID | None = None,
    conn: Connection | None = None,
) -> list[asyncpg.Record]:
    """What a worker that looks now is given."""
    bound = STATEMENTS["claim_consumer"].bind(
        claimed_by=owner or uuid4(),
        lease_seconds=30.0,
        page=10,
        tenant_id="",
        consumers=[name],
        predecessors=[predecessor],
    )
    return await store.db.fetch(bound, conn=conn)


async def test_who_claims_waits_for_nobody_and_gets_what_is_nobodys(store: EventStore) -> None:
    """What another one is about to claim isn't waited for, and is his once that is committed."""
    await prepared(store, "c")
    await append(store, "a")
    async with store.db.transaction() as conn:
        [row] = await claimed(store, "c", conn=conn)
        assert await claimed(store, "c") == []
    assert (row["fence"], row["deaths"]) == (1, 0)
    assert await claimed(store, "c") == []


async def test_a_claim_that_ended_by_its_time_is_a_death(store: EventStore, dsn: str) -> None:
    """By those it is known where workers die again and again."""
    await prepared(store, "c")
    await append(store, "a")
    for deaths in range(3):
        [row] = await claimed(store, "c")
        assert (row["fence"], row["deaths"]) == (deaths + 1, deaths)
        await _chores.rows(dsn, "update event_consumers set claim_expires_at = now()")


async def test_a_handler_is_given_what_those_before_it_had(store: EventStore, dsn: str) -> None:
    """It isn't claimed before, and reads no further; whichever way it is read."""
    await prepared(store, "first", "second")
    events = await append(store, "a", "b")
    assert await claimed(store, "second", predecessor="first") == []
    place = events[0].place
    assert place is not None
    moved = "update event_consumers set era = $1, tx = $2::text::xid8, position = $3"
    await _chores.rows(
        dsn, f"{moved} where name = 'first'", place.era, str(place.tx), place.position
    )
    [row] = await claimed(store, "second", predecessor="first")
    asked: dict[str, Any] = {
        "tenant_id": "",
        "after_era": row["era"],
        "after_tx": row["tx"],
        "after_position": row["position"],
        "page": 10,
        "consumer": "second",
        "partition": 0,
        "predecessor": "first",
    }
    narrowed: dict[str, Any] = {
        "types": ["noted"],
        "tags": None,
        "window_rows": 100,
        "aggregate_types": None,
        "partition_count": 1,
    }
    for bound in (
        STATEMENTS["read_every"].bind(**asked),
        STATEMENTS["read_batch"].bind(**asked, **narrowed),
    ):
        found = await store.db.fetch(bound)
        assert [one["aggregate_id"] for one in found] == ["a"]


@pytest.mark.parametrize("types", [None, ["noted"]])
async def test_nothing_comes_in_front_of_what_was_given(
    store: EventStore, dsn: str, types: list[str] | None
) -> None:
    """What an older transaction may still store before it is waited for."""
    seen: list[str] = []
    made = Consumer(name="c", handler=lambda event: seen.append(event.aggregate_id), types=types)
    await append(store, "first")
    async with connected(dsn) as conn:
        begun = await begin_writing(conn)
        await store.append("last", [noted(2)], aggregate_type="desk")
        async with Worker(store.db, store.job(made)):
            await until(lambda: seen == ["first"])
            # It has looked at what there is, and is nobody's.
            await _chores.until(dsn, "claimed_by is null and fence > 0 from event_consumers")
            assert seen == ["first"]
            await conn.execute(PLAIN_INSERT, "between", 1)
            await begun.commit()
            await caught_up(store, "c")
    assert seen == ["first", "between", "last"]


async def test_what_isnt_due_is_neither_found_nor_begun(store: EventStore, dsn: str) -> None:
    """Its time may be told anew between the two."""
    await prepared(store, "c")
    [event] = await append(store, "a")
    owner = uuid4()
    [row] = await claimed(store, "c", owner=owner)
    named = {"tenant_id": "", "consumer": "c", "partition": 0}
    aggregate = {"aggregate_type": "desk", "aggregate_id": "a"}
    at = {"version": 1, "event_id": event.event_id, "event_type": "noted"}
    letter = STATEMENTS["insert_dead_letter"].bind(
        **named, **aggregate, **at, attempts=1, delay_seconds=60.0, error="E"
    )
    await store.db.fetch(letter)
    due = STATEMENTS["list_due"].bind(**named, page=10)
    begin = STATEMENTS["begin_attempt"].bind(
        **aggregate,
        **at,
        claimed_by=owner,
        tenant_id="",
        name="c",
        partition=0,
        fence=row["fence"],
        event_version=1,
        attempts=2,
        delay_seconds=60.0,
        error="E",
    )
    assert await store.db.fetch(due) == []
    [begun] = await store.db.fetch(begin)
    assert (begun["fence"], begun["attempts"]) == (row["fence"], None)
    await _chores.rows(dsn, "update event_dead_letters set due_at = now()")
    assert len(await store.db.fetch(due)) == 1
    [begun] = await store.db.fetch(begin)
    assert begun["attempts"] == 2


async def test_what_is_asked_for_again_as_it_fails_is_tried_at_once(
    store: EventStore, dsn: str
) -> None:
    """The attempt that was under way says nothing of when the next one is."""
    began, go = asyncio.Event(), asyncio.Event()
    calls: list[int | None] = []

    async def handle(event: AgentEvent) -> None:
        calls.append(event.version)
        if len(calls) == 2:
            began.set()
            await go.wait()
        if len(calls) < 3:
            raise ValueError

    await append(store, "a")
    made = Consumer(name="c", handler=handle, retry=A_MINUTE)
    async with Worker(store.db, store.job(made)):
        await until(lambda: letters(store))
        await _chores.rows(dsn, "update event_dead_letters set due_at = now()")
        await began.wait()
        assert await DeadLetters(store.db).retry("c") == 1
        go.set()
        await until(lambda: calls == [1, 1, 1])


async def test_a_page_that_was_read_before_an_event_failed_waits_for_it(store: EventStore) -> None:
    """The next page is read beside the handling of one."""
    seen: list[tuple[str, int | None]] = []

    async def handle(event: AgentEvent) -> None:
        seen.append((event.aggregate_id, event.version))
        if event.aggregate_id == "a":
            raise ValueError

    await append(store, "a", "a", "b", "a", "c")
    made = Consumer(name="c", handler=handle, retry=A_MINUTE, batch=1)
    async with Worker(store.db, store.job(made)):
        await caught_up(store, "c")
    assert seen == [("a", 1), ("b", 1), ("c", 1)]


async def test_neither_goes_on_while_one_takes_the_others_place(
    store: EventStore, dsn: str
) -> None:
    await prepared(store, "old", "new")

    async def swap(conn: Connection) -> None:
        rows = "select name from event_consumers for update skip locked"
        assert await _chores.rows(dsn, rows) == []

    await store.replace_consumer("old", "new", swap=swap)


@pytest.mark.parametrize("types", [None, ["noted"]])
async def test_large_events_are_read_few_at_once(
    store: EventStore, dsn: str, monkeypatch: pytest.MonkeyPatch, types: list[str] | None
) -> None:
    """And many where they are small; where workers died, one by one at first."""
    monkeypatch.setattr(following, "_PAGE_CHARACTERS", 4000)
    monkeypatch.setattr(following, "_FIRST_PAGE", 4)
    asked: list[int] = []
    seen: list[str] = []
    real = Turn.read

    async def read(self: Turn, after: Any, page: int) -> Any:
        asked.append(page)
        return await real(self, after, page)

    monkeypatch.setattr(Turn, "read", read)
    await store.append("a", [noted("small") for _ in range(40)], aggregate_type="desk")
    await store.append("a", [noted("x" * 1000) for _ in range(90)], aggregate_type="desk")
    await settled(store)
    made = Consumer(
        name="c",
        handler=lambda events: seen.extend(event.event_data["n"] for event in events),
        in_batches=True,
        batch=50,
        types=types,
    )
    async with Worker(store.db, store.job(made)):
        await caught_up(store, "c")
    assert seen == ["small"] * 40 + ["x" * 1000] * 90
    assert asked[0] == 4
    assert max(asked) == 50
    assert asked[-1] <= 4
    asked.clear()
    await store.append("a", [noted("again")], aggregate_type="desk")
    dead = "update event_consumers set deaths = 2, claimed_by = gen_random_uuid()"
    await _chores.rows(dsn, f"{dead}, claim_expires_at = now()")
    async with Worker(store.db, store.job(made)):
        await until(lambda: seen[-1] == "again")
    assert asked[0] == 1
