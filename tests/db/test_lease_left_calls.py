"""Calls that a cancelled run leaves behind on their way, and the run that begins meanwhile."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from langgraph.checkpoint.serde.types import INTERRUPT
from langgraph.types import Command, interrupt

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.checkpoint import under_way
from langgraph_pgsaga.checkpoint.call_store import CallStore
from langgraph_pgsaga.checkpoint.encode import EncodedWrites
from langgraph_pgsaga.checkpoint.under_way import CallsUnderWay
from tests._forked import assert_succeeds, in_child, needs_fork
from tests._limits import HANG_SECONDS
from tests.db._gates import CONFIG, adds, graph_of, is_one_line

pytestmark = pytest.mark.anyio


class HeldUp:
    """The first statement with a question, which goes on when it is let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_sent, self.goes_on = asyncio.Event(), asyncio.Event()
        store = CallStore.store_together

        async def late(own: CallStore, calls: Any) -> Any:
            writes = [call for call in calls if isinstance(call, EncodedWrites)]
            if any(channel == INTERRUPT for call in writes for _, channel, _ in call.rows):
                monkeypatch.setattr(CallStore, "store_together", store)
                self.is_sent.set()
                await self.goes_on.wait()
            return await store(own, calls)

        monkeypatch.setattr(CallStore, "store_together", late)


def asks(state: Any) -> Any:
    return {"items": [interrupt("go on?")]}


async def left_behind(graph: Any, held: HeldUp, durability: Any) -> None:
    """A run that is cancelled until it ends, while its last statement is on its way."""
    run = asyncio.create_task(graph.ainvoke({"items": [0]}, CONFIG, durability=durability))
    await asyncio.wait_for(held.is_sent.wait(), HANG_SECONDS)
    async with asyncio.timeout(HANG_SECONDS):
        while not run.done():
            run.cancel()
            await asyncio.sleep(0)
    assert run.cancelled()


async def test_a_run_waits_for_what_a_cancelled_one_left_behind(
    single: PostgresSaver, monkeypatch: pytest.MonkeyPatch, durability: Any
) -> None:
    """It begins with that, instead of being shut out by it."""
    graph, held = graph_of(single, asks=asks, end=adds("end")), HeldUp(monkeypatch)
    await left_behind(graph, held, durability)
    settle, fetch = CallsUnderWay.settle, single._fetch_state

    async def waits(own: CallsUnderWay, session_id: Any) -> None:
        held.goes_on.set()
        await settle(own, session_id)

    async def looks(address: Any) -> Any:
        found = await fetch(address)
        held.goes_on.set()
        return found

    monkeypatch.setattr(CallsUnderWay, "settle", waits)
    monkeypatch.setattr(single, "_fetch_state", looks)
    call = graph.ainvoke(Command(resume="yes"), CONFIG, durability=durability)
    answer = await asyncio.wait_for(call, HANG_SECONDS)
    assert answer["items"] == [0, "yes", "end"]
    assert await is_one_line(single)


async def test_waiting_for_what_was_left_behind_is_told(
    single: PostgresSaver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Again and again, with the session; other threads don't wait."""
    monkeypatch.setattr(under_way, "_TOLD_EVERY_SECONDS", 0.01)
    caplog.set_level(logging.WARNING, "langgraph_pgsaga.checkpoint")
    graph, held = graph_of(single, asks=asks), HeldUp(monkeypatch)
    await left_behind(graph, held, "sync")
    begun = asyncio.create_task(graph.ainvoke(Command(resume="yes"), CONFIG))
    async with asyncio.timeout(HANG_SECONDS):
        while len(caplog.messages) < 2:
            await asyncio.sleep(0.01)
    assert all("calls of runs that ended are waited for" in told for told in caplog.messages)
    assert await single.aget_tuple({"configurable": {"thread_id": "u"}}) is None
    held.goes_on.set()
    assert (await asyncio.wait_for(begun, HANG_SECONDS))["items"] == [0, "yes"]


@needs_fork
def test_a_child_doesnt_wait_for_what_its_parent_left_behind(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent's calls are the parent's."""

    async def scenario(saver: PostgresSaver) -> None:
        held = HeldUp(monkeypatch)
        graph = graph_of(saver, asks=asks)
        await left_behind(graph, held, "sync")
        assert saver._under_way._calls

        def child() -> None:
            assert not saver._under_way._calls

        assert_succeeds(in_child(child))
        held.goes_on.set()
        assert (await graph.ainvoke(Command(resume="yes"), CONFIG))["items"] == [0, "yes"]

    with PostgresSaver.from_conn_string(dsn, single_writer=True) as saver:
        asyncio.run(scenario(saver))
