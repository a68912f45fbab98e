"""What an encrypting saver doesn't show, and what no log holds."""

from __future__ import annotations

import asyncio
import logging
import re
import traceback
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import ormsgpack
import pytest
from langchain_core.messages import AIMessage, AnyMessage, ChatMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.serde.base import CipherProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import (
    CorruptValueError,
    UnstorableValueError,
)
from langgraph_pgsaga.sync import Sessions
from langgraph_pgsaga.takeover import ReadThroughSaver, import_threads
from langgraph_pgsaga.timetravel import name_checkpoint
from tests.conftest import execute, fetch
from tests.db._puts import config_of, put, stored
from tests.db._secrets import (
    PLACES,
    ROOT,
    SECRET,
    columns_of,
    columns_with,
    encrypted,
    read_all,
    touch,
)


class Chat(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    small: Any
    big: Any


def answer(state: Chat) -> Chat:
    call = {"name": f"{SECRET} tool", "args": {SECRET: SECRET}, "id": f"{SECRET} id"}
    return {
        "messages": [
            AIMessage(f"{SECRET} answer", tool_calls=[call], id=f"{SECRET} ai"),
            ToolMessage(f"{SECRET} result", tool_call_id=f"{SECRET} id", name=SECRET),
            ChatMessage(content=f"{SECRET} chat", role=f"{SECRET} role", name=SECRET),
        ],
        "small": SECRET,
        "big": [SECRET] * 500,
    }


def approve(state: Chat) -> Chat:
    return {"small": interrupt({"question": SECRET})}


def run_chat(saver: PostgresSaver) -> None:
    """A run with secrets wherever a user may have them, left waiting at an interrupt."""
    builder = StateGraph(Chat)
    builder.add_node("answer", answer)
    builder.add_node("approve", approve)
    builder.add_edge(START, "answer")
    builder.add_edge("answer", "approve")
    builder.add_edge("approve", END)
    graph = builder.compile(checkpointer=saver)
    for thread_id in ("t", "u"):
        config: Any = {
            "configurable": {"thread_id": thread_id, "tenant": SECRET},
            "metadata": {"note": SECRET, "user_id": "someone", SECRET: 1},
        }
        graph.invoke({"messages": [HumanMessage(SECRET, name=SECRET)], "small": SECRET}, config)
    graph.invoke(Command(resume=SECRET), config)
    assert graph.get_state(config).values["small"] == SECRET
    assert graph.get_state(config).values["messages"][0].content == SECRET


@pytest.fixture
def encrypting(dsn: str) -> Iterator[PostgresSaver]:
    with PostgresSaver.from_conn_string(dsn, serde=encrypted()) as saver:
        yield saver


def tables_of(dsn: str) -> list[str]:
    rows = fetch(dsn, "select tablename from pg_tables where schemaname = 'public'")
    return [row[0] for row in rows]


def leaks(dsn: str) -> set[str]:
    """Where the secret is found: in rows as text, in bytea columns, in the files on disk."""
    needle, found = SECRET.encode(), set()
    hexed = needle.hex()
    for table in tables_of(dsn):
        rows = fetch(dsn, f"select t::text from {table} t")
        found |= {f"{table} row" for row in rows if SECRET in row[0] or hexed in row[0]}
    fetch(dsn, "checkpoint")
    files = fetch(
        dsn,
        "select relname, pg_read_binary_file(pg_relation_filepath(oid), 0, 100000000, true) as body"
        " from pg_class where relkind in ('r', 'i', 't') and oid >= 16384",
    )
    return found | {f"{row['relname']} file" for row in files if needle in (row["body"] or b"")}


def test_the_search_finds_what_is_in_clear(dsn: str) -> None:
    """Without encryption the same run does leave the secret in rows and files."""
    with PostgresSaver.from_conn_string(dsn) as saver:
        run_chat(saver)
    found = leaks(dsn)
    for table in ("agent_messages", "agent_states", "agent_sessions", "agent_state_writes"):
        assert f"{table} row" in found
    assert "agent_messages file" in found


def test_nothing_is_in_clear_under_encryption(dsn: str, encrypting: PostgresSaver) -> None:
    """Neither content, names, roles, ids, arguments nor metadata, in rows or on disk."""
    run_chat(encrypting)
    assert len(fetch(dsn, "select 1 from agent_messages")) == 8
    assert leaks(dsn) == set()


class Shouted(AIMessage):
    """A message whose type is a field, as any user's may be."""

    type: str = SECRET  # type: ignore[assignment]


class Places:
    """A secret of its own for each place where a user or an application may put one."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self) -> str:
        self._count += 1
        return f"{SECRET}-{self._count}"


def run_everywhere(saver: PostgresSaver) -> None:
    """A graph with subgraphs, and a session, that have a secret in every name and value."""
    place = Places()
    node, subgraph, channel, thread_id, tenant = place(), place(), place(), place(), place()
    fields = {"messages": Annotated[list[AnyMessage], add_messages], channel: Any, "big": Any}
    state: Any = TypedDict("State", fields, total=False)  # type: ignore[misc]

    def work(_: Any) -> Any:
        message = Shouted(
            content=place(), id=place(), name=place(), additional_kwargs={place(): place()}
        )
        chat = ChatMessage(content=place(), role=place())
        return {"messages": [message, chat], channel: place(), "big": [place()] * 500}

    def ask(_: Any) -> Any:
        return {channel: interrupt({place(): place()})}

    inner: Any = StateGraph(state)
    middle: Any = StateGraph(state)
    outer: Any = StateGraph(state)
    asking = inner.add_node(node, ask).add_edge(START, node).compile()
    calling = middle.add_node(subgraph, asking).add_edge(START, subgraph).compile()
    outer.add_node(node, work).add_node(subgraph, calling)
    graph = outer.add_edge(START, node).add_edge(node, subgraph).compile(checkpointer=saver)
    config: Any = {
        "configurable": {"thread_id": thread_id, "tenant_id": tenant},
        "metadata": {place(): place(), "user_id": place(), "agent_type": place(), "priority": 7},
        "tags": [place()],
        "run_name": place(),
    }
    graph.invoke({"messages": [HumanMessage(place())], channel: place()}, config)
    name_checkpoint(graph, config, place())
    graph.invoke(Command(resume=place()), config)
    Sessions(saver.db, tenant=tenant).update(thread_id, metadata={place(): place()})


# Events and memories aren't the saver's, nor are a store's items and what runs in the background.
NOT_THE_SAVERS = {
    *("agent_events", "agent_jobs", "agent_memory"),
    *("agent_store_items", "agent_workers"),
}


def documented_columns() -> list[set[tuple[str, str]]]:
    """The columns of the page's table: as given, made, and not in clear."""
    page = (ROOT / "docs" / "saver.md").read_text("utf-8")
    table = page.partition("| in clear, as it was given |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1:5] for line in table.splitlines() if line.startswith("| agent_")]
    return [
        {
            (row[0].strip(), name)
            for row in rows
            for name in re.sub(r"\(.*?\)", "", row[number]).replace(",", " ").split()
        }
        for number in (1, 2, 3)
    ]


def test_what_stands_in_clear_under_encryption_is_documented(
    dsn: str, encrypting: PostgresSaver
) -> None:
    """The page lists every column, and those with a secret are those that it says."""
    run_everywhere(encrypting)
    given, made, sealed = documented_columns()
    assert given | made | sealed == {c for c in columns_of(dsn) if c[0] not in NOT_THE_SAVERS}
    assert columns_with(dsn, SECRET) == given - {("agent_sessions", "priority")}
    assert fetch(dsn, "select priority from agent_sessions")[0][0] == 7
    empty = {"message_id": None, "message_type": "", "role": "", "content": "", "metadata": "{}"}
    rows = fetch(dsn, f"select distinct {', '.join(empty)} from agent_messages")
    assert [dict(row) for row in rows] == [empty]


def test_a_forged_clear_value_is_refused(dsn: str, encrypting: PostgresSaver) -> None:
    """What isn't encrypted isn't read: a value, a message, a write, the checkpoint or a part."""
    clear = ormsgpack.packb("forged")
    forgeries: list[tuple[str, tuple[Any, ...]]] = [
        (PLACES["value"], ("msgpack", clear)),
        (PLACES["message"], ("msgpack", clear)),
        (PLACES["write"], ("msgpack", clear)),
        (PLACES["exact"], ("msgpack", clear)),
        ("update agent_states set exact = null, exact_type = null", ()),
        (
            "update agent_states set state_data = jsonb_set(state_data, '{channel_values}', $1)",
            ('{"c": "forged"}',),
        ),
    ]
    for statement, arguments in forgeries:
        values = {"c": [1], "messages": [HumanMessage("hi")]}
        config = put(encrypting, config_of("t"), values)
        encrypting.put_writes(config, [("c", [2])], "task")
        assert stored(encrypting, config)
        fetch(dsn, statement, *arguments)
        # Another process: this one remembers the message.
        with PostgresSaver.from_conn_string(dsn, serde=encrypting.serde) as reader:
            for read in read_all(reader):
                with pytest.raises(CorruptValueError, match="encrypted"):
                    read()
        encrypting.delete_thread("t")


def test_a_forged_seed_is_not_read(dsn: str, encrypting: PostgresSaver) -> None:
    """The history of delta channels takes no value from the clear part of a checkpoint."""
    config = put(encrypting, put(encrypting, config_of("t"), {"c": [1]}), {})
    forge = "update agent_states set state_data = jsonb_set(state_data, '{channel_values}', $1)"
    fetch(dsn, forge, '{"c": "forged"}')
    history = encrypting.get_delta_channel_history(config=config, channels=["c"])
    assert history["c"].get("seed") == [1]


def test_another_key_reads_nothing(encrypting: PostgresSaver) -> None:
    """It is told as a corrupt value; the keys' and the payload's bytes are in no message."""
    put(encrypting, config_of("t"), {"c": SECRET})
    other = PostgresSaver(encrypting.db, serde=encrypted(b"fedcba9876543210"))
    for read in read_all(other):
        with pytest.raises(CorruptValueError, match="another key") as caught:
            read()
        assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_threads_in_clear_are_encrypted_by_an_import(dsn: str) -> None:
    """An encrypting saver names the way, which leads to the same state in another schema."""
    with (
        PostgresSaver.from_conn_string(dsn) as clear,
        PostgresSaver.from_conn_string(dsn, schema="sealed", serde=encrypted()) as sealed,
    ):
        sealed.setup()
        values = {"messages": [HumanMessage(SECRET, id="m1")], "c": [SECRET]}
        configs = {name: put(clear, config_of(name), values) for name in ("moved", "read through")}
        with pytest.raises(CorruptValueError, match="into another schema"):
            PostgresSaver(clear.db, serde=encrypted()).get_tuple(configs["moved"])

        report = asyncio.run(import_threads(clear, sealed, thread_ids=["moved"]))
        assert not report.failed
        ReadThroughSaver(sealed, clear).put_writes(configs["read through"], [("c", [1])], "task")
        for config in configs.values():
            assert stored(sealed, config).checkpoint == stored(clear, config).checkpoint
        rows = fetch(dsn, "select m::text from sealed.agent_messages m")
        assert len(rows) == 2
        assert SECRET not in str(rows)


class KeyRing(CipherProtocol):
    """Encrypts with the first key; its bytes say nothing, since a test needs no secrecy."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return self.names[0], self.names[0].encode() + plaintext[::-1]

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        if ciphername not in self.names or not ciphertext.startswith(ciphername.encode()):
            raise ValueError(ciphername)
        return ciphertext.removeprefix(ciphername.encode())[::-1]


def test_keys_are_rotated_by_a_cipher_that_names_them(dsn: str) -> None:
    """What an earlier key encrypted is read beside what a later one did, in one thread."""
    config = config_of("t")
    for number, names in enumerate([("one",), ("two", "one"), ("three", "two", "one")]):
        serde = EncryptedSerializer(KeyRing(*names))
        with PostgresSaver.from_conn_string(dsn, serde=serde) as saver:
            said = [HumanMessage("hello", id=f"m{n}") for n in range(number + 1)]
            config = put(saver, config, {"messages": said, "c": ["x" * 3000]})
            assert stored(saver, config).checkpoint["channel_values"]["messages"] == said
            history = list(saver.list(config_of("t")))
            assert [len(found.checkpoint["channel_values"]["messages"]) for found in history] == [
                *range(number + 1, 0, -1)
            ]
    types = fetch(dsn, "select distinct payload_type as type from agent_messages order by 1")
    assert [row["type"].partition("+")[2] for row in types] == ["one", "three", "two"]


def test_filters_work_under_encryption(encrypting: PostgresSaver) -> None:
    """On what stays in clear and on what doesn't, together and page after page."""
    for number in range(70):
        metadata = {"step": number % 2, "tenant": f"tenant {number % 7}", "deep": {"a": [number]}}
        put(encrypting, config_of("t"), {}, metadata)

    def count(filter_: dict[str, Any], **options: Any) -> int:
        return len(list(encrypting.list(None, filter=filter_, **options)))

    assert count({"step": 1}) == 35
    assert count({"tenant": "tenant 3"}) == 10
    assert count({"tenant": "tenant 3", "step": 1}) == 5
    assert count({"tenant": "tenant 3"}, limit=4) == 4
    assert count({"deep": {"a": [69]}}) == 1
    assert count({"tenant": "nobody"}) == 0
    assert count({"nothing": None}) == 0


# --- logs -----------------------------------------------------------------------


def test_logs_hold_no_payload_and_no_password(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """Not even at DEBUG, through a run, a refused value, a wrong type and an unreachable server."""
    caplog.set_level(logging.DEBUG)
    for name in ("asyncio", "asyncpg", "langgraph", "langgraph_pgsaga"):
        caplog.set_level(logging.DEBUG, logger=name)
    with PostgresSaver.from_conn_string(dsn) as saver:
        run_chat(saver)
        with pytest.raises(UnstorableValueError):
            put(saver, config_of("t"), {"c": [SECRET, touch]})
        asyncio.run(execute(dsn, "update agent_state_values set type = 'pickle'"))
        with pytest.raises(CorruptValueError):
            saver.get_tuple(config_of("t"))
    gone = f"postgresql://u:{SECRET}@127.0.0.1:1/db"
    with PostgresSaver.from_conn_string(gone) as saver, pytest.raises(Exception, match="reach"):
        saver.setup()
    logging.getLogger().debug("the end")
    assert "the end" in caplog.text
    assert SECRET not in caplog.text


SWAPS = {
    "to another channel": (
        (
            "update agent_state_values set payload = (select payload from agent_state_values "
            "where channel = 'theirs') where channel = 'mine'"
        ),
        ["b"],
    ),
    "of type": (
        (
            "update agent_state_values set type = replace(type, 'msgpack', 'bytes') "
            "where channel = 'mine'"
        ),
        ormsgpack.packb(["a"]),
    ),
    "to nothing": (
        (
            "update agent_state_values set type = replace(type, 'msgpack', 'null') "
            "where channel = 'mine'"
        ),
        None,
    ),
}


@pytest.mark.parametrize(("change", "found"), SWAPS.values(), ids=SWAPS)
def test_what_encryption_does_not_tell(dsn: str, change: str, found: Any) -> None:
    """A cipher is told neither where a value stands nor of which type it is, as in LangGraph:
    whoever may write rows can swap values and their types, but make none of their own."""
    with PostgresSaver.from_conn_string(dsn, serde=encrypted()) as saver:
        config = put(saver, config_of("t"), {"mine": ["a"], "theirs": ["b"]})
        asyncio.run(execute(dsn, change))
        assert stored(saver, config).checkpoint["channel_values"]["mine"] == found
        asyncio.run(execute(dsn, "update agent_state_values set payload = payload || '\\x00'"))
        with pytest.raises(CorruptValueError):
            stored(saver, config)
