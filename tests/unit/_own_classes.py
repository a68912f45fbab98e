"""What tests of data classes share."""

from __future__ import annotations

import dataclasses
import enum
import sys
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import pytest
from pydantic import (
    BaseModel,
)

from langgraph_pgsaga.serde.serializer import SafeSerializer

T = TypeVar("T")
HERE = sys.modules[__name__]


def again(value: Any, serde: SafeSerializer | None = None) -> Any:
    serde = serde or SafeSerializer()
    return serde.loads_typed(serde.dumps_typed(value))


class Box(BaseModel, Generic[T]):
    item: T


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
