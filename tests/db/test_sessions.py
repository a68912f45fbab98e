"""Sessions: made, changed, listed page by page and deleted, from async and sync code."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from langgraph_pgsaga import Database, PostgresSaver, sync
from langgraph_pgsaga.database import load_statements
from langgraph_pgsaga.errors import (
    InvalidArgumentError,
    InvalidCursorError,
    MissingThreadError,
    SessionExistsError,
    UnstorableValueError,
)
from langgraph_pgsaga.sessions import (
    RetentionPolicy,
    Session,
    SessionOrder,
    Sessions,
    SessionStatus,
    SweepResult,
)
from langgraph_pgsaga.sessions.arguments import checked_metadata
from langgraph_pgsaga.threads import session_id_of
from tests.conftest import execute as execute_on
from tests.db._idle_threads import HOUR, chat, config_of, count, execute, listed, make_idle, say

pytestmark = pytest.mark.anyio
_TIME_COLUMNS = ("created_at", "last_activity_at", "expires_at")
_FIRST, _LAST = (t.replace(tzinfo=UTC) for t in (datetime.min, datetime.max))  # noqa: DTZ901
ORDERS: tuple[SessionOrder, ...] = ("activity", "priority", "created")


@pytest.fixture
async def sessions(saver: PostgresSaver) -> Sessions:
    return Sessions(saver.db)


async def test_a_session_comes_back_as_it_was_created(sessions: Sessions) -> None:
    """Every field, the times in UTC, and get gives what create gave."""
    expires_at = datetime(2100, 1, 2, 3, 4, 5, 678901, UTC)
    made = await sessions.create(
        "t",
        user_id="ann",
        agent_type="support",
        priority=-3,
        metadata={"tags": ["a", {"b": None}]},
        expires_at=expires_at,
    )
    assert made == Session(
        thread_id="t",
        session_id=session_id_of("t"),
        user_id="ann",
        agent_type="support",
        status=SessionStatus.ACTIVE,
        priority=-3,
        metadata={"tags": ["a", {"b": None}]},
        message_count=0,
        created_at=made.created_at,
        last_activity_at=made.created_at,
        expires_at=expires_at,
    )
    assert made.created_at.utcoffset() == timedelta(0)
    assert await sessions.get("t") == made
    assert await sessions.get("other") is None


async def test_a_session_is_created_once(sessions: Sessions, saver: PostgresSaver) -> None:
    """A second create, also after a run, is refused and changes nothing."""
    made = await sessions.create("created", user_id="ann")
    await say(saver, "ran", "hello", user_id="bob")
    for thread_id in ("created", "ran"):
        with pytest.raises(SessionExistsError):
            await sessions.create(thread_id, user_id="eve")
    assert await sessions.get("created") == made
    ran = await sessions.get("ran")
    assert ran is not None
    assert (ran.user_id, ran.message_count) == ("bob", 2)


async def test_a_run_uses_the_session_that_was_created(
    sessions: Sessions, saver: PostgresSaver
) -> None:
    """What create said stays; a run adds the messages, and the user where none was named."""
    await sessions.create("t", metadata={"plan": "gold"}, priority=4)
    await say(saver, "t", "hello", user_id="ann")
    found = await sessions.get("t")
    assert found is not None
    assert (found.metadata, found.priority) == ({"plan": "gold"}, 4)
    assert (found.user_id, found.message_count) == ("ann", 2)
    assert found.last_activity_at > found.created_at


@pytest.mark.parametrize("is_past", [False, True], ids=["whole", "up to a checkpoint"])
async def test_a_copy_uses_the_session_that_was_created(
    sessions: Sessions, saver: PostgresSaver, is_past: bool
) -> None:
    """A thread that was made for somebody isn't another's for being begun with a copy; what
    create left open is the source's."""
    await sessions.create("source", user_id="ann", agent_type="sales", metadata={"of": "ann"})
    await sessions.update("source", priority=3)
    await say(saver, "source", "hello")
    latest = await saver.aget_tuple(config_of("source"))
    assert latest is not None
    checkpoint_id = latest.checkpoint["id"] if is_past else None
    expires_at = datetime(2100, 1, 1, tzinfo=UTC)
    await sessions.create(
        "bobs",
        user_id="bob",
        agent_type="help",
        metadata={"of": "bob"},
        priority=4,
        expires_at=expires_at,
    )
    await sessions.create("open")
    for target in ("bobs", "open", "new"):
        await saver.acopy_thread("source", target, checkpoint_id=checkpoint_id)
    found = {name: await sessions.get(name) for name in ("bobs", "open", "new")}
    assert {
        name: s and (s.user_id, s.agent_type, s.priority, s.metadata, s.expires_at)
        for name, s in found.items()
    } == {
        "bobs": ("bob", "help", 4, {"of": "bob"}, expires_at),
        "open": ("ann", "sales", 3, {"of": "ann"}, None),
        "new": ("ann", "sales", 3, {"of": "ann"}, None),
    }
    assert [s.message_count for s in found.values() if s] == [2, 2, 2]


async def test_an_update_changes_what_is_given(sessions: Sessions) -> None:
    """Each field alone, all others as they were; None ends the expiry; and it is no activity."""
    expires_at = datetime(2100, 1, 1, tzinfo=UTC)
    before = await sessions.create("t", user_id="ann", metadata={"a": 1})
    changes: list[dict[str, Any]] = [
        {"user_id": "bob"},
        {"agent_type": "sales"},
        {"status": SessionStatus.PAUSED},
        {"priority": 9},
        {"metadata": {"b": 2}},
        {"metadata": {}},
        {"expires_at": expires_at},
        {"user_id": ""},
        {"expires_at": None},
        {},
    ]
    for change in changes:
        after = await sessions.update("t", **change)
        fields = Session.__dataclass_fields__
        assert {f for f in fields if getattr(after, f) != getattr(before, f)} == set(change)
        assert {f: getattr(after, f) for f in change} == change
        before = after
    assert await sessions.get("t") == before


async def test_what_is_not_there_is_not_changed(sessions: Sessions) -> None:
    """update and set_status raise, and make no session."""
    with pytest.raises(MissingThreadError):
        await sessions.update("t", priority=1)
    with pytest.raises(MissingThreadError):
        await sessions.set_status("t", SessionStatus.FAILED)
    assert await sessions.get("t") is None


async def test_a_status_is_set(sessions: Sessions) -> None:
    """Every status can be set and found."""
    await sessions.create("t")
    for status in SessionStatus:
        assert (await sessions.set_status("t", status)).status is status
        assert await listed(sessions, status=status) == ["t"]


async def test_what_postgresql_cannot_hold_is_refused(sessions: Sessions) -> None:
    """Nothing is stored in part: the errors name the argument."""
    odd: Any = "active"
    wrong: list[dict[str, Any]] = [
        {"user_id": "a\0"},
        {"agent_type": "\ud800"},
        {"priority": 2**31},
        {"priority": True},
        {"expires_at": datetime(2030, 1, 1)},  # noqa: DTZ001 - that is the point
    ]
    for arguments in wrong:
        with pytest.raises(InvalidArgumentError, match=next(iter(arguments))):
            await sessions.create("t", **arguments)
    for metadata in ({"a": float("nan")}, {"a": object()}, {"a": "\0"}):
        with pytest.raises(UnstorableValueError):
            await sessions.create("t", metadata=metadata)
    assert await sessions.get("t") is None
    await sessions.create("t")
    with pytest.raises(InvalidArgumentError, match="status"):
        await sessions.set_status("t", odd)


@pytest.mark.parametrize(
    ("metadata", "place"),
    [
        ({"a": [1, {"b c": float("nan")}]}, "metadata['a'][1]['b c']"),
        ({"a": {1: "x"}}, "metadata['a']"),
        ({"a": {1, 2}, "b": 1}, "metadata['a']"),
        ({1: 2}, "metadata"),
    ],
)
def test_metadata_that_cant_be_stored_is_told_where(metadata: Any, place: str) -> None:
    """The way to what is to blame, also where a value is in itself."""
    with pytest.raises(UnstorableValueError) as refused:
        checked_metadata(metadata)
    assert refused.value.where == place
    around: dict[str, Any] = {}
    around["self"] = around
    with pytest.raises(UnstorableValueError):
        checked_metadata(around)


async def test_a_transaction_takes_its_changes_with_it(sessions: Sessions) -> None:
    """With conn nothing is committed before the caller's transaction, which may roll back."""
    await sessions.create("old")

    async def change_all() -> None:
        async with sessions.db.transaction() as conn:
            await sessions.create("new", conn=conn)
            await sessions.update("new", priority=3, conn=conn)
            await sessions.set_status("new", SessionStatus.PAUSED, conn=conn)
            await sessions.delete("old", conn=conn)
            raise TimeoutError

    with pytest.raises(TimeoutError):
        await change_all()
    assert await listed(sessions) == ["old"]


async def test_deleting_leaves_nothing_in_any_table(
    sessions: Sessions, saver: PostgresSaver
) -> None:
    """No table of the schema with a session_id has a row of it; the other thread keeps all."""
    for thread_id in ("gone", "kept"):
        await say(saver, thread_id, "hello", "x" * 5000)
        await saver.aput_writes(
            (await chat(saver).aget_state(config_of(thread_id))).config, [("c", 1)], "task"
        )
    async with sessions.db.transaction() as conn:
        rows = await conn.fetch(
            "select c.table_name from information_schema.columns c"
            " join information_schema.tables t using (table_schema, table_name)"
            " where c.table_schema = current_schema() and t.table_type = 'BASE TABLE'"
            " and c.column_name = 'session_id'"
        )
    tables = [row["table_name"] for row in rows]
    assert {"agent_sessions", "agent_states", "agent_messages"} <= set(tables)
    before = {table: await count(sessions, table, "kept") for table in tables}
    await sessions.delete("gone")
    await sessions.delete("never there")
    assert {t: await count(sessions, t, "gone") for t in tables} == dict.fromkeys(tables, 0)
    assert {table: await count(sessions, table, "kept") for table in tables} == before


# Listing


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("filters", [{}, {"user_id": "ann"}, {"agent_type": "a"}], ids=str)
async def test_pages_give_every_session_once_in_order(
    sessions: Sessions, order: SessionOrder, filters: dict[str, str]
) -> None:
    """Also where many sessions stand at the same place of the order."""
    create = partial(sessions.create, user_id="ann", agent_type="a")
    async with sessions.db.transaction() as conn:  # one time for all of them
        for n in range(7):
            await create(f"same {n}", priority=1, conn=conn)
    for n in range(6):
        await create(f"own {n}", priority=n // 2 - 1)
    for n, agent_type in enumerate(["A", "aa", ""]):
        if filters:
            await sessions.create(f"other {n}", user_id="bob", agent_type=agent_type)
    found = await listed(sessions, order=order, **filters)
    assert len(found) == len(set(found)) == 13
    made = {thread_id: await sessions.get(thread_id) for thread_id in found}

    def place(thread_id: str) -> tuple[Any, ...]:
        session = made[thread_id]
        assert session is not None
        if order == "priority":
            return -session.priority, session.created_at, session.session_id
        time = session.last_activity_at if order == "activity" else session.created_at
        return time, session.session_id

    assert found == sorted(found, key=place, reverse=order != "priority")


@pytest.mark.parametrize("filters", [{}, {"user_id": ""}, {"agent_type": ""}], ids=str)
async def test_sessions_by_priority_are_a_queue(
    sessions: Sessions, filters: dict[str, str]
) -> None:
    """The highest priority comes first, whatever it is, and of each the oldest."""
    lowest, highest = -(2**31), 2**31 - 1
    for thread_id, priority in {"a": 0, "b": highest, "c": lowest, "d": 0, "e": highest}.items():
        await sessions.create(thread_id, priority=priority)
    assert await listed(sessions, order="priority", **filters) == ["b", "e", "a", "d", "c"]


async def test_a_session_that_comes_meanwhile_is_in_the_pages_to_come(sessions: Sessions) -> None:
    """By priority a new session goes behind the older ones, where the cursor hasn't been."""
    for n in range(3):
        await sessions.create(f"t{n}")
    first = await sessions.list(order="priority", limit=1)
    await sessions.create("new")
    rest = await sessions.list(order="priority", after=first.next_cursor)
    assert [s.thread_id for s in rest.sessions] == ["t1", "t2", "new"]


async def test_agent_types_are_told_apart_beyond_what_the_index_holds(sessions: Sessions) -> None:
    """Of a long one the index has the beginning; the listing compares all of it."""
    for name in ("x", "y"):
        await sessions.create(name, agent_type="a" * 3000 + name)
    for order in ORDERS:
        assert await listed(sessions, order=order, agent_type="a" * 3000 + "y") == ["y"]


@pytest.mark.parametrize("order", ORDERS)
async def test_no_session_comes_twice_while_others_are_active(
    sessions: Sessions, order: SessionOrder
) -> None:
    """A session that moves to the front isn't shown again; those that don't move all come."""
    for n in range(10):
        await sessions.create(f"t{n}")
    first = await sessions.list(order=order, limit=3)
    moved = first.sessions[0].thread_id
    await make_idle(sessions, moved, -HOUR)
    await sessions.create("new")
    found = [s.thread_id for s in first.sessions]
    cursor = first.next_cursor
    while cursor is not None:
        page = await sessions.list(order=order, limit=3, after=cursor)
        found += [s.thread_id for s in page.sessions]
        cursor = page.next_cursor
    # By priority a new session comes last.
    assert sorted(found) == [*["new"] * (order == "priority"), *(f"t{n}" for n in range(10))]


async def test_each_filter_lets_through_what_fits(sessions: Sessions, saver: PostgresSaver) -> None:
    """Alone, and all together; a filter that isn't given doesn't filter."""
    await say(saver, "a", "my parcel is lost", user_id="ann", agent_type="support")
    await say(saver, "b", "a refund, please", user_id="ann", agent_type="sales")
    await say(saver, "c", "lost again", user_id="bob", agent_type="support")
    await sessions.create("d", user_id="bob" * 300, metadata={"tags": ["x", "y"], "n": 1})
    await sessions.update("a", metadata={"tags": ["y", "z"]}, status=SessionStatus.PAUSED)
    await make_idle(sessions, "b", HOUR)
    ago = datetime.now(UTC) - HOUR / 2
    fits: list[tuple[dict[str, Any], str]] = [
        ({}, "abcd"),
        ({"user_id": "ann"}, "ab"),
        ({"user_id": "bob" * 300}, "d"),
        ({"user_id": "bob" * 299}, ""),
        ({"user_id": "", "agent_type": "support"}, ""),
        ({"agent_type": "support"}, "ac"),
        ({"status": SessionStatus.PAUSED}, "a"),
        ({"metadata": {"tags": ["y"]}}, "ad"),
        ({"metadata": {}}, "abcd"),
        ({"metadata": {"tags": ["y"], "n": 2}}, ""),
        ({"active_since": ago}, "acd"),
        ({"active_before": ago}, "b"),
        ({"text": "lost"}, "ac"),
        ({"text": '"lost parcel"'}, ""),
        ({"text": "lost -parcel"}, "c"),
        ({"text": "lost or refund", "user_id": "ann"}, "ab"),
        ({"text": "lost", "metadata": {"tags": ["z"]}}, "a"),
        ({"text": "refund", "user_id": "ann"}, "b"),
        ({"text": "refund", "metadata": {"tags": ["y"]}}, ""),
        ({"text": ""}, ""),
        (
            {
                "user_id": "ann",
                "agent_type": "support",
                "status": SessionStatus.PAUSED,
                "metadata": {"tags": ["z"]},
                "active_since": ago,
                "active_before": datetime.now(UTC) + HOUR,
                "text": "parcel",
            },
            "a",
        ),
    ]
    for filters, expected in fits:
        for order in ORDERS:
            found = await listed(sessions, order=order, **filters)
            assert "".join(sorted(found)) == expected, filters


async def test_a_cursor_that_no_listing_gave_is_refused(sessions: Sessions) -> None:
    """Nonsense, a part of one, another order's, and one with odd contents."""
    for n in range(3):
        await sessions.create(f"t{n}")
    cursor = (await sessions.list(limit=1, order="created")).next_cursor
    assert cursor is not None
    order, priority, time, session_id = json.loads(base64.urlsafe_b64decode(cursor))
    odd: list[Any] = [
        [order, 2**31, time, session_id],
        [order, priority, "2020-01-01T00:00:00", session_id],
        [order, priority, "10001-02-29T00:00:00+00:00", session_id],
        [order, priority, "now", session_id],
        [order, priority, None, session_id],
        [order, priority, time, "x"],
        [order, priority, time, 1],
        [order, priority, time],
        {},
    ]
    wrong = ["", "x", "é", cursor[:-5], "\0", cursor + "=", "\ud800"]
    wrong += [base64.urlsafe_b64encode(json.dumps(o).encode()).decode() for o in odd]
    for given in wrong:
        with pytest.raises(InvalidCursorError):
            await sessions.list(order="created", after=given)
    with pytest.raises(InvalidCursorError, match="by activity"):
        await sessions.list(after=cursor)
    assert len((await sessions.list(order="created", after=cursor)).sessions) == 2


# From the last to the first; the year 9999's last moment comes as that of the years behind it.
_TIMES = (
    *("infinity", "294276-12-31 23:59:59.999999+00", "10000-01-01 00:00:00+00"),
    *("9999-12-31 23:59:59.999999+00", "2026-01-01 00:00:00.000001+00", "0001-01-01 00:00:00+00"),
    *("0001-12-31 00:00:00+00 BC", "4713-01-02 00:00:00+00 BC"),
)


@pytest.mark.parametrize("setting", ["timezone = 'Asia/Kolkata'", "datestyle = 'SQL, DMY'"])
@pytest.mark.parametrize("order", ORDERS)
async def test_times_that_python_has_not_hide_no_session(
    dsn: str, order: SessionOrder, setting: str
) -> None:
    """Pages show each session once, with the nearest time that there is, and so does `get`."""
    await execute_on(dsn, f'alter database "{urlsplit(dsn).path[1:]}" set {setting}')
    async with Database(dsn) as db:
        sessions = Sessions(db)
        for n, time in enumerate(_TIMES):
            await sessions.create(str(n), agent_type="a", user_id="ann")
            columns = ", ".join(f"{c} = '{time}'" for c in _TIME_COLUMNS)
            await execute(sessions, f"update agent_sessions set {columns} where thread_id = '{n}'")
        expected = [str(n) for n in range(len(_TIMES))]
        if order == "priority":  # as in a queue: the oldest first
            expected.reverse()
        for narrowed in ({}, {"agent_type": "a"}, {"user_id": "ann"}):
            filters: dict[str, Any] = {"order": order, **narrowed}
            assert await listed(sessions, **filters) == expected, filters
            assert await listed(sessions, limit=1, **filters) == expected, filters
        for n, nearest in ((0, _LAST), (2, _LAST), (7, _FIRST)):
            session = await sessions.get(str(n))
            assert session is not None
            assert {getattr(session, c) for c in _TIME_COLUMNS} == {nearest}


async def test_a_listing_refuses_what_it_cannot_do(sessions: Sessions) -> None:
    """Unknown orders, limits out of range, times without a zone."""
    odd: list[dict[str, Any]] = [
        {"order": "size"},
        {"limit": 0},
        {"limit": 10_001},
        {"active_since": datetime(2030, 1, 1)},  # noqa: DTZ001 - that is the point
        {"text": "\0"},
        {"status": "active"},
    ]
    for arguments in odd:
        with pytest.raises(InvalidArgumentError, match=next(iter(arguments))):
            await sessions.list(**arguments)


@pytest.mark.parametrize(
    ("name", "indexes", "is_sorted"),
    [
        ("list_by_activity", set(), True),
        ("list_by_created", {"agent_sessions_newest_idx"}, False),
        ("list_by_priority", {"agent_sessions_queue_idx"}, False),
        ("list_type_by_created", {"agent_sessions_type_idx"}, False),
        ("list_type_sorted", {"agent_sessions_type_idx"}, True),
        ("claim_expired", {"agent_sessions_expires_idx"}, False),
        (
            "select_swept",
            {"agent_sessions_pkey", "agent_states_name_idx", "agent_states_pkey"},
            True,
        ),
        ("claim_idle", {"agent_sessions_pkey"}, False),
        (
            "list_narrowed",
            {
                "agent_messages_words_idx",
                "agent_sessions_metadata_idx",
                "agent_sessions_pkey",
                "agent_sessions_user_idx",
            },
            True,
        ),
    ],
)
async def test_sessions_are_found_through_their_indexes(
    sessions: Sessions, name: str, indexes: set[str], is_sorted: bool
) -> None:
    """Those orders that have an index are read in it, so that a page costs a page."""
    await execute(
        sessions,
        "insert into agent_sessions (session_id, thread_id, user_id, created_at, expires_at)"
        " select pgsaga_session_id(n::text), n::text, 'user ' || n % 100,"
        " now() + n * interval '1 second', now()"
        " from generate_series(1, 3000) n",
    )
    await execute(
        sessions,
        "insert into agent_messages (session_id, message_no, message_type, role, content, metadata,"
        " digest, payload_type, payload)"
        " select pgsaga_session_id(n::text), 1, 'human', 'user', 'word' || n, '{}',"
        " int4send(n), 'msgpack', ''"
        " from generate_series(1, 3000) n",
    )
    await execute(sessions, "analyze agent_sessions")
    await execute(sessions, "analyze agent_messages")
    statement = load_statements("sessions")[name]
    async with sessions.db.transaction() as conn:
        types = ", ".join(sql_type for _, sql_type in statement.params)
        nothing = ", ".join("null" for _ in statement.params)
        await conn.execute(f"prepare probe ({types}) as {sessions.db.text(statement)}")
        answer = await conn.fetchval(f"explain (format json) execute probe ({nothing})")
    found = list(nodes(json.loads(answer)[0]["Plan"]))
    used = {n["Index Name"] for n in found if "Index Name" in n}
    assert indexes <= used
    assert any("Sort" in n["Node Type"] for n in found) is is_sorted
    if name == "list_narrowed":
        by_id = [n for n in found if n.get("Index Name") == "agent_sessions_pkey"]
        assert [(n["Node Type"], "Index Cond" in n) for n in by_id] == [("Index Scan", True)]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


# Sync callers


def test_sync_callers_do_the_same(sync_saver: PostgresSaver) -> None:
    """Each method passes on what it is given, and the answer."""
    sessions = sync.Sessions(sync_saver.db)
    made = sessions.create(
        "t",
        user_id="ann",
        agent_type="a",
        priority=2,
        metadata={"k": 1},
        expires_at=datetime(2100, 1, 1, tzinfo=UTC),
    )
    assert sessions.get("t") == made
    assert (made.user_id, made.agent_type, made.priority, made.metadata) == (
        "ann",
        "a",
        2,
        {"k": 1},
    )
    changed = sessions.update(
        "t",
        user_id="bob",
        agent_type="b",
        priority=3,
        metadata={},
        expires_at=datetime(2001, 1, 1, tzinfo=UTC),
    )
    assert (changed.user_id, changed.agent_type, changed.priority) == ("bob", "b", 3)
    assert sessions.set_status("t", SessionStatus.FAILED).status is SessionStatus.FAILED
    sessions.create("u")
    page = sessions.list(order="created", limit=1)
    assert [s.thread_id for s in page.sessions] == ["u"]
    assert [
        s.thread_id for s in sessions.list(order="created", after=page.next_cursor).sessions
    ] == ["t"]
    assert sessions.list(user_id="bob", text="x").sessions == ()
    sessions.delete("u")
    told: list[SweepResult] = []
    policies = [RetentionPolicy(max_idle=HOUR)]
    assert sessions.sweep(policies, batch=1, on_progress=told.append).deleted_sessions == 1
    assert len(told) == 1
    assert sessions.list().sessions == ()
    assert isinstance(made.session_id, UUID)
