"""All readers see the committed events once, in one order, and are held up by who must only."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import pytest

from langgraph_pgsaga import Database
from langgraph_pgsaga.database import Connection
from langgraph_pgsaga.events import AgentEvent, EventStore, Upcaster, tail
from tests._connections import connected
from tests._limits import HANG_SECONDS
from tests.db._consumers import until
from tests.db._events import (
    PLAIN_INSERT,
    begin_writing,
    everything,
    noted,
    numbers,
    places,
    settled,
    taken,
)

pytestmark = pytest.mark.anyio

FULL = bool(os.environ.get("PGSAGA_FULL"))
_WRITERS, _APPENDS = 16, 60 if FULL else 12


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[EventStore]:
    async with Database(dsn) as db:
        yield EventStore(db)


class _RolledBackError(Exception):
    pass


async def _write(store: EventStore, writer: int) -> list[tuple[str, int | None]]:
    """Appends to aggregates that all share, alone and in transactions, of which some are rolled
    back; gives what was committed."""
    chance = random.Random(writer)
    done: list[tuple[str, int | None]] = []
    for number in range(_APPENDS):
        batch = [noted(f"{writer}.{number}.{n}") for n in range(chance.randint(1, 3))]
        first, second = sorted(chance.sample("abcdefg", 2))
        kind = chance.random()
        if kind < 0.5:
            done += places(await store.append(first, batch, aggregate_type="desk"))
            continue

        async def work(conn: Connection, kind: float = kind) -> list[Any]:
            if kind > 0.75:  # it has a number before it appends
                await conn.execute("select pg_current_xact_id()")
                await asyncio.sleep(chance.random() * 0.01)
            found = places(await store.append(first, batch, aggregate_type="desk", conn=conn))  # noqa: B023
            await asyncio.sleep(chance.random() * 0.01)
            more = [noted("more")]
            found += places(await store.append(second, more, aggregate_type="desk", conn=conn))  # noqa: B023
            if kind > 0.9:
                raise _RolledBackError
            return found

        try:
            async with store.db.transaction() as conn:
                found = await work(conn)
        except _RolledBackError:
            continue
        done += found
    return done


async def test_every_subscriber_sees_what_was_committed_once_in_one_order(dsn: str) -> None:
    """Beside 16 writers: from the beginning, from the middle, filtered, and read afterwards."""
    async with Database(dsn, max_size=20) as db, Database(dsn) as reading:
        writing, store = EventStore(db), EventStore(reading)
        seen: list[list[AgentEvent]] = [[], [], []]

        async def follow(into: list[AgentEvent], **asked: Any) -> None:
            async for event in store.subscribe(**asked):
                into.append(event)  # noqa: PERF401

        followers = [asyncio.create_task(follow(into)) for into in seen[:2]]
        followers.append(asyncio.create_task(follow(seen[2], types=["noted"])))
        written = await asyncio.gather(*(_write(writing, writer) for writer in range(_WRITERS)))
        committed = [place for of_one in written for place in of_one]
        async with asyncio.timeout(HANG_SECONDS):
            while not all(len(one) >= len(committed) for one in seen):
                await asyncio.sleep(0.01)
        for follower in followers:
            follower.cancel()
        await asyncio.gather(*followers, return_exceptions=True)
        assert sorted(places(seen[0])) == sorted(committed)
        versions: dict[str, list[int | None]] = defaultdict(list)
        for event in seen[0]:
            versions[event.aggregate_id].append(event.version)
        for found in versions.values():
            assert found == list(range(1, len(found) + 1))
        assert seen[1] == seen[2] == seen[0] == await everything(store, limit=7)
        middle = len(seen[0]) // 2
        rest = await taken(store.subscribe(after=seen[0][middle - 1].cursor), len(seen[0]) - middle)
        assert rest == seen[0][middle:]


async def test_what_has_a_lower_position_and_comes_later_is_read(
    store: EventStore, dsn: str
) -> None:
    """B draws a position; A appends and commits; a reader reads; B, which has no transaction number
    until now, appends with that position; the reader reads on."""
    await store.append("warm", [noted(n) for n in range(3)], aggregate_type="desk")
    async with connected(dsn) as b:
        begun = b.transaction()
        await begun.start()
        early = await b.fetchval(
            "select nextval(pg_get_serial_sequence('agent_events', 'position'))"
        )
        [a] = await store.append("a", [noted("a")], aggregate_type="desk")
        assert a.position is not None
        assert a.position > early
        await settled(store)
        page = await store.read_all()
        assert numbers(page.events) == [0, 1, 2, "a"]
        await b.execute(
            """
            insert into agent_events overriding system value
              select tenant_id, 'b', aggregate_type, 1, era, pg_current_xact_id(), $1, 'b',
                event_type, 1, '{"n": "b"}', '{}', '{}'
              from agent_events where aggregate_id = 'a'
            """.replace(
                "overriding",
                "(tenant_id, aggregate_id, aggregate_type, version, era, tx, position, event_id,"
                " event_type, schema_version, event_data, metadata, tags) overriding",
            ),
            early,
        )
        await begun.commit()
    await settled(store)
    page = await store.read_all(after=page.next_cursor)
    assert numbers(page.events) == ["b"]
    assert numbers(await everything(store)) == [0, 1, 2, "a", "b"]


async def test_versions_are_read_in_order_whatever_transaction_began_first(
    store: EventStore, dsn: str
) -> None:
    """A transaction that has its number appends to what a later one left."""
    async with store.db.transaction() as conn:
        await conn.execute("select pg_current_xact_id()")
        async with Database(dsn) as other:
            await EventStore(other).append("a", [noted(1)], aggregate_type="desk")
        await store.append("a", [noted(2)], aggregate_type="desk", conn=conn)
        assert (await store.read_all()).events == ()
    assert numbers(await everything(store)) == [1, 2]


async def test_an_open_transaction_withholds_what_came_after_it_began(
    store: EventStore, dsn: str
) -> None:
    """And is reported; when it ends, what waited comes, in order."""
    await store.append("a", [noted(0)], aggregate_type="desk")
    await settled(store)
    start = await store.latest()
    followed = store.subscribe(after=start)
    async with connected(dsn) as conn:
        begun = await begin_writing(conn)
        await conn.execute(PLAIN_INSERT, "b", 1)
        await store.append("a", [noted(1), noted(2)], aggregate_type="desk")
        waiting = asyncio.ensure_future(anext(followed))
        page = await store.read_all(after=start)
        assert (page.events, page.is_last) == ((), True)
        lag = await store.lag(start)
        assert (lag.events, lag.withheld) == (2, 2)
        assert lag.pid == await conn.fetchval("select pg_backend_pid()")
        assert lag.seconds >= 0
        assert (lag.open_seconds or 0) > 0
        assert not waiting.done()
        await begun.commit()
    first = await asyncio.wait_for(waiting, HANG_SECONDS)
    rest = await taken(followed, 2)
    assert places([first, *rest]) == [("b", 1), ("a", 2), ("a", 3)]
    await settled(store)
    lag = await store.lag(start)
    assert (lag.events, lag.withheld, lag.pid) == (3, 0, None)
    assert (await store.lag(rest[-1].cursor)).events == 0


async def test_who_only_reads_or_rolls_back_withholds_nothing(store: EventStore, dsn: str) -> None:
    """An open snapshot that is older, an idle transaction, appends that were rolled back."""
    async with connected(dsn) as reader, connected(dsn) as idle:
        old = reader.transaction(isolation="repeatable_read", readonly=True)
        await old.start()
        assert await reader.fetchval("select count(*) from agent_events") == 0
        quiet = idle.transaction()
        await quiet.start()
        await idle.execute("select 1")

        async def fail(conn: Connection) -> None:
            await store.append("a", [noted("never")], aggregate_type="desk", conn=conn)
            raise _RolledBackError

        for _ in range(3):
            with pytest.raises(_RolledBackError):
                await store.db.run(fail)
        await store.append("a", [noted(1)], aggregate_type="desk")
        assert numbers(await everything(store)) == [1]
        assert numbers(await taken(store.subscribe(), 1)) == [1]
        await quiet.rollback()
        await old.rollback()


async def test_the_log_tells_who_withholds_events(
    store: EventStore,
    dsn: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once, with the number of events and the process."""
    monkeypatch.setattr(tail, "_TOLD_AFTER_SECONDS", 0.0)
    caplog.set_level(logging.WARNING, "langgraph_pgsaga.events")
    async with connected(dsn) as conn:
        begun = await begin_writing(conn)
        pid = await conn.fetchval("select pg_backend_pid()")
        await store.append("a", [noted(1)], aggregate_type="desk")
        followed = store.subscribe()
        waiting = asyncio.ensure_future(anext(followed))
        async with asyncio.timeout(HANG_SECONDS):
            while not caplog.messages:
                await asyncio.sleep(0.005)
        await begun.rollback()
    await asyncio.wait_for(waiting, HANG_SECONDS)
    await followed.aclose()  # type: ignore[attr-defined]
    [told] = caplog.messages
    assert told.startswith("1 events wait")
    assert f"pid {pid}" in told


async def test_an_append_takes_no_lock_that_others_share_and_notifies_nobody(
    store: EventStore, dsn: str
) -> None:
    """One statement; of its transaction, the locks are those of any insert."""
    queries: list[str] = []
    async with store.db.transaction() as conn, connected(dsn) as admin:
        # The driver asks for types once.
        await store.append("a", [noted(), noted()], aggregate_type="desk", conn=conn)
        with conn.query_logger(lambda record: queries.append(record.query)):
            await store.append("a", [noted(n) for n in range(5)], aggregate_type="desk", conn=conn)
        pid = await conn.fetchval("select pg_backend_pid()")
        locks = await admin.fetch(
            "select locktype, mode, relation::regclass::text as name from pg_locks where pid = $1",
            pid,
        )
    assert len(queries) == 1
    assert "notify" not in queries[0].lower()
    assert {lock["locktype"] for lock in locks} <= {"relation", "virtualxid", "transactionid"}
    modes = {lock["mode"] for lock in locks if lock["locktype"] == "relation"}
    assert modes <= {"AccessShareLock", "RowExclusiveLock"}
    async with connected(dsn) as admin:
        made = "select count(*) from pg_trigger where tgrelid = 'agent_events'::regclass"
        assert await admin.fetchval(made) == 0


async def test_subscribers_of_a_process_have_one_reader(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once they have caught up: each gets what it asked for, of what is read once."""
    await store.append("a", [noted(0)], aggregate_type="desk")
    await settled(store)
    asked: list[dict[str, Any]] = [{}, {"types": ["other"]}, {"tags": ["t"]}] * 5
    followed = [store.subscribe(**one) for one in asked]
    waiting = [asyncio.ensure_future(anext(one)) for one in followed]
    assert all([numbers([await one]) == [0] for one in waiting[::3]])
    again = [asyncio.ensure_future(anext(one)) for one in followed[::3]]
    await until(lambda: len(_followers(store)) == 1 and sum(_followers(store)) == len(asked))
    reads = 0
    real = store.db.fetch

    async def fetch(statement: Any, *args: Any, **options: Any) -> Any:
        nonlocal reads
        reads += statement[0].name == "read_page"
        return await real(statement, *args, **options)

    monkeypatch.setattr(store.db, "fetch", fetch)
    event = noted(1, event_type="other", tags=["t"])
    await store.append("a", [event], aggregate_type="desk")
    waiting[::3] = again
    got = await asyncio.wait_for(asyncio.gather(*waiting), HANG_SECONDS)
    assert all(one is got[0] for one in got)
    assert reads < len(asked)
    for one in followed:
        await one.aclose()  # type: ignore[attr-defined]
    assert _followers(store) == []


def _followers(store: EventStore) -> list[int]:
    return [one.followers for one in tail.TAILS._of.get(store.db, {}).values()]


async def test_who_falls_behind_misses_nothing(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Little is kept: a subscriber that was busy reads the rest for itself, and goes on."""
    monkeypatch.setattr(tail, "_MOST_KEPT", 5)
    busy, quick = store.subscribe(), store.subscribe()
    first = [asyncio.ensure_future(anext(one)) for one in (busy, quick)]
    await until(lambda: _followers(store) == [2])
    for number in range(40):
        await store.append("a", [noted(number)], aggregate_type="desk")
    found = [await asyncio.wait_for(one, HANG_SECONDS) for one in first]
    assert numbers(found) == [0, 0]
    assert numbers(await taken(quick, 39)) == list(range(1, 40))
    await store.append("a", [noted(40)], aggregate_type="desk")
    assert numbers(await taken(busy, 40)) == list(range(1, 41))


async def test_stores_that_read_otherwise_have_readers_of_their_own(store: EventStore) -> None:
    """An upcaster of one changes nothing of what another's subscriber gets."""
    form = Upcaster(event_type="noted", schema_version=1, upcast=lambda data: {"n": -data["n"]})
    stores = [store, EventStore(store.db, upcasters=[form]), EventStore(store.db)]
    followed = [one.subscribe() for one in stores]
    waiting = [asyncio.ensure_future(anext(one)) for one in followed]
    await until(lambda: sorted(_followers(store)) == [1, 2])
    await store.append("a", [noted(1)], aggregate_type="desk")
    found = await asyncio.wait_for(asyncio.gather(*waiting), HANG_SECONDS)
    assert numbers(found) == [1, -1, 1]
    for one in followed:
        await one.aclose()  # type: ignore[attr-defined]
