"""The root of all errors, and what any call may raise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any

_LONGEST_PART = 500


def _rebuild(cls: Callable[..., PgSagaError], attributes: dict[str, Any]) -> PgSagaError:
    return cls(**attributes)


def _of_short_parts(message: Callable[[Any], str]) -> Callable[[Any], str]:
    @wraps(message)
    def short_message(error: PgSagaError) -> str:
        parts = {name: _short(value) for name, value in vars(error).items()}
        shown = type(error).__new__(type(error))
        vars(shown).update(parts)
        return message(shown)

    return short_message


def _short(value: Any) -> Any:
    """The beginning and, since that says what to do, the end of a long text."""
    if not isinstance(value, str) or len(value) <= _LONGEST_PART:
        return value
    return f"{value[: _LONGEST_PART - 200]} ... {value[-200:]}"


@dataclass(kw_only=True, eq=False)
class PgSagaError(Exception):
    """The root: `except PgSagaError` catches everything this package raises."""

    def __init_subclass__(cls) -> None:
        # What callers gave may be of any length, and so may what quotes it.
        if "__str__" in vars(cls):
            cls.__str__ = _of_short_parts(cls.__str__)  # type: ignore[method-assign]

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), {f.name: getattr(self, f.name) for f in fields(self)})


@dataclass(kw_only=True, eq=False)
class InvalidArgumentError(PgSagaError):
    """An argument that can't be used: `argument` is its name, `problem` says why."""

    argument: str
    problem: str

    def __str__(self) -> str:
        return f"{self.argument}: {self.problem}"


@dataclass(kw_only=True, eq=False)
class UnknownOptionError(InvalidArgumentError, TypeError):
    """A keyword that is none of the options: `argument` is its name."""


@dataclass(kw_only=True, eq=False)
class MissingThreadIdError(InvalidArgumentError):
    """A config, or a call without one, names no thread."""

    argument: str = "thread_id"
    problem: str = (
        "no thread is named. Pass its id, which a graph takes as "
        'config={"configurable": {"thread_id": "..."}}'
    )


@dataclass(kw_only=True, eq=False)
class MissingTenantError(InvalidArgumentError):
    """A call of no tenant, where each has to be of one."""

    argument: str = "tenant"
    problem: str = (
        "the call is of no tenant, and one is needed here. "
        'Pass config={"configurable": {"thread_id": "...", "tenant_id": "..."}}, or tenant="..." '
        "where there is no config"
    )


@dataclass(kw_only=True, eq=False)
class InvalidCursorError(InvalidArgumentError):
    """A cursor that doesn't come from the `next_cursor` of a page of the same listing."""

    argument: str = "after"
    problem: str
    cursor: str

    def __str__(self) -> str:
        return (
            f"{self.argument}: {self.problem}: {self.cursor!r}. "
            "Pass the next_cursor of the page before, with the same filters and order"
        )


@dataclass(kw_only=True, eq=False)
class ClosedError(PgSagaError):
    """The object was closed. Open a new one."""

    what: str = "database"

    def __str__(self) -> str:
        return f"this {self.what} was closed. Make a new one, or leave its `with` block later"


@dataclass(kw_only=True, eq=False)
class CopyError(PgSagaError, TypeError):
    """A saver or database is to be pickled or copied, which has connections of this process."""

    what: str

    def __str__(self) -> str:
        return (
            f"a {self.what} has connections of this process, and can't be pickled or copied "
            "deeply. Pass the object itself; in another process make one anew"
        )


@dataclass(kw_only=True, eq=False)
class BlockingCallError(PgSagaError):
    """A sync call from the very loop that would have to answer it."""

    call: str

    def __str__(self) -> str:
        return (
            f"{self.call} would wait for the event loop it is called from, for ever. "
            "Await its async form here"
        )
