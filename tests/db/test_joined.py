"""Calls that join a transaction of the application: all of it is committed, or nothing."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import asyncpg
import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.serde.types import INTERRUPT

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.database import Connection
from langgraph_pgsaga.errors import (
    LeaseLostError,
    MissingCheckpointError,
    NameTakenError,
    ServerConnectionError,
    SessionExistsError,
    ThreadDeletedError,
    ThreadExistsError,
    ThreadLeasedError,
)
from langgraph_pgsaga.sessions import Sessions, SessionStatus
from langgraph_pgsaga.timetravel import aname_checkpoint
from tests._limits import HANG_SECONDS
from tests.db._gates import adds, graph_of
from tests.db._puts import checkpoint_of, config_of
from tests.db._waits import waits_for_a_lock

pytestmark = pytest.mark.anyio


class RolledBackError(Exception):
    """What the application changed its mind by."""


async def put(
    saver: PostgresSaver,
    config: RunnableConfig,
    *said: str,
    conn: Connection | None = None,
    run_id: str = "r",
) -> RunnableConfig:
    """A checkpoint below the one of `config`, of a chat in which this was said."""
    messages = [HumanMessage(text, id=text) for text in said]
    checkpoint = checkpoint_of(saver, {"messages": messages, "text": said[-1]})
    metadata: Any = {"source": "loop", "step": len(said), "parents": {}, "run_id": run_id}
    versions = checkpoint["channel_versions"]
    return await saver.aput(config, checkpoint, metadata, versions, conn=conn)


async def said(saver: PostgresSaver, config: RunnableConfig) -> list[str] | None:
    """As a saver without memories reads it."""
    found = await saver.anew().aget_tuple(config)
    return (
        None
        if found is None
        else [m.content for m in found.checkpoint["channel_values"]["messages"]]
    )


async def tables(dsn: str) -> dict[str, Any]:
    """All that is stored, and the application's own rows."""
    conn = await asyncpg.connect(dsn)
    names = await conn.fetch(
        "select relname from pg_class where relkind = 'r' and relname ~ '^(agent_|orders)'"
    )
    found = {
        name: sorted(map(str, await conn.fetch(f"select t::text from {name} t")))
        for (name,) in names
    }
    await conn.close()
    return found


async def do_everything(saver: PostgresSaver, conn: Connection, old: RunnableConfig) -> None:
    """A row of the application's own, and each call that can join."""
    await conn.execute("insert into orders values ('a', 1)")
    config = await put(saver, old, "one", "two", "three", conn=conn)
    config = await put(saver, config, "one", "two", "three", "four", conn=conn)
    await saver.aput_writes(config, [(INTERRUPT, "more?")], "task", conn=conn)
    new = await put(saver, config_of("new"), "hello", conn=conn)
    await put(saver, new, "hello", "you", conn=conn)
    await saver.acopy_thread("t", "copy", conn=conn)
    await aname_checkpoint(saver, config_of("copy"), "here", conn=conn)
    await saver.aprune(["t", "new"], conn=conn)
    await saver.adelete_for_runs(["gone"], conn=conn)
    await saver.adelete_thread("deleted", conn=conn)


async def begun(saver: PostgresSaver, dsn: str) -> RunnableConfig:
    """Threads that there are before."""
    conn = await asyncpg.connect(dsn)
    await conn.execute("create table orders (name text primary key, number int)")
    await conn.close()
    await put(saver, config_of("deleted"), "never mind")
    of_run = await put(saver, config_of("runs"), "of a run", run_id="gone")
    await put(saver, of_run, "of another")
    first = await put(saver, config_of("t"), "one")
    return await put(saver, first, "one", "two")


async def test_all_of_it_is_committed_with_the_transaction(saver: PostgresSaver, dsn: str) -> None:
    """Puts, writes, a copy, a name, a prune, deletions and a row of the application's own; what is
    done first is there for what follows, and for nobody else before the end."""
    old = await begun(saver, dsn)
    before = await tables(dsn)
    async with saver.db.transaction() as conn:
        await do_everything(saver, conn, old)
        assert await tables(dsn) == before
    assert await said(saver, config_of("t")) == ["one", "two", "three", "four"]
    assert await said(saver, config_of("new")) == ["hello", "you"]
    assert await said(saver, config_of("copy")) == ["one", "two", "three", "four"]
    assert await said(saver, config_of("deleted")) is None
    assert [len([one async for one in saver.alist(config_of(name))]) for name in ("t", "new")] == [
        1,
        1,
    ]
    assert len([one async for one in saver.alist(config_of("copy"))]) == 4
    assert len([one async for one in saver.alist(config_of("runs"))]) == 1
    found = await Sessions(saver.db).get("t")
    assert found is not None
    assert found.status is SessionStatus.PAUSED
    assert "orders" in await tables(dsn)


@pytest.mark.parametrize("how", ["it raises", "its connection is killed"])
async def test_nothing_of_it_stays_where_it_is_rolled_back(
    saver: PostgresSaver, dsn: str, how: str
) -> None:
    """Neither in the tables nor in what the process remembers: the threads go on as they were."""
    old = await begun(saver, dsn)
    before = await tables(dsn)

    async def broken_off() -> None:
        async with saver.db.transaction() as conn:
            await do_everything(saver, conn, old)
            if how == "it raises":
                raise RolledBackError
            other = await asyncpg.connect(dsn)
            await other.execute("select pg_terminate_backend($1)", conn.get_server_pid())
            await other.close()
            await conn.fetch("select 1")

    with pytest.raises((RolledBackError, ServerConnectionError)):
        await broken_off()
    assert await tables(dsn) == before
    config = await put(saver, old, "one", "two", "other")
    assert await said(saver, config) == ["one", "two", "other"]
    assert await said(saver, await put(saver, config_of("new"), "anew")) == ["anew"]
    await saver.acopy_thread("t", "copy")
    assert await said(saver, config_of("copy")) == ["one", "two", "other"]


async def test_calls_of_the_queue_wait_for_the_transaction(saver: PostgresSaver, dsn: str) -> None:
    """The transaction holds its threads: a put to one of them comes after it, and is stored."""
    old = await put(saver, config_of("t"), "one")
    async with saver.db.transaction() as conn:
        await put(saver, old, "one", "two", conn=conn)
        later = asyncio.ensure_future(put(saver, old, "one", "later"))
        await waits_for_a_lock(dsn)
    async with asyncio.timeout(HANG_SECONDS):
        config = await later
    assert await said(saver, config) == ["one", "later"]
    assert await said(saver, config_of("t")) == ["one", "later"]


async def test_a_call_waits_for_what_the_queue_has_sent(saver: PostgresSaver, dsn: str) -> None:
    """A put that was begun before is stored before, and what the transaction puts, behind it."""
    old = await put(saver, config_of("t"), "one")
    holder = await asyncpg.connect(dsn)
    async with saver.db.transaction() as conn:
        held = holder.transaction()
        await held.start()
        await holder.execute("select from agent_sessions for update")
        first = asyncio.ensure_future(put(saver, old, "one", "first"))
        await waits_for_a_lock(dsn)
        second = asyncio.ensure_future(put(saver, old, "one", "first", "second", conn=conn))
        await waits_for_a_lock(dsn, 2)
        await held.rollback()
        await asyncio.gather(first, second)
    await holder.close()
    assert await said(saver, config_of("t")) == ["one", "first", "second"]


async def test_what_may_not_write_is_refused_and_leaves_the_transaction(
    saver: PostgresSaver, dsn: str
) -> None:
    """Errors of the package change nothing: what is done before and after them counts."""
    old = await begun(saver, dsn)
    later = await put(saver, old, "one", "two")
    await aname_checkpoint(saver, old, "here")
    async with saver.lease("leased"):
        await put(saver, config_of("leased"), "mine")
    async with (
        PostgresSaver.from_conn_string(dsn) as other,
        other.lease("leased"),
        saver.db.transaction() as conn,
    ):
        await conn.execute("insert into orders values ('before', 1)")
        with pytest.raises(ThreadLeasedError):
            await put(saver, config_of("leased"), "mine", "too", conn=conn)
        with pytest.raises(ThreadExistsError):
            await saver.acopy_thread("t", "runs", conn=conn)
        with pytest.raises(MissingCheckpointError):
            await saver.acopy_thread("t", "copy", checkpoint_id="none", conn=conn)
        with pytest.raises(SessionExistsError):
            await Sessions(saver.db).create("t", conn=conn)
        with pytest.raises(NameTakenError, match="'here'"):
            await aname_checkpoint(saver, later, "here", conn=conn)
        for missing in (config_of("nobody"), config_of("t", checkpoint_id="none")):
            with pytest.raises(MissingCheckpointError):
                await aname_checkpoint(saver, missing, "here", conn=conn)
        await saver.acopy_thread("not there", "copy", conn=conn)
        await saver.adelete_thread("t", conn=conn)
        with pytest.raises(ThreadDeletedError):
            await put(saver, old, "one", "two", "three", conn=conn)
        await conn.execute("insert into orders values ('after', 2)")
    assert len((await tables(dsn))["orders"]) == 2
    assert await said(saver, config_of("t")) is None
    assert await Sessions(saver.db).get("copy") is None


@pytest.mark.parametrize("ends", ["commit", "rollback"])
async def test_a_name_that_is_given_meanwhile_is_waited_for(
    dsn: str, saver: PostgresSaver, ends: str
) -> None:
    """Of two transactions that give one name the later goes on, with the name or without."""
    first = await put(saver, config_of("t"), "one")
    second = await put(saver, first, "one", "two")
    came = asyncio.Event()

    async def name_late() -> bool:
        async with saver.db.transaction() as conn:
            await conn.fetch("select 1")
            await came.wait()
            try:
                await aname_checkpoint(saver, first, "here", conn=conn)
            except NameTakenError:
                return not await conn.fetchval("select true")
            return True

    late = asyncio.create_task(name_late())
    with suppress(RolledBackError):
        async with saver.db.transaction() as conn:
            await aname_checkpoint(saver, second, "here", conn=conn)
            came.set()
            await waits_for_a_lock(dsn)
            if ends == "rollback":
                raise RolledBackError
    assert await late is (ends == "rollback")


async def test_what_loaded_the_same_state_is_refused_in_a_transaction_too(
    single: PostgresSaver, other: PostgresSaver
) -> None:
    """With single_writer: an update that loaded before somebody wrote stores nothing; one that
    didn't holds no lease beyond its transaction."""
    await graph_of(single, one=adds(1)).ainvoke({"items": [0]}, config_of("t"))
    found = await single.aget_tuple(config_of("t"))
    assert found is not None
    async with single.db.transaction() as conn:
        config = await put(single, found.config, "one", conn=conn)
        await put(single, config, "one", "two", conn=conn)
    late = await other.aget_tuple(config_of("t"))
    assert late is not None
    await put(single, late.config, "one", "two", "three")
    with pytest.raises(LeaseLostError):
        async with other.db.transaction() as conn:
            await put(other, late.config, "late", conn=conn)
    assert await said(single, config_of("t")) == ["one", "two", "three"]
