"""What the saver's calls cost on the wire, counted by a proxy in front of the server."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Annotated, Any, TypedDict

import asyncpg
import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

from langgraph_pgsaga import Database, PostgresSaver
from tests._connections import connection_of
from tests._proxy import ClientMessages, Proxy, Traffic

pytestmark = pytest.mark.anyio

LARGE = "x" * 1_000_000
_numbers = itertools.count(1)


class Chat(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


class Thread:
    """Puts checkpoint after checkpoint on a thread and remembers the configs."""

    def __init__(self, saver: PostgresSaver, name: str = "thread") -> None:
        self.saver = saver
        self.config: RunnableConfig = {"configurable": {"thread_id": name, "checkpoint_ns": ""}}
        self.version: str | None = None

    async def put(self, **values: Any) -> None:
        """A child of `config` with these channel values, every one of them new."""
        self.version = self.saver.get_next_version(self.version, None)
        versions: dict[str, str | int | float] = dict.fromkeys(values, self.version)
        self.config = await self.saver.aput(
            self.config,
            _checkpoint(values, versions),
            {"source": "loop", "step": next(_numbers), "parents": {}},
            versions,
        )

    async def put_writes(self, *values: Any) -> None:
        writes = [(f"channel {number}", value) for number, value in enumerate(values)]
        await self.saver.aput_writes(self.config, writes, f"task {next(_numbers)}")


def _checkpoint(values: dict[str, Any], versions: dict[str, str | int | float]) -> Checkpoint:
    return {
        **empty_checkpoint(),
        "v": 4,  # LangGraph's own; formats before it kept their Sends elsewhere
        "channel_values": values,
        "channel_versions": versions,
    }


@pytest.fixture
def proxy(dsn: str) -> Iterator[Proxy]:
    with Proxy(dsn) as proxy:
        yield proxy


async def _warm_up(saver: PostgresSaver) -> None:
    """Lets the one connection of the pool prepare every statement."""
    thread = Thread(saver, "warm-up")
    await thread.put(messages=[HumanMessage("hi", id="0")], text=LARGE)
    await thread.put_writes("small")
    await thread.put_writes(LARGE)
    await thread.put()
    await thread.put(messages=[HumanMessage("hi", id="0"), AIMessage("hi", id="1")])
    await saver.aget_tuple(thread.config)


def _assert_one_each(traffic: Traffic) -> None:
    assert traffic.messages == [b"BES"], "anything but one Bind, Execute, Sync"
    assert (traffic.round_trips, traffic.statements) == (1, 1)


@pytest.mark.parametrize("sslmode", ["disable", "prefer"])
@pytest.mark.parametrize("step", [1, 3, 1 << 16])
def test_the_counter_reads_any_split_of_the_stream(sslmode: str, step: int) -> None:
    """Messages are told apart whatever the pieces they arrive in, negotiation or not."""
    ssl = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")
    startup = (8 + 6).to_bytes(4, "big") + (3 << 16).to_bytes(4, "big") + b"SQHE\0\0"
    typed = [b"Q" + (4 + 5).to_bytes(4, "big") + b"SSSS\0", b"S" + (4).to_bytes(4, "big")]
    stream = (ssl if sslmode == "prefer" else b"") + startup + b"".join(typed)
    messages = ClientMessages()
    for start in range(0, len(stream), step):
        messages.feed(stream[start : start + step])
    assert bytes(messages.types) == b"QS"
    assert messages.untyped[-1] == "StartupMessage"


@pytest.mark.parametrize("sslmode", ["disable", "prefer"])
async def test_the_counter_sees_every_round_trip(proxy: Proxy, sslmode: str) -> None:
    """A simple query, a transaction and a prepared statement are counted as what they are."""
    conn = await asyncpg.connect(proxy.dsn(sslmode))
    with proxy.recording() as simple:
        await conn.execute("select 1")
    with proxy.recording() as first:
        await conn.fetch("select $1::int", 1)
    with proxy.recording() as again:
        async with conn.transaction():
            await conn.fetch("select $1::int", 2)
    await conn.close()
    assert (simple.round_trips, simple.statements) == (1, 1)
    assert (first.round_trips, first.statements, first.messages) == (2, 1, [b"PDHBES"])
    assert (again.round_trips, again.statements, again.messages) == (3, 3, [b"QBESQ"])


async def test_put_is_one_round_trip(proxy: Proxy) -> None:
    """A put is one statement: first or later, small or large, messages or not, or a fork."""
    async with PostgresSaver.from_conn_string(proxy.dsn(), max_size=1) as saver:
        await _warm_up(saver)
        thread = Thread(saver)
        said: list[AnyMessage] = []
        configs = []
        for turn in range(4):
            said = [*said, HumanMessage(f"q{turn}", id=f"q{turn}"), AIMessage(f"a{turn}")]
            with proxy.recording() as traffic:
                await thread.put(messages=said, text=f"turn {turn}", large=LARGE * (turn + 1))
            _assert_one_each(traffic)
            configs.append(thread.config)
        with proxy.recording() as traffic:
            await thread.put()
        _assert_one_each(traffic)
        thread.config = configs[0]
        with proxy.recording() as traffic:
            await thread.put(messages=[*said[:2], HumanMessage("another way", id="q1")])
        _assert_one_each(traffic)
        fork = await saver.aget_tuple(thread.config)
        assert fork
        assert fork.parent_config
        assert fork.parent_config["configurable"] == configs[0]["configurable"]
        assert len(fork.checkpoint["channel_values"]["messages"]) == 3


async def test_put_of_a_thread_that_another_process_wrote(proxy: Proxy) -> None:
    """Once a saver has read a thread, as every run does first, its next put is one round
    trip; a put without that reading needs two more to learn what is there."""
    said: list[AnyMessage] = [HumanMessage(f"m{number}", id=str(number)) for number in range(5)]
    async with PostgresSaver.from_conn_string(proxy.dsn(), max_size=1) as other:
        thread = Thread(other)
        await thread.put(messages=said)
    async with PostgresSaver.from_conn_string(proxy.dsn(), max_size=1) as saver:
        await _warm_up(saver)
        thread.saver = saver
        said = [*said, AIMessage("answer", id="5")]
        with proxy.recording() as unread:
            await thread.put(messages=said)
        assert (unread.round_trips, unread.statements) == (4, 3), "one prepares the question"
    async with PostgresSaver.from_conn_string(proxy.dsn(), max_size=1) as saver:
        await _warm_up(saver)
        await saver.aget_tuple(thread.config)
        thread.saver = saver
        with proxy.recording() as traffic:
            await thread.put(messages=[*said, HumanMessage("and then?", id="6")])
        _assert_one_each(traffic)
        found = await saver.aget_tuple(thread.config)
        assert found
        assert len(found.checkpoint["channel_values"]["messages"]) == 7


async def test_put_writes_is_one_round_trip(proxy: Proxy) -> None:
    """A put_writes is one statement, with many writes, with large ones, and of errors."""
    async with PostgresSaver.from_conn_string(proxy.dsn(), max_size=1) as saver:
        await _warm_up(saver)
        thread = Thread(saver)
        await thread.put(text="t")
        for values in (["small"], [LARGE], ["small", LARGE, HumanMessage("m")], [1] * 50):
            with proxy.recording() as traffic:
                await thread.put_writes(*values)
            _assert_one_each(traffic)
        with proxy.recording() as traffic:
            await saver.aput_writes(thread.config, [("__error__", "it broke")], "t", "~path")
        _assert_one_each(traffic)


async def test_get_tuple_is_one_round_trip(proxy: Proxy) -> None:
    """A get_tuple is one statement, with values, messages, blobs and pending writes."""
    async with PostgresSaver.from_conn_string(proxy.dsn(), max_size=1) as saver:
        await _warm_up(saver)
        thread = Thread(saver)
        await thread.put(messages=[HumanMessage("m", id="1")], large=LARGE, text="t")
        older = thread.config
        await thread.put(messages=[HumanMessage("m", id="1"), AIMessage("n")])
        await thread.put_writes("small", LARGE)
        latest: RunnableConfig = {"configurable": {"thread_id": "thread"}}
        missing: RunnableConfig = {"configurable": {"thread_id": "nobody"}}
        for config in (latest, thread.config, older, missing):
            with proxy.recording() as traffic:
                found = await saver.aget_tuple(config)
            _assert_one_each(traffic)
            assert (found is None) == (config is missing)
        written = await saver.aget_tuple(latest)
        assert written
        assert [w[2] for w in written.pending_writes or []] == ["small", LARGE]


def test_sync_calls_cost_the_same(proxy: Proxy) -> None:
    """put, put_writes and get_tuple of sync callers are one round trip each as well."""
    with PostgresSaver.from_conn_string(proxy.dsn(), max_size=1) as saver:
        saver.db.portal.call(_warm_up, saver)
        config: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
        versions: dict[str, str | int | float] = {"text": saver.get_next_version(None, None)}
        with proxy.recording() as traffic:
            config = saver.put(config, _checkpoint({"text": LARGE}, versions), {}, versions)
        _assert_one_each(traffic)
        with proxy.recording() as traffic:
            saver.put_writes(config, [("text", "a")], "task")
        _assert_one_each(traffic)
        with proxy.recording() as traffic:
            assert saver.get_tuple(config)
        _assert_one_each(traffic)


async def test_a_schema_with_the_longest_name_costs_the_same(empty_dsn: str) -> None:
    """The statements stay short enough for the driver's cache, however long the schema's name."""
    with Proxy(empty_dsn) as proxy:
        db = Database(proxy.dsn(), schema='"' * 63, max_size=1)
        async with db:
            saver = PostgresSaver(db)
            await saver.asetup()
            await _warm_up(saver)
            thread = Thread(saver)
            with proxy.recording() as traffic:
                await thread.put(messages=[HumanMessage("m")], text="t")
            _assert_one_each(traffic)
            with proxy.recording() as traffic:
                await saver.aget_tuple(thread.config)
            _assert_one_each(traffic)


@pytest.mark.parametrize(
    "call",
    [
        lambda thread: thread.put(messages=[HumanMessage("m", id="1")], large=LARGE),
        lambda thread: thread.put_writes("small"),
        lambda thread: thread.put_writes(LARGE),
        lambda thread: thread.saver.aget_tuple(thread.config),
    ],
    ids=["put", "put_writes", "put_large_writes", "get_tuple"],
)
async def test_behind_a_pooler_it_is_one_round_trip_more(
    proxy: Proxy, call: Callable[[Thread], Any]
) -> None:
    """With pooler=True: one statement, no named one, and a second round trip to describe it.

    There is no Sync between the two, so a pooler can't change the server in the middle.
    """
    async with PostgresSaver.from_conn_string(proxy.dsn(), max_size=1, pooler=True) as saver:
        await _warm_up(saver)
        thread = Thread(saver)
        await thread.put(text="t")
        with proxy.recording() as traffic:
            await call(thread)
        [sent] = traffic.messages
        assert sent.count(b"S") == 1
        assert sent.endswith(b"S")
        assert (traffic.round_trips, traffic.statements) == (2, 1)


def _chat_graph(saver: PostgresSaver) -> Any:
    builder = StateGraph(Chat)
    builder.add_node("answer", lambda state: {"messages": [AIMessage("yes")]})
    builder.add_node("check", lambda state: {"messages": [AIMessage("checked")]})
    builder.add_edge(START, "answer")
    builder.add_edge("answer", "check")
    builder.add_edge("check", END)
    return builder.compile(checkpointer=saver)


async def test_a_turn_of_a_chat_costs_its_checkpoints_and_tasks(proxy: Proxy, dsn: str) -> None:
    """A graph's run is one round trip to read and one per checkpoint: what tasks write goes
    with the checkpoint that they end in."""
    config: RunnableConfig = {"configurable": {"thread_id": "chat"}}
    async with PostgresSaver.from_conn_string(proxy.dsn(), max_size=1) as saver:
        graph = _chat_graph(saver)
        await graph.ainvoke({"messages": [HumanMessage("first")]}, config)
        before = await _stored(dsn)
        with proxy.recording() as traffic:
            await graph.ainvoke({"messages": [HumanMessage("second")]}, config)
        stored = await _stored(dsn) - before
    assert stored == 4 + 3, "input and three steps; the input, answer and check wrote"
    assert traffic.round_trips == traffic.statements == 1 + 4


async def _stored(dsn: str) -> int:
    """Checkpoints and tasks that wrote, in the database."""
    conn = await asyncpg.connect(dsn)
    try:
        count = await conn.fetchval(
            "select (select count(*) from agent_states)"
            " + (select count(distinct (checkpoint_id, task_id)) from agent_state_writes)"
        )
    finally:
        await conn.close()
    assert isinstance(count, int)
    return count


async def test_what_libpq_would_set_is_set_without_a_statement(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keepalives are the socket's, in a pool and outside; PGOPTIONS and the name the server's."""
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=3MB -c jit=on")
    parameters = "&keepalives_idle=77&fallback_application_name=mine"
    async with Database(proxy.dsn() + parameters) as db, AsyncExitStack() as stack:
        with proxy.recording() as traffic:
            connection = await stack.enter_async_context(connection_of(db))
        assert traffic.statements == 1  # which looks for limits of time
        pooled = await stack.enter_async_context(db.transaction())
        assert _keepalive(pooled) == _keepalive(connection) == (1, 77)
        for setting, value in (
            ("work_mem", "3MB"),
            ("jit", "on"),
            ("application_name", "mine"),
        ):
            assert await pooled.fetchval("select current_setting($1)", setting) == value


def test_keepalives_on_uvloop(proxy: Proxy) -> None:
    """Its sockets take no options; they are set all the same."""
    uvloop = pytest.importorskip("uvloop")

    async def kept() -> tuple[int, int]:
        url = f"{proxy.dsn()}&keepalives_idle=77"
        async with Database(url) as db, connection_of(db) as connection:
            return _keepalive(connection)

    assert uvloop.run(kept()) == (1, 77)


def _keepalive(connection: Any) -> tuple[int, int]:
    fd = connection._transport.get_extra_info("socket").fileno()
    with socket.socket(fileno=os.dup(fd)) as own:
        is_on = own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        return is_on, own.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
