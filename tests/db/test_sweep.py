"""Sessions are swept: what has expired or is idle, and checkpoints, beside others."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt

from langgraph_pgsaga import Database, PostgresSaver
from langgraph_pgsaga.errors import (
    InvalidArgumentError,
)
from langgraph_pgsaga.sessions import (
    RetentionPolicy,
    Sessions,
    SweepResult,
)
from langgraph_pgsaga.tenants import ALL
from langgraph_pgsaga.threads import session_id_of
from langgraph_pgsaga.work import Worker
from tests._limits import HANG_SECONDS
from tests.conftest import execute as execute_on
from tests.db._idle_threads import HOUR, chat, config_of, count, execute, listed, make_idle, say

pytestmark = pytest.mark.anyio


@pytest.fixture
async def sessions(saver: PostgresSaver) -> Sessions:
    return Sessions(saver.db)


async def name_checkpoint(sessions: Sessions, thread_id: str, checkpoint_id: str) -> None:
    await execute(
        sessions,
        "update agent_states set checkpoint_name = 'named'"
        " where session_id = $1 and checkpoint_id = $2",
        session_id_of(thread_id),
        checkpoint_id,
    )


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


# As a job of a worker


async def test_a_worker_sweeps_again_and_again(dsn: str, saver: PostgresSaver) -> None:
    """What is due to go goes, by one of the workers, and again once every_seconds are over."""
    sessions = Sessions(saver.db)
    job = sessions.job([RetentionPolicy(max_idle=HOUR)], every_seconds=60)
    async with Worker(saver.db, job), Worker(saver.db, job):
        for thread_id in ("first", "second"):
            await say(saver, thread_id, "hello")
            await make_idle(sessions, thread_id, 2 * HOUR)
            await execute(sessions, "update agent_jobs set due_at = now()")
            async with asyncio.timeout(HANG_SECONDS):
                while await sessions.get(thread_id) is not None:
                    await asyncio.sleep(0.01)


async def test_each_scope_has_a_sweep_of_its_own(dsn: str) -> None:
    """One worker may have those of several tenants and of all; a name may be given."""
    async with Database(dsn) as db:
        jobs = [Sessions(db, tenant=tenant).job() for tenant in (None, "acme", ALL)]
        jobs.append(Sessions(db).job(name="mine"))
        assert [job.name for job in jobs] == ["sweep", "sweep acme", "sweep all tenants", "mine"]
        async with Worker(db, *jobs):
            found = "select count(*) from agent_jobs where finished_at is not null"
            async with asyncio.timeout(HANG_SECONDS), db.transaction() as conn:
                while await conn.fetchval(found) < 4:
                    await asyncio.sleep(0.01)


async def test_a_job_s_policies_are_checked_when_it_is_made(dsn: str) -> None:
    """Not in a worker's log."""
    async with Database(dsn) as db:
        with pytest.raises(InvalidArgumentError, match="same agent type"):
            Sessions(db).job([RetentionPolicy(), RetentionPolicy()])
