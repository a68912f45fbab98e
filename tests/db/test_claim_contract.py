"""What docs/worker.md asks of a table that is claimed, tried with every one there is.

A system with a table of its own adds it to TABLES.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from langgraph_pgsaga import Database
from langgraph_pgsaga.database import Statement, load_statements
from langgraph_pgsaga.errors import ClaimLostError
from langgraph_pgsaga.events import Consumer, EventStore
from langgraph_pgsaga.work import Claims, ClaimTable, Periodic
from tests import _chores
from tests._connections import connected
from tests.db import _events

pytestmark = pytest.mark.anyio


@dataclass(frozen=True, kw_only=True)
class Case:
    """A claimed table: its one row is made by `make`, its outcome written by `end`."""

    name: str
    table: ClaimTable
    make: Callable[[Database, str], Awaitable[object]]
    end: Statement
    values: dict[str, Any]


async def _nothing() -> None:
    """No work."""


async def _at_once(_: object) -> None:
    """Nothing to do with an event."""


_CONSUMER = Consumer(name="consumer", handler=_at_once)
_CONSUMERS: Any = EventStore(Database("postgresql://nobody@/nowhere")).job(_CONSUMER)


async def _consumer_and_event(db: Database, _: str) -> None:
    """A consumer, and an event that it can read."""
    await _CONSUMERS.prepare(db)
    store = EventStore(db)
    await store.append("a", [_events.noted()], aggregate_type="desk")
    await _events.settled(store)


_JOB = Periodic(name="job", every_seconds=60, work=_nothing)
TABLES = {
    "chores": Case(
        name="chores",
        table=_chores.TABLE,
        make=lambda _, dsn: _chores.make(dsn),
        end=_chores.FINISH,
        values={},
    ),
    "agent_jobs": Case(
        name="agent_jobs",
        table=_JOB.table,
        make=lambda db, _: _JOB.prepare(db),
        end=load_statements("work")["finish_job"],
        values={"every_seconds": 60.0},
    ),
    "event_consumers": Case(
        name="event_consumers",
        table=_CONSUMERS.table,
        make=_consumer_and_event,
        end=load_statements("consumers")["end_consumer"],
        values={"era": 100, "tx": 1, "position": 1},
    ),
}


@pytest.fixture(params=TABLES)
async def case(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[tuple[Case, Any]]:
    """A table with one row that is due, and two owners who may claim it."""
    found = TABLES[request.param]
    async with Database(dsn) as db:
        await found.make(db, dsn)
        owners = [Claims(db), Claims(db)]
        yield found, owners
        for owner in owners:
            await owner.aclose()


async def row(dsn: str, case: Case) -> dict[str, Any]:
    (found,) = await _chores.rows(dsn, f"select *, now() from {case.name}")
    return dict(found)


async def test_claiming(dsn: str, case: Any) -> None:
    """Owner, end and fence are set, the attempt is counted; nobody else gets it until the end."""
    its, (first, second) = case
    (claim,) = await first.claim(its.table, 5)
    found = await row(dsn, its)
    assert (found["claimed_by"], found["fence"], found["attempts"]) == (first.owner, 1, 1)
    assert 25 < (found["claim_expires_at"] - found["now"]).total_seconds() <= 30
    assert (claim.fence, claim.attempt) == (1, 1)
    assert await second.claim(its.table, 5) == []
    await _chores.rows(dsn, f"update {its.name} set claim_expires_at = now()")
    (taken,) = await second.claim(its.table, 5)
    assert (taken.fence, taken.attempt) == (2, 2)


async def test_claiming_passes_over_what_is_locked_or_not_due(dsn: str, case: Any) -> None:
    """It waits for nobody."""
    its, (first, _) = case
    async with connected(dsn) as conn, conn.transaction():
        await conn.execute(f"select from {its.name} for update")
        assert await asyncio.wait_for(first.claim(its.table, 5), 30) == []
    await _chores.rows(dsn, f"update {its.name} set due_at = now() + interval '1 minute'")
    assert await first.claim(its.table, 5) == []


async def test_racing_claims(dsn: str, case: Any) -> None:
    """However many try at once, the row is one's."""
    its, (first, _) = case
    owners = [Claims(first.db) for _ in range(8)]
    got = await asyncio.gather(*(owner.claim(its.table, 5) for owner in owners))
    assert sum(len(claims) for claims in got) == 1
    for owner in owners:
        await owner.aclose()


async def test_renewing(dsn: str, case: Any) -> None:
    """Longer from now; not where somebody has it locked, which isn't lost; not another's."""
    its, (first, second) = case
    (claim,) = await first.claim(its.table, 5)
    await _chores.rows(dsn, f"update {its.name} set claim_expires_at = now()")
    await first._renew_all()
    found = await row(dsn, its)
    assert (found["claim_expires_at"] - found["now"]).total_seconds() > 25
    async with connected(dsn) as conn, conn.transaction():
        await conn.execute(f"select from {its.name} for update")
        before = claim.until
        await asyncio.wait_for(first._renew_all(), 30)
        assert (claim.is_lost, claim.until) == (False, before)
    await _chores.rows(dsn, f"update {its.name} set claim_expires_at = now()")
    await second.claim(its.table, 5)
    before_row = {**await row(dsn, its), "now": None}
    await first._renew_all()
    assert claim.is_lost
    assert {**await row(dsn, its), "now": None} == before_row


async def test_giving_back(dsn: str, case: Any) -> None:
    """Nobody's, at once, and the attempt isn't counted."""
    its, (first, second) = case
    await first.release(await first.claim(its.table, 5))
    found = await row(dsn, its)
    assert (found["claimed_by"], found["claim_expires_at"], found["attempts"]) == (None, None, 0)
    (taken,) = await second.claim(its.table, 5)
    assert taken.fence == 2


async def test_failing(dsn: str, case: Any) -> None:
    """Nobody's, and due after the delay; the attempt stays counted."""
    its, (first, second) = case
    (claim,) = await first.claim(its.table, 5)
    assert await first.fail(claim, error="why", delay_seconds=60.0)
    found = await row(dsn, its)
    assert (found["claimed_by"], found["attempts"], found["last_error"]) == (None, 1, "why")
    assert 55 < (found["due_at"] - found["now"]).total_seconds() <= 60
    assert await second.claim(its.table, 5) == []


async def test_an_outcome(dsn: str, case: Any) -> None:
    """It is written once, and ends the claim."""
    its, (first, second) = case
    (claim,) = await first.claim(its.table, 5)
    await claim.end(its.end, **its.values)
    assert (await row(dsn, its))["claimed_by"] is None
    assert await second.claim(its.table, 5) == []
    with pytest.raises(ClaimLostError):
        await claim.write(its.end, **its.values)


async def test_whoever_lost_it_changes_nothing(dsn: str, case: Any) -> None:
    """By no statement: neither where another has it, nor where nobody has it any more."""
    its, (first, second) = case
    (claim,) = await first.claim(its.table, 5)
    await _chores.rows(dsn, f"update {its.name} set claim_expires_at = now()")
    (taken,) = await second.claim(its.table, 5)
    for given_back in (False, True):
        if given_back:
            await second.release([taken])
        before = {**await row(dsn, its), "now": None}
        claim.is_lost = False
        with pytest.raises(ClaimLostError):
            await claim.end(its.end, **its.values)
        assert not await first.fail(claim, error="x", delay_seconds=1.0)
        await first.release([claim])
        assert {**await row(dsn, its), "now": None} == before
