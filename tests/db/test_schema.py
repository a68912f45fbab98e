"""The migrated database: its catalogue, its functions and views, and how it takes updates."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage

from langgraph_pgsaga import Database, PostgresSaver
from langgraph_pgsaga.doctor import catalogue
from langgraph_pgsaga.threads import session_id_of
from tests._limits import HANG_SECONDS
from tests.conftest import execute, fetch
from tests.db._puts import checkpoint_of, config_of, put

CATALOGUE = Path(catalogue.__file__).parents[1] / "sql" / "catalogue.txt"
# The PostgreSQL version that the file was written with.
CATALOGUE_VERSION = 18
FULL = bool(os.environ.get("PGSAGA_FULL"))


def catalogue_of(dsn: str, schema: str | None = None) -> catalogue.Objects:
    """Every object of the schema, by kind and name."""

    async def run() -> catalogue.Objects:
        async with Database(dsn, schema=schema) as database:
            return await catalogue.found(database)

    return asyncio.run(run())


def test_the_catalogue_is_the_reviewed_one(dsn: str) -> None:
    """A change of the schema shows in review; PGSAGA_UPDATE_CATALOGUE=1 writes the file anew."""
    found = catalogue_of(dsn)
    version = fetch(dsn, "select current_setting('server_version_num')::integer / 10000")[0][0]
    if os.environ.get("PGSAGA_UPDATE_CATALOGUE"):
        assert version == CATALOGUE_VERSION
        CATALOGUE.write_text(catalogue.lines(found), "utf-8")
        catalogue.expected.cache_clear()
    sides = [catalogue.lines(side).splitlines() for side in (found, catalogue.expected())]
    if version != CATALOGUE_VERSION:
        # Not each version prints the text of views and functions in the same way.
        sides = [[x for x in side if not x.startswith(f"{catalogue.TEXT}\t")] for side in sides]
    assert sides[0] == sides[1], "run this test with PGSAGA_UPDATE_CATALOGUE=1"


def test_the_catalogue_sees_a_change(dsn: str) -> None:
    """A column, an index, a default or a function more makes another catalogue."""
    before = catalogue_of(dsn)
    changes = (
        "alter table agent_states add column more text",
        "create index on agent_messages (role)",
        "alter table agent_sessions alter column priority set default 1",
        "create function more() returns int language sql return 1",
        "alter table agent_messages add constraint short check (length(role) < 100)",
    )
    for change in changes:
        fetch(dsn, change)
        after = catalogue_of(dsn)
        assert after != before, change
        before = after


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=20, max_size=200
    )
)
@settings(
    max_examples=100 if FULL else 15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_python_and_sql_give_a_thread_the_same_session(dsn: str, thread_ids: list[str]) -> None:
    """pgsaga_session_id and session_id_of are one rule, so either side finds the rows."""
    rows = fetch(
        dsn, "select t, pgsaga_session_id(t) as session from unnest($1::text[]) t", thread_ids
    )
    assert [(t, session_id_of(t)) for t in thread_ids] == [(r["t"], r["session"]) for r in rows]


def test_history_has_one_current_checkpoint_per_namespace(
    dsn: str, sync_saver: PostgresSaver
) -> None:
    """is_current is true for the newest checkpoint of each (thread, namespace), and only there."""
    newest = {}
    for thread_id in ("a", "b"):
        for namespace in ("", "sub:1"):
            for step in range(3):
                config = put(sync_saver, config_of(thread_id, namespace), {"c": step})
                newest[thread_id, namespace] = config["configurable"]["checkpoint_id"]
    rows = fetch(dsn, "select * from agent_state_history where is_current")
    assert len(rows) == len(newest)
    assert {(r["thread_id"], r["checkpoint_ns"]): r["checkpoint_id"] for r in rows} == newest
    assert fetch(dsn, "select count(*) from agent_state_history")[0][0] == 12


def test_history_hashes_are_equal_where_the_versions_are(
    dsn: str, sync_saver: PostgresSaver
) -> None:
    """state_hash tells whether two checkpoints hold the same state."""
    first = checkpoint_of(sync_saver, {"a": 1, "b": 2})
    same = checkpoint_of(sync_saver, {"a": 1, "b": 2})
    same["channel_versions"] = dict(reversed(first["channel_versions"].items()))
    other = checkpoint_of(sync_saver, {"a": 1, "b": 2})
    for checkpoint in (first, same, other):
        versions = checkpoint["channel_versions"]
        sync_saver.put(config_of("t"), checkpoint, {"source": "loop", "step": 7}, versions)
    rows = fetch(dsn, "select * from agent_state_history")
    hashes = {row["checkpoint_id"]: row["state_hash"] for row in rows}
    assert hashes[first["id"]] == hashes[same["id"]] != hashes[other["id"]]
    assert {(row["source"], row["step"]) for row in rows} == {("loop", 7)}


@pytest.mark.parametrize("step", ["abc", 1.5, 10**12, None, {"a": 1}])
def test_history_survives_any_step(dsn: str, sync_saver: PostgresSaver, step: Any) -> None:
    """A step that is no step is null in the view, and every other row is still there."""
    put(sync_saver, config_of("odd"), {"c": 1})
    odd = f"jsonb_set(metadata, '{{step}}', $${json.dumps(step)}$$)"
    asyncio.run(execute(dsn, f"update agent_states set metadata = {odd}"))
    put(sync_saver, config_of("usual"), {"c": 1}, {"step": -1})
    rows = fetch(dsn, "select thread_id, step from agent_state_history order by thread_id")
    assert [tuple(row) for row in rows] == [("odd", None), ("usual", -1)]


def test_conversations_are_the_latest_checkpoints_messages_in_order(
    dsn: str, sync_saver: PostgresSaver
) -> None:
    """Each message at its place, also one that comes twice, and none that was taken out."""
    hi, yes, no = HumanMessage("hi", id="1"), AIMessage("yes", id="2"), AIMessage("no", id="3")
    config = put(sync_saver, config_of("t"), {"messages": [hi, no, yes], "notes": [no]})
    put(sync_saver, config, {"messages": [hi, yes, hi], "notes": [no]})
    rows = fetch(
        dsn,
        "select channel, position, role, content from agent_conversations"
        " where thread_id = 't' order by channel, position",
    )
    assert [tuple(row) for row in rows] == [
        ("messages", 1, "user", "hi"),
        ("messages", 2, "assistant", "yes"),
        ("messages", 3, "user", "hi"),
        ("notes", 1, "assistant", "no"),
    ]


_UPDATES = """
  select n_tup_upd as updates, n_tup_hot_upd as hot
  from pg_stat_user_tables where relname = 'agent_sessions'
"""


def test_updates_of_a_session_touch_no_index(dsn: str) -> None:
    """Of 200 puts to a thread nearly every update of its row stays on its page (HOT)."""
    with PostgresSaver.from_conn_string(dsn) as saver:
        config = config_of("t")
        for step in range(200):
            config = put(saver, config, {"c": step})
    # The server reports a connection's counts when it ends.
    deadline = time.monotonic() + HANG_SECONDS
    while (row := fetch(dsn, _UPDATES)[0])["updates"] < 199:
        assert time.monotonic() < deadline, "the updates were never counted"
        time.sleep(0.05)
    assert row["hot"] >= 0.95 * row["updates"]
