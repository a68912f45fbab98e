"""Events are appended all or none, once, in versions without gaps, and read as they were."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

import asyncpg
import pytest
from pydantic import BaseModel

from langgraph_pgsaga import Database
from langgraph_pgsaga.database import Connection
from langgraph_pgsaga.errors import (
    AmbiguousAggregateError,
    EventIdConflictError,
    InvalidArgumentError,
    InvalidCursorError,
    UnstorableValueError,
    VersionConflictError,
)
from langgraph_pgsaga.events import (
    ANY,
    EXISTS,
    NONE,
    AgentEvent,
    EventStore,
    EventType,
    Upcaster,
)
from langgraph_pgsaga.work import this_step
from tests._connections import connected
from tests._limits import HANG_SECONDS
from tests.db._events import count, everything, noted, numbers, settled
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


# Bad input


class Odd:
    pass


@dataclasses.dataclass
class Refund:
    cents: int
    at: datetime


class Shape(Enum):
    ROUND = "round"


class Order(BaseModel):
    shape: Shape
    due: timedelta


async def test_data_may_be_a_dataclass_or_a_model(store: EventStore) -> None:
    """What they hold is JSON as pydantic makes it."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    events = [
        AgentEvent(event_type="a", event_data=Refund(5, at)),
        AgentEvent(event_type="b", event_data=Order(shape=Shape.ROUND, due=timedelta(hours=1))),
    ]
    await store.append("a", events, aggregate_type="desk")
    found = await store.get_events("a")
    assert [e.event_data for e in found] == [
        {"cents": 5, "at": "2026-01-01T00:00:00Z"},
        {"shape": "round", "due": "PT1H"},
    ]
    assert len(await store.append("a", events, aggregate_type="desk")) == 2


_LOOP: list[Any] = []
_LOOP.append(_LOOP)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"a": [{"b": Odd()}]}, r"\['a'\]\[0\]\['b'\] can't be stored: it is a Odd"),
        ({"a": "x\0y"}, r"\['a'\] can't be stored: it has a NUL"),
        ({"a\0": 1}, "NUL"),
        ({"a": "\ud800"}, "surrogate"),
        ({"a": float("nan")}, "it is nan"),
        ({"a": [float("-inf")]}, r"\['a'\]\[0\] can't be stored: it is -inf"),
        ({"a": 2**63}, "more than 64 bits"),
        ({1: 2}, "a key is a int"),
        ({"a": datetime(2026, 1, 1, tzinfo=UTC)}, "it is a datetime"),
        ({"a": _LOOP}, "holds itself"),
        ({"a": "x" * 100_000_000}, "more than 16 MiB"),
        ({"a": "ü" * 9_000_000}, "more than 16 MiB"),
        ([1], "it is a list, not a dict"),
        (Refund, "it is a type, not a dict"),
        (Refund(float("nan"), datetime.now(UTC)), "it is nan"),  # type: ignore[arg-type]
        (Refund(Odd(), datetime.now(UTC)), "pydantic can't dump a Refund"),  # type: ignore[arg-type]
        (None, "NoneType"),
    ],
    ids=lambda value: "" if not isinstance(value, str) else value[:20],
)
async def test_what_cant_be_stored_is_refused(
    store: EventStore, dsn: str, data: Any, told: str
) -> None:
    """By a typed error that says where it is, and shows nothing of it; nothing is stored."""
    for bad in (
        AgentEvent(event_type="noted", event_data=data),
        AgentEvent(event_type="noted", metadata=data),
    ):
        with pytest.raises(UnstorableValueError, match=told) as caught:
            await store.append("a", [noted(), bad], aggregate_type="desk")
        assert len(str(caught.value)) < 300
    assert await count(dsn) == 0


@pytest.mark.parametrize("value", [2**53, -(2**63), 1e300, 5e-324, -0.0, 0.1, "\\u0000", 1e16])
async def test_numbers_and_text_come_back_equal(store: EventStore, value: Any) -> None:
    """What jsonb writes in another way is the same number, and what looks like an escape is text;
    an append that is repeated is the same, too."""
    event = noted(value)
    first = await store.append("a", [event], aggregate_type="desk")
    assert numbers(await store.get_events("a")) == [value]
    assert await store.append("a", [event], aggregate_type="desk") == first


async def test_bad_arguments_are_refused(store: EventStore, dsn: str) -> None:
    """Names of no or too many bytes, times without a zone, too many events."""
    bad: list[tuple[dict[str, Any], AgentEvent]] = [
        ({"aggregate_id": ""}, noted()),
        ({"aggregate_id": "x" * 256}, noted()),
        ({"aggregate_type": "a\0"}, noted()),
        ({"expected_version": -1}, noted()),
        ({"expected_version": True}, noted()),
        ({"expected_version": "any"}, noted()),
        ({"condition": {"types": []}}, noted()),
        ({}, noted(event_id="")),
        ({}, noted(event_type="")),
        ({}, noted(tags="alone")),
        ({}, noted(tags=[""])),
        ({}, noted(timestamp=datetime(2026, 1, 1))),  # noqa: DTZ001
        ({}, noted(schema_version=0)),
        ({}, noted(correlation_id="x" * 300)),
        ({}, noted(session_id="text")),
        ({}, noted(aggregate_id="another")),
    ]
    for more, event in bad:
        arguments: dict[str, Any] = {"aggregate_id": "a", "aggregate_type": "desk", **more}
        with pytest.raises(InvalidArgumentError):
            await store.append(events=[event], **arguments)
    with pytest.raises(InvalidArgumentError, match=r"not 'none'\. Besides there are NONE, EXISTS"):
        await store.append("a", [noted()], aggregate_type="desk", expected_version="none")  # type: ignore[arg-type]
    uncalled: Any = this_step
    with pytest.raises(InvalidArgumentError, match=r"call it, as in conn=this_step\(\)"):
        await store.append("a", [noted()], aggregate_type="desk", conn=uncalled)
    with pytest.raises(InvalidArgumentError, match="conn: must be a connection"):
        await store.get_events("a", conn=uncalled)
    for events in ([], [noted()] * 10_001, ["text"], noted(), "text"):
        with pytest.raises(InvalidArgumentError, match="events"):
            await store.append("a", events, aggregate_type="desk")  # type: ignore[arg-type]
    with pytest.raises(UnstorableValueError, match="append in parts"):
        await store.append(
            "a",
            [noted("x" * 15_000_000)] * 0 + [noted("x" * 15_000_000) for _ in range(5)],
            aggregate_type="desk",
        )
    assert await count(dsn) == 0


# Reading


async def test_an_id_of_several_types_asks_for_one(store: EventStore) -> None:
    """get_events and get_latest_snapshot name them; from whatever version is asked."""
    for kind in ("room", "desk", "hall"):
        await store.append("a", [noted(kind)], aggregate_type=kind)
    for version in (0, 5):
        with pytest.raises(AmbiguousAggregateError, match="aggregate_type=") as caught:
            await store.get_events("a", version)
        assert caught.value.aggregate_types == ("desk", "hall", "room")
    assert numbers(await store.get_events("a", aggregate_type="room")) == ["room"]
    assert await store.get_events("a", aggregate_type="other") == []
    assert await store.get_events("nobody") == []
    await store.save_snapshot("a", "room", {"of": "room"}, 1)
    assert (await store.get_latest_snapshot("a") or {})["snapshot_data"] == {"of": "room"}
    await store.save_snapshot("a", "desk", {"of": "desk"}, 1)
    with pytest.raises(AmbiguousAggregateError):
        await store.get_latest_snapshot("a")


async def test_a_long_stream_is_read_whole(store: EventStore) -> None:
    """Beyond what one statement gives; from a version (exclusive), and up to one."""
    for start in range(0, 12_000, 6_000):
        batch = [noted(n) for n in range(start, start + 6_000)]
        await store.append("a", batch, aggregate_type="desk")
    assert numbers(await store.get_events("a")) == list(range(12_000))
    assert numbers(await store.get_events("a", 11_998)) == [11_998, 11_999]
    assert numbers(await store.get_events("a", 5, to_version=7)) == [5, 6]


async def test_the_log_is_read_by_what_is_asked(store: EventStore) -> None:
    """Types, tags, correlation, causation and times, alone and together, in pages of any size."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    events = [
        noted(
            n,
            event_type=f"type{n % 3}",
            tags=[f"tag{n % 2}", "all"],
            correlation_id=f"c{n % 4}",
            causation_id=f"d{n % 5}",
            timestamp=start + timedelta(hours=n),
        )
        for n in range(60)
    ]
    await store.append("a", events[:30], aggregate_type="desk")
    await store.append("b", events[30:], aggregate_type="desk")
    asks: list[tuple[dict[str, Any], Any]] = [
        ({}, lambda n: True),
        ({"types": ["type1"]}, lambda n: n % 3 == 1),
        ({"types": [EventType("type0"), "type2"]}, lambda n: n % 3 != 1),
        ({"types": []}, lambda n: False),
        ({"tags": ["tag1"]}, lambda n: n % 2),
        ({"tags": ["tag1", "all"]}, lambda n: n % 2),
        ({"tags": ["tag1", "tag0"]}, lambda n: False),
        ({"tags": []}, lambda n: True),
        ({"correlation_id": "c3"}, lambda n: n % 4 == 3),
        ({"causation_id": "d3"}, lambda n: n % 5 == 3),
        ({"since": start + timedelta(hours=10)}, lambda n: n >= 10),
        ({"until": start + timedelta(hours=10)}, lambda n: n < 10),
        (
            {"since": start + timedelta(hours=7), "until": start + timedelta(hours=40)},
            lambda n: 7 <= n < 40,
        ),
        (
            {"types": ["type1"], "since": start + timedelta(hours=7)},
            lambda n: n % 3 == 1 and n >= 7,
        ),
        (
            {"types": ["type1"], "tags": ["tag1"], "correlation_id": "c1", "causation_id": "d2"},
            lambda n: n % 3 == 1 and n % 2 and n % 4 == 1 and n % 5 == 2,
        ),
    ]
    for asked, fits in asks:
        expected = [n for n in range(60) if fits(n)]
        for limit in (1, 7, 1000):
            assert numbers(await everything(store, limit=limit, **asked)) == expected, asked


async def test_a_page_goes_on_from_an_events_cursor(store: EventStore, dsn: str) -> None:
    """Behind that event, in every way of reading; and what is no cursor is refused."""
    stored = await store.append(
        "a", [noted(n, tags=["t"]) for n in range(5)], aggregate_type="desk"
    )
    for asked in ({}, {"tags": ["t"]}, {"since": datetime(2020, 1, 1, tzinfo=UTC)}):
        await settled(store)
        page = await store.read_all(after=stored[2].cursor, **asked)
        assert numbers(page.events) == [3, 4]
        assert page.is_last
        await store.append("a", [noted("later", tags=["t"])], aggregate_type="desk")
        await settled(store)
        more = await store.read_all(after=page.next_cursor, **asked)
        assert "later" in numbers(more.events)
        async with connected(dsn) as conn:  # so that each turn begins with five
            await conn.execute("delete from agent_events where event_data ->> 'n' = 'later'")
    for odd in ("", "x", "WyJldmVudHMiLDEsMl0=", stored[0].event_id):
        with pytest.raises(InvalidCursorError):
            await store.read_all(after=odd)


# Tenants, forms


async def test_a_tenants_events_are_its_own(dsn: str) -> None:
    """Ids, versions, reads, snapshots, guards and subscriptions of one say nothing of another's."""
    async with Database(dsn, tenant="b") as db:
        ours, theirs = EventStore(db, tenant="a"), EventStore(db)
        event = noted("ours", tags=["t"], correlation_id="c")
        await ours.append("x", [event], aggregate_type="desk")
        await ours.save_snapshot("x", "desk", {"ours": 1}, 1)
        assert await theirs.get_events("x") == []
        assert await theirs.get_event(event.event_id) is None
        assert await theirs.get_latest_snapshot("x") is None
        for asked in ({}, {"tags": ["t"]}, {"correlation_id": "c"}, {"types": ["noted"]}):
            assert await everything(theirs, **asked) == []
        same = dataclasses.replace(event, event_data={"n": "theirs"})
        [stored] = await theirs.append("x", [same], aggregate_type="desk", expected_version=NONE)
        assert stored.version == 1
        assert numbers(await everything(ours)) == ["ours"]
        assert numbers(await everything(theirs)) == ["theirs"]


async def test_older_forms_are_brought_up_to_date(dsn: str) -> None:
    """Upcasters chain, for each way of reading; what is stored stays."""
    async with Database(dsn) as db:
        old = EventStore(db)
        for form, data in ((1, {"name": "a b"}), (2, {"first": "a", "last": "b"})):
            event = AgentEvent(event_type="named", event_data=data, schema_version=form, tags=["t"])
            await old.append("a", [event], aggregate_type="desk")

        def split(data: dict[str, Any]) -> dict[str, Any]:
            first, last = data["name"].split()
            return {"first": first, "last": last}

        chain = [
            Upcaster(event_type="named", schema_version=2, upcast=lambda d: {**d, "title": None}),
            Upcaster(event_type=EventType("named"), schema_version=1, upcast=split),
        ]
        new = EventStore(db, upcasters=chain)
        latest = {"first": "a", "last": "b", "title": None}
        for found in (
            await new.get_events("a"),
            await everything(new),
            await everything(new, tags=["t"]),
        ):
            assert [(e.schema_version, e.event_data) for e in found] == [(3, latest)] * 2
        assert [e.schema_version for e in await old.get_events("a")] == [1, 2]
        with pytest.raises(InvalidArgumentError, match="two"):
            EventStore(db, upcasters=[chain[0], chain[0]])
