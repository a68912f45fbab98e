"""AgentMemory.export and import_: memories as JSON Lines."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from langgraph_pgsaga import AgentMemory, Database, sync
from langgraph_pgsaga.errors import DimensionsError, InvalidArgumentError, MissingVectorsError
from langgraph_pgsaga.memory import ImportResult, NewMemory
from tests._embedders import DIMS, HashedEmbeddings, hashed
from tests._require import require_pgvector
from tests.conftest import afetch, execute

pytestmark = pytest.mark.anyio

NOW = datetime.now(UTC)


@pytest.fixture
async def words(dsn: str) -> AsyncIterator[AgentMemory]:
    """A memory by words, with all that a memory may have."""
    async with Database(dsn) as db:
        memory = AgentMemory(db)
        old = await memory.remember("Ann likes tea", user_id="ann", importance=0.5)
        await memory.remember(
            "Ann likes coffee",
            user_id="ann",
            supersedes=old.memory_id,
            type="episodic",
            importance=2,
            pinned=True,
            ttl=timedelta(days=3),
            metadata={"from": ["chat", 1], "ünïcode": "\u2028 'x' \\ 日本"},
            context="What do you like?",
            valid_from=NOW - timedelta(days=1),
            valid_to=NOW + timedelta(days=1),
            message_no=3,
        )
        gone = await memory.remember("forgotten", user_id="ann", thread_id="t")
        await memory.forget(gone.memory_id, user_id="ann", thread_id="t")
        await memory.remember("in the thread", user_id="ann", thread_id="t")
        await memory.remember("of the thread", thread_id="t")
        await memory.remember("Bob's", user_id="bob")
        await memory.recall("coffee", user_id="ann")
        await memory.flush()
        yield memory


async def exported(memory: AgentMemory, **more: Any) -> str:
    file = io.StringIO()
    count = await memory.export(file, **more)
    assert count == len(file.getvalue().split("\n")[:-1])
    return file.getvalue()


async def rows(dsn: str) -> list[Any]:
    asked = "select m::text from agent_memory m order by memory_id"
    return [row[0] for row in await afetch(dsn, asked)]


async def test_what_was_exported_is_stored_as_it_was(words: AgentMemory, dsn: str) -> None:
    """Each column, the words that it is found by, too; a second time nothing is stored."""
    before = await rows(dsn)
    text = await exported(words)
    await execute(dsn, "delete from agent_memory")
    assert await words.import_(io.StringIO(text)) == ImportResult(read=6, stored=6)
    assert await rows(dsn) == before
    assert await words.import_(io.StringIO(text)) == ImportResult(read=6, stored=0)
    assert await rows(dsn) == before
    [found] = await words.recall("coffee", user_id="ann", k=1)
    assert found.memory.content_text == "Ann likes coffee"
    then = await words.recall("tea", user_id="ann", as_of=found.memory.recorded_at - timedelta(0))
    assert [one.memory.content_text for one in then] == ["Ann likes coffee"]


async def test_a_user_has_their_own_alone(words: AgentMemory, dsn: str) -> None:
    """Those in threads, too, and nobody else's; an import takes nobody else's in, either."""
    text = await exported(words, user_id="ann")
    assert {json.loads(line)["user_id"] for line in text.split("\n")[:-1]} == {"ann"}
    assert len(text.split("\n")[:-1]) == 4
    assert await exported(words, user_id="eve") == ""
    await execute(dsn, "delete from agent_memory")
    with pytest.raises(InvalidArgumentError, match=r"line 1: .* user 'ann', not of 'bob'"):
        await words.import_(io.StringIO(text), user_id="bob")
    assert await rows(dsn) == []
    assert (await words.import_(io.StringIO(text), user_id="ann")).stored == 4


async def test_no_tenant_takes_in_anothers(words: AgentMemory, dsn: str) -> None:
    """Whatever the line says besides; nor is it exported."""
    text = await exported(words)
    other = AgentMemory(words.db, tenant="b")
    assert await exported(other) == ""
    with pytest.raises(InvalidArgumentError, match=r"line 1: .* tenant '', and .* is 'b'"):
        await other.import_(io.StringIO(text))
    [row] = await afetch(dsn, "select count(*) from agent_memory where tenant_id = 'b'")
    assert row[0] == 0
    moved = text.replace('"tenant_id": ""', '"tenant_id": "b"')
    assert (await other.import_(io.StringIO(moved))).stored == 6
    [found] = await other.recall("coffee", user_id="ann", k=1)
    assert found.memory.content_text == "Ann likes coffee"
    assert len(await rows(dsn)) == 12


async def test_what_is_live_here_stays(words: AgentMemory) -> None:
    """A content that is remembered already isn't there twice."""
    text = await exported(words, user_id="bob")
    [bob] = (await words.list(user_id="bob")).memories
    await words.forget(bob.memory_id, user_id="bob", erase=True)
    again = await words.remember("Bob's", user_id="bob")
    assert await words.import_(io.StringIO(text)) == ImportResult(read=1, stored=0)
    assert (await words.list(user_id="bob")).memories == (again,)


async def test_a_path_is_written_as_a_whole(words: AgentMemory, tmp_path: Path) -> None:
    """And read again; a file that isn't there, or is none, is refused."""
    path = tmp_path / "memories.jsonl"
    assert await words.export(path) == 6
    assert await words.import_(str(path)) == ImportResult(read=6, stored=0)
    wrong: list[Any] = [tmp_path, tmp_path / "none", 5, None, io.StringIO, io.BytesIO(b"{}\n")]
    for file in wrong:
        with pytest.raises(InvalidArgumentError) as caught:
            await words.import_(file)
        assert caught.value.argument == "file"
    with pytest.raises(InvalidArgumentError):
        await words.export(tmp_path)


async def test_a_folder_that_is_missing_and_other_bytes_than_utf8_are_told(
    words: AgentMemory, tmp_path: Path
) -> None:
    """With the folder, or the line."""
    with pytest.raises(InvalidArgumentError, match=r"absent' is no folder"):
        await words.export(tmp_path / "absent" / "memories.jsonl")
    path = tmp_path / "other.jsonl"
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(InvalidArgumentError, match=r"line 1, or one behind it, is no text"):
        await words.import_(path)


async def test_many_are_written_by_pages_and_stored_by_batches(dsn: str) -> None:
    """All of them, whatever the page is; empty lines are none."""
    async with Database(dsn) as db:
        memory = AgentMemory(db)
        await memory.remember_many([f"memory {n}" for n in range(1_201)], user_id="u")
        before = await rows(dsn)
        text = await exported(memory)
        await execute(dsn, "delete from agent_memory")
        result = await memory.import_(io.StringIO("\n" + text + "\n\n"))
        assert result == ImportResult(read=1_201, stored=1_201)
        assert await rows(dsn) == before


async def test_a_line_that_cannot_be_stored_is_told_by_its_number(
    words: AgentMemory, dsn: str
) -> None:
    """Whatever is wrong with it, and nothing is stored of it."""
    line = json.loads((await exported(words, user_id="bob")).split("\n")[0])
    await execute(dsn, "delete from agent_memory")
    odd: list[Any] = [None, 5, -1, "", "a", [], {}, [5], {"a": 5}, 10**400, "\0", "\ud800", True]
    for name in line:
        for value in odd:
            given = {**line, name: value}
            file = io.StringIO(f"\n{json.dumps(given)}\n")
            with suppress(InvalidArgumentError):
                await words.import_(file)
        without = {key: value for key, value in line.items() if key != name}
        with pytest.raises(InvalidArgumentError, match=f"line 1: it has no '{name}'"):
            await words.import_(io.StringIO(json.dumps(without)))
    for text in ("{", "[]", "5", "null", "[" * 100_000, "\ud800"):
        with pytest.raises(InvalidArgumentError, match="line 1"):
            await words.import_(io.StringIO(text))


# Vectors


@pytest.fixture
async def memory(dsn: str) -> AsyncIterator[AgentMemory]:
    """A memory with vectors."""
    require_pgvector(dsn)
    async with Database(dsn) as db:
        made = AgentMemory(db, embed=HashedEmbeddings(), dims=DIMS)
        await made.setup()
        await made.remember_many(["tea", "dog", NewMemory(text="car", importance=1)], user_id="u")
        yield made


async def vectors(dsn: str) -> list[Any]:
    asked = "select v::text from agent_memory_vectors v order by 1"
    return [row[0] for row in await afetch(dsn, asked)]


async def test_vectors_are_made_anew(memory: AgentMemory, dsn: str) -> None:
    """Of a file without, by one call for a batch; of one with, none is made. Both are the same."""
    before = await vectors(dsn)
    plain, full = await exported(memory), await exported(memory, vectors=True)
    assert "vector" not in plain
    for text, calls in ((plain, 1), (full, 0)):
        await execute(dsn, "delete from agent_memory")
        embed = HashedEmbeddings()
        other = AgentMemory(memory.db, embed=embed, dims=DIMS)
        assert (await other.import_(io.StringIO(text))).stored == 3
        assert await vectors(dsn) == before
        assert len(embed.calls) == calls
        await other.import_(io.StringIO(text))
        assert len(embed.calls) == calls


async def test_what_lacks_a_vector_gets_one_from_a_second_import(
    memory: AgentMemory, dsn: str
) -> None:
    """As where the embedding failed after the memories were stored."""
    before, text = await vectors(dsn), await exported(memory)
    await execute(dsn, "delete from agent_memory")

    def broken(_: Any) -> Any:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await AgentMemory(memory.db, embed=broken, dims=DIMS).import_(io.StringIO(text))
    assert await vectors(dsn) == []
    assert await memory.import_(io.StringIO(text)) == ImportResult(read=3, stored=0)
    assert await vectors(dsn) == before


async def test_vectors_of_another_model_are_not_taken(memory: AgentMemory, dsn: str) -> None:
    """New ones are made; those of this model with other dimensions are refused, with both."""
    text = await exported(memory, vectors=True)
    await execute(dsn, "delete from agent_memory")
    short = AgentMemory(memory.db, embed=lambda texts: [[1.0, 0.0]] * len(texts), dims=2)
    with pytest.raises(DimensionsError, match=rf"{DIMS} dimensions, and 2 are expected"):
        await short.import_(io.StringIO(text))
    await execute(dsn, "delete from agent_memory")
    named = AgentMemory(
        memory.db, embed=lambda texts: [[1.0, 0.0]] * len(texts), dims=2, model="short"
    )
    assert (await named.import_(io.StringIO(text))).stored == 3
    assert {row[0] for row in await afetch(dsn, "select model from agent_memory_vectors")} == {
        "short"
    }
    await execute(dsn, "delete from agent_memory")
    assert (await AgentMemory(memory.db).import_(io.StringIO(text))).stored == 3
    assert await vectors(dsn) == []


async def test_without_an_embedding_there_are_no_vectors_to_export(
    words: AgentMemory, memory: AgentMemory, dsn: str
) -> None:
    """It says so, and so it does before setup()."""
    with pytest.raises(InvalidArgumentError, match="embed"):
        await words.export(io.StringIO(), vectors=True)
    async with Database(dsn, schema="none") as db:
        with pytest.raises(MissingVectorsError):
            await AgentMemory(db, embed=hashed, dims=DIMS).export(io.StringIO(), vectors=True)


def test_sync_callers_have_both(dsn: str, tmp_path: Path) -> None:
    """By path or file."""
    with Database(dsn) as db:
        memory = sync.AgentMemory(db)
        memory.remember("tea", user_id="u")
        assert memory.export(tmp_path / "m.jsonl") == 1
        memory.forget_user("u")
        with (tmp_path / "m.jsonl").open() as file:
            assert memory.import_(file).stored == 1
