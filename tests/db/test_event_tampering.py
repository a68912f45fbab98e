"""Whatever is done to a sealed event, or to a seal, is found, and where."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langgraph_pgsaga import Database
from langgraph_pgsaga.database import load_statements
from langgraph_pgsaga.errors import BrokenSealError
from langgraph_pgsaga.events import EventStore, Tampering
from langgraph_pgsaga.events.merkle import root_of
from langgraph_pgsaga.events.seal import Seal, leaf_of
from langgraph_pgsaga.events.sealing import leaf_pages
from tests._connections import connected
from tests.db._events import noted, settled
from tests.db._seals import EVENTS, SEALS, run, sealed_log, told

pytestmark = pytest.mark.anyio
_LIST_SEALS = load_statements("seals")["list_seals"]


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[EventStore]:
    async with Database(dsn) as db:
        yield EventStore(db)


# Tampering

_COLUMNS: dict[str, str] = {
    "aggregate_id": "aggregate_id || 'x'",
    "aggregate_type": "aggregate_type || 'x'",
    "version": "version + 1000",
    "event_type": "'other'",
    "schema_version": "schema_version + 1",
    "event_data": "event_data || '{\"n\": 1000}'",
    "metadata": "'{}'",
    "tags": "array_append(tags, 'other')",
    "correlation_id": "coalesce(correlation_id, '') || 'x'",
    "causation_id": "coalesce(causation_id, '') || 'x'",
    "session_id": "gen_random_uuid()",
    "checkpoint_id": "''",
    "timestamp": "timestamp + interval '1 microsecond'",
    "recorded_at": "recorded_at - interval '1 microsecond'",
}


@pytest.mark.parametrize("column", _COLUMNS)
async def test_a_change_of_any_column_is_found(
    dsn: str, store: EventStore, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    """And where: the seal and the event; nothing else is blamed."""
    await sealed_log(store, monkeypatch)
    async with connected(dsn) as conn:
        change = f"update agent_events set {column} = {_COLUMNS[column]} where event_id = 'e8'"
        await run(conn, change)
    assert told(await store.verify()) == [(Tampering.EVENT_CHANGED, 2, "e8")]


async def test_every_column_of_an_event_is_hashed(dsn: str) -> None:
    """A column that a migration adds has to be thought of here."""
    async with connected(dsn) as conn:
        rows = await conn.fetch(
            "select attname::text from pg_attribute"
            " where attrelid = 'agent_events'::regclass and attnum > 0 and not attisdropped"
        )
    moved = {"tenant_id", "era", "tx", "position", "event_id"}
    assert {row[0] for row in rows} == set(_COLUMNS) | moved


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("update agent_events set event_id = 'x' where event_id = 'e8'", "EVENT_CHANGED 2 x"),
        ("delete from agent_events where event_id = 'e8'", "EVENT_MISSING 2 None"),
        (
            "update agent_events set tenant_id = 'x' where event_id = 'e8'",
            "EVENT_MISSING 2 None",
        ),
        (
            ("update agent_events set tx = (tx::text::numeric + 100000)::text::xid8"
            " where event_id = 'e8'"),
            "EVENT_MISSING 2 None, EVENT_ADDED None e8",
        ),
        (
            ("insert into agent_events (event_id, event_type, aggregate_id, aggregate_type,"
            " event_data, version, era, tx, position) overriding system value select 'x',"
            " event_type, 'x', aggregate_type, event_data, version, era, tx, -1"
            " from agent_events where event_id = 'e8'"),
            "EVENT_ADDED None x",
        ),
        (
            ("insert into agent_events (event_id, event_type, aggregate_id, aggregate_type,"
            " event_data, version, era) select 'x', event_type, 'x', aggregate_type,"
            " event_data, version, era + 1 from agent_events where event_id = 'e8'"),
            "EVENT_ADDED None x",
        ),
        ("update agent_events set era = 0 where event_id = 'e8'",
         "EVENT_ADDED 1 e8, EVENT_MISSING 2 None"),
        (
            ("insert into agent_events (event_id, event_type, aggregate_id, aggregate_type,"
            " event_data, version, era, tx) select 'x', event_type, 'x', aggregate_type,"
            " event_data, version, era, tx from agent_events where event_id = 'e8'"),
            "EVENT_ADDED 2 x",
        ),
        (
            ("update agent_events e set event_data = o.event_data from agent_events o"
            " where (e.event_id, o.event_id) in (('e8', 'e13'), ('e13', 'e8'))"),
            "EVENT_CHANGED 2 e8, EVENT_CHANGED 3 e13",
        ),
        (
            ("update agent_events e set tx = o.tx from agent_events o"
            " where (e.event_id, o.event_id) in (('e7', 'e8'), ('e8', 'e7'))"),
            "EVENT_CHANGED 2 e8, EVENT_CHANGED 2 e7",
        ),
        ("delete from event_seals where number = 2", "SEAL_MISSING 2 None"),
        ("delete from event_seals where number = 4", "SEAL_MISSING 4 None"),
        ("delete from event_seals where number >= 2",
         "SEAL_MISSING 2 None"),
        ("delete from event_seal_heads", "SEAL_CHANGED 4 None"),
        ("update event_seal_heads set number = 3", "SEAL_CHANGED 4 None"),
        ("update event_seal_heads set hash = '\\x00'", "SEAL_CHANGED 4 None"),
        ("update event_seals set events = 7 where number = 2", "SEAL_CHANGED 2 None"),
        ("update event_seals set leaves = leaves || '\\x00' where number = 2",
         "SEAL_CHANGED 2 None"),
        (("update event_seals set leaves = overlay(leaves placing '\\x00' from 40)"
         " where number = 2"), "SEAL_CHANGED 2 None"),
        ("update event_seals set root = hash where number = 2", "SEAL_CHANGED 2 None"),
        ("update event_seals set previous = hash where number = 2", "SEAL_CHANGED 2 None"),
        ("update event_seals set hash = root where number = 2", "SEAL_CHANGED 2 None"),
        ("update event_seals set sealed_at = sealed_at - interval '1 day' where number = 2",
         "SEAL_CHANGED 2 None"),
        ("update event_seals set last_position = last_position + 1 where number = 2",
         "SEAL_CHANGED 2 None"),
        ("update event_seals set first_era = 0 where number = 2", "SEAL_CHANGED 2 None"),
        ("update event_seals set number = 9 where number = 2",
         "SEAL_MISSING 2 None, SEAL_MISSING 5 None, SEAL_CHANGED 9 None, SEAL_CHANGED 9 None"),
    ],
)  # fmt: skip
async def test_each_kind_of_tampering_is_found_where_it_is(
    dsn: str, store: EventStore, monkeypatch: pytest.MonkeyPatch, change: str, expected: str
) -> None:
    await sealed_log(store, monkeypatch)
    root = await store.sealed_root()
    async with connected(dsn) as conn:
        await conn.execute(change)
    found = await store.verify()
    shown = [f"{kind.name} {seal} {event_id}" for kind, seal, event_id in told(found)]
    assert ", ".join(shown) == expected
    assert found.finding_count == len(shown)
    assert not (await store.verify(root=root)).is_intact


async def test_an_event_at_the_very_place_of_another_is_found(
    dsn: str, store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where pages of the log meet."""
    await sealed_log(store, monkeypatch)
    async with connected(dsn) as conn:
        for event_id in ("e0", "e5", "e6", "e23"):
            await run(
                conn,
                "insert into agent_events (event_id, event_type, aggregate_id, aggregate_type,"
                " event_data, version, era, tx, position) overriding system value select"
                " 'z' || event_id, 'x', 'x', event_id, '{}', 1, era, tx, position"
                " from agent_events where event_id = $1",
                event_id,
            )
    found = {event_id for _, _, event_id in told(await store.verify())}
    assert found == {"ze0", "ze5", "ze6", "ze23"}


async def test_who_makes_a_seal_anew_is_found_by_the_next_one(
    dsn: str, store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event is changed, and its seal made to fit: the seal behind it was made for another."""
    await sealed_log(store, monkeypatch)
    async with connected(dsn) as conn:
        await run(conn, "update agent_events set tags = '{}' where event_id = 'e8'")
    row = (
        await store.db.fetch(_LIST_SEALS.bind(tenant_id="", after_number=1, to_number=2, page=1))
    )[0]
    kept = Seal.from_row("", row)
    before = kept.first._replace(position=kept.first.position - 1)
    [events] = [rows async for rows in leaf_pages(store.db, "", before, kept.last)]
    leaves = [leaf_of(event["columns"]) for event in events]
    forged = replace(kept, root=root_of(leaves))
    async with connected(dsn) as conn:
        values = (b"".join(leaves), forged.root, forged.hash())
        change = "update event_seals set leaves = $1, root = $2, hash = $3 where number = 2"
        await run(conn, change, *values)
    found = await store.verify()
    assert told(found) == [(Tampering.SEAL_CHANGED, 3, None)]


async def test_who_makes_all_seals_anew_is_found_by_a_root_that_was_kept(
    dsn: str, store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And by nothing else: that is what roots are for."""
    await sealed_log(store, monkeypatch)
    root = await store.sealed_root()
    assert root is not None
    await _seal_anew(dsn, monkeypatch, "update agent_events set tags = '{}' where event_id = 'e8'")
    async with connected(dsn) as conn:
        await conn.execute(
            "update event_seals s set root = f.root, leaves = f.leaves, hash = f.hash,"
            " previous = f.previous, sealed_at = f.sealed_at from forged f"
            " where s.number = f.number;"
            "update event_seal_heads set hash = (select hash from forged where number = 4)"
        )
    assert (await store.verify()).is_intact
    assert told(await store.verify(root=root)) == [(Tampering.ROOT_DIFFERS, 4, None)]


async def _seal_anew(dsn: str, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """A change, and in the table `forged` the seals that fit it."""
    async with connected(dsn) as conn:
        await conn.execute("create table kept as select * from event_seals")
        await conn.execute(change)
        await conn.execute("delete from event_seals; delete from event_seal_heads")
        async with Database(dsn) as db:
            await EventStore(db).seal()
        await conn.execute(
            "create table forged as select * from event_seals;"
            "delete from event_seals; insert into event_seals select * from kept;"
            "update event_seal_heads set hash = (select hash from kept where number = 4)"
        )


async def test_nothing_is_sealed_behind_a_chain_that_is_broken(
    dsn: str, store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sealer says so instead, and goes on with the logs of others."""
    await sealed_log(store, monkeypatch)
    other = EventStore(store.db, tenant="z")
    for one in (store, other):
        await one.append("b", [noted()], aggregate_type="desk")
    async with connected(dsn) as conn:
        await run(conn, "delete from event_seals where number = 4")
    await settled(store)
    with pytest.raises(BrokenSealError, match="seal 4 is broken: 3 is the last"):
        await store.seal()
    with pytest.raises(BrokenSealError):
        await store.sealed_root()
    job: Any = store.seal_job(all_tenants=True)
    with pytest.raises(BrokenSealError):
        await job.work()
    assert (await other.verify()).seals == 1


# A law: whatever is done, it is found

_EVENT_CHANGES = st.tuples(st.sampled_from(sorted(_COLUMNS)), st.integers(0, EVENTS - 1)).map(
    lambda given: (
        f"update agent_events set {given[0]} = {_COLUMNS[given[0]]} where event_id = 'e{given[1]}'"
    )
)
_REMOVALS = st.integers(0, EVENTS - 1).map(
    lambda number: f"delete from agent_events where event_id = 'e{number}'"
)
_SWAPS = st.tuples(
    st.sampled_from(["event_data", "tx", "timestamp", "metadata"]),
    st.sets(st.integers(0, EVENTS - 1), min_size=2, max_size=2).map(sorted),
).map(
    lambda given: (
        f"update agent_events e set {given[0]} = o.{given[0]}"
        " from agent_events o where (e.event_id, o.event_id) in"
        f" (('e{given[1][0]}', 'e{given[1][1]}'), ('e{given[1][1]}', 'e{given[1][0]}'))"
    )
)
_INSERTS = st.integers(0, EVENTS - 1).map(
    lambda number: (
        "insert into agent_events (event_id, event_type, aggregate_id, aggregate_type,"
        " event_data, version, era, tx) select gen_random_uuid()::text, 'x',"
        " gen_random_uuid()::text, 'x', '{}', 1, era, tx from agent_events"
        f" where event_id = 'e{number}' and event_id <> 'e{EVENTS - 1}'"
    )
)
_OF_SEALS = st.tuples(
    st.sampled_from(
        [
            "delete from event_seals where number = {}",
            "update event_seals set events = events - 1 where number = {}",
            "update event_seals set hash = sha256(hash) where number = {}",
            "update event_seals set leaves = substr(leaves, 33) where number = {}",
            (
                "update event_seals set last_tx = first_tx, last_position = last_position - 1"
                " where number = {}"
            ),
            "update event_seals set sealed_at = now() where number = {}",
        ]
    ),
    st.integers(1, SEALS),
).map(lambda given: given[0].format(given[1]))


async def test_whatever_is_done_is_found(
    dsn: str, store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One to three random changes of events and seals, by SQL, each time to the same log."""
    await sealed_log(store, monkeypatch)
    changes = st.one_of(_EVENT_CHANGES, _REMOVALS, _SWAPS, _INSERTS, _OF_SEALS)
    loop = asyncio.get_running_loop()

    @settings(
        max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(st.lists(changes, min_size=1, max_size=3))
    def is_found(statements: list[str]) -> None:
        asyncio.run_coroutine_threadsafe(_tampered(dsn, store, statements), loop).result()

    await asyncio.to_thread(is_found)
    assert (await store.verify()).is_intact


async def _tampered(dsn: str, store: EventStore, statements: list[str]) -> None:
    """Does it, looks, and puts everything back."""
    async with connected(dsn) as conn:
        before = await _contents(conn)
        await conn.execute("create table backup_events as select * from agent_events")
        await conn.execute("create table backup_seals as select * from event_seals")
        for statement in statements:
            await conn.execute(statement)
        is_other = await _contents(conn) != before
        found = await store.verify()
        assert found.is_intact != is_other, statements
        await conn.execute(
            "delete from agent_events; insert into agent_events overriding system value"
            " select * from backup_events; delete from event_seals; insert into event_seals"
            " select * from backup_seals; drop table backup_events, backup_seals"
        )


async def _contents(conn: asyncpg.Connection[asyncpg.Record]) -> list[str]:
    rows = await conn.fetch(
        "select e::text from agent_events e union all select s::text from event_seals s order by 1"
    )
    return [row[0] for row in rows]
