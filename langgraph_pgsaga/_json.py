"""JSON for jsonb columns: exactly, or not at all.

jsonb can't hold NUL or lone surrogates in strings, NaN or infinities, and not
every reader gets integers beyond 64 bits back. `dump_exact` answers None for
such values; `project` makes a readable approximation for the columns that
people and filters look at, next to exact bytes kept elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import orjson

from langgraph_pgsaga.errors import CorruptValueError, UnstorableValueError

JSON_INT_LIMIT = 2**53
_LEAST_INT, _LARGEST_INT = -(2**63), 2**63 - 1
# Containers in one another: below what orjson and the server's stack allow.
_DEEPEST = 200
_STR = frozenset({str})
_NUL = "\\u0000"
_SURROGATES_AND_NUL = {0: "\ufffd", **dict.fromkeys(range(0xD800, 0xE000), "\ufffd")}


def dump(value: Any) -> str:
    """JSON text of a value that is known to be JSON."""
    return orjson.dumps(value).decode()


def dump_sorted(value: Any) -> str:
    """`dump`, the same for equal objects whose keys are in another order."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def load(text: str) -> Any:
    """The value of JSON text that came out of a jsonb column.

    Raises:
        CorruptValueError: it is none that was written here. jsonb nests deeper, and has larger
            numbers, than any reader takes.
    """
    # Raised outside of the handler: the parser's error holds the whole text.
    with suppress(orjson.JSONDecodeError):
        return orjson.loads(text)
    problem = "it nests too deeply, or has a number that is too large"
    raise CorruptValueError(what="stored JSON", problem=problem)


def load_object(text: str) -> dict[str, Any]:
    """The object of JSON text; an empty one where somebody stored something else."""
    try:
        found = load(text)
    except CorruptValueError:
        return {}
    return found if isinstance(found, dict) else {}


def dump_exact(value: Any) -> str | None:
    """JSON text that loads to an equal value after a stay in jsonb; None if there is none."""
    if not _is_exact(value):
        return None
    try:
        text = dump(value)
    except orjson.JSONEncodeError:  # lone surrogates
        return None
    # Text that holds these six characters themselves counts as inexact, too.
    return None if _NUL in text else text


def dump_object(value: Any) -> str:
    """JSON text of a dict that loads to an equal one after a stay in jsonb.

    Tuples become lists, and what is of a subclass of str, int, float, list or dict is as those.

    Raises:
        UnstorableValueError: it holds what JSON, or jsonb, hasn't, and where.
    """
    if type(value) is not dict and not isinstance(value, Mapping):
        raise UnstorableValueError(where="value", problem=_is_a("dict", value))
    return dump(_jsonb_value(value, "value", 0))


def _jsonb_value(value: Any, where: str, depth: int) -> Any:
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is str or isinstance(value, str):
        if not is_clean(value):
            problem = "PostgreSQL's text has no NUL character and no lone surrogate"
            raise UnstorableValueError(where=where, problem=problem)
        return str.__str__(value)
    if isinstance(value, int):
        if not _LEAST_INT <= value <= _LARGEST_INT:
            problem = "JSON readers have integers of 64 bits; store it as text"
            raise UnstorableValueError(where=where, problem=problem)
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UnstorableValueError(where=where, problem=f"JSON has no {value}")
        return float(value)
    if depth >= _DEEPEST:
        problem = f"containers stand in one another more than {_DEEPEST} deep"
        raise UnstorableValueError(where="value", problem=problem)
    if kind is dict or isinstance(value, Mapping):
        return {
            _jsonb_key(key, where): _jsonb_value(part, f"{where}[{key!r}]", depth + 1)
            for key, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [
            _jsonb_value(part, f"{where}[{place}]", depth + 1) for place, part in enumerate(value)
        ]
    raise UnstorableValueError(where=where, problem=_is_a("JSON value", value))


def _jsonb_key(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise UnstorableValueError(where=f"a key of {where}", problem=_is_a("str", key))
    if not is_clean(key):
        problem = "PostgreSQL's text has no NUL character and no lone surrogate"
        raise UnstorableValueError(where=f"a key of {where}", problem=problem)
    return str.__str__(key)


def _is_a(wanted: str, value: Any) -> str:
    return f"it must be a {wanted}, not {type(value).__name__}"


def project(value: Any, *, longest: int | None = None, _depth: int = 0) -> Any:
    """`value` as something jsonb holds: odd text replaced, odd numbers and objects as text.

    Text longer than `longest` characters is shortened, and what nests too deeply is
    only named.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return clean_text(shortened(value, longest))
    if isinstance(value, int):
        return int(value) if -JSON_INT_LIMIT < value < JSON_INT_LIMIT else shown(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if _depth < _DEEPEST and isinstance(value, dict):
        return {shown(k): project(v, longest=longest, _depth=_depth + 1) for k, v in value.items()}
    if _depth < _DEEPEST and isinstance(value, list | tuple | set | frozenset):
        return [project(v, longest=longest, _depth=_depth + 1) for v in value]
    return type(value).__name__


def contains(whole: Any, part: Any) -> bool:
    """What jsonb's `@>` answers, also for values that jsonb can't hold."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            key in whole and contains(whole[key], value) for key, value in part.items()
        )
    if isinstance(part, list | tuple):
        return isinstance(whole, list | tuple) and all(
            any(contains(item, wanted) for item in whole) for wanted in part
        )
    if isinstance(part, bool) or isinstance(whole, bool):
        return whole is part
    return bool(whole == part) or (whole != whole and part != part)


def nests_too_deeply(value: Any) -> bool:
    """Whether containers stand in one another more than 200 deep, or without an end."""
    level = [value]
    for _ in range(_DEEPEST):
        # One that stands in several is looked at once, or those of a loop might double each time.
        inner = {id(part): part for one in level for part in _parts(one)}
        level = [part for part in inner.values() if isinstance(part, dict | list | tuple)]
        if not level:
            return False
    return True


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def shown(value: Any) -> str:
    """A key or a name as text that PostgreSQL can hold, whatever it is."""
    if isinstance(value, str):
        return clean_text(value)
    try:
        return clean_text(str(value))
    except Exception:
        # Python writes out integers of some thousand digits in no other base.
        return hex(value) if isinstance(value, int) else type(value).__name__


def shortened(text: str, longest: int | None) -> str:
    """`text`, or its first `longest` characters and an ellipsis."""
    return text if longest is None or len(text) <= longest else f"{text[:longest]}…"


def clean_text(text: str) -> str:
    """`text` with what PostgreSQL can't hold (NUL, lone surrogates) as U+FFFD."""
    # Not str(): a subclass, an enum for one, may answer with something else.
    return str.__str__(text) if is_clean(text) else text.translate(_SURROGATES_AND_NUL)


def is_clean(text: str) -> bool:
    """Whether PostgreSQL can hold `text`."""
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_exact(value: Any) -> bool:
    """Whether jsonb keeps it, but for what text it holds."""
    return _are_exact((value,), 0)


def _are_exact(values: Iterable[Any], depth: int) -> bool:
    """The same of several, in containers of that depth: one call for each container."""
    for value in values:
        kind = type(value)
        if kind is str or kind is bool or value is None:
            continue
        if kind is int:
            is_exact = -JSON_INT_LIMIT < value < JSON_INT_LIMIT
        elif kind is float:
            is_exact = _is_exact_float(value)
        elif kind is dict:
            is_exact = (
                depth < _DEEPEST
                and _STR.issuperset(map(type, value))
                and _are_exact(value.values(), depth + 1)
            )
        else:
            is_exact = (
                (kind is list or kind is tuple)
                and depth < _DEEPEST
                and _are_exact(value, depth + 1)
            )
        if not is_exact:
            return False
    return True


def _is_exact_float(value: float) -> bool:
    """jsonb stores decimals: no NaN, no infinities, no minus zero, no huge exponents."""
    return math.isfinite(value) and (1e-6 < abs(value) < 1e15 or str(value) == "0.0")
