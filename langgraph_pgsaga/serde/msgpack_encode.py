"""Values to stored msgpack, refusing what could not be loaded again.

Two passes. The first leaves all plain containers to ormsgpack. Only where that
fails, on text with lone surrogates or on keys other than text, a second pass
walks the containers in Python and replaces what msgpack can't hold.

Kept exactly: every type in `msgpack_forms`, data classes and models by their
fields, any key of a dict. Changed, as LangGraph's serializer does it: a tuple in a
plain list or dict becomes a list (inside an object it stays a tuple); a
subclass of str, int, float, bytes, list, dict or tuple becomes its base;
bytearray and memoryview become bytes; an exception becomes its repr; a
model's private attributes and excluded fields are left out; a tzinfo that is
neither a timezone nor a ZoneInfo becomes its offset.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from enum import Enum
from typing import Any

import ormsgpack
from ormsgpack import Ext

from langgraph_pgsaga.errors import BlockedTypeError, SerializationError, UnstorableValueError
from langgraph_pgsaga.serde.msgpack_decode import PAIRS, TEXT, decoder_of
from langgraph_pgsaga.serde.msgpack_depth import (
    DEEP,
    MAX_CONTAINER_DEPTH,
    MAX_OBJECT_DEPTH,
    most_containers,
)
from langgraph_pgsaga.serde.msgpack_forms import (
    EXACT,
    PLAIN,
    SCALARS,
    InexactValueError,
    Writer,
    shown,
    writer_for,
)
from langgraph_pgsaga.serde.type_rules import TypeRules
from langgraph_pgsaga.serde.value_path import path_where

_MOST_CLASSES = 2000


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
        with contextlib.suppress(_WalkNeededError):
            return self._pass(value, walk=False)
        return self._pass(value, walk=True)

    def _pass(self, value: Any, *, walk: bool) -> bytes:
        encoder = Encoder(self, walk=walk)
        try:
            return encoder.pack(value, PLAIN)
        except UnstorableValueError as exc:
            refusal = _with_place(exc, value, encoder.culprit)
        except RecursionError:
            refusal = UnstorableValueError(where="the value", problem=_TOO_DEEP)
        raise refusal


class Encoder:
    """One pass over one value. It holds the error that ormsgpack would hide."""

    __slots__ = ("_depth", "_failure", "_walk", "_writers", "culprit")

    def __init__(self, writers: Writers, *, walk: bool) -> None:
        self._writers = writers
        self._walk = walk
        self._depth = 0
        self._failure: BaseException | None = None
        self.culprit: Any = None

    @property
    def is_lenient(self) -> bool:
        """Whether placeholders may be written."""
        return self._writers.rules.lenient

    def pack(self, value: Any, option: int = EXACT) -> bytes:
        """The msgpack of a part; the default keeps the tuples in it."""
        if self._depth > DEEP and _nests_deeper(value, most_containers(self._depth)):
            raise UnstorableValueError(where="the value", problem=_TOO_DEEP)
        if isinstance(value, _CONTAINERS):
            with contextlib.suppress(ormsgpack.MsgpackEncodeError):
                # Most parts hold no objects; asking about one would end this.
                return ormsgpack.packb(value, None, option)
            value = _own(value)
        if self._walk:
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
            self._check_depth()
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
            problem = f"{shown(type(value))} raised {type(exc).__name__} when asked for its fields"
            self._fail(UnstorableValueError(where="the value", problem=problem), value)
            raise
        except BaseException as exc:
            self._fail(exc, value)
            raise
        finally:
            self._depth -= 1

    def _check_depth(self) -> None:
        if self._depth > MAX_OBJECT_DEPTH:
            raise UnstorableValueError(where="the value", problem=_TOO_DEEP)

    def _fail(self, failure: BaseException, culprit: Any) -> None:
        if self._failure is None:
            self._failure, self.culprit = failure, culprit

    def _first(self, value: Any) -> Any:
        """Write an instance of a class met for the first time, and load it again."""
        cls = type(value)
        try:
            write = writer_for(cls, self._writers.rules)
        except BlockedTypeError:
            raise self._refusal(value) from None
        written = write(self, value)
        if isinstance(written, Ext):
            self.try_load(written, cls)
        if len(self._writers.known) >= _MOST_CLASSES:  # of functions that make classes
            self._writers.known.clear()
        self._writers.known[cls] = write
        return written

    def _refusal(self, value: Any) -> UnstorableValueError:
        """Of a class that isn't allowed: says to allow it if that helps."""
        cls = type(value)
        try:
            Encoder(Writers(self._writers.rules.adding([cls])), walk=True).pack(value)
        except InexactValueError as exc:
            if exc.cls is cls:
                return exc
        except SerializationError:
            pass  # of a part, which comes next
        problem = (
            f"its type {shown(cls)} isn't a known type, nor a data class that may be loaded. "
            f"Pass allow=[{cls.__qualname__}] (the class itself) to the saver"
        )
        return UnstorableValueError(where="the value", problem=problem)

    def try_load(self, written: Ext, cls: type) -> Any:
        """What loading gives; refuse what was written if it can't be loaded."""
        try:
            return decoder_of(self._writers.rules).load(ormsgpack.packb(written))
        except SerializationError as exc:
            problem = f"{shown(cls)} can't be loaded again: {exc}"
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
        is_list = isinstance(value, list) or (type(value) is tuple and option == PLAIN)
        if not is_list:
            return value
        return [self._prepared(item, option, depth + 1) for item in value]

    def _prepared_dict(self, value: dict[Any, Any], option: int, depth: int) -> Any:
        if all(map(_is_plain_key, value)):
            return {k: self._prepared(v, option, depth + 1) for k, v in value.items()}
        self._depth += 1
        self._check_depth()
        body = b"\x92" + self.pack(list(value)) + self.pack(list(value.values()), option)
        written = Ext(PAIRS, body)
        self._depth -= 1
        self.try_load(written, dict)
        return written


_TOO_DEEP = (
    "it refers to itself, or nests too deeply "
    f"(at most {MAX_CONTAINER_DEPTH} containers or {MAX_OBJECT_DEPTH} objects in one another)"
)


_CONTAINERS = (list, dict, tuple)


def _own(value: Any) -> Any:
    """The value with plain containers of its own, each copied in one go.

    While the hook runs, other threads do: LangGraph's nodes go on while a checkpoint is stored.
    ormsgpack counts on containers to stay as they are, and reads beyond the end of a list
    that one of them shortens.
    """
    if isinstance(value, list):
        items = list.copy(value)
        return list(map(_own, items)) if _has_containers(items) else items
    if isinstance(value, dict):
        mapping = dict(value) if type(value) is dict else dict(dict.items(value))
        if _has_containers(mapping.values()):
            return dict(zip(mapping, map(_own, mapping.values()), strict=True))
        return mapping
    if type(value) is tuple:  # of the others the hook asks
        return tuple(map(_own, value))
    return value


def _has_containers(items: Iterable[Any]) -> bool:
    return any(issubclass(kind, _CONTAINERS) for kind in set(map(type, items)))


def _text(value: str) -> str | Ext:
    try:
        value.encode()
    except UnicodeEncodeError:
        return Ext(TEXT, ormsgpack.packb(value.encode("utf-8", "surrogatepass")))
    return value


def _nests_deeper(value: Any, most: int) -> bool:
    """Whether more containers than this stand in one another, objects not entered."""
    waiting = [(value, 0)]
    while waiting:
        part, depth = waiting.pop()
        inner: Iterable[Any] | None = None
        if isinstance(part, list | tuple):
            inner = part
        elif isinstance(part, dict) and all(map(_is_plain_key, part)):
            inner = part.values()
        if inner is not None:
            if depth == most:
                return True
            waiting.extend((one, depth + 1) for one in inner)
    return False


def _is_plain_key(key: Any) -> bool:
    """Whether ormsgpack keeps the key as it is; it makes text of dates and the like."""
    kind = type(key)
    if kind is tuple:
        return all(_is_plain_key(part) for part in key)
    if kind is int:
        return bool(-(2**63) <= key < 2**64)
    if isinstance(key, str) and not isinstance(key, Enum):
        return isinstance(_text(key), str)
    return kind in SCALARS


def _with_place(exc: UnstorableValueError, root: Any, culprit: Any) -> UnstorableValueError:
    """The error with the path to its cause, made of names only, never of values."""
    path = "" if culprit is None else path_where(root, lambda found: found is culprit)
    return UnstorableValueError(where=f"value{path}" if path else exc.where, problem=exc.problem)
