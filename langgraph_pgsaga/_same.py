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
    """Numbers for values: equal for the same values, and only for these.

    Values that look alike are compared with one another. Where that takes too long,
    `is_exhausted`, and later values may get new numbers although they are the same.
    """

    def __init__(self) -> None:
        self._found: dict[int, list[tuple[Any, int]]] = {}
        self._count = 0
        self._left = _MOST_MISTAKEN

    @property
    def is_exhausted(self) -> bool:
        """Whether the numbers may not be relied on any more."""
        return self._left <= 0

    def of(self, value: Any) -> int:
        """The number of the value, a new one where none of before is the same."""
        look = _Look()
        alike = self._found.setdefault(look.key(value), [])
        for known, number in alike:
            if is_same(known, value):
                return number
            self._left -= max(look.parts, _FEWEST_PARTS)
            if self.is_exhausted:
                break
        self._count += 1
        alike.append((value, self._count))
        return self._count


def key_of(value: Any) -> Any:
    """Something equal for the same hashable values, and only for these: for keys of dicts."""
    kind = type(value)
    if isinstance(value, float):
        return kind, "nan" if math.isnan(value) else (value, math.copysign(1, value))
    if isinstance(value, complex):
        return kind, key_of(value.real), key_of(value.imag)
    if isinstance(value, Decimal):
        return kind, value.as_tuple()
    if isinstance(value, tuple):
        return kind, tuple(map(key_of, value))
    if isinstance(value, frozenset):
        return kind, frozenset(map(key_of, value))
    return kind, value


# How deep a look goes, and at how many parts.
_DEEPEST, _MOST_PARTS = 12, 200_000
# Parts of values that looked alike and weren't the same: of all together, and of one at least.
_MOST_MISTAKEN, _FEWEST_PARTS = 500_000, 50


class _Look:
    """A look at one value; `parts` says at how many parts of it."""

    def __init__(self) -> None:
        self.parts = 0

    def key(self, value: Any) -> int:
        """A number that is equal for the same values, and seldom for others."""
        found = self.at(value, 0)
        # Which parts were left out depends on the order of keys.
        return hash(type(value) if self.parts > _MOST_PARTS else found)

    def at(self, value: Any, depth: int) -> Any:
        """Something hashable, of so many parts."""
        self.parts += 1
        kind = type(value)
        if kind in _PLAIN:
            return kind, value
        if isinstance(value, float):
            return kind, None if math.isnan(value) else value
        if isinstance(value, complex | Decimal):
            return kind, key_of(value)
        if depth == _DEEPEST or self.parts > _MOST_PARTS:
            return kind
        if isinstance(value, list | tuple | deque):
            return kind, len(value), *(self.at(part, depth + 1) for part in value)
        if isinstance(value, set | frozenset):
            return kind, frozenset(map(key_of, value))
        if (named := _named_parts(value)) is not None:
            return kind, self._at_parts(named, depth)
        return kind, self._at_object(value, depth)

    def _at_parts(self, parts: Mapping[Any, Any], depth: int) -> Any:
        """Of a mapping whose order doesn't count."""
        return frozenset((key_of(name), self.at(part, depth + 1)) for name, part in parts.items())

    def _at_object(self, value: Any, depth: int) -> Any:
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, numpy.ndarray | numpy.generic):
            return _of_array(numpy, value)
        compares: Any = type(value).__eq__
        if compares is object.__eq__:
            return self.at(_reduced(value), depth + 1)
        try:
            return hash(value)
        except Exception:  # whatever a hash may raise
            return None


def _named_parts(value: Any) -> Mapping[Any, Any] | None:
    if isinstance(value, dict):
        return value
    if isinstance(value, BaseModel):
        return value.__dict__
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name, None) for f in dataclasses.fields(value)}
    return None


def _of_array(numpy: Any, value: Any) -> Any:
    """What is equal for arrays of the same content, however it lies in memory."""
    if type(value) is not numpy.ndarray and not isinstance(value, numpy.generic):
        return value.shape
    if value.dtype.names is not None:
        return value.shape, *(_of_array(numpy, value[name]) for name in value.dtype.names)
    if value.dtype.kind in "fc":
        # One NaN for all, and no padding.
        with numpy.errstate(all="ignore"):
            value = numpy.where(numpy.isnan(value), numpy.nan, value).astype(complex)
    return value.shape, None if value.dtype.hasobject else value.tobytes()


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
    if numpy is not None and _is_numpys(numpy, one):
        return _pairs_of_numpy(numpy, one, other)
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


def _is_numpys(numpy: Any, value: Any) -> bool:
    """Whether it is an array that doesn't say itself what it is made of, or a number."""
    if isinstance(value, numpy.generic | numpy.ma.MaskedArray):
        return True
    own = type(value).__reduce__
    return isinstance(value, numpy.ndarray) and own is numpy.ndarray.__reduce__


def _pairs_of_numpy(numpy: Any, one: Any, other: Any) -> Pairs | None:
    if isinstance(one, numpy.ma.MaskedArray):
        parts = [
            (numpy.ma.getdata(array, subok=False), numpy.ma.getmaskarray(array), array.fill_value)
            for array in (one, other)
        ]
        return [(parts[0], parts[1])]
    return _pairs_of_arrays(numpy, numpy.asarray(one), numpy.asarray(other))


def _pairs_of_arrays(numpy: Any, one: Any, other: Any) -> Pairs | None:
    """By content: there are several NaN, and between and in numbers there may be padding."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return None
    if one.dtype.names is not None:
        return [(one[name], other[name]) for name in one.dtype.names]
    if one.dtype.hasobject:
        return zip(one.ravel().tolist(), other.ravel().tolist(), strict=True)
    if one.dtype.kind == "c":
        return [(one.real, other.real), (one.imag, other.imag)]
    if one.dtype.kind != "f":
        return _found(one.tobytes() == other.tobytes())
    number = one == one
    are_equal = (one == other) & (numpy.signbit(one) == numpy.signbit(other))
    return _found(bool(numpy.all(are_equal | ~(number | (other == other)))))


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
