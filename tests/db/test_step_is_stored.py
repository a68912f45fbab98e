"""A node that acts outside the database first waits until its step can't be forgotten."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from langgraph_pgsaga import PostgresSaver, sync
from langgraph_pgsaga.checkpoint import riders
from langgraph_pgsaga.errors import (
    BlockingCallError,
    NoStepError,
    ServerError,
    StepError,
    StepNotStoredError,
)
from langgraph_pgsaga.work import RunContext, step_is_stored
from tests._connections import connected
from tests.conftest import execute, fetch
from tests.db._gates import CONFIG, adds, graph_of

pytestmark = pytest.mark.anyio

STATES = "select checkpoint_ns, checkpoint_id from agent_states"


def places(dsn: str) -> set[tuple[str, str]]:
    return {(row["checkpoint_ns"], row["checkpoint_id"]) for row in fetch(dsn, STATES)}


async def test_the_checkpoint_is_there_when_it_returns(saver: PostgresSaver, dsn: str) -> None:
    """Of a node and of a subgraph's, which is run while its checkpoint is on its way."""
    seen: list[bool] = []

    async def node(state: Any) -> Any:
        await step_is_stored()
        run = RunContext.current()
        assert run is not None
        stored = await asyncio.to_thread(places, dsn)
        seen.append((run.checkpoint_ns, run.checkpoint_id) in stored and min(stored) > ("", ""))
        return {"items": ["node"]}

    inner = graph_of(None, first=adds("first"), node=node)
    graph = graph_of(saver, node=node, sub=inner)
    await graph.ainvoke({"items": []}, CONFIG, durability="async")
    assert seen == [True, True]


def test_of_a_sync_node(sync_saver: PostgresSaver, dsn: str) -> None:
    """`langgraph_pgsaga.sync` has it, too."""
    seen: list[bool] = []

    def node(state: Any) -> Any:
        sync.step_is_stored()
        run = RunContext.current()
        assert run is not None
        seen.append((run.checkpoint_ns, run.checkpoint_id) in places(dsn))
        return {"items": ["node"]}

    graph_of(sync_saver, node=node).invoke({"items": []}, CONFIG)
    assert seen == [True]


async def test_it_waits_no_longer_than_it_says(
    saver: PostgresSaver, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where somebody keeps the checkpoint from being stored; then the node may go on."""
    monkeypatch.setattr(riders, "_LONGEST_WAIT_SECONDS", 0.2)
    told: list[StepNotStoredError] = []
    async with connected(dsn) as other:

        async def first(state: Any) -> Any:
            await step_is_stored()
            await other.execute("begin")
            await other.execute("select from agent_sessions for update")
            return {"items": ["first"]}

        async def second(state: Any) -> Any:
            with pytest.raises(StepNotStoredError) as caught:
                await step_is_stored()
            told.append(caught.value)
            await other.execute("rollback")
            await step_is_stored()
            return {"items": ["second"]}

        graph = graph_of(saver, first=first, second=second)
        found = await graph.ainvoke({"items": []}, CONFIG, durability="async")
    assert found == {"items": ["first", "second"]}
    assert "isn't stored" in str(told[0])


async def test_it_takes_no_round_trip_where_that_is_known(
    saver: PostgresSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under "sync" the process knows it: nothing is asked."""
    calls: list[Any] = []
    real = saver.db.fetch

    async def fetched(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return await real(*args, **kwargs)

    async def node(state: Any) -> Any:
        before = len(calls)
        await step_is_stored()
        assert len(calls) == before
        return {"items": ["node"]}

    monkeypatch.setattr(saver.db, "fetch", fetched)
    await graph_of(saver, node=node).ainvoke({"items": []}, CONFIG, durability="sync")
    assert calls


async def test_where_it_was_stored_by_another_the_server_is_asked(
    saver: PostgresSaver, second: PostgresSaver
) -> None:
    """A run that goes on from a checkpoint which this saver has forgotten finds it."""
    asked: list[bool] = []

    async def node(state: Any) -> Any:
        if not asked:
            asked.append(True)
            raise ValueError
        second._cache.forget(second.steps.session_of(CONFIG))
        await step_is_stored()
        return {"items": ["node"]}

    with pytest.raises(ValueError):  # noqa: PT011
        await graph_of(saver, node=node).ainvoke({"items": []}, CONFIG)
    await graph_of(second, node=node).ainvoke(None, CONFIG)


async def test_at_exit_nothing_is_stored_in_time(saver: PostgresSaver) -> None:
    """It says so, and what to do."""

    async def node(state: Any) -> Any:
        await step_is_stored()

    with pytest.raises(StepNotStoredError, match='durability="async" or "sync"') as caught:
        await graph_of(saver, node=node).ainvoke({"items": []}, CONFIG, durability="exit")
    assert isinstance(caught.value, StepError)


async def test_outside_and_in_a_loop_it_says_what_to_do(saver: PostgresSaver) -> None:
    with pytest.raises(NoStepError, match=r"outside of a node.*there is no step to wait for$"):
        await step_is_stored()

    async def node(state: Any) -> Any:
        with pytest.raises(BlockingCallError):
            sync.step_is_stored()
        return {"items": []}

    await graph_of(saver, node=node).ainvoke({"items": []}, CONFIG)


async def test_a_checkpoint_that_cant_be_stored_is_not_waited_for(
    saver: PostgresSaver, dsn: str
) -> None:
    """The put failed, so the node is told, instead of waiting for ever."""
    raised: list[BaseException] = []

    async def node(state: Any) -> Any:
        try:
            await step_is_stored()
        except StepNotStoredError as error:
            raised.append(error)
            raise
        return {"items": []}

    await execute(dsn, "alter table agent_states add constraint none check (checkpoint_id = '')")
    with pytest.raises((ServerError, StepNotStoredError)):
        await graph_of(saver, node=node).ainvoke({"items": []}, CONFIG, durability="async")
    [error] = raised
    assert isinstance(error.__cause__, ServerError)
