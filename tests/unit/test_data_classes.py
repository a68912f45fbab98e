"""Objects of an application's classes: how they are built again, also where a class has changed."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import enum
import functools
import logging
import operator
import sys
import threading
import types
import weakref
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

import ormsgpack
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from pydantic import (
    AfterValidator,
    AliasChoices,
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

from langgraph_pgsaga.errors import (
    BlockedTypeError,
    ChangedClassError,
    MissingTypeError,
    SerializationError,
    UnstorableValueError,
)
from langgraph_pgsaga.serde.placeholder import Placeholder
from langgraph_pgsaga.serde.serializer import SafeSerializer

T = TypeVar("T")
HERE = sys.modules[__name__]
CALLS: list[str] = []


def again(value: Any, serde: SafeSerializer | None = None) -> Any:
    serde = serde or SafeSerializer()
    return serde.loads_typed(serde.dumps_typed(value))


@pytest.fixture(autouse=True)
def no_calls() -> None:
    CALLS.clear()


# --- classes with code of their own -----------------------------------------------


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
class Indexed:
    """Keeps what isn't a field."""

    words: list[str]

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._index = {word: place for place, word in enumerate(self.words)}
        self.words = [*self.words, "end"]


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


class Box(BaseModel, Generic[T]):
    item: T


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


# --- classes that have changed ----------------------------------------------------


def named(cls: Any, name: str) -> Any:
    """The class as one of this module's top level."""
    cls.__qualname__ = cls.__name__ = name
    cls.__module__ = __name__
    return cls


def deployed(
    monkeypatch: pytest.MonkeyPatch, before: Any, after: Any, make: Callable[[Any], Any]
) -> tuple[Any, bytes]:
    """An object as its class `before` stored it, in a process that has the class `after`."""
    monkeypatch.setattr(HERE, "Thing", named(before, "Thing"), raising=False)
    stored = SafeSerializer().dumps_typed({"list": [1, make(before)]})
    if after is None:
        monkeypatch.delattr(HERE, "Thing")
    else:
        monkeypatch.setattr(HERE, "Thing", named(after, "Thing"))
    return stored


def loaded(stored: tuple[Any, bytes]) -> Any:
    return SafeSerializer().loads_typed(stored)["list"][1]


def kinds(**fields: Any) -> list[Any]:
    """A dataclass, a slotted one, a model, an old model and a named tuple of these fields."""
    types = dict.fromkeys(fields, Any)
    defaults = {name: value for name, value in fields.items() if value is not ...}
    lacking = [(name, Any) for name in fields if name not in defaults]
    given = [(name, Any, dataclasses.field(default=defaults[name])) for name in defaults]
    model = type("Thing", (BaseModel,), {"__annotations__": types, **defaults})
    made = NamedTuple("Thing", [(name, Any) for name in fields])  # type: ignore[misc]
    made.__new__.__defaults__ = tuple(defaults.values())
    made._field_defaults = defaults
    return [
        dataclasses.make_dataclass("Thing", [*lacking, *given]),
        dataclasses.make_dataclass("Thing", [*lacking, *given], slots=True, frozen=True),
        model,
        made,
    ]


def members(**values: Any) -> Any:
    return enum.Enum("Thing", values)


KINDS = range(4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_field_gets_its_default(monkeypatch: pytest.MonkeyPatch, kind: int) -> None:
    """Values stored before the class gained a field with a default have the default."""
    before, after = kinds(a=...)[kind], kinds(a=..., b=5)[kind]
    found = loaded(deployed(monkeypatch, before, after, lambda cls: cls(a=1)))
    assert (found.a, found.b) == (1, 5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_field_without_default_is_an_error(
    monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    """The error names the class, the field, where in the value it is, and what to do."""
    before, after = kinds(a=...)[kind], kinds(a=..., b=...)[kind]
    stored = deployed(monkeypatch, before, after, lambda cls: cls(a=1))
    with pytest.raises(ChangedClassError, match=r"'b'.*Give it a default.*lenient=True") as found:
        loaded(stored)
    assert (found.value.module, found.value.name) == (__name__, "Thing")
    assert found.value.path == "['list'][1]"
    assert found.value.__context__ is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_removed_field_is_dropped_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: int
) -> None:
    """The rest is a full object; the log says once what is left out."""
    before, after = kinds(a=..., old=...)[kind], kinds(a=...)[kind]
    stored = deployed(monkeypatch, before, after, lambda cls: cls(a=1, old=2))
    with caplog.at_level(logging.WARNING, "langgraph_pgsaga.checkpoint"):
        found = loaded(stored)
        loaded(stored)
    assert found == after(a=1)
    assert [record.getMessage().count("'old'") for record in caplog.records] == [1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("default", [..., 1])
def test_a_renamed_field_is_an_error(
    monkeypatch: pytest.MonkeyPatch, kind: int, default: Any
) -> None:
    """A field that has another name now isn't taken for a new one that has its default."""
    before, after = kinds(a=..., old=...)[kind], kinds(a=..., new=default)[kind]
    stored = deployed(monkeypatch, before, after, lambda cls: cls(a=1, old=2))
    with pytest.raises(ChangedClassError, match=r"'old'.*'new'"):
        loaded(stored)


class Renamed(BaseModel):
    a: int
    new: int = Field(default=1, validation_alias=AliasChoices("new", "old"))


class Migrated(BaseModel):
    a: int
    new: int = 1

    @model_validator(mode="before")
    @classmethod
    def _old(cls, given: Any) -> Any:
        if isinstance(given, dict) and "old" in given:
            given = {**given, "new": given["old"]}
            del given["old"]
        return given


class Ignoring(BaseModel):
    model_config = ConfigDict(extra="ignore")
    a: int
    new: int = 2


@dataclasses.dataclass
class Taking:
    a: int
    new: int = 1

    def __init__(self, a: int, new: int = 1, **old: Any) -> None:
        self.a, self.new = a, old.get("old", new)


@pytest.mark.parametrize("after", [Renamed, Migrated, Ignoring, Taking])
def test_a_class_says_what_becomes_of_old_names(
    monkeypatch: pytest.MonkeyPatch, after: Any
) -> None:
    """By an alias, a validator, an __init__; or it says that it ignores them."""
    copied = type("Thing", (after,), {})
    before = kinds(a=..., old=...)[2]
    found = loaded(deployed(monkeypatch, before, copied, lambda cls: cls(a=1, old=2)))
    assert (type(found), found.a, found.new) == (copied, 1, 2)


def test_a_check_that_is_new_refuses_nothing_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks are for what is new: they aren't run on what was stored before."""

    class Checked(BaseModel):
        a: int = Field(gt=100)

        @field_validator("a")
        @classmethod
        def _small(cls, value: int) -> int:
            raise ValueError("always")

    found = loaded(deployed(monkeypatch, kinds(a=...)[2], Checked, lambda cls: cls(a=1)))
    assert (type(found), found.a) == (Checked, 1)


def test_a_class_of_another_kind_with_the_same_fields_loads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A dataclass that became a model, and the other way round."""
    for before in kinds(a=...):
        for after in kinds(a=...):
            found = loaded(deployed(monkeypatch, before, after, lambda cls: cls(a=1)))
            assert type(found) is after
            assert found.a == 1


def test_a_removed_member_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """An enum without the stored value says so; one with _missing_ says what becomes of it."""
    before, after = members(A="a", B="b"), members(A="a")
    stored = deployed(monkeypatch, before, after, lambda cls: cls.B)
    with pytest.raises(ChangedClassError, match="no member has the stored value"):
        loaded(stored)

    class Missing(enum.Enum):
        A = "a"

        @classmethod
        def _missing_(cls, value: object) -> Any:
            return cls.A

    monkeypatch.setattr(HERE, "Thing", named(Missing, "Thing"))
    assert loaded(stored) is Missing.A


@pytest.mark.parametrize(
    ("before", "after", "error"),
    [
        (kinds(a=...)[0], None, MissingTypeError),
        (kinds(a=...)[0], members(A=1, B=2), ChangedClassError),
        (members(A=1, B=2), kinds(a=...)[2], ChangedClassError),
        (kinds(a=...)[0], type("Thing", (), {}), BlockedTypeError),
        (kinds(a=...)[2], type("Thing", (dict,), {}), BlockedTypeError),
    ],
)
def test_what_no_longer_fits_is_typed_or_a_placeholder(
    monkeypatch: pytest.MonkeyPatch, before: Any, after: Any, error: type[SerializationError]
) -> None:
    """A class that is gone or is something else is an error of its own; leniently a placeholder,
    which is stored as the bytes that it came from."""
    make = (lambda cls: cls.A) if issubclass(before, enum.Enum) else (lambda cls: cls(a=1))
    stored = deployed(monkeypatch, before, after, make)
    with pytest.raises(error) as caught:
        loaded(stored)
    assert getattr(caught.value, "path", None) == "['list'][1]"

    lenient = SafeSerializer(lenient=True)
    value = lenient.loads_typed(stored)
    found = value["list"][1]
    assert found.type_name == f"{__name__}.Thing"
    assert found.content in ({"a": 1}, 1)
    assert str(caught.value) == f"at ['list'][1]: {found.reason}"
    assert lenient.dumps_typed(value) == stored
    assert again([found, {"a": found}], lenient) == [found, {"a": found}]
    with pytest.raises(UnstorableValueError, match="lenient=True stores"):
        SafeSerializer().dumps_typed(value)


# --- placeholders -----------------------------------------------------------------


def highest(cls: Any) -> Any:
    return max(cls, key=lambda member: member.value)


def test_a_member_whose_value_is_anothers_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is inserted before others with `auto` takes the value of one of them."""
    before, after = members(LOW=1, HIGH=2), members(NONE=1, LOW=2, HIGH=3)
    with pytest.raises(ChangedClassError, match="HIGH has another value now, and LOW has its old"):
        loaded(deployed(monkeypatch, before, after, highest))


@pytest.mark.parametrize("kept", [{}, {"HIGH": 2}])
def test_a_renamed_member_is_found_by_its_value(
    monkeypatch: pytest.MonkeyPatch, kept: dict[str, int]
) -> None:
    """Also where its old name is kept as an alias."""
    before, after = members(LOW=1, HIGH=2), members(LOW=1, TOP=2, **kept)
    assert loaded(deployed(monkeypatch, before, after, highest)).name == "TOP"


def flags(kind: Any = enum.Flag, **values: int) -> Any:
    return kind("Thing", values)


@pytest.mark.parametrize("kind", [enum.Flag, enum.IntFlag])
def test_flags_are_found_by_their_names(
    monkeypatch: pytest.MonkeyPatch, kind: type[enum.Flag]
) -> None:
    """Alone and combined, whatever numbers they have after one was inserted before them."""
    before, after = flags(kind, R=1, W=2, X=4), flags(kind, R=1, NEW=2, W=4, X=8)
    for names in (["W"], ["R", "W"], ["W", "X"], ["R", "W", "X"]):

        def of(cls: Any, names: list[str] = names) -> Any:
            return functools.reduce(operator.or_, (cls[name] for name in names))

        found = loaded(deployed(monkeypatch, before, after, of))
        assert found is of(after)
        assert type(found) is after


def test_a_combination_with_a_name_of_its_own_is_its_members(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A member that stands for several others is these, as they are now."""
    before, after = flags(R=1, W=2, RW=3), flags(R=1, NEW=2, W=4, RW=5)
    assert loaded(deployed(monkeypatch, before, after, lambda cls: cls.RW)) is after.RW


def test_a_combination_without_one_of_its_members_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever its number means now; an alias of the old name will do."""
    before = flags(R=1, W=2)
    for after in (flags(R=1, NEW=2), flags(R=1), members(R="r", W="w"), members(R=1, W=2)):
        with pytest.raises(ChangedClassError):
            loaded(deployed(monkeypatch, before, after, lambda cls: cls.R | cls.W))
    after = flags(R=1, WRITE=2, W=2)
    found = loaded(deployed(monkeypatch, before, after, lambda cls: cls.R | cls.W))
    assert found is after.R | after.WRITE


def test_flags_come_back_as_from_langgraphs_serializer(monkeypatch: pytest.MonkeyPatch) -> None:
    """None, one, several, all, bits without a name, more of them than an integer has, of every
    boundary; as values and as keys."""
    own = JsonPlusSerializer(allowed_msgpack_modules=[(__name__, "Thing")])
    kinds_of_flags: list[Any] = [enum.Flag, enum.IntFlag]
    for boundary in (enum.STRICT, enum.CONFORM, enum.KEEP):
        for kind in kinds_of_flags:
            cls = kind("Thing", {"R": 1, "W": 2, "X": 8, "BIG": 2**70}, boundary=boundary)
            monkeypatch.setattr(HERE, "Thing", named(cls, "Thing"), raising=False)
            values = [cls(0), cls.R, cls.R | cls.W, cls.R | cls.BIG, ~cls.R, ~cls(0)]
            if boundary is enum.KEEP:
                values += [cls(4), cls(5), cls(2**80), cls(2**80 + 1), cls(-2), cls(-(2**80))]
            for value in values:
                assert again(value) is value
                assert again({value: [value]}) == {value: [value]}
                if value._value_ < 2**64:
                    assert own.loads_typed(own.dumps_typed(value)) == again(value)


def test_flags_stored_by_number_load_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As earlier versions stored combinations, and LangGraph's serializer does."""
    cls = flags(R=1, W=2, X=4)
    monkeypatch.setattr(HERE, "Thing", named(cls, "Thing"), raising=False)
    for number in range(8):
        by_number = ormsgpack.Ext(0, ormsgpack.packb((__name__, "Thing", number)))
        assert SafeSerializer().loads_typed(("msgpack", ormsgpack.packb(by_number))) is cls(number)


@pytest.mark.parametrize(
    "told", [[], [1], [None], [[]], ["R", {}], [b"\xff" * 100], ["?"], [b"\x40"]]
)
def test_forged_names_of_flags_are_typed_errors(
    monkeypatch: pytest.MonkeyPatch, told: list[Any]
) -> None:
    """Whatever stands where the names do."""
    monkeypatch.setattr(HERE, "Thing", named(flags(R=1, W=2), "Thing"), raising=False)
    forged = ormsgpack.Ext(0, ormsgpack.packb((__name__, "Thing", 3, {"member": told})))
    with contextlib.suppress(SerializationError):
        found = SafeSerializer().loads_typed(("msgpack", ormsgpack.packb(forged)))
        assert type(found) is vars(HERE)["Thing"]


KEPT: list[Callable[[Any], Any]] = [
    lambda key: {key},
    lambda key: frozenset({(1, (key,))}),
    lambda key: {key: 1},
    lambda key: {(2, key): [1]},
]


@pytest.mark.parametrize("keep", KEPT)
def test_a_class_without_a_hash_any_more(
    monkeypatch: pytest.MonkeyPatch, keep: Callable[[Any], Any]
) -> None:
    """What was in a set or a key says that its class changed; lenient, the set is a placeholder."""
    before = dataclasses.make_dataclass("Thing", [("a", int)], frozen=True)
    after = dataclasses.make_dataclass("Thing", [("a", int)])
    stored = deployed(monkeypatch, before, after, lambda cls: keep(cls(a=1)))
    with pytest.raises(ChangedClassError, match=r"Thing.*has no hash any more"):
        loaded(stored)

    lenient = SafeSerializer(lenient=True)
    found = lenient.loads_typed(stored)
    assert isinstance(found["list"][1], Placeholder)
    assert "no hash" in found["list"][1].reason
    assert lenient.dumps_typed(found) == stored


def test_a_placeholder_may_be_a_key_or_in_a_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where something hashable stood, its placeholder stands, too."""
    before = kinds(a=...)[1]
    monkeypatch.setattr(HERE, "Thing", named(before, "Thing"), raising=False)
    value = {"keys": {before(a=1): 2}, "set": {before(a=3)}}
    stored = SafeSerializer().dumps_typed(value)
    monkeypatch.delattr(HERE, "Thing")
    lenient = SafeSerializer(lenient=True)

    found = lenient.loads_typed(stored)

    assert [key.content for key in found["keys"]] == [{"a": 1}]
    assert [item.content for item in found["set"]] == [{"a": 3}]
    assert lenient.dumps_typed(found) == stored


class Ticket(HumanMessage):
    priority: int = 0


def test_a_message_has_a_placeholder_that_is_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its text and id are there, and it is stored as the bytes that it came from."""
    stored = SafeSerializer().dumps_typed([Ticket(content="help", id="1", priority=3)])
    monkeypatch.delattr(HERE, "Ticket")
    lenient = SafeSerializer(lenient=True)

    (found,) = lenient.loads_typed(stored)

    assert (found.type, found.text, found.id) == ("human", "help", "1")
    assert found.type_name == f"{__name__}.Ticket"
    assert lenient.dumps_typed([found]) == stored
    assert copy.deepcopy(found) == found
    found.content = "changed"
    with pytest.raises(UnstorableValueError, match="changed meanwhile"):
        lenient.dumps_typed([found])


# --- classes made inside functions ------------------------------------------------


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
