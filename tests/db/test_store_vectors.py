"""Searches of the store by meaning: what is embedded, what is found, and in which order."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from langgraph.store.base import BaseStore, PutOp, SearchOp
from langgraph.store.memory import InMemoryStore

from langgraph_pgsaga.database import load_statements
from langgraph_pgsaga.errors import (
    EmbeddingError,
    InvalidArgumentError,
    ItemConflictError,
    MissingVectorsError,
    VectorTypeError,
)
from langgraph_pgsaga.memory import MemoryStore, VersionedPut
from langgraph_pgsaga.memory import vectors as of_vectors
from tests._connections import connection_of
from tests._embedders import HashingEmbedder
from tests.conftest import execute, fetch
from tests.db.test_statements import _check_types

pytestmark = pytest.mark.anyio


def index_of(embed: Any, dims: int = 64, **more: Any) -> Any:
    return {"dims": dims, "embed": embed, "fields": ["text"], **more}


@pytest.fixture(autouse=True)
def needs_pgvector(dsn: str) -> None:
    if not fetch(dsn, "select from pg_available_extensions where name = 'vector'"):
        pytest.skip("this server has no pgvector")


@pytest.fixture
def embedder() -> HashingEmbedder:
    return HashingEmbedder()


@pytest.fixture
async def store(dsn: str, embedder: HashingEmbedder) -> AsyncIterator[MemoryStore]:
    async with MemoryStore.from_conn_string(dsn, index=index_of(embedder)) as store:
        await store.asetup()
        yield store


@pytest.fixture(params=["ours", "in memory"])
async def either(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[BaseStore]:
    """Our store, and the one that LangGraph has for tests."""
    if request.param == "in memory":
        yield InMemoryStore(index=index_of(HashingEmbedder()))
        return
    async with MemoryStore.from_conn_string(dsn, index=index_of(HashingEmbedder())) as store:
        await store.asetup()
        yield store


def keys_of(found: Any) -> list[str]:
    return [item.key for item in found]


async def rows(dsn: str) -> list[tuple[str, str]]:
    found = await asyncio.to_thread(
        fetch, dsn, "select key, path from agent_store_vectors order by 1, 2"
    )
    return [(row["key"], row["path"]) for row in found]


async def test_the_nearest_are_found_first(either: BaseStore) -> None:
    """With scores that are the cosine, within the prefix and the filter."""
    texts = {"1": "green tea and cake with cream", "2": "green tea", "3": "a red car", "4": "tea"}
    await either.abatch(
        [PutOp(("a",), key, {"text": text, "n": int(key)}) for key, text in texts.items()]
    )
    await either.aput(("ab",), "other", {"text": "green tea"})
    found = await either.asearch(("a",), query="green tea")
    assert keys_of(found)[:3] == ["2", "4", "1"]
    assert found[0].score == pytest.approx(1.0, abs=1e-3)
    assert found[1].score == pytest.approx(1 / math.sqrt(2), abs=1e-3)
    assert keys_of(await either.asearch(("a",), query="green tea", filter={"n": 4})) == ["4"]
    assert keys_of(await either.asearch(("a",), query="green tea", limit=1, offset=1)) == ["4"]


async def test_the_best_vector_of_an_item_counts(either: BaseStore) -> None:
    """An item of several texts is found once."""
    await either.aput(("a",), "many", {"texts": ["red car", "green tea", "blue sky"]},
                      index=["texts[*]"])  # fmt: skip
    await either.aput(("a",), "one", {"text": "green tea cake"})
    found = await either.asearch(("a",), query="green tea")
    assert keys_of(found) == ["many", "one"]
    assert found[0].score == pytest.approx(1.0, abs=1e-3)


async def test_pages_joined_are_one_big_query(store: MemoryStore) -> None:
    """Also where all are as near as one another: then by namespace and key."""
    puts = [PutOp(("a", str(n % 7)), f"{n:02}", {"text": f"tea {n % 3}"}) for n in range(60)]
    await store.abatch(puts)
    whole = await store.asearch(("a",), query="tea 1", limit=100)
    pages = [
        await store.asearch(("a",), query="tea 1", limit=10, offset=n) for n in range(0, 60, 10)
    ]
    assert list(itertools.chain.from_iterable(pages)) == whole
    assert len(whole) == 60
    places = [(-(item.score or 0), item.namespace, item.key) for item in whole]
    assert places == sorted(places)


async def test_a_batch_has_several_queries(store: MemoryStore) -> None:
    """Each is answered, before the batch's puts."""
    await store.aput(("a",), "1", {"text": "green tea"})
    await store.aput(("a",), "2", {"text": "red car"})
    tea, _, car, newest = await store.abatch(
        [
            SearchOp(("a",), query="tea", limit=1),
            PutOp(("a",), "3", {"text": "tea"}),
            SearchOp(("a",), query="car", limit=1),
            SearchOp(("a",)),
        ]
    )
    assert [keys_of(tea), keys_of(car), keys_of(newest)] == [["1"], ["2"], ["2", "1"]]


@pytest.mark.parametrize(
    ("index", "paths"),
    [
        (None, ["text"]),
        (False, []),
        (["text"], ["text"]),
        (["meta.title"], ["meta.title"]),
        (["list[0].x", "list[-1].x"], ["list[-1].x", "list[0].x"]),
        (["list[*].x"], ["list[*].x.0", "list[*].x.1"]),
        (["meta.*"], ["meta.*.0", "meta.*.1"]),
        (["{text,meta.title}"], ["{text,meta.title}.0", "{text,meta.title}.1"]),
        (["$"], ["$"]),
        (["nobody"], []),
        (["text", "text"], ["text"]),
    ],
    ids=str,
)
async def test_paths_say_what_is_embedded(
    store: MemoryStore, dsn: str, index: Any, paths: list[str]
) -> None:
    """As LangGraph reads them, in the call or as the store's fields."""
    value = {"text": "a", "meta": {"title": "b", "sub": "c"}, "list": [{"x": "d"}, {"x": "e"}]}
    await store.aput(("a",), "k", value, index=index)
    assert await rows(dsn) == [("k", path) for path in paths]


@pytest.mark.parametrize("index", [False, ["other"], ["texts[*]"]], ids=str)
async def test_a_put_drops_the_vectors_that_it_has_not(
    store: MemoryStore, dsn: str, index: Any
) -> None:
    """Nothing is found by a text that the item has no longer, or no longer indexes."""
    await store.aput(("a",), "k", {"texts": ["green tea", "red car"]}, index=["texts[*]"])
    await store.aput(("a",), "k", {"texts": ["blue"], "other": "sky"}, index=index)
    assert len(await rows(dsn)) == (0 if index is False else 1)
    assert [item.score for item in await store.asearch(("a",), query="tea car") if item.score] == []
    await store.adelete(("a",), "k")
    assert await rows(dsn) == []


async def test_one_call_embeds_a_batch_and_only_what_is_new(
    store: MemoryStore, embedder: HashingEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text that the item has already isn't embedded again, nor is one twice."""
    monkeypatch.setattr(of_vectors, "_QUICK_SECONDS", 0.0)
    puts = [PutOp(("a",), str(n), {"text": f"text {n % 10}", "n": 1}) for n in range(20)]
    await store.abatch(puts)
    assert [len(call) for call in embedder.calls] == [10]
    await store.abatch([PutOp(("a",), str(n), {"text": f"text {n % 10}"}) for n in range(20)])
    await store.aput(("a",), "3", {"text": "text 3", "n": 3})
    assert len(embedder.calls) == 1
    await store.abatch([*puts[:5], PutOp(("a",), "5", {"text": "new"})])
    assert embedder.calls[1:] == [["new"]]
    found = await store.asearch(("a",), query="text 3", limit=2)
    assert keys_of(found) == ["13", "3"]


async def test_an_embedding_that_fails_stores_nothing(store: MemoryStore, dsn: str) -> None:
    """What it raises is what the caller gets."""

    def fail(texts: Any) -> list[list[float]]:
        raise ZeroDivisionError

    failing = MemoryStore(store.db, index=index_of(fail))
    with pytest.raises(ZeroDivisionError):
        await failing.aput(("a",), "k", {"text": "tea"})
    assert await store.aget(("a",), "k") is None


@pytest.mark.parametrize(
    ("vectors", "problem"),
    [
        ([[1.0] * 63], "63 dimensions, and 64"),
        ([[1.0] * 64] * 2, "2 vectors for 1 texts"),
        ([], "0 vectors"),
        ([[math.nan] * 64], "infinite"),
        ([[1.0] * 63 + [-math.inf]], "infinite"),
        ([[1.0] * 63 + [1e6]], "larger than halfvec holds"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
async def test_what_an_embedding_gives_is_checked(
    store: MemoryStore, vectors: Any, problem: str
) -> None:
    """With both numbers, and nothing is stored."""
    odd = MemoryStore(store.db, index=index_of(lambda _: vectors))
    with pytest.raises(EmbeddingError, match=problem):
        await odd.aput(("a",), "k", {"text": "tea"})
    with pytest.raises(EmbeddingError, match=problem):
        await odd.asearch(("a",), query="tea")
    assert await store.aget(("a",), "k") is None


def test_sync_callers_search_with_any_embedding(dsn: str) -> None:
    """A function, an async one, or an Embeddings."""
    embedder = HashingEmbedder()

    async def embed(texts: Any) -> list[list[float]]:
        return embedder.embed_documents(list(texts))

    kinds: list[Any] = [embedder, embed, lambda texts: embedder.embed_documents(list(texts))]
    for kind in kinds:
        with MemoryStore.from_conn_string(dsn, index=index_of(kind)) as store:
            store.setup()
            store.put(("a",), "tea", {"text": "green tea"})
            store.put(("a",), "car", {"text": "red car"})
            assert keys_of(store.search(("a",), query="tea", limit=1)) == ["tea"]


@pytest.mark.parametrize("vector_type", ["halfvec", "vector"])
@pytest.mark.parametrize(
    ("distance", "score"), [("cosine", 1.0), ("l2", -1.0), ("inner_product", 2.0)]
)
async def test_scores_are_as_langgraphs_store_gives_them(
    dsn: str, distance: str, score: float, vector_type: str
) -> None:
    """1 - the cosine's distance, minus the distance, and the inner product."""
    vectors = {"near": [2.0, 0.0], "far": [0.0, -2.0], "asked": [1.0, 0.0], "none": [0.0, 0.0]}
    index = index_of(
        lambda texts: [vectors[text] for text in texts],
        dims=2,
        distance_type=distance,
        ann_index_config={"vector_type": vector_type},
    )
    async with MemoryStore.from_conn_string(dsn, index=index) as store:
        await store.asetup()
        await store.abatch([PutOp(("a",), key, {"text": key}) for key in ("far", "near", "none")])
        found = await store.asearch(("a",), query="asked")
        assert found[0].key == "near" or distance == "l2"
        assert next(i.score for i in found if i.key == "near") == pytest.approx(score)
        assert all(item.score is not None and math.isfinite(item.score) for item in found)


@pytest.mark.parametrize("kind", ["hnsw", "ivfflat"])
@pytest.mark.parametrize("distance", ["cosine", "l2", "inner_product"])
async def test_an_approximate_index_finds_the_nearest_in_large_scopes(
    dsn: str, monkeypatch: pytest.MonkeyPatch, kind: str, distance: str
) -> None:
    """The index is used, and what it finds is in the exact order; small scopes stay exact."""
    monkeypatch.setattr(of_vectors, "_MOST_EXACT", 100)
    embedder = HashingEmbedder(8)
    approximate = {"kind": kind, "m": 16} if kind == "hnsw" else {"kind": kind, "nlist": 1}
    index = index_of(embedder, 8, distance_type=distance, ann_index_config=approximate)
    async with MemoryStore.from_conn_string(dsn, index=index) as store:
        await store.asetup()
        words = ["tea", "car", "sky", "red", "blue", "sun", "cake"]
        texts = [" ".join(pair) for pair in itertools.product(words, words, words)]
        await store.abatch(
            [PutOp(("a", str(n % 3)), f"{n:03}", {"text": t}) for n, t in enumerate(texts)]
        )
        exact = MemoryStore(store.db, index=index_of(embedder, 8, distance_type=distance))
        for prefix in (("a",), ("a", "1"), ()):
            found = await store.asearch(prefix, query="red tea", limit=5)
            wanted = await exact.asearch(prefix, query="red tea", limit=5)
            assert [item.score for item in found] == [item.score for item in wanted]
        rare = await store.asearch(("a",), query="red tea", filter={"text": texts[7]})
        assert keys_of(rare) == ["007"]
    used = "select idx_scan > 0 from pg_stat_user_indexes where indexrelname like '%nearest_idx'"
    assert await asyncio.to_thread(fetch, dsn, used)


@pytest.mark.parametrize("quick", [0.0, 1.0])
async def test_many_puts_of_one_key_leave_the_vector_of_its_text(
    store: MemoryStore, dsn: str, monkeypatch: pytest.MonkeyPatch, quick: float
) -> None:
    """Also where some put the text again that was there, whose vector was to stay."""
    monkeypatch.setattr(of_vectors, "_QUICK_SECONDS", quick)
    texts = ["green tea", "red car", "blue sky"]
    for _ in range(5):
        await asyncio.gather(
            *(store.aput(("a",), "k", {"text": texts[n % 3], "n": n}) for n in range(30))
        )
        item = await store.aget(("a",), "k")
        assert item is not None
        assert await rows(dsn) == [("k", "text")]
        (found,) = await store.asearch(("a",), query=item.value["text"])
        assert found.score == pytest.approx(1.0, abs=1e-3)


async def test_versions_transactions_and_vectors_go_together(store: MemoryStore, dsn: str) -> None:
    """What is refused or rolled back leaves the vectors as they were."""
    await store.aput(("a",), "k", {"text": "green tea"}, expected_version=0)
    with pytest.raises(ItemConflictError):
        await store.abatch(
            [
                VersionedPut(("a",), "k", {"text": "red car"}, expected_version=1),
                VersionedPut(("a",), "x", {"text": "red car"}, expected_version=1),
                PutOp(("a",), "y", {"text": "red car"}),
            ]
        )
    assert await rows(dsn) == [("k", "text")]
    async with store.db.transaction() as conn:
        await store.aput(("a",), "k", {"text": "red car"}, expected_version=1, conn=conn)
        await store.aput(("a",), "y", {"text": "red car"}, conn=conn)
        await store.adelete(("a",), "none", conn=conn)
    found = await store.asearch(("a",), query="red car")
    assert [round(item.score or 0, 2) for item in found] == [1.0, 1.0]


async def test_what_has_expired_is_not_found(store: MemoryStore, dsn: str) -> None:
    """And its vectors go with it when it is swept."""
    await store.aput(("a",), "k", {"text": "tea"}, ttl=1)
    await store.aput(("a",), "stays", {"text": "tea"}, ttl=5)
    await execute(dsn, "update agent_store_items set expires_at = now() where key = 'k'")
    assert keys_of(await store.asearch(("a",), query="tea")) == ["stays"]
    await store.asweep_ttl()
    assert await rows(dsn) == [("stays", "text")]


# What can't be


async def test_other_vectors_than_there_are_are_refused(
    store: MemoryStore, embedder: HashingEmbedder
) -> None:
    """With both types; where there are none yet the table is made anew."""
    small = MemoryStore(store.db, index=index_of(HashingEmbedder(8), 8))
    await small.asetup()
    await small.aput(("a",), "k", {"text": "tea"})
    with pytest.raises(VectorTypeError, match=r"halfvec\(8\).*halfvec\(64\)"):
        await store.asetup()
    await small.adelete(("a",), "k")
    await store.asetup()
    await store.asetup()
    await store.aput(("a",), "k", {"text": "tea"})


@pytest.mark.parametrize(
    "index",
    [
        {"dims": 8},
        {"embed": len},
        {"dims": 0, "embed": len},
        {"dims": 16_001, "embed": len},
        {"dims": 8, "embed": 5},
        {"dims": 8, "embed": len, "fields": [5]},
        {"dims": 8, "embed": len, "distance_type": "hamming"},
        {"dims": 8, "embed": len, "ann_index_config": {"kind": "other"}},
        {"dims": 8, "embed": len, "ann_index_config": {"kind": "hnsw", "m": "1); drop"}},
        {"dims": 8, "embed": len, "ann_index_config": {"vector_type": "bit"}},
        {"dims": 4001, "embed": len, "ann_index_config": {"kind": "hnsw"}},
        {"dims": 8, "embed": len, "filds": ["x"]},
        5,
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(dsn: str, index: Any) -> None:
    """Before anything is connected to."""
    with pytest.raises(InvalidArgumentError):
        MemoryStore.from_conn_string(dsn, index=index)


async def test_before_its_setup_vectors_are_missing(dsn: str, embedder: HashingEmbedder) -> None:
    """What needs none works, with no index at all, too."""
    async with MemoryStore.from_conn_string(dsn, index=index_of(embedder)) as store:
        with pytest.raises(MissingVectorsError, match="setup"):
            await store.aput(("a",), "k", {"text": "tea"})
        with pytest.raises(MissingVectorsError):
            await store.asearch(("a",), query="tea")
        assert await store.aget(("a",), "k") is None
        assert await store.asearch(("a",)) == []
        plain = MemoryStore(store.db)
        await plain.aput(("a",), "k", {"text": "tea"})
        assert keys_of(await plain.asearch(("a",), query="tea")) == ["k"]


async def test_a_server_without_pgvector_is_told(
    dsn: str, embedder: HashingEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By setup; and what needs no vectors works."""
    await execute(
        dsn,
        "create or replace function pgsaga_create_vectors() returns text language plpgsql as $$"
        "begin raise exception 'this server has no pgvector' using errcode = '0A000'; end $$",
    )
    async with MemoryStore.from_conn_string(dsn, index=index_of(embedder)) as store:
        with pytest.raises(MissingVectorsError, match="this server has no pgvector"):
            await store.asetup()
        await MemoryStore(store.db).aput(("a",), "k", {"text": "tea"})
        assert await store.aget(("a",), "k") is not None


@pytest.mark.parametrize(
    "statement", load_statements("store_vectors").values(), ids=lambda one: one.name
)
async def test_statements_have_the_types_of_their_headers(
    store: MemoryStore, statement: Any
) -> None:
    """On a database that has the vectors."""
    async with connection_of(store.db) as conn:
        await _check_types(conn, store.db, statement)


async def test_in_a_schema_of_its_own(
    new_database: Callable[..., str], embedder: HashingEmbedder
) -> None:
    """Wherever pgvector is."""
    dsn = await asyncio.to_thread(new_database)
    async with MemoryStore.from_conn_string(
        dsn, schema="own", index=index_of(embedder, ann_index_config={"kind": "hnsw"})
    ) as store:
        await store.asetup()
        await store.aput(("a",), "k", {"text": "tea"})
        assert keys_of(await store.asearch(("a",), query="tea")) == ["k"]
