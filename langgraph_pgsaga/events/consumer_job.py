"""The job of a Worker that runs consumers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from langgraph_pgsaga._arguments import checked_instance
from langgraph_pgsaga.database import Database, load_statements
from langgraph_pgsaga.errors import ConsumerConflictError, InvalidArgumentError
from langgraph_pgsaga.events.consumer import Consumer
from langgraph_pgsaga.events.following import Following
from langgraph_pgsaga.events.news import TOPIC
from langgraph_pgsaga.events.subjects import SubjectKeys
from langgraph_pgsaga.events.turn import Turn
from langgraph_pgsaga.events.upcasting import Upcasters
from langgraph_pgsaga.work import Claim, ClaimTable, Retry

_STATEMENTS = load_statements("consumers")
_RETRY = Retry(attempts=None, backoff_seconds=0.2, longest_seconds=30.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerJob:
    """Consumers of a tenant's events. `EventStore.job` makes it.

    `predecessors` are the names of consumers that are to be ahead of others, by these ones' names.
    """

    name: str
    db: Database = field(repr=False)
    tenant_id: str
    consumers: Sequence[Consumer]
    upcasters: Upcasters = field(repr=False)
    subjects: SubjectKeys | None = field(repr=False)
    concurrency: int
    predecessors: Mapping[str, str] = field(default_factory=dict)
    topic: str = field(default=TOPIC, init=False)
    longest_poll_seconds: float = field(default=1.0, init=False)
    retry: Retry = field(default=_RETRY, init=False)

    @property
    def table(self) -> ClaimTable:
        """The rows of its consumers."""
        return ClaimTable(
            key=("tenant_id", "name", "partition"),
            claim=_STATEMENTS["claim_consumer"],
            renew=_STATEMENTS["renew_consumers"],
            release=_STATEMENTS["release_consumers"],
            fail=_STATEMENTS["fail_consumer"],
            given={
                "tenant_id": self.tenant_id,
                "consumers": [one.name for one in self.consumers],
                "predecessors": [self.predecessors.get(one.name) for one in self.consumers],
            },
        )

    async def prepare(self, db: Database) -> None:
        """Makes the rows of consumers that aren't known yet.

        Raises:
            ConsumerConflictError: one is known with other partitions, or is retired.
        """
        for consumer in self.consumers:
            await prepare(db, self.tenant_id, consumer)

    async def run(self, claim: Claim) -> None:
        """Has a partition go on, for a second at most where others may want a turn."""
        (consumer,) = (one for one in self.consumers if one.name == claim.row["name"])
        turn = Turn(
            db=self.db,
            upcasters=self.upcasters,
            subjects=self.subjects,
            consumer=consumer,
            predecessor=self.predecessors.get(consumer.name),
            claim=claim,
        )
        await Following(turn).run()


async def prepare(db: Database, tenant_id: str, consumer: Consumer) -> None:
    """Makes a consumer's rows, where there are none."""
    place = consumer.place()
    statement = _STATEMENTS["insert_consumer"].bind(
        tenant_id=tenant_id,
        name=consumer.name,
        partition_count=consumer.partitions,
        **({"era": None, "tx": None, "position": None} if place is None else place.named()),
    )
    rows = await db.fetch(statement)
    rows = rows or await db.fetch(statement)  # somebody else made them in this moment
    if rows[0]["is_retired"]:
        problem = "is retired: another one is in its place. Give this one another name"
        raise ConsumerConflictError(consumer=consumer.name, problem=problem)
    if (count := rows[0]["partition_count"]) != consumer.partitions:
        problem = (
            f"has {count} partitions, not {consumer.partitions}: their places can't be divided "
            f"anew. Pass partitions={count}, or another name, to begin with"
        )
        raise ConsumerConflictError(consumer=consumer.name, problem=problem)


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
