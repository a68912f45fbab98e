"""Writes that wait for each other: together in few statements, in order, and each for itself."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.checkpoint import write_queue
from langgraph_pgsaga.checkpoint.batch import Batch
from langgraph_pgsaga.checkpoint.session_cache import SessionCache
from langgraph_pgsaga.errors import (
    ClosedError,
    MissingMigrationsError,
    ReadOnlyServerError,
    ServerConnectionError,
    ServerError,
)
from langgraph_pgsaga.threads import session_id_of
from tests._connections import connected
from tests._limits import HANG_SECONDS
from tests._proxy import Proxy
from tests.db._crowd import MESSAGES
from tests.db._puts import checkpoint_of, config_of
from tests.db._waits import queued_up, waits_for_a_lock

pytestmark = pytest.mark.anyio

IS_FULL = os.environ.get("PGSAGA_FULL") == "1"
THREADS = 10_000 if IS_FULL else 2_000
CANCELLED = 10_000 if IS_FULL else 500


async def put(saver: PostgresSaver, thread: str, **values: Any) -> RunnableConfig:
    checkpoint = checkpoint_of(saver, values)
    versions = checkpoint["channel_versions"]
    return await saver.aput(config_of(thread), checkpoint, {"source": "loop"}, versions)


async def values_of(saver: PostgresSaver, config: RunnableConfig) -> dict[str, Any]:
    """As a saver without memories reads them."""
    found = await PostgresSaver(saver.db).aget_tuple(config)
    assert found is not None
    return found.checkpoint["channel_values"]


@asynccontextmanager
async def held(dsn: str, saver: PostgresSaver, *threads: str) -> AsyncIterator[None]:
    """The threads' sessions are there and locked: what is put to them has to wait."""
    for thread in threads:
        await put(saver, thread, text="first")
    async with connected(dsn) as conn, conn.transaction():
        lock = "select from agent_sessions where thread_id = any($1) for update"
        await conn.execute(lock, list(threads))
        yield


def threads_of_one_lane(count: int) -> list[str]:
    named = (f"thread {number}" for number in range(10_000))
    return [name for name in named if session_id_of(name).int % write_queue._LANES == 0][:count]


async def test_what_waits_goes_together(dsn: str) -> None:
    """A hundred threads' puts, at once, take few statements; each is stored as its own."""
    with Proxy(dsn) as proxy:
        async with PostgresSaver.from_conn_string(proxy.dsn()) as saver:
            names = [f"thread {number}" for number in range(100)]
            await asyncio.gather(*(put(saver, name, text="warm-up") for name in names))
            with proxy.recording() as traffic:
                configs = await asyncio.gather(*(put(saver, n, text=n, on=[n]) for n in names))
            assert traffic.statements <= 2 * write_queue._LANES
            for name, config in zip(names, configs, strict=True):
                assert await values_of(saver, config) == {"text": name, "on": [name]}


async def test_where_tables_are_distributed_no_statement_has_two_sessions(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that wait for one lane are stored one after the other, each one's calls together."""
    executed: list[tuple[int, int]] = []
    arguments = Batch.arguments

    def noted(batch: Batch) -> list[Any]:
        executed.append((len({row[0] for row in batch.states + batch.writes}), len(batch.states)))
        return arguments(batch)

    monkeypatch.setattr(Batch, "arguments", noted)
    async with PostgresSaver.from_conn_string(dsn, distributed=True) as saver:
        names = threads_of_one_lane(5)
        puts = [put(saver, name, text=f"{name} {n}") for name in names for n in range(3)]
        configs = await asyncio.gather(*puts)
        assert executed == [(1, 3)] * len(names)
        await saver.aput_writes(configs[0], [("text", "more")], "task")
        found = [found async for found in saver.alist(None)]
        assert len(found) == len(puts)
        assert [len(f.pending_writes or ()) for f in found] == [0] * 14 + [1]


async def test_a_threads_calls_keep_their_order(dsn: str) -> None:
    """Writes that replace each other, all queued at once: the last one counts, always."""
    async with PostgresSaver.from_conn_string(dsn) as saver:
        configs = [await put(saver, f"thread {number}", text="t") for number in range(20)]
        for turn in range(5):
            await asyncio.gather(
                *(
                    saver.aput_writes(config, [("__error__", f"{turn} {place}")], "task")
                    for place in range(10)
                    for config in configs
                )
            )
            for config in configs:
                found = await saver.aget_tuple(config)
                assert found
                assert found.pending_writes == [("task", "__error__", f"{turn} 9")]


async def test_one_bad_call_fails_alone(dsn: str) -> None:
    """What the server refuses of one thread fails that call; the others of its statement don't."""
    names = threads_of_one_lane(30)
    bad = names[7]
    async with PostgresSaver.from_conn_string(dsn) as saver, connected(dsn) as conn:
        await conn.execute(
            f"alter table agent_sessions add constraint no_bad check (thread_id <> '{bad}')"
        )
        async with held(dsn, saver, names[0]):
            first = asyncio.ensure_future(put(saver, names[0], text="holds up the lane"))
            await waits_for_a_lock(dsn)
            puts = [asyncio.ensure_future(put(saver, name, text=name)) for name in names[1:]]
            await queued_up(saver, len(puts))
        await first
        results = await asyncio.gather(*puts, return_exceptions=True)
        for name, result in zip(names[1:], results, strict=True):
            if name == bad:
                assert isinstance(result, ServerError)
                assert result.sqlstate == "23514"
            else:
                assert isinstance(result, dict)
                assert await values_of(saver, result) == {"text": name}
        assert await conn.fetchval("select count(*) from agent_states") == 30


async def test_a_defect_of_one_call_fails_that_call_alone(
    saver: PostgresSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what no rule foresees, such as a cipher that raises, takes no other call with it."""
    good, bad = threads_of_one_lane(2)
    add_put = Batch._add_put

    def broken(batch: Batch, part: Any, call: Any) -> None:
        if call.thread_id == bad:
            raise ZeroDivisionError
        add_put(batch, part, call)

    monkeypatch.setattr(Batch, "_add_put", broken)
    results = await asyncio.gather(
        *(put(saver, name, text=name) for name in (bad, good)), return_exceptions=True
    )
    assert isinstance(results[0], ZeroDivisionError)
    assert isinstance(results[1], dict)


@pytest.mark.parametrize(
    "error",
    [
        ServerConnectionError(dsn="d", detail="gone"),
        ReadOnlyServerError(dsn="d", sqlstate="25006", detail="a standby"),
        MissingMigrationsError(dsn="d", detail="no table"),
        ClosedError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_each_caller_of_a_statement_gets_an_error_of_its_own(
    saver: PostgresSaver, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """An error says what became of one call; raising it to another would change it. What befalls
    all of them alike isn't waited for once for each."""
    statements = 0

    async def broken(*_: Any, **__: Any) -> Any:
        nonlocal statements
        statements += 1
        raise error from OSError("cut")

    monkeypatch.setattr(saver.db, "fetch", broken)
    calls = [put(saver, name, text=name) for name in threads_of_one_lane(5)]
    raised = await asyncio.gather(*calls, return_exceptions=True)
    assert [(type(one), str(one)) for one in raised] == [(type(error), str(error))] * 5
    assert len({id(one) for one in raised}) == 5
    assert statements == 1
    assert all(isinstance(one, Exception) and str(one.__cause__) == "cut" for one in raised)


async def test_a_call_cancelled_while_it_waits_is_never_sent(dsn: str) -> None:
    """Of the calls behind a statement that takes its time, the cancelled ones aren't stored."""
    names = threads_of_one_lane(12)
    async with PostgresSaver.from_conn_string(dsn) as saver, connected(dsn) as conn:
        async with held(dsn, saver, names[0]):
            first = asyncio.ensure_future(put(saver, names[0], text="holds up the lane"))
            await waits_for_a_lock(dsn)
            puts = [asyncio.ensure_future(put(saver, name, text=name)) for name in names[1:]]
            await queued_up(saver, len(puts))
            for cancelled in puts[::2]:
                cancelled.cancel()
        await first
        results = await asyncio.gather(*puts, return_exceptions=True)
        assert [isinstance(r, asyncio.CancelledError) for r in results] == [True, False] * 5 + [
            True
        ]
        stored = await conn.fetch("select thread_id from agent_sessions order by thread_id")
        assert [row[0] for row in stored] == sorted([names[0], *names[2::2]])


async def test_a_cancelled_call_takes_no_other_with_it(dsn: str) -> None:
    """A statement that is under way for several goes on when one of them is cancelled."""
    one, two = threads_of_one_lane(2)
    async with PostgresSaver.from_conn_string(dsn) as saver:
        async with held(dsn, saver, one, two):
            puts = [asyncio.ensure_future(put(saver, t, text="later")) for t in (one, two)]
            await waits_for_a_lock(dsn)
            puts[0].cancel()
            await asyncio.wait([puts[0]])
            assert puts[0].cancelled()
        async with asyncio.timeout(HANG_SECONDS):
            config = await puts[1]
        assert await values_of(saver, config) == {"text": "later"}


@pytest.mark.parametrize("together", [2, 3, 7])
async def test_a_statement_that_is_given_up_takes_no_other_call_with_it(
    dsn: str, together: int
) -> None:
    """All callers of a statement are cancelled in one turn: what waits behind it is stored."""
    names = threads_of_one_lane(together + 5)
    given_up, behind = names[:together], names[together:]
    async with PostgresSaver.from_conn_string(dsn) as saver:
        async with held(dsn, saver, *given_up):
            unwanted = [asyncio.ensure_future(put(saver, name, text="never")) for name in given_up]
            await waits_for_a_lock(dsn)
            waiting = [asyncio.ensure_future(put(saver, name, text="later")) for name in behind]
            await queued_up(saver, len(waiting))
            for call in unwanted:
                call.cancel()
            async with asyncio.timeout(HANG_SECONDS):
                configs = await asyncio.gather(*waiting)
            await waits_for_a_lock(dsn, 0)  # the server has heard of it
        for config in configs:
            assert await values_of(saver, config) == {"text": "later"}
        for name in given_up:
            assert await values_of(saver, config_of(name)) == {"text": "first"}
        again = [await put(saver, name, text="again") for name in given_up]
        assert [await values_of(saver, config) for config in again] == [
            {"text": "again"}
        ] * together


async def test_every_statement_that_nobody_waits_for_is_given_up(dsn: str) -> None:
    """Not only the first one of its lane: the server is told to stop."""
    (one,) = threads_of_one_lane(1)
    async with PostgresSaver.from_conn_string(dsn) as saver:
        for _ in range(2):
            async with held(dsn, saver, one):
                unwanted = asyncio.ensure_future(put(saver, one, text="never"))
                await waits_for_a_lock(dsn)
                unwanted.cancel()
                await waits_for_a_lock(dsn, 0)


async def test_a_statement_is_sent_in_no_callers_context(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first caller's context holds is none of those whose calls go with it."""
    caller: ContextVar[str] = ContextVar("caller", default="nobody")
    sent_by: list[str] = []
    async with PostgresSaver.from_conn_string(dsn) as saver:
        fetch = saver.db.fetch

        async def fetching(*arguments: Any, **options: Any) -> Any:
            sent_by.append(caller.get())
            return await fetch(*arguments, **options)

        monkeypatch.setattr(saver.db, "fetch", fetching)
        caller.set("first")
        for _ in range(2):
            await put(saver, "t", text="text")
    assert set(sent_by) == {"nobody"}


async def test_a_call_that_is_repeated_alone_is_given_up_alone(dsn: str) -> None:
    """Where one of a statement's calls has to be sent again and then isn't wanted any more, the
    lane goes on, though the others' were stored."""
    one, two, three = threads_of_one_lane(3)
    async with PostgresSaver.from_conn_string(dsn) as saver:
        async with held(dsn, saver, two):
            saver._cache.forget(session_id_of(two))  # so the first statement passes it over
            puts = [asyncio.ensure_future(put(saver, t, text="later")) for t in (one, two)]
            config = await puts[0]
            await waits_for_a_lock(dsn)
            puts[1].cancel()
            async with asyncio.timeout(HANG_SECONDS):
                await put(saver, three, text="later")
            await waits_for_a_lock(dsn, 0)
        assert await values_of(saver, config) == {"text": "later"}
        assert await values_of(saver, config_of(two)) == {"text": "first"}


async def test_the_end_of_a_loop_ends_its_calls(dsn: str) -> None:
    """A loop that shuts down leaves no task of the queue behind, and no caller that waits."""
    one, two = threads_of_one_lane(2)
    async with PostgresSaver.from_conn_string(dsn) as saver:

        async def main() -> list[asyncio.Future[Any]]:
            sent = asyncio.ensure_future(put(saver, one, text="sent"))
            await waits_for_a_lock(dsn)
            queued = asyncio.ensure_future(put(saver, two, text="queued"))
            await queued_up(saver, 1)
            return [sent, queued]

        async with held(dsn, saver, one), asyncio.timeout(HANG_SECONDS):
            calls = await asyncio.to_thread(lambda: asyncio.run(main(), debug=True))
        assert all(call.cancelled() for call in calls)
        # The loop's end doesn't wait for the server to hear of it: what was sent is stored or not.
        assert await values_of(saver, config_of(one)) in ({"text": "first"}, {"text": "sent"})
        assert await saver.aget_tuple(config_of(two)) is None


async def some_turns(chance: random.Random) -> None:
    for _ in range(chance.choice((0, 1, 2, 3, 5, 8, 40))):
        await asyncio.sleep(0)


async def test_random_cancellations_touch_nobody_else(dsn: str) -> None:
    """Whatever is cancelled at whatever moment: every other call is acknowledged and stored, and
    what a cancelled one leaves unknown misleads nobody."""
    chance = random.Random(7)
    names = [*threads_of_one_lane(5), "elsewhere"]
    said_in: dict[str, list[str]] = {name: [] for name in names}
    stored: list[tuple[RunnableConfig, list[str]]] = []

    async with PostgresSaver.from_conn_string(dsn) as saver, asyncio.timeout(HANG_SECONDS):

        async def call(name: str, number: int) -> None:
            words = said_in[name] = [*said_in[name][-3:], f"{name} {number}"]
            config = await put(saver, name, messages=said(*words), on=["x" * 3000, number])
            await saver.aput_writes(config, [("on", number)], "task")
            stored.append((config, words))

        async def wave(size: int, number: int) -> list[asyncio.Task[None]]:
            calls = [call(chance.choice(names), number + place) for place in range(size)]
            tasks = [asyncio.create_task(one) for one in calls]
            await some_turns(chance)
            return tasks

        async def cancel_some(waves: list[list[asyncio.Task[None]]]) -> set[asyncio.Task[None]]:
            """A wave as a whole, in one turn of the loop, or some of it."""
            unwanted: set[asyncio.Task[None]] = set()
            for tasks in waves:
                together = chance.choice(([], tasks, tasks[:2], tasks[1:]))
                for task in together:
                    task.cancel()
                unwanted.update(together)
                await some_turns(chance)
            return unwanted

        for number in range(0, CANCELLED, 10):
            waves = [await wave(chance.randrange(1, 4), number + 3 * n) for n in range(3)]
            unwanted = await cancel_some(waves)
            for task in (task for tasks in waves for task in tasks):
                (outcome,) = await asyncio.gather(task, return_exceptions=True)
                allowed = asyncio.CancelledError if task in unwanted else type(None)
                assert isinstance(outcome, allowed | None), repr(outcome)
        assert len(stored) > CANCELLED / 10
        reader = PostgresSaver(saver.db)
        for config, words in stored:
            found = await reader.aget_tuple(config)
            assert found is not None
            values = found.checkpoint["channel_values"]
            assert values["messages"] == said(*words)
            assert found.pending_writes == [("task", "on", values["on"][1])]


async def test_closing_over_queued_calls_stores_them_or_says_so(dsn: str) -> None:
    """What was acknowledged before or during the end is there, what wasn't is an error."""
    saver = PostgresSaver.from_conn_string(dsn)
    await put(saver, "warm-up", text="t")
    puts = [asyncio.ensure_future(put(saver, f"thread {n}", text="t" * 3000)) for n in range(500)]
    await asyncio.wait(puts, return_when=asyncio.FIRST_COMPLETED)
    await saver.aclose()
    results = await asyncio.gather(*puts, return_exceptions=True)
    stored = [result for result in results if isinstance(result, dict)]
    assert stored
    assert all(isinstance(r, ClosedError) for r in results if not isinstance(r, dict))
    async with connected(dsn) as conn:
        assert await conn.fetchval("select count(*) from agent_states") == len(stored) + 1


def said(*words: str) -> list[BaseMessage]:
    return [HumanMessage(f"{word} " * 20, id=word) for word in words]


async def test_two_processes_on_the_same_threads(dsn: str) -> None:
    """Savers that don't know of each other put to the same threads at once: every checkpoint
    has its own messages, none is stored twice, and nobody waits for ever."""
    async with (
        PostgresSaver.from_conn_string(dsn) as one,
        PostgresSaver.from_conn_string(dsn) as two,
    ):
        names = [f"thread {number}" for number in range(8)]

        async def chain(saver: PostgresSaver, own: str, name: str) -> None:
            words = ["both"]
            for turn in range(8):
                words = [*words, f"{turn}", f"{own} {turn}"]
                config = await put(saver, name, messages=said(*words))
                assert (await values_of(saver, config))["messages"] == said(*words)

        savers = (("one", one), ("two", two))
        async with asyncio.timeout(HANG_SECONDS):
            await asyncio.gather(*(chain(s, own, n) for n in names for own, s in savers))
        async with connected(dsn) as conn:
            stored = await conn.fetchval("select count(*) from agent_messages")
            assert stored == len(names) * (1 + 8 + 2 * 8)


async def test_many_threads_take_bounded_memory(dsn: str) -> None:
    """What is remembered of threads has a size, however many there are; the oldest are forgotten
    and stored correctly all the same."""
    numbers, content = 4_000, 500_000
    async with PostgresSaver.from_conn_string(dsn) as saver:
        memory = saver._cache = SessionCache(numbers, content)
        saver._queues.clear()
        names = [f"thread {number}" for number in range(THREADS)]
        for start in range(0, THREADS, 500):
            some = names[start : start + 500]
            await asyncio.gather(*(put(saver, name, messages=said("a", name)) for name in some))
            assert memory.weight <= numbers
            assert memory.content_bytes <= content
        assert not saver.codec._seen, "messages that are gone are remembered"
        again = await put(saver, names[0], messages=said("a", names[0], "b"))
        assert (await values_of(saver, again))["messages"] == said("a", names[0], "b")
        async with connected(dsn) as conn:
            assert await conn.fetchval("select count(*) from agent_messages") == 2 * THREADS + 1


async def test_many_puts_at_once_wait_their_turn(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of puts at once are encoded as fast as they are stored, and all are stored."""
    limit = 1_000_000
    monkeypatch.setattr(write_queue, "_MOST_QUEUED_BYTES", limit)
    payload = "x" * 2000
    async with PostgresSaver.from_conn_string(dsn) as saver:
        names = [f"thread {number}" for number in range(THREADS)]
        queue = saver._queue()
        most = 0

        async def watch(puts: Sequence[asyncio.Future[Any]]) -> None:
            nonlocal most
            while not all(done.done() for done in puts):
                most = max(most, queue._queued_bytes)
                await asyncio.sleep(0)

        puts = [asyncio.ensure_future(put(saver, name, on=[payload])) for name in names]
        await watch(puts)
        await asyncio.gather(*puts)
        assert limit / 2 < most < limit + 10_000
        assert queue._queued_bytes == 0
        async with connected(dsn) as conn:
            assert await conn.fetchval("select count(*) from agent_states") == THREADS


async def test_a_cancelled_turn_is_passed_on(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that gives up just when its turn has come doesn't keep the others waiting."""
    monkeypatch.setattr(write_queue, "_MOST_QUEUED_BYTES", 1)
    async with PostgresSaver.from_conn_string(dsn) as saver, asyncio.timeout(HANG_SECONDS):

        async def put_and_cancel_the_next() -> None:
            await put(saver, "first", on=[1])
            assert saver._queue()._is_waking
            second.cancel()

        first = asyncio.ensure_future(put_and_cancel_the_next())
        second = asyncio.ensure_future(put(saver, "second", on=[2]))
        third = asyncio.ensure_future(put(saver, "third", on=[3]))
        await first
        assert (await values_of(saver, await third))["on"] == [3]
        assert second.cancelled()
        assert saver._queue()._queued_bytes == 0


async def test_no_put_is_refused_for_the_crowd_around_it(dsn: str) -> None:
    """Eight processes put new messages to one thread as fast as they can: each put is stored."""
    processes, puts = 8, 400 if IS_FULL else 100
    arguments = [sys.executable, "-m", "tests.db._crowd", dsn, str(processes), str(puts)]
    ended = await asyncio.to_thread(
        subprocess.run, arguments, capture_output=True, text=True, timeout=HANG_SECONDS, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    async with connected(dsn) as conn:
        counts = await conn.fetchrow(
            "select count(*), max(message_no) from agent_messages join agent_sessions"
            " using (session_id) where thread_id = 'everybody''s'"
        )
        assert counts is not None
        assert counts[0] == counts[1] == processes * puts * MESSAGES
