"""Types of an application, as the serializer's tests store them."""

from __future__ import annotations

import dataclasses
import decimal
import enum
import math
from datetime import datetime, timedelta
from typing import Any, Generic, NamedTuple, TypeVar

from langchain_core.messages import AIMessage, HumanMessage
from pydantic import BaseModel, ConfigDict, Field, RootModel, computed_field
from pydantic import dataclasses as pydantic_dataclasses

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    PAIR = (1, (2, 3))


class Size(enum.IntEnum):
    BIG = 3


class Mode(enum.StrEnum):
    FAST = "fast"


class Ratio(float, enum.Enum):
    HALF = 0.5


class Right(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Point:
    x: int
    y: Any = None


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    corners: tuple[tuple[int, int], ...]
    total: int = dataclasses.field(init=False, default=0)


@dataclasses.dataclass
class Fussy:
    """Takes another argument than its field."""

    made: str = dataclasses.field(init=False)
    source: dataclasses.InitVar[str]

    def __post_init__(self, source: str) -> None:
        self.made = source


@dataclasses.dataclass
class FailureError(Exception):
    code: int


@dataclasses.dataclass
class Picky:
    secret: str

    def __post_init__(self) -> None:
        if self.secret == "wrong":
            raise ValueError(self.secret)


@pydantic_dataclasses.dataclass
class Checked:
    n: int


class Outer:
    @dataclasses.dataclass
    class Inner:
        n: int

    class Model(BaseModel):
        n: int


class Pair(NamedTuple):
    left: Any
    right: Any = None


class Animal(BaseModel):
    name: str


class Dog(Animal):
    trick: str


class Kennel(BaseModel):
    first: Animal
    all: list[Animal] = []
    extra: Any = None


class Aliased(BaseModel):
    user_name: str = Field(default="nobody", alias="userName")
    other: int = Field(default=0, validation_alias="elsewhere")


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


class Shut(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    a: tuple[int, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def size(self) -> int:
        return len(self.a)


class Changed(BaseModel):
    n: int = Field(ge=0)


class Hidden(BaseModel):
    a: int
    client: Any = Field(default=None, exclude=True)


class Names(RootModel[list[str]]):
    pass


class Box(BaseModel, Generic[T]):
    item: T


IntBox = Box[int]


class Ticket(HumanMessage):
    priority: int = 0


class Draft(AIMessage):
    score: float = 0.0


class Tags(set[str]):
    """Not a data class: has to be allowed."""


class Stamp(datetime):
    """A datetime with nanoseconds, as tables have them."""

    nanosecond = 0

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and getattr(other, "nanosecond", 0) == self.nanosecond

    __hash__ = datetime.__hash__


class Span(timedelta):
    """A timedelta with another constructor."""

    def __new__(cls, text: str) -> Span:
        return super().__new__(cls, seconds=float(text))


class Missing(datetime):
    """One that can't be made, and is no datetime at all."""

    @property
    def day(self) -> Any:
        return math.nan

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


class Labelled(set[str]):
    label = ""


class Money(decimal.Decimal):
    """Takes part in the number of digits it shows."""

    def __str__(self) -> str:
        return f"{self:.2f}"


class Plain:
    def __init__(self, n: int) -> None:
        self.n = n


class Caller:
    def __call__(self) -> None:
        raise AssertionError("nothing stored may call this")


def function() -> None:
    raise AssertionError("nothing stored may call this")


OldPoint = Point


def local_class() -> type[Any]:
    @dataclasses.dataclass
    class Local:
        n: int

    return Local
