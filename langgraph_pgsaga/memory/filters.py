"""Filters of a search as steps that the server evaluates: values, never SQL.

The function pgsaga_matches of the migrations says what steps there are. What JSON's containment
says as well is asked in that form, which costs less.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from langgraph_pgsaga import _json
from langgraph_pgsaga._arguments import shown
from langgraph_pgsaga.errors import InvalidFilterError, UnstorableValueError

Steps = list[list[Any]]
Path = tuple[str, ...]
_JOINED = {"$and": "and", "$or": "or"}
_NUMBER = re.compile(r" *[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})? *")
_OPERATORS = (
    "$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$and", "$or", "$not",
)  # fmt: skip


class Filter(NamedTuple):
    """What a value must contain, and the steps that it must fit besides; None is neither."""

    contained: str | None
    steps: str | None

    def values(self) -> dict[str, str | None]:
        """Those of a statement's parameters."""
        return {"contained": self.contained, "steps": self.steps}


def compiled(given: Any) -> Filter:
    """The filter of a search; None and an empty one let everything pass.

    Raises:
        InvalidFilterError: an operator that there isn't, or an operand that it can't use.
    """
    if given is None:
        return Filter(None, None)
    contained: dict[str, Any] = {}
    steps: Steps = []
    for name, wanted in _fields("filter", given):
        if not name.startswith("$") and _is_contained(wanted):
            contained[name] = wanted
        else:
            steps += [*_of_field(name, wanted, ()), ["must"]]
    return Filter(
        _json.dump(contained) if contained else None, _json.dump(steps) if steps else None
    )


def _fields(where: str, given: Any) -> list[tuple[str, Any]]:
    if not isinstance(given, Mapping):
        raise InvalidFilterError(argument=where, problem=f"must be a dict, not {shown(given)}")
    try:
        checked: dict[str, Any] = _json.load(_json.dump_object(given))
    except UnstorableValueError as error:
        problem = f"{error.where}: {error.problem}"
        raise InvalidFilterError(argument=where, problem=problem) from error
    return list(checked.items())


def _is_contained(wanted: Any) -> bool:
    """Whether containment means the same: not for null, which a missing field fits, too."""
    if isinstance(wanted, dict):
        return all(
            not name.startswith("$") and _is_contained(part) for name, part in wanted.items()
        )
    return isinstance(wanted, str | int | float)


def _of_field(name: str, wanted: Any, path: Path) -> Steps:
    """Of a field, or of an operator that stands where a field may."""
    if name in _JOINED:
        return _joined(name, [_of_filter(part, path) for part in _parts(path, name, wanted)])
    if name == "$not":
        return [*_of_filter(wanted, path), ["not", 1]]
    if name.startswith("$"):
        raise _no_such(name, path)
    return _of_value(wanted, (*path, name))


def _of_filter(given: Any, path: Path) -> Steps:
    if not isinstance(given, dict):
        raise _refused(path, f"must be a dict, not {shown(given)}")
    return _joined("$and", [_of_field(name, wanted, path) for name, wanted in given.items()])


def _of_value(wanted: Any, path: Path) -> Steps:
    """What a value must be: by operators, by its fields, by its elements, or just that."""
    if isinstance(wanted, dict):
        if any(name.startswith("$") for name in wanted):
            parts = [_of_operator(name, part, path) for name, part in wanted.items()]
            return _joined("$and", parts)
        fields = [_of_value(part, (*path, name)) for name, part in wanted.items()]
        return _joined("$and", [[_leaf("object", path, None)], *fields])
    if isinstance(wanted, list):
        elements = [_of_value(part, (*path, str(place))) for place, part in enumerate(wanted)]
        return _joined("$and", [[_leaf("length", path, len(wanted))], *elements])
    return [_leaf("eq", path, wanted)]


def _of_operator(name: str, operand: Any, path: Path) -> Steps:
    made = _MADE.get(name)
    if made is None:
        raise _no_such(name, path)
    return made(name, operand, path)


def _equal(name: str, operand: Any, path: Path) -> Steps:
    steps = [_leaf("eq", path, operand)]
    return steps if name == "$eq" else [*steps, ["not", 1]]


def _compared(name: str, operand: Any, path: Path) -> Steps:
    """By number where both are numbers, or texts that say one; else by text."""
    if not isinstance(operand, str | int | float):
        problem = f"{name} compares with a number or a str, not with {shown(operand)}"
        raise _refused(path, problem)
    return [[*_leaf(name[1:], path, operand), _number_of(operand)]]


def _number_of(operand: str | float) -> str | None:
    """The number as text, in which the server reads it."""
    if isinstance(operand, bool):
        return str(int(operand))
    if isinstance(operand, int | float):
        return repr(operand)
    # As the server's function reads text, so that both sides are told apart alike.
    return operand if _NUMBER.fullmatch(operand) and len(operand) < 400 else None


def _listed(name: str, operand: Any, path: Path) -> Steps:
    if not isinstance(operand, list):
        raise _refused(path, f"{name} takes a list, not {shown(operand)}")
    steps = [_leaf("in", path, operand)]
    return steps if name == "$in" else [*steps, ["not", 1]]


def _existing(name: str, operand: Any, path: Path) -> Steps:
    if not isinstance(operand, bool):
        raise _refused(path, f"{name} takes True or False, not {shown(operand)}")
    return [_leaf("exists", path, operand)]


def _all_or_any(name: str, operand: Any, path: Path) -> Steps:
    return _joined(name, [_of_value(part, path) for part in _parts(path, name, operand)])


_MADE: dict[str, Callable[[str, Any, Path], Steps]] = {
    **dict.fromkeys(("$eq", "$ne"), _equal),
    **dict.fromkeys(("$gt", "$gte", "$lt", "$lte"), _compared),
    **dict.fromkeys(("$in", "$nin"), _listed),
    "$exists": _existing,
    **dict.fromkeys(_JOINED, _all_or_any),
    "$not": lambda name, operand, path: [*_of_value(operand, path), ["not", 1]],
}


def _leaf(operator: str, path: Path, operand: Any) -> list[Any]:
    quoted = (label.replace("\\", "\\\\").replace('"', '\\"') for label in path)
    return [operator, "{" + ",".join(f'"{label}"' for label in quoted) + "}", operand]


def _joined(name: str, parts: list[Steps]) -> Steps:
    if len(parts) == 1:
        return parts[0]
    return [*(step for part in parts for step in part), [_JOINED[name], len(parts)]]


def _parts(path: Path, name: str, given: Any) -> list[Any]:
    if not isinstance(given, list):
        raise _refused(path, f"{name} takes a list, not {shown(given)}")
    return given


def _no_such(name: str, path: Path) -> InvalidFilterError:
    return _refused(path, f"there is no operator {shown(name)}; there are {', '.join(_OPERATORS)}")


def _refused(path: Path, problem: str) -> InvalidFilterError:
    place = "".join(f"[{label!r}]" for label in path)
    return InvalidFilterError(argument=f"filter{place}", problem=problem)
