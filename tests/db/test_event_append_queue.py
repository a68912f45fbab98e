"""Appends that wait for each other go together: each for itself, and none for another's sake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest

from langgraph_pgsaga import Database
from langgraph_pgsaga.errors import (
    ConditionFailedError,
    LockTimeoutError,
    ServerError,
    VersionConflictError,
)
from langgraph_pgsaga.events import AgentEvent, Condition, EventStore
from tests._connections import connected
from tests._limits import HANG_SECONDS
from tests.conftest import execute
from tests.db._events import noted, numbers
from tests.db._waits import waits_for_a_lock

pytestmark = pytest.mark.anyio

Statements = list[str]


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[EventStore]:
    async with Database(dsn) as db:
        yield EventStore(db)


@pytest.fixture
def statements(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> Statements:
    """The names of the store's statements, as they are sent."""
    sent: list[str] = []
    real = store.db.fetch

    async def fetch(statement: Any, *args: Any, **options: Any) -> Any:
        sent.append(statement.name)
        return await real(statement, *args, **options)

    monkeypatch.setattr(store.db, "fetch", fetch)
    return sent


def append(store: EventStore, name: str, number: int = 0, **more: Any) -> Awaitable[Any]:
    return store.append(name, [noted(number)], aggregate_type="desk", **more)


async def test_appends_at_once_take_few_statements(
    store: EventStore, statements: Statements
) -> None:
    """Each answer is that of its own event."""
    given = [noted(number) for number in range(100)]
    found = await asyncio.gather(
        *(store.append(f"a{n}", [event], aggregate_type="desk") for n, event in enumerate(given))
    )
    assert [(e.event_id, e.aggregate_id, e.version) for [e] in found] == [
        (event.event_id, f"a{n}", 1) for n, event in enumerate(given)
    ]
    assert set(statements) <= {"append_alone", "append_together", "notify"}
    assert statements.count("append_alone") <= 2
    assert statements.count("append_together") <= 6
    for [event] in found:
        assert await store.get_event(event.event_id) == event


async def test_appends_to_one_aggregate_have_no_conflicts(
    store: EventStore, statements: Statements
) -> None:
    """One goes after the other, in the order in which they came."""
    await asyncio.gather(*(append(store, "a", number) for number in range(30)))
    events = await store.get_events("a")
    assert numbers(events) == [*range(30)]
    assert [event.version for event in events] == [*range(1, 31)]
    assert "append_one" not in statements[3:], "but for the first ones, which go at once"


async def test_each_is_refused_for_itself(store: EventStore, dsn: str) -> None:
    """A wrong version, a constraint, an id that is another event's; the others are stored."""
    [first] = await append(store, "a")
    await execute(dsn, "alter table agent_events add check (aggregate_id <> 'refused')")
    other = AgentEvent(event_type="noted", event_id=first.event_id, event_data={"n": 9})
    found = await asyncio.gather(
        *(append(store, f"b{number}", number) for number in range(10)),
        append(store, "a", expected_version=7),
        append(store, "refused"),
        store.append("c", [other], aggregate_type="desk"),
        store.append("a", [noted(0, event_id=first.event_id)], aggregate_type="desk"),
        return_exceptions=True,
    )
    assert [type(one).__name__ for one in found[10:13]] == [
        "VersionConflictError",
        "ServerError",
        "EventIdConflictError",
    ]
    assert isinstance(found[10], VersionConflictError)
    assert isinstance(found[11], ServerError)
    assert [e.version for [e] in found[:10]] == [1] * 10  # type: ignore[misc]
    assert found[13] == (first,), "sent again it is as it was"


async def test_who_waits_for_a_transaction_holds_up_no_other(store: EventStore, dsn: str) -> None:
    """Also where many wait, each for its own."""
    async with asyncio.timeout(HANG_SECONDS):
        async with store.db.transaction() as conn:
            for number in range(4):
                event = noted(number)
                await store.append(f"held{number}", [event], aggregate_type="desk", conn=conn)
            held = [
                asyncio.ensure_future(append(store, f"held{number}", 10)) for number in range(4)
            ]
            await waits_for_a_lock(dsn, 4)
            await asyncio.gather(*(append(store, f"free{number}") for number in range(40)))
            assert not any(one.done() for one in held)
        assert [event.version for [event] in await asyncio.gather(*held)] == [2] * 4


async def test_the_databases_own_lock_timeout_counts(dsn: str, store: EventStore) -> None:
    """What is held up for longer than that is told."""
    async with Database(dsn, lock_timeout_seconds=0.2) as db, store.db.transaction() as conn:
        await append(store, "a", conn=conn)
        with pytest.raises(LockTimeoutError):
            await append(EventStore(db), "a")


async def test_who_is_cancelled_takes_nobody_along(store: EventStore) -> None:
    """Neither before its statement is sent, nor while it is on its way."""
    for turns in range(12):
        tasks = [asyncio.ensure_future(append(store, f"a{turns} {number}")) for number in range(20)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        for number, one in enumerate(found):
            if isinstance(one, BaseException):
                assert number % 3 == 0
                assert isinstance(one, asyncio.CancelledError)
            else:
                assert one[0].version == 1
        # And what comes next isn't waited for by anybody else.
        [after] = await append(store, f"a{turns} after")
        assert after.version == 1


async def test_a_reply_that_is_lost_is_asked_for_again(dsn: str) -> None:
    """Of a statement for many, too: each event is there once, and where it is said to be."""
    async with Database(dsn) as db, connected(dsn) as admin:
        store = EventStore(db)
        await append(store, "warm")
        lost: list[int] = []
        real = db.fetch

        async def fetch(statement: Any, *args: Any, **options: Any) -> Any:
            found = await real(statement, *args, **options)
            if statement.name == "append_together" and len(statement.values[0]) > 5 and not lost:
                lost.append(len(statement.values[0]))
                await admin.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where datname = current_database() and pid <> pg_backend_pid()"
                )
                found = await real(statement, *args, **options)
            return found

        db.fetch = fetch  # type: ignore[method-assign]
        found = await asyncio.gather(*(append(store, f"a{number}") for number in range(20)))
        assert lost
        for [event] in found:
            assert await store.get_event(event.event_id) == event


async def test_of_conditions_that_exclude_each_other_one_holds(
    store: EventStore, statements: Statements
) -> None:
    """Others, and other tags, go with them."""
    await store.guard(["taken"])

    async def take(number: int, tag: str) -> bool:
        condition = Condition(types=["taken"], tags=[tag])
        event = noted(number, event_type="taken", tags=[tag])
        try:
            name = f"{tag} {number}"
            await store.append(name, [event], aggregate_type="desk", condition=condition)
        except ConditionFailedError:
            return False
        return True

    taken = await asyncio.gather(
        *(take(number, tag) for number in range(8) for tag in ("x", "y", "z")),
        *(append(store, f"free{number}") for number in range(20)),
    )
    assert sorted(filter(lambda one: isinstance(one, bool), taken))[-3:] == [True] * 3
    assert taken.count(True) == 3
    # What is guarded once is so for good: nobody asks again.
    del statements[:]
    assert await take(1, "w")
    assert "list_guards" not in statements


async def test_unconditional_appends_of_guarded_types_are_in_its_way(store: EventStore) -> None:
    """They lock what the condition does, whether or not it is known by now that it is guarded."""
    await store.guard(["taken"])
    tagged = noted(1, event_type="taken", tags=["x"])
    await store.append("a", [tagged], aggregate_type="desk")
    condition = Condition(types=["taken"], tags=["x"])
    async with store.db.transaction() as conn:
        tagged = noted(2, event_type="taken", tags=["y"])
        await store.append("b", [tagged], aggregate_type="desk", conn=conn)
        one = noted(3, event_type="taken", tags=["y"])
        waiting = asyncio.ensure_future(store.append("c", [one], aggregate_type="desk"))
        await waits_for_a_lock(store.db.dsn)
    await waiting
    with pytest.raises(ConditionFailedError):
        await store.append("d", [noted()], aggregate_type="desk", condition=condition)


def test_each_loop_has_its_own(dsn: str) -> None:
    """One after the other, and one that ended with appends on their way."""

    async def many(db: Database) -> None:
        store = EventStore(db)
        left = [asyncio.ensure_future(append(store, f"left{n}")) for n in range(10)]
        await asyncio.gather(*(append(store, f"a{n}") for n in range(10)))
        assert left

    with Database(dsn) as db:
        for _ in range(3):
            asyncio.run(many(db))
