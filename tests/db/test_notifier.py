"""News between processes: early by notifications, and by polling without them."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
import weakref
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from langgraph_pgsaga import Database
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.work import Notifier
from langgraph_pgsaga.work.notifier import _payloads
from tests import _chores
from tests._connections import connected
from tests._forked import assert_succeeds, in_child, needs_fork
from tests._limits import HANG_SECONDS

pytestmark = pytest.mark.anyio

_LISTENERS = (
    "(select count(*) from pg_stat_activity where datname = current_database()"
    " and query ilike 'listen%')"
)


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    async with Database(dsn) as database:
        yield database


async def true(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(HANG_SECONDS):
        while not condition():
            await asyncio.sleep(0.001)


async def listening(db: Database) -> Notifier:
    notifier = Notifier.of(db)
    await true(lambda: notifier.is_listening)
    return notifier


async def test_a_thousand_that_wait_cost_one_connection_and_no_task(dsn: str, db: Database) -> None:
    """And a notification reaches each of them."""
    notifier = Notifier.of(db)
    tasks = len(asyncio.all_tasks())
    called: set[int] = set()
    watches = [
        notifier.watch(f"topic {n % 10}", partial(called.add, n), longest_seconds=600)
        for n in range(1000)
    ]
    await listening(db)
    await true(lambda: len(called) == 1000)  # of what came before
    for watch in watches:
        for _ in range(20):  # by now polls are far apart
            watch.again(found=False)
    called.clear()
    assert len(asyncio.all_tasks()) == tasks
    await _chores.until(dsn, f"{_LISTENERS} = 1")
    notifier.notify(*(f"topic {n}" for n in range(10)))
    await true(lambda: len(called) == 1000)
    for watch in watches:
        watch.close()
    await _chores.until(dsn, f"{_LISTENERS} = 0")


async def test_news_while_the_consumer_looks_are_not_lost(db: Database) -> None:
    """What comes between the call and `again` has it called once more, at once."""
    notifier = Notifier.of(db)
    calls: list[float] = []
    watch = notifier.watch("topic", lambda: calls.append(time.monotonic()), longest_seconds=600)
    await listening(db)
    await true(lambda: calls)
    for _ in range(20):
        watch.again(found=False)
    calls.clear()
    heard = asyncio.Event()
    other = notifier.watch("topic", heard.set, longest_seconds=600)
    for _ in range(3):
        for _ in range(20):
            other.again(found=False)
        await asyncio.sleep(0)  # what it may have had is over
        heard.clear()
        notifier.notify("topic")
        await heard.wait()
        await true(lambda: calls)
        assert len(calls) == 1  # not called again before it has looked
    calls.clear()
    watch.again(found=False)
    await true(lambda: calls)
    watch.close()
    other.close()


async def test_polls_are_near_where_something_was_found_and_far_where_not(dsn: str) -> None:
    """From 5 ms, doubled each time up to the longest."""
    waits: list[float] = []
    begun = 0.0
    ready = asyncio.Event()

    def look() -> None:
        waits.append(time.monotonic() - begun)
        ready.set()

    db = Database(dsn, pooler=True)  # so that no news come
    watch = Notifier.of(db).watch("topic", look, longest_seconds=0.1)
    for found in (True, False, False, False, False, False, False, True):
        await ready.wait()
        ready.clear()
        begun = time.monotonic()
        watch.again(found=found)
    await ready.wait()
    watch.close()
    db.close()
    least = [0.8 * s for s in (0.005, 0.01, 0.02, 0.04, 0.08, 0.1, 0.1, 0.005)]
    assert all(wait >= bound - 0.002 for wait, bound in zip(waits[1:], least, strict=True))


@pytest.mark.alone
async def test_without_any_notification_it_comes_with_the_poll(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of ten times within longest_seconds, though all of them are dropped."""
    monkeypatch.setattr(Notifier, "_heard", lambda *_: None)
    notifier = Notifier.of(db)
    called = asyncio.Event()
    watch = notifier.watch("topic", called.set, longest_seconds=0.3)
    await listening(db)
    await called.wait()
    called.clear()
    watch.again(found=False)
    await called.wait()  # of what may have come before it listened
    waits = []
    for _ in range(10):
        for _ in range(10):
            watch.again(found=False)
        called.clear()
        notifier.notify("topic")
        begun = time.monotonic()
        await called.wait()
        waits.append(time.monotonic() - begun)
    watch.close()
    assert min(waits) > 0.2
    assert sorted(waits)[5] < 0.3 + 0.1


@pytest.mark.alone
async def test_notifications_come_within_thirty_milliseconds(dsn: str, db: Database) -> None:
    """At the 95th of a hundred, from another process's notify to the consumer's call."""
    async with Database(dsn) as sender:
        called = asyncio.Event()
        watch = Notifier.of(db).watch("topic", called.set, longest_seconds=600)
        await listening(db)
        best = []
        for _ in range(3):  # others' work on the machine counts in the others
            waits = []
            for _ in range(100):
                for _ in range(20):
                    watch.again(found=False)
                called.clear()
                await asyncio.sleep(random.uniform(0, 0.03))
                begun = time.monotonic()
                Notifier.of(sender).notify("topic")
                await called.wait()
                waits.append(time.monotonic() - begun)
            best.append(sorted(waits)[94])
        watch.close()
    assert min(best) <= 0.030, best


async def test_many_that_are_sent_at_once_go_together(dsn: str, db: Database) -> None:
    """A thousand calls from ten threads within 15 ms are few notifications, of every topic."""
    got: list[str] = []
    async with connected(dsn) as conn:
        await conn.add_listener("pgsaga", lambda *args: got.append(str(args[3])))

        def send(thread: int) -> None:
            for n in range(100):
                Notifier.of(db).notify(f"{thread} {n}")

        threads = [threading.Thread(target=send, args=(n,)) for n in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        wanted = {f"{thread} {n}" for thread in range(10) for n in range(100)}
        await true(lambda: {topic for payload in got for topic in payload.split("\n")} >= wanted)
    assert len(got) < 100


async def test_notifications_keep_their_distance(dsn: str, db: Database) -> None:
    """Of one topic and one process at most one comes in 15 ms, and the last isn't left out."""
    got: list[float] = []
    async with connected(dsn) as conn:
        await conn.add_listener("pgsaga", lambda *_: got.append(time.monotonic()))
        begun = time.monotonic()
        for _ in range(200):
            last = time.monotonic()
            Notifier.of(db).notify("topic")
            await asyncio.sleep(0.001)
        await true(lambda: got and got[-1] >= last)
    assert len(got) <= (got[-1] - begun) / 0.015 + 2


def test_topics_that_fill_a_notification_are_several() -> None:
    """None is longer than PostgreSQL takes, and no topic is cut or missing."""
    topics = {f"{n} {'ä' * 90}" for n in range(200)}
    payloads = _payloads(topics)
    assert len(payloads) > 1
    assert max(len(payload.encode()) for payload in payloads) < 8000
    assert {topic for payload in payloads for topic in payload.split("\n")} == topics


async def test_a_lost_connection_is_made_anew(dsn: str, db: Database) -> None:
    """And whoever waits looks, since something may have come meanwhile."""
    notifier = Notifier.of(db)
    called = asyncio.Event()
    watch = notifier.watch("topic", called.set, longest_seconds=600)
    await listening(db)
    for _ in range(3):
        for _ in range(20):
            watch.again(found=False)
        called.clear()
        await _chores.rows(
            dsn,
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and query ilike 'listen%'",
        )
        await asyncio.wait_for(called.wait(), HANG_SECONDS)
        await listening(db)
    watch.close()


async def test_an_unforeseen_error_ends_neither_sending_nor_listening(
    dsn: str, db: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told, and tried again; nobody would hear of a thread's task that ended."""
    connect, fetch, failed = db.connect_to_listen, db.fetch, set()

    async def fails_once(what: str, call: Any, *args: Any, **options: Any) -> Any:
        if what not in failed:
            failed.add(what)
            raise AttributeError("of the driver")
        return await call(*args, **options)

    monkeypatch.setattr(db, "connect_to_listen", partial(fails_once, "connect", connect))
    monkeypatch.setattr(db, "fetch", partial(fails_once, "fetch", fetch))
    monkeypatch.setattr("langgraph_pgsaga.work.notifier._AFTER_ERROR_SECONDS", 0.01)
    called = asyncio.Event()
    watch = Notifier.of(db).watch("topic", called.set, longest_seconds=600)
    await listening(db)
    for number in range(2):
        for _ in range(20):
            watch.again(found=False)
        await asyncio.sleep(0)
        called.clear()
        Notifier.of(db).notify("topic")
        if number == 0:
            await true(lambda: "news weren't sent" in caplog.text)
            continue
        await asyncio.wait_for(called.wait(), HANG_SECONDS)
    watch.close()
    assert "news don't come" in caplog.text


async def test_loops_of_one_process_share_the_connection(dsn: str, db: Database) -> None:
    """A notification reaches the watches of each; a loop that ended costs nothing."""
    notifier = Notifier.of(db)
    here, there, done = asyncio.Event(), threading.Event(), threading.Event()

    async def elsewhere() -> None:
        notifier.watch("topic", there.set, longest_seconds=600)
        while not done.is_set():
            await asyncio.sleep(0.01)  # and ends without closing it

    thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
    thread.start()
    watch = notifier.watch("topic", here.set, longest_seconds=600)
    await listening(db)
    await true(lambda: here.is_set() and there.is_set())
    await _chores.until(dsn, f"{_LISTENERS} = 1")
    done.set()
    await asyncio.to_thread(thread.join)
    here.clear()
    watch.again(found=False)
    notifier.notify("topic")
    await asyncio.wait_for(here.wait(), HANG_SECONDS)
    watch.close()
    await _chores.until(dsn, f"{_LISTENERS} = 0")


async def test_a_watch_that_begins_when_the_last_one_ends_is_heard(dsn: str, db: Database) -> None:
    """Whatever the order in which the listener learns of it."""
    notifier = Notifier.of(db)
    for _ in range(20):
        called = asyncio.Event()
        watch = notifier.watch("topic", called.set, longest_seconds=600)
        await asyncio.sleep(random.uniform(0, 0.02))
        watch.close()
    watch = notifier.watch("topic", called.set, longest_seconds=600)
    await listening(db)
    for _ in range(20):
        watch.again(found=False)
    called.clear()
    notifier.notify("topic")
    await asyncio.wait_for(called.wait(), HANG_SECONDS)
    await _chores.until(dsn, f"{_LISTENERS} = 1")
    watch.close()


async def test_a_consumer_that_fails_holds_up_no_other(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told in the log; the others are called."""
    notifier, called = Notifier.of(db), asyncio.Event()

    def fails() -> None:
        raise ValueError("mine")

    first = notifier.watch("topic", fails)
    second = notifier.watch("topic", called.set)
    await asyncio.wait_for(called.wait(), HANG_SECONDS)
    await true(lambda: "what waits for topic failed" in caplog.text)
    first.close()
    second.close()


async def test_a_database_that_is_dropped_ends_its_notifier(dsn: str) -> None:
    """Nothing of the notifier keeps it, and its connection ends."""
    db = Database(dsn)
    watch = Notifier.of(db).watch("topic", lambda: None)
    await listening(db)
    kept = weakref.ref(db)
    watch.close()
    await _chores.until(dsn, f"{_LISTENERS} = 0")
    await db.aclose()
    del db
    gc.collect()
    assert kept() is None


@needs_fork
def test_a_forked_child_has_news_of_its_own(dsn: str) -> None:
    """It doesn't touch the parent's connection, and has one itself."""

    async def heard(db: Database) -> None:
        called = asyncio.Event()
        watch = Notifier.of(db).watch("topic", called.set, longest_seconds=600)
        await listening(db)
        await true(called.is_set)
        watch.close()

    with Database(dsn) as db:

        async def parent() -> None:
            watch = Notifier.of(db).watch("topic", lambda: None, longest_seconds=600)
            await listening(db)
            watch.close()

        asyncio.run(parent())
        pid = in_child(lambda: asyncio.run(heard(db)))
        assert_succeeds(pid)
        asyncio.run(heard(db))


@pytest.mark.parametrize("topic", ["", "a\nb", "x" * 201, "ä" * 101, "a\0b"])
async def test_a_topic_that_can_not_be_sent_is_refused(db: Database, topic: str) -> None:
    """By who notifies and by who watches, before anything is done."""
    with pytest.raises(InvalidArgumentError, match="topic"):
        Notifier.of(db).notify("fine", topic)
    with pytest.raises(InvalidArgumentError, match="topic"):
        Notifier.of(db).watch(topic, lambda: None)
