"""Known types, each made from nothing but the form in which it is written.

A stored value names its class and brings arguments. Most constructors take more than what
this package and LangGraph write: `date` takes the bytes of a pickle, `numpy.ndarray` an
offset into memory, `Path` anything with a `__fspath__`. So each form has a function here
that checks the types of its arguments first. It raises whatever it likes; the decoder
makes an error of it that tells nothing of the payload.
"""

from __future__ import annotations

import dataclasses
import decimal
import ipaddress
import math
import pathlib
import re
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Any, TypeAlias, cast
from zoneinfo import ZoneInfo

from langgraph.store.base import Item
from langgraph.types import Send, TimeoutPolicy
from pydantic import AnyUrl, SecretBytes, SecretStr

from langgraph_pgsaga.errors import ChangedClassError
from langgraph_pgsaga.serde.type_rules import is_data_class, key_of

Make: TypeAlias = Callable[[type[Any], Any], Any]
Forms: TypeAlias = tuple[tuple[Any, Make], ...]

# Kinds of numpy dtype whose bytes are the whole value.
NUMPY_KINDS = frozenset("biufcmMSUV")
_DTYPE = re.compile(r"[<>|](?:[biufcSUV]\d{1,10}|[mM]8(?:\[\d{0,10}[a-zA-Z]{1,7}\])?)")
_MOST_DIMENSIONS = 64
_LAST_CODE_POINT = 0x10FFFF

# re.compile takes 25 ms for a set with a wide range of characters, whatever its length.
_LONGEST_PATTERN = 20_000
_MOST_RANGES = 400
_BEYOND_LATIN = re.compile(r"[^\x00-\xff]|\\[uUN]")

_ZONE = re.compile(r"[\w+-]+(?:/[\w+-]+){0,3}", re.ASCII)
# Python looks at each of those that hash alike, for each of them.
_MOST_ALIKE = 1_000


def single(cls: type[Any]) -> Make | None:
    """How the class is made of one argument; None where it never is."""
    if cls.__module__ == "uuid_utils" and cls.__name__ == "UUID":
        return _uuid
    return _first(cast("Any", cls), _SINGLE)


def positional(cls: type[Any]) -> Make | None:
    """How the class is made of a list of arguments; None where it never is."""
    return _first(cast("Any", cls), _POSITIONAL)


def by_name(cls: type[Any]) -> Make | None:
    """How a class that is no data class is made of named arguments; None where it never is."""
    return _first(cast("Any", cls), _BY_NAME)


def has_fields(cls: type[Any]) -> bool:
    """Whether instances are what LangGraph, too, writes by their fields."""
    return dataclasses.is_dataclass(cls) or any(
        hasattr(cls, asked) for asked in ("model_dump", "dict", "_asdict")
    )


def moment(cls: type[Any], numbers: Any, zone: Any, fold: Any) -> Any:
    """A datetime of that class."""
    _demand(issubclass(cls, datetime) and _are(numbers, *[int] * 7))
    _demand(_is_zone(zone) and type(fold) is int)
    return cls(*numbers, tzinfo=zone, fold=fold)


def pattern(text: Any, flags: Any) -> re.Pattern[Any]:
    """A compiled pattern, if compiling it takes no more than seconds."""
    _demand(type(text) in (str, bytes) and type(flags) is int)
    _demand(not is_costly_pattern(text))
    # With DEBUG it would be printed.
    return re.compile(text, flags & ~int(re.DEBUG))


def is_costly_pattern(text: str | bytes) -> bool:
    """Whether compiling the pattern might take minutes."""
    if len(text) > _LONGEST_PATTERN:
        return True
    if isinstance(text, bytes) or text.count("-") <= _MOST_RANGES:
        return False
    return len(_BEYOND_LATIN.findall(text)) > _MOST_RANGES


def array(np: Any, dtype: Any, shape: Any, order: Any, buffer: Any) -> Any:
    """A numpy array that can be written to."""
    _demand(type(shape) is list and len(shape) <= _MOST_DIMENSIONS)
    _demand(all(type(n) is int and n >= 0 for n in shape) and order in ("C", "F"))
    kind = _dtype(np, dtype, buffer)
    _demand(kind.itemsize * math.prod(shape) == len(buffer))
    # bytearray: what numpy lays over immutable bytes can't be written to.
    return np.ndarray(tuple(shape), dtype=kind, buffer=bytearray(buffer), order=order)


def numpy_scalar(np: Any, dtype: Any, buffer: Any) -> Any:
    """A numpy scalar."""
    if type(buffer) is bytes and dtype == f"|S{len(buffer)}":
        # Not by way of an array, which takes NULs at the end for padding.
        return np.bytes_(buffer)
    kind = _dtype(np, dtype, buffer)
    _demand(kind.itemsize == len(buffer))
    return np.ndarray((), dtype=kind, buffer=bytearray(buffer))[()]


def hashable(items: Iterable[Any]) -> list[Any]:
    """The items of a set or the keys of a dict, lists among them as the tuples they were.

    Raises ValueError where so many of them hash alike that they were chosen to,
    ChangedClassError where the class of one has no hash any more.
    """
    found = [frozen(item) for item in items]
    hashes = [_hash_of(item) for item in found]
    if None in hashes:
        _refuse_unhashable(found)
    if len(found) > _MOST_ALIKE:
        _demand(max(Counter(hashes).values()) <= _MOST_ALIKE)
    return found


def _hash_of(item: Any) -> int | None:
    try:
        return hash(item)
    except Exception:  # whatever a hash may raise
        return None


def _refuse_unhashable(items: Iterable[Any]) -> None:
    """Says which class it is: items of a set were hashable when they were stored."""
    for item in items:
        if isinstance(item, tuple):
            _refuse_unhashable(item)
        elif _hash_of(item) is None:
            _demand(is_data_class(type(item)))
            module, name = key_of(type(item))
            problem = (
                "it has no hash any more, but was in a set or a key of a dict. "
                "Make it frozen, or give it a __hash__"
            )
            raise ChangedClassError(module=module, name=name, problem=problem)


def frozen(value: Any) -> Any:
    """What stood for a tuple in a place that needs something hashable."""
    return tuple(map(frozen, value)) if type(value) is list else value


@lru_cache(maxsize=1024)
def _first(cls: Any, forms: Forms) -> Make | None:
    return next((make for bases, make in forms if issubclass(cls, bases)), None)


def _demand(is_so: bool) -> None:
    if not is_so:
        raise ValueError


def _are(payload: Any, *types: type) -> bool:
    """Whether it is a list of exactly these types."""
    return type(payload) is list and list(map(type, payload)) == list(types)


def _is_zone(zone: Any) -> bool:
    return zone is None or isinstance(zone, tzinfo)


def _of(*types: type) -> Make:
    """The class called with arguments of exactly these types."""

    def make(cls: type[Any], payload: Any) -> Any:
        _demand(_are(payload, *types))
        return cls(*payload)

    return make


def _of_one(kind: type) -> Make:
    def make(cls: type[Any], payload: Any) -> Any:
        _demand(type(payload) is kind)
        return cls(payload)

    return make


def _never(_cls: type[Any], _payload: Any) -> Any:
    raise ValueError


def _set(cls: type[Any], payload: Any) -> Any:
    _demand(type(payload) is list)
    return cls(hashable(payload))


def _bounded_deque(cls: type[Any], payload: Any) -> Any:
    _demand(_are(payload, list, int) or _are(payload, list, type(None)))
    return cls(*payload)


def _uuid(cls: type[Any], payload: Any) -> Any:
    _demand(type(payload) is str and len(payload) == 32)
    return cls(payload)


def _zone(cls: type[Any], payload: Any) -> Any:
    _demand(type(payload) is str and _ZONE.fullmatch(payload) is not None)
    return cls(payload)


def _offset(cls: type[Any], payload: Any) -> Any:
    _demand(_are(payload, timedelta) or _are(payload, timedelta, str))
    return cls(*payload)


def _slice(cls: type[Any], payload: Any) -> Any:
    _demand(len(payload) == 3)
    return cls(*payload)


def _path(cls: type[Any], payload: Any) -> Any:
    _demand({str}.issuperset(map(type, payload)))
    return cls(*payload)


def _send(cls: type[Any], payload: Any) -> Any:
    node, arg, *timeout = payload
    _demand(isinstance(node, str) and (not timeout or _are(timeout, TimeoutPolicy)))
    return cls(node, arg, timeout=timeout[0]) if timeout else cls(node, arg)


_TIME = {"hour": int, "minute": int, "second": int, "microsecond": int, "fold": int}


def _time(cls: type[Any], fields: Mapping[str, Any]) -> Any:
    _demand(fields.keys() == {*_TIME, "tzinfo"} and _is_zone(fields["tzinfo"]))
    _demand(all(type(fields[name]) is kind for name, kind in _TIME.items()))
    return cls(**fields)


_ITEM = frozenset({"value", "key", "namespace", "created_at", "updated_at"})


def _item(cls: type[Any], fields: Mapping[str, Any]) -> Any:
    _demand(fields.keys() - {"score"} == _ITEM and isinstance(fields["namespace"], list | tuple))
    _demand(all(isinstance(fields[name], datetime | str) for name in ("created_at", "updated_at")))
    return cls(**fields)


def _dtype(np: Any, name: Any, buffer: Any) -> Any:
    """The dtype of plain data, which such bytes can be: never one of pointers, for one."""
    _demand(type(buffer) is bytes and type(name) is str and _DTYPE.fullmatch(name) is not None)
    dtype = np.dtype(name)
    _demand(dtype.kind in NUMPY_KINDS and not dtype.hasobject and dtype.itemsize > 0)
    if dtype.kind == "b":
        _demand(not buffer.translate(None, b"\0\1"))
    if dtype.kind == "U":
        codes = np.frombuffer(buffer, dtype=f"{name[0]}u4")
        _demand(not codes.size or int(codes.max()) <= _LAST_CODE_POINT)
    return dtype


_SINGLE: Forms = (
    ((set, frozenset), _set),
    # As LangGraph writes it; its bound is lost there.
    (deque, _of_one(list)),
    (ZoneInfo, _zone),
    (uuid.UUID, _uuid),
    (decimal.Decimal, _of_one(str)),
    ((ipaddress.IPv4Address, ipaddress.IPv4Network), _of_one(str)),
    ((ipaddress.IPv6Address, ipaddress.IPv6Network), _of_one(str)),
    (AnyUrl, _of_one(str)),
    (SecretStr, _of_one(str)),
    (SecretBytes, _of_one(bytes)),
)
_POSITIONAL: Forms = (
    (deque, _bounded_deque),
    (datetime, _never),
    (date, _of(int, int, int)),
    (timedelta, _of(int, int, int)),
    (timezone, _offset),
    (complex, _of(float, float)),
    (slice, _slice),
    (pathlib.PurePath, _path),
    (Send, _send),
)
_BY_NAME: Forms = ((time, _time), (Item, _item))
