"""The log goes on in another cluster: what a dump has is read there, and what comes after it."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from langgraph_pgsaga import Database
from langgraph_pgsaga.embedded import EmbeddedServer
from langgraph_pgsaga.embedded._programs import find_programs
from langgraph_pgsaga.events import EventStore
from tests._connections import connected
from tests.conftest import execute, with_database
from tests.db._events import everything, noted, numbers, taken

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


def program(name: str) -> str:
    return str(find_programs(Path()) / "bin" / name)


async def copied(source: str, server: str, name: str) -> str:
    """A database of another server, or of the same, with what pg_dump writes of the first."""
    await execute(server, f"create database {name}")
    target = with_database(server, name)
    _run(program("pg_dump"), "--format=custom", f"--file={_file(name)}", source)
    _run(program("pg_restore"), "--exit-on-error", f"--dbname={target}", _file(name))
    return target


def _file(name: str) -> str:
    return f"/dev/shm/{name}_{os.getpid()}.dump"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


async def check(dsn: str, expected: list[object], middle: str | None, eras: int) -> None:
    """Reads what is expected there, appends three more, and reads on from a cursor."""
    async with Database(dsn) as db:
        store = EventStore(db)
        assert numbers(await everything(store)) == expected
        for n in range(3):
            [stored] = await store.append("a", [noted(f"{eras}.{n}")], aggregate_type="desk")
            expected.append(f"{eras}.{n}")
            assert stored.version == len(expected)
        assert numbers(await everything(store)) == expected
        followed = await taken(store.subscribe(after=middle), len(expected) - 5)
        assert numbers(followed) == expected[5:]
        assert len({event.place.era for event in followed if event.place}) == eras


async def test_a_log_that_was_dumped_is_read_whole_in_a_new_cluster(public_tmp: Path) -> None:
    """Though its transactions have greater numbers than the new cluster is at; from a cursor of
    before, too; and in the first cluster again, when it comes back."""
    with (
        EmbeddedServer.start(public_tmp / "era 1") as first,
        EmbeddedServer.start(public_tmp / "era 2") as second,
    ):
        await execute(first.dsn, "create database one")
        one = with_database(first.dsn, "one")
        async with Database(one) as db, connected(one) as conn:
            store = EventStore(db)
            await store.initialize()
            for _ in range(2000):  # far ahead of the second cluster
                await conn.execute("select pg_current_xact_id()")
            for n in range(10):
                await store.append("a", [noted(n)], aggregate_type="desk")
            middle = (await everything(store))[4].cursor
        expected: list[object] = list(range(10))
        two = await copied(one, second.dsn, "two")
        await check(two, expected, middle, 2)
        three = await copied(two, first.dsn, "three")
        await check(three, expected, middle, 3)


async def test_a_new_era_begins_once(public_tmp: Path) -> None:
    """However many append first in the new cluster."""
    with EmbeddedServer.start(public_tmp / "era") as server:
        await execute(server.dsn, "create database one")
        one = with_database(server.dsn, "one")
        async with Database(one) as db, connected(one) as conn:
            store = EventStore(db)
            await store.initialize()
            await store.append("a", [noted(0)], aggregate_type="desk")
            await conn.execute("update event_eras set system_identifier = 1")
            batches = [[noted(n)] for n in range(1, 9)]
            await asyncio.gather(*(store.append("a", b, aggregate_type="desk") for b in batches))
            assert await conn.fetchval("select count(*) from event_eras") == 2
            async with db.transaction() as own:
                await conn.execute("update event_eras set system_identifier = 1")
                await store.append("b", [noted(9)], aggregate_type="desk", conn=own)
            assert sorted(numbers(await everything(store))) == list(range(10))
            eras = "select array_agg(distinct era) from agent_events"
            assert await conn.fetchval(eras) == [1, 2, 3]
