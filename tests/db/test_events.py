"""Events are appended all or none, once, in versions without gaps, and read as they were."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from langgraph_pgsaga import Database
from langgraph_pgsaga.database import Connection
from langgraph_pgsaga.errors import EventIdConflictError, InvalidArgumentError, VersionConflictError
from langgraph_pgsaga.events import ANY, EXISTS, NONE, AgentEvent, EventStore, EventType
from tests._connections import connected
from tests._limits import HANG_SECONDS
from tests.db._events import count, everything, noted, numbers
from tests.db._waits import waits_for_a_lock

pytestmark = pytest.mark.anyio
FULL = bool(os.environ.get("PGSAGA_FULL"))


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[EventStore]:
    async with Database(dsn) as db:
        yield EventStore(db)


async def test_what_was_appended_is_read_as_it_was(store: EventStore) -> None:
    """Every field comes back, with a version, a place and the server's time."""
    event = AgentEvent(
        event_type=EventType.TOOL_EXECUTED,
        event_data={"text": "grüße", "big": 2**60, "deep": [{"a": None}], "pi": 3.5, "old": "a"},
        metadata={"by": "me"},
        timestamp=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        correlation_id="c",
        causation_id="d",
        tags=["account:7", "ü"],
        schema_version=3,
        session_id=uuid.uuid4(),
        checkpoint_id="1f",
    )
    [stored] = await store.append("a", [event], aggregate_type="desk")
    assert stored.version == 1
    assert stored.place is not None
    assert stored.position == stored.place.position
    expected = dataclasses.replace(
        event,
        aggregate_id="a",
        aggregate_type="desk",
        tags=("account:7", "ü"),
        version=1,
        place=stored.place,
        recorded_at=stored.recorded_at,
    )
    assert stored == expected
    assert await store.get_events("a") == [expected]
    assert await everything(store) == [expected]
    assert await store.get_event(event.event_id) == expected
    assert await store.get_event("another") is None


async def test_an_event_has_the_defaults_of_the_original() -> None:
    """An id that is a UUID, empty data, the time of now, no correlation; no version as yet."""
    before = datetime.now(UTC)
    event = AgentEvent(event_type="own", aggregate_id="a", aggregate_type="session")
    assert str(uuid.UUID(event.event_id)) == event.event_id
    assert event.event_type == EventType("own")
    assert (event.event_data, event.metadata, event.version) == ({}, {}, None)
    assert (event.correlation_id, event.causation_id) == (None, None)
    assert before <= event.timestamp <= datetime.now(UTC)
    ids = [AgentEvent(event_type="own").event_id for _ in range(100)]
    assert len(set(ids)) == 100
    assert EventType.SESSION_CREATED.value == str(EventType.SESSION_CREATED) == "session_created"
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.version = 1  # type: ignore[misc]


async def test_the_originals_calls_work(dsn: str) -> None:
    """`EventStore`, `initialize`, `append_event`, `get_events` and the snapshots, in its words."""
    store = EventStore.from_conn_string(dsn)
    await store.initialize()
    event = AgentEvent(
        event_id=str(uuid.uuid4()),
        event_type=EventType.SESSION_CREATED,
        aggregate_id="s1",
        aggregate_type="session",
        event_data={"user": "ada"},
        metadata={},
        timestamp=datetime.now(UTC),
        version=1,
        correlation_id=str(uuid.uuid4()),
        causation_id=None,
    )
    assert (await store.append_event(event)).version == 1
    [found] = await store.get_events("s1", from_version=0)
    assert (found.event_type.value, found.version) == ("session_created", 1)  # type: ignore[union-attr]
    assert await store.get_latest_snapshot("s1") is None
    await store.save_snapshot("s1", "session", {"user": "ada"}, 1)
    assert await store.get_latest_snapshot("s1") == {
        "snapshot_data": {"user": "ada"},
        "version": 1,
    }
    await store.db.aclose()


# Expected versions


async def test_expected_versions_are_what_they_say(store: EventStore) -> None:
    """ANY always, NONE only the first time, EXISTS only later, n only at n; a refusal says both."""
    for wrong, told in ((EXISTS, "exists"), (1, 1)):
        with pytest.raises(VersionConflictError) as caught:
            await store.append("a", [noted()], aggregate_type="desk", expected_version=wrong)
        assert (caught.value.expected, caught.value.actual) == (told, 0)
    await store.append("a", [noted(1), noted(2)], aggregate_type="desk", expected_version=NONE)
    for wrong, told in ((NONE, "none"), (0, 0), (1, 1), (3, 3)):
        with pytest.raises(VersionConflictError) as caught:
            await store.append("a", [noted()], aggregate_type="desk", expected_version=wrong)
        assert (caught.value.expected, caught.value.actual) == (told, 2)
    await store.append("a", [noted(3)], aggregate_type="desk", expected_version=2)
    await store.append("a", [noted(4)], aggregate_type="desk", expected_version=EXISTS)
    await store.append("a", [noted(5)], aggregate_type="desk", expected_version=ANY)
    await store.append("a", [noted(9)], aggregate_type="room", expected_version=NONE)
    found = await store.get_events("a", aggregate_type="desk")
    assert [(e.version, e.event_data["n"]) for e in found] == [(n, n) for n in range(1, 6)]


async def test_an_events_version_is_what_is_expected(store: EventStore) -> None:
    """append_event with version n wants the aggregate at n - 1; append wants them to agree."""
    first = await store.append_event(noted(1, aggregate_id="a", aggregate_type="desk", version=1))
    assert first.version == 1
    with pytest.raises(VersionConflictError) as caught:
        await store.append_event(noted(2, aggregate_id="a", aggregate_type="desk", version=3))
    assert (caught.value.expected, caught.value.actual) == (2, 1)
    await store.append("a", [noted(2, version=2)], aggregate_type="desk", expected_version=1)
    for version, expected in ((5, 2), (3, ANY), (0, ANY), (-1, 0)):
        with pytest.raises(InvalidArgumentError, match="version"):
            await store.append(
                "a",
                [noted(3, version=version)],
                aggregate_type="desk",
                expected_version=expected,
            )
    assert numbers(await store.get_events("a")) == [1, 2]


async def test_of_two_with_one_expected_version_one_wins(store: EventStore) -> None:
    """Again and again, many at once: the others get a conflict, and leave nothing."""
    rounds, tasks = (200, 50) if FULL else (5, 20)
    for turn in range(rounds):

        async def attempt(number: int, turn: int = turn) -> int | VersionConflictError:
            batch = [noted(number), noted(number)]
            try:
                await store.append("a", batch, aggregate_type="desk", expected_version=2 * turn)
            except VersionConflictError as error:
                return error
            return number

        results = await asyncio.gather(*map(attempt, range(tasks)))
        [winner] = [r for r in results if isinstance(r, int)]
        conflicts = [r for r in results if isinstance(r, VersionConflictError)]
        assert {(c.expected, c.actual) for c in conflicts} <= {(2 * turn, 2 * turn + 2)}
        found = await store.get_events("a", 2 * turn)
        assert [e.version for e in found] == [2 * turn + 1, 2 * turn + 2]
        assert numbers(found) == [winner, winner]


async def test_whatever_is_there_is_appended_after(store: EventStore) -> None:
    """Of many at once with ANY each is stored, versions without gaps, batches in one piece."""
    batches = [[noted(f"{task}.{n}") for n in range(3)] for task in range(30)]
    await asyncio.gather(*(store.append("a", b, aggregate_type="desk") for b in batches))
    found = await store.get_events("a")
    assert [e.version for e in found] == list(range(1, 91))
    told = numbers(found)
    assert sorted(told[0::3]) == sorted(f"{task}.0" for task in range(30))
    assert [n.replace(".0", ".1") for n in told[0::3]] == told[1::3]


async def test_who_waits_for_an_aggregate_holds_up_no_other(store: EventStore, dsn: str) -> None:
    """An open append to one aggregate: others go on, and so does who waits, once it is over."""
    async with Database(dsn) as other:
        async with other.transaction() as conn:
            await EventStore(other).append("a", [noted(1)], aggregate_type="desk", conn=conn)
            waiting = asyncio.create_task(store.append("a", [noted(2)], aggregate_type="desk"))
            await waits_for_a_lock(dsn)
            for n in range(20):
                await asyncio.wait_for(
                    store.append("b", [noted(n)], aggregate_type="desk"), HANG_SECONDS
                )
        [stored] = await asyncio.wait_for(waiting, HANG_SECONDS)
    assert stored.version == 2


async def test_a_batch_is_stored_whole_or_not_at_all(store: EventStore, dsn: str) -> None:
    """One id that another aggregate has: nothing of the batch is there."""
    known = noted(1)
    await store.append("other", [known], aggregate_type="desk")
    for batch in ([noted(2), known], [known, noted(2)], [noted(2), known, noted(3)]):
        with pytest.raises(EventIdConflictError, match="another aggregate"):
            await store.append("a", batch, aggregate_type="desk")
    assert await count(dsn) == 1


# Again


async def test_what_is_sent_again_is_stored_once(store: EventStore, dsn: str) -> None:
    """The same ids give the places they have, whatever is expected, and when others came since."""
    batch = [noted(1), noted(2)]
    first = await store.append("a", batch, aggregate_type="desk", expected_version=NONE)
    await store.append("a", [noted(3)], aggregate_type="desk")
    for expected in (NONE, ANY, 0, 7, EXISTS):
        again = await store.append("a", batch, aggregate_type="desk", expected_version=expected)
        assert again == first
    later = [dataclasses.replace(e, timestamp=datetime.now(UTC)) for e in batch]
    assert await store.append("a", later, aggregate_type="desk") == first
    assert await count(dsn) == 3


async def test_an_id_is_one_events(store: EventStore, dsn: str) -> None:
    """Other content, another order, or some of them only, under an id that is there: an error."""
    one, two = noted(1, tags=["t"]), noted(2)
    await store.append("a", [one, two], aggregate_type="desk")
    changes: list[dict[str, Any]] = [
        {"event_data": {"n": 2}},
        {"event_type": "other"},
        {"tags": []},
        {"metadata": {"a": 1}},
        {"schema_version": 2},
    ]
    for change in changes:
        changed = dataclasses.replace(one, **change)
        with pytest.raises(EventIdConflictError, match="other content") as caught:
            await store.append("a", [changed, two], aggregate_type="desk")
        assert caught.value.event_id == one.event_id
    for batch in ([two, one], [one, two, noted(3)], [noted(3), one, two]):
        with pytest.raises(EventIdConflictError):
            await store.append("a", batch, aggregate_type="desk")
    with pytest.raises(InvalidArgumentError, match="each has its own"):
        await store.append("b", [one, one], aggregate_type="desk")
    assert await count(dsn) == 2


async def test_a_lost_reply_is_asked_for_again(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server process ends between the commit and its answer: the event is there once, and
    the append returns where."""
    async with Database(dsn) as db, connected(dsn) as admin:
        store = EventStore(db)
        await store.append("a", [noted(1)], aggregate_type="desk")
        lost: list[str] = []
        real = asyncpg.Connection.fetch

        async def fetch(self: Any, query: str, *args: Any, **more: Any) -> Any:
            found = await real(self, query, *args, **more)
            if "insert into" in query and not lost:
                lost.append(query)
                await admin.execute("select pg_terminate_backend($1)", self.get_server_pid())
                raise ConnectionResetError("cut")
            return found

        monkeypatch.setattr(asyncpg.Connection, "fetch", fetch)
        [stored] = await store.append("a", [noted(2)], aggregate_type="desk", expected_version=1)
        assert lost
        assert stored.version == 2
        assert numbers(await store.get_events("a")) == [1, 2]


async def test_the_same_batch_from_two_at_once_is_stored_once(store: EventStore, dsn: str) -> None:
    """Whoever comes second waits, and gets the places of the first, also where a version was
    expected."""
    for round_no in range(10):
        batch = [noted(1), noted(2)]
        sent = [
            store.append("a", batch, aggregate_type="desk", expected_version=2 * round_no)
            for _ in range(5)
        ]
        results = await asyncio.gather(*sent)
        assert results == [results[0]] * 5
    assert await count(dsn) == 20


# In the caller's transaction


async def test_a_conflict_leaves_the_callers_transaction_usable(store: EventStore) -> None:
    """After each kind of refusal what came before is committed, and so is what comes after."""
    known = noted(0)
    await store.append("a", [known], aggregate_type="desk")
    async with store.db.transaction() as conn:
        await store.append("b", [noted(1)], aggregate_type="desk", conn=conn)
        with pytest.raises(VersionConflictError):
            await store.append(
                "a", [noted()], aggregate_type="desk", expected_version=NONE, conn=conn
            )
        with pytest.raises(EventIdConflictError):
            await store.append("c", [noted(), known], aggregate_type="desk", conn=conn)
        await store.append("b", [noted(2)], aggregate_type="desk", conn=conn)
        assert numbers(await store.get_events("b", conn=conn)) == [1, 2]
    assert numbers(await store.get_events("b")) == [1, 2]


async def test_a_conflict_that_is_waited_for_leaves_the_transaction_usable(
    store: EventStore, dsn: str
) -> None:
    """The version that is appended was somebody else's, who commits only then."""
    async with Database(dsn) as other, store.db.transaction() as conn:
        await store.append("b", [noted(1)], aggregate_type="desk", conn=conn)
        async with other.transaction() as theirs:
            await EventStore(other).append("a", [noted()], aggregate_type="desk", conn=theirs)
            waiting = asyncio.create_task(
                store.append(
                    "a", [noted()], aggregate_type="desk", expected_version=NONE, conn=conn
                )
            )
            await waits_for_a_lock(dsn)
        with pytest.raises(VersionConflictError) as caught:
            await waiting
        assert caught.value.actual == 1
        await store.append("a", [noted(2)], aggregate_type="desk", conn=conn)
    assert numbers(await store.get_events("a")) == [0, 2]
    assert numbers(await store.get_events("b")) == [1]


async def test_what_is_rolled_back_was_never_there(store: EventStore, dsn: str) -> None:
    """Its versions are the next one's."""

    async def fail(conn: Connection) -> None:
        await store.append("a", [noted(1)], aggregate_type="desk", conn=conn)
        raise KeyError("own")

    with pytest.raises(KeyError, match="own"):
        await store.db.run(fail)
    [stored] = await store.append("a", [noted(2)], aggregate_type="desk", expected_version=NONE)
    assert stored.version == 1
    assert await count(dsn) == 1
