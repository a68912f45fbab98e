"""AgentMemory.recall with a function that scores, and with memories that are to differ."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from langgraph_pgsaga import AgentMemory, Database
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.memory import SEMANTIC, NewMemory, Recalled
from tests._embedders import DIMS, HashedEmbeddings, hashed
from tests._require import require_pgvector

pytestmark = pytest.mark.anyio

KNOWN = [
    "Ann drinks green tea",
    "Ann drinks green tea daily",
    "Ann drinks green tea often",
    "Ann has a dog called Rex",
    "The dog drinks water",
    "Trains to Porto leave at nine",
    "Rex is green with envy",
]
QUERY = "what green tea does Ann drinks"


@pytest.fixture
async def memory(dsn: str) -> AsyncIterator[AgentMemory]:
    """With vectors, of the user "u"."""
    require_pgvector(dsn)
    async with Database(dsn) as db:
        made = AgentMemory(db, embed=HashedEmbeddings(), dims=DIMS)
        await made.setup()
        yield made


def said(found: Any) -> list[str]:
    return [one.memory.content_text for one in found]


# Memories that differ


@pytest.mark.parametrize("lambda_mult", [0.0, 0.3, 0.5, 0.8, 1.0])
async def test_what_differs_is_chosen_as_langchain_does(
    memory: AgentMemory, lambda_mult: float
) -> None:
    """By vectors alone, for each share of relevance: the same, in the same order."""
    await memory.remember_many(KNOWN, user_id="u")
    found = await memory.recall(
        QUERY, user_id="u", k=4, fetch_k=6, scoring=SEMANTIC, lambda_mult=lambda_mult
    )
    near = await memory.recall(QUERY, user_id="u", k=6, scoring=SEMANTIC)
    vectors = hashed(said(near))
    places = maximal_marginal_relevance(
        np.array(hashed([QUERY])[0]), vectors, lambda_mult=lambda_mult, k=4
    )
    assert said(found) == [said(near)[place] for place in places]


async def test_repeats_make_way_for_what_is_new(memory: AgentMemory) -> None:
    """By words and vectors, too; without it the near ones come first, and k are given."""
    await memory.remember_many(KNOWN, user_id="u")
    plain = await memory.recall(QUERY, user_id="u", k=3)
    assert set(said(plain)) == set(KNOWN[:3])
    mixed = await memory.recall(QUERY, user_id="u", k=3, lambda_mult=0.3)
    assert said(mixed)[0] == said(plain)[0]
    assert len(set(said(mixed)) & set(KNOWN[:3])) == 1
    parts = {one.memory.memory_id: one for one in await memory.recall(QUERY, user_id="u")}
    for one in mixed:
        told = parts[one.memory.memory_id]
        assert (told.score, told.text, told.semantic) == (one.score, one.text, one.semantic)


async def test_never_fewer_than_there_are_when_they_are_to_differ(memory: AgentMemory) -> None:
    """Also of memories without a vector, and of both types of vectors, without a query, too."""
    await AgentMemory(memory.db).remember_many(["no vector", "none here"], user_id="u")
    await memory.remember_many(KNOWN[:3], user_id="u")
    full = AgentMemory(memory.db, embed=hashed, dims=DIMS, vector_type="vector")
    await full.remember_many(KNOWN[3:5], user_id="u")
    for query in (QUERY, "nothing", "", None):
        for k in (1, 6, 7, 40):
            found = await memory.recall(query, user_id="u", k=k, lambda_mult=0.5)
            assert len(said(found)) == len(set(said(found))) == min(k, 7)


# A function of one's own


async def test_a_function_gives_the_scores(memory: AgentMemory) -> None:
    """Sync or async, of the parts, the memory and the time; the highest is first."""
    given = [NewMemory(text=text, importance=n) for n, text in enumerate(KNOWN)]
    await memory.remember_many(given, user_id="u")
    asked: list[tuple[Recalled, datetime]] = []

    def scored(found: Recalled, now: datetime) -> float:
        asked.append((found, now))
        return -found.importance + (100 if "Porto" in found.memory.content_text else 0)

    async def scored_later(found: Recalled, now: datetime) -> float:
        await asyncio.sleep(0)
        return scored(found, now)

    for function in (scored, scored_later):
        found = await memory.recall(QUERY, user_id="u", k=2, scoring=function)
        assert said(found) == [KNOWN[5], KNOWN[0]]
        assert [one.score for one in found] == [95, 0]
    assert {one.memory.content_text for one, _ in asked} == set(KNOWN)
    parts = {one.memory.content_text: one for one, _ in asked}
    usual = await memory.recall(QUERY, user_id="u", k=7)
    for one in usual:
        told = parts[one.memory.content_text]
        assert (told.text, told.semantic) == (one.text, one.semantic)


async def test_a_function_is_told_the_time_of_the_recall(memory: AgentMemory) -> None:
    """The one that is passed, or the server's; recency is counted to it."""
    stored = await memory.remember(KNOWN[0], user_id="u")
    then = stored.last_accessed_at + timedelta(days=7)
    times: list[datetime] = []

    def scored(found: Recalled, now: datetime) -> float:
        times.append(now)
        assert found.recency == pytest.approx(0.5 ** ((now - stored.created_at).days / 7))
        return (now - found.memory.created_at) / timedelta(days=1)

    [found] = await memory.recall("tea", user_id="u", scoring=scored, now=then)
    assert (found.score, times) == (7, [then])
    [found] = await memory.recall(None, user_id="u", scoring=lambda one, now: now.timestamp())
    assert abs(found.score - stored.created_at.timestamp()) < 600


async def test_a_function_is_asked_of_the_best_only(memory: AgentMemory) -> None:
    """Of fetch_k of the usual scoring; then they may be chosen to differ."""
    await memory.remember_many([f"note {n}" for n in range(40)], user_id="u")
    asked: list[str] = []

    def scored(found: Recalled, now: datetime) -> float:
        asked.append(found.memory.content_text)
        return float(found.memory.content_text.split()[1])

    for fetch_k, expected in ((None, 20), (5, 5), (40, 40)):
        asked.clear()
        found = await memory.recall("note", user_id="u", k=3, scoring=scored, fetch_k=fetch_k)
        assert len(asked) == expected
        assert said(found) == sorted(asked, key=lambda text: -int(text.split()[1]))[:3]
    found = await memory.recall("note", user_id="u", k=3, scoring=scored, lambda_mult=0.9)
    assert len(found) == 3


async def test_what_a_function_raises_the_caller_gets(memory: AgentMemory) -> None:
    """And what isn't a finite number is refused, and nothing is counted as an access."""
    await memory.remember("a", user_id="u")

    def broken(found: Recalled, now: datetime) -> float:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await memory.recall("a", user_id="u", scoring=broken)
    odd: list[Any] = [None, "1", math.nan, math.inf, True]
    for score in odd:
        with pytest.raises(InvalidArgumentError, match="finite number"):
            await memory.recall("a", user_id="u", scoring=lambda _, __, score=score: score)
    await memory.flush()
    [stored] = (await memory.list(user_id="u")).memories
    assert stored.access_count == 0


async def test_what_does_not_go_together_is_refused(memory: AgentMemory) -> None:
    """And says which argument it is."""
    words = AgentMemory(memory.db)
    wrong: list[tuple[AgentMemory, dict[str, Any], str]] = [
        (memory, {"lambda_mult": 1.5}, "lambda_mult"),
        (memory, {"lambda_mult": "0.5"}, "lambda_mult"),
        (memory, {"fetch_k": 5}, "fetch_k"),
        (memory, {"fetch_k": 2, "lambda_mult": 0.5}, "fetch_k"),
        (memory, {"fetch_k": 1_001, "lambda_mult": 0.5}, "fetch_k"),
        (memory, {"scoring": lambda: 1.0}, "scoring"),
        (memory, {"scoring": "hybrid"}, "scoring"),
        (words, {"lambda_mult": 0.5}, "lambda_mult"),
    ]
    for one, more, argument in wrong:
        with pytest.raises(InvalidArgumentError) as caught:
            await one.recall("a", user_id="u", k=3, **more)
        assert caught.value.argument == argument
    assert await words.recall("a", user_id="u", scoring=lambda found, now: 1.0) == ()
