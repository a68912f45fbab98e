"""Stored msgpack to values.

Extension codes 0 to 7 are LangGraph's. Those from 100 on are this package's:

    100  text with lone surrogates            its UTF-8, surrogates passed through
    101  an integer beyond 64 bits            signed big-endian bytes
    102  a dict with keys msgpack can't hold  [keys, values]
    103  a tuple inside an object or a key    [items]
    104  a datetime with zone name or fold    [module, name, numbers, tzinfo, fold]
    105  a numpy scalar                       [dtype, bytes]

Text is never taken as a name to import or a function to call: `_permitted`
says what a name may become.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import re
from collections.abc import Callable
from datetime import datetime
from enum import Enum
from typing import Any

import ormsgpack
from langgraph.checkpoint.serde._msgpack import SAFE_MSGPACK_METHODS
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Send
from pydantic import BaseModel, RootModel

from langgraph_pgsaga.checkpoint._permitted import TypeRules
from langgraph_pgsaga.errors import (
    BlockedTypeError,
    CorruptValueError,
    MissingTypeError,
    SerializationError,
)

SINGLE, POSITIONAL, KEYWORDS, METHOD, MODEL_V1, MODEL_V2, ARRAY, DELTA = range(8)
TEXT, BIG_INT, PAIRS, TUPLE, MOMENT, NUMPY_SCALAR = range(100, 106)

# The fourth element of a MODEL_V2: field values as they were, not a dump of them.
FIELDS = "fields"
# Kinds of numpy dtype whose bytes are the whole value.
NUMPY_KINDS = frozenset("biufcmMSUV")

_OPTION = ormsgpack.OPT_NON_STR_KEYS

Build = Callable[[dict[str, Any]], Any]


class Decoder:
    """Decodes one value: `load` once, then forget it. It holds the error that
    ormsgpack would hide."""

    __slots__ = ("_failure", "_rules")

    def __init__(self, rules: TypeRules) -> None:
        self._rules = rules
        self._failure: BaseException | None = None

    def load(self, data: bytes) -> Any:
        """The value in these bytes.

        Raises BlockedTypeError, MissingTypeError or CorruptValueError.
        """
        try:
            return ormsgpack.unpackb(data, ext_hook=self._hook, option=_OPTION)
        except ormsgpack.MsgpackDecodeError:
            failure = self._failure
        if failure is None:
            raise _corrupt("the bytes aren't msgpack, or were cut short")
        if isinstance(failure, SerializationError) or not isinstance(failure, Exception):
            raise failure
        if isinstance(failure, RecursionError):
            raise _corrupt("it nests too deeply")
        raise _corrupt(f"a part of it isn't well formed ({type(failure).__name__})")

    def _hook(self, code: int, data: bytes) -> Any:
        try:
            handler = _HANDLERS.get(code)
            if handler is None:
                raise _corrupt(
                    f"it uses the extension code {code}, which this version doesn't know"
                )
            return handler(self, data)
        except BaseException as exc:
            self._failure = exc
            raise

    def _named(self, data: bytes) -> tuple[str, str, Any, Any]:
        parts = self.load(data)
        if not isinstance(parts, list) or len(parts) not in (3, 4):
            raise _corrupt("an object's record has the wrong length")
        module, name, payload = parts[:3]
        if not isinstance(module, str) or not isinstance(name, str):
            raise _corrupt("an object's type isn't named by text")
        return module, name, payload, parts[3] if len(parts) == 4 else None

    def _single(self, data: bytes) -> Any:
        module, name, payload, _ = self._named(data)
        cls = self._resolve(module, name)
        if issubclass(cls, Enum):
            return _guard(module, name, lambda: _enum(cls, payload))
        self._demand_listed(module, name)
        if issubclass(cls, (set, frozenset)):
            return _guard(module, name, lambda: cls([frozen(item) for item in payload]))
        return _guard(module, name, lambda: cls(payload))

    def _positional(self, data: bytes) -> Any:
        module, name, payload, _ = self._named(data)
        if not isinstance(payload, list):
            raise _wrong(module, name, "its arguments aren't a list")
        if (module, name) == ("re", "compile"):
            return _pattern(payload)
        cls = self._resolve(module, name)
        self._demand_listed(module, name)
        if cls is Send and len(payload) == 3:
            return _guard(module, name, lambda: Send(*payload[:2], timeout=payload[2]))
        return _guard(module, name, lambda: cls(*payload))

    def _keywords(self, data: bytes) -> Any:
        module, name, payload, marker = self._named(data)
        cls = self._resolve(module, name)
        if issubclass(cls, Enum):
            # Called with names, an enum makes a class.
            raise _wrong(module, name, "an enum is stored by its value, this isn't")
        if marker != FIELDS and issubclass(cls, RootModel):
            # A dumped root model is its root.
            payload = {"root": payload}
        if not isinstance(payload, dict):
            raise _wrong(module, name, "its fields aren't a mapping")
        build = _BUILDERS.get(cls)
        if build is None:
            build = _BUILDERS[cls] = _builder(cls)
        try:
            return build(payload)
        except Exception as exc:
            problem = f"{type(exc).__name__} when built from its stored fields"
        raise _wrong(module, name, problem)

    def _method(self, data: bytes) -> Any:
        module, name, payload, method = self._named(data)
        if (module, name, method) not in SAFE_MSGPACK_METHODS:
            raise BlockedTypeError(module=module, name=f"{name}.{method}")
        return _guard(module, name, lambda: datetime.fromisoformat(payload))

    def _array(self, data: bytes) -> Any:
        dtype, shape, order, buffer = self.load(data)
        np = _numpy()
        kind = _dtype(np, dtype)
        shape = tuple(shape)
        if kind.itemsize * math.prod(shape) != len(buffer) or min(shape, default=0) < 0:
            raise _wrong("numpy", "ndarray", "its size and its bytes don't agree")
        # bytearray: what numpy lays over immutable bytes can't be written to.
        return np.ndarray(shape, dtype=kind, buffer=bytearray(buffer), order=order)

    def _numpy_scalar(self, data: bytes) -> Any:
        dtype, buffer = self.load(data)
        if not isinstance(buffer, bytes):
            raise _wrong("numpy", "generic", "it isn't made of bytes")
        np = _numpy()
        return np.ndarray((), dtype=_dtype(np, dtype), buffer=buffer)[()]

    def _delta(self, data: bytes) -> Any:
        return _DeltaSnapshot(self.load(data))

    def _text(self, data: bytes) -> str:
        return str(self.load(data), "utf-8", "surrogatepass")

    def _big_int(self, data: bytes) -> int:
        return int.from_bytes(self.load(data), "big", signed=True)

    def _pairs(self, data: bytes) -> dict[Any, Any]:
        keys, values = self.load(data)
        return dict(zip(map(frozen, keys), values, strict=True))

    def _tuple(self, data: bytes) -> tuple[Any, ...]:
        return tuple(self.load(data))

    def _moment(self, data: bytes) -> datetime:
        module, name, numbers, tzinfo, fold = self.load(data)
        cls = self._resolve(module, name)
        self._demand_listed(module, name)
        if not issubclass(cls, datetime):
            raise _wrong(module, name, "it isn't a datetime")
        made: datetime = _guard(
            module,
            name,
            lambda: cls(*numbers[:7], tzinfo=tzinfo, fold=fold),  # type: ignore[misc]
        )
        return made

    def _resolve(self, module: str, name: str) -> type[Any]:
        return self._rules.resolve(module, name)

    def _demand_listed(self, module: str, name: str) -> None:
        """Only data classes are built on the strength of being imported, by field."""
        if not self._rules.is_listed(module, name):
            raise _wrong(module, name, "a data class is stored by its fields, this isn't")


_HANDLERS: dict[int, Callable[[Decoder, bytes], Any]] = {
    SINGLE: Decoder._single,
    POSITIONAL: Decoder._positional,
    KEYWORDS: Decoder._keywords,
    METHOD: Decoder._method,
    MODEL_V1: Decoder._keywords,
    MODEL_V2: Decoder._keywords,
    ARRAY: Decoder._array,
    DELTA: Decoder._delta,
    TEXT: Decoder._text,
    BIG_INT: Decoder._big_int,
    PAIRS: Decoder._pairs,
    TUPLE: Decoder._tuple,
    MOMENT: Decoder._moment,
    NUMPY_SCALAR: Decoder._numpy_scalar,
}

# How each class met is built from its fields; says nothing on whether it may be.
_BUILDERS: dict[type, Build] = {}


def frozen(value: Any) -> Any:
    """What stood for a tuple in a place that needs something hashable."""
    return tuple(map(frozen, value)) if type(value) is list else value


def _corrupt(problem: str) -> CorruptValueError:
    return CorruptValueError(what="a stored value", problem=problem)


def _wrong(module: str, name: str, problem: str) -> CorruptValueError:
    return CorruptValueError(what=f"a stored {module}.{name}", problem=problem)


def _guard(module: str, name: str, build: Callable[[], Any]) -> Any:
    """Build, and tell of a failure without the payload that its text may hold."""
    try:
        return build()
    except Exception as exc:
        problem = f"{type(exc).__name__} when built from its stored fields"
    # Outside of the handler, so that the error drags no other along.
    raise _wrong(module, name, problem)


def _enum(cls: type[Any], payload: Any) -> Any:
    try:
        return cls(payload)
    except ValueError:
        return cls(frozen(payload))


def _pattern(payload: list[Any]) -> re.Pattern[Any]:
    if len(payload) == 2 and isinstance(payload[0], (str, bytes)) and type(payload[1]) is int:
        compiled: re.Pattern[Any] = _guard("re", "Pattern", lambda: re.compile(*payload))
        return compiled
    raise _wrong("re", "Pattern", "it isn't made of a text and flags")


def _builder(cls: type[Any]) -> Build:
    if issubclass(cls, BaseModel):
        return _model_builder(cls)
    if dataclasses.is_dataclass(cls):
        return _dataclass_builder(cls)
    if hasattr(cls, "__fields__") and hasattr(cls, "construct"):
        return lambda fields: _first_of(fields, cls, cls.construct)
    return lambda fields: cls(**fields)


def _first_of(fields: dict[str, Any], *ways: Callable[..., Any]) -> Any:
    """The first way's result; each is asked only if those before it failed."""
    for way in ways[:-1]:
        try:
            return way(**fields)
        except Exception:  # noqa: S112 - the next way is the answer to any failure
            continue
    return ways[-1](**fields)


def _model_builder(cls: type[BaseModel]) -> Build:
    """By validation; where that refuses what was once valid, without."""

    def by_name(**fields: Any) -> Any:
        return cls.model_validate(fields, by_name=True, by_alias=False)

    names, aliases = _model_names(cls)
    ways: list[Callable[..., Any]] = [cls, cls.model_construct]
    if aliases:
        # A model with an __init__ of its own would lose by_name on the way.
        own_init = getattr(cls, "__pydantic_custom_init__", False)
        ways = [cls.model_construct] if own_init else [by_name, *ways]
    if cls.model_config.get("extra") == "allow" or issubclass(cls, RootModel):
        return lambda fields: _first_of(fields, *ways)
    known = names | aliases

    def build(fields: dict[str, Any]) -> Any:
        if not known.issuperset(fields):
            # Computed fields of a dump, or fields the class no longer has.
            fields = {name: value for name, value in fields.items() if name in known}
        return _first_of(fields, *ways)

    return build


def _model_names(cls: type[BaseModel]) -> tuple[frozenset[str], frozenset[str]]:
    aliases: set[str] = set()
    for field in cls.model_fields.values():
        found = (field.alias, field.validation_alias, field.serialization_alias)
        aliases.update(alias for alias in found if isinstance(alias, str))
        if field.validation_alias is not None and not isinstance(field.validation_alias, str):
            aliases.add("")  # a path or a choice: only by name
    return frozenset(cls.model_fields), frozenset(aliases)


def _dataclass_builder(cls: type[Any]) -> Build:
    late = frozenset(f.name for f in dataclasses.fields(cls) if not f.init)
    own_init = not cls.__dataclass_params__.init
    if not late or own_init:
        return lambda fields: cls(**fields)

    def build(fields: dict[str, Any]) -> Any:
        made = cls(**{name: value for name, value in fields.items() if name not in late})
        for name in late.intersection(fields):
            # Frozen classes allow no other way.
            object.__setattr__(made, name, fields[name])
        return made

    return build


def _numpy() -> Any:
    try:
        return importlib.import_module("numpy")
    except ImportError as exc:
        raise MissingTypeError(module="numpy", name="ndarray") from exc


def _dtype(np: Any, name: object) -> Any:
    """The dtype, never one of pointers: those would be taken from the row."""
    dtype = np.dtype(name) if isinstance(name, str) else None
    if dtype is None or dtype.kind not in NUMPY_KINDS or dtype.hasobject:
        raise _wrong("numpy", "ndarray", "its dtype isn't plain data")
    return dtype
