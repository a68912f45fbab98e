"""One saver on many event loops, in threads, and at its end."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import itertools
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from langgraph_pgsaga import Database, PostgresSaver
from langgraph_pgsaga.errors import BlockingCallError, ClosedError, ServerConnectionError
from tests._forked import needs_fork
from tests._limits import HANG_SECONDS
from tests.db._dropped import ROUNDS, WAYS
from tests.db._loop_calls import (
    CONFIG,
    aput_and_get,
    connections,
    on_server,
    put_and_get,
    put_arguments,
    until,
)

UNCLOSED = Path(__file__).parent / "_unclosed.py"
INTERRUPTED = Path(__file__).parent / "_interrupted.py"
_numbers = itertools.count(1)


async def _aput_many(saver: PostgresSaver, thread: str) -> None:
    calls = (aput_and_get(saver, f"{thread} {n}", next(_numbers)) for n in range(5))
    await asyncio.gather(*calls)


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing is warned of, not even when what was left over is collected."""
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        problems: list[object] = []
        before, sys.unraisablehook = sys.unraisablehook, problems.append
        try:
            yield
            gc.collect()
        finally:
            sys.unraisablehook = before
    assert problems == []


# Loops one after another, and at once


def test_loops_one_after_another_leave_no_connections(dsn: str) -> None:
    """Each asyncio.run gets a pool of its own, which ends with it, quietly."""
    with _quiet(), PostgresSaver.from_conn_string(dsn) as saver:
        for _ in range(8):
            asyncio.run(_aput_many(saver, "t"))
            until(lambda: connections(dsn) == 0)
        assert len(saver.db._pools) <= 1


def test_loops_that_end_over_running_calls_leave_no_connections(dsn: str) -> None:
    """asyncio.run whose main returns while puts are under way ends as quietly."""

    async def leave_running(saver: PostgresSaver, tasks: list[Any]) -> None:
        tasks += [asyncio.ensure_future(_aput_many(saver, f"t{n}")) for n in range(5)]
        await aput_and_get(saver, "u", next(_numbers))

    with _quiet(), PostgresSaver.from_conn_string(dsn) as saver:
        for _ in range(6):
            tasks: list[Any] = []
            asyncio.run(leave_running(saver, tasks))
        until(lambda: connections(dsn) == 0)
        asyncio.run(_aput_many(saver, "t"))


def test_a_loop_closed_without_a_word_is_forgotten(dsn: str) -> None:
    """A loop that is just closed takes its pool along as soon as another loop asks for one."""
    with PostgresSaver.from_conn_string(dsn) as saver:
        with warnings.catch_warnings():
            # asyncio's own, about transports of a loop that was closed under them
            warnings.simplefilter("ignore", ResourceWarning)
            for _ in range(5):
                loop = asyncio.new_event_loop()
                loop.run_until_complete(_aput_many(saver, "t"))
                loop.close()
            asyncio.run(_aput_many(saver, "t"))
            del loop
            gc.collect()
        until(lambda: connections(dsn) == 0)
        assert len(saver.db._pools) == 1


def test_a_loop_goes_on_after_its_generators_were_closed(dsn: str) -> None:
    """Once asynchronous generators are shut down the pool is gone; the next call opens another."""
    with PostgresSaver.from_conn_string(dsn) as saver:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(_aput_many(saver, "t"))
        loop.run_until_complete(loop.shutdown_asyncgens())
        with pytest.warns(ResourceWarning, match="after loop.shutdown_asyncgens"):
            loop.run_until_complete(_aput_many(saver, "t"))
        loop.run_until_complete(saver.aclose())
        loop.close()


def test_loops_in_several_threads_at_once(dsn: str) -> None:
    """Loops in several threads and sync callers in others share one saver at once."""
    with _quiet(), PostgresSaver.from_conn_string(dsn, max_size=3) as saver:
        start = threading.Barrier(10)

        def in_loops(number: int) -> None:
            start.wait(HANG_SECONDS)
            for turn in range(3):
                asyncio.run(_aput_many(saver, f"loop {number} {turn}"))

        def in_sync(number: int) -> None:
            start.wait(HANG_SECONDS)
            for turn in range(15):
                put_and_get(saver, f"sync {number}", turn)

        with ThreadPoolExecutor(10) as threads:
            jobs = [threads.submit(in_loops, n) for n in range(5)]
            jobs += [threads.submit(in_sync, n) for n in range(5)]
            for job in jobs:
                job.result()
        assert len({found.config["configurable"]["thread_id"] for found in saver.list(None)}) == 80
        until(lambda: connections(dsn) <= 3)


@pytest.mark.skipif(not importlib.util.find_spec("uvloop"), reason="uvloop isn't installed")
def test_uvloop(dsn: str) -> None:
    """The saver runs on uvloop, and its connections end with that loop too."""
    uvloop = importlib.import_module("uvloop")
    with PostgresSaver.from_conn_string(dsn) as saver:
        for _ in range(3):
            uvloop.run(_aput_many(saver, "t"))
        until(lambda: connections(dsn) == 0)


# Sync calls


def test_a_sync_call_inside_a_running_loop_works(dsn: str) -> None:
    """As in a notebook cell: it blocks that loop for as long as it lasts, and answers."""

    async def cell(saver: PostgresSaver) -> None:
        put_and_get(saver, "t", 1)
        await aput_and_get(saver, "t", 2)
        assert len(list(saver.list(CONFIG))) == 2

    with PostgresSaver.from_conn_string(dsn) as saver:
        asyncio.run(cell(saver))


def test_a_sync_call_from_the_portals_own_loop_is_refused(dsn: str) -> None:
    """It would wait for itself: BlockingCallError, and no coroutine is left unawaited."""

    async def call_back(saver: PostgresSaver) -> None:
        with pytest.raises(BlockingCallError, match=r"PostgresSaver\.aget_tuple.*Await"):
            saver.get_tuple(CONFIG)
        with pytest.raises(BlockingCallError):
            list(saver.list(CONFIG))

    with _quiet(), PostgresSaver.from_conn_string(dsn) as saver:
        saver.db.portal.call(call_back, saver)
        put_and_get(saver, "t", 1)


@needs_fork
def test_ctrl_c_interrupts_a_sync_call(dsn: str) -> None:
    """KeyboardInterrupt ends the wait, cancels the statement and leaves the saver usable."""
    waiting = (
        "select count(*) from pg_stat_activity where datname = current_database()"
        " and wait_event_type = 'Lock'"
    )
    with PostgresSaver.from_conn_string(dsn) as saver:
        put_and_get(saver, "locked", 1)

        async def interrupt(process: subprocess.Popen[str]) -> None:
            async with saver.db.transaction() as conn:
                await conn.execute("select * from agent_sessions for update")
                await asyncio.to_thread(until, lambda: on_server(dsn, waiting) == 1)
                process.send_signal(signal.SIGINT)
                await asyncio.to_thread(until, lambda: on_server(dsn, waiting) == 0)

        process = subprocess.Popen(
            [sys.executable, INTERRUPTED, dsn],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            asyncio.run(interrupt(process))
            said, complaints = process.communicate(timeout=HANG_SECONDS)
        finally:
            process.kill()
        assert (said.split("\n")[:-1], complaints) == (["ready", "interrupted", "goes on"], "")
        assert saver.get_tuple({"configurable": {"thread_id": "locked"}})


def test_ctrl_c_on_the_way_to_the_portal_cancels_the_call(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the interrupt comes just after the call was handed over, it runs no more, either."""
    runs, cancelled = threading.Event(), threading.Event()

    async def wait() -> None:
        try:
            runs.set()
            await asyncio.sleep(HANG_SECONDS)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    handed_over, interrupts = asyncio.BaseEventLoop.call_soon_threadsafe, iter([True])

    def interrupted(loop: Any, callback: Any, *args: Any, **options: Any) -> asyncio.Handle:
        handle = handed_over(loop, callback, *args, **options)
        if next(interrupts, False):
            assert runs.wait(HANG_SECONDS)
            raise KeyboardInterrupt
        return handle

    with _quiet(), PostgresSaver.from_conn_string(dsn) as saver:
        put_and_get(saver, "t", 1)
        monkeypatch.setattr(asyncio.BaseEventLoop, "call_soon_threadsafe", interrupted)
        with pytest.raises(KeyboardInterrupt):
            saver.db.portal.call(wait)
        assert cancelled.wait(HANG_SECONDS)
        put_and_get(saver, "t", 2)


async def _errors_of(calls: list[Awaitable[Any]]) -> list[Any]:
    return await asyncio.gather(*calls, return_exceptions=True)


def test_each_caller_gets_an_error_of_its_own_when_the_pool_cant_open() -> None:
    """Callers that wait for one opening don't share the error, nor the one it is from."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with PostgresSaver.from_conn_string(f"postgresql://127.0.0.1:{port}/nowhere") as saver:

        async def main() -> list[Any]:
            return await _errors_of([saver.aget_tuple(CONFIG) for _ in range(5)])

        errors = asyncio.run(main())
        assert {type(one) for one in errors} == {ServerConnectionError}
        assert len({id(one) for one in errors}) == len({id(one.__cause__) for one in errors}) == 5


# The end


def test_a_closed_saver_says_so(dsn: str) -> None:
    """Every call after close raises ClosedError, sync and async; closing twice is no error."""
    saver = PostgresSaver.from_conn_string(dsn)
    put_and_get(saver, "t", 1)
    saver.close()
    saver.close()
    calls: list[Callable[[], Any]] = [
        lambda: saver.get_tuple(CONFIG),
        lambda: list(saver.list(CONFIG)),
        lambda: saver.put(*put_arguments("t", 2)),
        lambda: saver.delete_thread("t"),
        saver.setup,
        lambda: asyncio.run(saver.aget_tuple(CONFIG)),
        lambda: asyncio.run(aput_and_get(saver, "t", 2)),
        lambda: asyncio.run(anext(saver.alist(CONFIG))),  # type: ignore[arg-type]
        lambda: asyncio.run(saver.asetup()),
    ]
    for call in calls:
        with pytest.raises(ClosedError, match="was closed"):
            call()
    asyncio.run(saver.aclose())
    until(lambda: connections(dsn) == 0)


def test_a_saver_of_a_given_database_leaves_it_open(dsn: str) -> None:
    """`with` on a saver closes the database only if the saver made it."""
    with Database(dsn) as db:
        with PostgresSaver(db) as saver:
            put_and_get(saver, "t", 1)
        put_and_get(saver, "t", 2)
    with pytest.raises(ClosedError):
        saver.get_tuple(CONFIG)


def test_async_with_closes_everything(dsn: str) -> None:
    """`async with` ends the pools of its own loop, of other loops and of sync callers."""

    async def use() -> None:
        async with PostgresSaver.from_conn_string(dsn) as saver:
            await aput_and_get(saver, "t", 1)
            await asyncio.to_thread(put_and_get, saver, "t", 2)
            await asyncio.to_thread(asyncio.run, aput_and_get(saver, "t", 3))
        with pytest.raises(ClosedError):
            await saver.aget_tuple(CONFIG)

    with _quiet():
        asyncio.run(use())
        until(lambda: connections(dsn) == 0)
        assert not [t for t in threading.enumerate() if "langgraph_pgsaga" in t.name]


@pytest.mark.parametrize("turn", range(5))
def test_close_while_calls_run(dsn: str, turn: int) -> None:
    """Calls under way end with their result or ClosedError, at once, sync and async."""
    saver = PostgresSaver.from_conn_string(dsn, max_size=3)
    outcomes: list[BaseException] = []
    begun = threading.Semaphore(0)

    def in_sync(number: int) -> None:
        try:
            for turn in itertools.count():
                put_and_get(saver, f"sync {number}", turn)
                begun.release()
        except BaseException as error:
            outcomes.append(error)

    async def on_and_on(number: int) -> None:
        for turn in itertools.count():
            await aput_and_get(saver, f"async {number}", turn)
            begun.release()

    def in_loop() -> None:
        async def run() -> list[BaseException]:
            calls = (on_and_on(n) for n in range(8))
            results = await asyncio.gather(*calls, return_exceptions=True)
            return [r for r in results if isinstance(r, BaseException)]

        outcomes.extend(asyncio.run(run()))

    with _quiet():
        threads = [threading.Thread(target=in_sync, args=(n,)) for n in range(4)]
        threads.append(threading.Thread(target=in_loop))
        for thread in threads:
            thread.start()
        for _ in range(30):
            assert begun.acquire(timeout=HANG_SECONDS)
        if turn % 2:
            saver.close()
        else:
            asyncio.run(saver.aclose())
        for thread in threads:
            thread.join(HANG_SECONDS)
            assert not thread.is_alive()
    assert len(outcomes) == 12
    assert [e for e in outcomes if type(e) is not ClosedError] == []
    until(lambda: connections(dsn) == 0)


def test_aclose_lets_calls_of_its_own_loop_end(dsn: str) -> None:
    """aclose waits for the statements that run in the same loop; later ones are refused."""

    async def use() -> list[Any]:
        saver = PostgresSaver.from_conn_string(dsn, max_size=3)
        await saver.aget_tuple(CONFIG)
        threads = [f"t{n}" for n in range(10)]
        puts = [asyncio.ensure_future(saver.aput(*put_arguments(t, 0))) for t in threads]
        pool = (await saver.db._pool()).pool
        async with asyncio.timeout(HANG_SECONDS):
            while pool and pool.get_size() != 3:
                await asyncio.sleep(0)
        await saver.aclose()
        results: list[Any] = await asyncio.gather(*puts, return_exceptions=True)
        return results

    results = asyncio.run(use())
    stored = [r for r in results if isinstance(r, dict)]
    assert stored
    assert all(isinstance(r, ClosedError) for r in results if not isinstance(r, dict))
    assert on_server(dsn, "select count(*) from agent_states") == len(stored)


@pytest.mark.parametrize("way", ["sync", "async", "both", "running", "background", "fork"])
def test_a_process_that_never_closes_ends_quietly(dsn: str, way: str) -> None:
    """The interpreter's end closes what was left open, without a word and without a wait."""
    done = subprocess.run(
        [sys.executable, "-W", "error", UNCLOSED, dsn, way],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    until(lambda: connections(dsn) == 0)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted in /proc")
@pytest.mark.parametrize("way", WAYS)
def test_a_saver_that_is_dropped_warns_and_leaves_nothing(dsn: str, way: str) -> None:
    """Its thread and sockets go, in whatever way it was used; what was never used is no leak."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.db._dropped", dsn, way],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    told = 0 if way == "not_at_all" else ROUNDS
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{ROUNDS} {told}\n", "")
    until(lambda: connections(dsn) == 0)


def test_a_failed_warning_releases_all_the_same(dsn: str) -> None:
    """Where warnings are errors, nobody hears of this one, but the connections are closed."""
    unheard: list[Any] = []
    with pytest.MonkeyPatch.context() as patched, warnings.catch_warnings():
        warnings.simplefilter("error")
        patched.setattr(sys, "unraisablehook", unheard.append)
        put_and_get(PostgresSaver.from_conn_string(dsn), "t", 1)
        gc.collect()
    (one,) = unheard
    assert isinstance(one.exc_value, ResourceWarning)
    assert "secret" not in str(one.exc_value)
    until(lambda: connections(dsn) == 0)


@pytest.mark.parametrize("step", ["new_event_loop", "Thread", "start"])
def test_an_interrupt_while_the_portal_begins_leaves_it_to_the_next_call(
    dsn: str, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Ctrl-C behind any of the steps: the next call works, and closing without one, too."""
    owner: Any = {"new_event_loop": asyncio, "Thread": threading, "start": threading.Thread}[step]
    done, interrupts = getattr(owner, step), iter([True])

    def interrupted(*args: Any, **options: Any) -> Any:
        made: Any = None if step == "start" else done(*args, **options)
        if next(interrupts, False):
            if step == "new_event_loop":
                made.close()
            raise KeyboardInterrupt
        return done(*args, **options) if step == "start" else made

    monkeypatch.setattr(owner, step, interrupted)
    with _quiet():
        for calls_again in (True, False):
            with PostgresSaver.from_conn_string(dsn) as saver:
                with pytest.raises(KeyboardInterrupt):
                    put_and_get(saver, "t", 1)
                if calls_again:
                    put_and_get(saver, "t", 2)
                    interrupts = iter([True])
