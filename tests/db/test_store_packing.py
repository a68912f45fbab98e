"""How vectors of the store reach the server: packed, in one round trip, beside users' codecs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest
from langgraph.store.base import PutOp

from langgraph_pgsaga.database import Connection, Database
from langgraph_pgsaga.errors import EmbeddingError
from langgraph_pgsaga.memory import MemoryStore
from langgraph_pgsaga.memory import vectors as of_vectors
from tests._connections import connected
from tests._embedders import HashingEmbedder
from tests._proxy import Proxy
from tests.conftest import fetch

pytestmark = pytest.mark.anyio

_VECTOR = [0.25, -1.5, 3.0]
_STORED = "select embedding from agent_store_vectors"


@pytest.fixture(autouse=True)
def needs_pgvector(dsn: str) -> None:
    if not fetch(dsn, "select from pg_available_extensions where name = 'vector'"):
        pytest.skip("this server has no pgvector")


def index_of(embed: Any, dims: int = 3, **more: Any) -> Any:
    return {"dims": dims, "embed": embed, "fields": ["text"], "ann_index_config": more}


async def embed(texts: Sequence[str]) -> list[list[float]]:
    return [_VECTOR for _ in texts]


@pytest.fixture(params=["halfvec", "vector"])
async def store(dsn: str, request: pytest.FixtureRequest) -> AsyncIterator[MemoryStore]:
    index = index_of(embed, vector_type=request.param)
    async with MemoryStore.from_conn_string(dsn, max_size=1, index=index) as store:
        await store.asetup()
        yield store


async def stored(dsn: str) -> list[Any]:
    """The vectors, read by a connection of nobody's."""
    async with connected(dsn) as conn:
        return [json.loads(row["embedding"]) for row in await conn.fetch(_STORED)]


async def test_vectors_are_stored_as_they_are(store: MemoryStore, dsn: str) -> None:
    """Of each type."""
    await store.aput(("a",), "k", {"text": "tea"})
    assert await stored(dsn) == [_VECTOR]


@pytest.mark.parametrize(
    "vector", [np.array(_VECTOR), np.array(_VECTOR, dtype=np.float32), (0.25, -1.5, 3)], ids=str
)
async def test_vectors_may_be_of_any_numbers(dsn: str, vector: Any) -> None:
    """Of numpy's arrays, as models give them, and of ints; so may those of queries."""

    async def give(texts: Sequence[str]) -> Any:
        return [vector for _ in texts]

    async with MemoryStore.from_conn_string(dsn, index=index_of(give)) as store:
        await store.asetup()
        await store.aput(("a",), "k", {"text": "tea"})
        (found,) = await store.asearch(("a",), query="tea")
    assert found.score == pytest.approx(1.0, abs=1e-3)
    assert await stored(dsn) == [_VECTOR]


@pytest.mark.parametrize("number", [1e6, -1e6, "1.5", None], ids=str)
async def test_what_a_halfvec_cannot_hold_is_refused(dsn: str, number: Any) -> None:
    """And nothing is stored."""

    async def give(texts: Sequence[str]) -> Any:
        return [[number, 0.0, 0.0] for _ in texts]

    async with MemoryStore.from_conn_string(dsn, index=index_of(give)) as store:
        await store.asetup()
        with pytest.raises(EmbeddingError):
            await store.aput(("a",), "k", {"text": "tea"})
        assert await store.aget(("a",), "k") is None


async def test_who_reads_vectors_gets_text_also_after_a_put(store: MemoryStore) -> None:
    """And may send them as text: a connection on which nobody set a codec is as any other."""
    await store.aput(("a",), "k", {"text": "tea"})
    async with store.db.transaction() as conn:
        assert json.loads(await conn.fetchval(_STORED)) == _VECTOR
        await conn.execute("update agent_store_vectors set embedding = $1", "[1,2,3]")
        assert json.loads(await conn.fetchval(_STORED)) == [1, 2, 3]


async def _set_text(conn: Connection, name: str) -> None:
    await conn.set_type_codec(
        name, schema="public", encoder=lambda given: str(list(given)), decoder=json.loads
    )


async def _set_binary(conn: Connection, name: str) -> None:
    await conn.set_type_codec(
        name,
        schema="public",
        encoder=lambda given: (_ for _ in ()).throw(TypeError(given)),
        decoder=lambda given: _VECTOR if bytes(given).startswith(b"\0\3\0\0") else None,
        format="binary",
    )


@pytest.mark.parametrize("set_codec", [_set_text, _set_binary])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_codec_of_the_user_stays(
    store: MemoryStore, dsn: str, set_codec: Any, when: str
) -> None:
    """Whoever comes first on a connection, and whatever the codec's form; also once it is reset."""
    if when == "after":
        await store.aput(("a",), "first", {"text": "tea"})
    (row,) = await asyncio.to_thread(
        fetch, dsn, "select format_type(atttypid, null) as kind from pg_attribute where attname = "
        "'embedding' and attrelid = 'agent_store_vectors'::regclass"
    )  # fmt: skip
    async with store.db.transaction() as conn:
        await set_codec(conn, row["kind"])
    for key in ("second", "third"):
        await store.aput(("a",), key, {"text": "tea"})
    async with store.db.transaction() as conn:
        assert await conn.fetchval(_STORED) == _VECTOR
        await conn.reset_type_codec(row["kind"], schema="public")
        assert json.loads(await conn.fetchval(_STORED)) == _VECTOR
    await store.aput(("a",), "fourth", {"text": "tea"})
    assert set(map(tuple, await stored(dsn))) == {tuple(_VECTOR)}


async def test_a_put_in_a_transaction_needs_no_other_connection(
    store: MemoryStore, dsn: str
) -> None:
    """Also the first one."""
    async with store.db.transaction() as conn:
        await store.aput(("a",), "k", {"text": "tea"}, conn=conn)
    assert await stored(dsn) == [_VECTOR]


async def test_a_put_on_a_connection_of_others_stores_its_vector(
    store: MemoryStore, dsn: str
) -> None:
    """One that no Database has made."""
    async with connected(dsn) as conn:
        await store.aput(("a",), "k", {"text": "tea"}, conn=conn)
        await store.aput(("a",), "k", {"text": "cake"}, conn=conn)
    assert await stored(dsn) == [_VECTOR]


@pytest.mark.parametrize(("quick", "round_trips"), [(1.0, 1), (0.0, 2)])
async def test_a_put_is_one_round_trip_where_the_model_is_quick(
    dsn: str, monkeypatch: pytest.MonkeyPatch, quick: float, round_trips: int
) -> None:
    """Else a look for the texts that have vectors already comes first."""
    monkeypatch.setattr(of_vectors, "_QUICK_SECONDS", quick)
    embedder = HashingEmbedder(8)
    with Proxy(dsn) as proxy:
        async with Database(proxy.dsn(), max_size=1) as db:
            store = MemoryStore(db, index=index_of(embedder, 8))
            await store.asetup()
            for n in range(3):
                await store.aput(("a",), str(n), {"text": f"tea {n}"})
            with proxy.recording() as one:
                await store.aput(("a",), "new", {"text": "cake"})
            with proxy.recording() as many:
                await store.abatch([PutOp(("b",), str(n), {"text": f"{n}"}) for n in range(50)])
            embedder.calls.clear()
            with proxy.recording() as again:
                await store.aput(("a",), "new", {"text": "cake", "n": 2})
    assert [traffic.round_trips for traffic in (one, many, again)] == [round_trips] * 3
    assert len(embedder.calls) == (1 if quick else 0)
