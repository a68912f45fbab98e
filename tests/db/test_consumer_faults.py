"""Consumers whose handlers misbehave, or of whose names there are others: the rest goes on."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry

from langgraph_pgsaga import Database
from langgraph_pgsaga.database import Connection, load_statements
from langgraph_pgsaga.errors import InvalidArgumentError, TransactionEndedError
from langgraph_pgsaga.events import AgentEvent, Consumer, EventStore, Projection, handlers
from langgraph_pgsaga.work import Retry, Worker, WorkerMetrics, list_workers, serve_health
from tests._connections import connected
from tests._limits import HANG_SECONDS
from tests.db import _consumers
from tests.db._consumers import caught_up, letters, until
from tests.db._events import noted

pytestmark = pytest.mark.anyio
ONCE = Retry(attempts=1)


class OddError(BaseException):
    """None of Exception's."""


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[EventStore]:
    await _consumers.make(dsn)
    async with Database(dsn) as db:
        yield EventStore(db)


async def append(store: EventStore, count: int = 3) -> None:
    for number in range(count):
        await store.append(f"a{number}", [noted(number)], aggregate_type="desk")


async def given(store: EventStore, consumer: Consumer) -> list[tuple[str, str]]:
    """The dead letters of a consumer that has come as far as the log: aggregate and error."""
    async with Worker(store.db, store.job(consumer)):
        await caught_up(store, consumer.name)
    found = [(letter.aggregate_id, letter.error or "") for letter in await letters(store)]
    return [(name, error.partition(" at ")[0]) for name, error in found]


@pytest.mark.parametrize("error", [asyncio.CancelledError, OddError, StopIteration])
@pytest.mark.parametrize("kind", ["sync", "async", "sync_batch", "async_batch", "projection"])
async def test_whatever_a_handler_raises_is_about_its_event(
    store: EventStore, kind: str, error: type[BaseException]
) -> None:
    """Also what isn't an Exception, and what asyncio takes for its own."""
    seen: list[int] = []

    def one(event: AgentEvent) -> None:
        if event.event_data["n"] == 1:
            raise error
        seen.append(event.event_data["n"])

    async def one_async(event: AgentEvent, conn: Any = None) -> None:
        one(event)

    def many(events: Any) -> None:
        for event in events:
            one(event)

    async def many_async(events: Any) -> None:
        many(events)

    by_kind = {"sync": one, "sync_batch": many, "async_batch": many_async}
    of = Projection if kind == "projection" else Consumer
    made = of(
        name="c", handler=by_kind.get(kind, one_async), in_batches="batch" in kind, retry=ONCE
    )
    await append(store)
    # A StopIteration can't leave a coroutine.
    told = "RuntimeError" if "async" in kind or kind == "projection" else "StopIteration"
    told = told if error is StopIteration else error.__name__
    assert await given(store, made) == [("a1", told)]
    assert sorted(set(seen)) == [0, 2]


async def test_what_is_cancelled_by_a_handlers_own_code_is_tried_again(store: EventStore) -> None:
    """As often as any error, also where only some are worth it."""
    calls: list[int] = []

    async def handle(event: AgentEvent) -> None:
        calls.append(event.event_data["n"])
        if len(calls) < 3:
            inner = asyncio.ensure_future(asyncio.sleep(60))
            inner.cancel()
            await inner

    await append(store, 1)
    retry = Retry(attempts=3, backoff_seconds=0.0, on=[OSError])
    async with Worker(store.db, store.job(Consumer(name="c", handler=handle, retry=retry))):
        await until(lambda: len(calls) == 3)
        await until(lambda: _none(store))


async def _none(store: EventStore) -> bool:
    return not await letters(store)


@pytest.mark.parametrize("ending", ["commit", "rollback", "rollback; begin"])
async def test_a_projection_that_ends_its_transaction_is_refused(
    store: EventStore, dsn: str, ending: str
) -> None:
    """Else its place would be stored without its effects. Others' events go on."""

    async def handle(event: AgentEvent, conn: Connection) -> None:
        at = (event.aggregate_id, event.version, event.event_data["n"])
        await conn.execute(_consumers.APPLY, *at, "")
        if event.event_data["n"] == 1:
            await conn.execute(ending)

    await append(store)
    found = await given(store, Projection(name="p", handler=handle, retry=ONCE))
    [(name, error)] = found
    assert (name, error.partition(":")[0]) == ("a1", "TransactionEndedError")
    rows = [row[0] for row in await _consumers.applied(dsn)]
    others = [name for name in rows if name != "a1"]
    assert others == (["a0", "a0", "a2"] if ending == "commit" else ["a0", "a2"])


@pytest.mark.parametrize("ending", ["close", "terminate"])
async def test_a_handler_that_loses_its_connection_each_time_ends_as_a_dead_letter(
    store: EventStore, dsn: str, ending: str
) -> None:
    """After a few claims its event is tried alone, and each attempt counts."""

    async def handle(event: AgentEvent, conn: Connection) -> None:
        if event.event_data["n"] == 1:
            if ending == "close":
                await conn.close()
            else:
                await conn.execute("select pg_terminate_backend(pg_backend_pid())")
        at = (event.aggregate_id, event.version, event.event_data["n"])
        await conn.execute(_consumers.APPLY, *at, "")

    await append(store)
    made = Projection(name="p", handler=handle, retry=Retry(attempts=2, backoff_seconds=0.0))
    async with Database(dsn, retry_seconds=0) as db:
        job: Any = EventStore(db).job(made)
        object.__setattr__(job, "retry", Retry(attempts=None, backoff_seconds=0.0))
        async with Worker(db, job):
            await until(lambda: _is_dead(store))
            await caught_up(store, "p")
    assert [row[0] for row in await _consumers.applied(dsn)] == ["a0", "a2"]


async def _is_dead(store: EventStore) -> bool:
    return [(one.aggregate_id, one.is_dead) for one in await letters(store)] == [("a1", True)]


@pytest.mark.parametrize("ending", ["commit", "rollback"])
async def test_a_transaction_that_is_ended_in_it_is_told(store: EventStore, ending: str) -> None:
    """In blocks and in work that is given; the connection is as good as before."""

    async def work(conn: Connection) -> None:
        await conn.execute(ending)

    for _ in range(2):
        with pytest.raises(TransactionEndedError, match="COMMIT or ROLLBACK"):
            await store.db.run(work, once=True)
        with pytest.raises(TransactionEndedError):
            async with store.db.transaction() as conn:
                await work(conn)
    await append(store, 1)


async def test_one_whose_name_is_anothers_is_refused_alone(
    store: EventStore, caplog: pytest.LogCaptureFixture, dsn: str
) -> None:
    """Of a job the others go on; it is told by the log, the status, figures, health and the list
    of workers."""
    seen: list[str] = []

    def consumer(name: str, partitions: int = 1) -> Consumer:
        return Consumer(name=name, handler=lambda e: seen.append(name), partitions=partitions)

    for made in (consumer("four", 4), consumer("old"), consumer("new")):
        job: Any = store.job(made)
        await job.prepare(store.db)
    await store.replace_consumer("old", "new")
    await append(store, 1)
    worker = Worker(store.db, store.job(consumer("four"), consumer("old"), consumer("well")))
    with caplog.at_level(logging.ERROR):
        async with worker, serve_health(worker, "127.0.0.1", 0) as port:
            await caught_up(store, "well")
            assert seen == ["well"]
            status = worker.status
            assert status is not None
            assert status.jobs[0].refused == ("four", "old")
            registry = CollectorRegistry()
            registry.register(WorkerMetrics(worker))
            of_job = {"job": "consumers"}
            assert registry.get_sample_value("pgsaga_job_refused", of_job) == 2
            said = await asyncio.to_thread(_health, port)
            assert said["refused"] == {"consumers": ["four", "old"]}
            worker.stop()  # which it says at once
            await until(lambda: _is_told(store.db, "consumers (refused: four, old)"))
    assert "consumer 'four' has 4 partitions, not 1" in caplog.text
    assert "consumer 'old' is retired" in caplog.text


def _health(port: int) -> Any:
    with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=HANG_SECONDS) as answer:
        return json.load(answer)


async def _is_told(db: Database, job: str) -> bool:
    return [job] in [list(one.jobs) for one in await list_workers(db)]


async def test_a_refused_one_goes_on_once_that_is_mended(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langgraph_pgsaga.work.serving._REFUSED_SECONDS", 0.0)
    seen: list[int] = []
    before: Any = store.job(Consumer(name="c", handler=print, partitions=2))
    await before.prepare(store.db)
    await append(store, 1)
    made = Consumer(name="c", handler=lambda event: seen.append(event.event_data["n"]))
    async with Worker(store.db, store.job(made)) as worker:
        await until(lambda: (s := worker.status) is not None and s.jobs[0].refused == ("c",))
        await store.forget_consumer("c")
        await until(lambda: seen == [0])
        assert worker.status is not None
        assert worker.status.jobs[0].refused == ()


async def test_no_consumer_takes_its_own_place(store: EventStore) -> None:
    job: Any = store.job(Consumer(name="c", handler=print))
    await job.prepare(store.db)
    with pytest.raises(InvalidArgumentError, match="its own place"):
        await store.replace_consumer("c", "c")
    [info] = await store.list_consumers()
    assert info.retired_at is None


# Handlers


async def test_a_handler_that_is_registered_later_gets_what_follows(store: EventStore) -> None:
    """Also while others of the process run."""
    first: list[int] = []
    second: list[int] = []
    store.register_event_handler("noted", _noting(first), name="first")
    await append(store, 1)
    await until(lambda: first == [0])
    store.register_event_handler("noted", _noting(second), name="second")
    await append(store, 3)
    await until(lambda: second == [0, 1, 2])


def _noting(found: list[int]) -> Callable[[AgentEvent], None]:
    return lambda event: found.append(event.event_data["n"])


async def test_a_retired_handler_fails_no_append_and_holds_up_no_other(
    store: EventStore, caplog: pytest.LogCaptureFixture
) -> None:
    first: list[int] = []
    second: list[int] = []

    def register(one: EventStore) -> None:
        one.register_event_handler("noted", _noting(first), name="first")
        one.register_event_handler("noted", _noting(second), name="second")

    register(store)
    await append(store, 1)
    await until(lambda: (first, second) == ([0], [0]))
    await caught_up(store, "first", "second")
    await store.replace_consumer("first", "second")
    await append(store, 2)
    await until(lambda: second == [0, 0, 1])  # by what ran already
    other = EventStore(store.db)
    register(other)
    with caplog.at_level(logging.ERROR):
        await append(other, 3)
    await until(lambda: second == [0, 0, 1, 0, 1, 2])
    assert first == [0]
    assert "consumer 'first' is retired" in caplog.text


async def test_what_is_appended_as_handlers_end_is_handled(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They look once more before they end."""
    monkeypatch.setattr("langgraph_pgsaga.events.handlers._STAYS_SECONDS", 0.0)
    seen: list[int] = []
    store.register_event_handler("noted", _noting(seen), name="first")
    real: Callable[..., Awaitable[float | None]] = handlers._Run._next_due
    is_appended = False

    async def next_due(*args: Any) -> float | None:
        nonlocal is_appended
        found = await real(*args)
        if not is_appended:
            is_appended = True
            await store.append("b", [noted(1)], aggregate_type="desk")
        return found

    monkeypatch.setattr(handlers._Run, "_next_due", next_due)
    await append(store, 1)
    await until(lambda: seen == [0, 1])


async def test_handlers_that_are_known_need_no_connection_of_their_own(dsn: str) -> None:
    """Who appends in a transaction may have the last one of the pool."""
    async with Database(dsn, max_size=1, acquire_timeout_seconds=5) as db:
        before, store = EventStore(db), EventStore(db)
        for one in (before, store):
            one.register_event_handler("noted", print, name="first")
            one._handlers.wake = lambda tenant_id: None  # type: ignore[method-assign]
        await append(before, 1)
        async with db.transaction() as conn:
            await store.append("b", [noted(1)], aggregate_type="desk", conn=conn)


# Closing


async def test_closing_waits_for_no_connection_that_is_kept(dsn: str) -> None:
    """Of a call that ends in the very moment in which the pool begins to close."""
    db = Database(dsn)
    pool = await db._pool()
    connection = await pool.acquire(5)
    closing = asyncio.ensure_future(db.aclose())
    await asyncio.sleep(0)
    if not pool.keep_at_hand(connection):
        await pool.release(connection)
    async with asyncio.timeout(10):
        await closing


async def test_places_are_the_owners_alone(store: EventStore, dsn: str) -> None:
    """Each write of a consumer's place, in the middle of a turn and at its end, and what becomes of
    an aggregate that waits: nothing by who lost the claim."""
    job: Any = store.job(Consumer(name="c", handler=print))
    await job.prepare(store.db)
    await append(store, 1)
    async with connected(dsn) as conn:
        for name in ("move_consumer", "end_consumer", "hold_consumer"):
            await _is_fenced(store, conn, name)


async def _is_fenced(store: EventStore, conn: Any, name: str) -> None:
    statement = load_statements("consumers")[name]
    claimed = "update event_consumers set claimed_by = gen_random_uuid(), fence = fence + 1"
    owner, fence = await conn.fetchrow(f"{claimed} returning claimed_by, fence")
    named = {"tenant_id": "", "name": "c", "partition": 0}
    place = {} if name == "hold_consumer" else {"era": 1, "tx": 5, "position": 5}
    for by, number in (
        (owner, fence - 1),
        (await conn.fetchval("select gen_random_uuid()"), fence),
    ):
        bound = statement.bind(**named, **place, claimed_by=by, fence=number)
        assert await store.db.fetch(bound) == []
    bound = statement.bind(**named, **place, claimed_by=owner, fence=fence)
    async with store.db.transaction() as held:
        assert [row["fence"] for row in await store.db.fetch(bound, conn=held)] == [fence]
        # Nobody claims it before that transaction ends.
        free = "select from event_consumers for update skip locked"
        assert await conn.fetch(free) == []
