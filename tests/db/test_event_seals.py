"""Seals of the log: whatever is done to a sealed event, or to a seal, is found, and where."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langgraph_pgsaga import Database
from langgraph_pgsaga.database import load_statements
from langgraph_pgsaga.embedded import EmbeddedServer
from langgraph_pgsaga.errors import BrokenSealError, InvalidArgumentError
from langgraph_pgsaga.events import (
    AgentEvent,
    EventStore,
    InclusionProof,
    SealedRoot,
    Tampering,
    check_proof,
)
from langgraph_pgsaga.events import sealing as sealing_module
from langgraph_pgsaga.events.merkle import root_of
from langgraph_pgsaga.events.seal import Seal, leaf_of
from langgraph_pgsaga.events.sealing import leaf_pages
from langgraph_pgsaga.work import Periodic, Worker
from tests._connections import connected
from tests._limits import HANG_SECONDS
from tests.conftest import execute, with_database
from tests.db._events import PLAIN_INSERT, begin_writing, noted, settled
from tests.db._seals import EVENTS, PER_SEAL, run, sealed_log
from tests.db.test_event_eras import copied

pytestmark = pytest.mark.anyio

SEALS = EVENTS // PER_SEAL
_LIST_SEALS = load_statements("seals")["list_seals"]


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[EventStore]:
    async with Database(dsn) as db:
        yield EventStore(db)


def told(found: Any) -> list[tuple[Tampering, int | None, str | None]]:
    return [(one.kind, one.seal, one.event_id) for one in found.findings]


# Sealing


async def test_the_log_is_sealed_in_batches_that_follow_each_other(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once: what is sealed isn't sealed again, and what comes later gets the next seals."""
    await sealed_log(store, monkeypatch)
    found = await store.verify()
    assert (found.seals, found.events, found.unsealed) == (SEALS, EVENTS, 0)
    assert found.is_intact
    assert await store.seal() == 0
    await store.append("a0", [noted(99)], aggregate_type="desk")
    await settled(store)
    assert (await store.verify()).unsealed == 1
    assert await store.seal() == 1
    again = await store.verify()
    assert (again.seals, again.events, again.unsealed) == (SEALS + 1, EVENTS + 1, 0)
    assert found.root != again.root == await store.sealed_root()


async def test_nothing_is_sealed_that_something_may_come_in_front_of(
    dsn: str, store: EventStore
) -> None:
    """While a transaction is open that began to write before, what came after it waits."""
    async with connected(dsn) as slow:
        begun = await begin_writing(slow)
        await store.append("a", [noted(1)], aggregate_type="desk")
        assert await store.seal() == 0
        await slow.execute(PLAIN_INSERT, "b", 1)
        await begun.commit()
    await settled(store)
    await store.seal()
    found = await store.verify()
    assert (found.events, found.is_intact) == (2, True)


async def test_a_page_has_no_more_bytes_than_are_held_at_once(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One large event is a seal of its own; each is sealed once."""
    monkeypatch.setattr(sealing_module, "MOST_BYTES", 3000)
    sizes = (10, 10, 5000, 10, 2000, 2000)
    for number, size in enumerate(sizes):
        text = random.Random(number).randbytes(size // 2).hex()  # which isn't compressed
        event = AgentEvent(event_type="noted", event_data={"text": text})
        await store.append("a", [event], aggregate_type="desk")
    await settled(store)
    assert await store.seal() >= 3
    found = await store.verify()
    assert (found.events, found.is_intact) == (len(sizes), True)


async def test_logs_of_tenants_have_chains_of_their_own(dsn: str, store: EventStore) -> None:
    """Each is sealed and verified by itself; one job seals all of them."""
    tenants = ["", "a", "b", "c"]
    stores = {tenant: EventStore(store.db, tenant=tenant) for tenant in tenants}
    for number, one in enumerate(stores.values(), 1):
        await one.append("x", [noted(n) for n in range(number)], aggregate_type="desk")
    await settled(store)
    job = store.seal_job(all_tenants=True)
    assert isinstance(job, Periodic)
    assert (job.name, job.tenant_id) == ("seal events of all tenants", "")
    await job.work()
    for number, one in enumerate(stores.values(), 1):
        found = await one.verify()
        assert (found.seals, found.events, found.is_intact) == (1, number, True)
    async with connected(dsn) as conn:
        await conn.execute("update agent_events set tenant_id = 'd' where tenant_id = 'a'")
    assert told(await stores["a"].verify()) == [(Tampering.EVENT_MISSING, 1, None)] * 2


async def test_many_sealers_make_one_chain(
    dsn: str, store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight at once, each with connections of its own: each event is in one seal."""
    monkeypatch.setattr(sealing_module, "MOST_EVENTS", 5)
    for number in range(8):
        await store.append("a", [noted(number * 10 + n) for n in range(10)], aggregate_type="desk")
    await settled(store)
    databases = [Database(dsn) for _ in range(8)]
    try:
        counts = await asyncio.gather(*(EventStore(db).seal() for db in databases))
    finally:
        for db in databases:
            await db.aclose()
    assert sum(counts) == 16
    found = await store.verify()
    assert (found.seals, found.events, found.is_intact) == (16, 80, True)


async def test_a_late_sealer_stores_nothing(
    dsn: str, store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that stood still since it read the log finds that others went on, and goes on behind."""
    await store.append("a", [noted(n) for n in range(10)], aggregate_type="desk")
    await settled(store)
    read, may_go_on = asyncio.Event(), asyncio.Event()
    plain_store = sealing_module._store

    async def slow_store(*given: Any) -> int:
        if not read.is_set():
            read.set()
            await may_go_on.wait()
        return await plain_store(*given)

    monkeypatch.setattr(sealing_module, "_store", slow_store)
    late = asyncio.create_task(store.seal())
    await read.wait()
    async with Database(dsn) as db:
        monkeypatch.setattr(sealing_module, "MOST_EVENTS", 4)
        assert await EventStore(db).seal() == 3
    may_go_on.set()
    assert await late == 0
    found = await store.verify()
    assert (found.seals, found.events, found.is_intact) == (3, 10, True)


async def test_workers_elect_a_sealer_and_another_takes_over(
    dsn: str, store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three workers one seals; it is lost in the middle, and the next one ends the work."""
    monkeypatch.setattr(sealing_module, "MOST_EVENTS", 2)
    await store.append("a", [noted(n) for n in range(10)], aggregate_type="desk")
    await settled(store)
    sealers: list[Database] = []
    plain_read = sealing_module._read_page
    stuck = asyncio.Event()

    async def read(db: Database, *given: Any) -> Any:
        if db not in sealers:
            sealers.append(db)
        if len(sealers) == 1 and (await store.verify()).seals == 2:
            stuck.set()
            await asyncio.Event().wait()
        return await plain_read(db, *given)

    monkeypatch.setattr(sealing_module, "_read_page", read)
    async with Database(dsn) as one, Database(dsn) as two, Database(dsn) as three:
        workers = [
            Worker(db, EventStore(db).seal_job(every_seconds=1), grace_seconds=0)
            for db in (one, two, three)
        ]
        async with workers[0], workers[1], workers[2]:
            async with asyncio.timeout(HANG_SECONDS):
                await stuck.wait()
                assert len(sealers) == 1
                await execute(
                    dsn, "update agent_jobs set claim_expires_at = now() - interval '1 s'"
                )
                while (await store.verify()).seals < 5:
                    await asyncio.sleep(0.01)
    found = await store.verify()
    assert (found.seals, found.events, found.is_intact) == (5, 10, True)


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


# Roots and proofs


async def test_a_proof_is_checked_without_a_database(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each event, for the root of then and for one of later; as text, too."""
    stored = await sealed_log(store, monkeypatch)
    early = await store.sealed_root()
    await store.append("a0", [noted(n) for n in range(20)], aggregate_type="desk")
    await settled(store)
    await store.seal()
    late = await store.sealed_root()
    assert early is not None
    assert late is not None
    for event in stored:
        for root, other in ((early, late), (late, early)):
            proof = await store.prove(event.event_id, root=root)
            assert proof is not None
            assert check_proof(proof, root)
            assert not check_proof(proof, other)
            assert InclusionProof.parse(proof.text()) == proof
            assert (proof.event_id, proof.event_data) == (event.event_id, event.event_data)
    newest = await store.prove(stored[0].event_id)
    assert newest is not None
    assert check_proof(newest, late)


async def test_a_proof_that_was_changed_proves_nothing(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is changed in it."""
    await sealed_log(store, monkeypatch)
    root = await store.sealed_root()
    proof = await store.prove("e8")
    assert proof is not None
    assert root is not None
    columns = dict(proof.columns)
    for name, value in columns.items():
        changed = replace(proof, columns={**columns, name: f"{value}1"})
        assert not check_proof(changed, root), name
    seal = proof.seal
    place = seal.first._replace(position=seal.first.position + 1)
    for of_seal in (
        {"number": seal.number + 1}, {"first": place}, {"last": place}, {"events": 7},
        {"root": bytes(32)}, {"previous": bytes(32)}, {"sealed_at": "0"}, {"tenant_id": "x"},
    ):  # fmt: skip
        assert not check_proof(replace(proof, seal=replace(seal, **of_seal)), root), of_seal
    others: list[dict[str, Any]] = [
        {"index": 0}, {"index": -1}, {"path": ()}, {"path": proof.path[::-1]}, {"seals": 3},
        {"seal_path": ()}, {"seal_path": proof.seal_path[::-1]}, {"columns": {}},
    ]  # fmt: skip
    for other in others:
        assert not check_proof(replace(proof, **other), root), other


async def test_what_is_not_sealed_has_no_proof(
    dsn: str, store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No event, one that came later, one sealed later than the root; a changed one is an error."""
    await sealed_log(store, monkeypatch)
    root = await store.sealed_root()
    [later] = await store.append("a0", [noted(1)], aggregate_type="desk")
    assert await store.prove("no such event") is None
    assert await store.prove(later.event_id) is None
    await settled(store)
    await store.seal()
    assert await store.prove(later.event_id, root=root) is None
    assert await store.prove(later.event_id) is not None
    async with connected(dsn) as conn:
        await run(conn, "update agent_events set tags = '{}' where event_id = 'e8'")
    with pytest.raises(BrokenSealError, match="'e8' isn't as it was sealed"):
        await store.prove("e8")


@pytest.mark.parametrize("column", ["events = events + 1", "root = sha256(root)", "first_era = 0"])
async def test_a_changed_seal_gives_no_proof(
    dsn: str, store: EventStore, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    """None that wouldn't hold: an error says so where it is made."""
    await sealed_log(store, monkeypatch)
    root = await store.sealed_root()
    async with connected(dsn) as conn:
        await conn.execute(f"update event_seals set {column}")
    for of in (None, root):
        with pytest.raises(BrokenSealError, match="the way from it to the root doesn't hold"):
            await store.prove("e8", root=of)


@pytest.mark.parametrize("change", ["form", "event", "index", "path", "seal", "root"])
async def test_a_text_that_is_no_proof_is_refused(
    store: EventStore, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    await sealed_log(store, monkeypatch)
    proof = await store.prove("e8")
    assert proof is not None
    for value in (None, ["x"], "x", {"x": 1}, float("inf")):
        text = json.dumps({**json.loads(proof.text()), change: value})
        with pytest.raises(InvalidArgumentError, match="proof"):
            InclusionProof.parse(text)
    for text in ("", "[]", "{", "null"):
        with pytest.raises(InvalidArgumentError, match="proof"):
            InclusionProof.parse(text)


async def test_without_seals_there_is_no_root(store: EventStore) -> None:
    """And nothing to find; a root that was kept says that there were some."""
    found = await store.verify()
    assert (found.seals, found.events, found.root, found.is_intact) == (0, 0, None, True)
    assert await store.sealed_root() is None
    kept = SealedRoot(seals=3, hash=bytes(32))
    assert told(await store.verify(root=kept)) == [(Tampering.ROOT_DIFFERS, 3, None)]


async def test_progress_is_told(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await sealed_log(store, monkeypatch)
    told: list[Any] = []
    await store.verify(on_progress=told.append)
    assert [(one.seals, one.of_seals, one.events) for one in told] == [
        (number, SEALS, number * PER_SEAL) for number in range(1, SEALS + 1)
    ]


# Another cluster


@pytest.mark.slow
async def test_a_log_that_was_dumped_is_intact_in_another_cluster(
    public_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With odd values in it; it is sealed on there, and the root of before is that of before."""
    with (
        EmbeddedServer.start(public_tmp / "seal 1") as first,
        EmbeddedServer.start(public_tmp / "seal 2") as second,
    ):
        await execute(first.dsn, "create database sealed")
        one = with_database(first.dsn, "sealed")
        async with Database(one) as db, connected(one) as conn:
            store = EventStore(db)
            await store.initialize()
            await conn.execute("alter database sealed set timezone = 'Asia/Kathmandu'")
            await store.append("a", [AgentEvent(event_type="odd", event_data=_ODD)],
                               aggregate_type="desk")  # fmt: skip
            await conn.execute(
                "insert into agent_events (event_id, event_type, aggregate_id, aggregate_type,"
                " event_data, version, era, timestamp, tags, metadata) values ('i', 'x', 'b',"
                ' \'b\', \'{"b": 1.10, "a": 1e5, "a": 12345678901234567890.10}\', 1, 1,'
                " 'infinity', '{\"a,b\",NULL,\"q\\\"\"}', '[1]')"
            )
            await sealed_log(store, monkeypatch)
            root = await store.sealed_root()
            assert root is not None
            assert (await store.verify()).is_intact
        two = await copied(one, second.dsn, "sealed_two")
        async with Database(two) as db:
            store = EventStore(db)
            found = await store.verify(root=root)
            assert (found.is_intact, found.root, found.events) == (True, root, EVENTS + 2)
            await store.append("a0", [noted(1)], aggregate_type="desk")
            await settled(store)
            assert await store.seal() == 1
            assert (await store.verify(root=root)).is_intact


_ODD = {"text": '\u2028 é 𝄞 \\ " \t', "float": 1e300, "int": 2**62, "zero": 0.0, "": [[], {}, None]}
