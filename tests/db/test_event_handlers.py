"""Handlers run after the commit, in their order, where it was appended or else in a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from langgraph_pgsaga import Database, sync
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.events import AgentEvent, EventStore
from langgraph_pgsaga.work import Retry, RunContext, Worker
from tests.db._consumers import letters, until
from tests.db._events import noted

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[EventStore]:
    async with Database(dsn) as db:
        yield EventStore(db)


async def test_handlers_run_in_their_order_after_the_commit(store: EventStore) -> None:
    """Sync and async ones, each event by all; of this type only, and by no graph's run."""
    found: list[Any] = []

    def first(event: AgentEvent) -> None:
        assert RunContext.current() is None
        found.append(("first", event.event_data["n"]))

    async def second(event: AgentEvent) -> None:
        # It is committed: another connection sees it.
        assert await store.get_event(event.event_id) is not None
        found.append(("second", event.event_data["n"]))

    await store.append("a", [noted(0)], aggregate_type="desk")
    store.register_event_handler("noted", first)
    store.register_event_handler("noted", second)
    for number in range(1, 6):
        await store.append("a", [noted(number)], aggregate_type="desk")
        await store.append("a", [noted(number, event_type="other")], aggregate_type="desk")
    await until(lambda: len(found) == 10)
    for number in range(1, 6):
        assert found.index(("first", number)) < found.index(("second", number))
    assert [n for name, n in found if name == "second"] == [1, 2, 3, 4, 5]


async def test_a_transaction_that_is_rolled_back_calls_nobody(store: EventStore) -> None:
    """And one that is committed calls them then."""
    found: list[Any] = []
    store.register_event_handler("noted", lambda event: found.append(event.event_data["n"]))

    async def roll_back() -> None:
        async with store.db.transaction() as conn:
            await store.append("a", [noted(1)], aggregate_type="desk", conn=conn)
            raise KeyError

    with pytest.raises(KeyError):
        await roll_back()
    async with store.db.transaction() as conn:
        await store.append("a", [noted(2)], aggregate_type="desk", conn=conn)
        assert found == []
    await until(lambda: found == [2])


async def test_a_handler_that_fails_fails_no_append(store: EventStore) -> None:
    """It is tried again, then the event is a dead letter; the next handler has it all the same."""
    calls: list[int] = []
    found: list[int] = []

    def fails(event: AgentEvent) -> None:
        calls.append(event.event_data["n"])
        raise ValueError

    retry = Retry(attempts=2, backoff_seconds=0.01)
    store.register_event_handler("noted", fails, name="fails", retry=retry)
    store.register_event_handler("noted", lambda event: found.append(event.event_data["n"]))
    [stored] = await store.append("a", [noted(1)], aggregate_type="desk")
    assert stored.version == 1
    await until(lambda: found == [1])

    async def is_dead() -> bool:
        found = [(one.consumer, one.is_dead, one.error) for one in await letters(store)]
        return [one[:2] for one in found] == [("fails", True)] and "Error" in str(found[0][2])

    await until(is_dead)
    assert calls == [1, 1]


async def test_what_a_process_left_is_a_workers(dsn: str) -> None:
    """One that ended before its handlers ran: the same handler in a worker gets the event."""
    found: list[int] = []

    def handler(event: AgentEvent) -> None:
        found.append(event.event_data["n"])

    async with Database(dsn) as db:
        store = EventStore(db)
        store.register_event_handler("noted", handler)
        store._handlers.wake = lambda tenant_id: None  # type: ignore[method-assign]
        await store.append("a", [noted(1)], aggregate_type="desk")
    async with Database(dsn) as db:
        store = EventStore(db)
        store.register_event_handler("noted", handler)
        async with Worker(db, store.job()):
            await until(lambda: found == [1])


def test_handlers_of_sync_callers(dsn: str) -> None:
    """They run in the background of the database's thread."""
    found: list[int] = []
    with Database(dsn) as db:
        store = sync.EventStore(db)
        store.register_event_handler("noted", lambda event: found.append(event.event_data["n"]))
        store.append("a", [noted(1)], aggregate_type="desk")
        asyncio.run(until(lambda: found == [1]))


async def test_two_of_one_name_are_refused(store: EventStore) -> None:
    """Their place in the log would be one."""
    store.register_event_handler("noted", print)
    store.register_event_handler("other", print)
    with pytest.raises(InvalidArgumentError, match="name="):
        store.register_event_handler("noted", print)
    store.register_event_handler("noted", print, name="again")
