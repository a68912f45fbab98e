"""Appending a batch: one statement, and what is done where it stored nothing."""

from __future__ import annotations

import asyncio
import random
import time

import asyncpg

from langgraph_pgsaga.database import Connection, Database, load_statements
from langgraph_pgsaga.errors import (
    ConditionFailedError,
    EventIdConflictError,
    InvalidArgumentError,
    ServerError,
    VersionConflictError,
)
from langgraph_pgsaga.events.append_queue import GroupedEvent, known_guards, queue_of
from langgraph_pgsaga.events.batch import (
    ANY,
    EXISTS,
    Batch,
    Expected,
    stored_expected,
    told_expected,
)
from langgraph_pgsaga.events.condition import Condition, locked_keys
from langgraph_pgsaga.events.erasure import Protection
from langgraph_pgsaga.events.event import AgentEvent

_STATEMENTS = load_statements("events")
_DUPLICATE = "23505"
# Between tries to append after whatever is there.
_FIRST_PAUSE_SECONDS = 0.002
_LONGEST_PAUSE_SECONDS = 0.1
_LONGEST_SECONDS = 30.0


class Append:
    """One append, until it is done or refused."""

    def __init__(
        self,
        db: Database,
        batch: Batch,
        expected: Expected,
        condition: Condition | None,
        conn: Connection | None,
        protection: Protection | None = None,
    ) -> None:
        self._db = db
        self._batch = batch
        self._protection = protection
        self._expected = expected
        self._condition = condition
        self._conn = conn
        # What is locked; None while nothing is known to be guarded.
        self._keys: list[int] | None = None
        # Where the aggregate was at the last try.
        self._version = 0

    async def run(self) -> tuple[AgentEvent, ...]:
        """The events as they are stored, now or by an append before."""
        if self._protection is not None:
            self._batch = await self._protection.encrypted(self._db, self._conn)
        if self._condition is not None or self._has_guarded():
            await self._find_keys()
        if self._conn is None and len(self._batch.events) == 1:
            together = await queue_of(self._db).append(self._grouped())
            if together is not None:
                return self._batch.stored_together(together)
        deadline = time.monotonic() + _LONGEST_SECONDS
        pause = _FIRST_PAUSE_SECONDS
        while True:
            row = await self._try()
            if row is not None and row["first_version"] is not None:
                return self._batch.stored(row)
            if (stored := await self._explained(row)) is not None:
                return stored
            if time.monotonic() > deadline:
                raise self._conflict()
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _grouped(self) -> GroupedEvent:
        """The one event, as a statement for many has it."""
        batch, condition = self._batch, self._condition
        [event] = batch.events
        return GroupedEvent(
            tenant_id=batch.tenant_id,
            aggregate_id=batch.aggregate_id,
            aggregate_type=batch.aggregate_type,
            expected=stored_expected(self._expected),
            event_id=event.event_id,
            event_type=str(event.event_type),
            schema_version=event.schema_version,
            event_data=batch.event_data[0],
            metadata=batch.metadata[0],
            tags=event.tags,
            correlation_id=event.correlation_id,
            causation_id=event.causation_id,
            session_id=event.session_id,
            checkpoint_id=event.checkpoint_id,
            happened_at=event.timestamp,
            keys=self._keys,
            condition_types=None if condition is None else condition.type_names,
            condition_tags=None if condition is None else condition.tags,
            after_position=None if condition is None else condition.after,
        )

    async def _try(self) -> asyncpg.Record | None:
        """The answer of the statement; None where an id was stored by somebody meanwhile."""
        condition = self._condition
        name = "append_one" if len(self._batch.events) == 1 else "append_events"
        statement = _STATEMENTS[name].bind(
            **self._batch.named(),
            **self._batch.content(),
            **self._batch.circumstances(),
            expected=stored_expected(self._expected),
            keys=self._keys,
            condition_types=None if condition is None else condition.type_names,
            condition_tags=None if condition is None else condition.tags,
            after_position=None if condition is None else condition.after,
        )
        try:
            return await self._db.fetch_one(statement, conn=self._conn)
        except ServerError as error:
            if error.sqlstate != _DUPLICATE or self._conn is not None:
                raise
            return None

    async def _explained(self, row: asyncpg.Record | None) -> tuple[AgentEvent, ...] | None:
        """Events that were stored before; None where it is to be tried again, else an error."""
        if row is None or row["is_known"]:
            return await self._resent()
        if row["era"] is None:
            await self._db.fetch(_STATEMENTS["begin_era"].bind(), conn=self._conn)
            return None
        if row["is_guarded"]:
            await self._find_keys()
            return None
        if row["is_allowed"] is None:
            problem = (
                "isn't read committed, which appends of guarded types need: pass one of "
                "db.transaction(), and leave default_transaction_isolation at read committed"
            )
            raise InvalidArgumentError(argument="the transaction", problem=problem)
        if not row["is_allowed"]:
            condition = self._condition
            assert condition is not None
            raise ConditionFailedError(
                types=condition.type_names, tags=tuple(condition.tags), after=condition.after
            )
        self._version = row["version"]
        if self._is_as_expected():
            return None  # somebody else appended meanwhile, or this very batch
        raise self._conflict()

    def _conflict(self) -> VersionConflictError:
        batch = self._batch
        return VersionConflictError(
            aggregate_type=batch.aggregate_type,
            aggregate_id=batch.aggregate_id,
            expected=told_expected(self._expected),
            actual=self._version,
        )

    def _is_as_expected(self) -> bool:
        if self._expected is ANY:
            return True
        return (
            self._version > 0
            if self._expected is EXISTS
            else (self._version == stored_expected(self._expected))
        )

    async def _resent(self) -> tuple[AgentEvent, ...] | None:
        """The events of the ids as they are stored; None where they aren't after all."""
        batch = self._batch
        if self._protection is not None:
            batch = await self._protection.as_stored(self._db, self._conn)
        rows = await self._db.fetch(
            _STATEMENTS["find_resent"].bind(**batch.named(), **batch.content()), conn=self._conn
        )
        for row in rows:
            if not row["is_of_aggregate"]:
                raise _id_conflict(row, "as one of another aggregate")
            if not row["is_same"]:
                raise _id_conflict(row, "with other content")
        if rows and len(rows) < len(batch.events):
            raise _id_conflict(rows[0], "without others of these events")
        ids = [row["event_id"] for row in rows]
        if rows and ids != [event.event_id for event in batch.events]:
            raise _id_conflict(rows[0], "in another order")
        return batch.resent(rows) if rows else None

    def _has_guarded(self) -> bool:
        """Whether some of the types are known to be guarded."""
        known = known_guards(self._db, self._batch.tenant_id)
        return bool(known) and any(str(e.event_type) in known for e in self._batch.events)

    async def _find_keys(self) -> None:
        """Looks which of the types are guarded, and what is locked for that."""
        batch, condition = self._batch, self._condition
        of_events = {str(event.event_type) for event in batch.events}
        of_condition = set() if condition is None else set(condition.type_names)
        asked = of_events | of_condition
        known = known_guards(self._db, batch.tenant_id)
        guarded = asked & known
        if guarded != asked:
            find = _STATEMENTS["list_guards"].bind(tenant_id=batch.tenant_id, types=sorted(asked))
            rows = await self._db.fetch(find, conn=self._conn)
            guarded = {row["event_type"] for row in rows}
            if self._conn is None:  # else it may be rolled back
                known.update(guarded)
        if missing := sorted(of_condition - guarded):
            problem = (
                f"{missing[0]!r} isn't guarded, so that appends of it would slip past. Once, at "
                f"the start: await store.guard([{missing[0]!r}])"
            )
            raise InvalidArgumentError(argument="condition", problem=problem)
        self._keys = locked_keys(batch.tenant_id, batch.events, guarded, condition)


def _id_conflict(row: asyncpg.Record, problem: str) -> EventIdConflictError:
    return EventIdConflictError(event_id=row["event_id"], problem=problem)
