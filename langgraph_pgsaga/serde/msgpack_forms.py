"""How instances of each class are written: as which code, and from which parts.

`writer_for` finds it once per class, and refuses a class that couldn't be
loaded again under the rules.
"""

from __future__ import annotations

import dataclasses
import decimal
import functools
import inspect
import ipaddress
import pathlib
import re
import sys
import uuid
from collections import deque
from collections.abc import Callable, Collection
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from enum import Enum, Flag
from typing import TYPE_CHECKING, Any, TypeAlias
from zoneinfo import ZoneInfo

import ormsgpack
from langchain_core.messages import BaseMessage
from langgraph.store.base import Item, SearchItem
from langgraph.types import Send
from ormsgpack import Ext
from pydantic import AnyUrl, BaseModel, SecretBytes, SecretStr

from langgraph_pgsaga._langgraph import DeltaSnapshot
from langgraph_pgsaga._same import is_same
from langgraph_pgsaga.errors import MissingTypeError, UnstorableValueError
from langgraph_pgsaga.serde import live_classes
from langgraph_pgsaga.serde.data_classes import keeps_in_dict
from langgraph_pgsaga.serde.msgpack_decode import (
    ARRAY,
    BIG_INT,
    DELTA,
    FIELDS,
    GIVEN,
    KEYWORDS,
    MARK,
    MEMBER,
    METHOD,
    MODEL_V1,
    MODEL_V2,
    MOMENT,
    MORE,
    NUMPY_SCALAR,
    POSITIONAL,
    SINGLE,
    TUPLE,
    UNSET,
)
from langgraph_pgsaga.serde.msgpack_known import NUMPY_KINDS, is_costly_pattern
from langgraph_pgsaga.serde.placeholder import Placeholder, PlaceholderMessage, is_unchanged
from langgraph_pgsaga.serde.type_rules import TypeRules, is_known, is_named_tuple, key_of, v1_model

if TYPE_CHECKING:
    from langgraph_pgsaga.serde.msgpack_encode import Encoder

PLAIN = (
    ormsgpack.OPT_PASSTHROUGH_BIG_INT
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_UUID
)
EXACT = PLAIN | ormsgpack.OPT_PASSTHROUGH_TUPLE
SCALARS = frozenset({str, int, float, bool, type(None), bytes})

Writer: TypeAlias = Callable[["Encoder", Any], Any]
Maker: TypeAlias = Callable[[type[Any]], Writer]


def writer_for(cls: type[Any], rules: TypeRules) -> Writer:
    """How instances of the class are written, if they may be loaded again.

    Raises BlockedTypeError where they may not, UnstorableValueError where they can't.
    """
    if cls is Placeholder or cls is PlaceholderMessage:
        return _placeholder
    make, is_named = _form(cls)
    if not is_named:
        return make(cls)
    _demand_loadable(cls, rules)
    write = make(cls)
    return write if rules.is_listed(*key_of(cls)) else _while_named(cls, write, rules)


def _while_named(cls: type[Any], write: Writer, rules: TypeRules) -> Writer:
    """Refuses what it is given once the class's name stands for another one: in a notebook."""
    module, name = key_of(cls)
    names = live_classes.namespace_of(sys.modules.get(module))
    if names.get(name) is not cls:  # nested in another, or without a name
        return write

    def write_named(encoder: Encoder, value: Any) -> Any:
        if names.get(name) is not cls:
            _demand_loadable(cls, rules)
        return write(encoder, value)

    return write_named


def _form(cls: type[Any]) -> tuple[Maker, bool]:
    for base, make in _NATIVE_FORMS:
        if cls is base:
            return make, False
    for test, make in _NAMED_TESTS:
        if test(cls):
            return make, True
    if is_numpy_scalar(cls):
        return _numpy_scalar, False
    for base, make in _NAMED_FORMS:
        if issubclass(cls, base):
            return make if is_known(cls) else _checked(make), True
    for base, make in _BASE_FORMS:
        if issubclass(cls, base):
            return make, False
    if dataclasses.is_dataclass(cls):
        return _dataclass, True
    raise UnstorableValueError(
        where="the value",
        problem=f"it is of type {shown(cls)}, which can't be loaded again. "
        "Keep such objects out of the state, or keep what they are made from",
    )


def is_numpy_scalar(cls: type) -> bool:
    """Whether its objects are numpy's scalars, of which some are bytes, text or numbers, too."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and issubclass(cls, numpy.generic)


def shown(cls: type) -> str:
    """The class's full name, for messages."""
    return f"{cls.__module__}.{cls.__qualname__}"


def _demand_loadable(cls: type[Any], rules: TypeRules) -> None:
    if cls is re.Pattern:
        return
    try:
        found = rules.found_for(cls)
    except MissingTypeError:
        why = "can't be found by its name"
        todo = "Move the class to the top level of its module"
    else:
        if found is cls:
            return
        why = "isn't what its name stands for any more"
        todo = "If the class was defined anew, make the value anew, too"
    raise UnstorableValueError(where="the value", problem=f"its type {shown(cls)} {why}. {todo}")


def _named(code: int, parts: Callable[[Any], Any], tail: str | None = None) -> Maker:
    """Written as module, name, parts and, for some codes, a fourth element."""

    def make(cls: type[Any]) -> Writer:
        key = ("re", "compile") if cls is re.Pattern else key_of(cls)
        return _write_named(code, key, parts, tail)

    return make


def _write_named(
    code: int, key: tuple[str, str], parts: Callable[[Any], Any], tail: Any = None
) -> Writer:
    end = b"" if tail is None else ormsgpack.packb(tail)
    head = _head(key, with_tail=bool(end))

    def write(encoder: Encoder, value: Any) -> Ext:
        return Ext(code, head + encoder.pack(parts(value)) + end)

    return write


def _head(key: tuple[str, str], *, with_tail: bool) -> bytes:
    array = b"\x94" if with_tail else b"\x93"  # of four, or of three
    return array + ormsgpack.packb(key[0]) + ormsgpack.packb(key[1])


def _bare(code: int, parts: Callable[[Any], Any], option: int = EXACT) -> Maker:
    """Written without a name: the code says it all."""

    def write(encoder: Encoder, value: Any) -> Ext:
        return Ext(code, encoder.pack(parts(value), option))

    return lambda _: write


def _checked(make: Maker) -> Maker:
    """Each value loaded again: a subclass may hold more than the form of its base."""

    def make_checked(cls: type[Any]) -> Writer:
        write = make(cls)

        def write_checked(encoder: Encoder, value: Any) -> Any:
            written: Ext = write(encoder, value)
            try:
                is_kept = _is_kept(value, encoder.try_load(written, cls))
            except UnstorableValueError:
                is_kept = False
            if is_kept:
                return written
            raise InexactValueError(cls)

        return write_checked

    return make_checked


class InexactValueError(UnstorableValueError):
    """The form of the base class doesn't hold all of a value; private to the encoder."""

    def __init__(self, cls: type[Any]) -> None:
        self.cls = cls
        problem = (
            f"its type {shown(cls)} doesn't come back equal. "
            "Keep what it is made from instead, as text, numbers or a dataclass"
        )
        super().__init__(where="the value", problem=problem)


def _is_kept(value: Any, found: Any) -> bool:
    if type(found) is not type(value) or _attributes(found) != _attributes(value):
        return False
    try:
        is_equal = bool(value == found)
    except Exception:  # whatever an == may raise
        is_equal = False
    return is_equal or is_same(value, found)


def _attributes(value: Any) -> set[str]:
    """The names of what was set on the object, beside what its base class holds."""
    cls = type(value)
    return {name for name in getattr(value, "__dict__", ()) if not _is_derived(cls, name)}


def _base(convert: Callable[[Any], Any]) -> Maker:
    """Written as a plain value."""
    return lambda _: lambda _, value: convert(value)


def _collection(cls: type[Any]) -> Writer:
    """A set. Items that aren't plain might have lost their hash when loaded."""
    write_set = _write_named(SINGLE, key_of(cls), list)

    def write(encoder: Encoder, value: Any) -> Ext:
        written: Ext = write_set(encoder, value)
        if not SCALARS.issuperset(map(type, value)):
            encoder.try_load(written, cls)
        return written

    return write


def _tail(
    mark: bytes | None,
    unset: Collection[str] = (),
    *,
    given: Collection[str] | None = None,
    more: bool = False,
) -> bytes:
    """The fourth element of an object's record."""
    about: dict[str, Any] = {}
    if mark is not None:
        about[MARK] = mark
    if unset:
        about[UNSET] = sorted(unset)
    if given is not None:
        about[GIVEN] = sorted(given)
    if more:
        about[MORE] = True
    return ormsgpack.packb(about or FIELDS)


def _model(cls: type[BaseModel]) -> Writer:
    """A model by its own fields, each as it is: no dump, so nothing loses its type."""
    kept = [name for name, field in cls.model_fields.items() if field.exclude is not True]
    names, count = frozenset(kept), len(cls.model_fields)
    head, mark = _head(key_of(cls), with_tail=True), live_classes.mark_of(cls)
    whole = _tail(mark)
    # A message's bytes are what tells it from others, so they hang on its content alone.
    tells_given = not issubclass(cls, BaseMessage)

    def write(encoder: Encoder, value: BaseModel) -> Ext:
        fields, extra = value.__dict__, value.__pydantic_extra__
        tail = whole
        if extra or len(fields) != count or not names.issuperset(fields):
            fields = {k: v for k, v in fields.items() if k in names} | (extra or {})
            if not names <= fields.keys():
                tail = _tail(mark, names - fields.keys())
        if tells_given and not fields.keys() <= value.__pydantic_fields_set__:
            given = value.__pydantic_fields_set__ & fields.keys()
            tail = _tail(mark, names - fields.keys(), given=given)
        return Ext(MODEL_V2, head + encoder.pack(fields) + tail)

    return write


def _dataclass(cls: type[Any]) -> Writer:
    """A dataclass by its fields, each as it is."""
    order = [field.name for field in dataclasses.fields(cls)]
    names = frozenset(order)
    head, mark = _head(key_of(cls), with_tail=True), live_classes.mark_of(cls)
    whole = _tail(mark)
    in_dict, has_dict = keeps_in_dict(cls, order), bool(cls.__dictoffset__)
    has_slots = _has_other_slots(cls, names)
    is_open = getattr(cls, "__pydantic_config__", {}).get("extra") == "allow"

    def write(encoder: Encoder, value: Any) -> Ext:
        state = value.__dict__ if has_dict else _NOTHING
        tail = whole
        if in_dict and not has_slots and state.keys() == names:
            fields = {name: state[name] for name in order}
        else:
            # A field that was never set is left out.
            found = ((name, getattr(value, name, dataclasses.MISSING)) for name in order)
            fields = {name: item for name, item in found if item is not dataclasses.MISSING}
            more = has_slots or (bool(state) and _has_more(value, names))
            if is_open:
                fields, more = {**state, **fields}, False
            if more or not names <= fields.keys():
                tail = _tail(mark, names - fields.keys(), more=more)
        return Ext(KEYWORDS, head + encoder.pack(fields) + tail)

    return write


_NOTHING: dict[str, Any] = {}


def _has_other_slots(cls: type, names: frozenset[str]) -> bool:
    """Whether objects have slots for what isn't a field."""
    kept = {*names, "__dict__", "__weakref__"}
    found = (base.__dict__.get("__slots__", ()) for base in cls.__mro__)
    return any(not kept.issuperset([one] if isinstance(one, str) else one) for one in found)


def _has_more(value: Any, names: frozenset[str]) -> bool:
    """Whether an object has attributes beside its fields, which its class made."""
    cls = type(value)
    return any(name not in names and not _is_derived(cls, name) for name in value.__dict__)


def _is_derived(cls: type, name: str) -> bool:
    if name == "__orig_class__":  # typing's, of a generic class
        return True
    return isinstance(inspect.getattr_static(cls, name, None), functools.cached_property)


def _named_tuple(cls: type[Any]) -> Writer:
    names: tuple[str, ...] = cls._fields
    mark = live_classes.mark_of(cls)
    tail = FIELDS if mark is None else {MARK: mark}
    return _write_named(
        KEYWORDS, key_of(cls), lambda value: dict(zip(names, value, strict=True)), tail
    )


def _model_v1(cls: type[Any]) -> Writer:
    names = frozenset(cls.__fields__)
    head, mark = _head(key_of(cls), with_tail=True), live_classes.mark_of(cls)

    def write(encoder: Encoder, value: Any) -> Ext:
        fields = dict(value.__dict__)
        given = None if fields.keys() <= value.__fields_set__ else value.__fields_set__
        tail = _tail(mark, names - fields.keys(), given=given)
        return Ext(MODEL_V1, head + encoder.pack(fields) + tail)

    return write


def _parts(value: Enum) -> list[str | bytes] | None:
    """The names of the flags that a combination is made of, and its bits that have none."""
    if not isinstance(value, Flag) or type(value._value_) is not int or value._value_ < 0:
        return None
    members, rest = list(value), value._value_
    for member in members:
        rest &= ~member._value_
    if not members or (len(members) == 1 and not rest):
        return None
    names: list[str | bytes] = [str(member._name_) for member in members]
    return [*names, rest.to_bytes(rest.bit_length() // 8 + 1, "big")] if rest else names


def _enum(cls: type[Enum]) -> Writer:
    """A member by its value, if that leads back to it, and by its name where that is a number:
    `auto` gives members other numbers once one was inserted."""
    mark = live_classes.mark_of(cls)
    about = {} if mark is None else {MARK: mark}
    writers: dict[str | int | None, Writer] = {}
    sure: set[int] = set()

    def writer_of(told: str | list[str | bytes] | None) -> Writer:
        tail = about if told is None else {**about, MEMBER: told}
        return _write_named(SINGLE, key_of(cls), lambda value: value._value_, tail or None)

    def write_member(encoder: Encoder, value: Enum) -> Ext:
        is_told = type(value._value_) is int and value._name_ in cls._member_map_
        key: str | int | None = value._name_ if is_told else None
        if isinstance(value, Flag):
            key = value._value_
        write = writers.get(key)
        if write is None:
            told = value._name_ if is_told else None
            write = writers[key] = writer_of(_parts(value) or told)
        written: Ext = write(encoder, value)
        if type(value._value_) not in (str, int) and id(value) not in sure:
            if encoder.try_load(written, type(value)) is not value:
                problem = f"{shown(type(value))} doesn't give back each member for its value"
                raise UnstorableValueError(where="the value", problem=problem)
            sure.add(id(value))
        return written

    return write_member


def _placeholder(encoder: Encoder, value: Placeholder | PlaceholderMessage) -> Ext:
    """As what it came from."""
    problem = "it is a placeholder for a value that wasn't loaded, which "
    if not encoder.is_lenient:
        problem += "only a saver with lenient=True stores again"
    elif value.stored is None:
        problem += "didn't come from a saver"
    else:
        written = Ext(*value.stored)
        if is_unchanged(value, encoder.try_load(written, type(value))):
            return written
        problem += "was changed meanwhile. Put a value of your own in its place"
    raise UnstorableValueError(where="the value", problem=problem)


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
    zone = _storable_zone(value)
    return [*key_of(type(value)), [*numbers, value.microsecond], zone, value.fold]


def _storable_zone(value: datetime | time) -> tzinfo | None:
    """The zone; one that can't be stored by a name or an offset of its own as the value's."""
    zone = value.tzinfo
    if zone is None or type(zone) is timezone or type(zone) is ZoneInfo:
        return zone
    offset = value.utcoffset()
    if offset is not None:
        return timezone(offset)
    # A time has none where its zone's depends on the date: without the zone it were another.
    return zone if isinstance(value, time) else None


def _time_fields(value: time) -> dict[str, Any]:
    names = ("hour", "minute", "second", "microsecond", "fold")
    return {**{name: getattr(value, name) for name in names}, "tzinfo": _storable_zone(value)}


def _zone_key(value: ZoneInfo) -> str:
    if value.key is None:
        raise UnstorableValueError(
            where="the value", problem="a ZoneInfo made from a file has no name to load it by"
        )
    return value.key


def _pattern(value: re.Pattern[Any]) -> list[Any]:
    if is_costly_pattern(value.pattern):
        raise UnstorableValueError(
            where="the value", problem="it takes too long to compile the pattern again"
        )
    return [value.pattern, value.flags & ~int(re.DEBUG)]


def _send(value: Send) -> list[Any]:
    timeout = getattr(value, "timeout", None)
    return [value.node, value.arg] if timeout is None else [value.node, value.arg, timeout]


def _item(value: Item) -> dict[str, Any]:
    names = Item.__slots__ + (("score",) if isinstance(value, SearchItem) else ())
    return {name: getattr(value, name) for name in names}


def _big_int(value: int) -> bytes:
    return int(value).to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _repr(value: BaseException) -> str:
    try:
        text = repr(value)
    except Exception:  # its own may fail, too
        text = f"<{shown(type(value))}>"
    return text.encode("utf-8", "backslashreplace").decode()


def _numpy_dtype(value: Any) -> str:
    name: str = value.dtype.str
    is_plain = value.dtype.kind in NUMPY_KINDS and value.dtype.itemsize > 0
    if is_plain and sys.modules["numpy"].dtype(name) == value.dtype:
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
    if issubclass(cls, bytes):
        return _bare(NUMPY_SCALAR, lambda value: [f"|S{len(value)}", bytes(value)])(cls)
    return _bare(NUMPY_SCALAR, lambda value: [_numpy_dtype(value), value.tobytes()])(cls)


# In the order they are tried. First, classes that are always themselves:
_NATIVE_FORMS: tuple[tuple[type, Maker], ...] = (
    (tuple, _bare(TUPLE, list)),
    (int, _bare(BIG_INT, _big_int)),
    (DeltaSnapshot, _bare(DELTA, lambda value: value.value, PLAIN)),
)
# then what is told by more than one base class:
_NAMED_TESTS: tuple[tuple[Callable[[type], bool], Maker], ...] = (
    (lambda cls: issubclass(cls, Enum), _enum),
    (is_named_tuple, _named_tuple),
    (lambda cls: v1_model() in cls.__mro__, _model_v1),
    (lambda cls: key_of(cls) == ("numpy", "ndarray"), _array),
    (lambda cls: key_of(cls) == ("uuid_utils", "UUID"), _named(SINGLE, lambda v: v.hex)),
    (lambda cls: issubclass(cls, BaseModel), _model),
)
# then classes whose subclasses are named, so they have to be allowed:
_NAMED_FORMS: tuple[tuple[Any, Maker], ...] = (
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
    (re.Pattern, _named(POSITIONAL, _pattern)),
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
