"""Sessions: made, changed, listed page by page, deleted, and swept beside others."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Thread
from typing import Annotated, Any, TypedDict
from uuid import UUID

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt

from langgraph_pgsaga import PostgresSaver, sync
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
from langgraph_pgsaga.threads import session_id_of
from tests._limits import HANG_SECONDS
from tests.conftest import execute as execute_on

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)
ORDERS: tuple[SessionOrder, ...] = ("activity", "priority", "created")


@pytest.fixture
async def sessions(saver: PostgresSaver) -> Sessions:
    return Sessions(saver.db)


def config_of(thread_id: str, **configurable: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, **configurable}}


def chat(saver: PostgresSaver) -> Any:
    """A graph that answers a message."""

    def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(f"answer {len(state['messages'])}")]}

    builder = StateGraph(MessagesState)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    return builder.compile(checkpointer=saver)


async def say(saver: PostgresSaver, thread_id: str, *words: str, **configurable: Any) -> None:
    for word in words:
        config = config_of(thread_id, **configurable)
        await chat(saver).ainvoke({"messages": [HumanMessage(word)]}, config)


async def execute(sessions: Sessions, statement: str, *args: Any) -> None:
    async with sessions.db.transaction() as conn:
        await conn.execute(statement, *args)


async def count(sessions: Sessions, table: str, thread_id: str) -> int:
    async with sessions.db.transaction() as conn:
        query = f"select count(*) from {table} where session_id = $1"
        return int(await conn.fetchval(query, session_id_of(thread_id)))


async def make_idle(sessions: Sessions, thread_id: str, age: timedelta) -> None:
    await execute(
        sessions,
        "update agent_sessions set last_activity_at = now() - $2::interval where session_id = $1",
        session_id_of(thread_id),
        age,
    )


async def name_checkpoint(sessions: Sessions, thread_id: str, checkpoint_id: str) -> None:
    await execute(
        sessions,
        "update agent_states set checkpoint_name = 'named'"
        " where session_id = $1 and checkpoint_id = $2",
        session_id_of(thread_id),
        checkpoint_id,
    )


async def listed(sessions: Sessions, **filters: Any) -> list[str]:
    """The thread ids of all pages, fetched in pages of two."""
    found: list[str] = []
    page = await sessions.list(limit=2, **filters)
    found += [s.thread_id for s in page.sessions]
    while page.next_cursor is not None:
        page = await sessions.list(limit=2, after=page.next_cursor, **filters)
        assert page.sessions
        found += [s.thread_id for s in page.sessions]
    return found


# Making and changing


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
        [order, priority, "0001-01-01T00:00:00+14:00", session_id],
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


# Sweeping


async def test_a_sweep_deletes_what_has_expired(sessions: Sessions, saver: PostgresSaver) -> None:
    """In batches, each told of; what expires later, or never, stays."""
    past, later = datetime(2001, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
    for n in range(5):
        await say(saver, f"expired {n}", "hello")
        await sessions.update(f"expired {n}", expires_at=past)
    await sessions.create("later", expires_at=later)
    await sessions.create("never")
    told: list[SweepResult] = []
    result = await sessions.sweep(batch=2, on_progress=told.append)
    assert result == SweepResult(deleted_sessions=5)
    assert [t.deleted_sessions for t in told] == [2, 4, 5]
    assert sorted(await listed(sessions)) == ["later", "never"]
    assert await count(sessions, "agent_messages", "expired 0") == 0
    assert await sessions.sweep() == SweepResult()


async def test_a_policy_counts_for_its_agent_type(sessions: Sessions, saver: PostgresSaver) -> None:
    """The policy for all is for those types that no other names; a name protects."""
    for agent_type in ("support", "sales", "other"):
        for age in (1, 3, 5):
            thread_id = f"{agent_type} {age}"
            await sessions.create(thread_id, agent_type=agent_type)
            await make_idle(sessions, thread_id, age * HOUR)
    await say(saver, "named", "hello")
    last = await chat(saver).aget_state(config_of("named"))
    await name_checkpoint(sessions, "named", last.config["configurable"]["checkpoint_id"])
    await make_idle(sessions, "named", 9 * HOUR)
    policies = [
        RetentionPolicy(max_idle=2 * HOUR),
        RetentionPolicy(agent_type="support", max_idle=4 * HOUR),
        RetentionPolicy(agent_type="sales"),
    ]
    assert (await sessions.sweep(policies, batch=1)).deleted_sessions == 3
    left = ["named", "other 1", "sales 1", "sales 3", "sales 5", "support 1", "support 3"]
    assert sorted(await listed(sessions)) == left
    unnamed = RetentionPolicy(max_idle=8 * HOUR, keep_named=False)
    assert (await sessions.sweep([unnamed])).deleted_sessions == 1
    assert await sessions.get("named") is None


async def test_a_session_that_wakes_up_during_a_sweep_stays(sessions: Sessions, dsn: str) -> None:
    """Idleness counts when the session is locked, not when it was found."""
    for n in range(3):
        await sessions.create(f"t{n}")
        await make_idle(sessions, f"t{n}", 2 * HOUR)
    wake_all = "update agent_sessions set last_activity_at = now()"

    def wake(_: SweepResult) -> None:
        thread = Thread(target=asyncio.run, args=(execute_on(dsn, wake_all),))
        thread.start()
        thread.join()

    policies = [RetentionPolicy(max_idle=HOUR)]
    result = await sessions.sweep(policies, batch=1, on_progress=wake)
    assert result.deleted_sessions == 1
    assert len(await listed(sessions)) == 2


async def test_odd_policies_are_refused(sessions: Sessions) -> None:
    """Two for one type, no time, no checkpoints."""
    odd: list[dict[str, Any]] = [{"max_idle": timedelta(0)}, {"keep_last": 0}, {"keep_last": 1.0}]
    for arguments in odd:
        with pytest.raises(InvalidArgumentError):
            RetentionPolicy(**arguments)
    with pytest.raises(InvalidArgumentError, match="same agent type"):
        await sessions.sweep([RetentionPolicy(agent_type="a"), RetentionPolicy(agent_type="a")])


async def test_pruning_keeps_the_last_and_the_named(
    sessions: Sessions, saver: PostgresSaver
) -> None:
    """The last checkpoints and the named one are as they were; what only others used is gone."""
    graph, config = chat(saver), config_of("t")
    await say(saver, "t", *(f"word {n}" for n in range(6)))
    before = [s async for s in graph.aget_state_history(config)]
    named = before[9]
    await name_checkpoint(sessions, "t", named.config["configurable"]["checkpoint_id"])
    # An answer that only checkpoints which go refer to.
    await graph.aupdate_state(before[5].config, {"messages": [AIMessage("aside")]})
    await say(saver, "t", "last")
    before = [s async for s in graph.aget_state_history(config)]
    told: list[SweepResult] = []
    policy = RetentionPolicy(keep_last=4)
    result = await sessions.sweep([policy], on_progress=told.append)
    after = [s async for s in graph.aget_state_history(config)]
    expected = [*before[:4], next(s for s in before if s.config == named.config)]
    assert [(s.config, s.values, s.next) for s in after] == [
        (s.config, s.values, s.next) for s in expected
    ]
    gone = len(before) - 5
    assert told == [result] == [SweepResult(pruned_sessions=1, deleted_checkpoints=gone)]
    assert await sessions.sweep([policy]) == SweepResult()
    unnamed = RetentionPolicy(keep_last=1, keep_named=False)
    assert (await sessions.sweep([unnamed])).deleted_checkpoints == 4
    assert await count(sessions, "agent_states", "t") == 1
    state = (await graph.aget_state(config)).values
    assert state == before[0].values
    assert await count(sessions, "agent_messages", "t") == len(state["messages"])


def _added(state: list[AnyMessage], writes: Any) -> list[AnyMessage]:
    for write in writes:
        state = add_messages(state, write)  # type: ignore[assignment, arg-type]
    return state


class DeltaState(TypedDict, total=False):
    messages: Annotated[
        list[AnyMessage],
        DeltaChannel(_added, snapshot_frequency=3),
    ]
    turn: int


@pytest.mark.parametrize("keep_last", [1, 2, 3, 5])
async def test_pruning_keeps_what_delta_channels_need(
    sessions: Sessions, saver: PostgresSaver, keep_last: int
) -> None:
    """At any distance from a snapshot, each kept checkpoint has its state, the named too."""
    builder = StateGraph(DeltaState)
    builder.add_node("talk", lambda state: {"messages": [AIMessage("a")], "turn": 1})
    builder.add_edge(START, "talk")
    graph, config = builder.compile(checkpointer=saver), config_of("t")
    for turn in range(8):
        await graph.ainvoke({"messages": [HumanMessage(f"q {turn}")]}, config)
    before = [s async for s in graph.aget_state_history(config)]
    named = before[13].config
    await name_checkpoint(sessions, "t", named["configurable"]["checkpoint_id"])
    result = await sessions.sweep([RetentionPolicy(keep_last=keep_last)])
    assert result.deleted_checkpoints > 0
    for snapshot in [*before[:keep_last], before[13]]:
        assert (await graph.aget_state(snapshot.config)).values == snapshot.values
    again = await graph.ainvoke({"messages": [HumanMessage("more")]}, config)
    assert again["messages"][:-2] == before[0].values["messages"]


class Counted(TypedDict, total=False):
    calls: int
    answers: Annotated[list[str], lambda old, new: old + new]


async def test_pruning_keeps_what_a_replay_starts_from(
    sessions: Sessions, saver: PostgresSaver
) -> None:
    """A replay of a kept, named checkpoint finds the memory its subgraph had at that time."""
    inner = StateGraph(Counted)
    inner.add_node("count", lambda state: {"calls": state.get("calls", 0) + 1})
    inner.add_edge(START, "count")
    counter = inner.compile(checkpointer=True)
    outer = StateGraph(Counted)

    async def ask(state: Counted) -> dict[str, Any]:
        found = await counter.ainvoke({"answers": []})
        return {"answers": [f"call {found['calls']}"]}

    outer.add_node("ask", ask)
    outer.add_edge(START, "ask")
    graph, config = outer.compile(checkpointer=saver), config_of("t")
    for _ in range(6):
        await graph.ainvoke({"answers": []}, config)
    before = [s async for s in graph.aget_state_history(config)]
    third = [s for s in before if s.next == ("ask",)][3]
    expected = await graph.ainvoke(None, third.config)
    assert expected["answers"][-1] == "call 3"
    await name_checkpoint(sessions, "t", third.config["configurable"]["checkpoint_id"])
    result = await sessions.sweep([RetentionPolicy(keep_last=1)])
    assert result.deleted_checkpoints > 0
    assert await graph.ainvoke(None, third.config) == expected


async def test_pruning_keeps_interrupted_runs_going(
    sessions: Sessions, saver: PostgresSaver
) -> None:
    """A subgraph that waits for an answer inside an interrupted run takes it after the prune."""
    inner = StateGraph(Counted)
    inner.add_node("first", lambda state: {"answers": ["asked"]})
    inner.add_node("wait", lambda state: {"answers": [interrupt("well?")]})
    inner.add_edge(START, "first")
    inner.add_edge("first", "wait")
    outer = StateGraph(Counted)
    outer.add_node("sub", inner.compile())
    outer.add_edge(START, "sub")
    graph, config = outer.compile(checkpointer=saver), config_of("t")
    for word in ("one", "two"):
        await graph.ainvoke({"answers": []}, config)
        await graph.ainvoke(Command(resume=word), config)
    expected = (await graph.aget_state(config)).values["answers"]
    await graph.ainvoke({"answers": []}, config)
    assert (await sessions.sweep([RetentionPolicy(keep_last=1)])).deleted_checkpoints > 0
    async with sessions.db.transaction() as conn:
        calls = await conn.fetchval(
            "select count(distinct checkpoint_ns) from agent_states where checkpoint_ns <> ''"
        )
    assert calls == 1
    answer = await graph.ainvoke(Command(resume="three"), config)
    assert answer["answers"] == [*expected, *expected, "asked", "three"]


async def test_what_somebody_holds_is_left_to_the_next_sweep(
    sessions: Sessions, saver: PostgresSaver
) -> None:
    """A sweep waits for nobody, and deletes and prunes all else meanwhile."""
    past = datetime(2001, 1, 1, tzinfo=UTC)
    for thread_id in ("held expired", "held", "expired", "free"):
        await say(saver, thread_id, "one", "two")
    for thread_id in ("held expired", "expired"):
        await sessions.update(thread_id, expires_at=past)
    held = [session_id_of("held expired"), session_id_of("held")]
    policies = [RetentionPolicy(keep_last=1)]
    async with sessions.db.transaction() as conn:
        lock = "select from agent_sessions where session_id = any($1) for key share"
        await conn.execute(lock, held)
        async with asyncio.timeout(HANG_SECONDS):
            result = await sessions.sweep(policies)
    assert (result.deleted_sessions, result.pruned_sessions) == (1, 1)
    assert sorted(await listed(sessions)) == ["free", "held", "held expired"]
    result = await sessions.sweep(policies)
    assert (result.deleted_sessions, result.pruned_sessions) == (1, 1)
    assert await count(sessions, "agent_states", "held") == 1


async def test_two_sweepers_share_the_work(
    dsn: str, sessions: Sessions, saver: PostgresSaver
) -> None:
    """Each session is deleted, or pruned, by one of them; together they do all of it."""
    past = datetime(2001, 1, 1, tzinfo=UTC)
    for n in range(12):
        await say(saver, f"old {n}", "one")
        await sessions.update(f"old {n}", expires_at=past)
        await say(saver, f"long {n}", "one", "two")
    policies = [RetentionPolicy(keep_last=2)]
    async with PostgresSaver.from_conn_string(dsn) as other:
        results = await asyncio.gather(
            sessions.sweep(policies, batch=2), Sessions(other.db).sweep(policies, batch=2)
        )
    last = await sessions.sweep(policies)
    assert last.deleted_sessions == 0
    every = [*results, last]
    assert sum(r.deleted_sessions for r in every) == 12
    assert sum(r.pruned_sessions for r in every) == 12
    assert sum(r.deleted_checkpoints for r in every) == 12 * 4
    assert sorted(await listed(sessions)) == sorted(f"long {n}" for n in range(12))
    for n in range(12):
        state = await chat(saver).aget_state(config_of(f"long {n}"))
        assert len(state.values["messages"]) == 4


async def test_a_running_graph_goes_on_beside_sweeps(
    sessions: Sessions, saver: PostgresSaver
) -> None:
    """Every turn of a pruned conversation sees all before it, and at the end all is there."""
    is_over = False

    async def sweep() -> int:
        deleted = 0
        while not is_over:
            result = await sessions.sweep([RetentionPolicy(keep_last=1)])
            deleted += result.deleted_checkpoints
        return deleted

    sweeping = asyncio.create_task(sweep())
    for turn in range(25):
        answer = await chat(saver).ainvoke({"messages": [HumanMessage(f"q{turn}")]}, config_of("t"))
        assert len(answer["messages"]) == 2 * turn + 2
    is_over = True
    assert await sweeping > 0
    await sessions.sweep([RetentionPolicy(keep_last=1)])
    assert await count(sessions, "agent_states", "t") == 1
    state = await chat(PostgresSaver(saver.db)).aget_state(config_of("t"))
    assert [m.content for m in state.values["messages"]] == [m.content for m in answer["messages"]]
    assert await count(sessions, "agent_messages", "t") == 50


async def test_a_message_that_a_sweep_took_away_is_stored_again(
    sessions: Sessions, saver: PostgresSaver
) -> None:
    """The saver that remembers its number doesn't refer to what is gone."""
    graph, config = chat(saver), config_of("t")
    aside = HumanMessage("aside", id="aside")
    await graph.aupdate_state(config, {"messages": [aside]})
    await graph.aupdate_state(config, {"messages": [RemoveMessage(id="aside")]})
    await sessions.sweep([RetentionPolicy(keep_last=1)])
    assert await count(sessions, "agent_messages", "t") == 0
    await graph.aupdate_state(config, {"messages": [aside]})
    found = await chat(PostgresSaver(saver.db)).aget_state(config)
    assert found.values["messages"] == [aside]


@pytest.mark.parametrize(
    ("name", "indexes", "is_sorted"),
    [
        ("list_by_activity", set(), True),
        ("list_by_created", {"agent_sessions_created_idx"}, False),
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
