"""Objects of classes that are made inside functions."""

from __future__ import annotations

import dataclasses
import enum
import sys
import types
import weakref
from typing import Any, NamedTuple

import ormsgpack
import pytest
from langchain_core.messages import HumanMessage
from pydantic import (
    BaseModel,
    create_model,
)

from langgraph_pgsaga.errors import (
    BlockedTypeError,
    MissingTypeError,
    UnstorableValueError,
)
from langgraph_pgsaga.serde import live_classes
from langgraph_pgsaga.serde.serializer import SafeSerializer
from tests._forked import assert_succeeds, in_child, needs_fork
from tests.unit._own_classes import Box, again, members


def factory(**fields: Any) -> Any:
    return create_model("Choice", a=(int, ...), **fields)


def local_kinds() -> list[Any]:
    class Model(BaseModel):
        a: int

    @dataclasses.dataclass
    class Data:
        a: int

    class Colour(enum.Enum):
        RED = 1

    class Pair(NamedTuple):
        a: int

    class Message(HumanMessage):
        a: int = 0

    class Child(Model):
        b: int = 0

    Box2 = Box[Model]  # noqa: N806 - a class
    return [
        Model(a=1),
        Data(1),
        Colour.RED,
        Pair(1),
        Message(content="x", a=1),
        Child(a=1),
        Box2(item=Model(a=1)),
    ]


@pytest.mark.parametrize("place", range(7))
def test_local_classes_come_back(place: int) -> None:
    """A class made inside a function is found again, as long as it lives."""
    value = local_kinds()[place]
    assert type(again(value)) is type(value)
    assert again([value, {"a": value}]) == [value, {"a": value}]


def elsewhere(stored: tuple[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The value as another process has it, which knows no marks."""
    marks: Any = weakref.WeakValueDictionary()
    monkeypatch.setattr("langgraph_pgsaga.serde.live_classes._marked", marks)
    monkeypatch.setattr("langgraph_pgsaga.serde.live_classes._searches", {})
    return SafeSerializer().loads_typed(stored)


@pytest.mark.parametrize("place", range(7))
def test_another_process_finds_local_classes(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the function ran, too, its class is found by its name."""
    value = local_kinds()[place]
    assert type(elsewhere(SafeSerializer().dumps_typed(value), monkeypatch)) is type(value)


def test_each_local_class_is_itself() -> None:
    """A function that ran twice has made two classes: each value comes back as its own."""
    serde = SafeSerializer()
    one, two = factory(), factory()
    stored = [serde.dumps_typed(cls(a=1)) for cls in (one, two)]
    assert [type(serde.loads_typed(some)) for some in stored] == [one, two]


def test_another_process_takes_the_newest_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several classes of a name, one with the stored fields, and of those the newest."""
    old, new, other = factory(), factory(), factory(b=(int, 0))
    stored = SafeSerializer().dumps_typed(old(a=1))
    assert type(elsewhere(stored, monkeypatch)) is new
    bigger = SafeSerializer().dumps_typed(other(a=1, b=2))
    assert type(elsewhere(bigger, monkeypatch)) is other


def test_in_a_notebook_the_newest_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where code has no file, a function is run again because it was changed."""
    serde = SafeSerializer()
    monkeypatch.setitem(sys.modules, "notebook", types.ModuleType("notebook"))

    def cell() -> Any:
        return create_model("Choice", __module__="notebook", a=(int, ...))

    old, new = cell(), cell()
    assert type(again(old(a=1), serde)) is new
    assert type(again(new(a=1), serde)) is new


def test_a_local_class_that_is_gone_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its function didn't run, the error says which must."""
    record = [__name__, "never.<locals>.Ran", {"a": 1}, {"class": b"elsewhere"}]
    data = ormsgpack.packb(ormsgpack.Ext(5, ormsgpack.packb(record)))
    with pytest.raises(MissingTypeError, match=r"Call never\(\) first, or define"):
        SafeSerializer().loads_typed(("msgpack", data))


def test_a_class_that_came_since_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """That it was missing a moment ago doesn't hide it."""
    serde = SafeSerializer()
    record = [__name__, "late.<locals>.Came", {"a": 1}, {"class": b"elsewhere"}]
    stored = "msgpack", ormsgpack.packb(ormsgpack.Ext(5, ormsgpack.packb(record)))
    with pytest.raises(MissingTypeError):
        serde.loads_typed(stored)

    class Came(BaseModel):
        a: int

    Came.__qualname__ = "late.<locals>.Came"
    assert serde.loads_typed(stored) == Came(a=1)


def test_a_row_finds_no_other_class_among_the_live_ones() -> None:
    """Only data classes are found so; strict rules find none that isn't allowed."""

    class Plain:
        pass

    class Data(BaseModel):
        a: int = 1

    for cls, error in ((Plain, BlockedTypeError), (Data, None)):
        record = [__name__, cls.__qualname__, {}, {"class": b"elsewhere"}]
        stored = "msgpack", ormsgpack.packb(ormsgpack.Ext(5, ormsgpack.packb(record)))
        if error:
            with pytest.raises(error):
                SafeSerializer().loads_typed(stored)
        with pytest.raises(BlockedTypeError):
            SafeSerializer(strict=True).loads_typed(stored)
        with pytest.raises(UnstorableValueError):
            SafeSerializer(strict=True).dumps_typed(cls())
    allowed = SafeSerializer(strict=True, allow=[Data])
    assert again(Data(), allowed) == Data()
    by_name = SafeSerializer(strict=True, allow=[(__name__, Data.__qualname__)])
    assert again(Data(), by_name) == Data()


def test_a_generic_that_isnt_in_use_here_loads_as_its_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process that has no Box[...] of this kind makes a Box, which is equal."""
    value = Box[dict[str, int]](item={"a": 1})
    stored = SafeSerializer().dumps_typed(value)
    monkeypatch.setattr("langgraph_pgsaga.serde.live_classes.find", lambda *_: None)
    found = SafeSerializer().loads_typed(stored)
    assert type(found) is Box
    assert found == value


def test_local_classes_are_let_go() -> None:
    """A class made inside a function goes when nobody has it: no lists grow with them."""
    serde = SafeSerializer()
    for _ in range(2_100):
        cls = members(A=1)
        cls.__module__ = __name__
        assert again(cls.A, serde) is cls.A
    assert len(serde._writers.known) <= 2_000


@needs_fork
def test_a_child_gives_marks_whatever_its_parent_was_at() -> None:
    """A thread of the parent that was giving one isn't in the child, nor is what it holds."""

    def child() -> None:
        for value in local_kinds():
            assert again(value) == value

    with live_classes._marking.lock:
        pid = in_child(child)
    assert_succeeds(pid)
