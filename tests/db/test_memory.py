"""AgentMemory: remembering, reinforcing, superseding, listing and forgetting."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from langgraph_pgsaga import AgentMemory, Database, PostgresSaver
from langgraph_pgsaga.database import Connection
from langgraph_pgsaga.errors import (
    InvalidArgumentError,
    InvalidCursorError,
    MissingMemoryError,
    UnstorableValueError,
)
from langgraph_pgsaga.memory import Memory, MemoryType, NewMemory
from langgraph_pgsaga.work import this_step
from tests.conftest import execute
from tests.db._gates import graph_of
from tests.db._puts import config_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def memory(dsn: str) -> AsyncIterator[AgentMemory]:
    """A memory by words."""
    async with Database(dsn) as db:
        yield AgentMemory(db)


@asynccontextmanager
async def rolled_back(db: Database) -> AsyncIterator[Connection]:
    """A transaction that fails at its end."""
    with suppress(RuntimeError):
        async with db.transaction() as conn:
            yield conn
            raise RuntimeError


async def test_a_memory_comes_back_as_it_was_given(memory: AgentMemory) -> None:
    """Every argument is a field of it; times that aren't given are the server's."""
    later = datetime(2100, 1, 1, tzinfo=UTC)
    stored = await memory.remember(
        "Ann likes tea",
        user_id="ann",
        thread_id=5,
        type=MemoryType.EPISODIC,
        importance=0.5,
        pinned=True,
        expires_at=later,
        metadata={"a": [1, None]},
        context="What do you drink?",
        valid_from=datetime(2020, 1, 1, tzinfo=UTC),
        valid_to=later,
        message_no=3,
    )
    found = await memory.get(stored.memory_id, user_id="ann", thread_id=5)
    assert found == stored
    assert (found.user_id, found.thread_id, found.memory_type) == ("ann", "5", "episodic")
    assert (found.content_text, found.context_text) == ("Ann likes tea", "What do you drink?")
    assert (found.importance_score, found.pinned, found.expires_at) == (0.5, True, later)
    assert (found.metadata, found.access_count) == ({"a": [1, None]}, 0)
    assert (found.source_thread_id, found.source_message_no) == ("5", 3)
    assert found.created_at == found.last_accessed_at == found.recorded_at
    assert (found.valid_to, found.superseded_at, found.superseded_by) == (later, None, None)


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"text": " "}, "text"),
        ({"text": "a\0"}, "text"),
        ({"importance": float("nan")}, "importance"),
        ({"type": ""}, "type"),
        ({"ttl": timedelta(1), "expires_at": datetime.now(UTC)}, "ttl"),
        ({"ttl": timedelta(-1)}, "ttl"),
        ({"user_id": None}, "user_id"),
        ({"user_id": ""}, "user_id"),
        ({"supersedes": "x"}, "supersedes"),
        ({"valid_from": datetime(2030, 1, 1, tzinfo=UTC), "valid_to": NOW}, "valid_to"),
        ({"valid_from": NOW, "valid_to": NOW}, "valid_to"),
    ],
)
async def test_what_cant_be_remembered_is_refused(
    memory: AgentMemory, wrong: dict[str, Any], named: str
) -> None:
    """The error names the argument. Without a user or a thread nothing is done."""
    with pytest.raises(InvalidArgumentError) as caught:
        await memory.remember(**{"text": "a", "user_id": "u", **wrong})
    assert caught.value.argument == named
    with pytest.raises(UnstorableValueError, match="metadata"):
        await memory.remember("a", user_id="u", metadata={"a": float("nan")})


async def test_a_repeat_reinforces(memory: AgentMemory) -> None:
    """The row is the first one; the greater importance, the later end and all metadata stay."""
    first = await memory.remember(
        "tea", user_id="u", importance=0.7, metadata={"a": 1}, ttl=timedelta(days=1)
    )
    again = await memory.remember(
        "tea", user_id="u", importance=0.2, metadata={"b": 2}, ttl=timedelta(days=9), pinned=True
    )
    assert again.memory_id == first.memory_id
    assert (again.access_count, again.importance_score, again.pinned) == (1, 0.7, True)
    assert again.metadata == {"a": 1, "b": 2}
    assert again.expires_at is not None
    assert first.expires_at is not None
    assert again.expires_at > first.expires_at + timedelta(days=7)
    others = [
        await memory.remember("tea", user_id="u", type="procedural"),
        await memory.remember("tea", user_id="v"),
        await memory.remember("tea", user_id="u", thread_id="t"),
    ]
    assert len({first.memory_id, *(one.memory_id for one in others)}) == 4


async def test_fifty_at_once_make_one_row(dsn: str) -> None:
    """However they come, and whoever is first; each counts."""
    async with Database(dsn, max_size=10) as db:
        memory = AgentMemory(db)
        calls = (memory.remember("tea", user_id="u") for _ in range(50))
        found = await asyncio.gather(*calls)
        assert len({one.memory_id for one in found}) == 1
        [only] = (await memory.list(user_id="u")).memories
    assert only.access_count == 49


async def test_a_batch_keeps_its_order_and_unites_what_is_the_same(memory: AgentMemory) -> None:
    """All of it is stored, or nothing; of the same content there is one."""
    given: list[NewMemory | str] = [
        "b",
        NewMemory(text="a", importance=1),
        "b",
        NewMemory(text="a", importance=2),
    ]
    found = await memory.remember_many(given, user_id="u")
    assert [one.content_text for one in found] == ["b", "a", "b", "a"]
    assert found[0] == found[2]
    assert found[1].importance_score == 2
    assert await memory.remember_many([], user_id="u") == ()
    wrong = NewMemory(text="d", supersedes=uuid.uuid4())
    with pytest.raises(MissingMemoryError):
        await memory.remember_many(["c", wrong], user_id="u")
    assert len((await memory.list(user_id="u")).memories) == 2


async def test_a_new_memory_takes_the_place_of_an_old_one(memory: AgentMemory) -> None:
    """Both stay; the old one says by which it was superseded, and isn't superseded twice."""
    old = await memory.remember("Ann likes tea", user_id="ann")
    new = await memory.remember("Ann likes coffee", user_id="ann", supersedes=old.memory_id)
    found = await memory.get(old.memory_id, user_id="ann")
    assert found is not None
    assert (found.superseded_by, found.superseded_at) == (new.memory_id, new.recorded_at)
    assert (await memory.list(user_id="ann")).memories == (new,)
    for gone in (old.memory_id, uuid.uuid4()):
        with pytest.raises(MissingMemoryError, match=str(gone)):
            await memory.remember("Ann likes water", user_id="ann", supersedes=gone)
    with pytest.raises(MissingMemoryError):
        await memory.remember("Bob too", user_id="bob", supersedes=new.memory_id)
    same = await memory.remember("Ann likes coffee", user_id="ann", supersedes=new.memory_id)
    assert (same.memory_id, same.superseded_at) == (new.memory_id, None)
    back = await memory.remember("Ann likes tea", user_id="ann", supersedes=str(new.memory_id))
    assert back.memory_id not in (old.memory_id, new.memory_id)


async def test_of_two_that_supersede_one_memory_one_is_refused(memory: AgentMemory) -> None:
    """So that no correction is lost without anybody knowing."""
    old = await memory.remember("tea", user_id="u")
    found = await asyncio.gather(
        *(memory.remember(text, user_id="u", supersedes=old.memory_id) for text in "ab"),
        return_exceptions=True,
    )
    assert [type(one) for one in found].count(MissingMemoryError) == 1
    assert len((await memory.list(user_id="u")).memories) == 1


@pytest.mark.parametrize("order", ["importance", "created", "accessed"])
async def test_pages_joined_are_the_whole_list(memory: AgentMemory, order: Any) -> None:
    """In the order asked for, over all scopes that are seen, each memory once."""
    for number in range(7):
        where = [{"user_id": "u"}, {"thread_id": "t"}, {"user_id": "u", "thread_id": "t"}]
        await memory.remember(str(number), importance=number // 2, **where[number % 3])  # type: ignore[arg-type]
    whole = (await memory.list(user_id="u", thread_id="t", order=order)).memories
    assert len(whole) == 7
    values: list[Any] = [
        {
            "importance": one.importance_score,
            "created": one.created_at,
            "accessed": one.last_accessed_at,
        }[order]
        for one in whole
    ]
    assert values == sorted(values, reverse=True)
    pages: list[Memory] = []
    after = None
    while True:
        page = await memory.list(user_id="u", thread_id="t", order=order, after=after, limit=2)
        pages += page.memories
        if (after := page.next_cursor) is None:
            break
    assert tuple(pages) == whole
    other: Any = "created" if order == "importance" else "importance"
    first = await memory.list(user_id="u", thread_id="t", order=order, limit=1)
    with pytest.raises(InvalidCursorError):
        await memory.list(user_id="u", order=other, after=first.next_cursor)


async def test_types_narrow_a_list(memory: AgentMemory) -> None:
    """A type may be any text."""
    for name in ("semantic", "working", "own"):
        await memory.remember("a", user_id="u", type=name)
    page = await memory.list(user_id="u", types=[MemoryType.WORKING, "own"])
    assert {one.memory_type for one in page.memories} == {"working", "own"}


async def test_forgotten_is_not_recalled_and_erased_is_gone(memory: AgentMemory, dsn: str) -> None:
    """Forgetting keeps the row, erasing doesn't; of another user nothing goes."""
    kept = await memory.remember("tea", user_id="u")
    await memory.forget(kept.memory_id, user_id="v")
    await memory.forget(kept.memory_id, user_id="v", erase=True)
    assert (await memory.list(user_id="u")).memories == (kept,)
    await memory.forget(kept.memory_id, user_id="u")
    assert await memory.get(kept.memory_id, user_id="u") is None
    assert (await memory.list(user_id="u")).memories == ()
    again = await memory.remember("tea", user_id="u")
    assert again.memory_id != kept.memory_id
    for one in (kept, again):
        await memory.forget(str(one.memory_id), user_id="u", erase=True)
    async with memory.db.transaction() as conn:
        assert await conn.fetchval("select count(*) from agent_memory") == 0


async def test_a_user_is_forgotten_everywhere(memory: AgentMemory) -> None:
    """With what is in threads, and what was superseded; nobody else's goes."""
    old = await memory.remember("a", user_id="u")
    await memory.remember("b", user_id="u", supersedes=old.memory_id)
    await memory.remember("c", user_id="u", thread_id="t")
    await memory.remember("d", user_id="v", thread_id="t")
    other = AgentMemory(memory.db, tenant="other")
    await other.remember("e", user_id="u")
    assert await memory.forget_user("u") == 3
    assert await memory.forget_user("u") == 0
    assert len((await memory.list(user_id="v", thread_id="t")).memories) == 1
    assert len((await other.list(user_id="u")).memories) == 1


# Scopes


async def test_nobody_sees_what_he_does_not_name(memory: AgentMemory) -> None:
    """A memory is given to who names all that it has, and of whatever tenant it is."""
    await memory.remember("of ann", user_id="ann")
    await memory.remember("of t", thread_id="t")
    await memory.remember("of ann in t", user_id="ann", thread_id="t")
    seen = {
        ("ann", None): {"of ann"},
        (None, "t"): {"of t"},
        ("ann", "t"): {"of ann", "of t", "of ann in t"},
        ("bob", "t"): {"of t"},
        ("ann", "u"): {"of ann"},
        ("bob", None): set(),
    }
    for (user, thread), texts in seen.items():
        found = await memory.recall("ann", user_id=user, thread_id=thread, k=100)
        assert {one.memory.content_text for one in found} == texts
        page = await memory.list(user_id=user, thread_id=thread)
        assert {one.content_text for one in page.memories} == texts
        other = AgentMemory(memory.db, tenant="other")
        assert await other.recall("ann", user_id=user, thread_id=thread) == ()
    for call in (memory.recall("ann"), memory.list(), memory.get(uuid.uuid4())):
        with pytest.raises(InvalidArgumentError, match="neither a user nor a thread"):
            await call


async def test_a_scope_is_what_sql_says_it_is(memory: AgentMemory, dsn: str) -> None:
    """A row with another scope than that of its user and thread is refused by the table."""
    tenant = AgentMemory(memory.db, tenant="tenant")
    found = [
        await one.remember("ä", user_id=user, thread_id=thread)
        for one in (memory, tenant)
        for user, thread in (("ü", None), (None, "t"), ("ü", "t"))
    ]
    assert len({one.scope_id for one in found}) == 6
    with pytest.raises(asyncpg.CheckViolationError, match="agent_memory_scope_is_its_own"):
        await execute(dsn, "update agent_memory set user_id = 'x' where user_id is not null")


# With a thread, and in transactions


async def test_a_threads_memories_go_with_it(saver: PostgresSaver) -> None:
    """In the transaction that deletes it; those of its users elsewhere stay."""
    memory = AgentMemory(saver.db)
    graph = graph_of(saver, a=lambda _: {"items": ["a"]})
    await graph.ainvoke({"items": []}, config_of("t"))
    await memory.remember("of t", thread_id="t")
    await memory.remember("of ann in t", user_id="ann", thread_id="t")
    await memory.remember("of ann", user_id="ann")
    await memory.remember("of u", thread_id="u")
    async with rolled_back(saver.db) as conn:
        await saver.adelete_thread("t", conn=conn)
    assert len((await memory.list(user_id="ann", thread_id="t")).memories) == 3
    await saver.aprune(["t"])
    assert len((await memory.list(user_id="ann", thread_id="t")).memories) == 3
    await saver.aprune(["t"], strategy="delete")
    assert [m.content_text for m in (await memory.list(user_id="ann", thread_id="t")).memories] == [
        "of ann"
    ]
    assert len((await memory.list(thread_id="u")).memories) == 1


async def test_a_transaction_has_what_is_remembered_in_it(memory: AgentMemory) -> None:
    """It is there with the rest, or not at all; what is refused leaves it usable."""
    async with rolled_back(memory.db) as conn:
        await memory.remember("a", user_id="u", conn=conn)
    assert (await memory.list(user_id="u")).memories == ()
    async with memory.db.transaction() as conn:
        with pytest.raises(MissingMemoryError):
            await memory.remember("b", user_id="u", supersedes=uuid.uuid4(), conn=conn)
        await memory.remember("a", user_id="u", conn=conn)
        [found] = await memory.recall("a", user_id="u", conn=conn)
    assert found.memory.content_text == "a"


async def test_what_a_node_remembers_is_stored_with_its_result(saver: PostgresSaver) -> None:
    """Once, with the checkpoint that it comes from, and not where the node failed."""
    memory = AgentMemory(saver.db)
    failed: list[str] = []

    async def remembering(_: Any) -> Any:
        known = await memory.remember("a", user_id="u", conn=this_step())
        assert known.memory_id is not None
        await memory.remember("try", user_id="u", conn=this_step())
        if not failed:
            failed.append("once")
            raise RuntimeError("once")
        return {"items": ["a"]}

    graph = graph_of(saver, a=remembering)
    with pytest.raises(RuntimeError, match="once"):
        await graph.ainvoke({"items": []}, config_of("t"))
    assert (await memory.list(user_id="u")).memories == ()
    await graph.ainvoke(None, config_of("t"))
    first, second = (await memory.list(user_id="u")).memories
    assert {first.content_text, second.content_text} == {"a", "try"}
    assert first.access_count == 0
    assert first.source_thread_id == "t"
    stored = {one.config["configurable"]["checkpoint_id"] async for one in saver.alist(None)}
    assert first.source_checkpoint_id in stored
