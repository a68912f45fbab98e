"""Runs that store nothing before they end, and end at several levels at once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from langgraph.graph import START, StateGraph

from langgraph_pgsaga import PostgresSaver
from tests._limits import HANG_SECONDS
from tests.db._effects import Effects, once
from tests.db._gates import CONFIG, Log
from tests.db._steps import acts, stored_items

pytestmark = pytest.mark.anyio

# How long one call may be held up by another that waits for it.
_HELD_UP_SECONDS = 0.5


class Gate:
    """Holds a call up until another is stored, or waits for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, is_later: Any) -> None:
        self.is_shut = False
        stored = asyncio.Event()
        put = PostgresSaver._put

        async def held(
            saver: PostgresSaver, queue: Any, address: Any, *given: Any, **named: Any
        ) -> None:
            if self.is_shut and is_later(address):
                with suppress(TimeoutError):
                    await asyncio.wait_for(stored.wait(), _HELD_UP_SECONDS)
            await put(saver, queue, address, *given, **named)
            if self.is_shut and not is_later(address):
                stored.set()

        monkeypatch.setattr(PostgresSaver, "_put", held)


@pytest.mark.parametrize("later", ["the inner graph's", "the outer graph's"])
async def test_a_run_cancelled_in_a_subgraph_has_effects_where_it_has_results(
    saver: PostgresSaver, effects: Effects, monkeypatch: pytest.MonkeyPatch, later: str
) -> None:
    """Both graphs store their last checkpoints at once, whichever of them is the later one."""
    goes_on, is_first = asyncio.Event(), True

    async def waits(state: Any) -> Any:
        nonlocal is_first
        if is_first:
            is_first = False
            goes_on.set()
            await asyncio.sleep(HANG_SECONDS)
        return {"items": ["waits"]}

    inner = StateGraph(Log).add_node("b", acts("b")).add_node("waits", waits)
    inner.add_edge(START, "b").add_edge("b", "waits")
    # Of two tasks that are cancelled the graph above doesn't await the one.
    builder = StateGraph(Log).add_node("a", acts("a")).add_node("inner", inner.compile())
    builder.add_node("beside", acts("beside")).add_node("c", acts("c"))
    builder.add_edge(START, "a").add_edge("a", "inner").add_edge("a", "beside")
    graph = builder.add_edge(["inner", "beside"], "c").compile(checkpointer=saver)
    gate = Gate(
        monkeypatch, is_later=lambda address: bool(address.checkpoint_ns) == ("inner" in later)
    )

    run = asyncio.create_task(graph.ainvoke({"items": []}, CONFIG, durability="exit"))
    await asyncio.wait_for(goes_on.wait(), HANG_SECONDS)
    gate.is_shut = True
    run.cancel()
    with suppress(asyncio.CancelledError):
        await run
    gate.is_shut = False
    await graph.ainvoke(None, CONFIG, durability="exit")
    assert await effects.found() == once("a", "b", "beside", "c")
    assert set(await stored_items(saver)) == {"a", "b", "beside", "waits", "c"}
