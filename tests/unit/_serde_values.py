"""Serializers, and values of every kind for them."""

from __future__ import annotations

import collections
import decimal
import ipaddress
import math
import pathlib
import re
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import ormsgpack
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    ChatMessageChunk,
    FunctionMessage,
    FunctionMessageChunk,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
)
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.store.base import GetOp, Item, SearchItem
from langgraph.types import (
    Command,
    Interrupt,
    Overwrite,
    PregelTask,
    Send,
    StateSnapshot,
    TimeoutPolicy,
)
from pydantic import AnyUrl, HttpUrl, SecretBytes, SecretStr

from langgraph_pgsaga.serde.serializer import (
    SafeSerializer,
)
from tests.unit import _serde_types as sample

HERE = sample.__name__
SAFE = SafeSerializer()
STRICT = SafeSerializer(strict=True)
CALL: Any = {
    "name": "look",
    "args": {"q": 1, "deep": {"a": [1, 2]}},
    "id": "c1",
    "type": "tool_call",
}
BAD_CALL: Any = {
    "name": "look",
    "args": "{",
    "id": "c2",
    "error": "no",
    "type": "invalid_tool_call",
}
USAGE: Any = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
NOON = datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC).replace(tzinfo=None)
PARIS = ZoneInfo("Europe/Paris")


def again(value: Any, serde: Any = SAFE) -> Any:
    return serde.loads_typed(serde.dumps_typed(value))


def record(code: int, *parts: Any) -> tuple[str, bytes]:
    """A row as an attacker, or an older version, might have written it."""
    return "msgpack", ormsgpack.packb(
        ormsgpack.Ext(code, ormsgpack.packb(parts, option=ormsgpack.OPT_NON_STR_KEYS))
    )


PLAIN = [
    None,
    b"bytes",
    bytearray(b"array"),
    "text with \x00 and \U0001f600",
    "lone \ud800 surrogate",
    {"\udfff": "\ud83d", "a": ["\ud800", {"b": "\udead"}]},
    0,
    -(2**63),
    2**64 - 1,
    2**64,
    -(2**63) - 1,
    [10**400, {"a": -(10**50)}],
    {10**30: 10**40},
    True,
    1.5,
    math.inf,
    -math.inf,
    {1: "a", "1": "b", 2.5: "c", None: "d", b"k": "e"},
    {(1, "a", (2, None)): 1},
    {frozenset({1, 2}): "a", date(2026, 1, 1): "b", sample.Colour.RED: "c", uuid.UUID(int=1): "d"},
    {sample.Mode.FAST: 1, sample.Size.BIG: 2, NOON: 3, "x": 4},
    {sample.Pair(1, (2, 3)): {sample.Frozen(((1, 2),)): 1}},
    {True: 1, "nested": {3: {4: ["\ud800"]}}},
    [],
    {},
    "",
]
STANDARD = [
    {1, 2},
    frozenset({"a", (1, (2, 3)), "\ud800"}),
    {frozenset({sample.Frozen(((1, 2),))})},
    collections.deque([1, (2, 3)], maxlen=5),
    collections.deque([1]),
    uuid.UUID(int=7),
    uuid6(),
    decimal.Decimal("1.10"),
    decimal.Decimal("Infinity"),
    pathlib.Path("/a/b"),
    pathlib.PurePosixPath("a"),
    pathlib.PureWindowsPath("c:\\a"),
    re.compile("a+", re.IGNORECASE),
    re.compile(b"a"),
    ipaddress.ip_address("10.0.0.1"),
    ipaddress.ip_interface("10.0.0.1/8"),
    ipaddress.ip_network("10.0.0.0/8"),
    ipaddress.ip_address("::1"),
    ipaddress.ip_interface("::1/64"),
    ipaddress.ip_network("::/64"),
    NOON,
    NOON.replace(tzinfo=UTC),
    NOON.replace(tzinfo=timezone(timedelta(hours=1), "CET")),
    NOON.replace(tzinfo=PARIS),
    datetime(2026, 10, 25, 2, 30, tzinfo=PARIS, fold=1),
    NOON.replace(fold=1),
    date(2026, 1, 1),
    time(1, 2, 3, 4, tzinfo=UTC, fold=1),
    timedelta(days=-1, seconds=3, microseconds=5),
    UTC,
    timezone(timedelta(minutes=-30), "odd"),
    PARIS,
    1 + 2j,
    slice(1, None, 2),
    SecretStr("s"),
    SecretBytes(b"s"),
    AnyUrl("https://a.b/c"),
    HttpUrl("https://a.b/c"),
]
OWN = [
    sample.Colour.RED,
    sample.Colour.PAIR,
    sample.Size.BIG,
    sample.Mode.FAST,
    sample.Ratio.HALF,
    sample.Right.READ | sample.Right.WRITE,
    sample.Point(1, {"deep": sample.Point(2)}),
    sample.Point(1, (1, [(2, 3)])),
    sample.Point(2**80, "\ud800"),
    sample.Point(1, {2: sample.Point(3, {4: sample.Point(5)})}),
    sample.Frozen(((1, 2), (3, 4))),
    sample.Checked(3),
    sample.Outer.Inner(1),
    sample.Outer.Model(n=1),
    sample.Pair(1, sample.Pair((1, 2))),
    sample.Dog(name="Rex", trick="sit"),
    sample.Kennel(
        first=sample.Dog(name="Rex", trick="sit"),
        all=[sample.Animal(name="Tom"), sample.Dog(name="Max", trick="roll")],
        extra=(1, {"a": (2,)}),
    ),
    sample.Aliased.model_validate({"userName": "ada", "elsewhere": 3}),
    sample.Open.model_validate({"a": 1, "more": {"b": (1, 2)}}),
    sample.Shut(a=(1, 2)),
    sample.Names(["a", "b"]),
    sample.IntBox(item=3),
    sample.Changed.model_construct(n=-1),
    sample.Fussy("made"),
    sample.local_class()(1),
    sample.Box[list[str]](item=["a"]),
]
MESSAGES: list[BaseMessage] = [
    HumanMessage("hi", id="1", name="ada"),
    HumanMessage([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}]),
    HumanMessage("extra", example=True),
    HumanMessage("\ud800 and \x00"),
    AIMessage("yes", id="2", tool_calls=[CALL], usage_metadata=USAGE, response_metadata={"m": 1}),
    AIMessage("", invalid_tool_calls=[BAD_CALL], additional_kwargs={"a": {1: 2}}),
    AIMessage(["a", {"type": "reasoning", "reasoning": "b"}]),
    SystemMessage("be kind"),
    ChatMessage(content="hm", role="critic"),
    FunctionMessage(content="4", name="add"),
    RemoveMessage(id="1"),
    ToolMessage("4", tool_call_id="c1", artifact=sample.Point(1, (2, 3)), status="error"),
    ToolMessage("4", tool_call_id="c1", artifact={"dog": sample.Dog(name="Rex", trick="sit")}),
    HumanMessageChunk(content="h"),
    SystemMessageChunk(content="s"),
    ChatMessageChunk(content="c", role="critic"),
    FunctionMessageChunk(content="f", name="add"),
    ToolMessageChunk(content="t", tool_call_id="c1", artifact=sample.Pair(1)),
    AIMessageChunk(
        content="a",
        tool_call_chunks=[
            {"name": "t", "args": '{"a"', "id": "c", "index": 0, "type": "tool_call_chunk"}
        ],
        usage_metadata=USAGE,
    ),
    AIMessageChunk(content="done", chunk_position="last"),
    sample.Ticket(content="help", priority=3),
    sample.Draft(content="so", score=0.5, tool_calls=[CALL]),
]
GRAPH = [
    Send("node", {"a": (1, 2)}),
    Send("node", sample.Point(1), timeout=TimeoutPolicy(run_timeout=3.0)),
    Interrupt(value={"q": (1,)}, id="i"),
    Interrupt(value="q", response_schema={"type": "object"}),
    Command(update={"a": [HumanMessage("x")]}, goto=[Send("n", 1), "m"], resume={"i": 1}),
    Command(update=[("a", 1)], graph=Command.PARENT),
    Overwrite([1]),
    PregelTask("1", "n", ("a", 1), interrupts=(Interrupt("v", id="i"),)),
    StateSnapshot(
        {"a": 1}, ("n",), {"configurable": {}}, None, None, None, (PregelTask("1", "n", ()),), ()
    ),
    Item(value={"a": 1}, key="k", namespace=("a", "b"), created_at=NOON, updated_at=NOON),
    SearchItem(("a",), "k", {"a": 1}, NOON, NOON, 0.5),
    GetOp(("a",), "k"),
    Document("text", id="d", metadata={"a": (1, 2), 3: 4}),
    _DeltaSnapshot([HumanMessage("x")]),
    _DeltaSnapshot(True),
]


def name(value: object) -> str:
    return type(value).__name__


JSON_TEXT = st.text(st.characters(exclude_categories=[]), max_size=8)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    JSON_TEXT,
    st.binary(max_size=8),
    st.dates(),
    st.datetimes(timezones=st.sampled_from([None, UTC, PARIS])),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.sampled_from(sample.Colour),
)
KEYS = st.one_of(SCALARS, st.tuples(SCALARS, SCALARS), st.frozensets(SCALARS, max_size=2))


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=4),
        st.builds(sample.Point, st.integers(), inner),
        st.builds(sample.Pair, inner, inner),
        st.builds(sample.Kennel, first=st.just(sample.Animal(name="a")), extra=inner),
        st.builds(HumanMessage, JSON_TEXT, additional_kwargs=st.dictionaries(JSON_TEXT, inner)),
    )
