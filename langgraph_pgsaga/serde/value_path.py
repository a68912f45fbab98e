"""Where something stands within a value, as a path of names and numbers, never of values."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from langgraph.types import Send
from pydantic import BaseModel

_MAX_SEARCHED = 10_000
_MAX_PATH = 200


def path_where(root: Any, test: Callable[[Any], bool]) -> str:
    """The path to what passes the test and is nearest to the root; "" where nothing is found."""
    for found, path in _places(root):
        if len(path) <= _MAX_PATH and test(found):
            return path
    return ""


def _places(root: Any) -> Iterator[tuple[Any, str]]:
    """Everything inside, breadth first, with the path to it."""
    waiting: deque[tuple[Any, str]] = deque([(root, "")])
    for _ in range(_MAX_SEARCHED):
        if not waiting:
            return
        value, path = waiting.popleft()
        yield value, path
        waiting.extend((part, path + step) for part, step in _parts(value))


def _parts(value: Any) -> Iterator[tuple[Any, str]]:
    if isinstance(value, dict):
        yield from ((item, _step(key)) for key, item in value.items())
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from ((item, f".{name}") for name, item in zip(value._fields, value, strict=False))
    elif isinstance(value, list | tuple | deque):
        yield from ((item, f"[{index}]") for index, item in enumerate(value))
    elif isinstance(value, Send):
        yield value.arg, ".arg"
    elif isinstance(value, BaseModel):
        fields = {**value.__dict__, **(value.__pydantic_extra__ or {})}
        yield from ((item, f".{name}") for name, item in fields.items())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((_field(value, one.name), f".{one.name}") for one in dataclasses.fields(value))


def _field(value: Any, name: str) -> Any:
    try:
        return getattr(value, name, None)
    except Exception:
        return None


def _step(key: Any) -> str:
    return f"[{key!r}]" if type(key) is str and key.isidentifier() and len(key) <= 40 else "[...]"
