"""AgentMemory on a server without pgvector: all but vectors works, what needs them says so."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from langgraph_pgsaga import AgentMemory, Database
from langgraph_pgsaga.errors import InvalidArgumentError, MissingVectorsError
from langgraph_pgsaga.memory import (
    GENERATIVE_AGENTS,
    HYBRID,
    RANKS,
    SEMANTIC,
    TEXT,
    ForgettingPolicy,
    NewMemory,
)
from tests._embedders import DIMS, hashed
from tests._servers import postgres_server
from tests.conftest import execute, fetch, with_database

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def bare_server(public_tmp: Path) -> Iterator[str]:
    """The packages' server."""
    with postgres_server(public_tmp / "without-pgvector") as dsn:
        if fetch(dsn, "select from pg_available_extensions where name = 'vector'"):
            pytest.skip("the packages' server has pgvector")
        yield dsn


@pytest.fixture
def bare_dsn(bare_server: str) -> Iterator[str]:
    """A database of its own."""
    asyncio.run(execute(bare_server, "create database bare"))
    yield with_database(bare_server, "bare")
    asyncio.run(execute(bare_server, "drop database bare with (force)"))


@pytest.fixture
async def words(bare_dsn: str) -> AsyncIterator[AgentMemory]:
    """By words alone."""
    async with Database(bare_dsn) as db:
        memory = AgentMemory(db)
        await memory.setup()
        yield memory


def said(found: Any) -> list[str]:
    return [one.memory.content_text for one in found]


async def test_all_but_vectors_works(words: AgentMemory) -> None:
    """Words, importance, times, corrections, lists, a function's scores, policies, files."""
    tea = await words.remember("Ann drinks green tea", user_id="u", importance=1)
    given: list[NewMemory | str] = [NewMemory(text="Her dog is called Rex"), "She lives in Lisbon"]
    await words.remember_many(given, user_id="u")
    for scoring in (None, HYBRID, TEXT, RANKS, GENERATIVE_AGENTS):
        found = await words.recall("dogs", user_id="u", scoring=scoring)
        assert len(found) == 3
        assert {one.semantic for one in found} == {None}
    assert said(await words.recall("dogs", user_id="u", k=1)) == ["Her dog is called Rex"]
    assert said(await words.recall(None, user_id="u", k=1)) == ["Ann drinks green tea"]
    by_length = await words.recall(
        "x", user_id="u", k=1, scoring=lambda one, now: len(one.memory.content_text)
    )
    assert said(by_length) == ["Her dog is called Rex"]
    await words.remember("Ann drinks coffee", user_id="u", supersedes=tea.memory_id)
    assert "Ann drinks green tea" in said(
        await words.recall("tea", user_id="u", as_of=tea.recorded_at)
    )
    file = io.StringIO()
    assert await words.export(file) == 4
    await words.forget_user("u")
    assert (await words.import_(io.StringIO(file.getvalue()))).stored == 4
    result = await words.sweep([ForgettingPolicy(max_age=timedelta(0))])
    assert result.forgotten == 3
    await words.store.aput(("a",), "k", {"v": 1})


async def test_what_needs_vectors_says_what_is_missing(words: AgentMemory) -> None:
    """Nothing is stored by it, and what goes by words goes on."""
    memory = AgentMemory(words.db, embed=hashed, dims=DIMS)
    calls: list[Callable[[], Awaitable[object]]] = [
        memory.setup,
        lambda: memory.remember("a", user_id="u"),
        lambda: memory.recall("a", user_id="u"),
        memory.consolidate,
        memory.reembed,
        lambda: memory.delete_vectors("old"),
        lambda: memory.export(io.StringIO(), vectors=True),
        lambda: memory.import_(io.StringIO()),
        memory.store.asetup,
    ]
    for call in calls:
        with pytest.raises(MissingVectorsError):
            await call()
    with pytest.raises(MissingVectorsError, match=r"the server has no pgvector\. Install it"):
        await memory.setup()
    for more in ({"scoring": SEMANTIC}, {"lambda_mult": 0.5}):
        wrong: Any = more
        with pytest.raises(InvalidArgumentError, match="without embed"):
            await words.recall("a", user_id="u", **wrong)
    assert await memory.recall(None, user_id="u") == ()
    assert (await memory.list(user_id="u")).memories == ()
