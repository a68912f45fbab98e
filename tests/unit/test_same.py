"""What counts as the same value."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langgraph.store.base import Item
from langgraph.types import Interrupt, Send

from langgraph_pgsaga._same import Numbers, is_same

NAN = float("nan")
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


@dataclass
class Point:
    x: Any


@dataclass(frozen=True)
class Corner:
    x: Any


class Bag:
    """Compares by identity."""

    def __init__(self, held: Any) -> None:
        self.held = held


class Undecided(Bag):
    """Has a == that answers with something else than a bool, as tables do."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> Any:
        return [self, other]


def ring() -> Bag:
    bag = Bag(None)
    bag.held = [bag]
    return bag


def nan() -> float:
    return float("nan")


SAME: list[tuple[Any, Any]] = [
    (float("nan"), float("nan")),
    ([{"a": float("nan")}], [{"a": float("nan")}]),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ({1, "a", (2,)}, {(2,), "a", 1}),
    (HumanMessage("hi", id="1"), HumanMessage("hi", id="1")),
    (Point(float("nan")), Point(float("nan"))),
    (Send("n", {"x": float("nan")}), Send("n", {"x": float("nan")})),
    (np.array([1.0, float("nan")]), np.array([1.0, float("nan")])),
    (np.array([[1, NAN], [2j, NAN]]), np.array([[1, -NAN], [2j, NAN]])),
    (np.array([None, [1]], dtype=object), np.array([None, [1]], dtype=object)),
    (np.float32(nan()), np.float32(nan())),
    (np.complex64(complex(1, NAN)), np.complex64(complex(1, NAN))),
    (np.datetime64("NaT", "s"), np.datetime64("NaT", "s")),
    (np.arange(4)[::2], np.array([0, 2])),
    (datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)),
    ({nan(), (1, nan())}, {nan(), (1, nan())}),
    ({nan(): 1}, {nan(): 1}),
    (Decimal("NaN"), Decimal("NaN")),
    (Decimal("sNaN"), Decimal("sNaN")),
    (complex(1, NAN), complex(1, NAN)),
    (Bag([1, Bag(nan())]), Bag([1, Bag(nan())])),
    (Undecided(1), Undecided(1)),
    (ring(), ring()),
    (ValueError("a", nan()), ValueError("a", nan())),
    (
        Item(value={"a": nan()}, key="k", namespace=("n",), created_at=NOON, updated_at=NOON),
        Item(value={"a": nan()}, key="k", namespace=("n",), created_at=NOON, updated_at=NOON),
    ),
    (re.compile("a"), re.compile("a")),
    (int, int),
]
DIFFERENT: list[tuple[Any, Any]] = [
    (1, True),
    (1, 1.0),
    (0.0, -0.0),
    ([1], (1,)),
    ([1], deque([1])),
    ({1}, {True}),
    ({1}, frozenset({1})),
    ({"a": None}, {}),
    ("a", "a\x00"),
    (HumanMessage("hi", id="1"), HumanMessage("hi", id="2")),
    (AIMessage("hi", id="1"), AIMessageChunk(content="hi", id="1")),
    (AIMessage("hi", extra=1), AIMessage("hi", extra=2)),
    (Point(1), Point(True)),
    (Send("n", 1), Send("n", True)),
    (np.array([1, 2]), np.array([1, 3])),
    (np.array([0.0]), np.array([-0.0])),
    (np.array([NAN, 0.0]), np.array([NAN, -0.0])),
    (np.array([1.0]), np.array([1.0], dtype="f4")),
    (np.array([[1, 2]]), np.array([1, 2])),
    (np.zeros(1536), np.eye(1, 1536, 700)[0]),
    (np.array([None, [1]], dtype=object), np.array([None, [True]], dtype=object)),
    (Interrupt(value="a", id="1"), Interrupt(value="b", id="1")),
    ({1: "a"}, {True: "a"}),
    ({(1, 2): "a"}, {(1, True): "a"}),
    ({Corner(1)}, {Corner(2)}),
    (deque([1], maxlen=5), deque([1])),
    (NOON, NOON.astimezone(timezone(timedelta(hours=1)))),
    (NOON, NOON.replace(tzinfo=ZoneInfo("UTC"))),
    (NOON, NOON.replace(fold=1)),
    (time(1, tzinfo=UTC), time(1, tzinfo=timezone.max)),
    (Decimal("1.0"), Decimal("1.00")),
    (complex(1, 0.0), complex(1, -0.0)),
    (np.float32(0.0), np.float32(-0.0)),
    (np.datetime64("2024-01-01"), np.datetime64("2024-01-01", "ns")),
    (Fraction(1, 3), Fraction(1, 2)),
    (Bag([1]), Bag([True])),
    (Undecided(1), Undecided(2)),
    (ValueError("a"), ValueError("b")),
    (Point(1), Corner(1)),
    (re.compile("a"), re.compile("a", re.IGNORECASE)),
    (int, float),
    ((n for n in "a"), (n for n in "a")),
]


@pytest.mark.parametrize(("left", "right"), SAME)
def test_equal_content_is_the_same(left: Any, right: Any) -> None:
    """NaN is NaN, the order of keys and elements of sets doesn't count, arrays are compared."""
    assert is_same(left, right)


@pytest.mark.parametrize(("left", "right"), DIFFERENT)
def test_another_type_or_content_is_different(left: Any, right: Any) -> None:
    """What == takes for equal is told apart by type, at any depth."""
    for wrap in (lambda v: v, lambda v: [v], lambda v: {"k": (v,)}):
        assert not is_same(wrap(left), wrap(right))


def dirty(array: Any) -> Any:
    """The same content, with other bytes wherever there is padding."""
    copy = np.frombuffer(bytearray(b"\xa5" * array.nbytes), dtype=array.dtype).reshape(array.shape)
    copy[...] = array
    if array.dtype.kind in "fc" and np.finfo(array.dtype).nmant == 63:  # ten bytes of sixteen
        copy.reshape(-1).view("u1").reshape(-1, 16)[:, 10:] = 0xA5
    return copy


PADDED = np.dtype([("flag", "?"), ("number", "f8"), ("long", "g"), ("sub", "i2", (3,))], align=True)
MASK = [False, True, False]
CONTENTS: dict[str, tuple[Any, Any]] = {
    "b": (np.array([True, False]), np.array([True, True])),
    "i": (np.array([1, -2], "i2"), np.array([1, 2], "i2")),
    "u": (np.array([1, 2], "u8"), np.array([1, 3], "u8")),
    "f": (np.array([1, NAN, 0.0, -0.0]), np.array([1, NAN, 0.0, 0.0])),
    "half": (np.array([1, NAN], "f2"), np.array([NAN, 1], "f2")),
    "big-endian": (np.array([1, NAN], ">f4"), np.array([1, 2], ">f4")),
    "longdouble": (np.array([1, NAN, -0.0], "g"), np.array([1, NAN, 0.0], "g")),
    "c": (np.array([1j, complex(NAN, 1)]), np.array([1j, complex(NAN, 2)])),
    "clongdouble": (np.array([1j, NAN], "G"), np.array([-1j, NAN], "G")),
    "m": (np.array([1, "NaT"], "m8[s]"), np.array([1, 2], "m8[s]")),
    "M": (np.array(["2024-01-01", "NaT"], "M8[D]"), np.array(["2024-01-01"] * 2, "M8[D]")),
    "S": (np.array([b"a", b"bc"]), np.array([b"a", b"bd"])),
    "U": (np.array(["a", "\U0001f600"]), np.array(["a", "b"])),
    "V": (np.array([b"ab"], "V2"), np.array([b"ac"], "V2")),
    "O": (np.array([1, NAN, [1]], object), np.array([True, NAN, [1]], object)),
    "structured": (
        np.array([(True, NAN, 1, (1, 2, 3))], PADDED),
        np.array([(True, NAN, 1, (1, 2, 4))], PADDED),
    ),
    "structured with objects": (
        np.array([(1, [NAN])], [("n", "i4"), ("o", "O")]),
        np.array([(1, [True])], [("n", "i4"), ("o", "O")]),
    ),
    "nested": (
        np.array([((1.0,), 2)], np.dtype([("in", [("x", "f8")]), ("n", "i1")], align=True)),
        np.array([((1.5,), 2)], np.dtype([("in", [("x", "f8")]), ("n", "i1")], align=True)),
    ),
    "no dimension": (np.array(1, "g"), np.array(2, "g")),
    "empty": (np.empty((0, 3)), np.empty((3, 0))),
    "strings": (np.array(["a", "b" * 50], "T"), np.array(["a", "c" * 50], "T")),
}


@pytest.mark.parametrize(("one", "other"), CONTENTS.values(), ids=CONTENTS)
def test_arrays_of_each_kind_are_compared_by_content(one: Any, other: Any) -> None:
    """Never by padding, layout or flags; and so are the single numbers of which they are made."""
    same = [one.copy(), np.array(one, order="F"), np.asarray(one)]
    if not one.dtype.hasobject:
        same.append(dirty(one))
    if one.ndim:
        twice = np.repeat(one, 2, axis=0)[::2]
        twice.setflags(write=False)
        same += [one[::-1].copy()[::-1], twice]
    for array in same:
        assert is_same(one, array)
        assert is_same([one], [array])
        assert all(map(is_same, one.ravel(), array.ravel()))
        numbers = Numbers()
        assert numbers.of(one) == numbers.of(array) != numbers.of(other)
    assert not is_same(one, other)
    assert not is_same({"a": (one,)}, {"a": (other,)})
    assert not all(map(is_same, one.ravel(), other.ravel())) or one.size == 0
    assert not is_same(one, one.reshape(*one.shape, 1))


def test_arrays_of_subclasses_are_compared_by_content() -> None:
    """Masks and fill values count, records and matrices are their content, whatever is padding."""
    plain = np.array([(True, NAN, 1, (1, 2, 3))], PADDED)
    assert is_same(plain.view(np.recarray), dirty(plain).view(np.recarray))
    assert not is_same(plain.view(np.recarray), plain)
    long = np.array([1, NAN, 3], "g")
    masked = np.ma.array(long, mask=MASK)
    assert is_same(masked, np.ma.array(dirty(long), mask=MASK))
    for other in (
        np.ma.array(long, mask=[True, True, False]),
        np.ma.array(long, mask=MASK, fill_value=5),
        np.ma.array([1, NAN, 4], mask=MASK, dtype="g"),
        np.ma.array(long),
        long,
    ):
        assert not is_same(masked, other)
    numbers = Numbers()
    assert numbers.of(masked) == numbers.of(masked.copy())


def test_numbers_are_those_of_the_same_values() -> None:
    """Whatever is the same has one number, whatever isn't has others."""
    for left, right in SAME:
        numbers = Numbers()
        assert numbers.of(left) == numbers.of(right) == numbers.of([left][0])
        assert numbers.of({"a": [left]}) == numbers.of({"a": [right]})
    for left, right in DIFFERENT:
        numbers = Numbers()
        assert numbers.of(left) != numbers.of(right)
        assert numbers.of([[left]]) != numbers.of([[right]])
        assert not numbers.is_exhausted


def test_large_values_have_a_number_whatever_the_order_of_their_keys() -> None:
    """Also where there is more in them than is looked at."""
    one = {f"k{n}": [n] * 20 for n in range(15_000)}
    numbers = Numbers()
    first = numbers.of(one)
    assert numbers.of(dict(reversed(one.items()))) == first
    assert numbers.of({**one, "k7": [0]}) != first


def test_deep_values_are_compared() -> None:
    """How deeply values nest doesn't matter."""
    left: Any = 1
    right: Any = True
    for _ in range(10_000):
        left, right = [left], [right]

    assert not is_same(left, right)
