"""What calls say of their thread's run counts once they are stored, and not at all if they fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT
from langgraph.types import interrupt

from langgraph_pgsaga import PgSagaError, PostgresSaver
from langgraph_pgsaga.checkpoint import saver as saver_module
from langgraph_pgsaga.checkpoint.batch import Batch
from langgraph_pgsaga.errors import (
    ServerConnectionError,
    ServerError,
    UnstorableValueError,
)
from langgraph_pgsaga.sessions import Sessions, SessionStatus
from langgraph_pgsaga.threads import session_id_of
from tests._connections import connected
from tests._limits import HANG_SECONDS
from tests.db._gates import CONFIG, adds, graph_of
from tests.db._puts import checkpoint_of, config_of
from tests.db._waits import queued_up, waits_for_a_lock

pytestmark = pytest.mark.anyio

Call = Callable[[], Awaitable[Any]]


def remembered(saver: PostgresSaver) -> Any:
    """What the process holds of runs, leases and stops, and of the session."""
    leases = [
        (
            lease.is_claimed,
            lease.is_session_new,
            lease.has_ended,
            set(lease.loaded),
            lease.course and lease.course._is_complete,
        )
        for lease in (run.lease for run in saver._leases._runs._found.values())
    ]
    runs = [
        (dict(run.loaded), run.last_step, run.course._is_complete)
        for run in saver._tracker._runs._found.values()
    ]
    stops = {key: stop.status for key, stop in saver._tracker._stops._found.items()}
    known = saver._cache.known(session_id_of("t"))
    session = known and (known.epoch, known.message_count, set(known.states))
    return leases, runs, stops, session


async def unencodable(saver: PostgresSaver, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise UnstorableValueError(where="here", problem="for the test")

    monkeypatch.setattr(saver_module, "encode_put", refuse)
    monkeypatch.setattr(saver_module, "encode_writes", refuse)
    with pytest.raises(UnstorableValueError):
        await call()


def refused_by(error: Exception) -> Any:
    async def refused(saver: PostgresSaver, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        async def broken(*_: Any, **__: Any) -> Any:
            raise error

        monkeypatch.setattr(saver.db, "fetch", broken)
        with pytest.raises(type(error)):
            await call()

    return refused


async def defective(saver: PostgresSaver, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(batch: Batch) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(Batch, "arguments", broken)
    with pytest.raises(ZeroDivisionError):
        await call()


async def cancelled(saver: PostgresSaver, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    task = asyncio.ensure_future(call())
    async with asyncio.timeout(HANG_SECONDS):
        while not saver._queue()._queued_bytes:
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def overtaken(saver: PostgresSaver, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else has the lease, until the call was refused."""
    conn = await asyncpg.connect(saver.db.dsn)
    before = await conn.fetchrow("select lease_id, lease_expires_at from agent_sessions")
    assert before is not None
    taken = "now() + interval '1 hour'"
    await conn.execute(
        f"update agent_sessions set lease_id = gen_random_uuid(), lease_expires_at = {taken}"
    )
    with pytest.raises(PgSagaError, match="'t'"):
        await call()
    taken_back = "update agent_sessions set lease_id = $1, lease_expires_at = $2"
    await conn.execute(taken_back, *before)
    await conn.close()


FAILURES = {
    "it can't be encoded": unencodable,
    "the server refuses it": refused_by(ServerError(dsn="d", sqlstate="XX000", detail="no")),
    "the connection is lost": refused_by(ServerConnectionError(dsn="d", detail="gone")),
    "a defect": defective,
    "cancelled before it is sent": cancelled,
    "somebody has the lease": overtaken,
}


def failing_first(
    saver: PostgresSaver, method: str, is_meant: Callable[..., bool], fails: Any
) -> list[str]:
    """Each call that is meant fails first, leaves all as it was, and is made again."""
    seen: list[str] = []
    # So that it is no other call that fails.
    one_at_a_time = asyncio.Lock()

    def failing(name: str) -> Any:
        real = getattr(saver, name)

        async def call(*args: Any) -> Any:
            async with one_at_a_time:
                if name == method and is_meant(*args):
                    before = remembered(saver)
                    with pytest.MonkeyPatch.context() as patch:
                        await fails(saver, lambda: real(*args), patch)
                    assert remembered(saver) == before
                    seen.append(name)
                return await real(*args)

        return call

    for name in ("aput", "aput_writes"):
        setattr(saver, name, failing(name))
    return seen


async def session(saver: PostgresSaver) -> tuple[Any, bool]:
    """The thread's status, and whether its lease was given back."""
    found = await Sessions(saver.db).get("t")
    conn = await asyncpg.connect(saver.db.dsn)
    ends = await conn.fetchval("select lease_expires_at from agent_sessions")
    await conn.close()
    assert found is not None
    return found.status, ends is None


@pytest.mark.parametrize("fails", FAILURES.values(), ids=FAILURES)
async def test_a_put_that_fails_leaves_run_and_lease_as_they_were(
    single: PostgresSaver, fails: Any
) -> None:
    """Every put of a run fails once: made again, the run goes on and ends as any other."""
    has_stored = lambda config, *_: bool(config["configurable"].get("checkpoint_id"))  # noqa: E731
    seen = failing_first(single, "aput", has_stored, fails)
    graph = graph_of(single, one=adds(1), two=adds(2))
    answer = await graph.ainvoke({"items": [0]}, {**CONFIG, "recursion_limit": 3})
    assert answer["items"] == [0, 1, 2]
    assert len(seen) == 3
    assert await session(single) == (SessionStatus.COMPLETED, True)


@pytest.mark.parametrize("fails", FAILURES.values(), ids=FAILURES)
async def test_a_write_that_fails_leaves_run_and_lease_as_they_were(
    single: PostgresSaver, fails: Any
) -> None:
    """A question that isn't stored ends no run, and one that is does."""

    async def asks(state: Any) -> Any:
        return {"items": [interrupt("more?")]}

    is_question = lambda _, writes, *__: writes[0][0] == INTERRUPT  # noqa: E731
    seen = failing_first(single, "aput_writes", is_question, fails)
    graph = graph_of(single, one=adds(1), asks=asks)
    await graph.ainvoke({"items": [0]}, CONFIG, durability="sync")
    assert seen
    assert await session(single) == (SessionStatus.PAUSED, True)


def state_that_goes_on(saver: PostgresSaver) -> Any:
    """A checkpoint of a graph with a node that is next."""
    values = {"__start__": None, "branch:to:one": None}
    checkpoint = checkpoint_of(saver, values)
    return checkpoint, {"source": "loop", "step": 1}, checkpoint["channel_versions"]


async def held_up(
    saver: PostgresSaver, dsn: str, *calls: Callable[[], Awaitable[Any]]
) -> list[Any]:
    """The calls wait for each other while their session is locked, then go together."""
    async with connected(dsn) as conn, conn.transaction():
        await conn.execute("select from agent_sessions where thread_id = 't' for update")
        first = asyncio.ensure_future(saver.aput(CONFIG, *state_that_goes_on(saver)))
        await waits_for_a_lock(dsn)
        queued = [asyncio.ensure_future(call()) for call in calls]
        await queued_up(saver, len(calls))
        assert not first.done()
    async with asyncio.timeout(HANG_SECONDS):
        await first
        return await asyncio.gather(*queued, return_exceptions=True)


async def test_a_question_before_its_checkpoint_counts_in_one_statement(
    saver: PostgresSaver, dsn: str
) -> None:
    """A checkpoint that waits behind the question at which its run stopped leaves it paused."""
    config = await saver.aput(config_of("t"), *state_that_goes_on(saver))
    new = state_that_goes_on(saver)
    asked: RunnableConfig = {
        "configurable": {**CONFIG["configurable"], "checkpoint_id": new[0]["id"]}
    }
    await held_up(
        saver,
        dsn,
        lambda: saver.aput_writes(asked, [(INTERRUPT, "more?")], "task"),
        lambda: saver.aput(config, *new),
    )
    found = await Sessions(saver.db).get("t")
    assert found is not None
    assert found.status is SessionStatus.PAUSED


async def test_a_question_that_isnt_stored_doesnt_stop_its_checkpoint(
    saver: PostgresSaver, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a statement's calls one fails alone: the checkpoint says what it says without it."""
    config = await saver.aput(config_of("t"), *state_that_goes_on(saver))
    new = state_that_goes_on(saver)
    asked: RunnableConfig = {
        "configurable": {**CONFIG["configurable"], "checkpoint_id": new[0]["id"]}
    }
    add_writes = Batch._add_writes

    def broken(batch: Batch, part: Any, call: Any) -> None:
        if call.rows[0][1] == ERROR:
            raise ZeroDivisionError
        add_writes(batch, part, call)

    monkeypatch.setattr(Batch, "_add_writes", broken)
    results = await held_up(
        saver,
        dsn,
        lambda: saver.aput_writes(asked, [(ERROR, "no")], "task"),
        lambda: saver.aput(config, *new),
    )
    assert [type(one) for one in results] == [ZeroDivisionError, dict]
    found = await Sessions(saver.db).get("t")
    assert found is not None
    assert found.status is SessionStatus.ACTIVE
