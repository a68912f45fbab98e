"""Where two values part that look alike in short."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel

from langgraph_pgsaga._same import is_same, key_of

_DEEPEST = 500
_LONGEST_PLACE = 200
# Of long texts, what stands around the first difference.
_BEFORE, _AROUND = 10, 60
_MISSING = object()


class Apart(NamedTuple):
    """The first place, as one would write it, and what stands there before and after."""

    place: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.place}: {self.before} → {self.after}" if self.place else self.before


def first_apart(before: Any, after: Any) -> Apart:
    """Where two values that differ do so first, as far as their parts can be told."""
    place = ""
    for _ in range(_DEEPEST):
        found = _first_part(before, after)
        if found is None:
            break
        step, before, after = found
        place += step
    if len(place) > _LONGEST_PLACE:
        place = f"…{place[-_LONGEST_PLACE:]}"
    if type(before) is not type(after):
        return Apart(
            place, f"{written(before)} ({_kind(before)})", f"{written(after)} ({_kind(after)})"
        )
    if isinstance(before, str | bytes):
        at = _first_index(before, after)
        begin = max(0, at - _BEFORE)
        shown = (repr(text[begin : at + _AROUND]) for text in (before, after))
        return Apart(f"{place}[{begin}:]" if begin else place, *shown)
    one, other = written(before), written(after)
    if one == other:
        kind = _kind(before)
        return Apart(place, one, f"another {kind} that is written alike")
    return Apart(place, one, other)


def _first_part(before: Any, after: Any) -> tuple[str, Any, Any] | None:
    """The first parts that differ and how to get there; None where there are none to tell."""
    if type(before) is not type(after):
        return None
    if isinstance(before, Mapping):
        later = {key_of(key): value for key, value in after.items()}
        pairs = [(f"[{k!r}]", v, later.get(key_of(k), _MISSING)) for k, v in before.items()]
    elif isinstance(before, list | tuple):
        pairs = [(f"[{n}]", *both) for n, both in enumerate(zip(before, after, strict=False))]
    elif (numpy := sys.modules.get("numpy")) is not None and type(before) is numpy.ndarray:
        return _first_element(numpy, before, after)
    else:
        one, other = _attributes(before), _attributes(after)
        pairs = [(f".{name}", value, other.get(name, _MISSING)) for name, value in one.items()]
    return next((pair for pair in pairs if not is_same(pair[1], pair[2])), None)


def _first_element(numpy: Any, before: Any, after: Any) -> tuple[str, Any, Any] | None:
    if before.shape != after.shape:
        return ".shape", before.shape, after.shape
    if before.dtype != after.dtype:
        return ".dtype", str(before.dtype), str(after.dtype)
    for index in numpy.ndindex(before.shape):
        if not is_same(before[index], after[index]):
            return f"[{', '.join(map(str, index))}]", before[index], after[index]
    return None


def _attributes(value: Any) -> dict[str, Any]:
    found = dict(getattr(value, "__dict__", {}))
    for name in getattr(type(value), "__slots__", ()):
        if isinstance(name, str) and not name.startswith("__") and hasattr(value, name):
            found[name] = getattr(value, name)
    if isinstance(value, BaseModel):
        found |= {**(value.__pydantic_extra__ or {}), **(value.__pydantic_private__ or {})}
    return found


def _first_index(before: Any, after: Any) -> int:
    pairs = enumerate(zip(before, after, strict=False))
    return next((n for n, (one, other) in pairs if one != other), min(len(before), len(after)))


def written(value: Any) -> str:
    """A value as Python writes it."""
    if value is _MISSING:
        return "nothing"
    try:
        return repr(value)
    except Exception as error:  # an integer of thousands of digits, for one
        return f"<{type(value).__name__}, whose repr() raised {type(error).__name__}>"


def _kind(value: Any) -> str:
    kind = type(value)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return "nothing" if value is _MISSING else f"{module}{kind.__qualname__}"
