"""AgentMemory.recall: by words, by vectors, by both, and as of a time."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from langgraph_pgsaga import AgentMemory, Database, PostgresSaver, sync
from langgraph_pgsaga.database import load_statements
from langgraph_pgsaga.doctor import CheckStatus, diagnose
from langgraph_pgsaga.errors import (
    DimensionsError,
    EmbeddingError,
    InvalidArgumentError,
    MissingCheckpointError,
    MissingVectorsError,
)
from langgraph_pgsaga.memory import (
    GENERATIVE_AGENTS,
    HYBRID,
    RANKS,
    SEMANTIC,
    TEXT,
    NewMemory,
    Scoring,
)
from tests._embedders import DIMS, HashedEmbeddings, hashed
from tests._require import require_pgvector
from tests.conftest import fetch
from tests.db._gates import graph_of
from tests.db._puts import config_of

pytestmark = pytest.mark.anyio

TEA = "Ann drinks green tea in the morning"
DOG = "Her dog is called Rex"
CITY = "She moved to Lisbon in 2021"
TRAIN = "The train to Porto leaves at nine"


@pytest.fixture
async def words(dsn: str) -> AsyncIterator[AgentMemory]:
    """A memory by words."""
    async with Database(dsn) as db:
        yield AgentMemory(db)


@pytest.fixture
async def memory(dsn: str) -> AsyncIterator[AgentMemory]:
    """A memory with vectors."""
    require_pgvector(dsn)
    async with Database(dsn) as db:
        made = AgentMemory(db, embed=HashedEmbeddings(), dims=DIMS)
        await made.setup()
        yield made


async def texts(memory: AgentMemory, query: str | None, **more: Any) -> list[str]:
    found = await memory.recall(query, user_id="u", **more)
    return [one.memory.content_text for one in found]


async def test_any_word_of_the_query_finds_a_memory(words: AgentMemory) -> None:
    """Words are stemmed, rare ones count more, and what has none comes last, but comes."""
    await words.remember_many([TEA, DOG, CITY, TRAIN], user_id="u")
    found = await texts(words, "Which dogs did she call, and where?")
    assert found[0] == DOG
    assert sorted(found) == sorted([TEA, DOG, CITY, TRAIN])
    assert (await texts(words, "mornings with teas", k=1)) == [TEA]
    assert len(await texts(words, "", k=3)) == 3
    assert len(await texts(words, "the of and", k=3)) == 3


async def test_scores_by_words_are_those_of_bm25(words: AgentMemory) -> None:
    """With k1 1.2 and b 0.75, over the memories of the scope; a word may be there many times."""
    rng = random.Random(5)
    vocabulary = [f"q{letter}" for letter in "abcdefghij"]
    known = [" ".join(rng.choices(vocabulary, k=rng.randint(3, 60))) for _ in range(40)]
    await words.remember_many(known, user_id="u")
    asked = ["qa", "qb", "qz"]
    counts = [Counter(text.split()) for text in known]
    average = sum(len(text.split()) for text in known) / len(known)
    expected = {}
    for text, count in zip(known, counts, strict=True):
        score = 0.0
        for word in asked:
            holding = sum(word in other for other in counts)
            idf = math.log(1 + (len(known) - holding + 0.5) / (holding + 0.5))
            share = 0.25 + 0.75 * len(text.split()) / average
            score += idf * count[word] * 2.2 / (count[word] + 1.2 * share)
        expected[text] = score
    found = await words.recall(" ".join(asked), user_id="u", k=40, scoring=TEXT)
    assert max(max(count.values()) for count in counts) > 10
    for one in found:
        assert one.text == pytest.approx(expected[one.memory.content_text], rel=1e-5)
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    "odd", ["it's 'quoted' | & !", "a\\b c:*", "日本語 и русский", "(", "x" * 5000, "🎉", "a & b"]
)
async def test_any_text_is_a_query(words: AgentMemory, odd: str) -> None:
    """Nothing of it is an operator."""
    await words.remember(odd, user_id="u")
    await words.remember("something else", user_id="u")
    assert len(await texts(words, odd)) == 2


async def test_what_was_said_around_is_searched_too(words: AgentMemory) -> None:
    """An answer is found by the words of its question."""
    await words.remember("Rex", user_id="u", context="What is your dog's name?")
    await words.remember("Blue", user_id="u", context="What is your favourite colour?")
    assert await texts(words, "the name of the dog", k=1) == ["Rex"]


async def test_a_language_is_that_of_the_words(dsn: str) -> None:
    """It says what is stemmed, and which words count; one that isn't there is refused at setup."""
    async with Database(dsn) as db:
        german = AgentMemory(db, language="german")
        await german.setup()
        await german.remember_many(["Die Häuser sind alt", "Der Zug fährt"], user_id="u")
        assert (await texts(german, "das Haus", k=1)) == ["Die Häuser sind alt"]
        simple = AgentMemory(db, language="simple")
        await simple.remember("Words as they are", thread_id="t")
        (found,) = await simple.recall("word", thread_id="t")
        assert found.text == 0
        with pytest.raises(InvalidArgumentError, match="latin"):
            await AgentMemory(db, language="latin").setup()


async def test_never_fewer_than_there_are(memory: AgentMemory) -> None:
    """Whatever they have in common with the query, and whether they have a vector."""
    await AgentMemory(memory.db).remember_many([f"n{i}" for i in range(5)], user_id="u")
    await memory.remember_many([TEA, DOG, CITY], user_id="u")
    for scoring in (None, HYBRID, TEXT, SEMANTIC, RANKS, GENERATIVE_AGENTS):
        for query in ("tea", "nothing in common", "", None):
            for k in (1, 7, 8, 100):
                found = await memory.recall(query, user_id="u", k=k, scoring=scoring)
                assert len(found) == min(k, 8)


async def test_words_count_and_vectors_half_as_much(memory: AgentMemory) -> None:
    """The default is the sum of both, each from its least to its greatest; both are told."""
    await memory.remember_many([TEA, DOG, CITY, TRAIN], user_id="u")
    query = "the dog and the train to Porto"
    found = await memory.recall(query, user_id="u")
    by_words = [one.text for one in found]
    near = [one.semantic or 0.0 for one in found]
    for one in found:
        expected = (one.text - min(by_words)) / (max(by_words) - min(by_words)) + 0.5 * (
            (one.semantic or 0.0) - min(near)
        ) / (max(near) - min(near))
        assert one.score == pytest.approx(expected)
        [asked], [stored] = hashed([query]), hashed([one.memory.content_text])
        cosine = sum(a * b for a, b in zip(asked, stored, strict=True))
        assert one.semantic == pytest.approx(cosine, abs=1e-2)
    assert found[0].memory.content_text == TRAIN


async def test_ranks_are_fused(memory: AgentMemory) -> None:
    """Each part gives 1 / (60 + its rank), by words only where there are some."""
    await memory.remember_many([TEA, DOG, CITY, TRAIN], user_id="u")
    found = await memory.recall("the dog and the train", user_id="u", scoring=RANKS)
    by_words = sorted((one.text for one in found), reverse=True)
    near = sorted((one.semantic or 0.0 for one in found), reverse=True)
    for one in found:
        expected = 1 / (61 + near.index(one.semantic or 0.0))
        expected += 1 / (61 + by_words.index(one.text)) if one.text else 0
        assert one.score == pytest.approx(expected)


async def test_recency_halves_in_its_half_life(words: AgentMemory) -> None:
    """Since the last access; `now` may be any time."""
    stored = await words.remember("a", user_id="u", importance=3)
    rule = Scoring(recency=1.0, importance=2.0, form="plain", half_life_seconds=3600)
    for hours in (0, 1, 3):
        now = stored.last_accessed_at + timedelta(hours=hours)
        [found] = await words.recall("x", user_id="u", scoring=rule, now=now, touch=False)
        assert found.recency == pytest.approx(0.5**hours)
        assert found.score == pytest.approx(0.5**hours + 6)


async def test_what_was_accessed_long_ago_has_no_recency_left(words: AgentMemory) -> None:
    """After more half-lives than a float can halve, too, and as of any time."""
    stored = await words.remember("a", user_id="u")
    rule = Scoring(recency=1.0, form="plain", half_life_seconds=60)
    now = stored.last_accessed_at + timedelta(days=30)
    [found] = await words.recall("a", user_id="u", scoring=rule, now=now, touch=False)
    assert found.score == pytest.approx(0)
    [found] = await words.recall("a", user_id="u", as_of=datetime(2999, 1, 1, tzinfo=UTC))
    assert found.memory.memory_id == stored.memory_id


async def test_without_a_query_the_most_important_come(words: AgentMemory) -> None:
    """The most important first; of one importance the newest."""
    given = [NewMemory(text=str(n), importance=n % 3) for n in range(6)]
    await words.remember_many(given, user_id="u")
    found = await words.recall(None, user_id="u", k=4)
    assert [one.score for one in found] == [2, 2, 1, 1]


async def test_a_batch_is_embedded_by_one_call(dsn: str) -> None:
    """LangChain's Embeddings, or a function, sync or async; each text once."""
    require_pgvector(dsn)
    embeddings = HashedEmbeddings()

    async def later(given: Any) -> Any:
        await asyncio.sleep(0)
        return hashed(given)

    async with Database(dsn) as db:
        embedders: list[Any] = [embeddings, hashed, later]
        for number, embed in enumerate(embedders):
            memory = AgentMemory(db, embed=embed, dims=DIMS)
            await memory.setup()
            user = str(number)
            await memory.remember_many([TEA, DOG, TEA], user_id=user)
            found = await memory.recall("tea", user_id=user, k=1, scoring=SEMANTIC)
            assert found[0].memory.content_text == TEA
    assert embeddings.calls == [[TEA, DOG]]


@pytest.mark.parametrize("kind", ["halfvec", "vector"])
@pytest.mark.parametrize("dims", [3, 4_100])
async def test_vectors_of_both_types_and_any_size(dsn: str, kind: Any, dims: int) -> None:
    """A row that doesn't fit its page is kept as well."""
    require_pgvector(dsn)

    def embed(given: Any) -> Any:
        return [[float(len(text)), *([0.5] * (dims - 1))] for text in given]

    async with Database(dsn) as db:
        memory = AgentMemory(db, embed=embed, dims=dims, vector_type=kind)
        await memory.setup()
        await memory.remember_many(["a", "bb" * 100], user_id="u")
        found = await memory.recall("c", user_id="u", scoring=SEMANTIC)
        assert [one.memory.content_text for one in found] == ["a", "bb" * 100]
        assert found[0].semantic == pytest.approx(1.0, abs=1e-3)


async def test_another_number_of_dimensions_is_refused(memory: AgentMemory) -> None:
    """With both numbers, by whoever stores or asks; another model has a name of its own."""
    await memory.remember(TEA, user_id="u")

    def embed(given: Any) -> Any:
        return [[1.0, 2.0] for _ in given]

    with pytest.raises(DimensionsError, match=r"has 2 dimensions, and 3 are expected"):
        await AgentMemory(memory.db, embed=embed, dims=3).remember("a", user_id="u")
    other = AgentMemory(memory.db, embed=embed, dims=2)
    expected = rf"has 2 dimensions, and {DIMS} are expected"
    with pytest.raises(DimensionsError, match=expected):
        await other.recall("tea", user_id="u")
    async with memory.db.transaction() as conn:
        with pytest.raises(DimensionsError, match=expected):
            await other.remember("a", user_id="u", conn=conn)
        assert await conn.fetchval("select count(*) from agent_memory") == 1
    named = AgentMemory(memory.db, embed=embed, dims=2, model="other")
    await named.remember(TEA, user_id="u")
    [found] = await named.recall("tea", user_id="u")
    assert found.semantic == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [None, [[1.0]], [["a"] * 3], [[math.nan] * 3], [[1.0] * 3] * 2, [[1.0, 1e6, 1]], [[1e300] * 3]],
)
async def test_a_vector_that_is_none_is_refused(memory: AgentMemory, wrong: Any) -> None:
    """Before anything is stored."""
    odd = AgentMemory(memory.db, embed=lambda _: wrong, dims=3, model="odd")
    with pytest.raises(EmbeddingError):
        await odd.remember("a", user_id="u")
    with pytest.raises(EmbeddingError):
        await odd.recall("a", user_id="u")
    assert (await memory.list(user_id="u")).memories == ()


async def test_recency_counts_beside_vectors_after_any_time(memory: AgentMemory) -> None:
    """As of a time that is many half-lives away."""
    await memory.remember(TEA, user_id="u")
    [found] = await memory.recall(TEA, user_id="u", as_of=datetime(2999, 1, 1, tzinfo=UTC))
    assert found.recency == pytest.approx(0)


async def test_without_tables_of_vectors_it_says_so(dsn: str, empty_dsn: str) -> None:
    """Without embed= all goes by words; what needs vectors names what to call."""
    async with Database(dsn) as db:
        memory = AgentMemory(db, embed=hashed, dims=DIMS)
        with pytest.raises(MissingVectorsError, match=r"memory\.setup"):
            await memory.remember("a", user_id="u")
        words = AgentMemory(db)
        await words.remember("a", user_id="u")
        assert len(await words.recall("a", user_id="u")) == 1
        with pytest.raises(InvalidArgumentError, match="vectors alone"):
            await words.recall("a", user_id="u", scoring=SEMANTIC)
    async with Database(empty_dsn) as db:
        await AgentMemory(db).setup()
        async with db.transaction() as conn:
            await conn.execute(
                "create or replace function pgsaga_create_vectors() returns text language plpgsql "
                "as $$ begin raise exception 'no' using errcode = 'feature_not_supported'; end $$"
            )
        with pytest.raises(MissingVectorsError, match="no pgvector"):
            await AgentMemory(db, embed=hashed, dims=DIMS).setup()


async def test_a_database_with_vectors_is_as_it_should_be(memory: AgentMemory) -> None:
    """Setting up again changes nothing, and the diagnosis finds nothing odd."""
    await memory.setup()
    found = await diagnose(memory.db)
    assert [one for one in found.checks if one.status is CheckStatus.FAIL] == []


async def test_the_view_has_the_original_columns(memory: AgentMemory) -> None:
    """Each can be selected, and is of its type."""
    await memory.remember(TEA, user_id="u")
    types = {
        "memory_id": "uuid",
        "session_id": "uuid",
        "user_id": "text",
        "memory_type": "text",
        "content_text": "text",
        "content_vector": "vector",
        "importance_score": "double precision",
        "access_count": "integer",
        "created_at": "timestamp with time zone",
        "last_accessed_at": "timestamp with time zone",
        "expires_at": "timestamp with time zone",
    }
    async with memory.db.transaction() as conn:
        for name, kind in types.items():
            row = await conn.fetchrow(
                f"select {name}::text as value, pg_typeof({name})::text as kind from agent_memories"
            )
            assert row is not None
            assert row["kind"] == kind
            is_null = name in ("session_id", "expires_at")
            assert (row["value"] is None) == is_null
        assert await conn.fetchval("select importance_score from agent_memories") == 0.0


# Times


async def test_what_is_over_is_not_recalled(words: AgentMemory) -> None:
    """What has expired, or doesn't hold at the time, isn't there, nor in lists."""
    now = datetime.now(UTC)
    day = timedelta(days=1)
    await words.remember("expired", user_id="u", expires_at=now - day)
    await words.remember("was so", user_id="u", valid_to=now - day)
    await words.remember("will be so", user_id="u", valid_from=now + day)
    await words.remember("is so", user_id="u", valid_from=now - day, valid_to=now + day)
    assert await texts(words, "so") == ["is so"]
    assert await texts(words, "so", now=now + 2 * day) == ["will be so"]
    assert await texts(words, None, now=now - 2 * day) == ["was so", "expired"]
    again = await words.remember("expired", user_id="u")
    assert again.expires_at is None
    assert "expired" in await texts(words, "so")


async def test_as_of_a_time_is_what_was_known_then(words: AgentMemory, dsn: str) -> None:
    """Whatever was corrected or forgotten since; what was erased isn't there."""
    old = await words.remember("Ann likes tea", user_id="u")
    dog = await words.remember("Her dog is Rex", user_id="u")
    secret = await words.remember("a secret", user_id="u")
    new = await words.remember("Ann likes coffee", user_id="u", supersedes=old.memory_id)
    await words.forget(dog.memory_id, user_id="u")
    await words.forget(secret.memory_id, user_id="u", erase=True)
    assert await texts(words, "Ann") == ["Ann likes coffee"]
    assert sorted(await texts(words, "Ann", as_of=dog.recorded_at)) == [
        "Ann likes tea",
        "Her dog is Rex",
    ]
    assert await texts(words, "Ann", as_of=old.recorded_at - timedelta(seconds=1)) == []
    assert sorted(await texts(words, "Ann", as_of=new.recorded_at)) == [
        "Ann likes coffee",
        "Her dog is Rex",
    ]


async def test_as_of_a_checkpoint_is_by_the_time_it_was_stored(saver: PostgresSaver) -> None:
    """By the server's clock, whatever the checkpoint's id says."""
    memory = AgentMemory(saver.db)
    graph = graph_of(saver, a=lambda _: {"items": ["a"]})
    await memory.remember("before", thread_id="t")
    await graph.ainvoke({"items": []}, config_of("t"))
    latest = await saver.aget_tuple(config_of("t"))
    assert latest is not None
    checkpoint_id = latest.config["configurable"]["checkpoint_id"]
    await memory.remember("after", thread_id="t")
    found = await memory.recall(None, thread_id="t", as_of_checkpoint=checkpoint_id)
    assert [one.memory.content_text for one in found] == ["before"]
    with pytest.raises(MissingCheckpointError):
        await memory.recall(None, thread_id="t", as_of_checkpoint="x")
    wrong: list[dict[str, Any]] = [{"user_id": "u"}]
    wrong.append({"thread_id": "t", "as_of": datetime.now(UTC)})
    for more in wrong:
        with pytest.raises(InvalidArgumentError, match="as_of_checkpoint"):
            await memory.recall(None, as_of_checkpoint=checkpoint_id, **more)


# Accesses


async def test_recalls_are_counted_apart(words: AgentMemory) -> None:
    """After the call, and together."""
    await words.remember_many(["tea", "dog"], user_id="u")
    for _ in range(3):
        await words.recall("tea", user_id="u", k=1)
    await words.recall("tea", user_id="u", k=1, touch=False)
    assert [m.access_count for m in (await words.list(user_id="u")).memories] == [0, 0]
    await words.flush()
    counts = {m.content_text: m for m in (await words.list(user_id="u")).memories}
    assert (counts["tea"].access_count, counts["dog"].access_count) == (3, 0)
    assert counts["tea"].last_accessed_at > counts["tea"].created_at


async def test_an_access_touches_no_index(words: AgentMemory) -> None:
    """Every one is a heap-only update, also where a page is full of others."""
    found = await words.remember_many([f"memory {n}" for n in range(300)], user_id="u")
    statement = load_statements("memory")["touch_memories"].bind(
        scope_ids=[one.scope_id for one in found[::10]],
        memory_ids=[one.memory_id for one in found[::10]],
        counts=[1] * 30,
        accessed_at=[one.created_at for one in found[::10]],
    )
    async with words.db.transaction() as conn:
        await words.db.fetch(statement, conn=conn)
        row = await conn.fetchrow(
            "select n_tup_upd, n_tup_hot_upd from pg_stat_xact_user_tables"
            " where relname = 'agent_memory'"
        )
    assert row is not None
    assert tuple(row) == (30, 30)


async def test_accesses_are_written_by_themselves(words: AgentMemory) -> None:
    """A little later, without anybody who waits."""
    await words.remember("a", user_id="u")
    await words.recall("a", user_id="u")
    while not (await words.list(user_id="u")).memories[0].access_count:
        await asyncio.sleep(0.05)


def test_sync_callers_have_the_same(dsn: str) -> None:
    """Through the database's own thread."""
    require_pgvector(dsn)
    with PostgresSaver.from_conn_string(dsn) as saver:
        memory = sync.AgentMemory(saver.db, embed=hashed, dims=DIMS)
        memory.setup()
        memory.remember(TEA, user_id="u")
        [found] = memory.recall("tea", user_id="u")
        assert found.memory.content_text == TEA
        memory.flush()
        [listed] = memory.list(user_id="u").memories
        assert listed.access_count == 1
    assert fetch(dsn, "select count(*) from agent_memory_vectors")[0][0] == 1
