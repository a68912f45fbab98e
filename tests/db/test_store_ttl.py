"""Items that live for a time: what has expired is there for nobody, and stays so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from langgraph.store.base import GetOp, ListNamespacesOp, PutOp, SearchOp

from langgraph_pgsaga import Worker
from langgraph_pgsaga.errors import InvalidArgumentError, ItemConflictError
from langgraph_pgsaga.memory import MemoryStore, StoredItem, VersionedPut
from langgraph_pgsaga.tenants import ALL
from tests import _chores
from tests.conftest import execute

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[MemoryStore]:
    async with MemoryStore.from_conn_string(dsn) as store:
        yield store


async def left_seconds(dsn: str, key: str = "k") -> float:
    """How long an item has still to live."""
    conn = await asyncpg.connect(dsn)
    left = await conn.fetchval(
        "select extract(epoch from expires_at - now())::float8 from agent_store_items"
        " where key = $1", key,
    )  # fmt: skip
    await conn.close()
    return float(left)


async def age(dsn: str, minutes: float) -> None:
    """Has all items be older, so that nobody waits for one to expire."""
    await execute(
        dsn,
        "update agent_store_items set expires_at = expires_at - "
        f"interval '1 minute' * {minutes}, created_at = created_at - interval '1 hour'",
    )


@pytest.mark.parametrize("minutes", [0.4, 1, 90.5])
async def test_minutes_may_be_parts_of_one(store: MemoryStore, dsn: str, minutes: float) -> None:
    """0.4 minutes are 24 seconds, and not none."""
    await store.aput(("a",), "k", {}, ttl=minutes)
    assert minutes * 60 - 20 < await left_seconds(dsn) <= minutes * 60
    await store.aget(("a",), "k")
    assert minutes * 60 - 20 < await left_seconds(dsn) <= minutes * 60


async def test_what_has_expired_is_there_for_nobody(store: MemoryStore, dsn: str) -> None:
    """Before any sweep: not got, found, listed, nor refreshed."""
    await store.aput(("a",), "k", {"n": 1}, ttl=1)
    await store.aput(("b",), "other", {"n": 1})
    await age(dsn, 2)
    item, found, names = await store.abatch(
        [GetOp(("a",), "k"), SearchOp((), filter={"n": 1}), ListNamespacesOp()]
    )
    assert item is None
    assert [one.key for one in found] == ["other"]  # type: ignore[union-attr]
    assert names == [("b",)]
    assert await left_seconds(dsn) < 0


async def test_a_put_over_what_has_expired_begins_anew(store: MemoryStore, dsn: str) -> None:
    """With a time of its own and version 1; who expects the old version is refused."""
    await store.aput(("a",), "k", {"n": 1}, ttl=1)
    await store.aput(("a",), "k", {"n": 2}, ttl=1)
    old = await store.aget(("a",), "k")
    assert isinstance(old, StoredItem)
    await age(dsn, 2)
    for value in ({"n": 3}, None):
        with pytest.raises(ItemConflictError) as caught:
            await store.abatch([VersionedPut(("a",), "k", value, expected_version=2)])
        assert caught.value.actual == 0
    await store.aput(("a",), "k", {"n": 3})
    new = await store.aget(("a",), "k")
    assert isinstance(new, StoredItem)
    assert (new.version, new.value) == (1, {"n": 3})
    assert new.created_at == new.updated_at > old.created_at
    await store.aput(("a",), "new", {}, ttl=1)
    await age(dsn, 2)
    await store.aput(("a",), "new", {}, expected_version=0)


@pytest.mark.parametrize("by", ["get", "search", "batch"])
async def test_reading_refreshes_where_it_is_to(store: MemoryStore, dsn: str, by: str) -> None:
    """By each operation's own word."""
    await store.aput(("a",), "k", {}, ttl=10)

    async def read(*, refresh: bool) -> None:
        if by == "get":
            await store.aget(("a",), "k", refresh_ttl=refresh)
        elif by == "search":
            await store.asearch(("a",), refresh_ttl=refresh)
        else:
            await store.abatch([GetOp(("a",), "k", refresh), GetOp(("a",), "none", True)])

    await age(dsn, 5)
    await read(refresh=False)
    assert await left_seconds(dsn) <= 300
    await read(refresh=True)
    assert await left_seconds(dsn) > 500


async def test_settings_are_what_a_call_does_not_say(dsn: str) -> None:
    """default_ttl and refresh_on_read; None is for ever."""
    async with MemoryStore.from_conn_string(
        dsn, ttl={"default_ttl": 10, "refresh_on_read": False}
    ) as store:
        await store.aput(("a",), "k", {})
        await store.aput(("a",), "ever", {}, ttl=None)
        await age(dsn, 5)
        await store.aget(("a",), "k")
        await store.asearch(("a",))
        assert await left_seconds(dsn) <= 300
        await store.aget(("a",), "k", refresh_ttl=True)
        assert await left_seconds(dsn) > 500
        await age(dsn, 20)
        assert [item.key for item in await store.asearch(("a",))] == ["ever"]


async def test_a_refresh_waits_for_nobody(store: MemoryStore, dsn: str) -> None:
    """Who changes an item just now says how long it lives."""
    await store.aput(("a",), "k", {"n": 1}, ttl=10)
    async with store.db.transaction() as conn:
        await store.aput(("a",), "k", {"n": 2}, ttl=20, conn=conn)
        item = await store.aget(("a",), "k")
        assert item is not None
        assert item.value == {"n": 1}
    assert await left_seconds(dsn) > 1000


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf"), "1", True, 1e12])
async def test_times_that_there_are_not_are_refused(store: MemoryStore, minutes: Any) -> None:
    """In a call, in a batch, and in the settings."""
    with pytest.raises(InvalidArgumentError, match="ttl"):
        await store.aput(("a",), "k", {}, ttl=minutes)
    with pytest.raises(InvalidArgumentError, match="ttl"):
        await store.abatch([PutOp(("a",), "k", {}, None, minutes)])
    with pytest.raises(InvalidArgumentError, match="default_ttl"):
        MemoryStore(store.db, ttl={"default_ttl": minutes})


async def test_a_sweep_deletes_what_has_expired(dsn: str) -> None:
    """Of its own tenant, or of all, in any number of batches; and tells how many it were."""
    async with (
        MemoryStore.from_conn_string(dsn) as store,
        MemoryStore.from_conn_string(dsn, tenant="a") as of_a,
    ):
        for one in (store, of_a):
            await one.abatch([PutOp(("a",), str(n), {}, None, 1) for n in range(1500)])
        await age(dsn, 2)
        await store.aput(("a",), "stays", {}, ttl=1)
        await store.aput(("a",), "for ever", {})
        assert await store.asweep_ttl() == 1500
        assert await store.asweep_ttl() == 0
        assert await MemoryStore(store.db, tenant=ALL).asweep_ttl() == 1500
        assert len(await store.asearch(())) == 2


async def test_a_worker_sweeps(store: MemoryStore, dsn: str) -> None:
    """By the store's job, under its name."""
    await store.aput(("a",), "k", {}, ttl=1)
    await age(dsn, 2)
    async with Worker(store.db, store.job()):
        await _chores.until(
            dsn, "exists (select from agent_jobs where finished_at is not null"
            " and name = 'sweep store') and not exists (select from agent_store_items)",
        )  # fmt: skip


def test_how_often_a_job_comes(dsn: str) -> None:
    """As given, as the settings say, else every five minutes."""
    with MemoryStore.from_conn_string(dsn, ttl={"sweep_interval_minutes": 2}) as store:
        assert getattr(store.job(), "every_seconds", None) == 120
        assert getattr(store.job(every_seconds=7), "every_seconds", None) == 7
        assert getattr(MemoryStore(store.db).job(), "every_seconds", None) == 300
