"""What nodes of subgraphs write is there once, with the result of their step or the parent's."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from langgraph.errors import GraphInterrupt
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from langgraph_pgsaga import PostgresSaver
from tests.db._effects import Effects, once
from tests.db._gates import CONFIG, Log, graph_of
from tests.db._steps import FAST, act, acts, channels_of, nested, stored_items

pytestmark = pytest.mark.anyio


async def test_subgraphs(saver: PostgresSaver, effects: Effects, durability: Any) -> None:
    """Nodes of a subgraph, and of one within it, act once."""
    graph = nested(saver, acts("deep"))
    await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    assert await effects.found() == once("top", "before0", "first", "deep", "end")


async def test_a_subgraph_that_is_stopped_in_the_middle(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """What its finished nodes did is there with their results, and not done again."""

    async def asks(state: Any) -> Any:
        act("asks")
        return {"items": [interrupt("?")]}

    graph = nested(saver, asks)
    await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    assert await effects.found() == once("top", "before0", "first")
    graph = nested(saver.anew(), asks)
    await graph.ainvoke(Command(resume="yes"), CONFIG, durability=durability)
    assert await effects.found() == once("top", "before0", "first", "asks", "end")


async def test_a_subgraph_that_fails_in_the_middle(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """The same where a node of it fails, and the run is resumed."""
    fails = [True]

    async def node(state: Any) -> Any:
        act("node")
        if fails:
            raise ValueError(fails.pop())
        return {"items": ["node"]}

    graph = nested(saver, node)
    with pytest.raises(ValueError, match="True"):
        await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    assert await effects.found() == once("top", "before0", "first")
    await graph.ainvoke(None, CONFIG, durability=durability)
    assert await effects.found() == once("top", "before0", "first", "node", "end")


async def test_a_handoff_to_the_parent(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """A node that leaves its subgraph acts with the task that it was in."""

    async def leaves(state: Any) -> Command[Any]:
        act("leaves")
        return Command(goto="other", graph=Command.PARENT, update={"items": ["left"]})

    inner = graph_of(None, first=acts("first"), leaves=leaves)
    builder: StateGraph[Any] = StateGraph(Log)
    builder.add_node("sub", inner, destinations=("other",))
    builder.add_node("other", acts("other"))
    builder.add_edge(START, "sub")
    graph = builder.compile(checkpointer=saver)
    await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    assert await effects.found() == once("first", "leaves", "other")
    assert "left" in await stored_items(saver)
    assert await channels_of(saver) == []


async def test_a_handoff_whose_parent_is_tried_again(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """What the subgraph's node did in the parent's first attempt is dropped."""
    attempts: list[int] = []

    async def leaves(state: Any) -> Command[Any]:
        attempts.append(len(attempts) + 1)
        act(f"attempt {attempts[-1]}")
        return Command(goto="other", graph=Command.PARENT)

    inner = graph_of(None, leaves=leaves)

    async def calls(state: Any) -> Any:
        if len(attempts) == 2:
            return {"items": ["without"]}
        try:
            return await inner.ainvoke(state)
        except Exception:
            raise ValueError("again") from None

    builder: StateGraph[Any] = StateGraph(Log)
    builder.add_node("calls", calls, retry_policy=FAST)
    builder.add_edge(START, "calls")
    await builder.compile(checkpointer=saver).ainvoke({"items": []}, CONFIG, durability=durability)
    assert await effects.found() == {}


async def test_a_handoff_after_a_retry(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """What the attempt before did isn't done, though the parent's task finishes."""
    attempts: list[int] = []

    async def leaves(state: Any) -> Command[Any]:
        attempts.append(len(attempts))
        if len(attempts) == 1:
            act("of the first attempt")
            raise ValueError
        return Command(goto="other", graph=Command.PARENT)

    builder: StateGraph[Any] = StateGraph(Log)
    builder.add_node("leaves", leaves, retry_policy=FAST)
    builder.add_edge(START, "leaves")
    outer: StateGraph[Any] = StateGraph(Log)
    outer.add_node("sub", builder.compile(), destinations=("other",))
    outer.add_node("other", acts("other"))
    outer.add_edge(START, "sub")
    await outer.compile(checkpointer=saver).ainvoke({"items": []}, CONFIG, durability=durability)
    assert await effects.found() == once("other")


async def test_a_parent_that_swallows_a_question(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """What a node did before it asked isn't done, though the node that called it goes on."""

    async def asks(state: Any) -> Any:
        act("asks")
        return {"items": [interrupt("?")]}

    inner = graph_of(None, asks=asks)

    async def calls(state: Any) -> Any:
        with contextlib.suppress(GraphInterrupt):
            await inner.ainvoke(state)
        return {"items": ["swallowed"]}

    graph = graph_of(saver, calls=calls, end=acts("end"))
    await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    assert await effects.found() == once("end")


async def test_a_parent_that_swallows_its_subgraphs_end(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """What a failed node of a subgraph did isn't done, though the node that called it goes on."""

    async def fails(state: Any) -> Any:
        act("fails")
        raise ValueError

    inner = graph_of(None, fine=acts("fine"), fails=fails)

    async def calls(state: Any) -> Any:
        act("calls")
        try:
            await inner.ainvoke(state)
        except ValueError:
            return {"items": ["swallowed"]}

    await graph_of(saver, calls=calls, end=acts("end")).ainvoke(
        {"items": []}, CONFIG, durability=durability
    )
    assert await effects.found() == once("calls", "fine", "end")


async def test_behind_a_subgraph_with_a_state_of_its_own(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """A node in a subgraph acts after it has called one that is found by its name."""
    builder: StateGraph[Any] = StateGraph(Log).add_node("inner", acts("inner"))
    own: Any = builder.add_edge(START, "inner").compile(checkpointer=True)

    async def node(state: Any) -> Any:
        await own.ainvoke({"items": []})
        act("node")
        return {"items": ["node"]}

    graph = graph_of(saver, sub=graph_of(None, node=node))
    await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    assert await effects.found() == once("inner", "node")
