"""A table of chores that are claimed, and a job that does them: what any system would bring."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg

from langgraph_pgsaga import Database
from langgraph_pgsaga.database import Statement
from langgraph_pgsaga.work import Claim, ClaimTable, Retry
from tests._connections import connected
from tests._limits import HANG_SECONDS

FULL = bool(os.environ.get("PGSAGA_FULL"))
TABLES = (
    """
    create table chores (
      chore_id integer primary key,
      due_at timestamptz not null default now(),
      attempts integer not null default 0,
      last_error text,
      claimed_by uuid,
      claim_expires_at timestamptz,
      fence bigint not null default 0,
      outcome text
    )
    """,
    """
    create table chore_log (
      chore_id integer, fence bigint, what text, worker uuid,
      at timestamptz default clock_timestamp()
    )
    """,
)


def _statement(
    name: str, text: str, params: Sequence[tuple[str, str]], columns: Sequence[tuple[str, str]]
) -> Statement:
    return Statement(
        name=name, text=text, params=tuple(params), columns=tuple(columns), shard="all"
    )


_OWNER = ("claimed_by", "uuid")
_ONE = [_OWNER, ("chore_id", "integer"), ("fence", "bigint")]
_MANY = [_OWNER, ("chore_ids", "integer[]"), ("fences", "bigint[]")]
_LEASE = ("lease_seconds", "float8")

CLAIM = _statement(
    "claim_chores",
    """
    with due as materialized (
      select c.chore_id from chores c
      where c.due_at <= pgsaga_now() and c.outcome is null
        and (c.claim_expires_at is null or c.claim_expires_at <= pgsaga_now())
      order by c.due_at, c.chore_id limit $3 for update skip locked
    ),
    claimed as (
      update chores c set claimed_by = $1, claim_expires_at = pgsaga_after(pgsaga_now(), $2),
        fence = c.fence + 1, attempts = c.attempts + 1
      from due d where c.chore_id = d.chore_id
      returning c.chore_id, c.fence, c.attempts
    ),
    logged as (
      insert into chore_log (chore_id, fence, what, worker)
      select chore_id, fence, 'claimed', $1 from claimed
    )
    select chore_id, fence, attempts from claimed
    """,
    [_OWNER, _LEASE, ("page", "bigint")],
    [("chore_id", "integer"), ("fence", "bigint"), ("attempts", "integer")],
)
RENEW = _statement(
    "renew_chores",
    """
    with had as materialized (
      select c.chore_id from unnest($2::integer[], $3::bigint[]) i (chore_id, fence)
      join chores c on c.chore_id = i.chore_id and c.fence = i.fence and c.claimed_by = $1
    ),
    free as materialized (
      select c.chore_id, c.fence from had h join chores c on c.chore_id = h.chore_id
      for update of c skip locked
    ),
    renewed as (
      update chores c set claim_expires_at = pgsaga_after(pgsaga_now(), $4)
      from free f where c.chore_id = f.chore_id and c.fence = f.fence and c.claimed_by = $1
      returning c.chore_id
    )
    select h.chore_id, r.chore_id is not null as is_renewed
    from had h left join renewed r on r.chore_id = h.chore_id
    """,
    [*_MANY, _LEASE],
    [("chore_id", "integer"), ("is_renewed", "boolean")],
)
RELEASE = _statement(
    "release_chores",
    """
    update chores c set claimed_by = null, claim_expires_at = null, attempts = c.attempts - 1
    from unnest($2::integer[], $3::bigint[]) i (chore_id, fence)
    where c.chore_id = i.chore_id and c.fence = i.fence and c.claimed_by = $1
    """,
    _MANY,
    [],
)
FAIL = _statement(
    "fail_chore",
    """
    update chores set claimed_by = null, claim_expires_at = null, last_error = $4,
      outcome = case when $5::float8 is null then 'failed' end,
      due_at = coalesce(pgsaga_after(pgsaga_now(), $5), due_at)
    where chore_id = $2 and fence = $3 and claimed_by = $1
    returning fence
    """,
    [*_ONE, ("error", "text"), ("delay_seconds", "float8")],
    [("fence", "bigint")],
)
FINISH = _statement(
    "finish_chore",
    """
    with done as (
      update chores set claimed_by = null, claim_expires_at = null, outcome = 'done'
      where chore_id = $2 and fence = $3 and claimed_by = $1
      returning fence
    )
    insert into chore_log (chore_id, fence, what, worker)
    select $2, fence, 'done', $1 from done
    returning fence
    """,
    _ONE,
    [("fence", "bigint")],
)
TABLE = ClaimTable(key=("chore_id",), claim=CLAIM, renew=RENEW, release=RELEASE, fail=FAIL)

Work = Callable[[Claim], Awaitable[None]]


async def at_once(claim: Claim) -> None:
    """Work that takes no time."""


class Chores:
    """The job: `work` is what each chore takes; then it is done."""

    name = "chores"
    topic = "chores"
    table = TABLE
    longest_poll_seconds = 1.0

    def __init__(self, work: Work = at_once, *, concurrency: int = 1, retry: Retry | None = None):
        self.work = work
        self.concurrency = concurrency
        self.retry = retry or Retry()

    async def prepare(self, db: Database) -> None:
        """There is nothing to prepare."""

    async def run(self, claim: Claim) -> None:
        await self.work(claim)
        await claim.end(FINISH)


async def make(dsn: str, count: int = 1) -> None:
    """The tables, with so many chores from 1 on."""
    async with connected(dsn) as conn:
        for text in TABLES:
            await conn.execute(text)
    await add(dsn, *range(1, count + 1))


async def add(dsn: str, *chore_ids: int) -> None:
    async with connected(dsn) as conn:
        await conn.executemany(
            "insert into chores (chore_id) values ($1)", [(i,) for i in chore_ids]
        )


async def rows(dsn: str, query: str, *args: Any) -> list[asyncpg.Record]:
    async with connected(dsn) as conn:
        found: list[asyncpg.Record] = await conn.fetch(query, *args)
        return found


async def until(dsn: str, condition: str, *args: Any) -> None:
    """Returns once an SQL condition holds."""
    async with asyncio.timeout(HANG_SECONDS), connected(dsn) as conn:
        while not await conn.fetchval(f"select {condition}", *args):
            await asyncio.sleep(0.005)


async def all_done(dsn: str) -> None:
    await until(dsn, "not exists (select from chores where outcome is distinct from 'done')")


async def assert_each_was_done_once(dsn: str) -> None:
    """Of every chore one outcome was written, by the claim that was its last."""
    wrong = await rows(
        dsn,
        "select c.chore_id, c.fence, c.outcome, array_agg(l.fence) as done_by"
        " from chores c left join chore_log l on l.chore_id = c.chore_id and l.what = 'done'"
        " group by c.chore_id having array_agg(l.fence) <> array[c.fence] or c.outcome <> 'done'",
    )
    assert wrong == []
