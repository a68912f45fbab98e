"""Which consumers there are, how far behind each is; and one in another's place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

import asyncpg

from langgraph_pgsaga.database import Connection, Database, load_statements
from langgraph_pgsaga.errors import (
    ConsumerConflictError,
    InvalidArgumentError,
    MissingConsumerError,
    ProjectionBehindError,
)
from langgraph_pgsaga.events.place import EventPlace
from langgraph_pgsaga.events.row import MOST_COUNTED

_STATEMENTS = load_statements("consumers")

Swap: TypeAlias = "Callable[[Connection], Awaitable[object]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerInfo:
    """A partition of a consumer as it was when read.

    `behind` are the events that come after its `cursor`, of whatever kind (counted to 10,000), the
    oldest for `seconds`; `withheld` of all can't be read yet, since the transaction of the server
    process `pid` is older, and still open. `waiting` aggregates have an event that failed, `dead`
    of these aren't tried any more. `is_claimed` is whether a worker has it now, `last_error` why
    none could go on, by class and place.
    """

    name: str
    partition: int
    partitions: int
    cursor: str
    behind: int
    seconds: float
    withheld: int
    pid: int | None
    waiting: int
    dead: int
    is_claimed: bool
    last_error: str | None
    moved_at: datetime
    retired_at: datetime | None

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> ConsumerInfo:
        """A row of list_consumers."""
        return cls(
            name=row["name"],
            partition=row["partition"],
            partitions=row["partition_count"],
            cursor=EventPlace.of_row(row).cursor(),
            behind=row["behind"],
            seconds=row["seconds"],
            withheld=row["withheld"],
            pid=row["pid"],
            waiting=row["waiting"],
            dead=row["dead"],
            is_claimed=row["is_claimed"],
            last_error=row["last_error"],
            moved_at=row["moved_at"],
            retired_at=row["retired_at"],
        )


async def list_consumers(db: Database, tenant_id: str) -> list[ConsumerInfo]:
    """All of a tenant's, by name and partition."""
    bound = _STATEMENTS["list_consumers"].bind(tenant_id=tenant_id, most=MOST_COUNTED)
    return [ConsumerInfo.from_row(row) for row in await db.fetch(bound)]


async def forget(db: Database, tenant_id: str, name: str) -> None:
    """Deletes a consumer's place and dead letters.

    Raises:
        MissingConsumerError: there is none.
    """
    bound = _STATEMENTS["delete_consumer"].bind(tenant_id=tenant_id, name=name)
    if not await db.fetch(bound):
        raise MissingConsumerError(consumer=name)


async def replace(db: Database, tenant_id: str, old: str, new: str, swap: Swap | None) -> None:
    """Retires a consumer, and has `swap(conn)` done in the same transaction."""
    if old == new:
        problem = f"is the consumer {old!r} itself, which can't take its own place"
        raise InvalidArgumentError(argument="new", problem=problem)

    async def work(conn: Connection) -> None:
        # In the order of the names, so that two of these don't wait for each other.
        places = {name: await _locked(db, tenant_id, name, conn) for name in sorted((old, new))}
        behind = 0
        if (least := min(places[new])) < (most := max(places[old])):
            between = _STATEMENTS["count_between"].bind(
                tenant_id=tenant_id, **least.after(), **most.named(), most=MOST_COUNTED
            )
            row = await db.fetch_one(between, conn=conn)
            behind = 0 if row is None else row["events"]
        counted = _STATEMENTS["count_waiting"].bind(tenant_id=tenant_id, consumer=new)
        row = await db.fetch_one(counted, conn=conn)
        waiting = 0 if row is None else row["waiting"]
        if behind or waiting:
            raise ProjectionBehindError(consumer=new, events=behind, dead_letters=waiting)
        if swap is not None:
            await swap(conn)
        retire = _STATEMENTS["retire_consumer"].bind(tenant_id=tenant_id, name=old)
        await db.fetch(retire, conn=conn)

    await db.run(work, once=True)


async def _locked(db: Database, tenant_id: str, name: str, conn: Connection) -> list[EventPlace]:
    """The places of a consumer's partitions, which don't move until the transaction ends."""
    bound = _STATEMENTS["lock_consumer"].bind(tenant_id=tenant_id, name=name)
    rows = await db.fetch(bound, conn=conn)
    if not rows:
        raise MissingConsumerError(consumer=name)
    if rows[0]["is_retired"]:
        raise ConsumerConflictError(consumer=name, problem="is retired already")
    return [EventPlace.of_row(row) for row in rows]
