"""A PostgreSQL server for the tests, and a migrated database of its own for each.

The server is PGSAGA_TEST_DSN's; else one of the version PGSAGA_TEST_POSTGRES (16), or the
embedded one, that lives as long as the run. Of several workers each has its own.
One template database is migrated per run; a test's database is a clone of it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from hypothesis import HealthCheck, settings

from langgraph_pgsaga import Database, PostgresSaver
from langgraph_pgsaga.database import migrate
from langgraph_pgsaga.embedded import EmbeddedServer
from tests._alone import turn
from tests._citus import emptied_cluster
from tests._commands import build_once
from tests._environment import forget_the_machine
from tests._folders import public_folder
from tests._servers import postgres_server

# How fast examples are made and tried is the machine's: another test may have the processor.
settings.register_profile("any-pace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-pace")

_counter = itertools.count(1)

forget_the_machine()
build_once()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Lets tests that measure time run alone."""
    with turn(alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def public_tmp() -> Iterator[Path]:
    """A folder that other users of the machine may enter, as a server run by root needs it."""
    with public_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def server_dsn(public_tmp: Path) -> Iterator[str]:
    """The DSN of a server on which databases may be made and dropped."""
    given = os.environ.get("PGSAGA_TEST_DSN")
    if given:
        yield given
        return
    version = os.environ.get("PGSAGA_TEST_POSTGRES")
    if version:
        with postgres_server(public_tmp / f"postgres-{version}", version) as dsn:
            yield dsn
        return
    with EmbeddedServer.start(public_tmp / "server") as server:
        yield server.dsn


def with_database(dsn: str, name: str) -> str:
    """`dsn` with another database."""
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


async def execute(dsn: str, *statements: str) -> None:
    conn = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await conn.execute(statement)
    finally:
        await conn.close()


def fetch(dsn: str, query: str, *args: Any) -> list[asyncpg.Record]:
    """The rows of a query, for sync callers."""
    return asyncio.run(afetch(dsn, query, *args))


async def afetch(dsn: str, query: str, *args: Any) -> list[asyncpg.Record]:
    """`fetch` for async callers."""
    conn = await asyncpg.connect(dsn)
    try:
        return await conn.fetch(query, *args)
    finally:
        await conn.close()


@pytest.fixture(scope="session")
def template_database(server_dsn: str) -> Iterator[str]:
    name = f"pgsaga_template_{os.getpid()}"

    async def make() -> None:
        await execute(server_dsn, f'create database "{name}"')
        async with Database(with_database(server_dsn, name)) as db:
            await migrate(db)

    asyncio.run(make())
    yield name
    asyncio.run(execute(server_dsn, f'drop database "{name}" with (force)'))


@pytest.fixture(scope="session")
def emptied(server_dsn: str) -> Iterator[list[str]]:
    """Databases of tests that are over: whoever makes the next one drops them.

    Dropping them at once would be a connection more for each test.
    """
    names: list[str] = []
    yield names
    asyncio.run(execute(server_dsn, *map(_drop, names)))


def _drop(name: str) -> str:
    return f'drop database if exists "{name}" with (force)'


@pytest.fixture
def new_database(server_dsn: str, emptied: list[str]) -> Iterator[Callable[..., str]]:
    """Makes empty databases (or clones of `template`) and drops them after the test.

    Files are copied: to log the pages instead costs the server twice as much.
    """
    made: list[str] = []

    def make(template: str = "template0") -> str:
        name = f"pgsaga_test_{os.getpid()}_{next(_counter)}"
        create = f'create database "{name}" template "{template}" strategy file_copy'
        asyncio.run(execute(server_dsn, *map(_drop, emptied), create))
        emptied.clear()
        made.append(name)
        return with_database(server_dsn, name)

    yield make
    emptied.extend(made)


@pytest.fixture
def dsn(request: pytest.FixtureRequest) -> str:
    """A migrated database of the test's own."""
    if cluster := os.environ.get("PGSAGA_CITUS_DSN"):
        return emptied_cluster(cluster)
    new_database: Callable[..., str] = request.getfixturevalue("new_database")
    return new_database(request.getfixturevalue("template_database"))


@pytest.fixture
def empty_dsn(new_database: Callable[..., str]) -> str:
    """A database of the test's own with nothing in it."""
    return new_database()


@pytest.fixture
def sync_saver(dsn: str) -> Iterator[PostgresSaver]:
    with PostgresSaver.from_conn_string(dsn) as saver:
        yield saver


@pytest.fixture
async def saver(dsn: str) -> AsyncIterator[PostgresSaver]:
    async with PostgresSaver.from_conn_string(dsn) as saver:
        yield saver
