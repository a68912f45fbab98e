"""Folds and snapshots of events with personal data: what is forgotten is in neither."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from langgraph_pgsaga import Database
from langgraph_pgsaga.errors import CorruptValueError, InvalidArgumentError
from langgraph_pgsaga.events import AgentEvent, Aggregate, EventStore
from langgraph_pgsaga.events.subjects import MARK
from tests._connections import connected
from tests.db._subjects import SECRET, keys, signed_up, stored_texts

pytestmark = pytest.mark.anyio


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    async with Database(dsn) as found:
        yield found


@pytest.fixture
def store(db: Database) -> EventStore:
    return EventStore(db, subjects=keys())


_USERS: Aggregate[dict[str, Any]] = Aggregate(
    aggregate_type="user",
    initial=lambda: {"emails": [], "count": 0},
    apply=lambda state, event: {
        "emails": [*state["emails"], event.event_data.get("email")],
        "count": state["count"] + 1,
    },
    snapshot_every=2,
)


async def test_streams_still_fold_and_snapshots_hold_nothing(dsn: str, store: EventStore) -> None:
    """A snapshot is of all whose data went into it: one that is forgotten makes it unreadable,
    and the state is folded from the events again."""
    events = [signed_up(f"user-{number}") for number in (7, 8, 7)]
    await store.append("u", events, aggregate_type="user")
    assert (await store.fold(_USERS, "u")).state["emails"] == [SECRET] * 3
    assert SECRET not in await stored_texts(dsn)
    snapshot = await store.get_latest_snapshot("u")
    assert snapshot == {"snapshot_data": {"emails": [SECRET] * 3, "count": 3}, "version": 3}
    await store.forget_subject("user-8")
    assert await store.get_latest_snapshot("u") is None
    for _ in range(2):
        folded = await store.fold(_USERS, "u")
        assert (folded.state["emails"], folded.version) == ([SECRET, None, SECRET], 3)
    assert await store.get_latest_snapshot("u") is not None
    await store.forget_subject("user-7")
    assert (await store.fold(_USERS, "u")).state == {"emails": [None] * 3, "count": 3}
    assert SECRET not in await stored_texts(dsn)


async def test_a_snapshot_on_a_snapshot_is_of_the_subjects_of_both(
    dsn: str, store: EventStore
) -> None:
    """The events after a snapshot may be of nobody: what is in the snapshot still is of some."""
    await store.append("u", [signed_up(), signed_up()], aggregate_type="user")
    await store.fold(_USERS, "u")
    plain = AgentEvent(event_type="noted", event_data={})
    await store.append("u", [plain, plain_again()], aggregate_type="user")
    folded = await store.fold(_USERS, "u")
    snapshot = await store.get_latest_snapshot("u")
    assert snapshot is not None
    assert (snapshot["version"], snapshot["snapshot_data"]) == (4, folded.state)
    assert SECRET not in await stored_texts(dsn)
    await store.forget_subject("user-7")
    assert (await store.fold(_USERS, "u")).state["emails"] == [None] * 4


def plain_again() -> AgentEvent:
    return AgentEvent(event_type="noted", event_data={})


async def test_what_is_forgotten_during_a_fold_isn_t_in_its_snapshot(
    dsn: str, store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stored by the keys that the events were read with, not by newer ones."""
    await store.append("u", [signed_up(), signed_up()], aggregate_type="user")

    plain = store._reader.stream

    async def forgotten_since(*given: Any) -> Any:
        found = await plain(*given)
        assert await store.forget_subject("user-7") == 1
        await store.append("v", [signed_up()], aggregate_type="user")
        return found

    monkeypatch.setattr(store._reader, "stream", forgotten_since)
    await store.fold(_USERS, "u")
    monkeypatch.undo()
    async with connected(dsn) as conn:
        assert await conn.fetchval("select count(*) from event_snapshots") == 1
    assert await store.get_latest_snapshot("u") is None


async def test_a_snapshot_of_one_s_own_says_whose_data_it_has(dsn: str, store: EventStore) -> None:
    await store.append("u", [signed_up()], aggregate_type="user")
    state = {"emails": [SECRET]}
    await store.save_snapshot("u", "user", state, 1, subjects=["user-7"])
    assert SECRET not in await stored_texts(dsn)
    found = await store.get_latest_snapshot("u")
    assert found == {"snapshot_data": state, "version": 1}
    with pytest.raises(InvalidArgumentError, match="'user-9' has no key"):
        await store.save_snapshot("u", "user", state, 1, subjects=["user-9"])
    with pytest.raises(InvalidArgumentError, match="no keys"):
        await EventStore(store.db).save_snapshot("u", "user", state, 1, subjects=["user-7"])
    await store.forget_subject("user-7")
    assert await store.get_latest_snapshot("u") is None


async def test_a_store_without_keys_shows_what_is_stored(db: Database, store: EventStore) -> None:
    """It erases nothing, and has nothing to show it by; it passes over snapshots."""
    await store.append("u", [signed_up(), signed_up()], aggregate_type="user")
    await store.fold(_USERS, "u")
    other = EventStore(db)
    events = await other.get_events("u")
    assert list(events[0].event_data["email"]) == [MARK]
    assert events[0].erased == ()
    assert await other.get_latest_snapshot("u") is None


async def test_a_snapshot_that_is_moved_to_another_version_is_an_error(
    dsn: str, store: EventStore
) -> None:
    """As personal data of events is."""
    await store.append("u", [signed_up(), signed_up()], aggregate_type="user")
    await store.save_snapshot("u", "user", {"of": 1}, 1, subjects=["user-7"])
    async with connected(dsn) as conn:
        await conn.execute("update event_snapshots set version = 2")
    with pytest.raises(CorruptValueError):
        await store.get_latest_snapshot("u")
