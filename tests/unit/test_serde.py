"""What the serializer stores and loads comes back as it was."""

from __future__ import annotations

import collections
import contextlib
import decimal
import enum
import math
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, time, timedelta, timezone
from datetime import tzinfo as TzInfo  # noqa: N812 - a class, whatever its name
from typing import Any

import numpy as np
import ormsgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import (
    HumanMessage,
    ToolMessage,
)
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Send
from pydantic import AnyUrl, TypeAdapter

from langgraph_pgsaga.errors import (
    CorruptValueError,
    SerializationError,
    UnstorableValueError,
)
from langgraph_pgsaga.serde.serializer import (
    SafeSerializer,
)
from tests.unit import _serde_types as sample
from tests.unit._serde_values import (
    GRAPH,
    HERE,
    MESSAGES,
    NOON,
    OWN,
    PARIS,
    PLAIN,
    SAFE,
    SCALARS,
    STANDARD,
    again,
    name,
    nested,
    record,
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
        (np.str_("a"), "a"),
        (ValueError("no"), "ValueError('no')"),
        ([ValueError("\ud800")], ["ValueError('\\ud800')"]),
        (sample.FailureError(code=3), "FailureError(code=3)"),
    ],
    ids=name,
)
def test_documented_changes(value: Any, becomes: Any) -> None:
    """Plain tuples, subclasses of builtins and exceptions change as documented."""
    assert same(again(value), becomes)


@pytest.mark.parametrize(
    "value",
    [
        sample.Frozen(((1, 2),)),
        ToolMessage("found", tool_call_id="1", artifact={"pairs": [(1, 2)]}),
        Send("work", ({"pair": (1, 2)},)),
        {(1, (2,))},
        {(1, (2,)): None},
        collections.deque([(1, 2)]),
    ],
    ids=name,
)
def test_a_tuple_in_an_object_stays_one(value: Any) -> None:
    """Those in a dataclass, message, Send, set, key or deque don't become lists."""
    assert same(again(value), value)


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


def test_one_serializer_serves_many_threads() -> None:
    """Threads that meet the same classes for the first time don't disturb one another."""
    serde = SafeSerializer()
    values = [*OWN, *MESSAGES, *GRAPH] * 4

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda value: again(value, serde), values))

    assert found == values


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


@pytest.mark.parametrize("data", [b"ab", b"ab\0", b"\0\0", b"", b"a" * 5000])
def test_numpy_bytes_come_back_alone_and_within(data: bytes) -> None:
    """With NULs at their end, and empty; so they don't become another type by where they are."""
    np = pytest.importorskip("numpy")
    value = np.bytes_(data)
    for found in (again(value), again([value])[0], again({"a": (value,)})["a"][0]):
        assert type(found) is np.bytes_
        assert bytes(found) == data


class Bits(bytes, enum.Enum):
    ON = b"1"


def test_members_that_are_bytes_come_back_alone_and_within() -> None:
    """The value of a channel is one that stands alone."""
    for found in (again(Bits.ON), again([Bits.ON])[0]):
        assert found is Bits.ON


def test_numpy_text_comes_back_as_text() -> None:
    """With LangGraph's own serializer, too: msgpack has text of any class as text."""
    np = pytest.importorskip("numpy")
    value = np.str_("ab\0")
    control = JsonPlusSerializer()
    for found in (again(value), again([value])[0], control.loads_typed(control.dumps_typed(value))):
        assert type(found) is str
        assert found == "ab\0"


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


def test_a_list_is_the_encodings_of_its_items() -> None:
    """A list of messages has the bytes of its messages one after another, whatever they hold."""
    odd = HumanMessage("a", additional_kwargs={"a": {1: "\ud800"}, "b": sample.Point(1, (2,))})
    for values in (MESSAGES[:3], [odd, *MESSAGES[:3]], [*MESSAGES[:5], odd]):
        data = SAFE.dumps_typed(values)[1]

        assert data[1:] == b"".join(SAFE.dumps_typed(value)[1] for value in values)
