"""Which classes a stored value may become, and where they are looked up.

A row names a class by module and qualified name. It may become

1. a known type: LangGraph's own list, and the inert ones of `_ALSO_KNOWN`;
2. an allowed type: what the application passed as `allow`;
3. unless strict, a data class (dataclass, pydantic model, enum, named tuple;
   no exception, no runnable) that the application has imported already.

Only 1 and 2 are imported when needed: they are our word and the application's.
The row's own word never imports a module, and never calls a function. A data class that
its module doesn't name (one made inside a function) is found among the live ones.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from collections.abc import Collection, Iterable
from enum import Enum
from typing import Any, TypeAlias

from langchain_core.runnables import Runnable
from pydantic import BaseModel

from langgraph_pgsaga._langgraph import SAFE_MSGPACK_TYPES
from langgraph_pgsaga.errors import BlockedTypeError, InvalidArgumentError, MissingTypeError
from langgraph_pgsaga.serde import live_classes

Key: TypeAlias = tuple[str, str]

_ALSO_KNOWN: frozenset[Key] = frozenset(
    {
        ("builtins", "complex"),
        ("builtins", "slice"),
        ("langgraph.checkpoint.base.id", "UUID"),
        ("langgraph.store.base", "SearchItem"),
        ("numpy", "ndarray"),
        ("pathlib", "PurePosixPath"),
        ("pathlib", "PureWindowsPath"),
        ("pathlib._local", "PurePosixPath"),
        ("pathlib._local", "PureWindowsPath"),
        ("pydantic.networks", "AnyUrl"),
        ("pydantic.networks", "AnyHttpUrl"),
        ("pydantic.networks", "HttpUrl"),
        ("pydantic.types", "SecretBytes"),
        ("pydantic.types", "SecretStr"),
        ("uuid_utils", "UUID"),
    }
)
# ("re", "compile") is a function: the decoder handles it by itself.
_KNOWN = frozenset((k[0], k[1]) for k in SAFE_MSGPACK_TYPES | _ALSO_KNOWN) - {("re", "compile")}
# Python 3.13 moved its path classes; both names mean the same.
_MOVED = {"pathlib._local": "pathlib"}


def key_of(cls: type) -> Key:
    """The name under which a class is stored."""
    return cls.__module__, cls.__qualname__


def v1_model() -> type | None:
    """pydantic's old base class, if this process uses it."""
    found = getattr(sys.modules.get("pydantic.v1"), "BaseModel", None)
    return found if isinstance(found, type) else None


def is_named_tuple(cls: type) -> bool:
    """Whether the class is a tuple with field names."""
    return tuple in cls.__mro__ and type(getattr(cls, "_fields", None)) is tuple


def is_data_class(cls: type) -> bool:
    """Whether instances hold named data only.

    Exceptions don't count, nor do runnables: a model or tool may connect to
    somewhere as soon as it is made.
    """
    found = _judged.get(cls)
    if found is None:
        if len(_judged) >= _MOST_JUDGED:  # of functions that make classes
            _judged.clear()
        found = _judged[cls] = _is_data_class(cls)
    return found


_judged: dict[type, bool] = {}
_MOST_JUDGED = 2000


def _is_data_class(cls: type) -> bool:
    bases = cls.__mro__
    if BaseException in bases or Runnable in bases:
        return False
    return (
        BaseModel in bases
        or Enum in bases
        or v1_model() in bases
        or dataclasses.is_dataclass(cls)
        or is_named_tuple(cls)
    )


class TypeRules:
    """Resolves the names in stored values to classes. Immutable, safe to share.

    `lenient`: what these rules refuse is loaded as a placeholder.
    """

    def __init__(
        self, allow: Iterable[type | tuple[str, ...]], *, strict: bool, lenient: bool = False
    ) -> None:
        self.strict = strict
        self.lenient = lenient
        self.allow = tuple(dict.fromkeys(allow))
        self._keys = frozenset(_allowed_key(entry) for entry in self.allow)
        # Classes found so far; those passed as objects need no looking up.
        self._found: dict[Key, type] = {
            key_of(entry): entry for entry in self.allow if isinstance(entry, type)
        }

    def resolve(
        self, module: str, name: str, mark: bytes | None = None, fields: Collection[str] = ()
    ) -> type:
        """The class of this name; if it has a mark, no name led to it, and it is found by that.

        Raises MissingTypeError if there is none, BlockedTypeError if there is
        something that a stored value may not become.
        """
        found = self._found.get((module, name))
        if found is not None:
            return found
        try:
            return self.named(module, name)
        except MissingTypeError:
            found = None if mark is None else live_classes.find(module, name, mark, fields)
            if found is None and "[" in name:
                # A generic model, whose kind isn't in use here: they are equal all the same.
                return self.resolve(module, name.partition("[")[0])
            if found is None:
                raise
        if not is_data_class(found):
            raise BlockedTypeError(module=module, name=name)
        return found

    def named(self, module: str, name: str) -> type:
        """The class that this name leads to; raises as `resolve`."""
        found = self._found.get((module, name))
        if found is not None:
            return found
        if self.is_listed(module, name):
            found = _import_class(module, name)
            self._found[module, name] = found
            return found
        if self.strict:
            raise BlockedTypeError(module=module, name=name)
        return _imported_data_class(module, name)

    def found_for(self, cls: type) -> type:
        """The class that an instance of this one will become: itself, if all is well.

        Raises as `resolve`.
        """
        module, name = key_of(cls)
        try:
            return self.named(module, name)
        except MissingTypeError:
            if module not in sys.modules or not is_data_class(cls):
                raise
        live_classes.mark(cls)
        return cls

    def is_listed(self, module: str, name: str) -> bool:
        """Whether the class is known or allowed by name.

        LangGraph lists a nested class by its last name only.
        """
        key = module, name
        return key in _KNOWN or key in self._keys or (module, _last(name)) in self._keys

    def adding(self, extra: Iterable[type | tuple[str, ...]]) -> TypeRules:
        """These rules with more allowed types; the same object if nothing is new."""
        extra = tuple(extra)
        new = {_allowed_key(entry) for entry in extra} - self._keys - _KNOWN
        if not new:
            return self
        return TypeRules((*self.allow, *extra), strict=self.strict, lenient=self.lenient)


def is_known(cls: type) -> bool:
    """Whether the class is one of the known types."""
    return key_of(cls) in _KNOWN or cls is re.Pattern


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _allowed_key(entry: Any) -> Key:
    if isinstance(entry, type):
        return key_of(entry)
    if isinstance(entry, tuple) and len(entry) == 2 and all(type(part) is str for part in entry):
        return entry[0], entry[1]
    raise InvalidArgumentError(
        argument="allow",
        problem=f"{entry!r} is neither a class nor a (module, name) tuple. Pass the class itself",
    )


def _import_class(module: str, name: str) -> type:
    try:
        source = importlib.import_module(_MOVED.get(module, module))
    except ImportError as exc:
        raise MissingTypeError(module=module, name=name) from exc
    head, _, rest = name.partition(".")
    found = _inside(getattr(source, head, None), rest)
    return _as_class(found, module, name)


def _imported_data_class(module: str, name: str) -> type:
    source = sys.modules.get(module)
    if source is None:
        raise MissingTypeError(module=module, name=name)
    names = live_classes.namespace_of(source)
    # A generic's name, "Box[a.B]", has dots of its own.
    found = names.get(name)
    if found is None:
        head, _, rest = name.partition(".")
        found = _inside(names.get(head), rest)
    cls = _as_class(found, module, name)
    if not is_data_class(cls):
        raise BlockedTypeError(module=module, name=name)
    return cls


def _inside(found: object, rest: str) -> object:
    for part in filter(None, rest.split(".")):
        if not isinstance(found, type):
            return None
        found = vars(found).get(part)
    return found


def _as_class(found: object, module: str, name: str) -> type:
    if found is None:
        raise MissingTypeError(module=module, name=name)
    if not isinstance(found, type):
        raise BlockedTypeError(module=module, name=name)
    return found
