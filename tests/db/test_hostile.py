"""Values, names and ids that break lesser savers: stored exactly, or refused by name."""

from __future__ import annotations

import asyncio
import math
import os
import random
import string
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, ToolMessage
from langgraph.graph import END, START, StateGraph

from langgraph_pgsaga import Database, PostgresSaver, _json
from langgraph_pgsaga.errors import InvalidArgumentError, PgSagaError, UnstorableValueError
from tests._connections import connection_of
from tests._tables import SESSION_TABLES
from tests.conftest import execute, fetch, with_database
from tests.db._puts import checkpoint_of, config_of, put, stored

pytestmark = pytest.mark.anyio

FULL = bool(os.environ.get("PGSAGA_FULL"))
INJECTION = "'; drop table agent_states; --"


def nested(depth: int, leaf: Any = 1) -> Any:
    value = leaf
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


VALUES: dict[str, Any] = {
    "nul": "a\0b\0",
    "surrogate": "lone \ud800 and \udfff",
    "nan": math.nan,
    "infinities": [math.inf, -math.inf],
    "minus zero": -0.0,
    "tiny and huge floats": [5e-324, 1.7976931348623157e308, 1e-7, 1e15, 0.1 + 0.2],
    "big ints": [10**400, -(10**400), 2**53, -(2**63), 2**64, 10**5000],
    "nesting": nested(240),
    "nothing": [None, "", b"", [], {}, set(), ()],
    "keys": {"": 1, "a\0": 2, "\ud800": 3, 5: 4, None: 5, (1, "a"): 6, True: 7, 2.5: 8, b"k": 9},
    "a set": {1, "a", None, (1, 2)},
    "bytes": bytes(range(256)),
    "sql": INJECTION,
    "json escapes": '\\u0000 \\ud800 \\ "',
    "true and one": [True, 1, 1.0, False, 0, 0.0],
    "long text": "x\0" * 5000,
    "emoji": "\U0001f469\u200d\U0001f4bb" * 100,
    "own markers": {"messages": [[1, 2]], "channel_values": {}, "type": "msgpack"},
}


def same(left: Any, right: Any) -> bool:
    """Equal in type and value, NaN and minus zero included; tuples come back as lists."""
    left, right = (list(side) if isinstance(side, tuple) else side for side in (left, right))
    if type(left) is not type(right):
        return False
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, float):
        return repr(left) == repr(right)
    if isinstance(left, BaseMessage):
        return same(left.__dict__, right.__dict__)
    return bool(left == right)


def messages_with(value: Any) -> list[BaseMessage]:
    """Messages that hold `value`, or its text, wherever a message can."""
    text = value if isinstance(value, str) else _json.shown(value)[:100]
    call = {"name": text, "args": {"x": value}, "id": text, "type": "tool_call"}
    return [
        HumanMessage(text, id=text, name=text),
        HumanMessage([{"type": "text", "text": text}, {"type": text, "x": value}, text]),
        AIMessage("", id="", tool_calls=[call], additional_kwargs={"x": value}),
        ToolMessage(text, tool_call_id=text, artifact=value),
        ChatMessage(content=text, role=text, response_metadata={"model_name": value}),
    ]


def assert_stored(saver: PostgresSaver, thread_id: str, value: Any) -> None:
    """`value` comes back from a channel, messages, writes and metadata, read and listed."""
    messages = messages_with(value)
    metadata = {"own": value, "inner": {"a": [value]}}
    config = put(saver, config_of(thread_id), {"c": value, "messages": messages}, metadata)
    writes = [("c", value), ("messages", messages), ("__error__", value)]
    saver.put_writes(config, writes, "task", "path")
    listed = list(saver.list(config_of(thread_id), limit=1))
    for found in (stored(saver, config), *listed):
        assert same(found.checkpoint["channel_values"], {"c": value, "messages": messages})
        assert same({k: found.metadata[k] for k in metadata}, _without_nul(metadata))  # type: ignore[literal-required]
        by_channel = {channel: written for _, channel, written in found.pending_writes or ()}
        assert same(by_channel, {"c": value, "messages": messages, "__error__": value})
    assert len(listed) == 1


def _without_nul(metadata: dict[str, Any]) -> dict[str, Any]:
    """LangGraph itself takes NUL out of metadata's outermost texts."""
    return {k: v.replace("\0", "") if isinstance(v, str) else v for k, v in metadata.items()}


@pytest.fixture(scope="module")
def shared_saver(server_dsn: str, template_database: str) -> Iterator[PostgresSaver]:
    """A saver on one database for all tests that keep to threads of their own."""
    name = f"pgsaga_hostile_{os.getpid()}"
    make = f'create database "{name}" template "{template_database}"'
    asyncio.run(execute(server_dsn, make))
    with PostgresSaver.from_conn_string(with_database(server_dsn, name)) as saver:
        yield saver
    asyncio.run(execute(server_dsn, f'drop database "{name}" with (force)'))


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_no_value_is_lost(shared_saver: PostgresSaver, value: Any) -> None:
    """In channels, messages, tool calls, writes and metadata it comes back equal, type and all."""
    assert_stored(shared_saver, uuid.uuid4().hex, value)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**60), 10**60)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.sampled_from(["a\0", "\ud800", INJECTION, -0.0, 10**400])
)
# One message may not tell 1 from True as keys: they are one key to Python.
KEYS = st.text(max_size=5) | st.integers(2, 2**70) | st.binary(max_size=5)
HOSTILE = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(HOSTILE)
@settings(
    max_examples=1000 if FULL else 60,
    deadline=None,
)
def test_any_value_comes_back(shared_saver: PostgresSaver, value: Any) -> None:
    """Whatever is nested in whatever, it is stored exactly in all four places."""
    assert_stored(shared_saver, uuid.uuid4().hex, value)


FILTERABLE = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([0, 1, 2**53, 2**60, 10**400, 0.5, -0.0, math.inf, math.nan])
    | st.sampled_from(["", "a", "%", "\\", "x\0y", "x\ufffdy", "\ud800", str(2**60), "inf", "'"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab'"), inner),
    max_leaves=5,
)


@given(st.lists(FILTERABLE, min_size=2, max_size=6))
@settings(
    max_examples=500 if FULL else 30,
    deadline=None,
)
def test_a_filter_finds_what_has_the_value_and_nothing_else(
    shared_saver: PostgresSaver, values: list[Any]
) -> None:
    """Also where jsonb can hold neither the value nor the filter."""
    thread_id = uuid.uuid4().hex
    for place, value in enumerate(values):
        put(shared_saver, config_of(thread_id), {}, {"own": value, "place": place})
    for place, value in enumerate(_without_nul({"own": v})["own"] for v in values):
        found = shared_saver.list(config_of(thread_id), filter={"own": value})
        places = {f.metadata["place"]: f.metadata["own"] for f in found}  # type: ignore[typeddict-item]
        assert place in places
        if not isinstance(value, dict | list):
            wanted = {n for n, v in enumerate(values) if same_json(_flat(v), value)}
            assert set(places) == wanted


def _flat(value: Any) -> Any:
    return value.replace("\0", "") if isinstance(value, str) else value


def same_json(left: Any, right: Any) -> bool:
    """Equal as JSON has it: true isn't 1, but 0 is -0.0; NaN is NaN."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right) or (left != left and right != right)


def test_a_projection_is_never_taken_for_the_value(sync_saver: PostgresSaver) -> None:
    """Metadata that jsonb holds as a replacement isn't found by the replacement."""
    put(sync_saver, config_of("t"), {}, {"inner": {"big": 2**60, "text": "a\0b"}})
    for inner in ({"big": str(2**60)}, {"text": "a\ufffdb"}):
        assert list(sync_saver.list(None, filter={"inner": inner})) == []
    for own in ({"big": 2**60}, {"text": "a\0b"}):
        assert len(list(sync_saver.list(None, filter={"inner": own}))) == 1


def test_a_hundred_megabytes_are_stored(shared_saver: PostgresSaver) -> None:
    """As a channel's bytes and as a message's text."""
    size = 100_000_000
    block = random.Random(1).randbytes(1_000_000)
    data, text = block * (size // len(block)), "\u00e9x\0y" * (size // 5)
    config = put(shared_saver, config_of("t"), {"c": data})
    assert stored(shared_saver, config).checkpoint["channel_values"]["c"] == data
    config = put(shared_saver, config, {"messages": [HumanMessage(text)]})
    (message,) = stored(shared_saver, config).checkpoint["channel_values"]["messages"]
    assert message.content == text


def generator() -> Any:
    yield 1


def circular() -> Any:
    value: dict[str, Any] = {}
    value["again"] = [value]
    return value


def unstorable() -> dict[str, Any]:
    class Local:
        pass

    return {
        "lock": threading.Lock(),
        "generator": generator(),
        "function": generator,
        "lambda": lambda: 1,
        "local class": Local,
        "object of a local class": Local(),
        "circular": circular(),
        "module": os,
        "nested too deeply": nested(5000),
        "inside": {"a": [1, {"b": threading.Lock()}]},
    }


def rows_of(dsn: str) -> dict[str, int]:
    return {t: fetch(dsn, f"select count(*) from {t}")[0][0] for t in SESSION_TABLES}


def test_what_cannot_be_stored_is_refused_whole(dsn: str, sync_saver: PostgresSaver) -> None:
    """In a channel, message, write or metadata: a typed error, and not one row of the call."""
    for value in unstorable().values():
        is_refused_everywhere(sync_saver, value)
    assert rows_of(dsn) == dict.fromkeys(SESSION_TABLES, 0)
    put(sync_saver, config_of("t"), {"c": 1})


def is_refused_everywhere(saver: PostgresSaver, value: Any) -> None:
    good = ("good", "x" * 5000)
    message = AIMessage("x", additional_kwargs={"x": 1})
    message.additional_kwargs["x"] = value
    config = config_of("t", checkpoint_id="c")
    calls: list[Callable[[], Any]] = [
        lambda: put(saver, config, {"good": good[1], "c": value}),
        lambda: put(saver, config, {"messages": [HumanMessage("hi"), message]}),
        lambda: put(saver, config, {"good": 1}, {"own": value}),
        lambda: saver.put_writes(config, [good, ("c", value)], "task"),
    ]
    for call in calls:
        with pytest.raises(UnstorableValueError) as caught:
            call()
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "channel", ["a\0b", "\ud800", "".join(random.Random(2).choices(string.hexdigits, k=9000))]
)
def test_a_channel_name_that_cannot_be_stored_is_refused(
    dsn: str, sync_saver: PostgresSaver, channel: str
) -> None:
    """PostgreSQL text and its indexes have limits: a typed error, and nothing half stored."""
    told = "a channel's name" if len(channel) > 9 else None
    for value in (1, "x" * 5000):
        with pytest.raises(UnstorableValueError, match=told):
            put(sync_saver, config_of("t"), {"good": "x" * 5000, channel: [value]})
    if len(channel) < 9:
        config = config_of("t", checkpoint_id="c")
        with pytest.raises(UnstorableValueError):
            sync_saver.put_writes(config, [(channel, 1)], "task", "path")
        with pytest.raises(InvalidArgumentError, match="task_id"):
            sync_saver.put_writes(config, [("good", 1)], channel, "path")
    assert rows_of(dsn) == dict.fromkeys(SESSION_TABLES, 0)


NAMES = ["", " ", "'", '"', "%s", "{schema}.", "\\", "\U0001f600", "a\nb", INJECTION, "x" * 2000]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_odd_names_are_names(shared_saver: PostgresSaver, name: str) -> None:
    """Channels, tasks, paths and metadata keys may be called anything."""
    values = {name: [1], f"{name}2": "small", f"{name}3": [HumanMessage("hi")]}
    config = put(shared_saver, config_of(f"named {name}"), values, {name: name})
    shared_saver.put_writes(config, [(name, 1)], name, name)
    found = stored(shared_saver, config)
    assert found.checkpoint["channel_values"] == values
    assert found.pending_writes == [(name, name, 1)]
    assert [f.config for f in shared_saver.list(None, filter={name: name})] == [config]
    history = shared_saver.get_delta_channel_history(
        config=put(shared_saver, config, {}), channels=[name]
    )
    assert history == {name: {"writes": [(name, name, 1)], "seed": [1]}}


def random_text(length: int) -> str:
    return "".join(random.Random(length).choices(string.ascii_letters + string.digits, k=length))


IDS = {
    "single quote": "o'clock",
    "double quote": 'a"b',
    "percent": "%s %d %% %(a)s",
    "backslash": "\\x00 \\' \\",
    "emoji": "\U0001f469\u200d\U0001f4bb",
    "newline": "a\n\r\tb",
    "injection": INJECTION,
    "marker": "{schema}.agent_states $1",
    "long": "x" * 10_000,
    "long and random": random_text(10_000),
    "long emoji": "\U0001f600" * 10_000,
    "space": " ",
}


@pytest.mark.parametrize("odd", IDS.values(), ids=IDS)
def test_any_thread_id_and_namespace_serve_every_call(
    shared_saver: PostgresSaver, odd: str
) -> None:
    """Put, read, list, copy, prune, delete and delta history work, and touch no other thread."""
    saver, other = shared_saver, put(shared_saver, config_of("other"), {"c": 0})
    for namespace in ("", odd, f"{odd}2"):
        first = put(saver, config_of(odd, namespace), {"c": [1]})
        saver.put_writes(first, [("c", [2])], "task")
        config = put(saver, first, {"c": [3]})
        found = stored(saver, config_of(odd, namespace))
        assert (found.config, found.parent_config) == (config, first)
        assert found.checkpoint["channel_values"] == {"c": [3]}
        assert [t.config for t in saver.list(config_of(odd, namespace))] == [config, first]
        history = saver.get_delta_channel_history(config=config, channels=["c"])
        assert history == {"c": {"writes": [("task", "c", [2])], "seed": [1]}}
    every = [t.config["configurable"]["checkpoint_ns"] for t in saver.list(config_of_all(odd))]
    assert sorted(every) == sorted(["", odd, f"{odd}2"] * 2)
    saver.copy_thread(odd, f"{odd} copy")
    saver.prune([odd])
    assert len(list(saver.list(config_of_all(odd)))) == 3
    assert len(list(saver.list(config_of_all(f"{odd} copy")))) == 6
    saver.delete_thread(odd)
    assert list(saver.list(config_of_all(odd))) == []
    assert len(list(saver.list(config_of_all(f"{odd} copy")))) == 6
    assert stored(saver, other).config == other


def config_of_all(thread_id: Any) -> Any:
    """A config of every namespace of the thread."""
    return {"configurable": {"thread_id": thread_id}}


@pytest.mark.parametrize("given_id", [0, -5, 10**30, 10**5000, uuid.UUID(int=5)], ids=type)
def test_int_and_uuid_thread_ids_work(sync_saver: PostgresSaver, given_id: Any) -> None:
    """They come back as they were given, and name the thread of their text."""
    config = put(sync_saver, config_of(given_id), {"c": 1})
    assert config["configurable"]["thread_id"] == given_id
    found = stored(sync_saver, config_of(given_id))
    assert found.config["configurable"]["thread_id"] is given_id
    (listed,) = sync_saver.list(None)
    assert stored(sync_saver, listed.config).checkpoint == found.checkpoint
    sync_saver.delete_thread(given_id)
    assert list(sync_saver.list(None)) == []


@pytest.mark.parametrize("bad", ["a\0b", "\ud800", "x\udfffy"], ids=ascii)
def test_channels_that_postgresql_cannot_hold_are_named(
    shared_saver: PostgresSaver, bad: str
) -> None:
    """Whether a checkpoint has one or a task writes to it, nothing is stored."""
    config = put(shared_saver, config_of("t"), {"c": 1})
    calls: list[Callable[[], Any]] = [
        lambda: put(shared_saver, config, {"c": 1, bad: 2}),
        lambda: shared_saver.put_writes(config, [("c", 1), (bad, 2)], "task"),
    ]
    for call in calls:
        with pytest.raises(UnstorableValueError) as refused:
            call()
        assert str(refused.value).startswith(f"channel {bad!r} can't be stored: its name")
    assert stored(shared_saver, config_of("t")).pending_writes == []


@pytest.mark.parametrize("bad", ["a\0b", "\ud800", "x\udfffy"], ids=ascii)
def test_ids_that_postgresql_cannot_hold_are_refused(shared_saver: PostgresSaver, bad: str) -> None:
    """A thread id with NUL or a lone surrogate never becomes another thread's."""
    calls: list[Callable[[], Any]] = [
        lambda: put(shared_saver, config_of(bad), {"c": 1}),
        lambda: put(shared_saver, config_of("t", bad), {"c": 1}),
        lambda: shared_saver.get_tuple(config_of(bad)),
        lambda: shared_saver.get_tuple(config_of("t", checkpoint_id=bad)),
        lambda: shared_saver.delete_thread(bad),
        lambda: shared_saver.copy_thread(bad, "t"),
        lambda: shared_saver.copy_thread("t", bad),
        lambda: shared_saver.prune([bad]),
        lambda: list(shared_saver.list(config_of(bad))),
        lambda: list(shared_saver.list(None, before=config_of("t", checkpoint_id=bad))),
    ]
    for call in calls:
        with pytest.raises(InvalidArgumentError, match="NUL"):
            call()


INJECTIONS = [
    INJECTION,
    "' or '1'='1",
    "x' or true --",
    '"; drop table agent_states; --',
    "1); drop table agent_states; --",
    "$1",
    "\\'; drop table agent_states; --",
    "a') = 'x' or ('b",
    '{"a": 1}',
    "%' or 1=1 --",
]


def test_injections_find_and_break_nothing(dsn: str, sync_saver: PostgresSaver) -> None:
    """Through filters, ids, namespaces and metadata: no row comes back, every table stays."""
    for attack in INJECTIONS:
        try_injection(dsn, sync_saver, attack)
        sync_saver.prune(["kept", attack], strategy="delete")
        assert rows_of(dsn) == dict.fromkeys(SESSION_TABLES, 0)


def try_injection(dsn: str, saver: PostgresSaver, attack: str) -> None:
    kept = put(saver, config_of("kept"), {"c": 1, "messages": [HumanMessage("hi")]}, {"a": "b"})
    filters: list[dict[str, Any]] = [
        {attack: "b"},
        {"a": attack},
        {"a": {attack: attack}},
        {attack: {attack: [attack]}},
    ]
    for one in filters:
        assert list(saver.list(None, filter=one)) == []
    for config in (
        config_of(attack),
        config_of("kept", attack),
        config_of("kept", checkpoint_id=attack),
    ):
        assert saver.get_tuple(config) is None
        assert list(saver.list(config)) == []
    low = config_of("kept", checkpoint_id=f" {attack}")
    assert list(saver.list(None, before=low)) == []
    saver.delete_thread(attack)
    saver.prune([attack])
    saver.delete_for_runs([attack])
    saver.copy_thread(attack, "nothing")
    assert saver.get_delta_channel_history(config=kept, channels=[attack]) == {
        attack: {"writes": []}
    }
    hostile: Any = config_of(attack, attack, user_id=attack, agent_type=attack, run_id=attack)
    hostile["metadata"] = {attack: attack}
    put(saver, hostile, {attack: attack}, {attack: attack})
    rows = fetch(
        dsn, "select user_id, metadata ->> $1 from agent_sessions where user_id <> ''", attack
    )
    assert [tuple(row) for row in rows] == [(attack, attack)]
    assert rows_of(dsn)["agent_states"] == 2
    assert stored(saver, kept).config == kept


async def test_no_schema_name_ends_its_quotes(dsn: str) -> None:
    """A name made to drop a table makes a schema of that name instead."""
    for attack in (INJECTION, 'x"; drop table public.agent_states; --'):
        async with PostgresSaver.from_conn_string(dsn, schema=attack) as saver:
            await saver.asetup()
            async with connection_of(saver.db) as conn:
                found = await conn.fetchval("select to_regclass('public.agent_states') is not null")
                names = await conn.fetch("select nspname from pg_namespace")
        assert found
        assert attack in {row["nspname"] for row in names}


async def test_a_refused_value_leaves_concurrent_calls_alone(dsn: str) -> None:
    """Of many puts at once on many threads only those with the bad value fail."""
    async with PostgresSaver.from_conn_string(dsn) as saver:

        async def one(number: int) -> Any:
            value = threading.Lock() if number % 5 == 0 else number
            checkpoint = checkpoint_of(saver, {"c": [value]})
            versions = checkpoint["channel_versions"]
            return await saver.aput(config_of(f"t{number % 7}"), checkpoint, {}, versions)

        ends: list[Any] = await asyncio.gather(*map(one, range(50)), return_exceptions=True)
        for number, end in enumerate(ends):
            if number % 5 == 0:
                assert isinstance(end, UnstorableValueError)
                continue
            assert not isinstance(end, BaseException), end
            found = await saver.aget_tuple(end)
            assert found
            assert found.checkpoint["channel_values"] == {"c": [number]}


class Bag(TypedDict, total=False):
    value: Any
    messages: list[Any]


NODE_NAMES = ["a b", "o'clock", '"', "%s", "\\", "\U0001f600", "x\ny", INJECTION, "n" * 1000]


@pytest.mark.parametrize("node", NODE_NAMES, ids=ascii)
def test_a_graph_runs_with_odd_nodes_and_values(shared_saver: PostgresSaver, node: str) -> None:
    """Node names are channels, task paths and metadata; hostile values flow through a real run."""
    builder = StateGraph(Bag)
    builder.add_node(node, lambda state: {"value": [state["value"], VALUES["nul"]]})
    builder.add_edge(START, node)
    builder.add_edge(node, END)
    graph = builder.compile(checkpointer=shared_saver)
    config: Any = {"configurable": {"thread_id": node}, "metadata": {"note": VALUES["surrogate"]}}
    graph.invoke({"value": VALUES["keys"]}, config)
    assert same(graph.get_state(config).values["value"], [VALUES["keys"], VALUES["nul"]])
    assert graph.get_state(config).metadata["note"] == VALUES["surrogate"]  # type: ignore[index, typeddict-item]


@pytest.mark.parametrize("content", [None, 5, {"a": 1}, [None, 5], ("a",)], ids=repr)
def test_messages_changed_behind_pydantics_back_are_stored(
    shared_saver: PostgresSaver, content: Any
) -> None:
    """Assigned content and tool calls aren't validated: the readable columns take them too."""
    human, call = HumanMessage("x", id="1"), AIMessage("x", id="2")
    human.content, call.tool_calls = content, [content]
    config = put(shared_saver, config_of("t"), {"messages": [human, call]})
    found = stored(shared_saver, config).checkpoint["channel_values"]["messages"]
    assert same([found[0].content, found[1].tool_calls], [content, [content]])


@pytest.mark.parametrize("field", ["id", "name", "type", "tool_calls", "response_metadata"])
@pytest.mark.parametrize("value", [uuid.UUID(int=3), 5, ["a"], b"x", {"a": 1}], ids=repr)
def test_fields_of_messages_may_be_anything(
    shared_saver: PostgresSaver, field: str, value: Any
) -> None:
    """A UUID as an id, for one: what is assigned isn't validated, and comes back as it is."""
    message = AIMessage("x", id="1")
    setattr(message, field, value)
    config = put(shared_saver, config_of("t"), {"messages": [message]})
    (found,) = stored(shared_saver, config).checkpoint["channel_values"]["messages"]
    assert same(found.__dict__[field], value)


def test_empty_everything_is_stored(sync_saver: PostgresSaver) -> None:
    """No values, no metadata, no writes, no messages: a checkpoint all the same."""
    checkpoint = checkpoint_of(sync_saver, {})
    config = sync_saver.put(config_of("t"), checkpoint, {}, {})
    sync_saver.put_writes(config, [], "task")
    found = stored(sync_saver, config)
    assert (found.checkpoint, found.metadata, found.pending_writes) == (checkpoint, {}, [])
    config = put(sync_saver, config, {"": "", "messages": []})
    assert stored(sync_saver, config).checkpoint["channel_values"] == {"": "", "messages": []}


def test_hostile_session_columns_are_stored(dsn: str, sync_saver: PostgresSaver) -> None:
    """user_id, agent_type, priority and metadata of a run may be anything; no put fails."""
    for number, odd in enumerate(["a\0b", "\ud800", 10**5000, object(), -1, 2**31, [], INJECTION]):
        config = config_of(f"t{number}", user_id=odd, agent_type=odd, priority=odd)
        config["metadata"] = {"note": odd, "a\0\ud800": odd, "lock": threading.Lock()}
        put(sync_saver, config, {"c": 1})
    rows = fetch(dsn, "select user_id, priority from agent_sessions order by thread_id")
    assert [row["user_id"][:3] for row in rows] == [
        "a\ufffdb", "\ufffd", "0x3", "<ob", "-1", "214", "[]", "'; "
    ]  # fmt: skip
    assert [row["priority"] for row in rows] == [0, 0, 0, 0, -1, 0, 0, 0]


async def test_a_closed_door_is_no_value_error(dsn: str) -> None:
    """A refused value doesn't cost the connection: the pool's only one serves the next call."""
    async with Database(dsn, max_size=1) as db:
        saver = PostgresSaver(db)
        for _ in range(3):
            with pytest.raises(PgSagaError):
                await saver.aput_writes(config_of("t", checkpoint_id="c"), [("c", 1)], "\ud800")
            await saver.aput_writes(config_of("t", checkpoint_id="c"), [("c", 1)], "task")
