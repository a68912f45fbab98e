"""Delta channels are rebuilt as the in-memory saver has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
)
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command

from langgraph_pgsaga import PostgresSaver
from tests._graphs import Comparison, Run
from tests.db._chains import Log, adds, ask, chain


def fold_messages(state: list[AnyMessage], writes: Sequence[Any]) -> list[AnyMessage]:
    """add_messages for a delta channel: one call for a batch of writes."""
    for write in writes:
        state = add_messages(state, write)  # type: ignore[assignment, arg-type]
    return state


class DeltaState(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], DeltaChannel(fold_messages, snapshot_frequency=3)]
    facts: Annotated[
        list[int],
        DeltaChannel(lambda state, writes: state + [n for w in writes for n in w], list),
    ]
    turn: int


def delta_builder() -> StateGraph[Any]:
    def talk(state: DeltaState) -> dict[str, Any]:
        turn = state.get("turn", 0) + 1
        said: list[BaseMessage] = [AIMessage(f"reply {turn} " * 20, id=f"ai {turn}")]
        if turn == 4:
            said += [RemoveMessage(id="ai 1"), HumanMessage("edited", id="human 2")]
        return {"messages": said, "turn": turn, "facts": [turn]}

    builder: StateGraph[Any] = StateGraph(DeltaState)
    builder.add_node("talk", talk)
    builder.add_node("think", lambda state: {"facts": [len(state["messages"]), 0]})
    builder.add_edge(START, "talk")
    builder.add_edge(START, "think")
    return builder


class Wide(Log, total=False):
    """What another release has beside `Log`."""

    plan: str
    count: int
    sure: bool
    told: None
    long: str
    parts: dict[str, Any]


def test_channels_of_another_release_keep_their_values(compare: Comparison) -> None:
    """What a release put in channels that another one lacks is there when it comes back."""
    asks = {"first": adds("a"), "asks": ask("one?")}

    def wide(run: Run) -> Any:
        builder: StateGraph[Any] = StateGraph(Wide)
        for name, node in asks.items():
            builder.add_node(name, node)
        builder.add_edge(START, "first")
        builder.add_edge("first", "asks")
        return builder.compile(run.saver)

    async def scenario(run: Run) -> None:
        values = {"plan": "p", "count": 7, "sure": True, "told": None, "long": "l" * 300}
        await run.invoke(wide(run), {"items": ["in"], **values, "parts": {"a": 1}})
        run.restart()
        old = chain(**asks).compile(run.saver)
        await run.invoke(old, Command(resume="yes"))
        await run.update(old, {"items": ["by hand"]}, as_node="asks")
        run.restart()
        await run.invoke(chain(**asks).compile(run.saver), {"items": ["again"]})
        run.restart()
        state = await run.state(wide(run))
        assert state.values.items() >= values.items()
        await run.invoke(wide(run), Command(resume="yes", update={"count": 8}))
        await run.history(wide(run))

    compare(scenario)


def delta_turns(first: int, last: int) -> list[dict[str, Any]]:
    return [
        {"messages": [HumanMessage(f"question {n}", id=f"human {n}")]} for n in range(first, last)
    ]


def test_delta_channels_are_rebuilt(compare: Comparison) -> None:
    """State behind deltas and snapshots equals the in-memory run's at each checkpoint and fork."""

    async def scenario(run: Run) -> None:
        for turn in delta_turns(1, 8):
            await run.invoke(delta_builder().compile(run.saver), turn)
            run.restart()
        graph = delta_builder().compile(run.saver)
        history = await run.history(graph)
        for snapshot in history:
            await run.state(graph, snapshot.config)
        await run.invoke(graph, {"messages": [HumanMessage("fork", id="f")]}, history[4].config)
        forked = await run.update(graph, {"facts": [99]}, history[7].config, "think")
        await run.invoke(graph, None, forked)
        await run.history(graph)

    compare(scenario)


@pytest.mark.parametrize("turns", range(1, 9))
def test_pruned_delta_channels_keep_their_state(sync_saver: PostgresSaver, turns: int) -> None:
    """prune(keep_latest) at any distance from a snapshot leaves the state as it is."""
    graph = delta_builder().compile(sync_saver)
    memory = delta_builder().compile(InMemorySaver())
    config: RunnableConfig = {"configurable": {"thread_id": "t"}}
    for turn in delta_turns(1, turns + 1):
        graph.invoke(turn, config)
        memory.invoke(turn, config)
    sync_saver.prune(["t"], strategy="keep_latest")
    assert graph.get_state(config).values == memory.get_state(config).values
    for turn in delta_turns(turns + 1, turns + 4):
        assert graph.invoke(turn, config) == memory.invoke(turn, config)
        sync_saver.prune(["t"], strategy="keep_latest")
        assert graph.get_state(config).values == memory.get_state(config).values


@pytest.mark.anyio
async def test_delta_history_equals_the_base_class_walk(saver: PostgresSaver) -> None:
    """The fast path finds, at every checkpoint of a forked thread, what the walk finds."""
    graph = delta_builder().compile(saver)
    config: RunnableConfig = {"configurable": {"thread_id": "t"}}
    for turn in delta_turns(1, 8):
        await graph.ainvoke(turn, config)
    middle = [s async for s in graph.aget_state_history(config)][9].config
    for turn in delta_turns(20, 24):
        await graph.ainvoke(turn, middle)
    channels = ["facts", "messages", "turn", "no such channel"]
    seeds = 0
    async for found in saver.alist(config):
        fast = await saver.aget_delta_channel_history(config=found.config, channels=channels)
        slow = await BaseCheckpointSaver.aget_delta_channel_history(
            saver, config=found.config, channels=channels
        )
        assert fast == slow
        if "seed" in fast["messages"]:
            assert type(fast["messages"]["seed"]) is _DeltaSnapshot
            seeds += 1
    assert seeds > 5
