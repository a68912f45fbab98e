"""Values whose types aren't loaded, as placeholders."""

from __future__ import annotations

import enum
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from pydantic import BaseModel

from langgraph_pgsaga.errors import CorruptValueError
from langgraph_pgsaga.serde.msgpack_decode import Decoder
from langgraph_pgsaga.serde.placeholder import Placeholder
from langgraph_pgsaga.serde.serializer import SafeSerializer


@dataclass
class Plan:
    seats: int
    inner: Any = None


class Model(BaseModel):
    name: str
    plan: Any = None


class Size(enum.Enum):
    LARGE = "large"


def loaded_elsewhere(value: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The value as a process has it that lacks this module."""
    stored = SafeSerializer().dumps_typed(value)
    monkeypatch.delitem(sys.modules, __name__)
    return SafeSerializer(lenient=True).loads_typed(stored)


def test_what_is_known_loads_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages, times, sets and plain data are equal to what was stored."""
    value = {"m": HumanMessage("hi", id="1"), "t": datetime.now(UTC), "s": {1}, "b": b"x"}
    assert loaded_elsewhere(value, monkeypatch) == value


@pytest.mark.parametrize(
    ("value", "name", "content"),
    [
        (Plan(2), "Plan", {"seats": 2, "inner": None}),
        (Model(name="n"), "Model", {"name": "n", "plan": None}),
        (Size.LARGE, "Size", "large"),
    ],
)
def test_an_unknown_type_is_named_with_what_it_holds(
    monkeypatch: pytest.MonkeyPatch, value: Any, name: str, content: Any
) -> None:
    """Beside it in the same value, and inside of it, the rest is there."""
    known, found = loaded_elsewhere([1, value], monkeypatch)
    assert known == 1
    assert type(found) is Placeholder
    assert (found.type_name, found.content) == (f"{__name__}.{name}", content)
    assert "isn't loaded here" in found.reason


def test_placeholders_stand_inside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """At any depth, also around what is known."""
    found = loaded_elsewhere(Plan(1, [Plan(2, HumanMessage("hi", id="1"))]), monkeypatch)
    inner = found.content["inner"][0]
    assert inner.content == {"seats": 2, "inner": HumanMessage("hi", id="1")}
    assert repr(found).startswith(f"<{__name__}.Plan: {{'seats': 1, ")


def test_each_object_is_decoded_once_however_deep_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """An object in an object, a hundred deep, takes a hundred steps to decode."""
    decoded = 0
    load = Decoder.load

    def counted(self: Decoder, data: bytes) -> Any:
        nonlocal decoded
        decoded += 1
        assert decoded < 1_000, "it is decoded again and again"
        return load(self, data)

    value = None
    for seats in range(100):
        value = Plan(seats, value)
    stored = SafeSerializer().dumps_typed(value)
    monkeypatch.delitem(sys.modules, __name__)
    monkeypatch.setattr(Decoder, "load", counted)
    found = SafeSerializer(lenient=True).loads_typed(stored)
    assert decoded == 101
    for seats in reversed(range(100)):
        assert found.content["seats"] == seats
        found = found.content["inner"]


def test_broken_bytes_are_an_error_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A placeholder before them doesn't pass for the reason."""
    kind, data = SafeSerializer().dumps_typed([Plan(1), Plan(2)])
    monkeypatch.delitem(sys.modules, __name__)
    with pytest.raises(CorruptValueError, match="cut short"):
        SafeSerializer(lenient=True).loads_typed((kind, data[:-1]))
