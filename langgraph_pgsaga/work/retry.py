"""Retry: how often something is tried again, and when."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from langgraph_pgsaga._arguments import checked_integer, checked_items, checked_seconds, shown
from langgraph_pgsaga.errors import InvalidArgumentError

_MOST_FACTOR = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often something that failed is tried again, and when.

    The waits are backoff_seconds, then factor times as long each, and at most longest_seconds.

    Args:
        attempts: how often it is tried in all; None is without end.
        backoff_seconds: the wait after the first attempt.
        factor: by how much each wait is longer than the one before.
        longest_seconds: no wait is longer.
        jitter: which part of a wait is left to chance, from 0 to 1, so that what failed together
            isn't tried again together: 0.2 makes a wait of 10 s one between 8 and 10.
        on: the classes of errors that are worth another attempt. Of others the first is the last.
    """

    attempts: int | None = 10
    backoff_seconds: float = 1.0
    factor: float = 2.0
    longest_seconds: float = 3600.0
    jitter: float = 0.2
    on: Iterable[type[Exception]] = (Exception,)

    def __post_init__(self) -> None:
        if self.attempts is not None:
            checked_integer("attempts", self.attempts, least=1)
        checked_seconds("backoff_seconds", self.backoff_seconds, least=0)
        checked_seconds("longest_seconds", self.longest_seconds, least=0)
        _check_number("factor", self.factor, least=1, most=_MOST_FACTOR)
        _check_number("jitter", self.jitter, least=0, most=1)
        kinds = checked_items("on", [self.on] if isinstance(self.on, type) else self.on)
        for kind in kinds:
            if not (isinstance(kind, type) and issubclass(kind, Exception)):
                problem = f"must be classes of exceptions, such as (OSError,), not {shown(kind)}"
                raise InvalidArgumentError(argument="on", problem=problem)
        object.__setattr__(self, "on", tuple(kinds))

    def delay(self, attempt: int) -> float | None:
        """The seconds to wait once attempt number `attempt` (from 1) has failed; None: no more."""
        checked_integer("attempt", attempt, least=1)
        if self.attempts is not None and attempt >= self.attempts:
            return None
        try:
            seconds = min(self.backoff_seconds * self.factor ** (attempt - 1), self.longest_seconds)
        except OverflowError:
            seconds = self.longest_seconds
        return seconds * (1 - self.jitter * random.random())

    def retries(self, error: BaseException) -> bool:
        """Whether an error is worth another attempt."""
        return isinstance(error, tuple(self.on))

    def delay_after(self, error: BaseException, attempt: int) -> float | None:
        """`delay`, or None where the error isn't worth another attempt."""
        return self.delay(attempt) if self.retries(error) else None


def delay_after(retry: Retry, error: BaseException, attempt: int) -> float | None:
    """`retry.delay_after`; what isn't an Exception, such as a cancellation by the work's own code,
    is worth as many attempts as any."""
    if isinstance(error, Exception):
        return retry.delay_after(error, attempt)
    return retry.delay(attempt)


def _check_number(argument: str, value: object, *, least: float, most: float) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and least <= value <= most):  # type: ignore[operator]
        problem = f"must be a number between {least:g} and {most:g}, not {shown(value)}"
        raise InvalidArgumentError(argument=argument, problem=problem)
