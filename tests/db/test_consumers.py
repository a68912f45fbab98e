"""Consumers and projections: how far each has come survives everything, and so does what failed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from langgraph_pgsaga import Database
from langgraph_pgsaga.database import Connection
from langgraph_pgsaga.errors import (
    ConsumerConflictError,
    InvalidArgumentError,
    InvalidCursorError,
    MissingConsumerError,
    MissingDeadLetterError,
    ProjectionBehindError,
)
from langgraph_pgsaga.events import (
    AgentEvent,
    Consumer,
    DeadLetters,
    EventStore,
    Projection,
    Upcaster,
)
from langgraph_pgsaga.work import Retry, Worker
from tests import _chores
from tests._connections import connected
from tests.db import _consumers
from tests.db._consumers import caught_up, letters, until
from tests.db._events import begin_writing, noted, numbers, settled

pytestmark = pytest.mark.anyio
A_MINUTE = Retry(attempts=3, backoff_seconds=60.0, factor=1.0, jitter=0.0)
AT_ONCE = Retry(attempts=2, backoff_seconds=0.0)
SECRET = "what nobody may read"


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[EventStore]:
    await _consumers.make(dsn)
    async with Database(dsn) as db:
        yield EventStore(db)


async def append(store: EventStore, *names: str) -> None:
    """An event of each aggregate, numbered in all."""
    for number, name in enumerate(names):
        await store.append(name, [noted(number)], aggregate_type="desk")


class Seen:
    """A consumer's handlers in every form, which fail at some events."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int | None]] = []
        self.done: list[tuple[str, int | None]] = []
        self.bad: set[tuple[str, int | None]] = set()

    def one(self, event: AgentEvent) -> None:
        at = (event.aggregate_id, event.version)
        self.calls.append(at)
        if at in self.bad:
            raise ValueError(SECRET)
        self.done.append(at)

    async def one_async(self, event: AgentEvent) -> None:
        self.one(event)

    def answers_a_coroutine(self, event: AgentEvent) -> Any:
        return self.one_async(event)

    def many(self, events: Any) -> None:
        at = [(event.aggregate_id, event.version) for event in events]
        self.calls += at
        if self.bad & set(at):
            raise ValueError(SECRET)
        self.done += at

    async def many_async(self, events: Any) -> None:
        self.many(events)

    async def project(self, event: AgentEvent, conn: Connection) -> None:
        at = (event.aggregate_id, event.version)
        await conn.execute(_consumers.APPLY, *at, 0, "")
        self.one(event)

    async def project_many(self, events: Any, conn: Connection) -> None:
        for event in events:
            await conn.execute(_consumers.APPLY, event.aggregate_id, event.version, 0, "")
        self.many(events)

    def consumer(self, kind: str, **more: Any) -> Consumer:
        of = Projection if kind.startswith("project") else Consumer
        handler = getattr(self, kind)
        return of(name="seen", handler=handler, in_batches="many" in kind, **more)


KINDS = ["one", "one_async", "answers_a_coroutine", "many", "many_async", "project", "project_many"]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_event_that_always_fails_is_a_dead_letter_and_others_go_on(
    store: EventStore, dsn: str, kind: str
) -> None:
    """Its aggregate waits; once it is tried again, and succeeds, all comes in order."""
    seen = Seen()
    seen.bad = {("b", 2)}
    await append(store, *"abcbbca")
    job = store.job(seen.consumer(kind, retry=AT_ONCE))
    dead = DeadLetters(store.db)
    async with Worker(store.db, job):
        await until(lambda: _is_dead(store))
        await caught_up(store, "seen")
        [letter] = await letters(store)
        assert (letter.consumer, letter.aggregate_id, letter.version) == ("seen", "b", 2)
        assert (letter.event_type, letter.attempts) == ("noted", 2)
        assert letter.error is not None
        assert letter.error.startswith("ValueError at ")
        assert SECRET not in letter.error
        others = [("a", 1), ("a", 2), ("b", 1), ("c", 1), ("c", 2)]
        assert sorted(set(seen.done)) == others
        await append(store, "b", "c")
        await caught_up(store, "seen")
        assert sorted(set(seen.done)) == [*others, ("c", 3)]
        seen.bad = set()
        assert await dead.retry("seen", letter.event_id) == 1
        await until(lambda: ("b", 4) in seen.done)
        await until(lambda: _none(store))
    # What was rolled back with another event is done again.
    of_b = list(dict.fromkeys(at for at in seen.done if at[0] == "b"))
    assert of_b == [("b", 1), ("b", 2), ("b", 3), ("b", 4)]
    if kind.startswith("project"):
        rows = [row[:2] for row in await _consumers.applied(dsn)]
        assert sorted(rows) == sorted(set(seen.done))
        assert [row for row in rows if row[0] == "b"] == of_b
    if kind == "one":  # neither more nor fewer than its attempts
        assert seen.calls.count(("b", 2)) == 3


async def _none(store: EventStore) -> bool:
    return not await letters(store)


async def test_attempts_and_times_survive_the_worker(store: EventStore, dsn: str) -> None:
    """Nothing is tried before its time, and no attempt is counted anew."""
    seen = Seen()
    seen.bad = {("a", 1)}
    await append(store, "a", "a", "b")
    job = store.job(seen.consumer("one", retry=A_MINUTE))
    for attempt in (1, 2, 3):
        async with Worker(store.db, job):

            async def is_tried(attempt: int = attempt) -> bool:
                return any(
                    letter.attempts == attempt and (letter.error or "").startswith("ValueError")
                    for letter in await letters(store)
                )

            await until(is_tried)
            await append(store, "c")
            await caught_up(store, "seen")
        assert seen.calls.count(("a", 1)) == attempt
        [row] = await _chores.rows(
            dsn, "select extract(epoch from due_at - failed_at) as s from event_dead_letters"
        )
        if attempt < 3:
            assert 55 < row["s"] <= 60
            await _chores.rows(dsn, "update event_dead_letters set due_at = now()")
        else:
            assert row["s"] is None
    assert ("a", 2) not in seen.calls


async def test_an_event_that_is_skipped_is_never_given(store: EventStore) -> None:
    """Those that waited for it follow; what isn't there is told."""
    seen = Seen()
    seen.bad = {("a", 1)}
    await append(store, "a", "a")
    dead = DeadLetters(store.db)
    async with Worker(store.db, store.job(seen.consumer("one", retry=AT_ONCE))):
        await until(lambda: _is_dead(store))
        [letter] = await letters(store)
        assert letter.event_id is not None
        with pytest.raises(MissingConsumerError, match="'other'"):
            await dead.skip("other", letter.event_id)
        with pytest.raises(MissingDeadLetterError, match="'none'"):
            await dead.retry("seen", "none")
        await dead.skip("seen", letter.event_id)
        await until(lambda: ("a", 2) in seen.done)
        await until(lambda: _none(store))
    assert ("a", 1) not in seen.done


async def _is_dead(store: EventStore) -> bool:
    found = await letters(store)
    return any(letter.is_dead and "Error" in (letter.error or "") for letter in found)


async def test_what_is_skipped_while_it_is_handled_has_no_effect(
    store: EventStore, dsn: str
) -> None:
    """Of a projection: the transaction of its effects finds the dead letter changed."""
    began, go = asyncio.Event(), asyncio.Event()
    is_bad = True

    async def handle(event: AgentEvent, conn: Connection) -> None:
        await conn.execute(_consumers.APPLY, event.aggregate_id, event.version, 0, "")
        if is_bad:
            raise ValueError
        if event.version == 1:
            began.set()
            await go.wait()

    await append(store, "a", "a")
    dead = DeadLetters(store.db)
    made = Projection(name="p", handler=handle, retry=Retry(attempts=1))
    async with Worker(store.db, store.job(made)):
        await until(lambda: _is_dead(store))
        [letter] = await letters(store)
        is_bad = False
        await dead.retry("p")
        await began.wait()
        assert letter.event_id is not None
        await dead.skip("p", letter.event_id)
        go.set()
        await until(lambda: _none(store))
    assert [row[:2] for row in await _consumers.applied(dsn)] == [("a", 2)]


async def test_what_an_owner_writes_late_changes_nothing(store: EventStore, dsn: str) -> None:
    """A worker that lost its partition while it handled an event: the next one's effects count."""
    began, go = asyncio.Event(), asyncio.Event()
    await append(store, "a", "b")

    def projection(name: str) -> Projection:
        async def handle(event: AgentEvent, conn: Connection) -> None:
            await conn.execute(_consumers.APPLY, event.aggregate_id, event.version, 0, name)
            if name == "late" and not go.is_set():
                began.set()
                await go.wait()

        return Projection(name="p", handler=handle)

    async with Worker(store.db, store.job(projection("late"))) as late:
        await began.wait()
        await _chores.rows(dsn, "update event_consumers set claim_expires_at = now()")
        async with Database(dsn) as db, Worker(db, EventStore(db).job(projection("next"))):
            await caught_up(store, "p")
        go.set()
        await until(lambda: (s := late.status) is not None and s.jobs[0].lost == 1)
    assert [row[3] for row in await _consumers.applied(dsn)] == ["next", "next"]


async def test_workers_share_partitions(store: EventStore, dsn: str) -> None:
    """Two workers with two at a time each: all four are worked at, at once, each by one."""
    together: dict[str, set[str]] = {"first": set(), "second": set()}
    go = asyncio.Event()
    names = [f"a{number}" for number in range(40)]
    await append(store, *names, *names)

    def projection(name: str) -> Projection:
        async def handle(event: AgentEvent, conn: Connection) -> None:
            together[name].add(event.aggregate_id)
            await go.wait()
            at = (event.aggregate_id, event.version, event.event_data["n"])
            await conn.execute(_consumers.APPLY, *at, name)

        return Projection(name="p", handler=handle, partitions=4)

    async with Database(dsn) as db, AsyncWorkers(store, db, projection):
        await until(lambda: [len(at) for at in together.values()] == [2, 2])
        go.set()
        await caught_up(store, "p")
    rows = await _consumers.applied(dsn)
    assert len(rows) == 80
    assert sorted((name, version) for name, version, *_ in rows) == sorted(
        (name, version) for name in names for version in (1, 2)
    )
    for name in names:
        assert [version for found, version, *_ in rows if found == name] == [1, 2]


class AsyncWorkers:
    """Two workers on two databases, each at two partitions at a time."""

    def __init__(self, store: EventStore, db: Database, projection: Any) -> None:
        self._workers = [
            Worker(one.db, one.job(projection(name), concurrency=2))
            for name, one in (("first", store), ("second", EventStore(db)))
        ]

    async def __aenter__(self) -> None:
        for worker in self._workers:
            await worker.__aenter__()

    async def __aexit__(self, *error: Any) -> None:
        for worker in self._workers:
            await worker.__aexit__(*error)


@pytest.mark.parametrize("kind", ["one", "many", "project"])
async def test_where_workers_died_events_are_tried_with_care(
    store: EventStore, dsn: str, kind: str
) -> None:
    """Each attempt counts before it begins, so that what ends processes becomes a dead letter."""
    seen = Seen()
    await append(store, "a", "b", "a")
    job: Any = store.job(seen.consumer(kind, retry=Retry(attempts=2, backoff_seconds=60.0)))
    await job.prepare(store.db)
    dead = "update event_consumers set deaths = 2, claimed_by = gen_random_uuid()"
    await _chores.rows(dsn, f"{dead}, claim_expires_at = now()")
    counted: list[Any] = []
    real = seen.one

    def one(event: AgentEvent) -> None:
        counted.append(event.aggregate_id)
        real(event)

    seen.one = one  # type: ignore[method-assign]
    async with Worker(store.db, job):
        await caught_up(store, "seen")
        await until(lambda: _none(store))
    assert seen.done == [("a", 1), ("b", 1), ("a", 2)]


async def test_an_attempt_that_never_ended_counts(store: EventStore, dsn: str) -> None:
    """A worker that was killed in it leaves it counted, and due as if it had failed."""
    began = asyncio.Event()

    async def handle(event: AgentEvent) -> None:
        if not began.is_set():
            raise ValueError
        await asyncio.Event().wait()

    await append(store, "a")
    made = Consumer(name="c", handler=handle, retry=A_MINUTE)
    async with Worker(store.db, store.job(made), grace_seconds=0):
        await until(lambda: letters(store))
        began.set()
        await _chores.rows(dsn, "update event_dead_letters set due_at = now()")
        await _chores.until(dsn, "attempts = 2 from event_dead_letters")
        [row] = await _chores.rows(
            dsn,
            "select due_at > now() + interval '50 s' as later, error from event_dead_letters",
        )
    assert row["later"]
    assert "hasn't ended" in row["error"]


async def test_only_what_fits_is_given(store: EventStore) -> None:
    """By type, tag and type of aggregate; what doesn't fit is passed."""
    found: dict[str, list[Any]] = {"types": [], "tags": [], "kinds": [], "both": []}
    await store.append("a", [noted(1, event_type="x"), noted(2, tags=["t"])], aggregate_type="p")
    await store.append("b", [noted(3, event_type="x", tags=["t"])], aggregate_type="q")

    def consumer(name: str, **asked: Any) -> Consumer:
        handler = lambda event: found[name].append(event.event_data["n"])  # noqa: E731
        return Consumer(name=name, handler=handler, **asked)

    job = store.job(
        consumer("types", types=["x"]),
        consumer("tags", tags=["t"]),
        consumer("kinds", aggregate_types=["q"]),
        consumer("both", types=["x"], tags=["t"], partitions=3),
    )
    async with Worker(store.db, job):
        await caught_up(store, *found)
    assert found == {"types": [1, 3], "tags": [2, 3], "kinds": [3], "both": [3]}


async def test_where_it_begins(store: EventStore) -> None:
    """At the beginning, at the end or at a cursor; once it is there, where it has come."""
    found: dict[str, list[Any]] = {"beginning": [], "end": [], "cursor": []}
    [first] = await store.append("a", [noted(1)], aggregate_type="desk")
    await append_and_settle(store, 2)
    assert first.cursor is not None
    starts = {"beginning": "beginning", "end": "end", "cursor": first.cursor}

    def job() -> Any:
        return store.job(
            *(
                Consumer(
                    name=name,
                    start_from=start,
                    handler=lambda event, name=name: found[name].append(event.event_data["n"]),
                )
                for name, start in starts.items()
            )
        )

    async with Worker(store.db, job()):
        await caught_up(store, *found)
        await append_and_settle(store, 3)
        await caught_up(store, *found)
    assert found == {"beginning": [1, 2, 3], "end": [3], "cursor": [2, 3]}
    await append_and_settle(store, 4)
    async with Worker(store.db, job()):
        await caught_up(store, *found)
    assert found == {"beginning": [1, 2, 3, 4], "end": [3, 4], "cursor": [2, 3, 4]}


async def append_and_settle(store: EventStore, number: int) -> None:
    await store.append("a", [noted(number)], aggregate_type="desk")
    await settled(store)


async def test_one_projection_takes_anothers_place(store: EventStore, dsn: str) -> None:
    """Rebuilt beside it, and switched in one transaction: not while it is behind, nor waits."""
    async with connected(dsn) as conn:
        await conn.execute("create table said_2 (n integer); create table said (n integer)")

    def projection(name: str, table: str, bad: int | None = None) -> Projection:
        async def handle(event: AgentEvent, conn: Connection) -> None:
            if event.event_data["n"] == bad:
                raise ValueError
            await conn.execute(f"insert into {table} values ($1)", event.event_data["n"])

        return Projection(name=name, handler=handle, retry=Retry(attempts=1))

    async def swap(conn: Connection) -> None:
        await conn.execute("alter table said rename to said_1")
        await conn.execute("alter table said_2 rename to said")

    old = projection("old", "said")
    await append(store, "a", "b", "c")
    async with Worker(store.db, store.job(old)):
        await caught_up(store, "old")
        with pytest.raises(MissingConsumerError, match="'new'"):
            await store.replace_consumer("old", "new", swap=swap)
        slow: Any = store.job(projection("new", "said_2"))
        await slow.prepare(store.db)
        with pytest.raises(ProjectionBehindError) as caught:
            await store.replace_consumer("old", "new", swap=swap)
        assert caught.value.events == 3
    async with Worker(store.db, store.job(old, projection("new", "said_2", bad=1))):
        await caught_up(store, "old", "new")
        with pytest.raises(ProjectionBehindError) as caught:
            await store.replace_consumer("old", "new", swap=swap)
        assert (caught.value.events, caught.value.dead_letters) == (0, 1)
    async with Worker(store.db, store.job(old, projection("new", "said_2"))):
        await DeadLetters(store.db).retry("new")
        await until(lambda: _none(store))
        await store.replace_consumer("old", "new", swap=swap)
    with pytest.raises(ConsumerConflictError, match="retired already"):
        await store.replace_consumer("old", "new", swap=swap)
    await append(store, "d")
    async with Worker(store.db, store.job(projection("new", "said"))):
        await caught_up(store, "new")
    for table, count in (("said", 4), ("said_1", 3)):
        [row] = await _chores.rows(dsn, f"select count(*) from {table}")
        assert row[0] == count
    again: Any = store.job(old)
    await again.prepare(store.db)
    assert again.refused == {"old"}
    await store.forget_consumer("old")
    assert [info.name for info in await store.list_consumers()] == ["new"]
    with pytest.raises(MissingConsumerError, match="'old'"):
        await store.forget_consumer("old")


async def test_who_is_behind_and_who_holds_it_back(store: EventStore, dsn: str) -> None:
    """Events that came after its place, and the process whose transaction they wait for."""
    seen = Seen()
    async with Worker(store.db, store.job(seen.consumer("one", partitions=2))), connected(dsn) as w:
        await append(store, "a")
        await caught_up(store, "seen")
        begun = await begin_writing(w)
        pid = await w.fetchval("select pg_backend_pid()")
        await append(store, "a", "b")

        async def found() -> bool:
            return all(info.withheld == 2 for info in await store.list_consumers())

        await until(found)
        for info in await store.list_consumers():
            assert (info.behind, info.pid, info.is_claimed) == (2, pid, False)
        assert len(seen.done) == 1
        await begun.rollback()
        await until(lambda: len(seen.done) == 3)


async def test_a_transaction_that_the_handler_broke_is_the_events_fault(
    store: EventStore, dsn: str
) -> None:
    """A statement whose error it keeps to itself, and a constraint that is looked at in the end."""
    async with connected(dsn) as conn:
        await conn.execute("create table once (n integer unique deferrable initially deferred)")
        await conn.execute("insert into once values (1)")

    async def handle(event: AgentEvent, conn: Connection) -> None:
        number = event.event_data["n"]
        await conn.execute(_consumers.APPLY, event.aggregate_id, event.version, number, "")
        if number == 1:
            await conn.execute("insert into once values (1)")
        if number == 3:
            try:
                await conn.execute("select 1 / 0")
            except Exception:
                return

    await append(store, *"abcde")
    made = Projection(name="p", handler=handle, retry=Retry(attempts=1))
    async with Worker(store.db, store.job(made)):
        await caught_up(store, "p")
    assert [row[0] for row in await _consumers.applied(dsn)] == ["a", "c", "e"]
    assert [letter.aggregate_id for letter in await letters(store)] == ["b", "d"]


async def test_an_event_that_cant_be_brought_up_to_date_waits(store: EventStore) -> None:
    """An upcaster that fails is as good as a handler that does."""

    def upcast(data: dict[str, Any]) -> dict[str, Any]:
        if data["n"] == 1:
            raise KeyError
        return data

    found: list[Any] = []
    up = EventStore(
        store.db, upcasters=[Upcaster(event_type="noted", schema_version=1, upcast=upcast)]
    )
    await append(store, "a", "b", "c")
    made = Consumer(
        name="c",
        handler=lambda events: found.extend(numbers(events)),
        in_batches=True,
        retry=Retry(attempts=1),
    )
    async with Worker(store.db, up.job(made)):
        await caught_up(store, "c")
    assert found == [0, 2]
    assert [letter.aggregate_id for letter in await letters(store)] == ["b"]


async def test_pages_of_dead_letters(store: EventStore) -> None:
    """By consumer and aggregate, to the last one; another listing's cursor is none."""
    seen = Seen()
    names = [f"a{number}" for number in range(5)]
    seen.bad = {(name, 1) for name in names}
    await append(store, *names)
    async with Worker(store.db, store.job(seen.consumer("one", retry=Retry(attempts=1)))):
        await caught_up(store, "seen")
    dead = DeadLetters(store.db)
    found, after = [], None
    while True:
        page = await dead.list(after=after, limit=2)
        found += [letter.aggregate_id for letter in page.dead_letters]
        if (after := page.next_cursor) is None:
            break
    assert found == names
    with pytest.raises(InvalidCursorError):
        await dead.list(after=await store.latest())
    assert await dead.retry("seen") == 5


def test_what_cant_be_consumed_is_told() -> None:
    """The message names the argument."""

    async def alone(event: AgentEvent) -> None: ...

    store = EventStore(Database("postgresql://nobody@/nowhere"))
    made = Consumer(name="c", handler=print)
    for argument, call in (
        ("handler", lambda: Consumer(name="c", handler=5)),  # type: ignore[arg-type]
        ("handler", lambda: Consumer(name="c", handler=int)),
        ("handler", lambda: Projection(name="c", handler=print)),
        ("handler", lambda: Consumer(name="c", handler=lambda event, conn: None)),
        ("handler", lambda: Projection(name="c", handler=alone)),
        ("start_from", lambda: Consumer(name="c", handler=print, start_from="now")),
        ("name", lambda: Consumer(name="", handler=print)),
        ("partitions", lambda: Consumer(name="c", handler=print, partitions=0)),
        ("batch", lambda: Consumer(name="c", handler=print, batch=0)),
        ("types", lambda: Consumer(name="c", handler=print, types="noted")),
        ("consumers", lambda: store.job(made, made)),
        ("consumers", store.job),
        ("consumers", lambda: store.job(print)),  # type: ignore[arg-type]
        ("concurrency", lambda: store.job(made, concurrency=0)),
    ):
        with pytest.raises(InvalidArgumentError) as caught:
            call()
        assert caught.value.argument == argument
    with pytest.raises(InvalidArgumentError, match=r"handler\(event\).*takes \(event, conn\)"):
        Consumer(name="c", handler=lambda event, conn: None)
    with pytest.raises(InvalidArgumentError, match=r"'beginning', 'end' or a cursor.*'now'"):
        Consumer(name="c", handler=print, start_from="now")
    Consumer(name="c", handler=[].append)  # one of C, and one that takes more if it is given
    Consumer(name="c", handler=lambda event, more=None: None)


async def test_the_number_of_partitions_is_for_good(store: EventStore) -> None:
    """Another one is refused, as the places couldn't be divided."""
    job: Any = store.job(Consumer(name="c", handler=print, partitions=2))
    await job.prepare(store.db)
    await job.prepare(store.db)
    other: Any = store.job(Consumer(name="c", handler=print))
    await other.prepare(store.db)
    assert (job.refused, other.refused) == (set(), {"c"})
