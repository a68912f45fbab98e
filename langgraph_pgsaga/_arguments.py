"""Arguments that can be used, or an InvalidArgumentError that says what to pass.

One rule each, for every system: what is text, a number, a time, a list of some.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from langgraph_pgsaga import _json
from langgraph_pgsaga.errors import InvalidArgumentError, UnknownOptionError

T = TypeVar("T")

LARGEST_INTEGER = 2**31 - 1
# Thirty years: with them, no time leaves the range of PostgreSQL's.
_MOST_SECONDS = 1_000_000_000
_LARGEST_COUNT = 2**63 - 1


def checked_text(argument: str, value: str | None) -> str | None:
    """Text that PostgreSQL can hold; None stays None."""
    return None if value is None else required_text(argument, value)


def required_text(argument: str, value: Any) -> str:
    """Text that PostgreSQL can hold."""
    if not isinstance(value, str):
        raise _other_type(argument, "a str", value)
    if not _json.is_clean(value):
        problem = "holds a NUL character or a lone surrogate, which PostgreSQL text can't"
        raise InvalidArgumentError(argument=argument, problem=problem)
    return value


def checked_items(argument: str, given: Iterable[T]) -> list[T]:
    """What an iterable gives. A text or a mapping, which are iterable too, is none."""
    if type(given) is list:
        return given[:]
    if isinstance(given, str | bytes | bytearray):
        problem = f"is a {type(given).__name__}; pass a list, also of one: [{shown(given)}]"
        raise InvalidArgumentError(argument=argument, problem=problem)
    if isinstance(given, Mapping | type):
        raise _other_type(argument, "a list", given)
    try:
        items = iter(given)
    except TypeError:
        raise _other_type(argument, "a list", given) from None
    return list(items)


def checked_texts(argument: str, given: Iterable[str]) -> list[str]:
    """A list of texts that PostgreSQL can hold."""
    return [required_text(argument, value) for value in checked_items(argument, given)]


def checked_mapping(argument: str, given: Any) -> Mapping[str, Any]:
    """A dict, or what acts as one."""
    if type(given) is not dict and not isinstance(given, Mapping):
        raise _other_type(argument, "a dict", given)
    return given


def checked_time(argument: str, time: Any) -> datetime | None:
    """The time in UTC; None stays None."""
    if time is None:
        return None
    if not isinstance(time, datetime) or time.utcoffset() is None:
        problem = "must be a datetime with a time zone, such as datetime.now(timezone.utc)"
        raise InvalidArgumentError(argument=argument, problem=f"{problem}, not {shown(time)}")
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        problem = f"{time} is out of range"
        raise InvalidArgumentError(argument=argument, problem=problem) from error


def checked_integer(
    argument: str, value: Any, *, least: int = -LARGEST_INTEGER - 1, most: int = LARGEST_INTEGER
) -> int:
    """An integer of PostgreSQL's, within these bounds."""
    if type(value) is not int or not least <= value <= most:
        problem = f"must be an int between {least} and {most}, not {shown(value)}"
        raise InvalidArgumentError(argument=argument, problem=problem)
    return int(value)


def checked_limit(limit: Any) -> int | None:
    """How many of something are asked for at most; None is all of them."""
    if limit is not None and (type(limit) is not int or not 0 <= limit <= _LARGEST_COUNT):
        problem = f"must be an int of 0 or more, or None for all, not {shown(limit)}"
        raise InvalidArgumentError(argument="limit", problem=problem)
    return None if limit is None else int(limit)


def checked_seconds(argument: str, value: Any, *, least: float) -> float:
    """A number of seconds."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not least <= value <= _MOST_SECONDS:
        problem = (
            f"must be a number of seconds between {least:g} and {_MOST_SECONDS:,}, "
            f"not {shown(value)}"
        )
        raise InvalidArgumentError(argument=argument, problem=problem)
    return float(value)


def checked_flag(argument: str, value: Any) -> bool:
    """True or False. Any text is true, and options may come as text from the environment."""
    if type(value) is not bool:
        problem = f"must be True or False, not {shown(value)}"
        raise InvalidArgumentError(argument=argument, problem=problem)
    return value


def checked_choice(argument: str, value: Any, choices: Iterable[str]) -> str:
    """One of some texts."""
    names = tuple(choices)
    if not isinstance(value, str) or value not in names:
        problem = f"{shown(value)} is none of {', '.join(map(repr, names))}"
        raise InvalidArgumentError(argument=argument, problem=problem)
    return str(value)


def checked_instance(argument: str, value: Any, kind: type[T], hint: str) -> T:
    """An object of a class; `hint` says where to get one."""
    if not isinstance(value, kind):
        needed, given = kind.__name__, type(value).__name__
        if needed == given:  # as of the twins in langgraph_pgsaga.sync
            needed, given = _full_name(kind), _full_name(type(value))
        article = "an" if needed[0] in "AEIOU" else "a"
        problem = f"must be {article} {needed}, not {given}. {hint}"
        raise InvalidArgumentError(argument=argument, problem=problem)
    return value


def _full_name(kind: type) -> str:
    """With its module as users import it: the package's rooms show all that they have."""
    parts = kind.__module__.split(".")
    module = ".".join(parts[:2]) if parts[0] == __name__.split(".")[0] else kind.__module__
    return f"{module}.{kind.__qualname__}"


def checked_work(argument: str, value: T) -> T:
    """A function that is given a connection."""
    if not callable(value):
        problem = "an async function that is given the connection: async def work(conn): ..."
        raise _other_type(argument, problem, value)
    return value


def check_options(owner: str, given: Iterable[str], known: Collection[str]) -> None:
    """UnknownOptionError, which names the nearest one, where a keyword is none of the options."""
    for name in given:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            problem = f"is no option of {owner}. Did you mean {nearest}?"
            raise UnknownOptionError(argument=name, problem=problem)


def shown(value: Any) -> str:
    """What a message says of a value: a short one itself, of others the type."""
    if isinstance(value, str | bytes | int | float):
        if isinstance(value, int) and abs(value) > _LARGEST_COUNT:
            return "a larger int"  # which may have more digits than Python writes
        text = repr(value[:40]) if isinstance(value, str | bytes) else repr(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    return type(value).__name__


def _other_type(argument: str, wanted: str, value: Any) -> InvalidArgumentError:
    problem = f"must be {wanted}, not {type(value).__name__}"
    return InvalidArgumentError(argument=argument, problem=problem)
