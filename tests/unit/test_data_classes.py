"""Objects of an application's classes: how they are built again."""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import operator
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Generic, Literal, NamedTuple

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    RootModel,
    computed_field,
    create_model,
    field_validator,
    model_validator,
)
from pydantic import dataclasses as pydantic_dataclasses

from langgraph_pgsaga.errors import UnstorableValueError
from langgraph_pgsaga.serde.serializer import SafeSerializer
from tests.unit._own_classes import HERE, Box, T, again, deployed, kinds, loaded, named

CALLS: list[str] = []


@pytest.fixture(autouse=True)
def no_calls() -> None:
    CALLS.clear()


@dataclasses.dataclass
class Order:
    qty: int

    def __post_init__(self) -> None:
        CALLS.append("Order")
        if self.qty < 0:
            raise ValueError("qty")


@dataclasses.dataclass
class Louder:
    text: str

    def __post_init__(self) -> None:
        self.text += "!"


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    a: int
    b: list[int] = dataclasses.field(default_factory=list)
    c: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        CALLS.append("Slotted")
        object.__setattr__(self, "c", self.a + 1)


@dataclasses.dataclass(slots=True)
class Base:
    a: int


@dataclasses.dataclass(slots=True, weakref_slot=True)
class Derived(Base):
    b: int = 0


@dataclasses.dataclass(kw_only=True)
class Keywords:
    a: int
    b: dataclasses.InitVar[int]
    shared: ClassVar[int] = 5

    def __post_init__(self, b: int) -> None:
        CALLS.append("Keywords")
        self.a += b


@dataclasses.dataclass
class Job:
    """Its result comes later."""

    id: str
    result: str = dataclasses.field(init=False)


@dataclasses.dataclass
class Cached:
    a: int

    def __post_init__(self) -> None:
        CALLS.append("Cached")

    @functools.cached_property
    def twice(self) -> int:
        return 2 * self.a


@dataclasses.dataclass(init=False)
class OwnInit:
    a: int

    def __init__(self, text: str) -> None:
        CALLS.append("OwnInit")
        self.a = len(text)


@dataclasses.dataclass
class GenericBox(Generic[T]):
    item: T

    def __post_init__(self) -> None:
        CALLS.append("GenericBox")


class Celsius:
    """A descriptor that keeps what it is given elsewhere, in another unit."""

    def __get__(self, instance: Any, owner: type) -> Any:
        return 20 if instance is None else instance._kelvin - 273

    def __set__(self, instance: Any, value: int) -> None:
        instance._kelvin = value + 273


@dataclasses.dataclass
class Weather:
    degrees: Any = Celsius()


@pydantic_dataclasses.dataclass
class CheckedOrder:
    qty: Annotated[int, AfterValidator(operator.neg)]


@pydantic_dataclasses.dataclass(config=ConfigDict(extra="allow"))
class OpenData:
    a: int


@dataclasses.dataclass
class NewTakesArguments:
    a: int

    def __new__(cls, a: int) -> NewTakesArguments:
        CALLS.append("NewTakesArguments")
        return super().__new__(cls)


class Louder2(BaseModel):
    text: str
    items: list[str] = []

    @field_validator("text")
    @classmethod
    def _louder(cls, value: str) -> str:
        CALLS.append("Louder2")
        return value + "!"


class After(BaseModel):
    total: int

    @model_validator(mode="after")
    def _taxed(self) -> After:
        self.total += 1
        return self


class PostInit(BaseModel):
    total: int

    def model_post_init(self, context: Any, /) -> None:
        CALLS.append("PostInit")
        self.total += 1


class CustomInit(BaseModel):
    total: int

    def __init__(self, **given: Any) -> None:
        CALLS.append("CustomInit")
        super().__init__(**given)
        self.total += 1


class Numbers(RootModel[list[int]]):
    @model_validator(mode="after")
    def _one_more(self) -> Numbers:
        self.root.append(0)
        return self


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"


class Home(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_assignment=True)
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    by_alias: int = Field(default=1, alias="byAlias")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def lives(self) -> int:
        return self.pet.lives if isinstance(self.pet, Cat) else 1

    @functools.cached_property
    def noise(self) -> str:
        return f"{self.pet.kind}!"


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


class Place(NamedTuple):
    x: int
    y: int = 0


class Halved(Place):
    __slots__ = ()

    def __new__(cls, x: int, y: int = 0) -> Halved:
        CALLS.append("Halved")
        return super().__new__(cls, x // 2, y // 2)


def frozen_slotted() -> Slotted:
    value = Slotted(1, [2])
    object.__setattr__(value, "c", 7)
    return value


def job(result: str | None) -> Job:
    made = Job("1")
    if result is not None:
        made.result = result
    return made


def cached() -> Cached:
    made = Cached(2)
    assert made.twice == 4
    return made


def loud_home() -> Home:
    made = Home(pet=Cat(lives=3), byAlias=4)
    assert made.noise == "cat!"
    return made


MADE: list[Callable[[], Any]] = [
    lambda: Order(3),
    lambda: Louder("a"),
    lambda: Slotted(1),
    frozen_slotted,
    lambda: Derived(1, 2),
    lambda: Keywords(a=1, b=2),
    lambda: job("done"),
    lambda: job(None),
    cached,
    lambda: OwnInit("abc"),
    lambda: GenericBox[int](3),
    lambda: CheckedOrder(qty=3),
    lambda: OpenData(a=1, b=[2]),  # type: ignore[call-arg]
    lambda: Louder2(text="a", items=["b"]),
    lambda: After(total=1),
    lambda: PostInit(total=1),
    lambda: CustomInit(total=1),
    lambda: Numbers([1]),
    loud_home,
    lambda: Open.model_validate({"a": 1, "b": {"c": [2]}}),
    lambda: Box[int](item=3),
    lambda: Halved(9, 5),
    lambda: Place(1),
]


@pytest.mark.parametrize("make", MADE)
def test_objects_are_built_as_copy_builds_them(make: Callable[[], Any]) -> None:
    """An object comes back as a copy of it would, and no code of its class runs."""
    value = make()
    serde = SafeSerializer()
    stored = serde.dumps_typed([value])
    CALLS.clear()

    (found,) = serde.loads_typed(stored)

    assert CALLS == []
    # copy itself calls the __new__ of a named tuple.
    copied = value if isinstance(value, tuple) else copy.copy(value)
    assert type(found) is type(value)
    for name in getattr(value, "__dataclass_fields__", ()):
        assert getattr(found, name, None) == getattr(copied, name, None)
        assert hasattr(found, name) == hasattr(copied, name)
    if hasattr(value, "result") or not isinstance(value, Job):
        assert found == copied
    assert serde.dumps_typed([found]) == stored


def test_an_object_that_a_check_refuses_loads() -> None:
    """That a class was valid once says nothing of the next object: each loads as it is."""
    serde = SafeSerializer()
    good, bad = Order(7), Order(1)
    bad.qty = -3
    assert again(good, serde) == good
    assert again(bad, serde) == bad
    assert again([{"a": bad}], serde) == [{"a": bad}]


def test_a_class_whose_new_takes_arguments() -> None:
    """It is built without asking it."""
    value = NewTakesArguments(3)
    CALLS.clear()
    assert again(value) == value
    assert CALLS == []


def test_a_class_that_was_defined_anew_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """That objects of a class were stored before says nothing once its name stands for another."""
    serde = SafeSerializer()
    old = named(kinds(a=...)[0], "Thing")
    monkeypatch.setattr(HERE, "Thing", old, raising=False)
    assert again(old(a=1), serde) == old(a=1)
    new = named(kinds(b=...)[0], "Thing")
    monkeypatch.setattr(HERE, "Thing", new)
    with pytest.raises(UnstorableValueError, match="defined anew"):
        serde.dumps_typed([old(a=1)])
    assert again(new(b=1), serde) == new(b=1)


class Labels(set[str]):
    """A type that has to be allowed, and keeps what it has worked out."""

    @functools.cached_property
    def longest(self) -> str:
        return max(self, key=len)


def test_what_an_allowed_object_has_worked_out_is_no_part_of_it() -> None:
    """A cached property of an allowed type refuses nothing: it is worked out again."""
    value = Labels(["a", "bb"])
    assert value.longest == "bb"
    found = again(value, SafeSerializer(allow=[Labels]))
    assert (found, type(found), found.longest) == (value, Labels, "bb")


def test_descriptors_are_set() -> None:
    """A field that a descriptor keeps elsewhere has its value."""
    assert again(Weather(3)).degrees == 3


def test_a_model_without_a_required_field_stays_so() -> None:
    """A model that was built without validation comes back with the same gap."""
    found = again(Louder2.model_construct(items=["a"]))

    assert found.items == ["a"]
    assert not hasattr(found, "text")


class Patch(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str | None = None
    age: int | None = None
    city: str = "Oslo"


def test_a_model_knows_which_fields_it_was_given() -> None:
    """A change that an object describes says nothing of the fields that were left out."""
    for patch in (Patch(), Patch(age=3), Patch.model_validate({"city": "Rome", "more": 1})):
        found = again([patch, Box[Any](item=patch)])
        assert found[0] == patch
        assert found[1].item.model_fields_set == patch.model_fields_set
        assert found[0].model_dump(exclude_unset=True) == patch.model_dump(exclude_unset=True)


class PrivatePatch(Patch):
    _seen: list[int] = PrivateAttr(default_factory=list)


def test_a_model_with_private_attributes_knows_what_it_was_given() -> None:
    """Also where the class's own code makes the object."""
    assert again(PrivatePatch(age=3)).model_fields_set == {"age"}


def test_a_new_field_was_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """An object of before has the default of a field that is new, and wasn't given it."""
    before = create_model("Thing", a=(int, ...), b=(int, 5))
    after = create_model("Thing", a=(int, ...), b=(int, 5), c=(int, 7))
    found = loaded(deployed(monkeypatch, before, after, lambda cls: cls(a=1)))
    assert found.model_dump(exclude_unset=True) == {"a": 1}
    assert found.c == 7


class Odd(enum.Enum):
    PLAIN = "plain"
    FAILS = ValueError("becomes its repr")
    FUNCTION = (1, [2])


def test_each_member_of_an_enum_is_checked() -> None:
    """That one member is found by its value says nothing of the next."""
    serde = SafeSerializer()
    assert again(Odd.PLAIN, serde) is Odd.PLAIN
    assert again(Odd.FUNCTION, serde) is Odd.FUNCTION
    with pytest.raises(UnstorableValueError, match="Odd"):
        serde.dumps_typed(Odd.FAILS)


def test_messages_are_built_without_validation() -> None:
    """Messages come back with their fields, extra ones too, in the order they were stored."""
    value = AIMessage("a", id="1", other=3, response_metadata={"m": (1,)})

    found = again(value)

    assert found == value
    assert list(found.__dict__) == list(value.__dict__)
    assert found.__pydantic_extra__ == {"other": 3}


def test_langgraphs_dumps_are_validated() -> None:
    """What LangGraph's serializer wrote has lost its types, and gets them from the class."""
    written = JsonPlusSerializer().dumps_typed([Home(pet=Dog()), Order(3), Place(1, 2)])

    found = SafeSerializer().loads_typed(written)

    assert found == [Home(pet=Dog()), Order(3), Place(1, 2)]
