"""The saver while its server is stopped, killed, full, or away in the middle of a transaction."""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import psutil  # type: ignore[import-untyped]
import pytest
from asyncpg.transaction import Transaction

from langgraph_pgsaga import Database, PostgresSaver
from langgraph_pgsaga.database import database
from langgraph_pgsaga.embedded import EmbeddedServer
from langgraph_pgsaga.errors import (
    PoolTimeoutError,
    ServerConnectionError,
    SessionExistsError,
    ThreadExistsError,
)
from langgraph_pgsaga.sessions import Sessions
from tests._connections import connected
from tests._limits import HANG_SECONDS
from tests.db._outages import (
    BACKENDS,
    FULL,
    NODES,
    QUESTION,
    RUNS,
    Ledger,
    all_finished,
    chat_graph,
    comes_true,
    config_of,
    new_threads,
    no_transaction_stays_open,
)

pytestmark = pytest.mark.anyio
OUTAGES = 10 if FULL else 1


class Server:
    """An embedded server whose postmaster the tests may kill and start again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hold = EmbeddedServer.start(path)
        self.dsn = self.hold.dsn

    def stop(self) -> None:
        """The immediate mode of pg_ctl: no checkpoint, no word to the clients but goodbye."""
        postmaster = self._postmaster()
        postmaster.send_signal(signal.SIGQUIT)
        _gone([postmaster])

    def kill(self) -> None:
        """SIGKILL to the postmaster and every child, as when the machine loses power."""
        postmaster = self._postmaster()
        postmaster.suspend()  # or it would start new children meanwhile
        processes = [*postmaster.children(recursive=True), postmaster]
        for process in processes:
            process.kill()
        _gone(processes)

    def start(self) -> None:
        again = EmbeddedServer.start(self.path)
        assert again.dsn == self.dsn
        self.hold.stop()
        self.hold = again

    def _postmaster(self) -> psutil.Process:
        pid_file = self.path / "data" / "postmaster.pid"
        return psutil.Process(int(pid_file.read_text().split()[0]))


def _gone(processes: list[psutil.Process]) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while any(_runs(process) for process in processes):
        assert time.monotonic() < deadline, "the server didn't end"
        time.sleep(0.01)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def server(public_tmp: Path) -> Iterator[Server]:
    server = Server(public_tmp / "recovery")
    with PostgresSaver.from_conn_string(server.dsn) as saver:
        saver.setup()
    yield server
    server.hold.stop()


def _grown(
    items: Sized, by: int, ended: Callable[[], bool] = lambda: False
) -> Callable[[], Awaitable[bool]]:
    """Says whether there are `by` items more than now, or it has ended."""
    goal = len(items) + by

    async def has_grown() -> bool:
        return len(items) >= goal or ended()

    return has_grown


def _each_went_on(ledger: Ledger, threads: list[str]) -> Callable[[], Awaitable[bool]]:
    """Says whether something of each thread was acknowledged from now on."""
    begin = len(ledger.acknowledged)

    async def has_gone_on() -> bool:
        return {thread for thread, _, _ in ledger.acknowledged[begin:]} >= set(threads)

    return has_gone_on


async def test_terminated_backends_lose_nothing(dsn: str) -> None:
    """Runs finish, whole and without an error, though every backend is terminated repeatedly."""
    terminate = BACKENDS.format("count(pg_terminate_backend(pid))")
    async with connected(dsn) as conn, PostgresSaver.from_conn_string(dsn) as saver:
        threads, ended, killed = new_threads(), False, 0
        ledger = Ledger(saver)
        graph = chat_graph(saver)
        chained = new_threads(5)
        chains = [ledger.chain(thread, lambda: ended) for thread in chained]
        runs = [asyncio.ensure_future(graph.ainvoke(QUESTION, config_of(t))) for t in threads]
        everything = asyncio.gather(*runs, *chains)
        while not (all(run.done() for run in runs) and killed > 5 * RUNS) and not everything.done():
            killed += await conn.fetchval(terminate)
            # Where a statement takes longer, so that none of them is terminated for ever.
            await comes_true(_each_went_on(ledger, chained))
        ended = True
        await everything
        await all_finished(saver, threads)
        assert len(ledger.acknowledged) > 10
        assert await ledger.missing() == []
        await no_transaction_stays_open(saver)


def test_terminated_backends_lose_nothing_for_sync_callers(dsn: str) -> None:
    """The same for invoke from several threads."""
    terminate = BACKENDS.format("count(pg_terminate_backend(pid))")
    steps: list[None] = []

    async def terminate_until(ended: Callable[[], bool]) -> int:
        killed = 0
        async with connected(dsn) as conn:
            while not ended():
                killed += await conn.fetchval(terminate)
                await comes_true(_grown(steps, 4, ended))
        return killed

    # The steps, and so the terminations, are limited; on a slow server one statement may meet all.
    options: dict[str, Any] = {"retry_seconds": HANG_SECONDS}
    with PostgresSaver.from_conn_string(dsn, **options) as saver, ThreadPoolExecutor(8) as pool:
        threads, graph = new_threads(8), chat_graph(saver, lambda: steps.append(None))
        runs = [pool.submit(graph.invoke, QUESTION, config_of(thread)) for thread in threads]
        killed = asyncio.run(terminate_until(lambda: all(run.done() for run in runs)))
        for run in runs:
            run.result()
        assert killed > 8
        saver.db.portal.call(all_finished, saver, threads)


# A server that goes away and comes back


@pytest.mark.parametrize("way", ["stop", "kill"])
async def test_a_restarted_server_loses_nothing(server: Server, way: str) -> None:
    """A server stopped at once, or killed, in the middle of runs: they finish, and what was
    acknowledged is there, for the same saver in the same process."""
    async with PostgresSaver.from_conn_string(server.dsn) as saver:
        for _ in range(OUTAGES):
            await _run_across_an_outage(server, saver, way)


def _once(*, at: int, action: Callable[[], None]) -> tuple[Callable[[], None], threading.Event]:
    """What nodes call: one of them acts, in the middle of its own run, and then sets the event."""
    steps, done = itertools.count(), threading.Event()

    def on_step() -> None:
        if next(steps) == at:
            action()
            done.set()

    return on_step, done


async def _run_across_an_outage(server: Server, saver: PostgresSaver, way: str) -> None:
    threads, ended = new_threads(), False
    on_step, gone = _once(at=RUNS * NODES // 3, action=getattr(server, way))
    ledger, graph = Ledger(saver), chat_graph(saver, on_step)
    runs = [asyncio.ensure_future(graph.ainvoke(QUESTION, config_of(t))) for t in threads]
    chains = asyncio.gather(*(ledger.chain(t, lambda: ended) for t in new_threads(5)))
    assert await asyncio.to_thread(gone.wait, HANG_SECONDS)
    await asyncio.to_thread(server.start)
    await asyncio.gather(*runs)
    await comes_true(_grown(ledger.acknowledged, 20))
    ended = True
    await chains
    await all_finished(saver, threads)
    assert await ledger.missing() == []
    await no_transaction_stays_open(saver)


def test_a_killed_server_loses_nothing_for_sync_callers(server: Server) -> None:
    """Sync runs in several threads outlive the server's death as well."""
    on_step, gone = _once(at=16, action=server.kill)
    with PostgresSaver.from_conn_string(server.dsn) as saver, ThreadPoolExecutor(8) as pool:
        threads, graph = new_threads(8), chat_graph(saver, on_step)
        runs = [pool.submit(graph.invoke, QUESTION, config_of(thread)) for thread in threads]
        assert gone.wait(HANG_SECONDS)
        server.start()
        for run in runs:
            run.result(HANG_SECONDS)
        saver.db.portal.call(all_finished, saver, threads)


async def test_a_server_that_stays_away_is_an_error_until_it_is_back(server: Server) -> None:
    """Longer than retry_seconds: a ServerConnectionError; afterwards the same saver works."""
    async with PostgresSaver.from_conn_string(server.dsn, retry_seconds=0.5) as saver:
        [thread] = new_threads(1)
        await chat_graph(saver).ainvoke(QUESTION, config_of(thread))
        await asyncio.to_thread(server.stop)
        try:
            for _ in range(2):
                begun = time.monotonic()
                with pytest.raises(ServerConnectionError, match="can't reach") as caught:
                    await saver.aget_tuple(config_of(thread))
                assert 0.15 < time.monotonic() - begun < 25
                assert "postgres" in caught.value.dsn
            with pytest.raises(ServerConnectionError):
                async with saver.db.transaction():
                    pytest.fail("there is no server")
        finally:
            await asyncio.to_thread(server.start)
        await all_finished(saver, [thread])


async def test_the_retry_time_counts_from_the_failure(server: Server) -> None:
    """A call that waited long for a connection is repeated as any other."""
    options: dict[str, Any] = {"max_size": 1, "retry_seconds": 0.3}
    async with Database(server.dsn, **options) as db:
        tries = 0

        async def work(conn: Any) -> int:
            nonlocal tries
            tries += 1
            if tries == 1:
                await conn.fetchval("select pg_sleep(0.5)")
                await conn.fetchval("select pg_terminate_backend(pg_backend_pid())")
            result: int = await conn.fetchval("select 1")
            return result

        assert await db.run(work) == 1
        assert tries == 2


async def test_a_server_that_never_answers_is_no_full_pool(dsn: str) -> None:
    """Connecting that takes too long is a ServerConnectionError about the server."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        url = f"postgresql://postgres@127.0.0.1:{silent.getsockname()[1]}/postgres?sslmode=disable"
        options: dict[str, Any] = {"connect_timeout_seconds": 0.2, "acquire_timeout_seconds": 5}
        async with PostgresSaver.from_conn_string(url, **options) as saver:
            with pytest.raises(ServerConnectionError, match="no answer in time") as caught:
                await saver.aget_tuple(config_of("t"))
            assert not isinstance(caught.value, PoolTimeoutError)
            with pytest.raises(ServerConnectionError, match="no answer in time"):
                async with saver.db.transaction():
                    pytest.fail("there is no server")


# Transactions whose answer is lost

_BUSY = "select pg_sleep(60)"


@pytest.fixture(params=["not committed", "committed", "still going on"])
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Where the list has something in it, the next commit loses its connection, and empties it."""
    commits: list[str] = []
    end = Transaction.commit

    async def lose(self: Any) -> Any:
        if not commits:
            return await end(self)
        commits.clear()
        connection = self._connection
        if request.param == "committed":
            await end(self)
        elif request.param == "still going on":
            # The server doesn't notice that its client is gone while it is at something.
            busy.append(asyncio.ensure_future(connection.execute(_BUSY)))
            await asyncio.sleep(0)
        connection.terminate()
        raise asyncpg.ConnectionDoesNotExistError("cut")

    async def asked(connection: Any, transaction: str) -> bool:
        try:
            return await is_committed(connection, transaction)
        except ConnectionResetError:  # it goes on still: not for longer
            ended = "select pg_cancel_backend(pid) from pg_stat_activity where query = $1"
            await connection.fetch(f"{ended} and datname = current_database()", _BUSY)
            raise

    busy: list[asyncio.Future[Any]] = []
    is_committed = database._is_committed
    monkeypatch.setattr(database, "_is_committed", asked)
    monkeypatch.setattr(Transaction, "commit", lose)
    yield commits
    for ended in busy:
        assert ended.exception()


async def test_a_copy_whose_answer_is_lost_is_made_once(dsn: str, cut: list[str]) -> None:
    """Whether or not it had been committed: the thread is copied, and nothing is raised."""
    async with PostgresSaver.from_conn_string(dsn) as saver:
        source, target = new_threads(2)
        await chat_graph(saver).ainvoke(QUESTION, config_of(source))
        cut.append("the next commit")
        await saver.acopy_thread(source, target)
        assert not cut
        await all_finished(saver, [source, target])
        with pytest.raises(ThreadExistsError):
            await saver.acopy_thread(source, target)


async def test_a_session_whose_answer_is_lost_is_created_once(dsn: str, cut: list[str]) -> None:
    """The same for a session: it isn't taken for somebody else's."""
    async with Database(dsn) as db:
        sessions = Sessions(db)
        await sessions.get("t")
        cut.append("the next commit")
        made = await sessions.create("t", user_id="ann")
        assert not cut
        assert (made.thread_id, made.user_id) == ("t", "ann")
        with pytest.raises(SessionExistsError):
            await sessions.create("t")


async def test_a_copy_survives_terminated_backends(dsn: str) -> None:
    """A connection that was lost while it was idle is replaced for a copy as for any call."""
    async with PostgresSaver.from_conn_string(dsn) as saver, connected(dsn) as conn:
        source, target = new_threads(2)
        await chat_graph(saver).ainvoke(QUESTION, config_of(source))
        assert await conn.fetchval(BACKENDS.format("count(pg_terminate_backend(pid))"))
        await saver.acopy_thread(source, target)
        await all_finished(saver, [target])
