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

from langgraph_pgsaga._same import is_same

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
    (np.datetime64("NaT"), np.datetime64("NaT")),
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


def test_deep_values_are_compared() -> None:
    """How deeply values nest doesn't matter."""
    left: Any = 1
    right: Any = True
    for _ in range(10_000):
        left, right = [left], [right]

    assert not is_same(left, right)
