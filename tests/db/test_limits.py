"""Blocking has an end: locks, statements, servers and networks that stand still."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import asyncpg
import pytest

from langgraph_pgsaga import Database, PostgresSaver
from langgraph_pgsaga.checkpoint.call_store import CallStore
from langgraph_pgsaga.database import (
    LONG,
    Connection,
    Limits,
    Statement,
    connection,
    migrations,
    watch,
)
from langgraph_pgsaga.database.migrations import Migration, load_migrations, migrate
from langgraph_pgsaga.errors import (
    LockTimeoutError,
    NoAnswerError,
    ServerConnectionError,
    StatementTimeoutError,
)
from langgraph_pgsaga.messages import Messages
from langgraph_pgsaga.messages import messages as messages_module
from langgraph_pgsaga.sessions import RetentionPolicy, Sessions, sweep
from langgraph_pgsaga.threads import session_id_of
from tests._connections import connection_of
from tests._limits import HANG_SECONDS
from tests._proxy import Proxy
from tests.conftest import execute
from tests.db._puts import checkpoint_of, config_of
from tests.db.test_queue import threads_of_one_lane

pytestmark = pytest.mark.anyio

NOTHING: Mapping[str, Any] = MappingProxyType({})
_LIMITS = Statement(
    name="limits",
    text="select name, setting from pg_settings where name in"
    " ('lock_timeout', 'statement_timeout') order by name",
    params=(),
    columns=(),
    shard="all, of a test",
)
_SLEEP = Statement(
    name="sleep",
    text="select pg_sleep($1)",
    params=(("seconds", "float8"),),
    columns=(),
    shard="all, of a test",
)


async def limits_of(db: Database, conn: Connection | None = None) -> tuple[int, int]:
    """lock_timeout and statement_timeout, in milliseconds."""
    lock, statement = [int(row["setting"]) for row in await db.fetch(_LIMITS, conn=conn)]
    return lock, statement


async def aput(
    saver: PostgresSaver, thread: str, more: Mapping[str, Any] = NOTHING, /, **values: Any
) -> Any:
    checkpoint = checkpoint_of(saver, values)
    metadata: Any = {"source": "update", "step": 0, "parents": {}, **more}
    config = config_of(thread)
    return await saver.aput(config, checkpoint, metadata, checkpoint["channel_versions"])


async def stored_values(saver: PostgresSaver, thread: str) -> Any:
    found = await saver.anew().aget_tuple(config_of(thread))
    return found and found.checkpoint["channel_values"]


@asynccontextmanager
async def session_held(dsn: str, thread: str) -> AsyncIterator[None]:
    """Another application keeps the row of the thread's session locked."""
    other = await asyncpg.connect(dsn, server_settings={"application_name": "nightly job"})
    begun = other.transaction()
    await begun.start()
    await other.execute(
        "select 'hidden words' from agent_sessions where session_id = $1 for update",
        session_id_of(thread),
    )
    try:
        yield
    finally:
        await begun.rollback()
        await other.close()


# What counts


async def test_limits_that_nobody_set_are_set(dsn: str) -> None:
    """In a pool and outside."""
    async with Database(dsn) as db:
        assert await limits_of(db) == (10_000, 60_000)
        async with connection_of(db) as own:
            assert await limits_of(db, own) == (10_000, 60_000)


async def test_what_the_user_sets_counts(dsn: str) -> None:
    """The database's or a role's over ours, the DSN's over these, an option's over all of them."""
    name = dsn.partition("?")[0].rpartition("/")[2]
    await execute(dsn, f'alter database "{name}" set lock_timeout = 7000')
    await execute(dsn, f'alter database "{name}" set statement_timeout = 90000')
    async with Database(dsn) as db:
        assert await limits_of(db) == (7_000, 90_000)
        async with db.transaction() as conn:
            assert conn.client_seconds > 90  # type: ignore[union-attr]
    async with Database(dsn + "&lock_timeout=0&options=-c%20statement_timeout%3D5s") as db:
        assert await limits_of(db) == (0, 5_000)
    given = {"lock_timeout_seconds": 1.5, "statement_timeout_seconds": 0}
    async with Database(dsn + "&lock_timeout=0", **given) as db:  # type: ignore[arg-type]
        assert await limits_of(db) == (1_500, 0)
        async with db.transaction() as conn:
            assert conn.client_seconds is None  # type: ignore[union-attr]


async def test_long_work_has_limits_of_its_own(dsn: str) -> None:
    """To the end of its transaction; a limit that the user set isn't raised."""

    async def look(conn: Connection) -> tuple[int, int]:
        return await limits_of(db, conn)

    async with Database(dsn, max_size=1) as db:
        assert await db.run(look, limits=LONG) == (10_000, 600_000)
        assert await limits_of(db) == (10_000, 60_000)
    async with Database(dsn, statement_timeout_seconds=5) as db:
        assert await db.run(look, limits=LONG) == (10_000, 5_000)


async def test_what_takes_long_has_these_limits(dsn: str) -> None:
    """Deleting, pruning, copying and sweeping: ten minutes a statement. A put has one."""
    await execute(
        dsn,
        "create table seen (setting text);"
        "create function see() returns trigger language plpgsql as $$ begin"
        " insert into seen values (current_setting('statement_timeout'));"
        " return coalesce(new, old); end $$;"
        "create trigger see before insert or delete on agent_states"
        " for each row execute function see()",
    )
    take = Statement(
        name="take",
        text="with taken as (delete from seen returning setting)"
        " select distinct setting from taken",
        params=(),
        columns=(),
        shard="all, of a test",
    )
    async with PostgresSaver.from_conn_string(dsn) as saver:
        sessions = Sessions(saver.db)

        async def limits_under(work: Awaitable[object]) -> list[str]:
            await work
            return [row["setting"] for row in await saver.db.fetch(take)]

        for thread in ("deleted", *["pruned"] * 2, *["kept"] * 2, "of a run", "expired"):
            run: Any = {"run_id": "r"} if thread == "of a run" else {}
            assert await limits_under(aput(saver, thread, run, c=1)) == ["1min"]
        await sessions.update("expired", expires_at=datetime.now(UTC))
        idle = RetentionPolicy(max_idle=timedelta(microseconds=1))
        for work in (
            saver.adelete_thread("deleted"),
            saver.acopy_thread("pruned", "copied"),
            saver.aprune(["pruned"]),
            saver.adelete_for_runs(["r"]),
            sessions.sweep(),
            sessions.sweep([RetentionPolicy(keep_last=1)]),
            sessions.sweep([idle]),
        ):
            assert await limits_under(work) == ["10min"]


async def test_looking_for_what_is_to_be_swept_takes_long(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes through all sessions, and has the time of a sweep."""
    many = "insert into agent_sessions (session_id, thread_id)"
    each = "select pgsaga_session_id(n::text), n::text from generate_series(1, 20000) n"
    await execute(dsn, f"{many} {each}")
    async with Database(dsn) as db:
        found = sweep.Sweep(db, "", sweep.scoped([RetentionPolicy(keep_last=1)]), 100, None)
        assert len(await anext(found._pages(found._scopes[0]))) == 1000
        monkeypatch.setattr(sweep, "LONG", Limits(statement_seconds=0.001))
        for look in (found.count(), anext(found._pages(found._scopes[0]))):
            with pytest.raises(StatementTimeoutError):
                await look


async def test_reading_all_that_was_said_takes_long(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tree and an export have the time of a sweep; a page of rows has a put's."""
    many = (
        "insert into agent_messages (session_id, message_no, message_id, message_type, role,"
        " content, metadata, digest, payload_type, payload)"
        " select pgsaga_session_id('t'), n, n::text, 'ai', 'assistant', 'word', '{}',"
        " decode(md5(n::text), 'hex'), 'msgpack', '' from generate_series(1, 5000) n"
    )
    await execute(dsn, many)
    async with PostgresSaver.from_conn_string(dsn) as saver:
        await Sessions(saver.db).create("t")
        messages = Messages(saver)
        assert await messages.export(io.StringIO(), thread_id="t") == 5000
        assert len((await messages.tree("t")).roots) == 5000
        monkeypatch.setattr(messages_module, "LONG", Limits(statement_seconds=0.001))
        for reading in (messages.export(io.StringIO(), thread_id="t"), messages.tree("t")):
            with pytest.raises(StatementTimeoutError):
                await reading
        assert len((await messages.rows("t", limit=1000)).rows) == 1000


# Locks


async def test_a_lock_that_is_held_ends_a_put_and_nobody_elses(
    dsn: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error tells who holds it, and no word of what they do; other sessions' puts go on. The
    log tells how many were held up. Of a session's calls none is tried behind one that failed."""
    tried: list[str] = []
    store_alone = CallStore.store_alone

    async def noted(store: CallStore, call: Any, **options: Any) -> None:
        tried.append(call.thread_id)
        await store_alone(store, call, **options)

    monkeypatch.setattr(CallStore, "store_alone", noted)
    held, *others = threads_of_one_lane(4)
    async with PostgresSaver.from_conn_string(dsn, lock_timeout_seconds=0.5) as saver:
        for thread in (held, *others):
            await aput(saver, thread, c="before")
        async with session_held(dsn, held):
            begun = time.monotonic()
            names = [held, held, *others]
            puts = [aput(saver, name, c="after") for name in names]
            results = await asyncio.gather(*puts, return_exceptions=True)
            taken = time.monotonic() - begun
        first, second, *rest = results
        for error in (first, second):
            assert isinstance(error, LockTimeoutError)
            assert "nightly job), idle in transaction since 20" in str(error)
            assert "hidden words" not in str(error)
        assert [isinstance(result, dict) for result in rest] == [True] * 3
        assert "5 calls waited in vain" in caplog.text
        assert tried == [held, *others]
        assert 0.5 <= taken < 5
        assert await stored_values(saver, held) == {"c": "before"}
        assert await stored_values(saver, others[0]) == {"c": "after"}
        await aput(saver, held, c="again")
        assert await stored_values(saver, held) == {"c": "again"}


async def test_a_migration_lets_others_go_first(
    dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It waits for a table only for a short time, and tries again: who comes later needn't wait
    for the long transaction that it waits for."""
    monkeypatch.setattr(migrations, "_TABLE_MILLISECONDS", 200)
    monkeypatch.setattr(migrations, "_LOCKING_PAUSE_SECONDS", 0.1)
    last = load_migrations()[-1].version + 1
    sql = "alter table {schema}.agent_sessions add column more int"
    wanted = [*load_migrations(), Migration(version=last, name=f"{last:04}_more", sql=sql)]
    async with PostgresSaver.from_conn_string(dsn) as saver:
        await aput(saver, "t", c=1)
        async with session_held(dsn, "t"):
            migrating = asyncio.create_task(migrate(saver.db, migrations=wanted))
            async with asyncio.timeout(HANG_SECONDS):
                while "tries again" not in caplog.text:
                    await asyncio.sleep(0.01)
            await aput(saver, "other", c=1)
            assert not migrating.done()
        assert [m.version for m in await migrating] == [last]
    assert "nightly job" in caplog.text


async def test_a_migration_gives_up_in_the_end(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says who has the table."""
    monkeypatch.setattr(migrations, "_TABLE_MILLISECONDS", 50)
    monkeypatch.setattr(migrations, "_LOCKING_SECONDS", 0)
    last = load_migrations()[-1].version + 1
    sql = "alter table {schema}.agent_sessions add column more int"
    wanted = [*load_migrations(), Migration(version=last, name=f"{last:04}_more", sql=sql)]
    async with PostgresSaver.from_conn_string(dsn) as saver:
        await aput(saver, "t", c=1)
        async with session_held(dsn, "t"):
            with pytest.raises(LockTimeoutError, match="nightly job"):
                await migrate(saver.db, migrations=wanted)


# Statements


async def test_a_statement_that_takes_too_long_is_rolled_back(dsn: str) -> None:
    """The server ends it, which is certain, and the connection goes on."""
    async with Database(dsn, max_size=1, statement_timeout_seconds=0.2) as db:
        with pytest.raises(StatementTimeoutError) as caught:
            await db.fetch(_SLEEP.bind(seconds=60.0))
        assert caught.value.sqlstate == "57014"
        assert await db.fetch(_SLEEP.bind(seconds=0.0))


async def test_work_in_a_transaction_ends_as_well(dsn: str) -> None:
    """With the same error, and nothing of it is there."""
    async with Database(dsn, statement_timeout_seconds=0.2) as db:
        insert = Statement(
            name="i",
            text="create table left_over (a int)",
            params=(),
            columns=(),
            shard="all, of a test",
        )

        async def work(conn: Connection) -> None:
            await db.fetch(insert, conn=conn)
            await db.fetch(_SLEEP.bind(seconds=60.0), conn=conn)

        with pytest.raises(StatementTimeoutError):
            await db.run(work)
        await db.fetch(insert)


# Servers and networks that stand still


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client waits but shortly for a server that should have answered."""
    monkeypatch.setattr(connection, "_GRACE_SECONDS", 0.3)
    monkeypatch.setattr(connection, "CANCEL_SECONDS", 0.5)


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize("in_transaction", [False, True])
async def test_a_network_that_swallows_everything_ends_the_call(
    dsn: str, in_transaction: bool
) -> None:
    """The error says what happened; what was acknowledged is there, and calls go on after it."""
    with Proxy(dsn) as proxy:
        options: Any = {"statement_timeout_seconds": 0.3, "connect_timeout_seconds": 1}
        async with PostgresSaver.from_conn_string(proxy.dsn(), **options) as saver:
            await aput(saver, "t", c="acknowledged")
            proxy.swallows = True
            begun = time.monotonic()
            with pytest.raises(NoAnswerError, match="isn't known"):
                await (saver.adelete_thread("t") if in_transaction else aput(saver, "t", c="lost"))
            assert time.monotonic() - begun < 10
            proxy.swallows = False
            assert await stored_values(saver, "t") == {"c": "acknowledged"}
            await aput(saver, "t", c="next")
            assert await stored_values(saver, "t") == {"c": "next"}


@pytest.mark.usefixtures("short_grace")
async def test_a_server_process_that_stands_still_ends_the_call(dsn: str) -> None:
    """It is stopped under the call, and goes on later: nothing is lost, nothing is there twice."""
    options: Any = {"statement_timeout_seconds": 0.3, "max_size": 1}
    async with PostgresSaver.from_conn_string(dsn, **options) as saver:
        await aput(saver, "t", c="acknowledged")
        async with saver.db.transaction() as conn:
            pid = conn.get_server_pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(NoAnswerError):
                await aput(saver, "t", c="unknown")
            # On a new connection.
            assert await stored_values(saver, "t") == {"c": "acknowledged"}
        finally:
            os.kill(pid, signal.SIGCONT)
        await aput(saver, "t", c="last")
        assert await stored_values(saver, "t") == {"c": "last"}


@pytest.mark.usefixtures("short_grace")
async def test_a_loop_that_was_held_up_is_no_server_that_stands_still(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What answered while an async node blocked the loop isn't given up, nor told to wait."""
    async with Database(dsn, max_size=1, statement_timeout_seconds=0.3) as db:
        await db.fetch(_SLEEP.bind(seconds=0.0))
        sent, begin = asyncio.Event(), watch.Wait.begin

        def begin_and_tell(wait: watch.Wait, *given: Any) -> None:
            begin(wait, *given)
            asyncio.get_running_loop().call_soon(sent.set)

        monkeypatch.setattr(watch.Wait, "begin", begin_and_tell)
        call = asyncio.create_task(db.fetch(_SLEEP.bind(seconds=0.1)))
        await sent.wait()
        time.sleep(2 * watch._LOOK_SECONDS)  # noqa: ASYNC251 - as such a node does
        assert await call


async def test_a_look_passes_over_a_connection_that_is_lost(dsn: str) -> None:
    """The pool has let go of it just now, and its call ends: the looks go on."""
    async with Database(dsn) as db:
        async with db.transaction() as connection:
            wait = watch.Watch(None).wait("a statement", watch.FOR_SERVER)
            wait.begin("a statement", connection)
        wait.look(time.monotonic() + HANG_SECONDS)
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_a_call_waits_for_a_connection_only_so_long(dsn: str) -> None:
    """A pool whose connections are all in use says so."""
    async with Database(dsn, max_size=1, acquire_timeout_seconds=0.1) as db, db.transaction():
        with pytest.raises(ServerConnectionError, match="all 1 were busy"):
            await db.fetch(_SLEEP.bind(seconds=0.0))
