"""Objects of an application's classes that have changed since, and placeholders for them."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import enum
import functools
import logging
import operator
import sys
from collections.abc import Callable
from typing import Any

import ormsgpack
import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from langgraph_pgsaga.errors import (
    BlockedTypeError,
    ChangedClassError,
    MissingTypeError,
    SerializationError,
    UnstorableValueError,
)
from langgraph_pgsaga.serde.placeholder import Placeholder
from langgraph_pgsaga.serde.serializer import SafeSerializer
from tests.unit._own_classes import HERE, again, deployed, kinds, loaded, members, named

KINDS = range(4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_field_gets_its_default(monkeypatch: pytest.MonkeyPatch, kind: int) -> None:
    """Values stored before the class gained a field with a default have the default."""
    before, after = kinds(a=...)[kind], kinds(a=..., b=5)[kind]
    found = loaded(deployed(monkeypatch, before, after, lambda cls: cls(a=1)))
    assert (found.a, found.b) == (1, 5)


@dataclasses.dataclass
class Plain:
    a: int


@dataclasses.dataclass
class Locked(Plain):
    def __post_init__(self) -> None:
        self.made = [self.a]
        self.a += 1


@dataclasses.dataclass(frozen=True)
class FrozenLocked:
    a: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "made", [self.a])


class LockedByBase(Locked):
    pass


@pytest.mark.parametrize("after", [Locked, FrozenLocked, LockedByBase])
def test_a_new_attribute_beside_the_fields_is_made(
    monkeypatch: pytest.MonkeyPatch, after: Any
) -> None:
    """Values of before the class made it say nothing of it, but its methods count on it."""
    found = loaded(deployed(monkeypatch, Plain, after, lambda cls: cls(a=1)))
    assert (found.a, found.made) == (1, [1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_field_without_default_is_an_error(
    monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    """The error names the class, the field, where in the value it is, and what to do."""
    before, after = kinds(a=...)[kind], kinds(a=..., b=...)[kind]
    stored = deployed(monkeypatch, before, after, lambda cls: cls(a=1))
    with pytest.raises(ChangedClassError, match=r"'b'.*Give it a default.*lenient=True") as found:
        loaded(stored)
    assert (found.value.module, found.value.name) == (HERE.__name__, "Thing")
    assert found.value.path == "['list'][1]"
    assert found.value.__context__ is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_removed_field_is_dropped_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: int
) -> None:
    """The rest is a full object; the log says once what is left out."""
    before, after = kinds(a=..., old=...)[kind], kinds(a=...)[kind]
    stored = deployed(monkeypatch, before, after, lambda cls: cls(a=1, old=2))
    with caplog.at_level(logging.WARNING, "langgraph_pgsaga.serde"):
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
    assert found.type_name == f"{HERE.__name__}.Thing"
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
    own = JsonPlusSerializer(allowed_msgpack_modules=[(HERE.__name__, "Thing")])
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
        by_number = ormsgpack.Ext(0, ormsgpack.packb((HERE.__name__, "Thing", number)))
        assert SafeSerializer().loads_typed(("msgpack", ormsgpack.packb(by_number))) is cls(number)


@pytest.mark.parametrize(
    "told", [[], [1], [None], [[]], ["R", {}], [b"\xff" * 100], ["?"], [b"\x40"]]
)
def test_forged_names_of_flags_are_typed_errors(
    monkeypatch: pytest.MonkeyPatch, told: list[Any]
) -> None:
    """Whatever stands where the names do."""
    monkeypatch.setattr(HERE, "Thing", named(flags(R=1, W=2), "Thing"), raising=False)
    forged = ormsgpack.Ext(0, ormsgpack.packb((HERE.__name__, "Thing", 3, {"member": told})))
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
    monkeypatch.delattr(sys.modules[__name__], "Ticket")
    lenient = SafeSerializer(lenient=True)

    (found,) = lenient.loads_typed(stored)

    assert (found.type, found.text, found.id) == ("human", "help", "1")
    assert found.type_name == f"{__name__}.Ticket"
    assert lenient.dumps_typed([found]) == stored
    assert copy.deepcopy(found) == found
    found.content = "changed"
    with pytest.raises(UnstorableValueError, match="changed meanwhile"):
        lenient.dumps_typed([found])
