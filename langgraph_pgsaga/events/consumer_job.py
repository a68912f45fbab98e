"""The job of a Worker that runs consumers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import asyncpg

from langgraph_pgsaga._arguments import checked_instance
from langgraph_pgsaga.database import Connection, Database, load_statements
from langgraph_pgsaga.errors import ConsumerConflictError, InvalidArgumentError
from langgraph_pgsaga.events.consumer import Consumer
from langgraph_pgsaga.events.following import Following
from langgraph_pgsaga.events.news import TOPIC
from langgraph_pgsaga.events.subjects import SubjectKeys
from langgraph_pgsaga.events.turn import Turn
from langgraph_pgsaga.events.upcasting import Upcasters
from langgraph_pgsaga.work import Claim, ClaimTable, Retry

_log = logging.getLogger("langgraph_pgsaga.events")
_STATEMENTS = load_statements("consumers")
_RETRY = Retry(attempts=None, backoff_seconds=0.2, longest_seconds=30.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerJob:
    """Consumers of a tenant's events. `EventStore.job` makes it.

    `predecessors` are the names of consumers that are to be ahead of others, by these ones' names.
    `refused` are those that it doesn't run, since others of their names are there.
    """

    name: str
    db: Database = field(repr=False)
    tenant_id: str
    consumers: Sequence[Consumer]
    upcasters: Upcasters = field(repr=False)
    subjects: SubjectKeys | None = field(repr=False)
    concurrency: int
    predecessors: Mapping[str, str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set, init=False)
    topic: str = field(default=TOPIC, init=False)
    longest_poll_seconds: float = field(default=1.0, init=False)
    retry: Retry = field(default=_RETRY, init=False)

    @property
    def table(self) -> ClaimTable:
        """The rows of its consumers, but for those that are refused."""
        names = [one.name for one in self.consumers if one.name not in self.refused]
        return ClaimTable(
            key=("tenant_id", "name", "partition"),
            claim=_STATEMENTS["claim_consumer"],
            renew=_STATEMENTS["renew_consumers"],
            release=_STATEMENTS["release_consumers"],
            fail=_STATEMENTS["fail_consumer"],
            given={
                "tenant_id": self.tenant_id,
                "consumers": names,
                "predecessors": [self.predecessor_of(name) for name in names],
            },
        )

    async def prepare(self, db: Database, conn: Connection | None = None) -> None:
        """Makes the rows of consumers that aren't known yet; the log says which are refused.

        By a connection of its own, so that they are there whatever becomes of `conn`'s transaction;
        with `conn` it needs none where they are known.
        """
        for consumer in self.consumers:
            try:
                await prepare(db, self.tenant_id, consumer, conn)
            except ConsumerConflictError as error:
                if consumer.name not in self.refused:
                    _log.error("job %s goes on without one: %s", self.name, error)
                self.refused.add(consumer.name)
            else:
                self.refused.discard(consumer.name)

    def predecessor_of(self, name: str) -> str | None:
        """The consumer that is to be ahead of another, of those that aren't refused."""
        found = self.predecessors.get(name)
        while found is not None and found in self.refused:
            found = self.predecessors.get(found)
        return found

    async def run(self, claim: Claim) -> None:
        """Has a partition go on, for a second at most where others may want a turn."""
        (consumer,) = (one for one in self.consumers if one.name == claim.row["name"])
        turn = Turn(
            db=self.db,
            upcasters=self.upcasters,
            subjects=self.subjects,
            consumer=consumer,
            predecessor=self.predecessor_of(consumer.name),
            claim=claim,
        )
        await Following(turn).run()


async def prepare(
    db: Database, tenant_id: str, consumer: Consumer, conn: Connection | None = None
) -> None:
    """Makes a consumer's rows, where there are none.

    Raises:
        ConsumerConflictError: it is known with other partitions, or is retired.
    """
    rows = []
    if conn is not None:
        find = _STATEMENTS["find_consumer"].bind(tenant_id=tenant_id, name=consumer.name)
        rows = await db.fetch(find, conn=conn)
    rows = rows or await _insert(db, tenant_id, consumer)
    if rows[0]["is_retired"]:
        problem = "is retired: another one is in its place. Give this one another name"
        raise ConsumerConflictError(consumer=consumer.name, problem=problem)
    if (count := rows[0]["partition_count"]) != consumer.partitions:
        problem = (
            f"has {count} partitions, not {consumer.partitions}: their places can't be divided "
            f"anew. Pass partitions={count}, or another name, to begin with"
        )
        raise ConsumerConflictError(consumer=consumer.name, problem=problem)


async def _insert(db: Database, tenant_id: str, consumer: Consumer) -> list[asyncpg.Record]:
    """How many partitions a consumer has by now, and whether it is retired."""
    place = consumer.place()
    statement = _STATEMENTS["insert_consumer"].bind(
        tenant_id=tenant_id,
        name=consumer.name,
        partition_count=consumer.partitions,
        **({"era": None, "tx": None, "position": None} if place is None else place.named()),
    )
    # Nothing where somebody else made them in this moment.
    return await db.fetch(statement) or await db.fetch(statement)


def checked_consumers(consumers: Sequence[Consumer]) -> tuple[Consumer, ...]:
    """Consumers of one job: at least one, each of another name."""
    names: list[str] = []
    for one in consumers:
        hint = "Pass Consumer(name=..., handler=...) or Projection(...)"
        names.append(checked_instance("consumers", one, Consumer, hint).name)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        problem = (
            f"two have the name {twice[0]!r}"
            if twice
            else "there are none: pass some, or register_event_handler before"
        )
        raise InvalidArgumentError(argument="consumers", problem=problem)
    return tuple(consumers)
