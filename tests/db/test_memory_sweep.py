"""AgentMemory.sweep: what is forgotten by policies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from langgraph_pgsaga import AgentMemory, Database
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.memory import ForgettingPolicy, ForgettingResult, NewMemory

pytestmark = pytest.mark.anyio

DAY = timedelta(days=1)


@pytest.fixture
async def memory(dsn: str) -> AsyncIterator[AgentMemory]:
    """Memories from ten days ago, but for "new"; "used" was accessed three times, just now."""
    async with Database(dsn) as db:
        made = AgentMemory(db)
        given = [
            NewMemory(text="old", importance=1),
            NewMemory(text="used", importance=2),
            NewMemory(text="pinned", pinned=True),
            NewMemory(text="episode", type="episodic", importance=4),
            NewMemory(text="expired", importance=5, expires_at=datetime.now(UTC) - 5 * DAY),
        ]
        await made.remember_many(given, user_id="u")
        await made.remember("old of v", user_id="v")
        async with db.transaction() as conn:
            await conn.execute(
                "update agent_memory set created_at = now() - interval '10 days',"
                " last_accessed_at = case content_text when 'used' then now()"
                " else now() - interval '10 days' end,"
                " access_count = case content_text when 'used' then 3 else 0 end"
            )
        await made.remember("new", user_id="u", importance=3)
        yield made


async def left(memory: AgentMemory) -> set[str]:
    """The live memories of "u", those that have expired, too."""
    async with memory.db.transaction() as conn:
        rows = await conn.fetch(
            "select content_text from agent_memory where user_id = 'u' and forgotten_at is null"
        )
    return {row["content_text"] for row in rows}


ALL = {"old", "used", "pinned", "episode", "expired", "new"}


@pytest.mark.parametrize(
    ("rule", "gone"),
    [
        ({"max_age": 5 * DAY}, {"old", "used", "episode", "expired"}),
        ({"max_idle": 5 * DAY}, {"old", "episode", "expired"}),
        ({"max_age": 5 * DAY, "max_accesses": 2}, {"old", "episode", "expired"}),
        ({"max_accesses": 0, "types": ["episodic"]}, {"episode"}),
        ({"max_expired": 3 * DAY}, {"expired"}),
        ({"max_expired": 8 * DAY}, set()),
        ({"keep_best": 3}, {"old", "used", "new"}),
        ({"keep_best": 3, "max_age": DAY}, {"old", "used"}),
        ({"max_age": 20 * DAY}, set()),
    ],
)
@pytest.mark.parametrize("erase", [False, True])
async def test_everything_that_is_given_has_to_hold(
    memory: AgentMemory, rule: dict[str, Any], gone: set[str], erase: bool
) -> None:
    """A dry run counts the same and changes nothing; what is pinned stays."""
    policy = ForgettingPolicy(**rule, erase=erase)
    told = await memory.sweep([policy], dry_run=True)
    assert await left(memory) == ALL
    assert await memory.sweep([policy]) == told
    assert await left(memory) == ALL - gone
    assert (told.forgotten, told.erased)[not erase] == 0
    assert await memory.sweep([policy]) == ForgettingResult()


async def test_what_is_forgotten_was_known_and_what_is_erased_was_not(memory: AgentMemory) -> None:
    """As of a time before; an erasing policy takes what was forgotten, too."""
    before = datetime.now(UTC)
    await memory.sweep([ForgettingPolicy(max_age=5 * DAY)])
    assert await left(memory) == {"pinned", "new"}
    found = await memory.recall(None, user_id="u", as_of=before)
    assert {one.memory.content_text for one in found} >= {"old", "used", "episode"}
    result = await memory.sweep([ForgettingPolicy(max_age=5 * DAY, erase=True)])
    assert result.erased == 5  # with that of v
    found = await memory.recall(None, user_id="u", as_of=before)
    assert {one.memory.content_text for one in found} == {"pinned", "new"}


async def test_a_policy_that_says_nothing_is_refused(memory: AgentMemory) -> None:
    """It would take all; so is what isn't a time or a number."""
    for wrong in ({}, {"max_age": 5}, {"max_idle": -DAY}, {"keep_best": -1}, {"types": "a"}):
        given: Any = wrong
        with pytest.raises(InvalidArgumentError):
            ForgettingPolicy(**given)
    with pytest.raises(InvalidArgumentError, match="ForgettingPolicy"):
        await memory.sweep([5])  # type: ignore[list-item]


async def test_a_job_is_of_one_tenant(memory: AgentMemory) -> None:
    """Its name says which; what it does is a sweep."""
    other = AgentMemory(memory.db, tenant="other")
    policies = [ForgettingPolicy(max_age=timedelta(0))]
    assert other.job(policies).name == "forget other"
    job: Any = other.job(policies)
    await job.work()
    assert await left(memory) == ALL
    job = memory.job(policies)
    assert (await job.work()).forgotten == 6  # one is of v, and one is pinned
    assert await left(memory) == {"pinned"}
