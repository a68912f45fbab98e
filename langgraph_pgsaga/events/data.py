"""What an event holds as JSON: exactly what comes back, or an error that says where it isn't."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_jsonable_python

from langgraph_pgsaga import _json
from langgraph_pgsaga.errors import UnstorableValueError

LARGEST_BYTES = 16 * 2**20
# Characters, of up to four bytes.
_SURELY_FITS = LARGEST_BYTES // 4
_LARGEST_INTEGER = 2**63


def encode_plain(value: Any) -> str | None:
    """JSON text of a dict that is JSON as it is, and surely not too large: nearly always. None of
    what has to be looked at by `encode_data`."""
    if type(value) is not dict:
        return None
    if not value:
        return "{}"
    text = _json.dump_exact(value)
    return text if text is not None and len(text) <= _SURELY_FITS else None


def encode_data(value: Any, where: str) -> str:
    """JSON text of a dict, a dataclass or a pydantic model.

    A model is dumped by pydantic, a dataclass as pydantic dumps one, so that times, enums and the
    like become text; a dict has to be JSON as it is.

    Raises:
        UnstorableValueError: it isn't, or has more than 16 MiB.
    """
    if isinstance(value, BaseModel) or (
        dataclasses.is_dataclass(value) and not isinstance(value, type)
    ):
        value = _dumped(value, where)
    elif type(value) is not dict and isinstance(value, Mapping):
        value = dict(value)
    if type(value) is not dict:
        problem = f"it is {_a(value)}, not a dict, a dataclass or a pydantic model"
        raise UnstorableValueError(where=where, problem=problem)
    exact = _json.dump_exact(value)
    text: str = _dumped_exactly(value, where) if exact is None else exact
    if len(text) > LARGEST_BYTES or (not text.isascii() and len(text.encode()) > LARGEST_BYTES):
        problem = (
            f"it has more than {LARGEST_BYTES // 2**20} MiB. Store what is large elsewhere, and "
            "its name or hash in the event"
        )
        raise UnstorableValueError(where=where, problem=problem)
    return text


def _dumped(value: Any, where: str) -> Any:
    try:
        return to_jsonable_python(value)
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        problem = f"pydantic can't dump {_a(value)} as JSON"
        raise UnstorableValueError(where=where, problem=problem) from error


def _dumped_exactly(value: Any, where: str) -> str:
    """For what `dump_exact` won't answer for: integers up to 64 bits and any finite float, too."""
    if _json.nests_too_deeply(value):
        problem = "it nests more than 200 deep, or holds itself"
        raise UnstorableValueError(where=where, problem=problem)
    _check(value, where)
    return _json.dump(value)


def _check(value: Any, where: str) -> None:
    kind = type(value)
    if kind is dict:
        for key, part in value.items():
            if type(key) is not str:
                problem = f"a key is {_a(key)}, and JSON has text only"
                raise UnstorableValueError(where=where, problem=problem)
            _check(key, where)
            _check(part, f"{where}[{key[:40]!r}]")
    elif kind is list or kind is tuple:
        for number, part in enumerate(value):
            _check(part, f"{where}[{number}]")
    elif (odd := _problem(value)) is not None:
        raise UnstorableValueError(where=where, problem=odd)


def _problem(value: Any) -> str | None:
    """What JSON, or jsonb, hasn't got of a value without parts."""
    kind = type(value)
    if kind is str:
        clean = _json.is_clean(value)
        return None if clean else "it has a NUL character or a lone surrogate; take it out"
    if kind is float:
        return None if math.isfinite(value) else f"it is {value}, which JSON hasn't got"
    if kind is int:
        fits = -_LARGEST_INTEGER <= value < _LARGEST_INTEGER
        return None if fits else "it is an int of more than 64 bits; pass it as text"
    if value is None or kind is bool:
        return None
    return f"it is {_a(value)}, which JSON hasn't got; pass text, numbers, lists and dicts"


def _a(value: Any) -> str:
    return f"a {type(value).__name__}"


def encode_tags(tags: Any) -> str | None:
    """JSON text of tags that are checked; None of none."""
    return _json.dump(tags) if tags else None
