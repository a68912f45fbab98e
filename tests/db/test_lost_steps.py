"""Steps with effects on a server that lost what it had acknowledged, beneath the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langgraph.graph import START, StateGraph

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import StepNotStoredError
from langgraph_pgsaga.work import this_step
from tests.conftest import fetch
from tests.db._effects import INSERT, Effects, once
from tests.db._gates import CONFIG, Log
from tests.db._outages import comes_true
from tests.db.test_lost_commits import Rewound

pytestmark = pytest.mark.anyio

Gates = dict[str, asyncio.Event]


def gated(name: str, gates: Gates, *, acts: bool) -> Any:
    """A node that arrives, waits until it may go on, and then acts."""

    async def node(state: Any) -> dict[str, Any]:
        gates[f"{name} arrived"].set()
        await gates[f"{name} goes"].wait()
        if acts:
            this_step().sql(INSERT, name)
        return {"items": [name]}

    return node


def beside(acting: Any, gates: Gates, saver: PostgresSaver) -> Any:
    """A graph in whose only superstep another task is after the one that acts."""
    builder: StateGraph[Any] = StateGraph(Log)
    builder.add_node("acting", acting)
    builder.add_node("slow", gated("slow", gates, acts=False))
    builder.add_edge(START, "acting")
    builder.add_edge(START, "slow")
    return builder.compile(checkpointer=saver)


def plain(gates: Gates, saver: PostgresSaver) -> Any:
    return beside(gated("acts", gates, acts=True), gates, saver)


def below(gates: Gates, saver: PostgresSaver) -> Any:
    """It acts in a subgraph, whose second node comes to its end, too."""
    inner: StateGraph[Any] = StateGraph(Log)
    inner.add_node("first", gated("acts", gates, acts=True))
    inner.add_node("second", lambda state: {"items": ["second"]})
    inner.add_edge(START, "first")
    inner.add_edge("first", "second")
    return beside(inner.compile(), gates, saver)


GRAPHS: dict[str, Callable[[Gates, PostgresSaver], Any]] = {"plain": plain, "below": below}


@pytest.mark.parametrize("what", GRAPHS)
@pytest.mark.parametrize("durability", ["sync", "async"])
async def test_no_checkpoint_has_the_result_of_a_lost_effect(
    dsn: str, saver: PostgresSaver, what: str, durability: Any
) -> None:
    """The run ends instead, and where it goes on the node acts again."""
    effects, server = Effects(dsn), Rewound(dsn)
    await effects.make()
    names = [f"{name} {what}" for name in ("acts", "slow") for what in ("arrived", "goes")]
    gates = {name: asyncio.Event() for name in names}
    graph = GRAPHS[what](gates, saver)

    async def is_written() -> bool:
        query = (
            "select 1 from agent_state_writes w"
            " where w.checkpoint_ns = '' and w.channel = 'items'"
            " and w.checkpoint_id = (select max(checkpoint_id) from agent_states"
            "   where checkpoint_ns = '')"
        )
        return bool(await asyncio.to_thread(fetch, dsn, query))

    run = asyncio.create_task(graph.ainvoke({"items": []}, CONFIG, durability=durability))
    for name in ("acts", "slow"):
        await gates[f"{name} arrived"].wait()
    await comes_true(lambda: _has_steps(dsn, 2 if what == "plain" else 4))
    await server.keep()
    gates["acts goes"].set()
    await comes_true(is_written)
    assert await effects.found() == once("acts")
    await server.lose()
    gates["slow goes"].set()
    with pytest.raises(StepNotStoredError, match="lost"):
        await run
    assert await effects.found() == {}

    found = await graph.ainvoke(None, CONFIG, durability=durability)
    assert {"acts", "slow"} <= set(found["items"])
    assert await effects.found() == once("acts")


async def _has_steps(dsn: str, count: int) -> bool:
    found = await asyncio.to_thread(fetch, dsn, "select 1 from agent_states")
    return len(found) >= count
