"""What a forged row may not do, and what an encrypting saver doesn't show."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import ormsgpack
import pytest
from langchain_core.messages import AIMessage, AnyMessage, ChatMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import (
    BlockedTypeError,
    CorruptValueError,
    MissingTypeError,
    UnstorableValueError,
)
from langgraph_pgsaga.serde.serializer import SafeSerializer
from langgraph_pgsaga.sync import Sessions
from langgraph_pgsaga.takeover import ReadThroughSaver
from langgraph_pgsaga.timetravel import name_checkpoint
from tests.conftest import execute
from tests.db._puts import config_of, put, stored
from tests.db.test_schema import fetch

ROOT = Path(__file__).parents[2]
KEY = b"0123456789abcdef"
SECRET = "plaintext-nobody-may-read"

SetRow = Callable[[str, bytes], None]


@dataclass
class Order:
    number: int


@dataclass
class Refund:
    number: int


def encrypted(key: bytes = KEY) -> EncryptedSerializer:
    return EncryptedSerializer.from_pycryptodome_aes(key=key)


def forged(code: int, *parts: Any) -> bytes:
    """An extension of msgpack as LangGraph's serializer would have written it."""
    return ormsgpack.packb(ormsgpack.Ext(code, ormsgpack.packb(parts)))


class Empty:
    """A user's serializer of the kind that counts things, and has none yet."""

    def __len__(self) -> int:
        return 0

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        return "own", SafeSerializer().dumps_typed(obj)[1][::-1]

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        return SafeSerializer().loads_typed(("msgpack", data[1][::-1]))


class EmptyCipher:
    """A user's cipher that says of itself that it is false."""

    def __bool__(self) -> bool:
        return False

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return "xor", bytes(byte ^ 255 for byte in plaintext)

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        return bytes(byte ^ 255 for byte in ciphertext)


class EmptyEncrypted(EncryptedSerializer):
    """A user's own kind, and of length 0."""

    def __len__(self) -> int:
        return 0


@pytest.mark.parametrize(
    "serde",
    [Empty(), EncryptedSerializer(EmptyCipher()), EmptyEncrypted(EmptyCipher(), SafeSerializer())],
    ids=["serializer", "cipher", "encrypted"],
)
def test_a_serializer_that_counts_as_false_is_used(dsn: str, serde: Any) -> None:
    """What a user passed as serializer or cipher is used, whatever it says of its own truth."""
    with PostgresSaver.from_conn_string(dsn, serde=serde) as own:
        put(own, config_of("t"), {"c": [SECRET] * 500, "m": [HumanMessage(SECRET)]})
        through = ReadThroughSaver(own, InMemorySaver())

        assert columns_with(dsn, SECRET) == set()
        assert SECRET.encode() not in through.serde.dumps_typed([SECRET])[1]
        assert stored(own, config_of("t")).checkpoint["channel_values"]["c"] == [SECRET] * 500


# --- forged rows ----------------------------------------------------------------

PLACES = {
    "value": "update agent_state_values set type = $1, payload = $2, message_runs = null, "
    "blob_hashes = null where channel = 'c'",
    "blob": "with typed as (update agent_state_values set type = $1 where channel = 'big') "
    "update agent_state_blobs set payload = $2",
    "message": "update agent_messages set payload_type = $1, payload = $2",
    "write": "update agent_state_writes set type = $1, payload = $2, blob_hashes = null",
    "exact": "update agent_states set exact_type = $1, exact = $2",
}


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


def read_all(saver: PostgresSaver) -> list[Callable[[], Any]]:
    return [
        lambda: saver.get_tuple(config_of("t")),
        lambda: list(saver.list(None)),
    ]


def attacks(marker: Path) -> dict[str, tuple[str, str, Any, str | None]]:
    """Module, name, arguments and method of calls that would make the file."""
    code = f"open({str(marker)!r}, 'w').close()"
    return {
        "os.system": ("os", "system", f"touch {marker}", None),
        "subprocess.Popen": ("subprocess", "Popen", [["touch", str(marker)]], None),
        "subprocess.Popen by name": (
            "subprocess",
            "Popen",
            {"args": ["touch", str(marker)]},
            None,
        ),
        "builtins.eval": ("builtins", "eval", code, None),
        "own function": (__name__, "touch", str(marker), None),
        "method": ("pathlib", "Path", [str(marker)], "touch"),
    }


def touch(path: str) -> None:
    """A function of an imported module, for rows to name."""
    Path(path).touch()


def test_no_row_calls_anything(dsn: str, forge: SetRow, tmp_path: Path) -> None:
    """Whatever callable an extension code names, wherever: a typed error, and nothing ran."""
    marker = tmp_path / "ran"
    with PostgresSaver.from_conn_string(dsn) as saver:
        for body in attack_bodies(marker):
            forge("msgpack", body)
            for read in read_all(saver):
                with pytest.raises((BlockedTypeError, MissingTypeError, CorruptValueError)):
                    read()
    assert not marker.exists()


def attack_bodies(marker: Path) -> Iterator[bytes]:
    for code in range(7):
        for module, name, payload, method in attacks(marker).values():
            # Without its method, a path is a value like any other.
            if method and code != 3:
                continue
            for arguments in (payload, [payload], {"path": payload, "command": payload}):
                yield forged(code, module, name, arguments, method)


def test_other_formats_are_refused(dsn: str, forge: SetRow, tmp_path: Path) -> None:
    """A pickle that would make a file isn't loaded, nor is LangGraph's old JSON."""
    marker = tmp_path / "ran"
    bodies = {
        "pickle": f"cos\nsystem\n(S'touch {marker}'\ntR.".encode(),
        "json": json.dumps(
            {"lc": 2, "type": "constructor", "id": ["os", "system"], "args": [f"touch {marker}"]}
        ).encode(),
    }
    with PostgresSaver.from_conn_string(dsn) as saver:
        for type_ in ("pickle", "json", "yaml", "msgpack+aes"):
            forge(type_, bodies.get(type_, b"x"))
            for read in read_all(saver):
                with pytest.raises(CorruptValueError):
                    read()
    assert not marker.exists()


def test_a_row_imports_nothing(
    dsn: str, forge: SetRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that could be imported, but wasn't, stays so; the error says to import it."""
    (tmp_path / "row_named_this.py").write_text("class Thing: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with PostgresSaver.from_conn_string(dsn) as saver:
        for code in (0, 1, 2, 4, 5):
            forge("msgpack", forged(code, "row_named_this", "Thing", [] if code == 1 else {}))
            for read in read_all(saver):
                with pytest.raises(MissingTypeError, match="Import row_named_this"):
                    read()
    assert "row_named_this" not in sys.modules


# --- what may be loaded ---------------------------------------------------------


def test_strict_keeps_to_the_list(dsn: str) -> None:
    """An imported dataclass is a value by default; strict savers need it allowed to do either."""
    with PostgresSaver.from_conn_string(dsn) as saver:
        config = put(saver, config_of("t"), {"c": Order(1)})
        assert stored(saver, config).checkpoint["channel_values"] == {"c": Order(1)}
        strict = PostgresSaver(saver.db, strict=True)
        with pytest.raises(BlockedTypeError, match=r"Order.*allow=\[Order\]"):
            strict.get_tuple(config)
        with pytest.raises(UnstorableValueError, match=r"allow=\[Order\]"):
            put(strict, config_of("u"), {"c": Order(1)})
        for allow in ([Order], [(__name__, "Order")]):
            allowing = PostgresSaver(saver.db, strict=True, allow=allow)
            assert stored(allowing, config).checkpoint["channel_values"] == {"c": Order(1)}
            put(allowing, config_of("u"), {"c": Order(1)})
            with pytest.raises(UnstorableValueError):
                put(allowing, config_of("u"), {"c": Refund(1)})


def test_an_allowlist_is_a_view_of_the_same_saver(dsn: str) -> None:
    """with_allowlist shares the live pool, allows what it names, and leaves the saver strict."""
    with PostgresSaver.from_conn_string(dsn, strict=True, allow=[Refund]) as saver:
        put(saver, config_of("t"), {"c": Refund(1)})
        wider = saver.with_allowlist([(__name__, "Order")])
        assert wider.db is saver.db
        config = put(wider, config_of("t"), {"c": [Order(1), Refund(2)]})
        assert stored(wider, config).checkpoint["channel_values"]["c"] == [Order(1), Refund(2)]
        with pytest.raises(BlockedTypeError):
            saver.get_tuple(config)
        wider.close()
        assert saver.with_allowlist([]) is saver
        put(saver, config_of("t"), {"c": Refund(3)})


def test_a_missing_class_is_told(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that was renamed never becomes None: the error says to keep an alias."""
    with PostgresSaver.from_conn_string(dsn) as saver:
        config = put(saver, config_of("t"), {"c": Order(1)})
        monkeypatch.delattr(sys.modules[__name__], "Order")
        with pytest.raises(MissingTypeError, match="alias"):
            saver.get_tuple(config)


_STRICT_GRAPH = """
import sys
from dataclasses import dataclass
from typing import Any, TypedDict
from langgraph.graph import END, START, StateGraph
from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import BlockedTypeError, UnstorableValueError

@dataclass
class Declared:
    n: int

@dataclass
class Undeclared:
    n: int

class State(TypedDict, total=False):
    declared: Declared
    anything: Any

def run(saver, value, thread_id):
    builder = StateGraph(State)
    builder.add_node("a", lambda state: value)
    builder.add_edge(START, "a")
    builder.add_edge("a", END)
    graph = builder.compile(checkpointer=saver)
    config = {"configurable": {"thread_id": thread_id}}
    graph.invoke({"anything": 1}, config)
    assert {k: graph.get_state(config).values[k] for k in value} == value

with PostgresSaver.from_conn_string(sys.argv[1], strict=True) as saver:
    run(saver, {"declared": Declared(1)}, "t")
    try:
        run(saver, {"anything": Undeclared(1)}, "u")
    except (BlockedTypeError, UnstorableValueError) as error:
        assert "allow=[Undeclared]" in str(error)
    else:
        raise AssertionError("it was stored")
    run(PostgresSaver(saver.db, strict=True, allow=[Undeclared]), {"anything": Undeclared(1)}, "v")
print("done")
"""


def test_langgraphs_strict_mode_allows_the_graphs_own_types(dsn: str) -> None:
    """With LANGGRAPH_STRICT_MSGPACK the types of the state's schema pass, others need allow."""
    done = subprocess.run(
        [sys.executable, "-c", _STRICT_GRAPH, dsn],
        env=os.environ | {"LANGGRAPH_STRICT_MSGPACK": "true", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.returncode) == ("done", 0), done.stderr


# --- encryption -----------------------------------------------------------------


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
    node, subgraph, channel, thread_id = place(), place(), place(), place()
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
        "configurable": {"thread_id": thread_id, "tenant": place()},
        "metadata": {place(): place(), "user_id": place(), "agent_type": place(), "priority": 7},
        "tags": [place()],
        "run_name": place(),
    }
    graph.invoke({"messages": [HumanMessage(place())], channel: place()}, config)
    name_checkpoint(graph, config, place())
    graph.invoke(Command(resume=place()), config)
    Sessions(saver.db).update(thread_id, metadata={place(): place()})


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


def columns_of(dsn: str) -> set[tuple[str, str]]:
    rows = fetch(
        dsn,
        "select c.relname, a.attname from pg_attribute a"
        " join pg_class c on c.oid = a.attrelid and c.relkind = 'r' and a.attnum > 0"
        " and not a.attisdropped"
        " where c.relnamespace = 'public'::regnamespace and c.relname like 'agent%'",
    )
    return {(row[0], row[1]) for row in rows}


def columns_with(dsn: str, text: str) -> set[tuple[str, str]]:
    """The columns in which the text is found, as it is or as bytes in hexadecimal."""
    forms = (text, text.encode().hex())
    return {
        (table, column)
        for table, column in columns_of(dsn)
        for row in fetch(dsn, f'select string_agg("{column}"::text, chr(10)) from {table}')
        if any(form in (row[0] or "") for form in forms)
    }


def test_what_stands_in_clear_under_encryption_is_documented(
    dsn: str, encrypting: PostgresSaver
) -> None:
    """The page lists every column, and those with a secret are those that it says."""
    run_everywhere(encrypting)
    given, made, sealed = documented_columns()
    assert given | made | sealed == columns_of(dsn)
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
