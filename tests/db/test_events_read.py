"""What an event may hold, and how events are asked for: by page, tenant and form."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

import pytest
from pydantic import BaseModel

from langgraph_pgsaga import Database
from langgraph_pgsaga.errors import (
    AmbiguousAggregateError,
    InvalidArgumentError,
    InvalidCursorError,
    UnstorableValueError,
)
from langgraph_pgsaga.events import NONE, AgentEvent, EventStore, EventType, Upcaster
from langgraph_pgsaga.work import this_step
from tests._connections import connected
from tests.db._events import count, everything, noted, numbers, settled

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[EventStore]:
    async with Database(dsn) as db:
        yield EventStore(db)


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
