"""The saver behind pgbouncer in transaction mode."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any, TypedDict
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt

from langgraph_pgsaga import Database, PostgresSaver
from langgraph_pgsaga.database import Connection, Statement, migration_status
from langgraph_pgsaga.doctor import CheckStatus, diagnose
from langgraph_pgsaga.errors import (
    LockTimeoutError,
    ServerError,
    StatementTimeoutError,
    ThreadExistsError,
)
from tests._limits import HANG_SECONDS
from tests._require import require_tool
from tests.db.test_limits import aput, session_held, stored_values
from tests.db.test_queue import threads_of_one_lane

pytestmark = pytest.mark.anyio

SERVER_CONNECTIONS = 2
LARGE = "x" * 100_000
STATEMENT_NAMES = Path(__file__).parent / "_statement_names.py"
MakePooled = Callable[..., str]


class Chat(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


@pytest.fixture
def pooled(public_tmp: Path) -> Iterator[MakePooled]:
    """Starts pgbouncers; each call gives the DSN of one that leads to the given database."""
    started: list[subprocess.Popen[bytes]] = []

    def start(dsn: str, *settings: str) -> str:
        port = _free_port()
        config = _write_config(public_tmp / f"pgbouncer-{port}", dsn, port, *settings)
        process = subprocess.Popen(_command(config, dsn), stderr=subprocess.DEVNULL)
        started.append(process)
        _wait_for_port(port, process)
        return f"postgresql://pooled@127.0.0.1:{port}/pooled?sslmode=disable"

    yield start
    for process in started:
        process.kill()
        process.wait()


def _write_config(folder: Path, dsn: str, port: int, *settings: str) -> Path:
    folder.mkdir()
    (folder / "users.txt").write_text('"pooled" ""\n')
    config = folder / "pgbouncer.ini"
    lines = [
        "[databases]",
        f"pooled = {_target(dsn)} pool_size={SERVER_CONNECTIONS}",
        "[pgbouncer]",
        "listen_addr = 127.0.0.1",
        f"listen_port = {port}",
        "unix_socket_dir =",
        "auth_type = any",
        f"auth_file = {folder / 'users.txt'}",
        "pool_mode = transaction",
        "max_client_conn = 500",
        *settings,
        *(["max_prepared_statements = 0"] if _version() >= (1, 21) else []),
    ]
    config.write_text("\n".join(lines) + "\n")
    return config


def _target(dsn: str) -> str:
    """The server in pgbouncer's words."""
    url = urlsplit(dsn)
    options = parse_qs(url.query)
    target = {
        "host": url.hostname or options["host"][0],
        "port": str(url.port or options.get("port", ["5432"])[0]),
        "dbname": unquote(url.path[1:]),
        "user": unquote(url.username or "postgres"),
        **({"password": unquote(url.password)} if url.password else {}),
    }
    return " ".join(f"{key}='{value}'" for key, value in target.items())


def _command(config: Path, dsn: str) -> list[str]:
    """As root it has to become another user: the one who may use the server's socket."""
    command = [require_tool("pgbouncer"), "-q", str(config)]
    if os.geteuid() != 0:
        return command
    socket_folder = parse_qs(urlsplit(dsn).query).get("host", [""])[0]
    user = Path(socket_folder).owner() if socket_folder.startswith("/") else "nobody"
    return [*command, "-u", user]


def _version() -> tuple[int, ...]:
    said = subprocess.run(
        [require_tool("pgbouncer"), "--version"], capture_output=True, text=True, check=True
    )
    match = re.search(r"(\d+)\.(\d+)", said.stdout)
    assert match
    return int(match[1]), int(match[2])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while True:
        assert process.poll() is None, "pgbouncer ended"
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, "pgbouncer doesn't listen"
        time.sleep(0.02)


def _config(thread: str, checkpoint_id: str | None = None) -> RunnableConfig:
    chosen = {} if checkpoint_id is None else {"checkpoint_id": checkpoint_id}
    return {"configurable": {"thread_id": thread, "checkpoint_ns": "", **chosen}}


async def _put(saver: PostgresSaver, thread: str, turn: int, run_id: str = "") -> RunnableConfig:
    said = [HumanMessage(f"{thread} {n}", id=str(n)) for n in range(turn + 1)]
    values = {"messages": said, "large": LARGE + str(turn % 2), "turn": turn}
    versions: dict[str, str | int | float] = dict.fromkeys(
        values, f"{turn:08}.{os.urandom(4).hex()}"
    )
    checkpoint = {
        **empty_checkpoint(),
        "v": 4,
        "channel_values": values,
        "channel_versions": versions,
    }
    metadata = {"source": "loop", "step": turn, "parents": {}, "run_id": run_id}
    return await saver.aput(_config(thread), checkpoint, metadata, versions)  # type: ignore[arg-type]


async def _assert_latest(
    saver: PostgresSaver, thread: str, turn: int, *, copied_from: str | None = None
) -> None:
    found = await saver.aget_tuple(_config(thread))
    assert found
    values = found.checkpoint["channel_values"]
    said = [f"{copied_from or thread} {n}" for n in range(turn + 1)]
    assert [m.content for m in values["messages"]] == said
    assert (values["large"], values["turn"]) == (LARGE + str(turn % 2), turn)


async def _fetchval(dsn: str, query: str) -> Any:
    conn = await asyncpg.connect(dsn)
    try:
        return await conn.fetchval(query)
    finally:
        await conn.close()


async def test_migrations_run_through_the_pooler(empty_dsn: str, pooled: MakePooled) -> None:
    """Ten setups at once through the pooler make the tables, into a schema of one's own too."""
    dsn = pooled(empty_dsn)
    for schema in (None, "my schema"):
        async with AsyncExitStack() as stack:
            opened = [Database(dsn, pooler=True, schema=schema) for _ in range(10)]
            dbs = [await stack.enter_async_context(db) for db in opened]
            await asyncio.gather(*(PostgresSaver(db).asetup() for db in dbs))
            assert all(s.applied_at for s in await migration_status(dbs[0]))
            await _put(PostgresSaver(dbs[0]), "t", 1)
            await _assert_latest(PostgresSaver(dbs[1]), "t", 1)


async def test_every_call_works_through_the_pooler(dsn: str, pooled: MakePooled) -> None:
    """Each method of the saver does what it does on a direct connection."""
    async with PostgresSaver.from_conn_string(pooled(dsn), pooler=True) as saver:
        configs = [await _put(saver, "a", turn, run_id=f"run {turn}") for turn in range(3)]
        await saver.aput_writes(configs[2], [("small", 1), ("large", LARGE)], "task")
        found = await saver.aget_tuple(_config("a"))
        assert found
        assert found.pending_writes == [("task", "small", 1), ("task", "large", LARGE)]
        await saver.acopy_thread("a", "b")
        with pytest.raises(ThreadExistsError):
            await saver.acopy_thread("a", "b")
        await saver.aprune(["a"])
        assert len([c async for c in saver.alist(_config("a"))]) == 1
        await saver.adelete_for_runs(["run 2"])
        assert [c.metadata["step"] async for c in saver.alist(_config("b"))] == [1, 0]
        await _assert_latest(saver, "b", 1, copied_from="a")
        latest = await saver.aget_tuple(_config("b"))
        assert latest
        history = await saver.aget_delta_channel_history(config=latest.config, channels=["turn"])
        assert "turn" in history
        await saver.adelete_thread("b")
        assert [c async for c in saver.alist(None)] == []


async def test_many_clients_share_few_server_connections(dsn: str, pooled: MakePooled) -> None:
    """Fifty client connections write and read at once over two of the server's, unmixed."""
    url = pooled(dsn)
    async with AsyncExitStack() as stack:
        opened = [PostgresSaver.from_conn_string(url, pooler=True, max_size=5) for _ in range(10)]
        savers = [await stack.enter_async_context(saver) for saver in opened]

        async def chat(number: int) -> None:
            saver, thread = savers[number % len(savers)], f"thread {number}"
            for turn in range(4):
                config = await _put(saver, thread, turn)
                await saver.aput_writes(config, [("w", f"{thread} {turn}"), ("l", LARGE)], "task")
                await _assert_latest(saver, thread, turn)
                found = await savers[(number + 1) % len(savers)].aget_tuple(config)
                assert found
                written = [w[2] for w in found.pending_writes or []]
                assert written == [f"{thread} {turn}", LARGE]

        async with asyncio.timeout(HANG_SECONDS):
            await asyncio.gather(*map(chat, range(50)))
        pools = [(await saver.db._pool()).pool for saver in savers]
        assert sum(pool.get_size() for pool in pools if pool) > SERVER_CONNECTIONS
    count = "select count(*) from pg_stat_activity where datname = current_database()"
    assert await _fetchval(dsn, f"{count} and pid <> pg_backend_pid()") == SERVER_CONNECTIONS


def test_graphs_run_through_the_pooler(dsn: str, pooled: MakePooled) -> None:
    """Sync runs in several threads and async ones stop at an interrupt and resume."""

    def ask(state: Chat) -> dict[str, Any]:
        return {"messages": [AIMessage(interrupt("sure?"))]}

    builder = StateGraph(Chat)
    builder.add_node("ask", ask)
    builder.add_node("end", lambda state: {"messages": [AIMessage("done")]})
    builder.add_edge(START, "ask")
    builder.add_edge("ask", "end")
    builder.add_edge("end", END)
    with PostgresSaver.from_conn_string(pooled(dsn), pooler=True) as saver:
        graph = builder.compile(checkpointer=saver)

        def run(number: int) -> list[str]:
            config = _config(f"sync {number}")
            stopped = graph.invoke({"messages": [HumanMessage("go")]}, config)
            assert stopped["__interrupt__"][0].value == "sure?"
            return [m.content for m in graph.invoke(Command(resume="yes"), config)["messages"]]

        async def arun(number: int) -> list[str]:
            config = _config(f"async {number}")
            await graph.ainvoke({"messages": [HumanMessage("go")]}, config)
            answer = await graph.ainvoke(Command(resume="yes"), config)
            return [m.content for m in answer["messages"]]

        async def all_async() -> list[list[str]]:
            return await asyncio.gather(*map(arun, range(8)))

        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(run, range(8)))
        assert [*answers, *asyncio.run(all_async())] == [["go", "yes", "done"]] * 16


@pytest.mark.parametrize("ignored", ["", "plan_cache_mode, enable_seqscan, jit"])
async def test_forgetting_the_option_is_a_clear_error(
    dsn: str, pooled: MakePooled, ignored: str
) -> None:
    """Without pooler=True calls fail with a ServerError that names it; none mixes data up.

    So does connecting, unless pgbouncer is told to ignore settings it doesn't know.
    """
    url = pooled(dsn, f"ignore_startup_parameters = {ignored}")
    problems: list[str] = []
    async with AsyncExitStack() as stack:
        opened = [PostgresSaver.from_conn_string(url, max_size=5) for _ in range(4)]
        savers = [await stack.enter_async_context(saver) for saver in opened]

        async def chat(number: int) -> None:
            saver, thread = savers[number % len(savers)], f"thread {number}"
            for turn in range(4):
                try:
                    await _put(saver, thread, turn)
                    await _assert_latest(saver, thread, turn)
                except ServerError as error:
                    problems.append(str(error))

        await asyncio.gather(*map(chat, range(20)))
    assert problems
    assert all("pass pooler=True" in problem for problem in problems)


async def test_what_the_pooler_refuses_is_told(dsn: str, pooled: MakePooled) -> None:
    """Where it refuses a statement and hangs up, the error says what it said."""
    url = pooled(dsn, "pool_mode = statement")
    async with Database(url, pooler=True, retry_seconds=0) as database:

        async def ask(conn: Connection) -> int:
            return int(await conn.fetchval("select 1"))

        with pytest.raises(ServerError, match=r"not allowed.*statement mode is too little"):
            await database.run(ask)


def test_no_two_processes_name_statements_alike(dsn: str) -> None:
    """So that behind a pooler a statement's name is never another process's statement."""
    said = [
        subprocess.run(
            [sys.executable, STATEMENT_NAMES, dsn], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert all(len(names) >= 2 for names in said)
    assert not set(said[0]) & set(said[1])


async def test_a_diagnosis_sees_the_pooler(dsn: str, pooled: MakePooled) -> None:
    """Through a pooler it warns and names the option; without one it says so."""
    for target, expected in ((pooled(dsn), CheckStatus.WARN), (dsn, CheckStatus.OK)):
        async with Database(target, pooler=True) as database:
            checks = {check.name: check for check in (await diagnose(database)).checks}
        assert checks["pooler"].status is expected
        assert ("pooler=True" in checks["pooler"].advice) == (expected is CheckStatus.WARN)


_SLEEP = Statement(
    name="sleep", text="select pg_sleep(60)", params=(), columns=(), shard="all, of a test"
)
_ONE = Statement(name="one", text="select 1 as one", params=(), columns=(), shard="all, of a test")


async def test_a_statement_that_takes_too_long_is_cancelled_by_the_client(
    dsn: str, pooled: MakePooled
) -> None:
    """It ends on the server, too, and the connection goes on."""
    options: Any = {"pooler": True, "statement_timeout_seconds": 0.3, "max_size": 1}
    async with Database(pooled(dsn), **options) as db:
        with pytest.raises(StatementTimeoutError, match="was cancelled") as caught:
            await db.fetch(_SLEEP)
        assert caught.value.sqlstate is None
        own = await asyncpg.connect(dsn)
        busy = "select count(*) from pg_stat_activity where query ~ 'pg_sleep' and state = 'active'"
        async with asyncio.timeout(HANG_SECONDS):
            while await own.fetchval(f"{busy} and pid <> pg_backend_pid()"):
                await asyncio.sleep(0.01)
        await own.close()
        assert [row["one"] for row in await db.fetch(_ONE)] == [1]


async def test_a_held_session_stops_only_its_own_calls(dsn: str, pooled: MakePooled) -> None:
    """What the client cancelled is looked at one by one: the others are stored."""
    held, *others = threads_of_one_lane(3)
    options: Any = {"pooler": True, "statement_timeout_seconds": 0.5}
    async with PostgresSaver.from_conn_string(pooled(dsn), **options) as saver:
        for thread in (held, *others):
            await aput(saver, thread, c="before")
        async with session_held(dsn, held):
            puts = [aput(saver, name, c="after") for name in (held, *others)]
            first, *rest = await asyncio.gather(*puts, return_exceptions=True)
        assert isinstance(first, LockTimeoutError), first
        assert [isinstance(result, dict) for result in rest] == [True] * 2
        assert await stored_values(saver, held) == {"c": "before"}
        assert await stored_values(saver, others[0]) == {"c": "after"}
