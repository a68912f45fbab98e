"""What tests of several files are given: savers beside the first, and other packages'."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.messages import Messages
from tests._graphs import Comparison, Saver
from tests.conftest import fetch
from tests.db._chains import MODES
from tests.db._effects import Effects
from tests.db._puts import config_of, put
from tests.db._secrets import PLACES, SetRow
from tests.db._steps import DURABILITIES
from tests.db._stored_messages import Server


@pytest.fixture
async def second(dsn: str) -> AsyncIterator[PostgresSaver]:
    """A second saver on the same database, with caches and connections of its own."""
    async with PostgresSaver.from_conn_string(dsn) as saver:
        yield saver


@pytest.fixture
async def single(dsn: str) -> AsyncIterator[PostgresSaver]:
    """A saver with one writer for each thread."""
    async with PostgresSaver.from_conn_string(dsn, single_writer=True) as saver:
        yield saver


@pytest.fixture
async def other(dsn: str) -> AsyncIterator[PostgresSaver]:
    """Such a saver of another process, as far as leases go."""
    async with PostgresSaver.from_conn_string(dsn, single_writer=True) as saver:
        yield saver


@pytest.fixture
async def encrypted(dsn: str) -> AsyncIterator[PostgresSaver]:
    """A saver that stores nothing in clear."""
    serde = EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef")
    async with PostgresSaver.from_conn_string(dsn, serde=serde) as saver:
        yield saver


@pytest.fixture
async def effects(dsn: str) -> Effects:
    """The table that steps write to."""
    effects = Effects(dsn)
    await effects.make()
    return effects


@pytest.fixture(params=DURABILITIES)
def durability(request: pytest.FixtureRequest) -> Any:
    """When a graph stores its steps: any of the ways there are."""
    return request.param


@pytest.fixture
def messages(saver: PostgresSaver) -> Messages:
    return Messages(saver)


@pytest.fixture
def server(saver: PostgresSaver) -> Server:
    return Server(saver)


@pytest.fixture(params=["postgres", "sqlite"])
async def old(
    request: pytest.FixtureRequest, new_database: Callable[..., str], tmp_path: Path
) -> AsyncIterator[Saver]:
    """The real saver of another package, with nothing in it."""
    if request.param == "sqlite":
        async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "old.sqlite")) as sqlite:
            await sqlite.setup()
            yield sqlite
        return
    made = await asyncio.to_thread(new_database)
    async with AsyncPostgresSaver.from_conn_string(made) as postgres:
        await postgres.setup()
        yield postgres


@pytest.fixture(params=MODES, ids="-".join)
def compare(request: pytest.FixtureRequest, dsn: str) -> Comparison:
    """Runs a graph with our saver and with LangGraph's, in one of the ways there are."""
    durability, mode, writers = request.param
    return Comparison(
        dsn=dsn,
        durability=durability,
        is_async=mode == "ainvoke",
        single_writer=bool(writers),
    )


@pytest.fixture(params=PLACES)
def forge(dsn: str, request: pytest.FixtureRequest) -> SetRow:
    """Puts type and payload in the place of what a saver stored there."""
    with PostgresSaver.from_conn_string(dsn) as saver:
        values = {"c": [1], "big": "x" * 5000, "messages": [HumanMessage("hi")]}
        config = put(saver, config_of("t"), values, {"odd": 2**60})
        saver.put_writes(config, [("c", [2])], "task")
    statement = PLACES[request.param]

    def set_row(type_: str, payload: bytes) -> None:
        fetch(dsn, statement, type_, payload)

    return set_row
