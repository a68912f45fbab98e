"""Conditions: what was decided from some events is refused once another of them has come."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from langgraph_pgsaga import Database
from langgraph_pgsaga.errors import (
    ConditionFailedError,
    InvalidArgumentError,
    VersionConflictError,
)
from langgraph_pgsaga.events import (
    NONE,
    AgentEvent,
    Condition,
    EventStore,
    EventType,
)
from tests._connections import connected
from tests._limits import HANG_SECONDS
from tests.db._events import count, noted, numbers
from tests.db._waits import waits_for_a_lock

pytestmark = pytest.mark.anyio

FULL = bool(os.environ.get("PGSAGA_FULL"))
ROUNDS = 1000 if FULL else 40


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[EventStore]:
    async with Database(dsn, max_size=20) as db:
        store = EventStore(db)
        await store.guard(["taken", "freed", "booked", "spent", "noted"])
        yield store


def tagged(*tags: str, event_type: str = "noted", **data: Any) -> AgentEvent:
    return AgentEvent(event_type=event_type, tags=tags, event_data=data)


async def outcomes(*calls: Awaitable[Any]) -> list[Any]:
    """What came of each, an exception of ours included."""
    found = await asyncio.gather(*calls, return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException) and not isinstance(one, ConditionFailedError):
            raise one
    return list(found)


# Examples


async def take_name(store: EventStore, account: str, name: str) -> bool:
    """A name is taken by the one who took it last, until they free it."""
    mine = Condition(types=["taken", "freed"], tags=[f"name:{name}"])
    found = await store.read_matching(mine)
    if found.events and found.events[-1].event_type == EventType("taken"):
        return False
    condition = Condition(types=mine.types, tags=mine.tags, after=found.position)
    event = tagged(f"name:{name}", event_type="taken", account=account)
    try:
        await store.append(account, [event], aggregate_type="account", condition=condition)
    except ConditionFailedError:
        return False
    return True


async def test_a_username_is_one_accounts(store: EventStore) -> None:
    """Of many that ask for it at once one gets it, each time that it is free."""
    for turn in range(5):
        accounts = [f"{turn}.{n}" for n in range(10)]
        got = await asyncio.gather(*(take_name(store, account, "ada") for account in accounts))
        assert sum(got) == 1
        assert not await take_name(store, "late", "ada")
        assert await take_name(store, "other", f"free {turn}")
        owner = accounts[got.index(True)]
        freed = tagged("name:ada", event_type="freed")
        await store.append(owner, [freed], aggregate_type="account")


async def book(store: EventStore, seats: int, show: str, guest: str) -> bool:
    """A show has so many seats, and a guest goes to two shows at most."""
    while True:
        of_show = await store.read_matching(Condition(types=["booked"], tags=[show]))
        of_guest = await store.read_matching(Condition(types=["booked"], tags=[guest]))
        if len(of_show.events) >= seats or len(of_guest.events) >= 2:
            return False
        # Of the guest's own bookings only this process makes any, one after the other.
        condition = Condition(types=["booked"], tags=[show], after=of_show.position)
        booked = tagged(show, guest, event_type="booked")
        try:
            await store.append(guest, [booked], aggregate_type="guest", condition=condition)
        except ConditionFailedError:
            continue
        return True


async def test_no_more_seats_are_booked_than_there_are(store: EventStore) -> None:
    """Many guests at several shows at once, each of whom tries again when somebody came before."""

    async def guest(number: int) -> int:
        return sum([await book(store, 5, f"show:{show}", f"guest:{number}") for show in range(3)])

    booked = await asyncio.gather(*map(guest, range(12)))
    assert max(booked) <= 2
    shows = [
        await store.read_matching(Condition(types=["booked"], tags=[f"show:{n}"])) for n in range(3)
    ]
    assert [len(show.events) for show in shows] == [5, 5, 5]


async def test_a_budget_isnt_overdrawn(store: EventStore) -> None:
    """Spending from one budget by many aggregates: the sum never exceeds it."""
    budget = Condition(types=["spent"], tags=["budget:1"])

    async def spend(agent: str, cents: int) -> bool:
        while True:
            found = await store.read_matching(budget)
            if sum(event.event_data["cents"] for event in found.events) + cents > 100:
                return False
            condition = Condition(types=["spent"], tags=["budget:1"], after=found.position)
            event = tagged("budget:1", event_type="spent", cents=cents)
            try:
                await store.append(agent, [event], aggregate_type="agent", condition=condition)
            except ConditionFailedError:
                continue
            return True

    chance = random.Random(1)
    spent = await asyncio.gather(*(spend(f"agent {n}", chance.randint(5, 30)) for n in range(20)))
    total = sum(e.event_data["cents"] for e in (await store.read_matching(budget)).events)
    assert any(spent)
    assert not all(spent)
    assert 70 < total <= 100


# Races


async def test_of_two_that_exclude_each_other_one_is_refused(store: EventStore, dsn: str) -> None:
    """Each one's event matches the other's condition: one is stored, whatever comes first."""
    for number in range(ROUNDS):
        tag = f"t{number}"
        condition = Condition(types=["noted"], tags=[tag])
        found = await outcomes(
            *(
                store.append(
                    f"{n}.{number}", [tagged(tag)], aggregate_type="a", condition=condition
                )
                for n in range(2)
            )
        )
        assert sum(isinstance(one, ConditionFailedError) for one in found) == 1
    assert await count(dsn) == ROUNDS


async def test_an_append_without_a_condition_cant_slip_past(store: EventStore) -> None:
    """Beside one with a condition either the condition fails, or the other has a later position."""
    refused = 0
    for number in range(ROUNDS):
        tag = f"t{number}"
        condition = Condition(types=["noted"], tags=[tag])
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: store.append("a", [tagged(tag)], aggregate_type="a", condition=condition),  # noqa: B023
            lambda: store.append("b", [tagged(tag)], aggregate_type="a"),  # noqa: B023
        ]
        if number % 2:
            calls.reverse()
        found = await outcomes(*(call() for call in calls))
        guarded, other = reversed(found) if number % 2 else found
        if isinstance(guarded, ConditionFailedError):
            refused += 1
        else:
            assert guarded[0].position < other[0].position
    assert 0 < refused < ROUNDS or not FULL


async def test_the_check_sees_what_was_committed_while_it_waited(
    store: EventStore, dsn: str
) -> None:
    """A appends and is open; B's conditional append waits for it, and is refused once A commits;
    where A is rolled back B is stored."""
    for commits in (True, False):
        tag = f"t {commits}"
        async with connected(dsn) as conn:
            begun = conn.transaction()
            await begun.start()
            await store.append("a", [tagged(tag)], aggregate_type="a", conn=conn)
            condition = Condition(types=["noted"], tags=[tag])
            waiting = asyncio.create_task(
                store.append(tag, [tagged(tag)], aggregate_type="b", condition=condition)
            )
            await waits_for_a_lock(dsn)
            if commits:
                await begun.commit()
                with pytest.raises(ConditionFailedError) as caught:
                    await asyncio.wait_for(waiting, HANG_SECONDS)
                assert caught.value.after == 0
                assert caught.value.tags == (tag,)
            else:
                await begun.rollback()
                [stored] = await asyncio.wait_for(waiting, HANG_SECONDS)
                assert stored.version == 1


async def test_unrelated_ones_never_wait_for_each_other(store: EventStore, dsn: str) -> None:
    """While one is open: others of other tags, of other types, or of types that aren't guarded."""
    async with Database(dsn) as other, other.transaction() as conn:
        held = Condition(types=["noted"], tags=["t"])
        await EventStore(other).append(
            "a", [tagged("t")], aggregate_type="a", condition=held, conn=conn
        )
        async with asyncio.timeout(HANG_SECONDS):
            for types, tag in ((["noted"], "u"), (["taken", "freed"], "t")):
                await store.append(
                    f"{types}",
                    [tagged(tag, event_type=types[0])],
                    aggregate_type="b",
                    condition=Condition(types=types, tags=[tag]),
                )
            await store.append("c", [tagged("t", event_type="free")], aggregate_type="b")
            await store.append("d", [noted()], aggregate_type="b")


async def test_keys_are_locked_in_one_order(store: EventStore) -> None:
    """Appends with the same tags in any order, of events and conditions: no deadlock."""
    tags = [f"t{n}" for n in range(6)]
    chance = random.Random(2)

    async def append(number: int) -> Any:
        mixed = chance.sample(tags, 4)
        events = [tagged(*mixed[:2]), tagged(*mixed[2:])]
        condition = Condition(types=["noted"], tags=chance.sample(tags, 3), after=2**62)
        return await store.append(
            f"{number}", events, aggregate_type="a", condition=condition if number % 2 else None
        )

    found = await asyncio.gather(*map(append, range(60)))
    assert all(len(one) == 2 for one in found)


# The rest


async def test_a_condition_is_about_what_came_after(store: EventStore) -> None:
    """All of its tags, one of its types, in this tenant, after its position."""
    [first] = await store.append("a", [tagged("t", "u")], aggregate_type="a")
    assert first.position is not None
    passing = [
        Condition(types=["noted"], tags=["t"], after=first.position),
        Condition(types=["taken"], tags=["t"]),
        Condition(types=["noted"], tags=["t", "v"]),
        Condition(types=["noted"], tags=["v"]),
    ]
    for condition in passing:
        await store.append("b", [noted()], aggregate_type="b", condition=condition)
    failing = [
        Condition(types=["noted"], tags=["t"], after=first.position - 1),
        Condition(types=["taken", EventType("noted")], tags=["t", "u"]),
    ]
    for condition in failing:
        with pytest.raises(ConditionFailedError):
            await store.append("b", [noted()], aggregate_type="b", condition=condition)
    assert len(await store.get_events("b")) == len(passing)
    other = EventStore(store.db, tenant="other")
    await other.guard(["noted"])
    await other.append("b", [noted()], aggregate_type="b", condition=failing[1 - 1])


async def test_a_condition_and_a_version_are_both_checked(store: EventStore) -> None:
    """And what is sent again is stored once, though its own event matches its condition."""
    condition = Condition(types=["noted"], tags=["t"])
    event = tagged("t")
    first = await store.append(
        "a", [event], aggregate_type="a", expected_version=NONE, condition=condition
    )
    again = await store.append(
        "a", [event], aggregate_type="a", expected_version=NONE, condition=condition
    )
    assert again == first
    with pytest.raises(VersionConflictError):
        await store.append(
            "a",
            [noted()],
            aggregate_type="a",
            expected_version=NONE,
            condition=Condition(types=["noted"], tags=["u"]),
        )


async def test_a_refusal_leaves_the_callers_transaction_usable(store: EventStore) -> None:
    """What came before is committed, and so is what comes after."""
    await store.append("a", [tagged("t")], aggregate_type="a")
    async with store.db.transaction() as conn:
        await store.append("b", [noted(1)], aggregate_type="a", conn=conn)
        with pytest.raises(ConditionFailedError):
            await store.append(
                "b",
                [noted(2)],
                aggregate_type="a",
                condition=Condition(types=["noted"], tags=["t"]),
                conn=conn,
            )
        found = await store.read_matching(Condition(types=["noted"], tags=["t"]), conn=conn)
        condition = Condition(types=["noted"], tags=["t"], after=found.position)
        await store.append("b", [noted(3)], aggregate_type="a", condition=condition, conn=conn)
    assert numbers(await store.get_events("b")) == [1, 3]


async def test_what_a_condition_needs_is_told(store: EventStore, dsn: str) -> None:
    """Types that are guarded, at least one type and one tag, a read committed transaction."""
    with pytest.raises(InvalidArgumentError, match=r"store\.guard\(\['other'\]\)"):
        await store.append(
            "a", [noted()], aggregate_type="a", condition=Condition(types=["other"], tags=["t"])
        )
    given: dict[str, Any] = {"types": ["noted"], "tags": ["t"]}
    for name, odd in (("types", []), ("tags", []), ("after", -1), ("tags", "t"), ("types", [5])):
        with pytest.raises(InvalidArgumentError):
            Condition(**{**given, name: odd})
    async with connected(dsn) as conn:
        begun = conn.transaction(isolation="repeatable_read")
        await begun.start()
        with pytest.raises(InvalidArgumentError, match="read committed"):
            await store.append("a", [tagged("t")], aggregate_type="a", conn=conn)
        await begun.rollback()
    assert await count(dsn) == 0


async def test_guarding_a_type_waits_for_who_appends_without_a_lock(
    store: EventStore, dsn: str
) -> None:
    """So that no such append is still open when the first condition is checked; and once declared
    it is nothing any more."""
    async with Database(dsn) as other:
        async with other.transaction() as conn:
            await EventStore(other).append("a", [noted()], aggregate_type="a", conn=conn)
            waiting = asyncio.create_task(store.guard(["new"]))
            await waits_for_a_lock(dsn)
            await store.guard(["noted"])
        await asyncio.wait_for(waiting, HANG_SECONDS)
        [stored] = await EventStore(other).append(
            "n",
            [tagged("t", event_type="new")],
            aggregate_type="a",
            condition=Condition(types=["new"], tags=["t"]),
        )
        assert stored.version == 1
