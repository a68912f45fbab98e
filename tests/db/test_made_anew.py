"""Tables that are made anew beneath open connections, as a dump that is restored in place does."""

from __future__ import annotations

import asyncio

import pytest

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import ServerError
from langgraph_pgsaga.sessions import Sessions
from tests.conftest import execute
from tests.db._puts import config_of, put, stored

pytestmark = pytest.mark.anyio


async def use(saver: PostgresSaver, thread: str) -> None:
    """What brings rows of the tables' own types, in statements of their own and in transactions."""
    config = await asyncio.to_thread(put, saver, config_of(thread), {"c": 1, "big": "x" * 5000})
    await saver.aput_writes(config, [("c", "y" * 5000)], "task")
    async with saver.db.transaction() as conn:
        await saver.aput_writes(config, [("c", "z" * 5000)], "other task", conn=conn)
    await saver.acopy_thread(thread, f"copy of {thread}")


async def test_calls_go_on(dsn: str) -> None:
    """On every connection, in the loop and for sync callers, at the first call."""
    async with PostgresSaver.from_conn_string(dsn) as saver:
        await asyncio.gather(*(use(saver, f"before {n}") for n in range(8)))
        await execute(dsn, "drop schema public cascade", "create schema public")
        async with PostgresSaver.from_conn_string(dsn) as other:
            await other.asetup()
        for n in range(8):
            await use(saver, f"after {n}")
        found = await asyncio.to_thread(stored, saver, config_of("after 0"))
        assert found.checkpoint["channel_values"] == {"c": 1, "big": "x" * 5000}
        assert len((await Sessions(saver.db).list()).sessions) == 16


async def test_an_internal_error_that_stays_is_told_at_once(saver: PostgresSaver) -> None:
    """Another connection is tried once."""
    told = "do $$ begin raise exception 'broken' using errcode = 'XX000'; end $$"
    tries = 0

    async def work(conn: object) -> None:
        nonlocal tries
        tries += 1
        await conn.execute(told)  # type: ignore[attr-defined]

    with pytest.raises(ServerError, match="broken") as caught:
        await saver.db.run(work)
    assert (caught.value.sqlstate, tries) == ("XX000", 2)
