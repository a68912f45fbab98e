"""What agents keep across threads: what the store refuses."""

from __future__ import annotations

from dataclasses import dataclass

from langgraph_pgsaga.errors.root import InvalidArgumentError, PgSagaError


@dataclass(kw_only=True, eq=False)
class InvalidFilterError(InvalidArgumentError, ValueError):
    """A filter of a search that can't be used; `argument` is the place in it."""


@dataclass(kw_only=True, eq=False)
class ItemConflictError(PgSagaError):
    """An item of the store isn't at the version that was expected. Nothing was stored.

    `actual` is 0 where there is none.
    """

    namespace: tuple[str, ...]
    key: str
    expected: int
    actual: int

    def __str__(self) -> str:
        return (
            f"item {self.key!r} in {self.namespace!r} is at version {self.actual}, and expected "
            f"was {self.expected}. Get it again, change what it then is, and put that with its "
            "version"
        )
