"""One saver in forked processes."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.checkpoint.session_cache import SessionCache
from langgraph_pgsaga.errors import ClosedError
from tests._forked import assert_succeeds, in_child, needs_fork
from tests._limits import HANG_SECONDS
from tests.db._loop_calls import CONFIG, aput_and_get, connections, put_and_get, until


@needs_fork
def test_a_forked_child_has_connections_of_its_own(dsn: str) -> None:
    """Parent and child use one saver at once, sync and async, and neither disturbs the other."""
    with PostgresSaver.from_conn_string(dsn) as saver:
        put_and_get(saver, "parent", 0)

        def child() -> None:
            for turn in range(10):
                put_and_get(saver, f"child {os.getpid()}", turn)
                asyncio.run(aput_and_get(saver, f"async child {os.getpid()}", turn))

        children = [in_child(child) for _ in range(3)]
        for turn in range(1, 30):
            put_and_get(saver, "parent", turn)
        for pid in children:
            assert_succeeds(pid)
        for turn in range(30, 40):
            put_and_get(saver, "parent", turn)
        assert len(list(saver.list({"configurable": {"thread_id": "parent"}}))) == 40
        for pid in children:
            assert len(list(saver.list({"configurable": {"thread_id": f"child {pid}"}}))) == 10


@needs_fork
def test_a_fork_while_other_threads_are_busy(dsn: str) -> None:
    """Whatever the parent's threads were doing at the fork, the child works and so do they."""
    with PostgresSaver.from_conn_string(dsn) as saver, ThreadPoolExecutor(4) as threads:
        ended = threading.Event()

        def busy(number: int) -> int:
            for turn in itertools.count():
                put_and_get(saver, f"busy {number}", turn)
                if ended.is_set():
                    return turn
            raise AssertionError

        jobs = [threads.submit(busy, number) for number in range(4)]
        for turn in range(15):
            pid = in_child(lambda turn=turn: put_and_get(saver, "child", turn))  # type: ignore[misc]
            assert_succeeds(pid)
        ended.set()
        assert all(job.result() > 0 for job in jobs)


@needs_fork
def test_a_fork_in_the_middle_of_a_change_of_what_is_known() -> None:
    """A lock that another thread of the parent held isn't held in the child."""
    memory, inside, leave = SessionCache(), threading.Event(), threading.Event()

    def slow() -> Iterator[tuple[bytes, int]]:
        inside.set()
        leave.wait(HANG_SECONDS)
        yield b"digest", 1

    session = uuid4()
    thread = threading.Thread(target=memory.learn, args=(session, 1, 1, slow()))
    thread.start()
    inside.wait(HANG_SECONDS)
    pid = in_child(lambda: memory.learn(session, 1, 2, [(b"other", 2)]))
    leave.set()
    thread.join()
    assert_succeeds(pid)
    known = memory.known(session)
    assert known is not None
    assert known.numbers == {b"digest": 1}


@needs_fork
def test_multiprocessing_with_fork(dsn: str) -> None:
    """The processes of a forking multiprocessing context use the saver they inherited."""
    with PostgresSaver.from_conn_string(dsn) as saver, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        put_and_get(saver, "parent", 0)
        context = multiprocessing.get_context("fork")
        workers = [
            context.Process(target=put_and_get, args=(saver, f"worker {n}", n)) for n in range(4)
        ]
        for worker in workers:
            worker.start()
        put_and_get(saver, "parent", 1)
        for worker in workers:
            worker.join(HANG_SECONDS)
        assert [worker.exitcode for worker in workers] == [0] * 4
        put_and_get(saver, "parent", 2)


@needs_fork
def test_a_child_that_closes_the_saver_leaves_the_parents_open(dsn: str) -> None:
    """close in the child ends the child's connections only."""
    with PostgresSaver.from_conn_string(dsn) as saver:
        put_and_get(saver, "t", 0)

        def child() -> None:
            put_and_get(saver, "u", 0)
            saver.close()
            with pytest.raises(ClosedError):
                saver.get_tuple(CONFIG)

        assert_succeeds(in_child(child))
        put_and_get(saver, "t", 1)
        until(lambda: connections(dsn) == 1)
