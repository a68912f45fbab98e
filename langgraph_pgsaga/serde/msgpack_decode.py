"""Stored msgpack to values.

Extension codes 0 to 7 are LangGraph's. Those from 100 on are this package's:

    100  text with lone surrogates            its UTF-8, surrogates passed through
    101  an integer beyond 64 bits            signed big-endian bytes
    102  a dict with keys msgpack can't hold  [keys, values]
    103  a tuple inside an object or a key    [items]
    104  a datetime with zone name or fold    [module, name, numbers, tzinfo, fold]
    105  a numpy scalar                       [dtype, bytes]

Text is never taken as a name to import or a function to call: `TypeRules` say
what a name may become.

The record of a data class has a fourth element: FIELDS, or a mapping with what else is to be
known of the object (`About`). One without it is LangGraph's, a dump of the object.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from datetime import datetime
from enum import Enum, Flag
from typing import Any

import ormsgpack
from pydantic import RootModel

from langgraph_pgsaga._langgraph import SAFE_MSGPACK_METHODS, DeltaSnapshot
from langgraph_pgsaga.errors import (
    BlockedTypeError,
    ChangedClassError,
    CorruptValueError,
    MissingTypeError,
    SerializationError,
    UnloadableValueError,
)
from langgraph_pgsaga.serde import msgpack_known as known
from langgraph_pgsaga.serde.data_classes import WHOLE, About, builder_of, met_builder
from langgraph_pgsaga.serde.msgpack_depth import (
    MAX_LOADED_DEPTH,
    UNCHECKED_DEPTH,
    most_containers,
    nests_deeper,
)
from langgraph_pgsaga.serde.placeholder import placeholder_of
from langgraph_pgsaga.serde.type_rules import TypeRules, is_data_class, key_of

SINGLE, POSITIONAL, KEYWORDS, METHOD, MODEL_V1, MODEL_V2, ARRAY, DELTA = range(8)
TEXT, BIG_INT, PAIRS, TUPLE, MOMENT, NUMPY_SCALAR = range(100, 106)

# The fourth element of an object's record: its fields are all there is to it. Where there is
# more to say, a mapping says it.
FIELDS = "fields"
UNSET, GIVEN, MORE, MARK, MEMBER = "unset", "given", "more", "class", "member"
# An object's bytes are copied out of those of the object around it: all that are open at
# once may take this, and so many times what was given.
_OPEN_BYTES = 256_000_000
_OPEN_TIMES = 8

_OPTION = ormsgpack.OPT_NON_STR_KEYS


class Decoder:
    """Decodes one value: `load` once, then forget it. It holds the error that
    ormsgpack would hide."""

    __slots__ = ("_depth", "_failure", "_most_open", "_open", "_rules")

    def __init__(self, rules: TypeRules) -> None:
        self._rules = rules
        self._failure: BaseException | None = None
        # Objects that are being loaded, one in the other, and their bytes.
        self._depth = self._open = self._most_open = 0

    def load(self, data: bytes) -> Any:
        """The value in these bytes.

        Raises UnloadableValueError.
        """
        if not self._depth:
            self._most_open = _OPEN_BYTES + _OPEN_TIMES * len(data)
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
        self._depth += 1
        self._open += len(data)
        try:
            if self._depth > UNCHECKED_DEPTH or self._open > self._most_open:
                self._check_nesting(data)
            handler = _HANDLERS.get(code)
            if handler is None:
                raise _corrupt(
                    f"it uses the extension code {code}, which this version doesn't know"
                )
            return handler(self, data)
        except BaseException as exc:
            self._failure = exc
            raise
        finally:
            self._depth -= 1
            self._open -= len(data)

    def _check_nesting(self, data: bytes) -> None:
        """Refuse what would fill the stack, or the memory, before it is decoded."""
        if (
            self._depth > MAX_LOADED_DEPTH
            or self._open > self._most_open
            or nests_deeper(data, most_containers(self._depth))
        ):
            raise _corrupt("it nests too deeply")

    def _named(self, data: bytes) -> tuple[str, str, Any, Any]:
        parts = self.load(data)
        if not isinstance(parts, list) or len(parts) not in (3, 4):
            raise _corrupt("an object's record has the wrong length")
        module, name, payload = parts[:3]
        if not isinstance(module, str) or not isinstance(name, str):
            raise _corrupt("an object's type isn't named by text")
        return module, name, payload, parts[3] if len(parts) == 4 else None

    def _single(self, data: bytes) -> Any:
        module, name, payload, tail = self._named(data)
        cls: type[Any] = self._rules.resolve(module, name, _about(tail).mark)
        if issubclass(cls, Enum):
            return _enum(cls, payload, tail.get(MEMBER) if type(tail) is dict else None)
        return self._made(known.single(cls), cls, module, name, payload)

    def _positional(self, data: bytes) -> Any:
        module, name, payload, _ = self._named(data)
        if not isinstance(payload, list):
            raise _wrong(module, name, "its arguments aren't a list")
        if (module, name) == ("re", "compile"):
            if len(payload) != 2:
                raise _wrong("re", "Pattern", "it isn't made of a text and flags")
            return _guard("re", "Pattern", lambda: known.pattern(*payload))
        cls = self._resolve(module, name)
        return self._made(known.positional(cls), cls, module, name, payload)

    def _made(
        self, make: known.Make | None, cls: type[Any], module: str, name: str, payload: Any
    ) -> Any:
        self._demand_listed(module, name)
        if make is None:
            raise _wrong(module, name, "it is never stored in this form")
        return _guard(module, name, lambda: make(cls, payload))

    def _object(self, data: bytes) -> Any:
        module, name, fields, tail = self._named(data)
        is_whole = tail == FIELDS
        about = WHOLE if is_whole else _about(tail)
        is_dump = not is_whole and type(tail) is not dict
        names = fields if type(fields) is dict else ()
        cls: type[Any] = self._rules.resolve(module, name, about.mark, names)
        # A dumped root model is its root.
        if type(fields) is not dict and not (is_dump and issubclass(cls, RootModel)):
            raise _wrong(module, name, "its fields aren't a mapping")
        builder = met_builder(cls)
        if builder is None:
            if issubclass(cls, Enum):
                # Called with names, an enum makes a class.
                raise _changed(module, name, "it is an enum now")
            if make := known.by_name(cls):
                return _guard(module, name, lambda: make(cls, fields))
            if not known.has_fields(cls):
                raise _wrong(module, name, "it is never stored in this form")
            builder = builder_of(cls)
        try:
            if is_dump:
                return builder.from_dump(fields)
            if about.given is None:
                return builder.build(fields, about)
            return builder.build_given(fields, about)
        except ChangedClassError:
            raise
        except Exception as exc:
            problem = f"{type(exc).__name__} when built from its stored fields"
        # Outside of the handler, so that the error drags no other along.
        raise (_changed if is_data_class(cls) else _wrong)(module, name, problem)

    def _method(self, data: bytes) -> Any:
        module, name, payload, method = self._named(data)
        if (module, name, method) not in SAFE_MSGPACK_METHODS:
            raise BlockedTypeError(module=module, name=f"{name}.{method}")
        if type(payload) is not str:
            raise _wrong(module, name, "it isn't stored as text")
        return _guard(module, name, lambda: datetime.fromisoformat(payload))

    def _array(self, data: bytes) -> Any:
        dtype, shape, order, buffer = self.load(data)
        np = _numpy()
        make = known.array
        return _guard("numpy", "ndarray", lambda: make(np, dtype, shape, order, buffer))

    def _numpy_scalar(self, data: bytes) -> Any:
        dtype, buffer = self.load(data)
        np = _numpy()
        return _guard("numpy", "generic", lambda: known.numpy_scalar(np, dtype, buffer))

    def _delta(self, data: bytes) -> Any:
        return DeltaSnapshot(self.load(data))

    def _text(self, data: bytes) -> str:
        return str(self._bytes(data), "utf-8", "surrogatepass")

    def _big_int(self, data: bytes) -> int:
        return int.from_bytes(self._bytes(data), "big", signed=True)

    def _bytes(self, data: bytes) -> bytes:
        found = self.load(data)
        if type(found) is not bytes:
            raise _corrupt("a text or number isn't made of bytes")
        return found

    def _pairs(self, data: bytes) -> dict[Any, Any]:
        keys, values = self.load(data)
        return dict(zip(known.hashable(keys), values, strict=True))

    def _tuple(self, data: bytes) -> tuple[Any, ...]:
        found = self.load(data)
        if type(found) is not list:
            raise _corrupt("a tuple isn't made of a list")
        return tuple(found)

    def _moment(self, data: bytes) -> datetime:
        module, name, numbers, zone, fold = self.load(data)
        cls = self._resolve(module, name)
        self._demand_listed(module, name)
        made: datetime = _guard(module, name, lambda: known.moment(cls, numbers, zone, fold))
        return made

    def _resolve(self, module: str, name: str) -> type[Any]:
        return self._rules.resolve(module, name)

    def _demand_listed(self, module: str, name: str) -> None:
        """Only data classes are built on the strength of being imported, by field."""
        if not self._rules.is_listed(module, name):
            raise _changed(module, name, "it is stored by its fields now")


_HANDLERS: dict[int, Callable[[Decoder, bytes], Any]] = {
    SINGLE: Decoder._single,
    POSITIONAL: Decoder._positional,
    KEYWORDS: Decoder._object,
    METHOD: Decoder._method,
    MODEL_V1: Decoder._object,
    MODEL_V2: Decoder._object,
    ARRAY: Decoder._array,
    DELTA: Decoder._delta,
    TEXT: Decoder._text,
    BIG_INT: Decoder._big_int,
    PAIRS: Decoder._pairs,
    TUPLE: Decoder._tuple,
    MOMENT: Decoder._moment,
    NUMPY_SCALAR: Decoder._numpy_scalar,
}


def _corrupt(problem: str) -> CorruptValueError:
    return CorruptValueError(what="a stored value", problem=problem)


def _wrong(module: str, name: str, problem: str) -> CorruptValueError:
    return CorruptValueError(what=f"a stored {module}.{name}", problem=problem)


def _changed(module: str, name: str, problem: str) -> ChangedClassError:
    return ChangedClassError(module=module, name=name, problem=problem)


def _guard(module: str, name: str, build: Callable[[], Any]) -> Any:
    """Build, and tell of a failure without the payload that its text may hold."""
    try:
        return build()
    except ChangedClassError:
        raise
    except Exception as exc:
        problem = f"{type(exc).__name__} when built from its stored fields"
    # Outside of the handler, so that the error drags no other along.
    raise _wrong(module, name, problem)


def _about(tail: object) -> About:
    if type(tail) is not dict:
        return WHOLE
    mark, given = tail.get(MARK), tail.get(GIVEN)
    return About(
        unset=frozenset(name for name in tail.get(UNSET, ()) if type(name) is str),
        given=frozenset(given) if type(given) is list else None,
        has_more=tail.get(MORE) is True,
        mark=mark if type(mark) is bytes else None,
    )


def _enum(cls: type[Any], payload: Any, told: Any) -> Any:
    """The member; `told` is its name, or what a combination of flags is made of."""
    if type(told) is list and issubclass(cls, Flag):
        return _combination(cls, told)
    try:
        try:
            found = cls(payload)
        except ValueError:
            found = cls(known.frozen(payload))
    except Exception:
        problem = "no member has the stored value. Keep the member, or add _missing_() to the enum"
    else:
        meant = cls.__members__.get(told) if type(told) is str else None
        # Where the value is nobody's any more, `_missing_` has said whose it is.
        if meant is None or meant is found or found._value_ != payload:
            return found
        if issubclass(cls, Flag):
            return meant
        problem = f"{told} has another value now, and {found._name_} has its old one. Give it back"
    raise _changed(*key_of(cls), problem)


def _combination(cls: type[Flag], parts: list[Any]) -> Any:
    """The flags of these names together, whatever their numbers are now."""
    number = 0
    try:
        for part in parts:
            if type(part) is bytes:  # bits that had no name
                number |= int.from_bytes(part, "big")
            elif part in cls.__members__:
                number |= cls.__members__[part]._value_
            else:
                problem = "a member of a stored combination is gone. Keep it, or an alias of it"
                raise _changed(*key_of(cls), problem)
        return cls(number)
    except ChangedClassError:
        raise
    except Exception:  # whatever a member's value or `_missing_` may lead to
        problem = "its members can't be combined any more. Give them back"
        raise _changed(*key_of(cls), problem) from None


def _numpy() -> Any:
    try:
        return importlib.import_module("numpy")
    except ImportError as exc:
        raise MissingTypeError(module="numpy", name="ndarray") from exc


class LenientDecoder(Decoder):
    """Gives a placeholder for each part that may not, or can't, be loaded, if its bytes are sound.

    It remembers what it decoded last: a refused object's parts, which are decoded once.
    """

    __slots__ = ("_decoded",)

    _refusals: tuple[type[UnloadableValueError], ...] = (
        BlockedTypeError,
        MissingTypeError,
        ChangedClassError,
    )

    def load(self, data: bytes) -> Any:
        """The value in these bytes."""
        self._decoded: Any = super().load(data)
        return self._decoded

    def _hook(self, code: int, data: bytes) -> Any:
        self._decoded = None
        try:
            return super()._hook(code, data)
        except self._refusals as exc:
            self._failure = None
            reason = str(exc)
        # An object is refused after its own parts were decoded, and before any others are.
        return placeholder_of(code, data, self._decoded, reason)


def decoder_of(rules: TypeRules) -> Decoder:
    """A decoder under these rules."""
    return LenientDecoder(rules) if rules.lenient else Decoder(rules)


class FailureFinder(LenientDecoder):
    """Gives a placeholder for each part that fails, whatever the reason."""

    __slots__ = ()

    _refusals = (UnloadableValueError,)
