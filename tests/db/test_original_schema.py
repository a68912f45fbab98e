"""SQL in the words of the original schema: what of it works, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg
import pytest
from langchain_core.messages import HumanMessage

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.sessions import Sessions, SessionStatus
from tests.db._idle_threads import chat, config_of

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sessions.md"


async def test_a_session_may_be_made_by_sql(saver: PostgresSaver) -> None:
    """The page's INSERT makes a session as `create` does: what isn't given has its default."""
    section = PAGE.read_text("utf-8").partition("## The original schema")[2]
    (insert,) = re.findall(r"```sql\n(.*?)```", section, re.DOTALL)
    async with saver.db.transaction() as conn:
        await conn.execute(insert)
    sessions = Sessions(saver.db)
    found = await sessions.get("ticket-18")
    assert found is not None
    assert (found.user_id, found.agent_type, found.priority) == ("ann", "support", 5)
    assert (found.status, found.metadata) == (SessionStatus.ACTIVE, {"plan": "gold"})
    assert [s.thread_id for s in (await sessions.list(agent_type="support")).sessions] == [
        "ticket-18"
    ]


async def test_a_run_goes_on_with_a_session_made_by_sql(saver: PostgresSaver) -> None:
    """It is the thread's: a run stores under it, and moves last_activity_at."""
    async with saver.db.transaction() as conn:
        before = await conn.fetchval(
            "insert into agent_sessions (session_id, thread_id, user_id, status, expires_at)"
            " values (pgsaga_session_id('t'), 't', 'ann', 'paused', now() + interval '1 day')"
            " returning last_activity_at"
        )
    await chat(saver).ainvoke({"messages": [HumanMessage("hi")]}, config_of("t"))
    found = await Sessions(saver.db).get("t")
    assert found is not None
    assert (found.user_id, found.status, found.message_count) == (
        "ann",
        SessionStatus.COMPLETED,
        2,
    )
    assert found.last_activity_at > before
    assert found.expires_at is not None


async def test_columns_of_the_original_may_be_changed_by_sql(saver: PostgresSaver) -> None:
    """An UPDATE of what keeps its name is what `update` does; a status of no kind is refused."""
    sessions = Sessions(saver.db)
    made = await sessions.create("t")
    change = (
        "update agent_sessions set user_id = 'bob', agent_type = 'sales', status = 'failed',"
        " priority = 7, metadata = '{\"n\": 1}', expires_at = now() where session_id = $1"
    )
    async with saver.db.transaction() as conn:
        await conn.execute(change, made.session_id)
    found = await sessions.get("t")
    assert found is not None
    assert (found.user_id, found.agent_type, found.status) == ("bob", "sales", SessionStatus.FAILED)
    assert (found.priority, found.metadata) == (7, {"n": 1})
    assert found.last_activity_at == made.last_activity_at
    async with saver.db.transaction() as conn:
        with pytest.raises(asyncpg.CheckViolationError):
            await conn.execute("update agent_sessions set status = 'done'")


@pytest.mark.parametrize(
    "insert",
    [
        "agent_sessions (user_id, agent_type) values ('ann', 'support')",
        "agent_states (session_id, state_data) values (pgsaga_session_id('t'), '{}')",
        "agent_messages (message_type, content) values ('human', 'hi')",
    ],
    ids=["agent_sessions", "agent_states", "agent_messages"],
)
async def test_what_the_original_would_make_an_id_for_is_refused(
    saver: PostgresSaver, insert: str
) -> None:
    """Nothing half-made gets in: a column that has to be given says so."""
    async with saver.db.transaction() as conn:
        with pytest.raises(asyncpg.NotNullViolationError):
            await conn.execute(f"insert into {insert}")


async def test_a_change_is_no_activity(saver: PostgresSaver) -> None:
    """What was `updated_at` stays when a session is changed, and moves when its thread is."""
    sessions = Sessions(saver.db)
    made = await sessions.create("t")
    changed = await sessions.update("t", priority=1, metadata={"n": 1}, user_id="ann")
    paused = await sessions.set_status("t", SessionStatus.PAUSED)
    assert made.last_activity_at == changed.last_activity_at == paused.last_activity_at
    await chat(saver).ainvoke({"messages": [HumanMessage("hi")]}, config_of("t"))
    found = await sessions.get("t")
    assert found is not None
    assert found.last_activity_at > made.last_activity_at
