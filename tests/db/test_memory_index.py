"""AgentMemory in large scopes: exact up to two thousand, by an approximate index above."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from langgraph_pgsaga import AgentMemory, Database, sync
from langgraph_pgsaga.database import load_statements
from langgraph_pgsaga.doctor import CheckStatus, diagnose
from langgraph_pgsaga.errors import InvalidArgumentError, MissingVectorsError
from langgraph_pgsaga.memory import GENERATIVE_AGENTS, HYBRID, RANKS, SEMANTIC, Scoring
from langgraph_pgsaga.memory.scope import Scope
from tests._connections import connection_of
from tests._embedders import DIMS, hashed
from tests._require import require_pgvector

pytestmark = pytest.mark.anyio

FULL = os.environ.get("PGSAGA_FULL") == "1"
USERS, EACH, LARGEST = (1_000, 50, 50_000) if FULL else (60, 20, 6_000)
K = 10


class Known:
    """Vectors by text, near some of a few hundred centres as those of a model are."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(7)
        self.centres = self.rng.normal(size=(200, DIMS))
        self.vectors: dict[str, Any] = {}

    def new(self, text: str) -> Any:
        centre = self.centres[self.rng.integers(len(self.centres))]
        vector = centre + self.rng.normal(scale=0.7, size=DIMS)
        self.vectors[text] = vector / np.linalg.norm(vector)
        return self.vectors[text]

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return [self.vectors[text].tolist() for text in texts]

    def nearest(self, query: str, among: Sequence[str], k: int) -> set[str]:
        matrix = np.stack([self.vectors[text] for text in among])
        order = np.argsort(-(matrix @ self.vectors[query]))
        return {among[place] for place in order[:k]}


class Crowd:
    """Users with some memories each, one with a great many, and one with two thousand."""

    def __init__(self, memory: AgentMemory, known: Known) -> None:
        self.memory = memory
        self.known = known
        self.texts: dict[str, list[str]] = {}

    async def fill(self) -> None:
        sizes = {f"u{n}": EACH for n in range(USERS)} | {"large": LARGEST, "two thousand": 2_000}
        for user, size in sizes.items():
            self.texts[user] = [f"{user} {n} w{n % 97} v{n % 89}" for n in range(size)]
            for text in self.texts[user]:
                self.known.new(text)
            for start in range(0, size, 1_000):
                await self._store(user, self.texts[user][start : start + 1_000])

    async def _store(self, user: str, texts: Sequence[str]) -> None:
        """As `remember_many` does, but in a tenth of the time."""
        scope = Scope.of("", user, None).scope_id
        ids = [uuid4() for _ in texts]
        async with self.memory.db.transaction() as conn:
            await conn.execute(
                "insert into agent_memory (scope_id, memory_id, user_id, memory_type, content_text,"
                " content_hash, search_words, search_length)"
                " select $1, i, $2, 'semantic', t, sha256(convert_to(t, 'UTF8')),"
                " to_tsvector('english', t), 4 from unnest($3::uuid[], $4::text[]) g (i, t)",
                *(scope, user, ids, texts),
            )
            await self.memory.db.fetch(
                load_statements("memory_vectors")["store_vectors"].bind(
                    scope_id=scope,
                    memory_ids=ids,
                    model="",
                    dims=DIMS,
                    vectors=[float(x) for text in texts for x in self.known.vectors[text]],
                    is_half=True,
                ),
                conn=conn,
            )

    async def recall_of(self, user: str, queries: int) -> float:
        """The share of the nearest that is found by vectors, over some queries."""
        found = 0
        for number in range(queries):
            query = f"query {user} {number}"
            self.known.new(query)
            given = await self.memory.recall(
                query, user_id=user, k=K, scoring=SEMANTIC, touch=False
            )
            assert len(given) == K
            scores = [one.semantic or 0.0 for one in given]
            assert scores == sorted(scores, reverse=True)
            said = {one.memory.content_text for one in given}
            found += len(said & self.known.nearest(query, self.texts[user], K))
        return found / queries / K


@pytest.fixture
async def crowd(dsn: str) -> AsyncIterator[Crowd]:
    """With an approximate index."""
    require_pgvector(dsn)
    known = Known()
    async with Database(dsn) as db:
        memory = AgentMemory(db, embed=known.embed, dims=DIMS)
        await memory.setup()
        made = Crowd(memory, known)
        await made.fill()
        await memory.create_index()
        async with connection_of(db) as conn:
            await conn.execute("analyze agent_memory, agent_memory_vectors")
        yield made


class Calls:
    """The statements that a database was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        fetch = Database.fetch

        async def noted(db: Database, bound: Any, **more: Any) -> Any:
            self.names.append(bound.statement.name)
            return await fetch(db, bound, **more)

        monkeypatch.setattr(Database, "fetch", noted)


async def test_little_is_missed(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of small scopes nothing up to two thousand, of a large one by the index a twentieth at most;
    and the path is the code's, however often a statement was executed."""
    calls = Calls(monkeypatch)
    rng = random.Random(3)
    for user in rng.sample(sorted(set(crowd.texts) - {"large", "two thousand"}), 12):
        # Half floats are told apart by little.
        assert await crowd.recall_of(user, 3) >= 0.97
    assert await crowd.recall_of("two thousand", 8) >= 0.97
    assert "list_nearest" not in calls.names
    calls.names.clear()
    assert await crowd.recall_of("large", 25) >= 0.95
    assert calls.names.count("list_nearest") == calls.names.count("recall_nearest") == 25


async def test_a_statement_that_was_executed_often_takes_no_index(crowd: Crowd) -> None:
    """The plan that is kept for any values compares all vectors of a scope, by its primary key."""
    db = crowd.memory.db
    async with connection_of(db) as conn:
        if conn.get_server_version().major < 16:
            pytest.skip("before PostgreSQL 16 nothing explains a statement with parameters")
        statement = load_statements("memory_vectors")["recall_by_vectors"]
        await conn.execute("create temporary table plans (line text)")
        await conn.execute(
            "do $do$ declare line text; begin for line in execute "
            f"$plan$explain (generic_plan) {db.text(statement)}$plan$ "
            "loop insert into plans values (line); end loop; end $do$"
        )
        rows = await conn.fetch("select line from plans")
    plan = "\n".join(row[0] for row in rows)
    assert "agent_memory_vectors_pkey" in plan
    name = await index_name(crowd.memory)
    assert name not in plan
    for _ in range(12):
        assert await crowd.recall_of("u3", 1) == 1.0


async def index_name(memory: AgentMemory) -> str:
    async with memory.db.transaction() as conn:
        found = await conn.fetchval(f"select pgsaga_memory_index_name('', {DIMS}, true)")
    return str(found)


async def test_the_index_is_what_a_large_scope_is_searched_by(crowd: Crowd) -> None:
    """Its scans are counted by the server."""
    await crowd.recall_of("u1", 1)
    async with crowd.memory.db.transaction() as conn:
        name = await index_name(crowd.memory)
        asked = "select pg_stat_get_xact_numscans(oid) from pg_class where relname = $1"
        assert await conn.fetchval(asked, name) == 0
        crowd.known.new("q")
        await crowd.memory.recall("q", user_id="large", scoring=SEMANTIC, conn=conn, touch=False)
        assert await conn.fetchval(asked, name) > 0


async def test_by_the_index_recency_is_none_after_many_half_lives(crowd: Crowd) -> None:
    """More of them than a float can be halved."""
    crowd.known.new("q")
    rule = Scoring(semantic=1.0, half_life_seconds=1e-6)
    found = await crowd.memory.recall("q", user_id="large", scoring=rule, touch=False)
    assert [one.recency for one in found] == pytest.approx([0.0] * len(found))
    assert found


async def test_what_counts_words_looks_at_all_of_them(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does what goes by recency or importance, and what was known at a time."""
    calls = Calls(monkeypatch)
    crowd.known.new("w3 v4")
    now = datetime.now(UTC)
    asked: list[dict[str, Any]] = [{"scoring": HYBRID}, {"scoring": RANKS}]
    asked += [{"scoring": GENERATIVE_AGENTS}, {"scoring": SEMANTIC, "as_of": now}]
    for more in asked:
        found = await crowd.memory.recall("w3 v4", user_id="large", k=K, touch=False, **more)
        assert len(found) == K
    assert "list_nearest" not in calls.names


async def test_what_is_forgotten_is_not_near(crowd: Crowd) -> None:
    """Though the index has its vector: what is live is given, and as much as is asked for."""
    async with crowd.memory.db.transaction() as conn:
        await conn.execute(
            "update agent_memory set forgotten_at = now() where user_id = 'large'"
            " and content_text !~ ' [0-9]*[0246] w'"
        )
    crowd.texts["large"] = [t for t in crowd.texts["large"] if t.split()[1][-1] in "0246"]
    assert await crowd.recall_of("large", 10) >= 0.95


async def test_never_fewer_than_there_are_in_a_large_scope(crowd: Crowd) -> None:
    """Where the index gives too few, where there are few vectors, and for each scoring."""
    memory = crowd.memory
    words = AgentMemory(memory.db)
    await words.remember_many([f"few {n}" for n in range(2_100)], user_id="few")
    crowd.known.new("few")
    crowd.known.new("few 0")
    await memory.remember("few 0", user_id="few")
    for scoring in (None, SEMANTIC, RANKS, GENERATIVE_AGENTS):
        for user in ("few", "large"):
            for k in (1, 200, 2_050):
                found = await memory.recall("few", user_id=user, k=k, scoring=scoring, touch=False)
                assert len({one.memory.memory_id for one in found}) == k
    [best] = await memory.recall("few 0", user_id="few", k=1)
    assert best.memory.content_text == "few 0"


async def test_an_index_is_of_one_model(dsn: str) -> None:
    """Made once, of either type of vectors; more dimensions than it takes are refused."""
    require_pgvector(dsn)
    async with Database(dsn) as db:
        for kind in ("halfvec", "vector"):
            given: Any = kind
            memory = AgentMemory(db, embed=hashed, dims=DIMS, vector_type=given, model=kind)
            await memory.setup()
            for _ in range(2):
                await memory.create_index()
        async with db.transaction() as conn:
            made = await conn.fetch("select indexname from pg_indexes where indexdef like '%hnsw%'")
        assert len(made) == 2
        found = await diagnose(db)
        assert [one for one in found.checks if one.status is CheckStatus.FAIL] == []
        long = AgentMemory(db, embed=hashed, dims=4_001)
        with pytest.raises(InvalidArgumentError, match="4001 are more than an index takes"):
            await long.create_index()
        with pytest.raises(InvalidArgumentError, match="embed"):
            await AgentMemory(db).create_index()
    async with Database(dsn, schema="none") as db:
        with pytest.raises(MissingVectorsError):
            await AgentMemory(db, embed=hashed, dims=DIMS).create_index()


async def test_an_index_may_take_longer_than_a_statement(dsn: str) -> None:
    """The limit of this package's own is lifted while it is built; nobody else's is."""
    require_pgvector(dsn)
    async with Database(dsn) as db:
        memory = AgentMemory(db, embed=hashed, dims=DIMS)
        await memory.setup()
        async with db.transaction() as conn:
            await conn.execute(
                "create table limits as select current_setting('statement_timeout') as found;"
                " create function note_limit() returns event_trigger language plpgsql as $$ begin"
                " insert into limits select current_setting('statement_timeout'); end $$;"
                " create event trigger note_limit on ddl_command_start when tag in ('CREATE INDEX')"
                " execute function note_limit()"
            )
        await memory.create_index()
        async with db.transaction() as conn:
            found = [row["found"] for row in await conn.fetch("select found from limits")]
    assert found == ["1min", "1d"]


def test_sync_callers_make_it_too(dsn: str) -> None:
    """And recall by it."""
    require_pgvector(dsn)
    with Database(dsn) as db:
        memory = sync.AgentMemory(db, embed=hashed, dims=DIMS)
        memory.setup()
        memory.create_index()
        memory.remember_many([f"tea {n}" for n in range(2_200)], user_id="u")
        assert len(memory.recall("tea 7", user_id="u", k=5)) == 5
