"""Seals of the log: who makes them, of what, and what is proved by them."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from langgraph_pgsaga import Database
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
from langgraph_pgsaga.work import Periodic, Worker
from tests._connections import connected
from tests._limits import HANG_SECONDS
from tests.conftest import execute, with_database
from tests.db._events import PLAIN_INSERT, begin_writing, noted, settled
from tests.db._seals import EVENTS, PER_SEAL, SEALS, run, sealed_log, told
from tests.db.test_event_eras import copied

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[EventStore]:
    async with Database(dsn) as db:
        yield EventStore(db)


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
