"""Bad input and bad circumstances: each a PgSagaError that says what to do, without secrets."""

from __future__ import annotations

import asyncio
import re
import socket
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import asyncpg
import pytest

from langgraph_pgsaga import Database, PgSagaError, PostgresSaver
from langgraph_pgsaga.embedded import EmbeddedServer
from langgraph_pgsaga.errors import (
    AuthenticationError,
    ClosedError,
    InvalidArgumentError,
    MissingDatabaseError,
    MissingMigrationsError,
    MissingThreadIdError,
    ServerConnectionError,
    ServerError,
    ThreadExistsError,
)
from tests._connections import connection_of
from tests._limits import HANG_SECONDS
from tests.conftest import execute, with_database
from tests.db._puts import checkpoint_of, config_of, put, stored

SECRET = "s3cr3t/of@the:user"
CONFIG = config_of("t", checkpoint_id="c")

Call = Callable[[PostgresSaver], Any]


def _put(saver: PostgresSaver) -> Any:
    checkpoint = checkpoint_of(saver, {"c": 1})
    return saver.put(CONFIG, checkpoint, {}, checkpoint["channel_versions"])


async def _alist(saver: PostgresSaver) -> list[Any]:
    return [found async for found in saver.alist(None)]


async def _aiter(saver: PostgresSaver) -> list[Any]:
    return [found async for found in saver.aget_iter(CONFIG)]


async def _aput(saver: PostgresSaver) -> Any:
    checkpoint = checkpoint_of(saver, {"c": 1})
    return await saver.aput(CONFIG, checkpoint, {}, checkpoint["channel_versions"])


SYNC_CALLS: dict[str, Call] = {
    "get": lambda s: s.get(CONFIG),
    "get_tuple": lambda s: s.get_tuple(CONFIG),
    "list": lambda s: list(s.list(None)),
    "list of a namespace": lambda s: list(s.list(CONFIG, limit=1)),
    "get_delta_channel_history": lambda s: s.get_delta_channel_history(
        config=CONFIG, channels=["c"]
    ),
    "put": _put,
    "put_writes": lambda s: s.put_writes(CONFIG, [("c", 1)], "task"),
    "put_writes, large": lambda s: s.put_writes(CONFIG, [("c", "x" * 5000)], "task"),
    "delete_thread": lambda s: s.delete_thread("t"),
    "delete_for_runs": lambda s: s.delete_for_runs(["r"]),
    "copy_thread": lambda s: s.copy_thread("t", "u"),
    "lease": lambda s: s.lease("t").__enter__(),
    "prune": lambda s: s.prune(["t"]),
    "prune, delete": lambda s: s.prune(["t"], strategy="delete"),
}
ASYNC_CALLS: dict[str, Call] = {
    "aget": lambda s: s.aget(CONFIG),
    "aget_tuple": lambda s: s.aget_tuple(CONFIG),
    "aget_iter": _aiter,
    "alist": _alist,
    "aget_delta_channel_history": lambda s: s.aget_delta_channel_history(
        config=CONFIG, channels=["c"]
    ),
    "aput": _aput,
    "aput_writes": lambda s: s.aput_writes(CONFIG, [("c", 1)], "task"),
    "adelete_thread": lambda s: s.adelete_thread("t"),
    "adelete_for_runs": lambda s: s.adelete_for_runs(["r"]),
    "acopy_thread": lambda s: s.acopy_thread("t", "u"),
    "aprune": lambda s: s.aprune(["t"]),
}
CALLS = {**SYNC_CALLS, **ASYNC_CALLS}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
WITHOUT_SERVER = {
    "setup", "asetup", "close", "aclose", "anew", "get_next_version", "with_allowlist",
}  # fmt: skip


def test_every_call_is_tried_below() -> None:
    """A method that is added to the saver can't be forgotten here."""
    tried = {name.partition(",")[0].partition(" ")[0] for name in CALLS}
    own = {name for name, found in vars(PostgresSaver).items() if callable(found)}
    assert {name for name in own if not name.startswith("_")} <= tried | WITHOUT_SERVER


def attempt(call: Call, saver: PostgresSaver) -> Any:
    """The call's result; an async one runs in a loop of its own."""
    answer = call(saver)
    if not asyncio.iscoroutine(answer):
        return answer
    return asyncio.run(_finished(answer))


async def _finished(coroutine: Any) -> Any:
    return await coroutine


def text_of(error: BaseException) -> str:
    """All that a log would show of the error and what it was raised from."""
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize("schema", [None, "own"])
@each_call
def test_missing_migrations_are_told_by_every_call(
    template_empty: str, call: Call, schema: str | None
) -> None:
    """The message says how to make the tables."""
    with (
        PostgresSaver.from_conn_string(template_empty, schema=schema) as saver,
        pytest.raises(MissingMigrationsError) as caught,
    ):
        attempt(call, saver)
    for hint in (
        "saver.setup()",
        "await saver.setup()",
        "pgsaga migrate up",
        "--schema",
    ):
        assert hint in str(caught.value)
    missing = r'"(agent_s\w+|pgsaga_new_session\[\]|own)" does not exist|"own.agent_s\w+"'
    assert re.search(missing, str(caught.value))


@pytest.fixture(scope="module")
def template_empty(server_dsn: str) -> Iterator[str]:
    """One empty database for all these calls: none of them writes."""
    name = "pgsaga_never_migrated"
    asyncio.run(execute(server_dsn, f"drop database if exists {name}", f"create database {name}"))
    yield with_database(server_dsn, name)
    asyncio.run(execute(server_dsn, f"drop database {name} with (force)"))


@each_call
@pytest.mark.parametrize("used", [False, True])
def test_a_closed_saver_says_so_in_every_call(template_empty: str, call: Call, used: bool) -> None:
    """Before its first use as after it; no call hangs or opens a new connection."""
    saver = PostgresSaver.from_conn_string(template_empty)
    if used:
        with pytest.raises(MissingMigrationsError):
            saver.get_tuple(CONFIG)
    saver.close()
    with pytest.raises(ClosedError, match="Make a new one"):
        attempt(call, saver)


def test_a_closed_saver_cannot_set_up(template_empty: str) -> None:
    """setup, too, says that the saver was closed; closing twice is fine."""
    saver = PostgresSaver.from_conn_string(template_empty)
    saver.close()
    saver.close()
    calls: list[Call] = [lambda s: s.setup(), lambda s: s.asetup()]
    for call in calls:
        with pytest.raises(ClosedError):
            attempt(call, saver)


_WITH_CONFIG: dict[str, Callable[[PostgresSaver, Any], Any]] = {
    "get_tuple": lambda s, c: s.get_tuple(c),
    "list": lambda s, c: list(s.list(c)),
    "put": lambda s, c: put(s, c, {"c": 1}),
    "put_writes": lambda s, c: s.put_writes(c, [("c", 1)], "task"),
    "get_delta_channel_history": lambda s, c: s.get_delta_channel_history(config=c, channels=["c"]),
}


@pytest.mark.parametrize("call", _WITH_CONFIG.values(), ids=_WITH_CONFIG)
@pytest.mark.parametrize("config", [{"configurable": {}}, {"configurable": {"thread_id": None}}])
def test_a_missing_thread_id_is_told(
    sync_saver: PostgresSaver, call: Callable[[PostgresSaver, Any], Any], config: Any
) -> None:
    """The message shows the config that has one."""
    with pytest.raises(MissingThreadIdError, match=r"config=.*configurable.*thread_id"):
        call(sync_saver, config)


def test_a_missing_thread_id_is_told_when_deleting(sync_saver: PostgresSaver) -> None:
    """An empty thread id doesn't delete, prune or copy anything else."""
    calls: list[Call] = [
        lambda s: s.delete_thread(""),
        lambda s: s.prune([""]),
        lambda s: s.copy_thread("", "u"),
        lambda s: s.copy_thread("t", ""),
    ]
    for call in calls:
        with pytest.raises(MissingThreadIdError):
            call(sync_saver)


def test_writes_need_a_checkpoint(sync_saver: PostgresSaver) -> None:
    """put_writes doesn't guess which checkpoint it belongs to."""
    with pytest.raises(InvalidArgumentError, match="checkpoint") as caught:
        sync_saver.put_writes(config_of("t"), [("c", 1)], "task")
    assert caught.value.argument == "checkpoint_id"


def test_an_unknown_strategy_is_told(sync_saver: PostgresSaver) -> None:
    """The message names the strategies there are, and nothing was pruned."""
    config = put(sync_saver, put(sync_saver, config_of("t"), {"c": 1}), {"c": 2})
    with pytest.raises(InvalidArgumentError, match=r"'keep_all'.*keep_latest.*delete"):
        sync_saver.prune(["t"], strategy="keep_all")
    assert stored(sync_saver, config).parent_config is not None


def test_an_existing_thread_is_not_copied_onto(sync_saver: PostgresSaver) -> None:
    """The message names the thread, which keeps what it has."""
    for thread_id in ("source", "target"):
        put(sync_saver, config_of(thread_id), {"c": thread_id})
    with pytest.raises(ThreadExistsError, match=r"'target'.*delete_thread"):
        sync_saver.copy_thread("source", "target")
    assert stored(sync_saver, config_of("target")).checkpoint["channel_values"] == {"c": "target"}


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        ({"dsn": ""}, "dsn"),
        ({"dsn": "nonsense"}, "dsn"),
        ({"dsn": "mysql://u@h/db"}, "dsn"),
        ({"schema": ""}, "schema"),
        ({"schema": "x" * 64}, "schema"),
        ({"schema": "\u00e9" * 32}, "schema"),
        ({"schema": "a\0b"}, "schema"),
        ({"schema": "\ud800"}, "schema"),
        ({"schema": 5}, "schema"),
        ({"max_size": 0}, "max_size"),
        ({"min_size": -1}, "max_size"),
        ({"min_size": 3, "max_size": 2}, "max_size"),
    ],
)
def test_bad_options_are_told_at_once(arguments: dict[str, Any], argument: str) -> None:
    """Before anything connects, with the option's name and what it may be."""
    with pytest.raises(InvalidArgumentError) as caught:
        Database(**{"dsn": "postgresql://h/db", **arguments})
    assert caught.value.argument == argument


def test_no_dsn_at_all_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the environment's variable and the embedded server."""
    monkeypatch.delenv("PGSAGA_DSN", raising=False)
    with pytest.raises(InvalidArgumentError, match=r"PGSAGA_DSN.*embedded"):
        PostgresSaver.from_conn_string()


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def failure(dsn: str, **options: Any) -> PgSagaError:
    """What a first call on this DSN raises; its whole text holds no password."""
    password = urlsplit(dsn).password
    with PostgresSaver.from_conn_string(dsn, **options) as saver:
        with pytest.raises(PgSagaError) as caught:
            saver.get_tuple(CONFIG)
        assert password is None or password not in repr(saver.db) + saver.db.dsn
    assert password is None or password not in text_of(caught.value)
    assert SECRET not in text_of(caught.value)
    return caught.value


def test_an_unreachable_server_is_told() -> None:
    """At once, with the address and what to check; nothing of the password."""
    dsn = f"postgresql://u:{quote(SECRET, safe='')}@127.0.0.1:{unused_port()}/db"
    error = failure(dsn)
    assert type(error) is ServerConnectionError
    assert "127.0.0.1" in str(error)
    assert "server runs" in str(error)


def test_an_unknown_host_is_told() -> None:
    """A name that doesn't resolve is an unreachable server too."""
    error = failure(f"postgresql://u:{quote(SECRET, safe='')}@no-such-host.invalid/db")
    assert type(error) is ServerConnectionError


def test_a_missing_socket_is_told(tmp_path: Path) -> None:
    """The folder in the DSN is in the message."""
    error = failure(f"postgresql://u@/db?host={tmp_path}")
    assert type(error) is ServerConnectionError
    assert str(tmp_path) in str(error)


@pytest.mark.parametrize("parameter", ["sslrootcert", "sslcert", "sslcrl"])
def test_a_missing_file_of_the_encryption_is_told(tmp_path: Path, parameter: str) -> None:
    """The parameter that names it is in the message."""
    given = urlencode({"sslmode": "require", parameter: str(tmp_path / "none")})
    error = failure(f"postgresql://u@127.0.0.1:{unused_port()}/db?{given}")
    assert type(error) is ServerConnectionError
    assert f"{parameter} (or PG{parameter.upper()}) names no file" in str(error)


@pytest.mark.parametrize("wanted", ["any", "read-write", "prefer-standby"])
def test_a_silent_host_leaves_time_for_the_next(server_dsn: str, wanted: str) -> None:
    """The time to connect is for each host of a DSN."""
    folder = parse_qs(urlsplit(server_dsn).query).get("host", [""])[0]
    if not folder.startswith("/"):
        pytest.skip("needs the embedded server")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        hosts = f"127.0.0.1,{folder}&port={silent.getsockname()[1]},5432"
        dsn = f"postgresql://postgres@/postgres?host={hosts}&target_session_attrs={wanted}"
        with Database(dsn, connect_timeout_seconds=1) as db:
            assert db.portal.call(_ask, db) == 1


async def _ask(db: Database) -> int:
    async with db.transaction() as connection:
        return int(await connection.fetchval("select 1"))


def test_a_silent_server_is_told() -> None:
    """One that accepts and never answers is given up after the connect timeout."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        error = failure(f"postgresql://u@127.0.0.1:{port}/db", connect_timeout_seconds=0.2)
    assert type(error) is ServerConnectionError


def test_callers_at_once_have_errors_of_their_own() -> None:
    """Also where one attempt to connect was for all of them: raising an error changes it."""

    async def main() -> list[BaseException]:
        async with Database("postgresql://u@127.0.0.1:1/db", min_size=1) as db:
            calls = [PostgresSaver(db).aget_tuple(config_of("t")) for _ in range(3)]
            results = await asyncio.gather(*calls, return_exceptions=True)
        return [result for result in results if isinstance(result, ServerConnectionError)]

    failed = asyncio.run(main())
    assert len({id(error) for error in failed}) == 3
    assert len({id(error.__cause__) for error in failed}) == 3


@pytest.fixture(scope="module")
def password_dsn(public_tmp: Path) -> Iterator[str]:
    """A server of the test's own, on which the role `careful` needs its password."""
    with EmbeddedServer.start(public_tmp / "passwords") as server:
        rules = server.path / "data" / "pg_hba.conf"
        rules.write_text(f"local all careful scram-sha-256\n{rules.read_text()}")
        literal = SECRET.replace("'", "''")
        make = f"create role careful login password '{literal}'"
        asyncio.run(execute(server.dsn, make, "select pg_reload_conf()"))
        host = parse_qs(urlsplit(server.dsn).query)["host"][0]
        yield f"postgresql://careful:{quote(SECRET, safe='')}@/postgres?host={host}"


def test_the_right_password_connects(password_dsn: str) -> None:
    """The server does ask for it: with it, what's missing is the tables."""
    assert type(failure(password_dsn)) is MissingMigrationsError


@pytest.mark.parametrize("password", ["wr0ng-pass", ""])
def test_a_wrong_password_is_told(
    password_dsn: str, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says where passwords come from, and not which one was tried."""
    for name in ("PGPASSWORD", "PGPASSFILE"):
        monkeypatch.delenv(name, raising=False)
    right = f":{quote(SECRET, safe='')}@"
    error = failure(password_dsn.replace(right, f":{password}@" if password else "@"))
    assert type(error) is AuthenticationError
    assert "PGPASSWORD" in str(error)


def test_an_unknown_role_is_told(password_dsn: str) -> None:
    """A user that doesn't exist is a refused login."""
    error = failure(password_dsn.replace("careful", "nobody-there"))
    assert type(error) is AuthenticationError
    assert "nobody-there" in str(error)


def test_a_missing_database_is_told(server_dsn: str) -> None:
    """The message names the database and says how to create it."""
    error = failure(with_database(server_dsn, "no_such_database"))
    assert type(error) is MissingDatabaseError
    for hint in ("no_such_database", "createdb"):
        assert hint in str(error)


def test_no_error_quotes_what_was_to_be_stored(dsn: str, sync_saver: PostgresSaver) -> None:
    """Neither a parameter that the driver refuses, nor a row that breaks a constraint."""
    payload = "the payload that nobody may log"
    asyncio.run(
        execute(
            dsn, "alter table agent_states add constraint never check (length(metadata::text) < 9)"
        )
    )
    for call in (
        lambda: put(sync_saver, config_of("t"), {"c": payload}, {"note": payload}),
        lambda: sync_saver.put_writes(CONFIG, [("c", payload)], f"{payload}\ud800"),
    ):
        with pytest.raises(PgSagaError) as caught:
            call()
        assert payload not in text_of(caught.value)


# What the server ends


async def _ended(dsn: str, *, busy: bool, error: Exception | None = None) -> None:
    """A transaction that the server ends: at a statement, or while it waits for the next one."""
    async with Database(dsn) as database, database.transaction() as conn:
        pid = await conn.fetchval("select pg_backend_pid()")
        if busy:
            await conn.execute("select pg_sleep(60)")
        async with connection_of(database) as other, asyncio.timeout(HANG_SECONDS):
            while await other.fetchval("select count(*) from pg_stat_activity where pid = $1", pid):
                await asyncio.sleep(0.01)
        if error is not None:
            raise error
        await conn.execute("select 1")


def _with_setting(dsn: str, setting: str) -> str:
    return f"{dsn}&{setting}"


@pytest.mark.parametrize(
    ("setting", "busy"),
    [
        ("idle_in_transaction_session_timeout", False),
        ("transaction_timeout", False),
        ("transaction_timeout", True),
        ("statement_timeout", True),
    ],
)
def test_a_limit_of_time_is_named(dsn: str, setting: str, busy: bool) -> None:
    """The error names the setting and what to do, not the driver's methods, nor host and port."""
    if setting == "transaction_timeout":
        _need_version(dsn, 170000)
    with pytest.raises(ServerError) as caught:
        asyncio.run(_ended(_with_setting(dsn, f"{setting}=200"), busy=busy))
    told = str(caught.value)
    assert setting in told
    assert "raise" in told.lower()
    for word in ("released", "terminate()", "Check the host"):
        assert word not in told


def test_an_error_of_the_block_is_raised_though_the_connection_is_lost(dsn: str) -> None:
    """There is nothing to roll back any more, and nothing in place of the caller's own error."""
    limited = _with_setting(dsn, "idle_in_transaction_session_timeout=200")
    with pytest.raises(ZeroDivisionError):
        asyncio.run(_ended(limited, busy=False, error=ZeroDivisionError()))


def test_a_transaction_that_takes_too_long_is_not_repeated(dsn: str) -> None:
    """It would take as long again, until retry_seconds are over."""
    _need_version(dsn, 170000)
    tried: list[int] = []

    async def run() -> None:
        async def work(conn: Any) -> None:
            tried.append(1)
            await conn.execute("select pg_sleep(60)")

        async with Database(_with_setting(dsn, "transaction_timeout=200")) as database:
            await database.run(work)

    with pytest.raises(ServerError, match="transaction_timeout"):
        asyncio.run(run())
    assert tried == [1]


def _need_version(dsn: str, least: int) -> None:
    async def version() -> int:
        conn = await asyncpg.connect(dsn)
        try:
            return int(await conn.fetchval("show server_version_num"))
        finally:
            await conn.close()

    if asyncio.run(version()) < least:
        pytest.skip(f"this PostgreSQL is before {least}")
