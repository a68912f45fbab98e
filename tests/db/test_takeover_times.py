"""What a takeover marks its threads with, and the times that they keep."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_pgsaga import Database, PostgresSaver
from langgraph_pgsaga.database import load_migrations, migrate
from langgraph_pgsaga.messages import Messages
from langgraph_pgsaga.sessions import RetentionPolicy, Sessions
from langgraph_pgsaga.takeover import import_threads
from langgraph_pgsaga.takeover.importing import _Takeover
from tests._graphs import Saver
from tests.db import _histories as histories
from tests.db._histories import config_of
from tests.db._old_savers import MARK, all_of, value_of

pytestmark = pytest.mark.anyio


async def test_the_mark_is_none_of_the_users_metadata(old: Saver, saver: PostgresSaver) -> None:
    """Nobody sees it there, makes it, or takes it away by what they put in its place."""
    await histories.talk(histories.chat(old), config_of("t"))
    sessions = Sessions(saver.db)
    await sessions.create("mine", metadata={"pgsaga_taken_over": "f"})
    await import_threads(old, saver)
    newest = (await all_of(old))[0].config["configurable"]["checkpoint_id"]
    marks = "select array_agg(taken_over_to order by thread_id) from agent_sessions"
    assert await value_of(saver, marks) == [None, newest]
    found = await sessions.get("t")
    assert found is not None
    assert found.metadata == {}
    await sessions.update("t", metadata={"mine": 1}, user_id="bob")
    await sessions.update("mine", metadata={})
    assert await value_of(saver, marks) == [None, newest]


async def test_a_copy_isnt_taken_over(old: Saver, saver: PostgresSaver) -> None:
    """The mark is of the thread that came, not of its copies, and goes with it."""
    await histories.talk(histories.chat(old), config_of("t"))
    await import_threads(old, saver)
    await saver.acopy_thread("t", "copy")
    assert await value_of(saver, f"{MARK} where thread_id = 'copy'") is None
    await saver.adelete_thread("t")
    await histories.talk(histories.chat(saver), config_of("t"))
    assert await value_of(saver, f"{MARK} where thread_id = 't'") is None


async def test_marks_of_before_are_moved_out_of_the_metadata(empty_dsn: str) -> None:
    """What was taken over before the mark had a column stays so, and its metadata is the user's."""
    before = [m for m in load_migrations() if m.version < 5]
    async with Database(empty_dsn) as db:
        await migrate(db, migrations=before)
        async with db.transaction() as conn:
            await conn.execute(
                "insert into agent_sessions (session_id, thread_id, metadata) values "
                """(gen_random_uuid(), 'came', '{"a": 1, "pgsaga_taken_over": "1f"}'), """
                "(gen_random_uuid(), 'own', '{}')"
            )
        await migrate(db)
        async with db.transaction() as conn:
            rows = await conn.fetch(
                "select taken_over_to, metadata from agent_sessions order by thread_id"
            )
    assert [tuple(row) for row in rows] == [("1f", '{"a": 1}'), (None, "{}")]


BEGIN = datetime(2024, 5, 1, 12, tzinfo=UTC)


async def _dated(old: Saver, thread_id: str, times: Iterable[object]) -> None:
    """Gives the thread's checkpoints these times, the oldest first."""
    found = sorted(await all_of(old, config_of(thread_id)), key=lambda one: one.checkpoint["id"])
    for one, time in zip(found, times, strict=False):
        checkpoint: Any = {**one.checkpoint, "ts": time}
        config = one.parent_config or {
            "configurable": {"thread_id": thread_id, "checkpoint_ns": ""}
        }
        await old.aput(config, checkpoint, one.metadata, {})


def _days(count: int) -> Iterator[str]:
    return ((BEGIN + timedelta(days=n)).isoformat() for n in range(count))


_SAID = """
  select m.message_id, m.created_at from agent_messages m join agent_sessions t using (session_id)
  where t.thread_id = 't'
"""


async def _times_are_those_of(old: Saver, saver: PostgresSaver, thread_id: str) -> None:
    """Of checkpoints, the session, and messages: these came as an input, then into their list."""
    times: dict[str, datetime] = {}
    given: dict[str, datetime] = {}
    said: dict[str, datetime] = {}
    for one in reversed(await all_of(old, config_of(thread_id))):
        time = times[one.checkpoint["id"]] = datetime.fromisoformat(one.checkpoint["ts"])
        values = one.checkpoint["channel_values"]
        for message in values.get("__start__", {}).get("messages", []):
            given[message.id] = time
        for message in values.get("messages", []):
            said.setdefault(message.id, time)
    async with saver.db.transaction() as conn:
        states = await conn.fetch(
            "select s.checkpoint_id, s.created_at from agent_states s "
            "join agent_sessions t using (session_id) where t.thread_id = $1",
            thread_id,
        )
        messages = await conn.fetch(_SAID)
    assert dict(map(tuple, states)) == times
    assert {message_id for message_id, _ in messages} == said.keys()
    for message_id, time in messages:
        assert given.get(message_id, said[message_id]) <= time <= said[message_id]
    session = await Sessions(saver.db).get(thread_id)
    assert session is not None
    assert (session.created_at, session.last_activity_at) == (
        min(times.values()),
        max(times.values()),
    )


async def test_times_are_the_sources(old: Saver, saver: PostgresSaver) -> None:
    """Checkpoints, messages and sessions are as old here as there, also what comes later; and so
    activity, its order and what has been idle for long are told as there."""
    for thread_id in ("t", "newer"):
        await histories.talk(histories.chat(old), config_of(thread_id))
    await _dated(old, "t", _days(100))
    assert (await import_threads(old, saver, batch=3)).failed == ()
    await _times_are_those_of(old, saver, "t")
    sessions = Sessions(saver.db)
    page = await sessions.list(order="activity")
    assert [session.thread_id for session in page.sessions] == ["newer", "t"]
    page = await sessions.list(active_since=BEGIN + timedelta(days=200))
    assert [session.thread_id for session in page.sessions] == ["newer"]
    rows = (await Messages(saver).rows("t", until=BEGIN + timedelta(days=1, hours=1))).rows
    assert 0 < len(rows) < len((await Messages(saver).rows("t")).rows)
    await histories.chat(old).ainvoke({"messages": [HumanMessage("more")]}, config_of("t"))
    await _dated(old, "t", _days(200))
    assert (await import_threads(old, saver)).failed == ()
    await _times_are_those_of(old, saver, "t")
    await sessions.sweep([RetentionPolicy(max_idle=timedelta(days=30))])
    assert [s.thread_id for s in (await sessions.list()).sessions] == ["newer"]


async def test_times_are_told_after_an_interruption(
    old: Saver, saver: PostgresSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import that ended between storing checkpoints and dating them makes up for it."""
    await histories.talk(histories.chat(old), config_of("t"))
    await _dated(old, "t", _days(100))

    async def interrupted(*_: object) -> None:
        raise ConnectionAbortedError

    with monkeypatch.context() as patch:
        patch.setattr(_Takeover, "_set_times", interrupted)
        with pytest.raises(ConnectionAbortedError):
            await import_threads(old, saver, batch=3)
    assert (await import_threads(old, saver)).failed == ()
    await _times_are_those_of(old, saver, "t")


@pytest.mark.parametrize(
    "odd",
    ["nonsense", "", "2024-05-01T12:00:00", "0001-01-01T00:00:00+14:00", "2999-01-01T00:00Z", 7],
)
async def test_a_time_that_cant_be_is_now(saver: PostgresSaver, odd: object) -> None:
    """A time that is none, has no zone, is out of range or still to come keeps nothing out."""
    old = InMemorySaver()
    await histories.talk(histories.chat(old), config_of("t"))
    await _dated(old, "t", [odd] * 100)
    before = await value_of(saver, "select now()")
    assert (await import_threads(old, saver)).failed == ()
    both = "select created_at from agent_states union all select created_at from agent_messages"
    oldest, newest = [
        await value_of(saver, f"select {which}(created_at) from ({both}) t")
        for which in ("min", "max")
    ]
    assert before <= oldest <= newest <= await value_of(saver, "select now()")
    active_at = await value_of(saver, "select last_activity_at from agent_sessions")
    assert oldest <= active_at <= await value_of(saver, "select now()")
