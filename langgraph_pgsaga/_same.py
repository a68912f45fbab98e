"""Whether two values are the same: in type, at any depth, and in content; NaN is NaN.

`==` isn't asked first: to it True is 1, -0.0 is 0.0, a time is one in another zone, and
arrays have no answer at all.
"""

from __future__ import annotations

import copyreg
import dataclasses
import math
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import datetime, time
from decimal import Decimal
from typing import Any, TypeAlias

from langgraph.types import Send
from pydantic import BaseModel

Pairs: TypeAlias = Iterable[tuple[Any, Any]]

_PLAIN = frozenset({str, int, bool, bytes, type(None)})
_EQUAL: Pairs = ()
_MISSING = object()
# The protocol under which copy and pickle ask an object what it is made of.
_PROTOCOL = 4


def is_same(left: Any, right: Any) -> bool:
    """Whether two values have the same types and content.

    The order of a dict's keys doesn't count, nor how an array lies in memory. What compares
    by identity is compared by what copy and pickle take it apart to.
    """
    waiting: list[tuple[Any, Any]] = [(left, right)]
    # Pairs that were begun, kept alive so that none gets the id of another.
    begun: dict[tuple[int, int], tuple[Any, Any]] = {}
    while waiting:
        pair = one, other = waiting.pop()
        if one is other:
            continue
        if type(one) is not type(other):
            return False
        if type(one) in _PLAIN:
            if one != other:
                return False
            continue
        key = id(one), id(other)
        if key in begun:
            continue
        begun[key] = pair
        parts = _pairs(one, other)
        if parts is None:
            return False
        waiting.extend(parts)
    return True


class Numbers:
    """Numbers for values: equal for the same values, and only for these."""

    def __init__(self) -> None:
        self._found: dict[Any, list[tuple[Any, int]]] = {}
        self._count = 0

    def of(self, value: Any) -> int:
        """The number of the value, a new one where none of before is the same."""
        alike = self._found.setdefault(_rough(value), [])
        for known, number in alike:
            if is_same(known, value):
                return number
        self._count += 1
        alike.append((value, self._count))
        return self._count


def key_of(value: Any) -> Any:
    """Something equal for the same hashable values, and only for these: for keys of dicts."""
    kind = type(value)
    if isinstance(value, float):
        return kind, "nan" if math.isnan(value) else (value, math.copysign(1, value))
    if isinstance(value, tuple):
        return kind, tuple(map(key_of, value))
    if isinstance(value, frozenset):
        return kind, frozenset(map(key_of, value))
    return kind, value


# How deep and how far `_rough` looks.
_DEEPEST, _MOST_PARTS = 3, 16


def _rough(value: Any, depth: int = 0) -> Any:
    """Something hashable that is equal for the same values, and seldom for others."""
    kind = type(value)
    if kind in _PLAIN:
        return kind, value
    if isinstance(value, float):
        return kind, None if math.isnan(value) else value
    if depth == _DEEPEST:
        return kind
    if isinstance(value, list | tuple):
        return kind, len(value), *(_rough(part, depth + 1) for part in value[:_MOST_PARTS])
    if isinstance(value, dict | set | frozenset | deque):
        return kind, len(value), _rough_parts(value, depth) if isinstance(value, dict) else None
    if isinstance(value, BaseModel):
        return kind, _rough_parts(value.__dict__, depth)
    if dataclasses.is_dataclass(value):
        parts = {
            field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)
        }
        return kind, _rough_parts(parts, depth)
    numpy = sys.modules.get("numpy")
    if numpy is not None and kind is numpy.ndarray:
        some = value.flat[:_MOST_PARTS].tolist()
        return kind, value.shape, *(_rough(part, depth + 1) for part in some)
    compares: Any = kind.__eq__
    if compares is object.__eq__ or kind.__hash__ is None:
        return kind
    try:
        return kind, hash(value)
    except Exception:  # whatever a hash may raise
        return kind


def _rough_parts(parts: Mapping[Any, Any], depth: int) -> Any:
    """Of a mapping whose order doesn't count."""
    if len(parts) > _MOST_PARTS or not all(type(name) is str for name in parts):
        return None
    return frozenset((name, _rough(part, depth + 1)) for name, part in parts.items())


def _pairs(one: Any, other: Any) -> Pairs | None:
    """What has to be the same for two of one type to be the same; None where they aren't."""
    if isinstance(one, float):
        return _found(_is_same_float(one, other))
    if isinstance(one, complex):
        return [(float(one.real), float(other.real)), (float(one.imag), float(other.imag))]
    if isinstance(one, dict):
        return _pairs_of_dicts(one, other)
    if isinstance(one, list | tuple | deque):
        is_alike = len(one) == len(other) and (
            not isinstance(one, deque) or one.maxlen == other.maxlen
        )
        return zip(one, other, strict=True) if is_alike else None
    if isinstance(one, set | frozenset):
        return _found({key_of(item) for item in one} == {key_of(item) for item in other})
    if isinstance(one, BaseModel):
        return zip(_model_parts(one), _model_parts(other), strict=True)
    if isinstance(one, type):
        return None
    if dataclasses.is_dataclass(one):
        names = [field.name for field in dataclasses.fields(one)]
        return [(getattr(one, n, _MISSING), getattr(other, n, _MISSING)) for n in names]
    if isinstance(one, Send):
        return [
            (getattr(one, n, None), getattr(other, n, None)) for n in ("node", "arg", "timeout")
        ]
    return _pairs_of_objects(one, other)


def _found(is_equal: bool) -> Pairs | None:
    return _EQUAL if is_equal else None


def _is_same_float(left: float, right: float) -> bool:
    if math.isnan(left) or math.isnan(right):
        return math.isnan(left) and math.isnan(right)
    return left == right and math.copysign(1, left) == math.copysign(1, right)


def _pairs_of_dicts(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> Pairs | None:
    if len(one) != len(other):
        return None
    if not {type(key) for key in one} | {type(key) for key in other} <= {str}:
        one = {key_of(key): value for key, value in one.items()}
        other = {key_of(key): value for key, value in other.items()}
    if one.keys() != other.keys():
        return None
    return [(value, other[key]) for key, value in one.items()]


def _model_parts(model: BaseModel) -> tuple[Any, ...]:
    return model.__dict__, model.__pydantic_extra__, model.__pydantic_private__


def _pairs_of_objects(one: Any, other: Any) -> Pairs | None:
    numpy = sys.modules.get("numpy")
    if numpy is not None and (type(one) is numpy.ndarray or isinstance(one, numpy.generic)):
        return _pairs_of_arrays(numpy, one, other)
    if isinstance(one, Decimal):
        return _found(one.as_tuple() == other.as_tuple())
    try:
        is_equal = one == other
    except Exception:  # whatever an == may raise
        is_equal = None
    if isinstance(one, datetime | time) and is_equal is True:
        # Equal to == is also the same moment in another zone.
        naive = one.replace(tzinfo=None) == other.replace(tzinfo=None)
        return [(one.tzinfo, other.tzinfo)] if naive and one.fold == other.fold else None
    if is_equal is True:
        return _EQUAL
    taken = _reduced(one), _reduced(other)
    return None if taken[0] is None or taken[1] is None else [taken]


def _pairs_of_arrays(numpy: Any, one: Any, other: Any) -> Pairs | None:
    if one.dtype != other.dtype or one.shape != other.shape:
        return None
    if one.dtype.hasobject:
        return zip(one.ravel().tolist(), other.ravel().tolist(), strict=True)
    if one.tobytes() == other.tobytes():
        return _EQUAL
    if one.dtype.kind not in "fc":
        return None
    # There are several NaN.
    number = one == one
    is_equal = numpy.array_equal(number, other == other)
    return _found(is_equal and one[number].tobytes() == other[number].tobytes())


def _reduced(value: Any) -> Any:
    """What copy and pickle would make the object of again; None where they can't."""
    reduce = copyreg.dispatch_table.get(type(value))
    try:
        found = reduce(value) if reduce else value.__reduce_ex__(_PROTOCOL)
    except Exception:  # what can't be pickled says so in many ways
        return None
    if not isinstance(found, tuple):
        return None
    return *found[:3], *(None if part is None else list(part) for part in found[3:5])
