"""Values to stored msgpack, refusing what could not be loaded again.

Two passes. The first leaves all plain containers to ormsgpack. Only where that
fails, on text with lone surrogates or on keys other than text, a second pass
walks the containers in Python and replaces what msgpack can't hold.

Kept exactly: everything in `_forms`, data classes and models by their fields,
any key of a dict. Changed, as LangGraph's serializer does it: a tuple in a
plain list or dict becomes a list (inside an object it stays a tuple); a
subclass of str, int, float, bytes, list, dict or tuple becomes its base;
bytearray and memoryview become bytes; an exception becomes its repr; a
model's private attributes and excluded fields are left out; a tzinfo that is
neither a timezone nor a ZoneInfo becomes its offset.
"""

from __future__ import annotations

import contextlib
import dataclasses
import decimal
import ipaddress
import pathlib
import re
import sys
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from enum import Enum
from typing import Any
from zoneinfo import ZoneInfo

import ormsgpack
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.store.base import Item, SearchItem
from langgraph.types import Send
from ormsgpack import Ext
from pydantic import AnyUrl, BaseModel, SecretBytes, SecretStr

from langgraph_pgsaga.checkpoint._msgpack_decode import (
    ARRAY,
    BIG_INT,
    DELTA,
    FIELDS,
    KEYWORDS,
    METHOD,
    MODEL_V1,
    MODEL_V2,
    MOMENT,
    NUMPY_KINDS,
    NUMPY_SCALAR,
    PAIRS,
    POSITIONAL,
    SINGLE,
    TEXT,
    TUPLE,
    Decoder,
)
from langgraph_pgsaga.checkpoint._permitted import (
    TypeRules,
    is_named_tuple,
    key_of,
    v1_model,
)
from langgraph_pgsaga.errors import (
    BlockedTypeError,
    MissingTypeError,
    SerializationError,
    UnstorableValueError,
)

# Objects in objects. Loading nests as deep, on a stack that may be used already.
MAX_OBJECT_DEPTH = 100
# Plain containers in plain containers: ormsgpack's own limit is a little above.
MAX_CONTAINER_DEPTH = 250

_PLAIN = (
    ormsgpack.OPT_PASSTHROUGH_BIG_INT
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_UUID
)
_EXACT = _PLAIN | ormsgpack.OPT_PASSTHROUGH_TUPLE
_SCALARS = frozenset({str, int, float, bool, type(None), bytes})

Writer = Callable[["Encoder", Any], Any]
Maker = Callable[[type[Any]], Writer]


class _WalkNeededError(Exception):
    """The first pass met something that only the second can hold."""


class Writers:
    """How each class is written under some rules: found once per class."""

    def __init__(self, rules: TypeRules) -> None:
        self.rules = rules
        self.known: dict[type, Writer] = {}

    def encode(self, value: Any) -> bytes:
        """The value's msgpack.

        Raises UnstorableValueError for what couldn't be loaded again.
        """
        encoder = Encoder(self)
        try:
            return encoder.pack(value, _PLAIN)
        except _WalkNeededError:
            pass
        except UnstorableValueError as exc:
            raise _with_place(exc, value, encoder.culprit) from None
        encoder = Encoder(self, walk=True)
        try:
            return encoder.pack(value, _PLAIN)
        except UnstorableValueError as exc:
            raise _with_place(exc, value, encoder.culprit) from None


class Encoder:
    """One pass over one value. It holds the error that ormsgpack would hide."""

    __slots__ = ("_depth", "_failure", "_walk", "_writers", "culprit")

    def __init__(self, writers: Writers, *, walk: bool = False) -> None:
        self._writers = writers
        self._walk = walk
        self._depth = 0
        self._failure: BaseException | None = None
        self.culprit: Any = None

    def pack(self, value: Any, option: int = _EXACT) -> bytes:
        """The msgpack of a part; the default keeps the tuples in it."""
        if self._walk:
            with contextlib.suppress(ormsgpack.MsgpackEncodeError):
                # Most parts hold no objects; asking about one would end this.
                return ormsgpack.packb(value, None, option)
            value = self._prepared(value, option, 0)
            option |= ormsgpack.OPT_NON_STR_KEYS
        try:
            return ormsgpack.packb(value, self.hook, option)
        except ormsgpack.MsgpackEncodeError:
            failure = self._failure
        if failure is not None:
            raise failure
        if self._walk:
            raise UnstorableValueError(where="the value", problem=_TOO_DEEP)
        raise _WalkNeededError

    def hook(self, value: Any) -> Any:
        """What ormsgpack asks about everything that msgpack doesn't have."""
        self._depth += 1
        try:
            if self._depth > MAX_OBJECT_DEPTH:
                raise UnstorableValueError(where="the value", problem=_TOO_DEEP)
            write = self._writers.known.get(type(value))
            if write is None:
                return self._first(value)
            return write(self, value)
        except (SerializationError, _WalkNeededError) as exc:
            self._fail(exc, value)
            raise
        except RecursionError:
            self._fail(UnstorableValueError(where="the value", problem=_TOO_DEEP), value)
            raise
        except Exception as exc:
            problem = f"{_shown(type(value))} raised {type(exc).__name__} when asked for its fields"
            self._fail(UnstorableValueError(where="the value", problem=problem), value)
            raise
        except BaseException as exc:
            self._fail(exc, value)
            raise
        finally:
            self._depth -= 1

    def _fail(self, failure: BaseException, culprit: Any) -> None:
        if self._failure is None:
            self._failure, self.culprit = failure, culprit

    def _first(self, value: Any) -> Any:
        """Write an instance of a class met for the first time, and load it again."""
        cls = type(value)
        write = _writer(cls, self._writers.rules)
        written = write(self, value)
        if isinstance(written, Ext):
            self.try_load(written, cls)
        self._writers.known[cls] = write
        return written

    def try_load(self, written: Ext, cls: type) -> None:
        """Refuse what was written if it can't be loaded."""
        try:
            Decoder(self._writers.rules).load(ormsgpack.packb(written))
        except SerializationError as exc:
            problem = f"{_shown(cls)} can't be loaded again: {exc}"
        else:
            return
        raise UnstorableValueError(where="the value", problem=problem)

    def _prepared(self, value: Any, option: int, depth: int) -> Any:
        """The value with all that msgpack's plain types can't hold replaced."""
        if depth > MAX_CONTAINER_DEPTH:
            raise UnstorableValueError(where="the value", problem=_TOO_DEEP)
        if isinstance(value, Enum):
            return value
        if isinstance(value, str):
            return value if value.isascii() else _text(value)
        if isinstance(value, dict):
            return self._prepared_dict(value, option, depth)
        is_list = isinstance(value, list) or (type(value) is tuple and option == _PLAIN)
        if not is_list:
            return value
        return [self._prepared(item, option, depth + 1) for item in value]

    def _prepared_dict(self, value: dict[Any, Any], option: int, depth: int) -> Any:
        if all(map(_is_plain_key, value)):
            return {k: self._prepared(v, option, depth + 1) for k, v in value.items()}
        body = b"\x92" + self.pack(list(value)) + self.pack(list(value.values()), option)
        written = Ext(PAIRS, body)
        self.try_load(written, dict)
        return written


_TOO_DEEP = (
    "it refers to itself, or nests too deeply "
    f"(at most {MAX_CONTAINER_DEPTH} containers or {MAX_OBJECT_DEPTH} objects in one another)"
)


def _text(value: str) -> str | Ext:
    try:
        value.encode()
    except UnicodeEncodeError:
        return Ext(TEXT, ormsgpack.packb(value.encode("utf-8", "surrogatepass")))
    return value


def _is_plain_key(key: Any) -> bool:
    """Whether ormsgpack keeps the key as it is; it makes text of dates and the like."""
    kind = type(key)
    if kind is tuple:
        return all(_is_plain_key(part) for part in key)
    if kind is int:
        return -(2**63) <= key < 2**64
    if isinstance(key, str) and not isinstance(key, Enum):
        return isinstance(_text(key), str)
    return kind in _SCALARS


# --- one writer per class -------------------------------------------------------


def _writer(cls: type[Any], rules: TypeRules) -> Writer:
    """How instances of the class are written, if they may be loaded again."""
    make, is_named = _form(cls)
    if is_named:
        _demand_loadable(cls, rules)
    return make(cls)


def _form(cls: type[Any]) -> tuple[Maker, bool]:
    for base, make in _NATIVE_FORMS:
        if cls is base:
            return make, False
    for test, make in _NAMED_TESTS:
        if test(cls):
            return make, True
    if _is_numpy_scalar(cls):
        return _numpy_scalar, False
    for base, make in _NAMED_FORMS:
        if issubclass(cls, base):
            return make, True
    for base, make in _BASE_FORMS:
        if issubclass(cls, base):
            return make, False
    if dataclasses.is_dataclass(cls):
        return _dataclass, True
    raise UnstorableValueError(
        where="the value",
        problem=f"it is of type {_shown(cls)}, which can't be loaded again. "
        "Keep such objects out of the state, or keep what they are made from",
    )


def _is_numpy_scalar(cls: type) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and issubclass(cls, numpy.generic)


def _shown(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _demand_loadable(cls: type[Any], rules: TypeRules) -> None:
    if cls is re.Pattern:
        return
    module, name = key_of(cls)
    try:
        found = rules.resolve(module, name)
    except BlockedTypeError:
        why = "isn't a known type, nor a data class that may be loaded"
        todo = f"Pass allow=[{name}] (the class itself) to the saver"
    except MissingTypeError:
        why = "can't be found by its name"
        todo = "Move the class to the top level of its module"
        if "<locals>" in name:
            why = "is defined inside a function, where loading can't find it"
    else:
        if found is cls:
            return
        why = "isn't what its name stands for any more"
        todo = "If the class was defined anew, make the value anew, too"
    raise UnstorableValueError(where="the value", problem=f"its type {_shown(cls)} {why}. {todo}")


def _named(code: int, parts: Callable[[Any], Any], tail: str | None = None) -> Maker:
    """Written as module, name, parts and, for some codes, a fourth element."""

    def make(cls: type[Any]) -> Writer:
        key = ("re", "compile") if cls is re.Pattern else key_of(cls)
        return _write_named(code, key, parts, tail)

    return make


def _write_named(
    code: int, key: tuple[str, str], parts: Callable[[Any], Any], tail: str | None = None
) -> Writer:
    end = b"" if tail is None else ormsgpack.packb(tail)
    head = b"\x94" if end else b"\x93"  # an array of four, or of three
    head += ormsgpack.packb(key[0]) + ormsgpack.packb(key[1])

    def write(encoder: Encoder, value: Any) -> Ext:
        return Ext(code, head + encoder.pack(parts(value)) + end)

    return write


def _bare(code: int, parts: Callable[[Any], Any], option: int = _EXACT) -> Maker:
    """Written without a name: the code says it all."""

    def write(encoder: Encoder, value: Any) -> Ext:
        return Ext(code, encoder.pack(parts(value), option))

    return lambda _: write


def _base(convert: Callable[[Any], Any]) -> Maker:
    """Written as a plain value."""
    return lambda _: lambda _, value: convert(value)


def _collection(cls: type[Any]) -> Writer:
    """A set. Items that aren't plain might have lost their hash when loaded."""
    write_set = _write_named(SINGLE, key_of(cls), list)

    def write(encoder: Encoder, value: Any) -> Ext:
        written: Ext = write_set(encoder, value)
        if not _SCALARS.issuperset(map(type, value)):
            encoder.try_load(written, cls)
        return written

    return write


def _model(cls: type[BaseModel]) -> Writer:
    """A model by its own fields, each as it is: no dump, so nothing loses its type."""
    kept = [name for name, field in cls.model_fields.items() if field.exclude is not True]
    names, count = frozenset(kept), len(cls.model_fields)

    def parts(value: BaseModel) -> dict[str, Any]:
        fields, extra = value.__dict__, value.__pydantic_extra__
        if not extra and len(fields) == count and names.issuperset(fields):
            return fields
        return {k: v for k, v in fields.items() if k in names} | (extra or {})

    return _write_named(MODEL_V2, key_of(cls), parts, FIELDS)


def _dataclass(cls: type[Any]) -> Writer:
    names = [field.name for field in dataclasses.fields(cls)]

    def parts(value: Any) -> dict[str, Any]:
        # A field that was never set is left out.
        found = ((name, getattr(value, name, dataclasses.MISSING)) for name in names)
        return {name: item for name, item in found if item is not dataclasses.MISSING}

    return _write_named(KEYWORDS, key_of(cls), parts)


def _moment(cls: type[datetime]) -> Writer:
    """As ISO text, unless that would lose the zone's name, the fold or the class."""
    iso = _write_named(METHOD, key_of(cls), lambda value: value.isoformat(), "fromisoformat")
    fields = _bare(MOMENT, _moment_fields)(cls)
    is_plain_class = cls is datetime

    def write(encoder: Encoder, value: datetime) -> Any:
        plain = value.tzinfo is None or value.tzinfo is UTC
        return (iso if plain and is_plain_class and not value.fold else fields)(encoder, value)

    return write


def _moment_fields(value: datetime) -> list[Any]:
    numbers = [value.year, value.month, value.day, value.hour, value.minute, value.second]
    zone = value.tzinfo
    if zone is not None and type(zone) is not timezone and type(zone) is not ZoneInfo:
        zone = _offset(value.utcoffset())
    return [*key_of(type(value)), [*numbers, value.microsecond], zone, value.fold]


def _offset(offset: timedelta | None) -> tzinfo | None:
    return None if offset is None else timezone(offset)


def _time_fields(value: time) -> dict[str, Any]:
    names = ("hour", "minute", "second", "microsecond", "tzinfo", "fold")
    return {name: getattr(value, name) for name in names}


def _zone_key(value: ZoneInfo) -> str:
    if value.key is None:
        raise UnstorableValueError(
            where="the value", problem="a ZoneInfo made from a file has no name to load it by"
        )
    return value.key


def _send(value: Send) -> list[Any]:
    timeout = getattr(value, "timeout", None)
    return [value.node, value.arg] if timeout is None else [value.node, value.arg, timeout]


def _item(value: Item) -> dict[str, Any]:
    names = Item.__slots__ + (("score",) if isinstance(value, SearchItem) else ())
    return {name: getattr(value, name) for name in names}


def _big_int(value: int) -> bytes:
    return int(value).to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _repr(value: BaseException) -> str:
    return repr(value).encode("utf-8", "backslashreplace").decode()


def _numpy_dtype(value: Any) -> str:
    name: str = value.dtype.str
    if value.dtype.kind in NUMPY_KINDS and type(value.dtype)(name) == value.dtype:
        return name
    raise UnstorableValueError(
        where="the value", problem=f"numpy data of dtype {value.dtype} can't be loaded again"
    )


def _array(cls: type[Any]) -> Writer:
    def parts(value: Any) -> list[Any]:
        order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
        return [_numpy_dtype(value), list(value.shape), order, value.tobytes(order)]

    return _bare(ARRAY, parts)(cls)


def _numpy_scalar(cls: type[Any]) -> Writer:
    return _bare(NUMPY_SCALAR, lambda value: [_numpy_dtype(value), value.tobytes()])(cls)


def _model_v1(cls: type[Any]) -> Writer:
    return _write_named(MODEL_V1, key_of(cls), lambda value: dict(value.__dict__))


# In the order they are tried. First, classes that are always themselves:
_NATIVE_FORMS: tuple[tuple[type, Maker], ...] = (
    (tuple, _bare(TUPLE, list)),
    (int, _bare(BIG_INT, _big_int)),
    (_DeltaSnapshot, _bare(DELTA, lambda value: value.value, _PLAIN)),
)
# then what is told by more than one base class:
_NAMED_TESTS: tuple[tuple[Callable[[type], bool], Maker], ...] = (
    (lambda cls: issubclass(cls, Enum), _named(SINGLE, lambda value: value.value)),
    (
        is_named_tuple,
        _named(KEYWORDS, lambda value: dict(zip(value._fields, value, strict=True))),
    ),
    (lambda cls: v1_model() in cls.__mro__, _model_v1),
    (lambda cls: key_of(cls) == ("numpy", "ndarray"), _array),
    (lambda cls: key_of(cls) == ("uuid_utils", "UUID"), _named(SINGLE, lambda v: v.hex)),
)
# then classes whose subclasses are named, so they have to be allowed:
_NAMED_FORMS: tuple[tuple[Any, Maker], ...] = (
    (BaseModel, _model),
    ((set, frozenset), _collection),
    (deque, _named(POSITIONAL, lambda value: [list(value), value.maxlen])),
    (datetime, _moment),
    (date, _named(POSITIONAL, lambda value: [value.year, value.month, value.day])),
    (time, _named(KEYWORDS, _time_fields)),
    (timedelta, _named(POSITIONAL, lambda v: [v.days, v.seconds, v.microseconds])),
    (timezone, _named(POSITIONAL, lambda value: list(value.__getinitargs__()))),
    (ZoneInfo, _named(SINGLE, _zone_key)),
    (uuid.UUID, _named(SINGLE, lambda value: value.hex)),
    (decimal.Decimal, _named(SINGLE, str)),
    (complex, _named(POSITIONAL, lambda value: [value.real, value.imag])),
    (slice, _named(POSITIONAL, lambda value: [value.start, value.stop, value.step])),
    (pathlib.PurePath, _named(POSITIONAL, lambda value: list(value.parts))),
    (re.Pattern, _named(POSITIONAL, lambda value: [value.pattern, value.flags])),
    ((ipaddress.IPv4Address, ipaddress.IPv4Network), _named(SINGLE, str)),
    ((ipaddress.IPv6Address, ipaddress.IPv6Network), _named(SINGLE, str)),
    (AnyUrl, _named(SINGLE, str)),
    ((SecretStr, SecretBytes), _named(SINGLE, lambda value: value.get_secret_value())),
    (Send, _named(POSITIONAL, _send)),
    (Item, _named(KEYWORDS, _item)),
)
# and last those that are stored as their base.
_BASE_FORMS: tuple[tuple[type, Maker], ...] = (
    (BaseException, _base(_repr)),
    (float, _base(float)),
    (bytes, _base(bytes)),
    (int, _bare(BIG_INT, _big_int)),
    (tuple, _bare(TUPLE, list)),
)


# --- where in the value ---------------------------------------------------------

_MAX_SEARCHED = 10_000
_MAX_PATH = 200


def _with_place(exc: UnstorableValueError, root: Any, culprit: Any) -> UnstorableValueError:
    """The error with the path to its cause, made of names only, never of values."""
    if culprit is None:
        return exc
    for found, path in _places(root):
        if found is culprit and 0 < len(path) <= _MAX_PATH:
            return UnstorableValueError(where=f"value{path}", problem=exc.problem)
    return exc


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
    elif isinstance(value, (list, tuple, deque)):
        yield from ((item, f"[{index}]") for index, item in enumerate(value))
    elif isinstance(value, BaseModel) or dataclasses.is_dataclass(value):
        fields = getattr(value, "__dict__", {})
        yield from ((item, f".{name}") for name, item in fields.items())


def _step(key: Any) -> str:
    return f"[{key!r}]" if type(key) is str and key.isidentifier() and len(key) <= 40 else "[...]"
