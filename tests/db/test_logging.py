"""What the log tells: waiting, slowness and losses; and never what is stored, nor a DSN."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

from langgraph_pgsaga import Database, PostgresSaver, sync
from langgraph_pgsaga.checkpoint import lease_block
from langgraph_pgsaga.database import Statement, watch
from langgraph_pgsaga.errors import LeaseLostError, PgSagaError, ThreadLeasedError
from langgraph_pgsaga.sessions import RetentionPolicy
from langgraph_pgsaga.timetravel import history
from tests._limits import HANG_SECONDS
from tests.conftest import execute
from tests.db._gates import end_leases
from tests.db._puts import checkpoint_of, config_of, put

pytestmark = pytest.mark.anyio

MARKER = "marker7f3a"
_SLEEP = Statement(
    name="sleep_some",
    text="select pg_sleep($1)",
    params=(("seconds", "float8"),),
    columns=(),
    shard="all, of a test",
)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG, "langgraph_pgsaga"):
        yield caplog


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes a moment is long."""
    monkeypatch.setattr(watch, "_LONG_SECONDS", 0.1)
    monkeypatch.setattr(watch, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(watch, "_TOLD_EVERY_SECONDS", 0.0)


async def _until(log: pytest.LogCaptureFixture, words: str) -> str:
    """The line with these words, once it is there."""
    async with asyncio.timeout(HANG_SECONDS):
        while True:
            for record in log.records:
                if words in record.getMessage():
                    assert record.levelno == logging.WARNING
                    return record.getMessage()
            await asyncio.sleep(0.01)


async def test_a_slow_statement_is_named(dsn: str, log: pytest.LogCaptureFixture) -> None:
    """By its name alone."""
    async with Database(dsn, slow_seconds=0.05) as db:
        await db.fetch(_SLEEP.bind(seconds=0.1))
        async with db.transaction() as conn:
            await db.fetch(_SLEEP.bind(seconds=0.1), conn=conn)
    told = [record.getMessage() for record in log.records]
    assert [line.startswith("statement sleep_some took 0.") for line in told] == [True, True]


async def test_waiting_for_a_lock_is_told_while_it_lasts(
    dsn: str, log: pytest.LogCaptureFixture, impatient: None
) -> None:
    """One line for all calls that wait."""
    holder = await asyncpg.connect(dsn)
    begun = holder.transaction()
    await begun.start()
    await holder.execute("lock table agent_sessions")
    async with PostgresSaver.from_conn_string(dsn, slow_seconds=None) as saver:
        reading = asyncio.create_task(saver.aget_tuple(config_of("t")))
        told = await _until(log, "get_checkpoint")
        assert "1 calls wait for the server's answer, or a lock there" in told
        await begun.rollback()
        await reading
    await holder.close()


async def test_waiting_for_a_connection_is_told(
    dsn: str, log: pytest.LogCaptureFixture, impatient: None
) -> None:
    """Who waits for the pool would else look as if the server were slow."""
    async with Database(dsn, max_size=1) as db, db.transaction():
        waiting = asyncio.create_task(db.fetch(_SLEEP.bind(seconds=0.0)))
        assert "a connection of the pool" in await _until(log, "sleep_some")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_waiting_for_a_lease_is_told(
    dsn: str, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session is named, not the thread."""
    monkeypatch.setattr(lease_block, "_TOLD_EVERY_SECONDS", 0.05)
    async with (
        PostgresSaver.from_conn_string(dsn) as saver,
        PostgresSaver.from_conn_string(dsn) as other,
        saver.lease(MARKER),
    ):
        with pytest.raises(ThreadLeasedError):
            async with other.lease(MARKER, wait_seconds=0.3):
                pass
    told = await _until(log, "its lease is waited for")
    assert MARKER not in told


async def test_a_lease_that_was_lost_is_told(dsn: str, log: pytest.LogCaptureFixture) -> None:
    """By its session, when whoever had it writes again."""
    async with (
        PostgresSaver.from_conn_string(dsn) as saver,
        PostgresSaver.from_conn_string(dsn) as other,
        saver.lease(MARKER),
    ):
        await end_leases(dsn)
        async with other.lease(MARKER):
            config: Any = config_of(MARKER, checkpoint_id="1")
            with pytest.raises(LeaseLostError):
                await saver.aput(config, checkpoint_of(saver, {}), {}, {})
    told = await _until(log, "a run lost its lease")
    assert MARKER not in told


async def test_sessions_that_others_changed_are_told(
    dsn: str, log: pytest.LogCaptureFixture
) -> None:
    """A statement that has to be sent again says so at INFO."""
    async with PostgresSaver.from_conn_string(dsn) as saver:
        for _ in range(2):
            await asyncio.to_thread(put, saver, config_of("t"), {"c": 1})
            await execute(dsn, "update agent_sessions set message_epoch = message_epoch + 1")
    (told,) = [record for record in log.records if "weren't as expected" in record.getMessage()]
    assert told.levelno == logging.INFO
    assert told.getMessage().startswith("1 of the 1 sessions in a statement ")


def test_leases_that_are_not_renewed_are_told(
    dsn: str, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run that holds one hears of it only when it writes."""
    monkeypatch.setattr(lease_block, "_next_due", lambda _: 0.0)
    with PostgresSaver.from_conn_string(dsn) as saver, saver.lease("t"):
        asyncio.run(execute(dsn, "alter table agent_sessions rename to away"))
        asyncio.run(_until(log, "weren't renewed: "))
        asyncio.run(execute(dsn, "alter table away rename to agent_sessions"))


class Chat(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    note: str


def _answer(_: Chat) -> dict[str, Any]:
    return {"messages": [AIMessage(f"answer {MARKER}")], "note": f"note {MARKER}"}


def _fail(_: Chat) -> dict[str, Any]:
    raise ValueError(MARKER)


def _graph(saver: PostgresSaver, node: Any) -> Any:
    builder = StateGraph(Chat)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    builder.add_edge("node", END)
    return builder.compile(checkpointer=saver)


def _with_password(dsn: str) -> str:
    """The DSN with a password, which the server doesn't ask for."""
    url = urlsplit(dsn)
    user = url.username or "postgres"
    return urlunsplit(url._replace(netloc=f"{user}:{MARKER}@{url.netloc.rpartition('@')[2]}"))


def test_nothing_that_is_stored_is_in_the_log(
    dsn: str, log: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Neither of values, messages, metadata, names and ids, nor of the DSN, whatever happens.

    Each statement of the run counts as slow, so each is told.
    """
    thread = f"thread {MARKER}"
    config: Any = {"configurable": {"thread_id": thread}, "metadata": {"key": MARKER}}
    lost = "update agent_sessions set message_epoch = message_epoch + 1"
    with PostgresSaver.from_conn_string(_with_password(dsn), slow_seconds=0.0) as saver:
        graph = _graph(saver, _answer)
        graph.invoke({"messages": [HumanMessage(f"question {MARKER}")]}, config)
        asyncio.run(execute(dsn, lost))
        graph.invoke({"messages": [HumanMessage(f"again {MARKER}")]}, config)
        with pytest.raises(ValueError, match=MARKER):
            _graph(saver, _fail).invoke({"note": MARKER}, config)
        put(saver, config_of(f"other {MARKER}"), {"large": MARKER * 10_000}, {"k": MARKER})
        sessions, messages = sync.Sessions(saver.db), sync.Messages(saver)
        sessions.update(thread, user_id=MARKER, metadata={"k": MARKER})
        sessions.list(user_id=MARKER, text=MARKER)
        messages.search(MARKER)
        messages.export(tmp_path / "file", full=True)
        [step.step for step in history(graph, config)]
        saver.copy_thread(thread, f"copy {MARKER}")
        for wrong in (
            lambda: saver.copy_thread(thread, f"copy {MARKER}"),
            lambda: sessions.create(thread, metadata={"k": MARKER}),
            lambda: put(saver, config_of(thread), {"lambda": lambda: MARKER}),
        ):
            with pytest.raises(PgSagaError):
                wrong()
        sessions.sweep([RetentionPolicy(keep_last=1)])
        asyncio.run(execute(dsn, "alter table agent_messages rename to away"))
        with pytest.raises(PgSagaError):
            graph.invoke({"messages": [HumanMessage(f"failing {MARKER}")]}, config)
        asyncio.run(execute(dsn, "alter table away rename to agent_messages"))
        saver.delete_thread(thread)
    told = [f"{record.getMessage()} {record.exc_text or ''}" for record in log.records]
    assert len(told) > 30
    assert [line for line in told if MARKER in line or "postgresql:" in line] == []
