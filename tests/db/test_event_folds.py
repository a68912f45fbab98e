"""A snapshot and what came after it add up to what all events add up to."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langgraph_pgsaga import Database, sync
from langgraph_pgsaga.errors import (
    InvalidArgumentError,
    MissingVersionError,
    UnstorableValueError,
)
from langgraph_pgsaga.events import AgentEvent, Aggregate, EventStore, Upcaster
from tests._connections import connected
from tests.db._events import noted

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[EventStore]:
    async with Database(dsn) as db:
        yield EventStore(db)


def apply(state: dict[str, Any], event: AgentEvent) -> dict[str, Any]:
    """Which words came how often, and the last one."""
    word = event.event_data["n"]
    return {**state, word: state.get(word, 0) + 1, "last": word}


def words(**options: Any) -> Aggregate[dict[str, Any]]:
    return Aggregate(aggregate_type="words", initial=dict, apply=apply, **options)


_steps = st.lists(
    st.one_of(
        st.lists(st.sampled_from("abc"), min_size=1, max_size=4),
        st.sampled_from([1, 2, 3, None]),
    ),
    max_size=8,
)
_ids = count()


@given(steps=_steps)
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_snapshot_and_tail_are_the_whole(dsn: str, steps: list[Any]) -> None:
    """However appends and folds with any pace of snapshots follow each other."""
    with Database(dsn) as db:
        store = sync.EventStore(db)
        name = f"a{next(_ids)}"
        expected: dict[str, Any] = {}
        version = 0
        for step in steps:
            if isinstance(step, list):
                store.append(name, [noted(word) for word in step], aggregate_type="words")
                for word in step:
                    expected = apply(expected, noted(word))
                version += len(step)
            else:
                folded = store.fold(words(snapshot_every=step), name)
                assert (folded.state, folded.version) == (expected, version)
        whole = store.fold(words(schema_version=9), name)
        assert (whole.state, whole.version) == (expected, version)


async def test_fold_reads_what_came_after_the_snapshot(store: EventStore) -> None:
    """And stores a new one once so many events came since the last."""
    read: list[Any] = []

    def counted(state: dict[str, Any], event: AgentEvent) -> dict[str, Any]:
        read.append(event.version)
        return apply(state, event)

    aggregate = dataclasses.replace(words(snapshot_every=3), apply=counted)
    snapshots = []
    for _ in range(5):
        await store.append("a", [noted("a"), noted("b")], aggregate_type="words")
        await store.fold(aggregate, "a")
        found = await store.get_latest_snapshot("a")
        snapshots.append(found and found["version"])
    assert read == [1, 2, 1, 2, 3, 4, 5, 6, 5, 6, 7, 8, 9, 10]
    assert snapshots == [None, 4, 4, 8, 8]
    assert (await store.fold(aggregate, "a", to_version=3)).state == {"a": 2, "b": 1, "last": "a"}
    assert (await store.fold(aggregate, "a", to_version=5)).version == 5


async def test_snapshots_of_another_form_are_passed_over(store: EventStore) -> None:
    """Those of an older and of a newer one; each form has its own."""
    await store.append("a", [noted("a")] * 1 + [noted("b")], aggregate_type="words")
    await store.save_snapshot("a", "words", {"old": True}, 2)
    await store.save_snapshot("a", "words", {"new": True}, 1, schema_version=3)
    folded = await store.fold(words(schema_version=2), "a")
    assert folded.state == {"a": 1, "b": 1, "last": "b"}
    assert (await store.fold(words(), "a")).state == {"old": True}
    found = await store.get_latest_snapshot("a", schema_version=3)
    assert found == {"snapshot_data": {"new": True}, "version": 1}
    assert await store.get_latest_snapshot("a", schema_version=4) is None


async def test_a_snapshot_of_a_version_is_replaced(store: EventStore, dsn: str) -> None:
    """The latest is of the greatest version, whatever was saved last."""
    await store.append("a", [noted(number) for number in range(5)], aggregate_type="words")
    await store.save_snapshot("a", "words", {"n": 1}, 5)
    await store.save_snapshot("a", "words", {"n": 2}, 5)
    await store.save_snapshot("a", "words", {"n": 3}, 4)
    assert await store.get_latest_snapshot("a") == {"snapshot_data": {"n": 2}, "version": 5}
    async with connected(dsn) as conn:
        rows = await conn.fetch("select version, snapshot_data from event_snapshots order by 1")
    assert [tuple(row) for row in rows] == [(4, '{"n": 3}'), (5, '{"n": 2}')]


async def test_a_snapshot_of_a_version_that_isnt_there_is_refused(store: EventStore) -> None:
    """A fold from it would pass over the events that come until then; of a transaction of the
    caller's nothing is lost."""
    await store.append("a", [noted("a")], aggregate_type="words")
    for name, version, last in (("a", 2, 1), ("nobody", 1, 0)):
        async with store.db.transaction() as conn:
            with pytest.raises(MissingVersionError, match=f"has no version {version}") as caught:
                await store.save_snapshot(name, "words", {}, version, conn=conn)
            assert (caught.value.version, caught.value.last_version) == (version, last)
            await store.append("b", [noted("b")], aggregate_type="words", conn=conn)
            await store.save_snapshot("b", "words", {"b": 1}, 1, conn=conn)
        assert await store.get_latest_snapshot(name) is None
    assert (await store.fold(words(), "a")).version == 1


@dataclasses.dataclass(frozen=True)
class Total:
    cents: int = 0


async def test_a_state_may_be_any_object(store: EventStore) -> None:
    """With a way to JSON and back; a dataclass has the first by itself."""
    aggregate: Aggregate[Total] = Aggregate(
        aggregate_type="till",
        initial=Total,
        apply=lambda total, event: Total(total.cents + event.event_data["n"]),
        snapshot_every=1,
        load=lambda data: Total(**data),
    )
    for cents in (5, 7):
        await store.append("a", [noted(cents)], aggregate_type="till")
        await store.fold(aggregate, "a")
    folded = await store.fold(aggregate, "a")
    assert (folded.state, folded.version) == (Total(12), 2)
    assert (await store.fold(aggregate, "nobody")).state == Total()
    with pytest.raises(UnstorableValueError, match="snapshot_data"):
        await store.save_snapshot("a", "till", {"n": float("nan")}, 1)
    with pytest.raises(InvalidArgumentError, match="version"):
        await store.save_snapshot("a", "till", {}, 0)


async def test_archived_payloads_of_each_form_still_load(dsn: str) -> None:
    """What an application stored in its first three forms folds to one state."""
    archived = [(1, {"amount": "1.50"}), (2, {"cents": 250}), (3, {"cents": 5, "currency": "eur"})]
    upcasters = [
        Upcaster(
            event_type="paid",
            schema_version=1,
            upcast=lambda data: {"cents": round(float(data["amount"]) * 100)},
        ),
        Upcaster(
            event_type="paid", schema_version=2, upcast=lambda data: {**data, "currency": "eur"}
        ),
    ]
    async with Database(dsn) as db:
        store = EventStore(db, upcasters=upcasters)
        for form, data in archived:
            event = AgentEvent(event_type="paid", event_data=data, schema_version=form)
            await store.append("a", [event], aggregate_type="till")
        aggregate: Aggregate[int] = Aggregate(
            aggregate_type="till",
            initial=int,
            apply=lambda cents, event: cents + event.event_data["cents"],
        )
        assert (await store.fold(aggregate, "a")).state == 405
        assert {e.event_data["currency"] for e in await store.get_events("a")} == {"eur"}


async def test_an_upcaster_that_raises_is_named(dsn: str) -> None:
    """With its event: most often one of the new form that was appended as of the old one."""

    def upcast(data: dict[str, Any]) -> dict[str, Any]:
        return {"cents": data["amount"]}

    async with Database(dsn) as db:
        store = EventStore(
            db, upcasters=[Upcaster(event_type="paid", schema_version=1, upcast=upcast)]
        )
        new = AgentEvent(event_type="paid", event_data={"cents": 5})
        await store.append("till", [new], aggregate_type="till")
        with pytest.raises(KeyError) as caught:
            await store.get_events("till")
    (note,) = caught.value.__notes__
    assert f"the upcaster of 'paid' from schema version 1, at event {new.event_id!r}" in note
