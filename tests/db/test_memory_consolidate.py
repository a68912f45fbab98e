"""AgentMemory.consolidate: memories that say nearly the same become one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from langgraph_pgsaga import AgentMemory, Database, PostgresSaver, sync
from langgraph_pgsaga.errors import InvalidArgumentError, MissingVectorsError
from langgraph_pgsaga.memory import ConsolidationResult, Memory, MemorySource, NewMemory
from langgraph_pgsaga.work import this_step
from tests._embedders import DIMS, hashed
from tests._require import require_pgvector
from tests.db._consolidating import together
from tests.db._gates import graph_of
from tests.db._puts import config_of

pytestmark = pytest.mark.anyio

# One vector, but for what of it is rounded.
TEA = [
    "Ann drinks green tea in the morning",
    "In the morning Ann drinks green tea",
    "Green tea Ann drinks in the morning",
]
DOG = "Her dog is called Rex and barks"
NOTHING = ConsolidationResult()


@pytest.fixture(autouse=True)
def needs_pgvector(dsn: str) -> None:
    require_pgvector(dsn)


@pytest.fixture
async def memory(dsn: str) -> AsyncIterator[AgentMemory]:
    """With vectors."""
    async with Database(dsn) as db:
        made = AgentMemory(db, embed=hashed, dims=DIMS)
        await made.setup()
        yield made


async def live(memory: AgentMemory, user: str = "u") -> list[Memory]:
    return list((await memory.list(user_id=user, order="importance")).memories)


async def rows(memory: AgentMemory) -> list[Any]:
    async with memory.db.transaction() as conn:
        return await conn.fetch("select m::text from agent_memory m order by 1")


async def test_near_duplicates_become_the_most_important_of_them(memory: AgentMemory) -> None:
    """It has the counts, the metadata and the provenance of all; a second run changes nothing."""
    given = [
        NewMemory(text=TEA[0], importance=0.2, metadata={"a": 1, "b": 1}, pinned=False),
        NewMemory(text=TEA[1], importance=0.9, metadata={"b": 2}),
        NewMemory(text=TEA[2], importance=0.5, metadata={"c": 3}),
        NewMemory(text=DOG, importance=0.1),
    ]
    stored = await memory.remember_many(given, user_id="u")
    for text in (TEA[0], TEA[1], TEA[1], TEA[2]):
        await memory.remember(text, user_id="u")  # accesses
    then = (await memory.remember(DOG, user_id="u")).last_accessed_at
    assert await memory.consolidate() == ConsolidationResult(clusters=1, superseded=2)
    best, dog = await live(memory)
    assert (best.content_text, best.importance_score, best.access_count) == (TEA[1], 0.9, 4)
    assert best.metadata == {"a": 1, "b": 2, "c": 3}
    assert {one.memory_id for one in best.sources} == {stored[0].memory_id, stored[2].memory_id}
    assert (dog.content_text, dog.sources) == (DOG, ())
    gone = await memory.get(stored[0].memory_id, user_id="u")
    assert gone is not None
    assert gone.superseded_by == best.memory_id
    assert best.sources[0].recorded_at == stored[0].recorded_at
    before = await rows(memory)
    assert await memory.consolidate() == NOTHING
    assert await rows(memory) == before
    found = await memory.recall(None, user_id="u", as_of=then)
    assert len(found) == 4


async def test_what_lasts_longest_stays(memory: AgentMemory) -> None:
    """What is pinned isn't lost to a more important one; the later end, or none, counts."""
    end = datetime.now(UTC) + timedelta(days=3)
    await memory.remember(TEA[0], user_id="u", pinned=True, expires_at=end)
    await memory.remember(TEA[1], user_id="u", importance=5, expires_at=end - timedelta(days=1))
    await memory.consolidate(user_id="u")
    [kept] = await live(memory)
    assert (kept.content_text, kept.pinned, kept.importance_score) == (TEA[0], True, 5)
    assert kept.expires_at == end
    await memory.remember(TEA[2], user_id="u", importance=1)
    await memory.consolidate(user_id="u")
    [kept] = await live(memory)
    assert (kept.content_text, kept.expires_at, len(kept.sources)) == (TEA[0], None, 2)


async def test_provenance_is_kept_through_merges_and_erasure(saver: PostgresSaver) -> None:
    """Of what was merged into what is merged, too, with its thread, checkpoint and message."""
    memory = AgentMemory(saver.db, embed=hashed, dims=DIMS)
    await memory.setup()

    async def node(_: Any) -> dict[str, Any]:
        await memory.remember(TEA[0], user_id="u", message_no=4, conn=this_step())
        return {"items": []}

    await graph_of(saver, a=node).ainvoke({"items": []}, config_of("of tea"))
    [first] = await live(memory)
    await memory.remember(TEA[1], user_id="u", importance=1)
    await memory.consolidate()
    last = await memory.remember(TEA[2], user_id="u", importance=2)
    await memory.consolidate()
    for text in TEA[:2]:
        async with saver.db.transaction() as conn:
            await conn.execute("delete from agent_memory where content_text = $1", text)
    [kept] = await live(memory)
    assert kept.memory_id == last.memory_id
    origin = next(one for one in kept.sources if one.thread_id is not None)
    assert len(kept.sources) == 2
    assert origin == MemorySource(
        memory_id=first.memory_id,
        recorded_at=first.recorded_at,
        thread_id="of tea",
        checkpoint_ns="",
        checkpoint_id=first.source_checkpoint_id,
        message_no=4,
    )


async def test_only_what_belongs_together_is_merged(memory: AgentMemory) -> None:
    """Of one tenant, user, thread and type, with one time at which it holds, and live."""
    year = datetime(2025, 1, 1, tzinfo=UTC)
    await memory.remember(TEA[0], user_id="u")
    await memory.remember(TEA[1], user_id="v")
    await memory.remember(TEA[1], user_id="u", thread_id="t")
    await memory.remember(TEA[1], thread_id="t")
    await memory.remember(TEA[1], user_id="u", type="episodic")
    await memory.remember(TEA[1], user_id="u", valid_to=year)
    await memory.remember(TEA[2], user_id="u", expires_at=year)
    other = AgentMemory(memory.db, tenant="b", embed=hashed, dims=DIMS)
    await other.remember(TEA[1], user_id="u")
    before = await rows(memory)
    assert await memory.consolidate() == NOTHING
    assert await rows(memory) == before
    await memory.remember(TEA[2], thread_id="t")
    await other.remember(TEA[2], user_id="u")
    assert (await memory.consolidate(user_id="u", thread_id="t")) == NOTHING
    assert (await memory.consolidate(thread_id="t", types=["episodic"])) == NOTHING
    assert (await memory.consolidate(thread_id="t")).superseded == 1
    assert (await memory.consolidate()) == NOTHING
    assert len(await live(other)) == 2
    assert (await other.consolidate()).superseded == 1


async def test_all_that_stay_are_further_apart_than_the_threshold(memory: AgentMemory) -> None:
    """Also of many, over several batches; and each is near the one that superseded it."""
    words = [f"w{n}" for n in range(9)]
    texts = [" ".join(words[:n] + words[n + 1 :]) + f" x{m}" for n in range(9) for m in range(60)]
    stored = await memory.remember_many(texts, user_id="u")
    result = await memory.consolidate(threshold=0.86)
    left = [one.content_text for one in await memory_of_all(memory)]
    assert result.superseded == len(texts) - len(left)
    assert 1 < len(left) < len(texts) / 4
    vectors = dict(zip(texts, hashed(texts), strict=True))

    def near(one: str, other: str) -> float:
        return sum(a * b for a, b in zip(vectors[one], vectors[other], strict=True))

    assert max(near(a, b) for a in left for b in left if a < b) < 0.861
    by_id = {one.memory_id: one.content_text for one in stored}
    async with memory.db.transaction() as conn:
        gone = await conn.fetch(
            "select memory_id, superseded_by from agent_memory where superseded_at is not null"
        )
    assert all(near(by_id[r["memory_id"]], by_id[r["superseded_by"]]) > 0.859 for r in gone)
    assert await memory.consolidate(threshold=0.86) == NOTHING
    kept = {source.memory_id for one in await memory_of_all(memory) for source in one.sources}
    assert kept == {row["memory_id"] for row in gone}


async def memory_of_all(memory: AgentMemory) -> list[Memory]:
    return list((await memory.list(user_id="u", limit=1000)).memories)


# With a function


async def test_a_function_makes_new_ones_of_each_cluster(memory: AgentMemory) -> None:
    """Sync or async, of texts or NewMemory; they supersede what they were made of."""
    clusters: list[list[str]] = []

    async def merge(cluster: tuple[Memory, ...]) -> list[NewMemory | str]:
        clusters.append(sorted(one.content_text for one in cluster))
        return [NewMemory(text="Ann: tea", importance=0.7, type="semantic"), "Ann: mornings"]

    stored = await memory.remember_many([*TEA, DOG], user_id="u")
    result = await memory.consolidate(merge=merge)
    assert result == ConsolidationResult(clusters=1, superseded=3, created=2)
    assert clusters == [sorted(TEA)]
    tea, *others = await live(memory)
    assert {one.content_text for one in others} == {"Ann: mornings", DOG}
    assert (tea.content_text, tea.importance_score) == ("Ann: tea", 0.7)
    ids: set[UUID] = {one.memory_id for one in stored[:3]}
    for one in (tea, next(one for one in others if one.content_text == "Ann: mornings")):
        assert {source.memory_id for source in one.sources} == ids
    [found] = await memory.recall("tea", user_id="u", k=1)
    assert found.memory.memory_id == tea.memory_id
    assert found.semantic is not None
    before = await rows(memory)
    assert await memory.consolidate(merge=merge) == NOTHING
    assert (await rows(memory), len(clusters)) == (before, 1)


async def test_what_is_new_takes_in_what_is_near_it(memory: AgentMemory) -> None:
    """Until nothing more does: a second run finds nothing, whatever the ids are."""
    for number in range(12):
        await memory.remember(f"{TEA[0]} {number}", user_id="u")
    result = await memory.consolidate(
        merge=lambda cluster: cluster[0].content_text + "!", threshold=0.8
    )
    assert result.superseded >= 11
    before = await rows(memory)
    assert await memory.consolidate(merge=lambda _: "never", threshold=0.8) == NOTHING
    assert await rows(memory) == before


async def test_a_function_may_leave_a_cluster_or_keep_a_text(memory: AgentMemory) -> None:
    """None and an empty list change nothing; a text that is there stays the row that it is."""
    stored = await memory.remember_many(TEA, user_id="u")
    before = await rows(memory)
    nothing: Any
    for nothing in (None, []):
        assert await memory.consolidate(merge=lambda _, given=nothing: given) == NOTHING
    assert await rows(memory) == before
    result = await memory.consolidate(merge=lambda _: TEA[1])
    assert (result.clusters, result.superseded) == (1, 2)
    [kept] = await live(memory)
    assert kept.memory_id == stored[1].memory_id
    assert len(kept.sources) == 2


async def test_what_a_function_gives_wrongly_changes_nothing(memory: AgentMemory) -> None:
    """Nor does what it raises."""
    await memory.remember_many(TEA, user_id="u")
    before = await rows(memory)
    wrong: list[Any] = [5, [5], {"text": "a"}, "", b"a"]
    for given in wrong:
        with pytest.raises(InvalidArgumentError):
            await memory.consolidate(merge=lambda _, given=given: given)

    def broken(_: Any) -> str:
        raise LookupError

    with pytest.raises(LookupError):
        await memory.consolidate(merge=broken)
    assert await rows(memory) == before


async def test_a_cluster_that_changed_meanwhile_is_left(memory: AgentMemory) -> None:
    """Somebody else's correction isn't overwritten, and nothing of the cluster is lost."""
    stored = await memory.remember_many(TEA, user_id="u")

    async def merge(cluster: Any) -> str:
        await memory.forget(stored[1].memory_id, user_id="u")
        return "merged"

    assert await memory.consolidate(merge=merge) == NOTHING
    assert {one.content_text for one in await live(memory)} == {TEA[0], TEA[2]}


async def test_runs_at_once_merge_each_memory_once(memory: AgentMemory) -> None:
    """However many there are: the counts are those of all, and no provenance is there twice."""
    stored = await memory.remember_many([f"{TEA[0]} {n}" for n in range(20)], user_id="u")
    for one in stored:
        await memory.remember(one.content_text, user_id="u")
    await asyncio.gather(*(memory.consolidate(threshold=0.8) for _ in range(4)))
    left = await live(memory)
    sources = [source.memory_id for one in left for source in one.sources]
    assert len(sources) == len(set(sources)) == 20 - len(left)
    assert sum(one.access_count for one in left) == 20


async def test_what_is_killed_in_the_middle_loses_nothing(memory: AgentMemory, dsn: str) -> None:
    """Each memory is live, or superseded by what was made of it; the next run does the rest."""
    groups = ["alpha beta gamma delta", "iota kappa lambda mu", "sigma tau phi chi"]
    texts = [f"{group} {n}" for group in groups for n in range(2)]
    stored = await memory.remember_many(texts, user_id="u")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.db._consolidating", dsn, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        said = [await process.stdout.readline() for _ in range(2)]
        assert said[1] == b"cluster 2\n"
    finally:
        process.kill()
        await process.wait()
    now = {one.memory_id: one for one in await live(memory)}
    assert len(now) == 5
    [merged] = [one for one in now.values() if one.sources]
    gone = {one.memory_id for one in stored} - set(now)
    assert {source.memory_id for source in merged.sources} == gone
    result = await memory.consolidate(merge=together, threshold=0.75)
    assert (result.clusters, result.superseded) == (2, 4)
    known = " ".join(one.content_text for one in await live(memory)).split()
    assert set(known) == set(" ".join(texts).split())


# Around it


async def test_a_job_consolidates_its_tenant(memory: AgentMemory) -> None:
    """Its name says which; what it does is a run."""
    await memory.remember_many(TEA, user_id="u")
    other = AgentMemory(memory.db, tenant="b", embed=hashed, dims=DIMS)
    job: Any = other.consolidate_job()
    assert (job.name, await job.work()) == ("consolidate b", NOTHING)
    job = memory.consolidate_job(threshold=0.9)
    assert (job.name, (await job.work()).superseded) == ("consolidate", 2)


async def test_it_needs_vectors(memory: AgentMemory, dsn: str) -> None:
    """And says what is missing; so it does of what can't be used."""
    with pytest.raises(InvalidArgumentError, match="embed"):
        await AgentMemory(memory.db).consolidate()
    async with Database(dsn, schema="none") as db:
        with pytest.raises(MissingVectorsError):
            await AgentMemory(db, embed=hashed, dims=DIMS).consolidate()
    wrong: list[dict[str, Any]] = [{"threshold": 0}, {"threshold": 1.1}, {"threshold": "a"}]
    wrong += [{"merge": "a"}, {"types": "semantic"}, {"user_id": ""}]
    for more in wrong:
        with pytest.raises(InvalidArgumentError) as caught:
            await memory.consolidate(**more)
        assert caught.value.argument == next(iter(more))


async def test_both_types_of_vectors_are_compared(memory: AgentMemory) -> None:
    """Whichever each memory has."""
    await memory.remember(TEA[0], user_id="u")
    full = AgentMemory(memory.db, embed=hashed, dims=DIMS, vector_type="vector")
    await full.remember(TEA[1], user_id="u")
    assert (await memory.consolidate()).superseded == 1


def test_sync_callers_consolidate_too(dsn: str) -> None:
    """With functions that are sync."""
    with Database(dsn) as db:
        memory = sync.AgentMemory(db, embed=hashed, dims=DIMS)
        memory.setup()
        memory.remember_many(TEA, user_id="u")
        assert memory.consolidate(merge=lambda _: "tea").created == 1
        assert [one.content_text for one in memory.list(user_id="u").memories] == ["tea"]
