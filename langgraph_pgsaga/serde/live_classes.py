"""Classes that no name of their module leads to: made inside functions, or by calls.

When one is stored it gets a mark, by which this process finds the same class again for as
long as it lives. Where the mark says nothing, in another process, the class is looked for
among the subclasses of all there are: the newest of the name whose fields are the stored ones.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Collection, Iterator
from enum import Enum
from typing import Any, NamedTuple

from pydantic import BaseModel

from langgraph_pgsaga import _fork

# What was found is looked for again after so long, or once there are other classes.
_FRESH_SECONDS = 0.25
_MOST_REMEMBERED = 10_000

# Of `type` itself: a metaclass may say something else.
_subclasses = type.__subclasses__
_module_of = type.__dict__["__module__"].__get__
_name_of = type.__dict__["__qualname__"].__get__


class _Marking:
    """One class at a time gets its mark."""

    def __init__(self) -> None:
        self.after_fork()
        _fork.watch(self)

    def after_fork(self) -> None:
        self.lock = threading.Lock()


_marking = _Marking()
_marks: weakref.WeakKeyDictionary[type, bytes] = weakref.WeakKeyDictionary()
_marked: weakref.WeakValueDictionary[bytes, type] = weakref.WeakValueDictionary()


class _Search(NamedTuple):
    at: float
    stamp: tuple[int, ...]
    found: tuple[weakref.ref[type], ...]


_searches: dict[tuple[str, str], _Search] = {}


def mark(cls: type) -> bytes:
    """The mark of the class; it gets one if it has none."""
    with _marking.lock:
        found = _marks.get(cls)
        if found is None:
            found = _marks[cls] = os.urandom(8)
            _marked[found] = cls
        return found


def mark_of(cls: type) -> bytes | None:
    """The mark of the class, if it has one."""
    return _marks.get(cls)


def find(module: str, name: str, mark: bytes, fields: Collection[str]) -> type | None:
    """The class of this module and qualified name that the mark, or else the fields, mean.

    In a notebook the newest counts, whatever the mark says: there, functions are defined anew.
    """
    source = sys.modules.get(module)
    if source is None:
        return None
    is_notebook = namespace_of(source).get("__file__") is None
    marked = None if is_notebook else _marked.get(mark)
    if marked is not None and (_module_of(marked), _name_of(marked)) == (module, name):
        return marked
    found = _newest(_search(module, name), fields)
    if found is not None:
        _marked[mark] = found
    return found


def namespace_of(source: object) -> dict[str, Any]:
    """A module's names, without waking a lazy module or a module's `__getattr__`."""
    try:
        names = object.__getattribute__(source, "__dict__")
    except AttributeError:
        return {}
    return names if isinstance(names, dict) else {}


def _newest(classes: list[type], fields: Collection[str]) -> type | None:
    wanted = set(fields)
    for cls in reversed(classes):
        if _field_names(cls) == wanted:
            return cls
    return classes[-1] if classes else None


def _field_names(cls: type) -> set[str]:
    for name in ("__pydantic_fields__", "__fields__", "__dataclass_fields__", "_fields"):
        found = getattr(cls, name, None)
        if isinstance(found, dict | tuple):
            return set(found)
    return set()


def _search(module: str, name: str) -> list[type]:
    """The live classes of the name, in the order they were made."""
    stamp = tuple(len(_subclasses(root)) for root in (object, BaseModel, Enum, tuple))
    known = _searches.get((module, name))
    now = time.monotonic()
    if known is None or known.stamp != stamp or now - known.at > _FRESH_SECONDS:
        matching = (cls for cls in _all_classes() if _name_of(cls) == name)
        refs = tuple(weakref.ref(cls) for cls in matching if _module_of(cls) == module)
        if len(_searches) >= _MOST_REMEMBERED:
            _searches.clear()
        known = _searches[module, name] = _Search(now, stamp, refs)
    return [cls for ref in known.found if (cls := ref()) is not None]


def _all_classes() -> Iterator[type]:
    seen: set[type] = set()
    waiting = deque([object])
    while waiting:
        for cls in _subclasses(waiting.popleft()):
            if cls not in seen:
                seen.add(cls)
                waiting.append(cls)
                yield cls
