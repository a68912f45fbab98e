"""What memories are forgotten by: age, how seldom and how long ago they were used, and number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from langgraph_pgsaga._arguments import (
    checked_flag,
    checked_instance,
    checked_integer,
    checked_items,
)
from langgraph_pgsaga.database import LONG, Connection, Database, load_statements
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.memory.remembering import type_names
from langgraph_pgsaga.memory.row import MemoryType

_STATEMENTS = load_statements("memory")
_TIMES = ("max_age", "max_idle", "max_expired")
_COUNTS = ("max_accesses", "keep_best")


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgettingPolicy:
    """Which memories go: those of which everything that is given here holds. Pinned ones stay.

    Args:
        types: of one of these; None is any.
        max_age: they were first remembered that long ago, or longer.
        max_idle: they weren't accessed for so long.
        max_expired: they have expired for so long.
        max_accesses: they were accessed at most so often.
        keep_best: their scope has so many that are more important.
        erase: they are deleted, with those that were superseded or forgotten before; else they are
            not recalled any more, but `as_of` a time before.
    """

    types: Sequence[MemoryType | str] | None = None
    max_age: timedelta | None = None
    max_idle: timedelta | None = None
    max_expired: timedelta | None = None
    max_accesses: int | None = None
    keep_best: int | None = None
    erase: bool = False

    def __post_init__(self) -> None:
        self.named()
        checked_flag("erase", self.erase)
        if all(getattr(self, name) is None for name in (*_TIMES, *_COUNTS)):
            problem = "says of no memory that it goes. Pass max_idle=timedelta(days=90), say"
            raise InvalidArgumentError(argument="policy", problem=problem)

    def named(self) -> Mapping[str, Any]:
        """What it says, as statements take it."""
        found: dict[str, Any] = {
            "types": type_names(self.types),
            "erases": self.erase,
        }
        for name in _TIMES:
            found[name] = value = getattr(self, name)
            if value is None:
                continue
            hint = "Pass timedelta(days=30), or None"
            if checked_instance(name, value, timedelta, hint) < timedelta(0):
                raise InvalidArgumentError(argument=name, problem=f"{value} is below 0")
        for name in _COUNTS:
            value = getattr(self, name)
            found[name] = None if value is None else checked_integer(name, value, least=0)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgettingResult:
    """How many memories a sweep took, or, as a dry run, would take by each policy alone."""

    forgotten: int = 0
    erased: int = 0


def checked_policies(policies: Any) -> list[ForgettingPolicy]:
    """The policies of a sweep."""
    hint = "Pass ForgettingPolicy(max_idle=timedelta(days=90))"
    return [
        checked_instance("policies", one, ForgettingPolicy, hint)
        for one in checked_items("policies", policies)
    ]


async def forget_by(
    db: Database, tenant_id: str, policies: Sequence[ForgettingPolicy], *, dry_run: bool
) -> ForgettingResult:
    """Goes by one policy after the other, each in a transaction of its own."""
    counts = {False: 0, True: 0}
    for policy in policies:
        name = "erase_by_policy" if policy.erase else "forget_by_policy"
        statement = _STATEMENTS["count_by_policy" if dry_run else name].bind(
            tenant_id=tenant_id, **policy.named()
        )

        async def work(conn: Connection, statement: Any = statement) -> int:
            (row,) = await db.fetch(statement, conn=conn)
            count: int = row["memories"]
            return count

        counts[policy.erase] += await db.run(work, limits=LONG)
    return ForgettingResult(forgotten=counts[False], erased=counts[True])


async def erase_memories(
    db: Database, tenant_id: str, user_id: str, conn: Connection | None = None
) -> int:
    """Deletes all memories of a user, those in threads, too; how many they were."""
    statement = _STATEMENTS["erase_user"].bind(tenant_id=tenant_id, user_id=user_id)
    (row,) = await db.fetch(statement, conn=conn)
    count: int = row["memories"]
    return count
