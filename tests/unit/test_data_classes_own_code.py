"""Objects of an application's classes: what their own code makes when they are loaded."""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, Field, PrivateAttr, model_validator

from langgraph_pgsaga._same import is_same
from tests.unit._own_classes import again


@dataclasses.dataclass
class Indexed:
    """Keeps what isn't a field."""

    words: list[str]

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._index = {word: place for place, word in enumerate(self.words)}
        self.words = [*self.words, "end"]


@dataclasses.dataclass
class Meddler:
    """Changes whatever it was given, in place, and keeps an index of it."""

    parts: Any

    def __post_init__(self) -> None:
        self.index = dict(self.parts)
        meddle_with(self.parts)


class MeddlingModel(BaseModel):
    parts: Any
    _index: dict[str, Any] = PrivateAttr(default_factory=dict)

    def model_post_init(self, context: Any, /) -> None:
        self._index = dict(self.parts)
        meddle_with(self.parts)
        if len(self.parts) > 100:
            raise ValueError("parts")


@dataclasses.dataclass
class Leaf:
    n: int


@dataclasses.dataclass(slots=True)
class SlottedLeaf:
    n: int


class ModelLeaf(BaseModel):
    n: int


def meddle_with(parts: dict[str, Any]) -> None:
    parts["list"].append("more")
    parts["list"][0].clear()
    parts["set"].add("more")
    parts["deque"].rotate()
    parts["tuple"][0].append("more")
    for leaf in parts["leaves"]:
        leaf.n += 1
    if "array" in parts:
        parts["array"] *= 2
    parts["more"] = 1


class HasSlot:
    __slots__ = ("_hidden",)


@dataclasses.dataclass(slots=True)
class HidesInSlot(HasSlot):
    a: int

    def __post_init__(self) -> None:
        self._hidden = 5  # type: ignore[misc]
        self.a += 1


class OwnInitAndAlias(BaseModel):
    """Its __init__ is given aliases only."""

    name: str = Field(alias="theName")
    _made: int = PrivateAttr(0)

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._made = 1
        self.name += "!"


class Private(BaseModel):
    """Its private attributes are made by its own code."""

    total: int
    _lock: Any = PrivateAttr()
    _seen: list[int] = PrivateAttr(default_factory=list)

    def model_post_init(self, context: Any, /) -> None:
        self._lock = threading.Lock()
        self.total += 1
        if self.total > 100:
            raise ValueError("too much")


class Client(BaseModel):
    """Its client isn't stored, but made."""

    url: str
    client: Any = Field(default=None, exclude=True)

    @model_validator(mode="after")
    def _connect(self) -> Client:
        self.client = f"client of {self.url}"
        return self


def test_attributes_beside_the_fields_are_made_by_the_class() -> None:
    """What a dataclass keeps beside its fields is there again; its fields are as they were."""
    value = Indexed(["a"])
    assert value.words == ["a", "end"]

    found = again(value)

    assert found.words == ["a", "end"]
    assert found._index
    assert not found._lock.locked()
    assert again(found).words == ["a", "end"]


def test_what_else_an_object_holds_is_made_by_its_class() -> None:
    """In slots that aren't fields, or by an __init__ that knows aliases only."""
    slotted = again(HidesInSlot(1))
    assert (slotted.a, slotted._hidden) == (2, 5)
    model = again(OwnInitAndAlias(theName="a"))
    assert (model.name, model._made) == ("a!", 1)


def test_private_attributes_are_made_by_the_class() -> None:
    """They aren't stored; the class makes them, and the fields are as they were stored."""
    value = Private(total=1)
    value._seen.append(3)
    assert value.total == 2

    found = again(value)

    assert found.total == 2
    assert found._seen == []
    assert not found._lock.locked()
    assert again(found).total == 2


def test_private_attributes_have_defaults_where_the_class_refuses() -> None:
    """A check that refuses what was stored leaves the private attributes' defaults."""
    value = Private(total=1)
    value.total = 100

    found = again(value)

    assert found.total == 100
    assert found._seen == []


def test_excluded_fields_are_made_by_the_class() -> None:
    """A field that isn't dumped isn't stored; the class makes it again."""
    found = again(Client(url="u"))

    assert found.client == "client of u"
    assert found.url == "u"


@pytest.mark.parametrize("cls", [Meddler, MeddlingModel])
def test_what_own_code_changes_in_place_is_put_back(cls: Callable[..., Any]) -> None:
    """The stored fields stand at any depth; an index of them still leads to the same objects."""
    made = cls(parts=_meddled())
    made.parts = _meddled()

    found = again(again(made))

    assert is_same(found.parts, made.parts)
    index = found.index if cls is Meddler else found._index
    assert index["leaves"] is found.parts["leaves"]


def test_what_own_code_changes_before_it_refuses_is_put_back() -> None:
    """A check that is new: the object is made of the stored fields."""
    made = MeddlingModel(parts=_meddled())
    made.parts = _meddled() | {str(n): n for n in range(100)}

    assert is_same(again(made).parts, made.parts)


def _meddled() -> dict[str, Any]:
    np = pytest.importorskip("numpy")
    return {
        "list": [{"a": 1}, 2],
        "set": {"a"},
        "deque": deque([1, 2, 3]),
        "tuple": ([1],),
        "leaves": [Leaf(1), SlottedLeaf(1), ModelLeaf(n=1)],
        "array": np.arange(3.0),
    }
