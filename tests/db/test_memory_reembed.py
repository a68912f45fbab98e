"""AgentMemory.reembed: another model's vectors, made while recalls go on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from langgraph_pgsaga import AgentMemory, Database, sync
from langgraph_pgsaga.errors import DimensionsError, InvalidArgumentError, MissingVectorsError
from langgraph_pgsaga.memory import SEMANTIC, EmbeddingProgress
from tests._embedders import DIMS, HashingEmbedder, hashed
from tests._require import require_pgvector
from tests.conftest import afetch

pytestmark = pytest.mark.anyio

NEW = 16


@pytest.fixture(autouse=True)
def needs_pgvector(dsn: str) -> None:
    require_pgvector(dsn)


@pytest.fixture
async def memory(dsn: str) -> AsyncIterator[AgentMemory]:
    """Forty memories of two users, one superseded, with vectors of 64 dimensions."""
    async with Database(dsn) as db:
        made = AgentMemory(db, embed=hashed, dims=DIMS)
        await made.setup()
        for user in ("u", "v"):
            await made.remember_many([f"memory w{n}" for n in range(19)], user_id=user)
        old = await made.remember("old", user_id="u")
        await made.remember("corrected", user_id="u", supersedes=old.memory_id)
        yield made


async def counts(dsn: str) -> dict[str, int]:
    rows = await afetch(dsn, "select model, count(*) from agent_memory_vectors group by model")
    return {row["model"]: row["count"] for row in rows}


async def test_recalls_go_by_the_old_vectors_until_all_are_there(
    memory: AgentMemory, dsn: str
) -> None:
    """Then by the new ones, in this memory; what another process has goes on as before."""
    other = AgentMemory(memory.db, embed=hashed, dims=DIMS)
    embedder, seen = HashingEmbedder(dims=NEW), []

    async def embed(texts: Any) -> Any:
        for one in (memory, other) if len(texts) > 1 else ():
            [found] = await one.recall("memory w7", user_id="u", k=1, scoring=SEMANTIC)
            seen.append((found.memory.content_text, round(found.semantic or 0, 2)))
        return embedder.embed_documents(texts)

    done = await memory.reembed(embed=embed, dims=NEW, model="new", batch=15)
    assert done == EmbeddingProgress(done=40, total=40)
    assert (set(seen), len(seen)) == ({("memory w7", 1.0)}, 6)
    assert await counts(dsn) == {"": 40, "new": 40}
    calls = len(embedder.calls)
    [found] = await memory.recall("memory w3", user_id="v", k=1, scoring=SEMANTIC)
    assert found.memory.content_text == "memory w3"
    assert len(embedder.calls) == calls + 1
    new = await memory.remember("memory w99", user_id="u")
    assert await counts(dsn) == {"": 40, "new": 41}
    by_words = await other.recall("memory w99", user_id="u", k=100)
    assert {one.memory.memory_id: one.semantic for one in by_words}[new.memory_id] is None
    assert await other.reembed() == EmbeddingProgress(done=1, total=1)
    assert await memory.delete_vectors("") == 41
    assert await counts(dsn) == {"new": 41}


async def test_what_is_remembered_meanwhile_is_embedded_too(memory: AgentMemory) -> None:
    """Wherever its id stands, and by whichever memory."""
    embedder = HashingEmbedder(dims=NEW)
    told: list[int] = []

    async def embed(texts: Any) -> Any:
        if len(told) < 12:
            told.append(1)
            await memory.remember(f"meanwhile {len(told)}", user_id="u")
        return embedder.embed_documents(texts)

    done = await memory.reembed(embed=embed, dims=NEW, model="new", batch=5)
    assert (done.done, done.total) == (52, 40)
    found = await memory.recall("meanwhile", user_id="u", k=100, scoring=SEMANTIC)
    assert all(one.semantic is not None for one in found)


async def test_progress_is_told_after_each_batch(memory: AgentMemory) -> None:
    """With how many there were."""
    told: list[EmbeddingProgress] = []
    embed = HashingEmbedder(dims=NEW)
    await memory.reembed(embed=embed, dims=NEW, model="new", batch=16, on_progress=told.append)
    assert [(one.done, one.total) for one in told] == [(16, 40), (32, 40), (40, 40)]
    assert [len(call) for call in embed.calls] == [16, 16, 8]


async def test_what_is_killed_goes_on_where_it_was(memory: AgentMemory, dsn: str) -> None:
    """What was embedded is stored, and isn't embedded again."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.db._reembedding", dsn),
        stdout=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert [await process.stdout.readline() for _ in range(2)] == [b"10 40\n", b"20 40\n"]
    finally:
        process.kill()
        await process.wait()
    assert await counts(dsn) == {"": 40, "new": 20}
    [found] = await memory.recall("memory w7", user_id="u", k=1, scoring=SEMANTIC)
    assert found.memory.content_text == "memory w7"
    embed = HashingEmbedder(dims=NEW)
    done = await memory.reembed(embed=embed, dims=NEW, model="new")
    assert done == EmbeddingProgress(done=20, total=20)
    assert sum(map(len, embed.calls)) == 20
    assert await counts(dsn) == {"": 40, "new": 40}


async def test_two_at_once_do_no_harm(memory: AgentMemory, dsn: str) -> None:
    """Nor does who erases memories meanwhile."""
    embed = HashingEmbedder(dims=NEW)
    others = [AgentMemory(memory.db, embed=hashed, dims=DIMS) for _ in range(3)]
    given: dict[str, Any] = {"embed": embed, "dims": NEW, "model": "new", "batch": 3}
    await asyncio.gather(*(one.reembed(**given) for one in others), memory.forget_user("v"))
    assert await counts(dsn) == {"": 21, "new": 21}


async def test_other_dimensions_are_refused_with_both_numbers(
    memory: AgentMemory, dsn: str
) -> None:
    """Of what the model gives, and of what it has stored; recalls go on as before."""
    with pytest.raises(DimensionsError, match="has 16 dimensions, and 32 are expected"):
        await memory.reembed(embed=HashingEmbedder(dims=16), dims=32, model="new")
    await memory.reembed(embed=HashingEmbedder(dims=16), dims=16, model="new")
    other = AgentMemory(memory.db, embed=hashed, dims=DIMS)
    with pytest.raises(DimensionsError, match="has 32 dimensions, and 16 are expected"):
        await other.reembed(embed=HashingEmbedder(dims=32), dims=32, model="new")
    [found] = await other.recall("memory w7", user_id="u", k=1, scoring=SEMANTIC)
    assert found.memory.content_text == "memory w7"
    assert await counts(dsn) == {"": 40, "new": 40}


async def test_a_tenant_has_its_own(memory: AgentMemory, dsn: str) -> None:
    """Nobody else's memories are embedded, or lose their vectors."""
    other = AgentMemory(memory.db, tenant="b", embed=hashed, dims=DIMS)
    await other.remember("tea", user_id="u")
    await other.reembed(embed=HashingEmbedder(dims=NEW), dims=NEW, model="new")
    assert await counts(dsn) == {"": 41, "new": 1}
    assert await other.delete_vectors("") == 1
    assert await counts(dsn) == {"": 40, "new": 1}


async def test_what_does_not_go_together_is_refused(memory: AgentMemory, dsn: str) -> None:
    """And says which argument it is; nothing is embedded."""
    embed = HashingEmbedder(dims=NEW)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"embed": embed, "model": "new"}, "dims"),
        ({"embed": embed, "dims": NEW}, "model"),
        ({"embed": embed, "dims": NEW, "model": ""}, "model"),
        ({"dims": NEW}, "dims"),
        ({"model": "new"}, "model"),
        ({"batch": 0}, "batch"),
        ({"on_progress": 5}, "on_progress"),
    ]
    for more, argument in wrong:
        with pytest.raises(InvalidArgumentError) as caught:
            await memory.reembed(**more)
        assert caught.value.argument == argument
    with pytest.raises(InvalidArgumentError, match="goes by"):
        await memory.delete_vectors("")
    with pytest.raises(InvalidArgumentError, match="embed"):
        await AgentMemory(memory.db).reembed()
    async with Database(dsn, schema="none") as db:
        none = AgentMemory(db)
        with pytest.raises(MissingVectorsError):
            await none.reembed(embed=embed, dims=NEW, model="new")
    assert await counts(dsn) == {"": 40}
    assert embed.calls == []


def test_sync_callers_embed_anew_too(dsn: str) -> None:
    """Also what was remembered without a model."""
    with Database(dsn) as db:
        memory = sync.AgentMemory(db, embed=hashed, dims=DIMS)
        memory.setup()
        sync.AgentMemory(db).remember_many(["tea", "dog"], user_id="u")
        assert memory.reembed().done == 2
        [found] = memory.recall("tea", user_id="u", k=1, scoring=SEMANTIC)
        assert found.memory.content_text == "tea"
