"""Values that a class's own code is shown, and that are afterwards what they were before."""

from __future__ import annotations

import dataclasses
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

from pydantic import BaseModel

Restore: TypeAlias = Callable[[], object]

_LEAVES = frozenset({str, bytes, int, float, bool, type(None)})
_NOTHING: tuple[Any, ...] = ()


@contextmanager
def unchanged(fields: Mapping[str, Any]) -> Iterator[None]:
    """Undoes what the block changes in place in the values, at any depth.

    Containers and objects in them stay the same objects: the class may have made an index of
    them.
    """
    if _LEAVES.issuperset(map(type, fields.values())):
        yield
        return
    restores: list[Restore] = []
    seen: set[int] = set()
    waiting = list(fields.values())
    while waiting:
        part = waiting.pop()
        if type(part) in _LEAVES or id(part) in seen:
            continue
        seen.add(id(part))
        inner, restore = _look(part)
        if restore is not None:
            restores.append(restore)
        if not _LEAVES.issuperset(map(type, inner)):
            waiting.extend(inner)
    try:
        yield
    finally:
        for restore in restores:
            restore()


def _look(part: Any) -> tuple[Iterable[Any], Restore | None]:
    """What stands in a value, and what puts it there again."""
    kind = type(part)
    if kind is list:
        items = part.copy()
        return items, lambda: part.__setitem__(slice(None), items)
    if kind is dict:
        mapping = part.copy()
        return mapping.values(), lambda: _refill(part, mapping)
    if kind is tuple:
        return part, None
    if kind is set or kind is deque:
        content = part.copy()
        # What is in a set has a hash, so it doesn't change.
        return _NOTHING if kind is set else content, lambda: _refill(part, content)
    if isinstance(part, BaseModel):
        fields = part.__dict__.copy()
        return fields.values(), lambda: _refill(part.__dict__, fields)
    if dataclasses.is_dataclass(kind):
        return _look_at_dataclass(part)
    numpy = sys.modules.get("numpy")
    if numpy is not None and kind is numpy.ndarray and part.flags.writeable:
        array = part.copy()
        return _NOTHING, lambda: part.__setitem__(..., array)
    return _NOTHING, None


def _look_at_dataclass(part: Any) -> tuple[Iterable[Any], Restore]:
    names = [field.name for field in dataclasses.fields(part)]
    fields = {name: getattr(part, name) for name in names if hasattr(part, name)}

    def restore() -> None:
        for name, value in fields.items():
            object.__setattr__(part, name, value)

    return fields.values(), restore


def _refill(part: Any, content: Any) -> None:
    part.clear()
    (part.extend if isinstance(part, deque) else part.update)(content)
