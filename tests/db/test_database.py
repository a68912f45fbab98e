"""Database: statements of one row, statements that may run once only, and the tables."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from langgraph_pgsaga import Database
from langgraph_pgsaga.database import Connection, Statement
from langgraph_pgsaga.errors import (
    ConnectionSetupError,
    ServerConnectionError,
    TooManyRowsError,
)
from tests._connections import connection_of
from tests._limits import HANG_SECONDS
from tests.conftest import execute

pytestmark = pytest.mark.anyio


def statement(text: str, *params: tuple[str, str]) -> Statement:
    return Statement(name="some", text=text, params=params, columns=(), shard="all, of a test")


SERIES = statement("select n from generate_series(1, $1::integer) n", ("count", "integer"))
INSERT = statement("insert into counted default values")


async def test_a_statement_of_one_row_gives_it_or_none(dsn: str) -> None:
    """More than one is an error that says which statement it was."""
    async with Database(dsn) as db:
        row = await db.fetch_one(SERIES.bind(count=1))
        assert row is not None
        assert row["n"] == 1
        assert await db.fetch_one(SERIES.bind(count=0)) is None
        with pytest.raises(TooManyRowsError, match=r"statement some gave 2 rows"):
            await db.fetch_one(SERIES.bind(count=2))


def failing_once(how: str) -> str:
    """SQL that makes a table, the first insertion into which fails."""
    return (
        "create sequence tries; create table counted (id serial);"
        "create function fail_once() returns trigger language plpgsql as $$ begin"
        f" if nextval('tries') = 1 then {how}; end if; return new; end $$;"
        "create trigger t before insert on counted for each row execute function fail_once()"
    )


@pytest.mark.parametrize("repeat", [True, False])
async def test_what_may_run_once_only_is_not_repeated(dsn: str, repeat: bool) -> None:
    """Where the connection is lost under it, nobody knows whether it was done: that is told."""
    lose = "perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(60)"
    await execute(dsn, failing_once(lose))
    async with Database(dsn) as db:
        if repeat:
            await db.fetch(INSERT)
        else:
            with pytest.raises(ServerConnectionError):
                await db.fetch(INSERT, repeat=False)
            await db.fetch(INSERT, repeat=False)  # the next one has a connection
        row = await db.fetch_one(statement("select count(*) as n from counted"))
    assert row is not None
    assert row["n"] == 1


async def test_what_the_server_rolled_back_is_repeated_all_the_same(dsn: str) -> None:
    """A serialization failure is certain: nothing was done."""
    await execute(dsn, failing_once("raise sqlstate '40001'"))
    async with Database(dsn) as db:
        await db.fetch(INSERT, repeat=False)
        row = await db.fetch_one(statement("select count(*) as n from counted"))
    assert row is not None
    assert row["n"] == 1


async def test_setup_makes_the_tables(empty_dsn: str) -> None:
    """Of a Database without a saver; as the saver's, it may be awaited or not."""
    with Database(empty_dsn, schema="first") as db:
        await db.setup()
        await db.asetup()
        rows = await db.fetch(statement("select count(*) as n from {schema}.agent_sessions"))
        assert rows[0]["n"] == 0


def test_setup_blocks_outside_of_a_loop(empty_dsn: str) -> None:
    """The tables are there when it returns."""
    with Database(empty_dsn) as db:
        db.setup()
        look = statement("select count(*) as n from {schema}.agent_sessions")
        assert db.portal.call(db.fetch, look)[0]["n"] == 0


# on_connect


async def test_each_new_connection_is_prepared_before_its_first_use(dsn: str) -> None:
    """Of the pools and outside, once each, with what it set still there later."""
    prepared: list[int] = []

    async def prepare(conn: Connection) -> None:
        prepared.append(conn.get_server_pid())
        await conn.execute("set work_mem = '5MB'")

    look = statement("select current_setting('work_mem') as found")
    async with Database(dsn, max_size=1, on_connect=prepare) as db:
        for _ in range(3):
            row = await db.fetch_one(look)
            assert row is not None
            assert row["found"] == "5MB"
        async with connection_of(db) as own:
            assert prepared[1:] == [own.get_server_pid()]


async def _raises(_: Connection) -> None:
    raise KeyError("secret words")


async def _leaves_a_transaction(conn: Connection) -> None:
    await conn.execute("begin")


async def _waits_for_ever(_: Connection) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("on_connect", "problem"),
    [
        (_raises, "it raised KeyError"),
        (_leaves_a_transaction, "it left a transaction open"),
    ],
)
async def test_a_connection_that_is_not_prepared_is_closed(
    dsn: str, on_connect: Callable[[Connection], Awaitable[None]], problem: str
) -> None:
    """The error says what went wrong, without the words of whatever went wrong."""
    async with Database(dsn, on_connect=on_connect) as db:
        for connecting in (db.fetch(SERIES.bind(count=1)), db.connect()):
            with pytest.raises(ConnectionSetupError, match=problem) as caught:
                await connecting
            assert "secret" not in str(caught.value)
    own = await asyncpg.connect(dsn)
    others = "select count(*) from pg_stat_activity where datname = current_database()"
    async with asyncio.timeout(HANG_SECONDS):
        while await own.fetchval(f"{others} and backend_type = 'client backend'") > 1:
            await asyncio.sleep(0.01)
    await own.close()


async def test_preparing_takes_no_longer_than_connecting(dsn: str) -> None:
    """A function that waits for ever isn't waited for."""
    async with Database(dsn, on_connect=_waits_for_ever, connect_timeout_seconds=0.5) as db:
        with pytest.raises(ServerConnectionError):
            async with asyncio.timeout(HANG_SECONDS):
                await db.connect()
