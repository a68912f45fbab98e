"""The saver while its server is stopped, killed, full, busy or set to odd defaults."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict

import asyncpg
import psutil  # type: ignore[import-untyped]
import pytest
from asyncpg.transaction import Transaction
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

from langgraph_pgsaga import Database, PostgresSaver
from langgraph_pgsaga.database import database
from langgraph_pgsaga.embedded import EmbeddedServer
from langgraph_pgsaga.errors import (
    CheckpointDeletedError,
    PoolTimeoutError,
    ReadOnlyServerError,
    ServerConnectionError,
    SessionExistsError,
    ThreadExistsError,
    UnstorableValueError,
)
from langgraph_pgsaga.sessions import Sessions
from tests._limits import HANG_SECONDS

pytestmark = pytest.mark.anyio

FULL = os.environ.get("PGSAGA_FULL") == "1"
OUTAGES = 10 if FULL else 1
RUNS = 20
NODES = 6
BACKENDS = (
    "select {} from pg_stat_activity where datname = current_database()"
    " and pid <> pg_backend_pid() and application_name = 'langgraph_pgsaga'"
)


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


class Chat(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    done: Annotated[list[int], lambda old, new: [*old, *new]]


def _graph(saver: PostgresSaver, on_step: Callable[[], None] = lambda: None) -> Any:
    """A chain of nodes; each appends its number and a message."""
    builder = StateGraph(Chat)
    for number in range(NODES):

        def node(state: Chat, number: int = number) -> dict[str, Any]:
            on_step()
            return {"done": [number], "messages": [AIMessage("x" * 3000, id=f"a{number}")]}

        builder.add_node(str(number), node)
        builder.add_edge(START if number == 0 else str(number - 1), str(number))
    builder.add_edge(str(NODES - 1), END)
    return builder.compile(checkpointer=saver)


QUESTION = {"messages": [HumanMessage("q", id="q")], "done": []}


def _config(thread: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}


_threads = itertools.count(1)


def _new_threads(count: int = RUNS) -> list[str]:
    return [f"thread {next(_threads)}" for _ in range(count)]


class Ledger:
    """Writes checkpoints and pending writes to threads, and remembers what was acknowledged."""

    def __init__(self, saver: PostgresSaver) -> None:
        self.saver = saver
        self.acknowledged: list[tuple[str, str, str | None]] = []
        self._numbers = itertools.count(1)

    async def chain(self, thread: str, ended: Callable[[], bool]) -> None:
        """Checkpoint after checkpoint, each with messages and a write, until it has ended.

        Where the last one was pruned, it goes on from the thread's latest.
        """
        config, version = _config(thread), None
        said: list[HumanMessage] = []
        while not ended():
            number, version = next(self._numbers), self.saver.get_next_version(version, None)
            said = [*said[-5:], HumanMessage(f"{number} of {id(self)}")]
            checkpoint = {
                **empty_checkpoint(),
                "v": 4,
                "channel_values": {"value": ["x" * 300, number], "messages": said},
                "channel_versions": {"value": version, "messages": version},
            }
            try:
                config = await self.saver.aput(
                    config,
                    checkpoint,  # type: ignore[arg-type]
                    {"step": number},
                    {"value": version, "messages": version},
                )
            except CheckpointDeletedError:
                latest = await self.saver.aget_tuple(_config(thread))
                assert latest is not None
                config = latest.config
                continue
            self._acknowledge(thread, config, None)
            await self.saver.aput_writes(config, [("value", number)], f"task {number}")
            self._acknowledge(thread, config, f"task {number}")

    def _acknowledge(self, thread: str, config: RunnableConfig, task: str | None) -> None:
        self.acknowledged.append((thread, config["configurable"]["checkpoint_id"], task))

    async def missing(self) -> list[tuple[str, str, str | None]]:
        """What was acknowledged and isn't there, looked up with another saver."""
        missing = []
        saver = PostgresSaver(self.saver.db)
        for thread, checkpoint_id, task in self.acknowledged:
            config = _config(thread)
            config["configurable"]["checkpoint_id"] = checkpoint_id
            found = await saver.aget_tuple(config)
            tasks = [w[0] for w in (found.pending_writes if found else None) or []]
            if found is None or (task is not None and task not in tasks):
                missing.append((thread, checkpoint_id, task))
        return missing


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while not await holds():
        assert time.monotonic() < deadline, "it didn't come true in time"
        await asyncio.sleep(0.01)


def _grown(
    items: Sized, by: int, ended: Callable[[], bool] = lambda: False
) -> Callable[[], Awaitable[bool]]:
    """Says whether there are `by` items more than now, or it has ended."""
    goal = len(items) + by

    async def has_grown() -> bool:
        return len(items) >= goal or ended()

    return has_grown


async def _all_finished(saver: PostgresSaver, threads: list[str]) -> None:
    """Each run is complete: no step is missing, none was done twice, and it can be listed."""
    graph = _graph(saver)
    for thread in threads:
        state = await graph.aget_state(_config(thread))
        assert state.next == ()
        assert state.values["done"] == list(range(NODES))
        assert [m.id for m in state.values["messages"]] == ["q", *(f"a{n}" for n in range(NODES))]
        history = [s async for s in graph.aget_state_history(_config(thread))]
        assert len(history) == NODES + 2


@asynccontextmanager
async def _admin(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    conn = await asyncpg.connect(dsn)
    try:
        yield conn
    finally:
        await conn.close()


async def _no_transaction_stays_open(saver: PostgresSaver) -> None:
    """Every connection of the pool is free again, and none holds a transaction."""
    conn = await saver.db.connect()
    try:
        busy = BACKENDS.format("count(*)") + " and state is distinct from 'idle'"

        async def all_idle() -> bool:
            return bool(await conn.fetchval(busy) == 0)

        await _until(all_idle)
    finally:
        await conn.close()
    pool = await saver.db._pool()
    async with asyncio.timeout(HANG_SECONDS):
        assert pool.pool is not None
        held = [await pool.acquire(HANG_SECONDS) for _ in range(pool.pool.get_max_size())]
        assert [await c.fetchval("select 1") for c in held] == [1] * len(held)
        for connection in held:
            await pool.release(connection)


# Backends that are terminated


async def test_terminated_backends_lose_nothing(dsn: str) -> None:
    """Runs finish, whole and without an error, though every backend is terminated repeatedly."""
    terminate = BACKENDS.format("count(pg_terminate_backend(pid))")
    async with _admin(dsn) as conn, PostgresSaver.from_conn_string(dsn) as saver:
        threads, ended, killed = _new_threads(), False, 0
        ledger = Ledger(saver)
        graph = _graph(saver)
        chains = [ledger.chain(thread, lambda: ended) for thread in _new_threads(5)]
        runs = [asyncio.ensure_future(graph.ainvoke(QUESTION, _config(t))) for t in threads]
        everything = asyncio.gather(*runs, *chains)
        while not (all(run.done() for run in runs) and killed > 5 * RUNS) and not everything.done():
            killed += await conn.fetchval(terminate)
            await _until(_grown(ledger.acknowledged, 5))
        ended = True
        await everything
        await _all_finished(saver, threads)
        assert len(ledger.acknowledged) > 10
        assert await ledger.missing() == []
        await _no_transaction_stays_open(saver)


def test_terminated_backends_lose_nothing_for_sync_callers(dsn: str) -> None:
    """The same for invoke from several threads."""
    terminate = BACKENDS.format("count(pg_terminate_backend(pid))")
    steps: list[None] = []

    async def terminate_until(ended: Callable[[], bool]) -> int:
        killed = 0
        async with _admin(dsn) as conn:
            while not ended():
                killed += await conn.fetchval(terminate)
                await _until(_grown(steps, 4, ended))
        return killed

    with PostgresSaver.from_conn_string(dsn) as saver, ThreadPoolExecutor(8) as pool:
        threads, graph = _new_threads(8), _graph(saver, lambda: steps.append(None))
        runs = [pool.submit(graph.invoke, QUESTION, _config(thread)) for thread in threads]
        killed = asyncio.run(terminate_until(lambda: all(run.done() for run in runs)))
        for run in runs:
            run.result()
        assert killed > 8
        saver.db.portal.call(_all_finished, saver, threads)


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
    threads, ended = _new_threads(), False
    on_step, gone = _once(at=RUNS * NODES // 3, action=getattr(server, way))
    ledger, graph = Ledger(saver), _graph(saver, on_step)
    runs = [asyncio.ensure_future(graph.ainvoke(QUESTION, _config(t))) for t in threads]
    chains = asyncio.gather(*(ledger.chain(t, lambda: ended) for t in _new_threads(5)))
    assert await asyncio.to_thread(gone.wait, HANG_SECONDS)
    await asyncio.to_thread(server.start)
    await asyncio.gather(*runs)
    await _until(_grown(ledger.acknowledged, 20))
    ended = True
    await chains
    await _all_finished(saver, threads)
    assert await ledger.missing() == []
    await _no_transaction_stays_open(saver)


def test_a_killed_server_loses_nothing_for_sync_callers(server: Server) -> None:
    """Sync runs in several threads outlive the server's death as well."""
    on_step, gone = _once(at=16, action=server.kill)
    with PostgresSaver.from_conn_string(server.dsn) as saver, ThreadPoolExecutor(8) as pool:
        threads, graph = _new_threads(8), _graph(saver, on_step)
        runs = [pool.submit(graph.invoke, QUESTION, _config(thread)) for thread in threads]
        assert gone.wait(HANG_SECONDS)
        server.start()
        for run in runs:
            run.result(HANG_SECONDS)
        saver.db.portal.call(_all_finished, saver, threads)


async def test_a_server_that_stays_away_is_an_error_until_it_is_back(server: Server) -> None:
    """Longer than retry_seconds: a ServerConnectionError; afterwards the same saver works."""
    async with PostgresSaver.from_conn_string(server.dsn, retry_seconds=0.5) as saver:
        [thread] = _new_threads(1)
        await _graph(saver).ainvoke(QUESTION, _config(thread))
        await asyncio.to_thread(server.stop)
        try:
            for _ in range(2):
                begun = time.monotonic()
                with pytest.raises(ServerConnectionError, match="can't reach") as caught:
                    await saver.aget_tuple(_config(thread))
                assert 0.15 < time.monotonic() - begun < 25
                assert "postgres" in caught.value.dsn
            with pytest.raises(ServerConnectionError):
                async with saver.db.transaction():
                    pytest.fail("there is no server")
        finally:
            await asyncio.to_thread(server.start)
        await _all_finished(saver, [thread])


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
                await saver.aget_tuple(_config("t"))
            assert not isinstance(caught.value, PoolTimeoutError)
            with pytest.raises(ServerConnectionError, match="no answer in time"):
                async with saver.db.transaction():
                    pytest.fail("there is no server")


# Transactions whose answer is lost


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
            busy.append(asyncio.ensure_future(connection.execute("select pg_sleep(0.7)")))
            await asyncio.sleep(0)
        connection.terminate()
        raise asyncpg.ConnectionDoesNotExistError("cut")

    busy: list[asyncio.Future[Any]] = []
    monkeypatch.setattr(Transaction, "commit", lose)
    yield commits
    for ended in busy:
        assert ended.exception()


async def test_a_copy_whose_answer_is_lost_is_made_once(dsn: str, cut: list[str]) -> None:
    """Whether or not it had been committed: the thread is copied, and nothing is raised."""
    async with PostgresSaver.from_conn_string(dsn) as saver:
        source, target = _new_threads(2)
        await _graph(saver).ainvoke(QUESTION, _config(source))
        cut.append("the next commit")
        await saver.acopy_thread(source, target)
        assert not cut
        await _all_finished(saver, [source, target])
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
    async with PostgresSaver.from_conn_string(dsn) as saver, _admin(dsn) as conn:
        source, target = _new_threads(2)
        await _graph(saver).ainvoke(QUESTION, _config(source))
        assert await conn.fetchval(BACKENDS.format("count(pg_terminate_backend(pid))"))
        await saver.acopy_thread(source, target)
        await _all_finished(saver, [target])


# Calls that are cancelled


async def test_cancelled_runs_poison_nothing(dsn: str) -> None:
    """However often runs and puts are cancelled, at whatever point, later calls work."""
    async with PostgresSaver.from_conn_string(dsn, max_size=5) as saver:
        graph, seed = _graph(saver), random.Random(0)
        await graph.ainvoke(QUESTION, _config("timing"))
        begun = time.monotonic()
        await graph.ainvoke(QUESTION, _config("timing too"))
        lasts = time.monotonic() - begun
        for turn in range(300 if FULL else 30):
            ledger = Ledger(saver)
            tasks = [
                asyncio.ensure_future(graph.ainvoke(QUESTION, _config(f"run {turn} {n}")))
                for n in range(3)
            ]
            chain = ledger.chain(f"chain {turn}", lambda: False)
            tasks.append(asyncio.ensure_future(chain))
            await asyncio.sleep(seed.uniform(0, lasts))
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            unexpected = [r for r in results if isinstance(r, Exception)]
            assert unexpected == []
            assert await ledger.missing() == []
        await _no_transaction_stays_open(saver)
        again = [f"run {turn} {n}" for turn in range(5) for n in range(3)]
        for thread in again:
            await saver.adelete_thread(thread)
        await asyncio.gather(*(graph.ainvoke(QUESTION, _config(t)) for t in again))
        await _all_finished(saver, again)


async def test_a_call_that_is_cancelled_twice_is_no_error_of_the_loop(dsn: str) -> None:
    """Where its rollback is cancelled in its turn, the connection serves others, silently."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with Database(dsn, max_size=1) as db, _admin(dsn) as watcher:
        for cancellations in (1, 2, 3):
            call = asyncio.ensure_future(db.run(lambda conn: conn.execute("select pg_sleep(60)")))
            async with asyncio.timeout(HANG_SECONDS):
                is_active = BACKENDS.format("count(*)") + " and state = 'active'"
                while not await watcher.fetchval(is_active):
                    await asyncio.sleep(0)
            for _ in range(cancellations):
                call.cancel()
                await asyncio.sleep(0)
            await asyncio.wait([call])
            assert call.cancelled()
        assert await db.run(lambda conn: conn.fetchval("select 1")) == 1
    assert told == []


async def test_a_cancelled_wait_for_a_lock_ends_on_the_server_too(dsn: str) -> None:
    """A put that is cancelled while it waits for a lock leaves nobody waiting in the server."""
    waiting = BACKENDS.format("count(*)") + " and wait_event_type = 'Lock'"
    async with (
        PostgresSaver.from_conn_string(dsn, max_size=2) as saver,
        _admin(dsn) as watcher,
        _admin(dsn) as locker,
    ):
        await _graph(saver).ainvoke(QUESTION, _config("t"))

        async def waits() -> bool:
            return bool(await watcher.fetchval(waiting) == 1)

        async def nobody_waits() -> bool:
            return not await waits()

        for _ in range(5):
            async with locker.transaction():
                await locker.execute("select * from agent_sessions for update")
                put = asyncio.ensure_future(Ledger(saver).chain("t", lambda: False))
                await _until(waits)
                put.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await put
                # While the lock is still held.
                await _until(nobody_waits)
        await _no_transaction_stays_open(saver)


# Calls that fail


async def test_a_put_that_fails_leaves_the_others_untouched(dsn: str) -> None:
    """An unstorable value is refused alone; puts at the same time are stored."""
    async with PostgresSaver.from_conn_string(dsn) as saver:
        ledger, good, bad = Ledger(saver), _new_threads(10), _new_threads(10)

        async def refused(thread: str) -> None:
            checkpoint = empty_checkpoint()
            checkpoint["channel_values"] = {"value": lambda: None}
            checkpoint["channel_versions"] = {"value": "1"}
            for _ in range(10):
                with pytest.raises(UnstorableValueError, match="channel 'value'"):
                    await saver.aput(_config(thread), checkpoint, {}, {"value": "1"})
                config = _config(thread)
                config["configurable"]["checkpoint_id"] = "1"
                with pytest.raises(UnstorableValueError, match="channel 'value'"):
                    await saver.aput_writes(config, [("value", lambda: None)], "t")

        async def good_chain(thread: str) -> None:
            turns = iter(range(10))
            await ledger.chain(thread, lambda: next(turns, None) is None)

        await asyncio.gather(*map(refused, bad), *map(good_chain, good))
        assert len(ledger.acknowledged) == 10 * 10 * 2
        assert await ledger.missing() == []
        assert [await saver.aget_tuple(_config(t)) for t in bad] == [None] * len(bad)
        await _no_transaction_stays_open(saver)


async def _puts_and_prunes(saver: PostgresSaver) -> None:
    """Two chains of puts and a prune of one thread, at once, until 60 checkpoints are put."""
    [thread] = _new_threads(1)
    ledger = Ledger(saver)

    def ended() -> bool:
        return len(ledger.acknowledged) >= 120

    async def prune() -> None:
        while not ended():
            await saver.aprune([thread])

    await asyncio.gather(ledger.chain(thread, ended), ledger.chain(thread, ended), prune())
    *_, last = (c for _, c, task in ledger.acknowledged if task is None)
    latest = await saver.aget_tuple(_config(thread))
    assert latest is not None
    assert latest.checkpoint["id"] == last
    await saver.aprune([thread])
    kept = [found async for found in saver.alist(_config(thread))]
    assert [found.checkpoint["id"] for found in kept] == [last]


async def test_puts_and_prunes_of_one_thread_get_along(dsn: str) -> None:
    """Of puts and prunes of one thread at once only those raise whose parent was pruned, and the
    latest checkpoint is never lost."""
    async with PostgresSaver.from_conn_string(dsn) as saver:
        await _puts_and_prunes(saver)


@pytest.mark.parametrize("level", ["serializable", "repeatable read"])
async def test_a_stricter_default_isolation_works(dsn: str, level: str) -> None:
    """Where the database's default isolation asks for repeats, the calls are repeated."""
    async with _admin(dsn) as conn:
        name = await conn.fetchval("select current_database()")
        await conn.execute(f"alter database {name} set default_transaction_isolation = '{level}'")
    async with PostgresSaver.from_conn_string(dsn) as saver:
        await _puts_and_prunes(saver)
        threads = _new_threads()
        graph = _graph(saver)
        await asyncio.gather(*(graph.ainvoke(QUESTION, _config(t)) for t in threads))
        await _all_finished(saver, threads)


async def test_a_read_only_database_is_a_clear_error(dsn: str) -> None:
    """It reads; a write is a ReadOnlyServerError, which says what to do."""
    async with PostgresSaver.from_conn_string(dsn) as saver:
        await _graph(saver).ainvoke(QUESTION, _config("t"))
    async with _admin(dsn) as conn:
        name = await conn.fetchval("select current_database()")
        await conn.execute(f"alter database {name} set default_transaction_read_only = on")
    async with PostgresSaver.from_conn_string(dsn, retry_seconds=0.2) as saver:
        await _all_finished(saver, ["t"])
        with pytest.raises(ReadOnlyServerError, match="Point the DSN at the primary") as caught:
            await saver.aput_writes(
                {"configurable": {"thread_id": "t", "checkpoint_id": "1"}}, [("a", 1)], "task"
            )
        assert caught.value.sqlstate == "25006"


async def test_calls_that_wait_say_so(
    dsn: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line in the log now and then, for however many calls wait for a server."""
    monkeypatch.setattr(database, "_TOLD_EVERY_SECONDS", 1000.0)
    async with _admin(dsn) as conn, PostgresSaver.from_conn_string(dsn) as saver:
        name = await conn.fetchval("select current_database()")
        await conn.execute(f"alter database {name} set default_transaction_read_only = on")
        ids = [{"thread_id": f"t{number}", "checkpoint_id": "1"} for number in range(8)]
        waiting = asyncio.gather(
            *(saver.aput_writes({"configurable": one}, [("a", 1)], "task") for one in ids)
        )
        refused = "select xact_rollback from pg_stat_database where datname = current_database()"

        async def was_refused() -> bool:
            return bool(await conn.fetchval(refused) >= 15)

        await _until(was_refused)
        (told,) = [record.getMessage() for record in caplog.records]
        assert told.startswith("calls are repeated, for up to 30 s: cannot execute ")
        await conn.execute("set transaction_read_only = off")
        await conn.execute(f"alter database {name} reset default_transaction_read_only")
        await waiting


async def test_a_failover_is_waited_for(dsn: str) -> None:
    """A write refused by a server that takes none, as a standby, succeeds once it does."""
    async with _admin(dsn) as conn, PostgresSaver.from_conn_string(dsn) as saver:
        name = await conn.fetchval("select current_database()")
        await conn.execute(f"alter database {name} set default_transaction_read_only = on")
        run = asyncio.ensure_future(_graph(saver).ainvoke(QUESTION, _config("t")))
        refused = "select xact_rollback from pg_stat_database where datname = current_database()"

        async def was_refused() -> bool:
            return bool(await conn.fetchval(refused) >= 2)

        await _until(was_refused)
        await conn.execute("set transaction_read_only = off")
        await conn.execute(f"alter database {name} reset default_transaction_read_only")
        await run
        await _all_finished(saver, ["t"])


# A pool with too few connections


async def test_one_connection_serves_many_calls(dsn: str) -> None:
    """With max_size=1, fifty runs at once wait for their turn."""
    async with PostgresSaver.from_conn_string(dsn, max_size=1) as saver, _admin(dsn) as conn:
        threads, graph = _new_threads(50), _graph(saver)
        runs = asyncio.gather(*(graph.ainvoke(QUESTION, _config(t)) for t in threads))
        most = 0
        while not runs.done():
            most = max(most, await conn.fetchval(BACKENDS.format("count(*)")))
        await runs
        assert most == 1
        await _all_finished(saver, threads[:3])


async def test_a_pool_that_stays_full_is_a_clear_error(dsn: str) -> None:
    """A call that gets no connection raises PoolTimeoutError, and works when one is free."""
    options: dict[str, Any] = {"max_size": 2, "acquire_timeout_seconds": 0.2}
    async with PostgresSaver.from_conn_string(dsn, **options) as saver:
        async with saver.db.transaction(), saver.db.transaction():
            with pytest.raises(PoolTimeoutError, match=r"all 2 were busy for 0\.2 s"):
                await saver.aget_tuple(_config("t"))
            with pytest.raises(PoolTimeoutError):
                async with saver.db.transaction():
                    pytest.fail("there were only two")
        assert await saver.aget_tuple(_config("t")) is None


async def test_errors_of_the_callers_own_work_pass_unchanged(dsn: str) -> None:
    """What isn't the driver's or the network's fault is neither translated nor repeated."""
    async with Database(dsn) as db:
        tries = 0

        async def work(conn: Any) -> None:
            nonlocal tries
            tries += 1
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            await db.run(work)
        with pytest.raises(KeyError, match="mine"):
            async with db.transaction() as conn:
                await work(conn)
        assert tries == 2
