"""What the serializer stores, what it loads, and what it refuses."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import decimal
import functools
import ipaddress
import math
import os
import pathlib
import pickle
import re
import sys
import threading
import types
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta, timezone
from datetime import tzinfo as TzInfo  # noqa: N812 - a class, whatever its name
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import ormsgpack
import pytest
from hypothesis import given
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
from langchain_core.runnables import RunnablePassthrough
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
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
from pydantic import AnyUrl, HttpUrl, SecretBytes, SecretStr, TypeAdapter, ValidationError

from langgraph_pgsaga.errors import (
    BlockedTypeError,
    ChangedClassError,
    CorruptValueError,
    InvalidArgumentError,
    MissingTypeError,
    SerializationError,
    UnstorableValueError,
)
from langgraph_pgsaga.serde.serializer import (
    SafeEncryptedSerializer,
    SafeSerializer,
    as_safe,
    with_allowlist,
)
from tests._limits import times_as_long
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


def same(left: Any, right: Any) -> bool:
    """Equal in value and type, also of what is inside containers."""
    if type(left) is not type(right):
        return False
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left), list(right)) and same(list(left.values()), list(right.values()))
    return bool(left == right)


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


@pytest.mark.parametrize("value", [*PLAIN, *STANDARD, *OWN], ids=name)
def test_values_come_back_equal(value: Any) -> None:
    """A value of every supported type comes back equal and of the same type."""
    found = again(value)

    if isinstance(value, dict):
        # A tuple in a key stays one, even here.
        assert same(list(found), list(value))
    assert type(found) is type(value)
    assert found == value


@pytest.mark.parametrize("value", [*MESSAGES, *GRAPH], ids=name)
def test_langgraph_and_langchain_objects_come_back_equal(value: Any) -> None:
    """Messages, their chunks and subclasses, and LangGraph's own objects come back equal."""
    assert again(value) == value
    assert type(again(value)) is type(value)
    assert SAFE.dumps_typed(again(value)) == SAFE.dumps_typed(value)


@pytest.mark.parametrize("value", [*MESSAGES, *OWN, *STANDARD], ids=name)
def test_values_inside_containers_come_back_equal(value: Any) -> None:
    """What round-trips alone also does in a list, in a dict with odd keys, and in a model."""
    holders = ([value], {"a": {2: [value]}}, {date(2026, 1, 1): value}, sample.Point(1, (value,)))
    for holder in holders:
        assert again(holder) == holder


def test_zone_name_and_fold_are_kept() -> None:
    """A zoned datetime keeps its ZoneInfo and its fold, which ISO text would lose."""
    found = again(datetime(2026, 10, 25, 2, 30, tzinfo=PARIS, fold=1))

    assert found.tzinfo is PARIS
    assert found.fold == 1
    assert found.tzname() == "CET"


class OddZone(TzInfo):
    """A zone of nobody's."""

    def __init__(self, offset: timedelta | None) -> None:
        self.offset = offset

    def utcoffset(self, dt: datetime | None) -> timedelta | None:
        return self.offset

    def dst(self, dt: datetime | None) -> timedelta | None:
        return timedelta(0)

    def tzname(self, dt: datetime | None) -> str | None:
        return "odd"


def test_unknown_tzinfo_becomes_its_offset() -> None:
    """A datetime whose tzinfo can't be stored comes back as the same instant."""
    value = NOON.replace(tzinfo=OddZone(timedelta(hours=5)))

    assert again(value) == value
    assert again(value).utcoffset() == timedelta(hours=5)


def test_a_time_keeps_the_offset_that_pydantic_read() -> None:
    """Also inside an object; only a time whose zone has no offset without a date is refused."""
    read = TypeAdapter(time).validate_python("10:30:00+02:00")
    assert type(read.tzinfo) is not timezone

    assert again(read) == read
    assert again(sample.Point(1, read)).y.utcoffset() == timedelta(hours=2)
    with pytest.raises(UnstorableValueError):
        SAFE.dumps_typed(time(10, tzinfo=OddZone(None)))


def test_nan_comes_back() -> None:
    """NaN is stored as NaN, plain and as a Decimal."""
    assert math.isnan(again([math.nan])[0])
    assert again(decimal.Decimal("NaN")).is_nan()


def test_uuid_utils_comes_back() -> None:
    """A UUID of the uuid_utils library comes back as one."""
    uuid_utils = pytest.importorskip("uuid_utils")
    value = uuid_utils.uuid7()

    assert again(value) == value
    assert type(again(value)) is type(value)


def test_deque_keeps_its_bound() -> None:
    """A bounded deque is still bounded after loading."""
    assert again(collections.deque([1], maxlen=5)).maxlen == 5


@pytest.mark.parametrize(
    ("value", "becomes"),
    [
        ((1, (2,)), [1, [2]]),
        ({"a": (1,)}, {"a": [1]}),
        (type("Text", (str,), {})("a"), "a"),
        (type("Real", (float,), {})(1.5), 1.5),
        ([type("Bytes", (bytes,), {})(b"a")], [b"a"]),
        (type("Whole", (int,), {})(2**70), 2**70),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.defaultdict(list, a=[]), {"a": []}),
        (collections.Counter({1: 2}), {1: 2}),
        ([bytearray(b"a"), memoryview(b"b")], [b"a", b"b"]),
        (ValueError("no"), "ValueError('no')"),
        ([ValueError("\ud800")], ["ValueError('\\ud800')"]),
        (sample.FailureError(code=3), "FailureError(code=3)"),
    ],
    ids=name,
)
def test_documented_changes(value: Any, becomes: Any) -> None:
    """Plain tuples, subclasses of builtins and exceptions change as documented."""
    assert same(again(value), becomes)


def test_an_exception_whose_repr_fails_is_named() -> None:
    """So that what ended a task is stored whatever it is."""

    class Broken(Exception):  # noqa: N818 - said by its name already
        def __repr__(self) -> str:
            raise RuntimeError

    assert again([Broken()])[0].endswith("Broken>")


def test_excluded_fields_are_left_out() -> None:
    """A field that a model excludes from dumps isn't stored, so it may hold anything."""
    assert again(sample.Hidden(a=1, client=threading.Lock())) == sample.Hidden(a=1)


def test_late_fields_of_a_dataclass_are_set() -> None:
    """A field that isn't an argument of a frozen, slotted dataclass comes back too."""
    value = sample.Frozen(((1, 2),))
    object.__setattr__(value, "total", 5)

    assert again(value).total == 5
    assert hash(again(value)) == hash(value)


def test_an_alias_stands_for_a_renamed_class() -> None:
    """A class that kept its old name as an alias loads under that name."""
    assert SAFE.loads_typed(record(2, HERE, "OldPoint", {"x": 1})) == sample.Point(1)


def test_a_field_with_a_default_may_be_new() -> None:
    """Values stored before a class gained fields take the defaults."""
    assert SAFE.loads_typed(record(2, HERE, "Point", {"x": 1})) == sample.Point(1)
    assert SAFE.loads_typed(record(5, HERE, "Kennel", {"first": {"name": "a"}}, "fields"))


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


@given(st.recursive(SCALARS, nested, max_leaves=12))
def test_any_nested_value_comes_back(value: Any) -> None:
    """Any nesting of scalars, odd keys, data classes and messages comes back the same."""
    assert same(again(value), value)


@given(st.binary(max_size=64))
def test_any_bytes_load_or_raise_ours(data: bytes) -> None:
    """Arbitrary bytes give a value or an error of this package, never another one."""
    with contextlib.suppress(SerializationError):
        SAFE.loads_typed(("msgpack", data))


@given(st.integers(0, 127), st.binary(max_size=32))
def test_any_extension_loads_or_raises_ours(code: int, data: bytes) -> None:
    """Arbitrary bytes under any extension code never raise a foreign error."""
    with contextlib.suppress(SerializationError):
        SAFE.loads_typed(("msgpack", ormsgpack.packb(ormsgpack.Ext(code, data))))


OTHERS = [
    *(value for value in STANDARD if not isinstance(value, (AnyUrl, collections.deque, complex))),
    collections.deque([1]),
    *MESSAGES,
    *GRAPH,
    *OWN,
]


LANGGRAPHS = JsonPlusSerializer(allowed_msgpack_modules=True)


def survives_langgraph(value: Any) -> bool:
    """Whether LangGraph's serializer stores the value and gives an equal one back."""
    try:
        found = LANGGRAPHS.loads_typed(LANGGRAPHS.dumps_typed(value))
    except TypeError:
        return False
    return type(found) is type(value) and bool(found == value)


@pytest.mark.parametrize("value", list(filter(survives_langgraph, OTHERS)), ids=name)
@pytest.mark.filterwarnings("ignore")
def test_loads_what_langgraph_wrote(value: Any) -> None:
    """What LangGraph's serializer wrote and loads, this one loads, to an equal value."""
    written = LANGGRAPHS.dumps_typed(value)

    found = SAFE.loads_typed(written)

    assert type(found) is type(value)
    assert found == value


FORGED = [
    ("os", "system", "true"),
    ("posix", "system", "true"),
    ("builtins", "eval", "1+1"),
    ("builtins", "exec", "1"),
    ("builtins", "getattr", "1"),
    ("subprocess", "Popen", ["true"]),
    ("importlib", "import_module", "antigravity"),
    ("threading", "Thread", "x"),
    ("functools", "partial", "x"),
    ("pickle", "loads", b"."),
    ("re", "compile", "a"),
    (HERE, "function", {}),
    (HERE, "Caller", {}),
    (HERE, "Plain", {"n": 1}),
    (HERE, "Tags", ["a"]),
    (HERE, "FailureError", {"code": 1}),
    (HERE, "Outer", {}),
    (HERE, "dataclasses", {}),
    ("langchain_core.runnables.passthrough", "RunnablePassthrough", {}),
]


@pytest.mark.parametrize("code", [0, 1, 2, 4, 5])
@pytest.mark.parametrize(("module", "target", "payload"), FORGED)
def test_forged_names_are_blocked(code: int, module: str, target: str, payload: Any) -> None:
    """No function, and no class that isn't a data class, is called on a row's word."""
    if code == 1:
        payload = [payload]
    sys.modules.setdefault("subprocess", __import__("subprocess"))
    with pytest.raises((BlockedTypeError, CorruptValueError, MissingTypeError)) as found:
        SAFE.loads_typed(record(code, module, target, payload))

    if (module, target) != ("re", "compile"):
        assert isinstance(found.value, BlockedTypeError)
    with pytest.raises((BlockedTypeError, CorruptValueError)):
        STRICT.loads_typed(record(code, module, target, payload))


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 104])
def test_no_module_is_imported_on_a_rows_word(code: int, tmp_path: pathlib.Path) -> None:
    """A data class in a module that isn't imported is missing, and stays unimported."""
    (tmp_path / "forged_module.py").write_text("raise SystemExit('imported')")
    sys.path.insert(0, str(tmp_path))
    parts: list[Any] = ["forged_module", "Thing", [[1]], "fromisoformat"]
    if code == 104:
        parts = [*parts[:2], [2026, 1, 1, 0, 0, 0, 0], None, 0]
    try:
        with pytest.raises((MissingTypeError, BlockedTypeError)) as found:
            SAFE.loads_typed(record(code, *parts))
    finally:
        sys.path.remove(str(tmp_path))

    assert "forged_module" not in sys.modules
    assert isinstance(found.value, BlockedTypeError if code == 3 else MissingTypeError)


def test_a_modules_getattr_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking a name up doesn't run a module's `__getattr__`, which might import."""
    lazy = types.ModuleType("lazy_sample")
    asked: list[str] = []
    lazy.__getattr__ = asked.append  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "lazy_sample", lazy)

    with pytest.raises(MissingTypeError):
        SAFE.loads_typed(record(2, "lazy_sample", "Thing", {}))

    assert asked == []


@pytest.mark.parametrize("method", ["now", "strptime", "__class__", "fromtimestamp"])
def test_only_one_method_is_ever_called(method: str) -> None:
    """Of the methods a row may name, datetime.fromisoformat is the only one."""
    with pytest.raises(BlockedTypeError):
        SAFE.loads_typed(record(3, "datetime", "datetime", "x", method))


@pytest.mark.parametrize("entry", [("os", "system"), ("builtins", "eval"), (HERE, "function")])
def test_a_function_is_blocked_even_when_allowed(entry: tuple[str, str]) -> None:
    """Allowing a function by name has no effect: only classes are ever built."""
    serde = SafeSerializer(allow=[entry])

    with pytest.raises(BlockedTypeError):
        serde.loads_typed(record(0, *entry, "1"))


@pytest.mark.parametrize("args", [["a"], ["a", "b"], [1, 2], ["a", 0, 0], ["(", 0], "a"])
def test_patterns_take_a_text_and_flags_only(args: Any) -> None:
    """re.compile is called with one text and one number, or not at all."""
    with pytest.raises(CorruptValueError):
        SAFE.loads_typed(record(1, "re", "compile", args))


def test_enums_are_not_called_with_names() -> None:
    """A row can't make a new class by calling an enum with names."""
    with pytest.raises(ChangedClassError):
        SAFE.loads_typed(record(2, "enum", "Enum", {"value": "X", "names": "a b"}))
    assert "enum" in sys.modules


@pytest.mark.parametrize("tag", ["pickle", "json", "yaml", ""])
def test_other_tags_are_refused(tag: str) -> None:
    """Pickles and unknown type tags raise, and no pickle is loaded."""
    with pytest.raises(CorruptValueError, match="never loaded" if tag == "pickle" else "loads"):
        SAFE.loads_typed((tag, pickle.dumps(functools.partial(os.system, "true"))))


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (("msgpack", b""), CorruptValueError),
        (("msgpack", b"\x92\x01"), CorruptValueError),
        (record(0, "uuid", "UUID", "payload"), CorruptValueError),
        (record(1, "datetime", "date", [2026, 13, "payload"]), CorruptValueError),
        (record(2, HERE, "Point", {"the payload": 1}), ChangedClassError),
        (record(2, HERE, "Point", {"x": 1, 2: "payload"}), ChangedClassError),
        (record(2, HERE, "Point", ["payload"]), CorruptValueError),
        (record(2, HERE, "Gone", {"payload": 1}), MissingTypeError),
        (record(2, "no.such", "Gone", {"payload": 1}), MissingTypeError),
        (record(0, HERE, "Colour", "payload"), ChangedClassError),
        (record(2, HERE, "Point"), CorruptValueError),
        (record(2, 1, "Point", {}), CorruptValueError),
        (record(99, "payload"), CorruptValueError),
        (record(101, "payload"), CorruptValueError),
        (record(102, [[]], [1, 2]), CorruptValueError),
    ],
)
def test_bad_rows_raise_without_their_payload(data: Any, kind: type[SerializationError]) -> None:
    """A row that can't become its value raises, and the error holds nothing of the payload."""
    for row in (data, ("msgpack", b"\x92\x01" + data[1])):
        with pytest.raises(SerializationError) as found:
            SAFE.loads_typed(row)

        assert isinstance(found.value, (kind, CorruptValueError))
        assert "payload" not in str(found.value)
        assert "wrong'" not in repr(found.value)
        assert found.value.__context__ is None


def unstorable() -> list[Any]:
    return [
        sample.function,
        (n for n in range(3)),
        threading.Lock(),
        object(),
        sample.Plain(1),
        sample.Caller(),
        sample.Tags(["a"]),
        sample.Point,
        RunnablePassthrough(),
        range(3),
        iter([1]),
        os,
        Ellipsis,
        type("Late", (datetime,), {})(2026, 1, 1),
        {sample.Caller(): 1},
        {sample.Tags: 1},
    ]


@pytest.mark.parametrize("value", unstorable(), ids=name)
def test_what_could_not_be_loaded_is_refused_when_written(value: Any) -> None:
    """Objects that can't be loaded again raise when written, alone or nested."""
    for holder in (value, [value], {"a": {3: value}}, sample.Point(1, value)):
        with pytest.raises(UnstorableValueError) as found:
            SAFE.dumps_typed(holder)
        assert found.value.__context__ is None or found.value.__suppress_context__


def test_refusal_names_the_type_and_the_place() -> None:
    """The refusal says which type, and where in the value it stands."""
    value = {"a": [1, {"b": sample.Point(1, y=sample.function)}], "secret": "payload"}

    with pytest.raises(UnstorableValueError, match=r"of type builtins\.function") as found:
        SAFE.dumps_typed(value)

    assert found.value.where == "value['a'][1]['b'].y"
    assert "payload" not in str(found.value)


def test_allowed_local_class_is_stored() -> None:
    """A class that was passed itself needs no name to be found by."""
    local = sample.local_class()

    assert again(local(1), SafeSerializer(allow=[local])) == local(1)


def test_redefined_class_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance of a class whose name now stands for another one is refused."""
    value = sample.Point(1)
    monkeypatch.setattr(sample, "Point", sample.Pair)

    with pytest.raises(UnstorableValueError, match="defined anew"):
        SafeSerializer().dumps_typed(value)


def test_circular_values_are_refused() -> None:
    """A value that contains itself raises instead of crashing the process."""
    in_list: list[Any] = []
    in_list.extend([in_list, in_list])
    in_dict: dict[Any, Any] = {}
    in_dict[frozenset()] = in_dict
    in_object = sample.Point(1)
    in_object.y = [in_object, {1: in_object}]

    for value in (in_list, in_dict, in_object, [in_object], {1: in_list}):
        with pytest.raises(UnstorableValueError, match="refers to itself"):
            SAFE.dumps_typed(value)


def test_depth_is_limited_to_what_loads() -> None:
    """Deep values either come back or are refused; a refusal doesn't take long."""

    def deep(levels: int, wrap: Callable[[Any], Any]) -> Any:
        return functools.reduce(lambda inner, _: wrap(inner), range(levels), 1)

    wraps: list[Callable[[Any], Any]] = [
        lambda v: [v],
        lambda v: {"a": v},
        lambda v: {1: v},
        sample.Point,
        lambda v: sample.Point(1, {1: v, 2: "\ud800"}),
        lambda v: sample.Kennel(first=sample.Animal(name="a"), extra=v),
        lambda v: {date(2026, 1, 1): v},
    ]
    for wrap in wraps:
        assert again(deep(50, wrap)) == deep(50, wrap)
        with pytest.raises(UnstorableValueError, match="nests too deeply"):
            SAFE.dumps_typed(deep(2_000, wrap))


@pytest.mark.alone
def test_deep_odd_keys_stay_cheap() -> None:
    """Nested objects that each need the second pass don't take twice the time per level."""

    def deep(levels: int) -> Callable[[], object]:
        value = functools.reduce(lambda inner, n: sample.Point(n, {n: inner}), range(levels), None)
        return lambda: SAFE.dumps_typed(value)

    assert times_as_long(deep(20), deep(10)) < 50


def test_strict_refuses_unlisted_types_on_both_sides() -> None:
    """Strict: a data class that isn't allowed is neither stored nor loaded."""
    with pytest.raises(UnstorableValueError, match=r"allow=\[Point\]"):
        STRICT.dumps_typed(sample.Point(1))
    with pytest.raises(BlockedTypeError, match="Point"):
        STRICT.loads_typed(SAFE.dumps_typed(sample.Point(1)))
    for value in MESSAGES[:3]:
        assert again(value, STRICT) == value


@pytest.mark.parametrize("entry", [sample.Tags, (HERE, "Tags")])
def test_allowed_types_come_back(entry: Any) -> None:
    """An allowed class, passed itself or by name, is stored and loaded, also when strict."""
    for strict in (False, True):
        serde = SafeSerializer(allow=[entry], strict=strict)
        assert again(sample.Tags(["a"]), serde) == {"a"}
        assert type(again(sample.Tags(["a"]), serde)) is sample.Tags


def stamp(nanosecond: int) -> sample.Stamp:
    found = sample.Stamp(2026, 1, 1, tzinfo=UTC)
    found.nanosecond = nanosecond
    return found


def labelled(label: str) -> sample.Labelled:
    found = sample.Labelled(["a"])
    if label:
        found.label = label
    return found


@pytest.mark.parametrize(
    ("kept", "lost"),
    [
        (sample.Stamp(2026, 1, 1, tzinfo=UTC), stamp(5)),
        (labelled(""), labelled("mine")),
        (sample.Money("1.25"), sample.Money("1.255")),
    ],
    ids=name,
)
def test_each_value_of_an_allowed_type_comes_back_equal_or_is_refused(kept: Any, lost: Any) -> None:
    """Of an allowed subclass, values that its base's form doesn't hold are refused, others not,
    whichever comes first."""
    serde = SafeSerializer(allow=[type(kept)])

    for _ in range(2):
        with pytest.raises(UnstorableValueError, match="doesn't come back equal") as found:
            serde.dumps_typed({"a": [lost]})
        assert found.value.where == "value['a'][0]"
        assert type(found.value) is UnstorableValueError
        assert again([kept], serde) == [kept]
        assert type(again(kept, serde)) is type(kept)


def test_allow_is_advised_only_where_it_helps() -> None:
    """The refusal of a type that isn't allowed says to allow it, unless that changes nothing."""
    for helped in (sample.Stamp(2026, 1, 1), sample.Tags(["a"]), sample.Tags([sample.Stamp.min])):  # type: ignore[list-item]
        with pytest.raises(UnstorableValueError, match=r"Pass allow=\["):
            SAFE.dumps_typed(helped)
    hopeless = [stamp(5), sample.Span("1"), sample.Missing(2026, 1, 1), Fraction(1, 3), object()]
    for value in hopeless:
        for allow in ([], [type(value)]):
            with pytest.raises(UnstorableValueError) as found:
                SafeSerializer(allow=allow).dumps_typed([value])
            assert "allow=" not in str(found.value)
            assert "Keep" in str(found.value)


def test_allowlist_of_langgraph_names_nested_classes_shortly() -> None:
    """An entry with a nested class's last name allows the class."""
    serde = STRICT.with_msgpack_allowlist({(HERE, "Inner")})

    assert again(sample.Outer.Inner(1), serde) == sample.Outer.Inner(1)


@pytest.mark.parametrize("entry", ["os.system", ("a",), ("a", "b", "c"), (1, 2)])
def test_bad_allow_entries_are_refused(entry: Any) -> None:
    """An entry that is neither a class nor a pair of names is refused at once."""
    with pytest.raises(InvalidArgumentError, match="allow"):
        SafeSerializer(allow=[entry])


def test_allowlist_makes_a_copy_only_when_something_is_new() -> None:
    """Deriving with known types returns the same object, otherwise one with more rights."""
    assert STRICT.with_msgpack_allowlist([HumanMessage]) is STRICT

    derived = STRICT.with_msgpack_allowlist([sample.Point])

    assert derived.strict
    assert derived.with_msgpack_allowlist([(HERE, "Point")]) is derived
    assert again(sample.Point(1), derived) == sample.Point(1)
    with pytest.raises(UnstorableValueError):
        STRICT.dumps_typed(sample.Point(1))


def cipher_of(key: bytes = b"0123456789abcdef") -> EncryptedSerializer:
    return EncryptedSerializer.from_pycryptodome_aes(key=key)


def test_as_safe_replaces_what_is_langgraphs_own() -> None:
    """None and LangGraph's serializers become safe ones that keep allowlist and strictness."""
    assert isinstance(as_safe(None), SafeSerializer)
    loose = as_safe(JsonPlusSerializer(allowed_msgpack_modules=True))
    limited = as_safe(JsonPlusSerializer(allowed_msgpack_modules=[sample.Point]))
    assert isinstance(loose, SafeSerializer)
    assert isinstance(limited, SafeSerializer)

    assert not loose.strict
    assert limited.strict
    assert again(sample.Point(1), limited) == sample.Point(1)
    with pytest.raises(UnstorableValueError):
        limited.dumps_typed(sample.Pair(1))


def test_as_safe_adds_to_a_safe_serializer() -> None:
    """A SafeSerializer stays itself unless types or strictness are added."""
    assert as_safe(SAFE) is SAFE
    assert as_safe(STRICT, strict=True) is STRICT
    stricter = as_safe(SAFE, allow=[sample.Point], strict=True)
    assert isinstance(stricter, SafeSerializer)
    assert stricter.strict
    assert again(sample.Point(1), stricter) == sample.Point(1)


def test_as_safe_leaves_the_users_own_alone() -> None:
    """A serializer of the user's own, also a subclass, is used as it is."""

    class Own(JsonPlusSerializer):
        pass

    class OwnEncrypted(EncryptedSerializer):
        pass

    hooked = JsonPlusSerializer(__unpack_ext_hook__=lambda code, data: None)
    for serde in (Own(), hooked, OwnEncrypted(cipher_of().cipher)):
        assert as_safe(serde) is serde
    own = OwnEncrypted(cipher_of().cipher)
    assert with_allowlist(own, [sample.Point]) is own


@pytest.mark.parametrize("value", [None, b"a", bytearray(b"a"), [HumanMessage("x")]], ids=name)
def test_encrypted_values_come_back(value: Any) -> None:
    """Every kind of value comes back through encryption, and its text isn't in the bytes."""
    serde = as_safe(cipher_of())
    tag, data = serde.dumps_typed(value)

    assert isinstance(serde, SafeEncryptedSerializer)
    assert tag.endswith("+aes")
    assert b"HumanMessage" not in data
    assert serde.loads_typed((tag, data)) == value


def test_forged_clear_values_are_refused() -> None:
    """An encrypting serializer loads nothing that isn't encrypted."""
    serde = as_safe(cipher_of())

    for row in (SAFE.dumps_typed([1]), ("null", b""), ("bytes", b"payload")):
        with pytest.raises(CorruptValueError, match="not encrypted"):
            serde.loads_typed(row)


def test_wrong_key_or_changed_bytes_are_corrupt() -> None:
    """A wrong key, changed bytes or an unknown cipher raise an error without the payload."""
    tag, data = as_safe(cipher_of()).dumps_typed(["payload"])
    rows = [(tag, data[:-1] + b"!"), (tag, b""), ("msgpack+rot13", data)]

    for serde, row in [(cipher_of(b"f" * 16), (tag, data)), *((cipher_of(), r) for r in rows)]:
        with pytest.raises(CorruptValueError, match="decryption failed") as found:
            as_safe(serde).loads_typed(row)
        assert "payload" not in str(found.value)
        assert found.value.__context__ is None


def test_without_the_key_an_encrypted_value_is_told() -> None:
    """A saver without the serializer that encrypted a value says that this is what is missing."""
    with pytest.raises(CorruptValueError, match="encrypted; pass serde=EncryptedSerializer"):
        SAFE.loads_typed(as_safe(cipher_of()).dumps_typed(["payload"]))


def test_with_allowlist_keeps_encryption_safe() -> None:
    """Allowing more types keeps the class, the cipher and the refusal of clear values."""
    serde = as_safe(cipher_of(), strict=True)
    derived = with_allowlist(serde, [sample.Point])

    assert with_allowlist(derived, [sample.Point]) is derived
    assert isinstance(derived, SafeEncryptedSerializer)
    assert again(sample.Point(1), derived) == sample.Point(1)
    assert as_safe(derived, strict=True).loads_typed(derived.dumps_typed([1])) == [1]
    with pytest.raises(CorruptValueError):
        derived.loads_typed(SAFE.dumps_typed([1]))


def test_one_serializer_serves_many_threads() -> None:
    """Threads that meet the same classes for the first time don't disturb one another."""
    serde = SafeSerializer()
    values = [*OWN, *MESSAGES, *GRAPH] * 4

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda value: again(value, serde), values))

    assert found == values


def test_a_failing_part_says_so_without_its_text() -> None:
    """An object that raises while its fields are read is refused, its message left out."""

    @dataclasses.dataclass
    class Broken:
        n: int = 0

        def __getattribute__(self, attribute: str) -> Any:
            if attribute == "n":
                raise KeyError("payload")
            return super().__getattribute__(attribute)

    with pytest.raises(UnstorableValueError, match="KeyError") as found:
        SafeSerializer(allow=[Broken]).dumps_typed(Broken())

    assert "payload" not in str(found.value)


def test_a_stop_from_outside_passes_through() -> None:
    """KeyboardInterrupt while writing is raised as itself."""

    @dataclasses.dataclass
    class Slow:
        n: int = 0

        def __getattribute__(self, attribute: str) -> Any:
            if attribute == "n":
                raise KeyboardInterrupt
            return super().__getattribute__(attribute)

    with pytest.raises(KeyboardInterrupt):
        SafeSerializer(allow=[Slow]).dumps_typed([Slow()])


def test_v1_models_come_back() -> None:
    """Models of pydantic's old API come back equal, once the application uses it."""
    if sys.version_info >= (3, 14):
        pytest.skip("pydantic.v1 doesn't run on Python 3.14")
    v1 = pytest.importorskip("pydantic.v1")
    model = v1.create_model("OldModel", __module__=HERE, a=(int, ...), b=(Any, None))
    sample.OldModel = model  # type: ignore[attr-defined]
    try:
        assert again([model(a=1, b=sample.Point(1))], SafeSerializer()) == [
            model(a=1, b=sample.Point(1))
        ]
        assert again(model(a=1)).dict(exclude_unset=True) == {"a": 1}
    finally:
        del sample.OldModel  # type: ignore[attr-defined]


def test_numpy_values_come_back_exactly() -> None:
    """Arrays and scalars keep dtype, shape, order and bytes, and can be written to."""
    np = pytest.importorskip("numpy")
    grid = np.arange(12, dtype=">i4").reshape(3, 4)
    arrays = [
        grid,
        np.asfortranarray(grid),
        grid[::2, ::-1],
        np.array(5.0),
        np.zeros((0, 3)),
        np.array(["2026-01-01"], dtype="datetime64[ns]"),
        np.array(["a", "bc"]),
        np.array([b"a"]),
        np.array([1 + 2j]),
        np.array([True]),
    ]
    for value in arrays:
        found = again({"a": value})["a"]
        assert found.dtype == value.dtype
        assert found.shape == value.shape
        assert found.tobytes() == value.tobytes()
        assert found.flags.writeable
    for scalar in (np.float64(1.5), np.int8(3), np.bool_(True), np.datetime64("2026-01-01")):
        assert type(again([scalar])[0]) is type(scalar)
        assert again({scalar: 1}) == {scalar: 1}


def test_numpy_objects_are_refused() -> None:
    """Arrays of objects and of records are refused when written, and never made from a row."""
    np = pytest.importorskip("numpy")
    for value in (np.array([object()]), np.zeros(2, dtype=[("a", "i4")])):
        with pytest.raises(UnstorableValueError, match="dtype"):
            SAFE.dumps_typed(value)
    for row in (
        record(6, "|O", [1], "C", b"12345678"),
        record(6, "<i8", [2], "C", b"12345678"),
        record(6, "<i8", [-1, -1], "C", b"12345678"),
        record(105, "|O", b"12345678"),
    ):
        with pytest.raises(CorruptValueError):
            SAFE.loads_typed(row)


def test_validation_errors_of_models_stay_inside() -> None:
    """A model whose rules grew stricter still loads what was once valid."""
    with pytest.raises(ValidationError):
        sample.Changed(n=-1)

    assert again(sample.Changed.model_construct(n=-1)).n == -1


def test_a_list_is_the_encodings_of_its_items() -> None:
    """A list of messages has the bytes of its messages one after another, whatever they hold."""
    odd = HumanMessage("a", additional_kwargs={"a": {1: "\ud800"}, "b": sample.Point(1, (2,))})
    for values in (MESSAGES[:3], [odd, *MESSAGES[:3]], [*MESSAGES[:5], odd]):
        data = SAFE.dumps_typed(values)[1]

        assert data[1:] == b"".join(SAFE.dumps_typed(value)[1] for value in values)


def test_langgraphs_strict_mode_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where LangGraph's strict mode is on, the default serializer is strict."""
    monkeypatch.setattr("langgraph_pgsaga._langgraph.STRICT_MSGPACK_ENABLED", True)

    serde = as_safe(None)

    assert isinstance(serde, SafeSerializer)
    assert serde.strict
