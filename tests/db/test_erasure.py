"""What is about a user goes from every system, and nobody else's does."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from langgraph_pgsaga import AgentMemory, EventStore, MemoryStore, PostgresSaver
from langgraph_pgsaga.database import Database
from langgraph_pgsaga.erasure import TABLES, ForgottenUser, forget_user
from langgraph_pgsaga.errors import InvalidArgumentError, MissingTenantError, ServerError
from langgraph_pgsaga.events import AgentEvent, SubjectKeys
from langgraph_pgsaga.sessions import Sessions
from tests.conftest import execute
from tests.db._puts import checkpoint_of, config_of
from tests.db.test_row_security import roles

pytestmark = pytest.mark.anyio

# Tables without anything about a user: who works, what is done when, and the log's order and seals.
IMPERSONAL = {
    "agent_jobs", "agent_workers", "event_consumers", "event_eras", "event_guards",
    "event_seal_heads", "event_seals", "pgsaga_migrations",
}  # fmt: skip
KEYS = SubjectKeys(master_key=b"k" * 32, personal={"signed_up": ["email"]})


async def run_of(saver: PostgresSaver, thread: str, user: str, tenant: str = "") -> None:
    """Stores a checkpoint, a message, a large value and a pending write of the user's thread."""
    of = {"thread_id": thread, "checkpoint_ns": "", "user_id": user, "tenant_id": tenant or None}
    values = {"messages": [HumanMessage("hello", id="m")], "large": "x" * 200_000, "n": {"a": 1}}
    config: Any = {"configurable": of, "metadata": {}}
    checkpoint = checkpoint_of(saver, values)
    metadata: Any = {"source": "input"}
    stored = await saver.aput(config, checkpoint, metadata, checkpoint["channel_versions"])
    await saver.aput_writes(stored, [("n", "answer")], "task")


async def world_of(saver: PostgresSaver, user: str, tenant: str = "") -> None:
    """All that is about a user: two threads, three memories, an event, an item."""
    db, memory = saver.db, AgentMemory(saver.db, tenant=tenant)
    for number in (1, 2):
        await run_of(saver, f"{user} {number}", user, tenant)
        sessions = Sessions(db, tenant=tenant)
        await sessions.update(f"{user} {number}", user_id=user)
    await memory.remember(f"{user} likes tea", user_id=user)
    await memory.remember(f"{user} said yes", user_id=user, thread_id=f"{user} 1")
    await memory.remember("said yes", thread_id=f"{user} 1")
    event = AgentEvent(event_type="signed_up", event_data={"email": "e"}, subject=user)
    await EventStore(db, tenant=tenant, subjects=KEYS).append(user, [event], aggregate_type="u")
    store = MemoryStore(db, tenant=tenant)
    await store.aput(("users", user), "diet", {"no": "nuts"})
    await store.aput(("users", user, "trips"), "1", {"to": "Rome"})
    await store.aput(("users", f"{user}s"), "1", {"is": "a neighbour"})


ALL_OF_A_USER = {
    "agent_sessions": 2, "agent_states": 2, "agent_messages": 2, "agent_memory": 3,
    "event_subjects": 1, "agent_store_items": 2,
}  # fmt: skip


async def rows(saver: PostgresSaver, table: str) -> int:
    """How many a table has."""
    async with saver.db.transaction() as conn:
        count: int = await conn.fetchval(f"select count(*) from {table}")
        return count


def counted(found: ForgottenUser) -> dict[str, int]:
    """Without the tables whose rows depend on how values are split."""
    of_values = ("agent_state_values", "agent_state_writes", "agent_state_blobs")
    assert all(found.rows[table] for table in of_values)
    return {table: count for table, count in found.rows.items() if table not in of_values}


async def test_all_of_a_user_goes_and_nobody_elses(saver: PostgresSaver) -> None:
    """From every table, as the dry run had counted; another user and another tenant keep all."""
    await world_of(saver, "bob")
    tables = [table for named in TABLES.values() for table in named if "vectors" not in table]
    before = {table: await rows(saver, table) for table in tables}
    await world_of(saver, "ada")
    await world_of(saver, "ada", tenant="acme")
    given: dict[str, Any] = {"namespaces": [("users", "ada")]}

    dry = await forget_user(saver.db, "ada", dry_run=True, **given)
    done = await forget_user(saver.db, "ada", **given)
    assert (counted(done), done.dry_run, dry.dry_run) == (ALL_OF_A_USER, False, True)
    assert dict(dry.rows) == dict(done.rows)
    assert (await forget_user(saver.db, "ada", **given)).is_empty

    again = await forget_user(saver.db, "ada", tenant="acme", **given)
    assert counted(again) == ALL_OF_A_USER
    # Of both the neighbour's item, and the event without what is personal in it.
    stay = {"agent_store_items": 2, "agent_events": 2}
    assert {table: await rows(saver, table) for table in tables} == {
        table: count + stay.get(table, 0) for table, count in before.items()
    }


async def test_personal_data_in_events_is_unreadable(saver: PostgresSaver) -> None:
    """The event is there, and its field is None."""
    await world_of(saver, "ada")
    await forget_user(saver.db, "ada")
    (event,) = await EventStore(saver.db, subjects=KEYS).get_events("ada", aggregate_type="u")
    assert (event.event_data, event.erased) == ({"email": None}, ("email",))


async def test_every_table_is_named(saver: PostgresSaver) -> None:
    """A table has something about a user, and is named with how it goes, or is known to have
    nothing. One that is in neither list is new: say which it is."""
    await AgentMemory(saver.db, embed=lambda texts: [[1.0]] * len(texts), dims=1).setup()
    index: Any = {"dims": 1, "embed": lambda texts: [[1.0]] * len(texts)}
    await MemoryStore(saver.db, index=index).asetup()
    async with saver.db.transaction() as conn:
        found = await conn.fetch("select tablename from pg_tables where schemaname = 'public'")
    named = {table for tables in TABLES.values() for table in tables}
    assert not named & IMPERSONAL
    assert {row["tablename"] for row in found} == named | IMPERSONAL


async def test_a_session_that_begins_meanwhile_goes_too(saver: PostgresSaver, dsn: str) -> None:
    """A run of the user's begins between two deletions."""
    await world_of(saver, "ada")
    told: list[ForgottenUser] = []

    async def begin() -> None:
        async with PostgresSaver.from_conn_string(dsn) as other:
            await run_of(other, "late", "ada")
            await Sessions(other.db).update("late", user_id="ada")

    def on_progress(so_far: ForgottenUser) -> None:
        told.append(so_far)
        if len(told) == 2:
            thread = threading.Thread(target=lambda: asyncio.run(begin()))
            thread.start()
            thread.join()

    done = await forget_user(saver.db, "ada", on_progress=on_progress)
    assert [one.rows["agent_sessions"] for one in told] == [1, 2, 3]
    assert done.rows["agent_sessions"] == 3
    assert await rows(saver, "agent_sessions") == 0


async def test_what_was_cut_short_is_done_by_the_next_call(saver: PostgresSaver) -> None:
    """Each session is deleted whole or not at all."""
    await world_of(saver, "ada")

    def on_progress(_: ForgottenUser) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await forget_user(saver.db, "ada", on_progress=on_progress)
    assert [await rows(saver, "agent_sessions"), await rows(saver, "agent_states")] == [1, 1]
    assert (await forget_user(saver.db, "ada")).rows["agent_sessions"] == 1
    assert await rows(saver, "agent_memory") == 0


async def test_what_row_security_keeps_is_told(saver: PostgresSaver, dsn: str) -> None:
    """Not passed over, and not tried for ever."""
    await world_of(saver, "ada")
    async with roles(dsn, "erasure") as [(role, role_dsn)]:
        await execute(
            dsn,
            "alter table agent_sessions enable row level security",
            f"create policy reads on agent_sessions for select to {role} using (true)",
        )
        async with Database(role_dsn) as db:
            with pytest.raises(ServerError, match="row security"):
                await forget_user(db, "ada")
    assert await rows(saver, "agent_sessions") == 2


@pytest.mark.parametrize("namespaces", ["users", [()], ["users"], [("users", 5)], [("a\0",)]])
async def test_namespaces_are_lists_of_labels(saver: PostgresSaver, namespaces: Any) -> None:
    """Text isn't taken for its letters, and no labels for everything."""
    await MemoryStore(saver.db).aput(("u",), "key", {"a": 1})
    with pytest.raises(InvalidArgumentError):
        await forget_user(saver.db, "ada", namespaces=namespaces)
    assert await rows(saver, "agent_store_items") == 1


@pytest.mark.parametrize("user", ["", None, 5, "a\0"])
async def test_nobody_is_forgotten(saver: PostgresSaver, user: Any) -> None:
    """An empty id is that of sessions without a user."""
    await saver.aput(config_of("t"), checkpoint_of(saver, {}), {}, {})
    with pytest.raises(InvalidArgumentError):
        await forget_user(saver.db, user)
    assert await rows(saver, "agent_sessions") == 1


async def test_a_tenant_must_be_named_where_one_is_required(dsn: str) -> None:
    """As by every other call."""
    async with Database(dsn, require_tenant=True) as db:
        with pytest.raises(MissingTenantError):
            await forget_user(db, "ada")
        assert (await forget_user(db, "ada", tenant="acme")).is_empty


async def test_a_long_id_is_one_of_sessions_alone(saver: PostgresSaver) -> None:
    """What no memory and no subject can have is no error."""
    user = "u" * 3000
    await run_of(saver, "t", user)
    await Sessions(saver.db).update("t", user_id=user)
    assert (await forget_user(saver.db, user)).rows["agent_sessions"] == 1
