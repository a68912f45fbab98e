"""Nodes that recall and remember."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import START, StateGraph
from langgraph.types import RetryPolicy

from langgraph_pgsaga import AgentMemory, PostgresSaver, sync
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.memory import NewMemory
from tests.db._puts import config_of

pytestmark = pytest.mark.anyio


class State(TypedDict):
    messages: Annotated[list[Any], operator.add]
    memories: list[dict[str, Any]]


def graph_of(saver: Any, *nodes: Any, retry: RetryPolicy | None = None) -> Any:
    """The nodes one after the other."""
    builder: Any = StateGraph(State)
    previous = START
    for number, node in enumerate(nodes):
        builder.add_node(str(number), node, retry_policy=retry)
        builder.add_edge(previous, str(number))
        previous = str(number)
    return builder.compile(checkpointer=saver)


def said(state: State) -> list[str]:
    return [message.content for message in state["messages"]]


def texts(found: Any) -> list[str]:
    return [one["text"] for one in found["memories"]]


async def test_a_run_recalls_what_another_thread_remembered(saver: PostgresSaver) -> None:
    """Of its own user alone, by what was said last; what is of a thread stays in it."""
    memory = AgentMemory(saver.db)
    remembering = graph_of(saver, memory.remember_node(said))
    for user, text in (("ann", "Ann has a dog"), ("ann", "Ann has a car"), ("bob", "Bob's dog")):
        state = {"messages": [HumanMessage(text)]}
        await remembering.ainvoke(state, config_of(text, user_id=user))
    in_thread = graph_of(saver, memory.remember_node(said, in_thread=True))
    await in_thread.ainvoke(
        {"messages": [HumanMessage("a dog here")]}, config_of("t", user_id="ann")
    )
    recalling = graph_of(saver, memory.recall_node(k=5))
    asked: dict[str, Any] = {"messages": [HumanMessage("Which dog?"), AIMessage("a car?")]}
    found = await recalling.ainvoke(asked, config_of("new", user_id="ann"))
    assert texts(found) == ["Ann has a dog", "Ann has a car"]
    assert found["memories"][0]["source_thread_id"] == "Ann has a dog"
    assert set(texts(await recalling.ainvoke(asked, config_of("t", user_id="ann")))) == {
        "Ann has a dog",
        "Ann has a car",
        "a dog here",
    }
    assert texts(await recalling.ainvoke(asked, config_of("x", user_id="eve"))) == []
    of_b = config_of("x", user_id="ann", tenant_id="b")
    assert texts(await recalling.ainvoke(asked, of_b)) == []


async def test_without_a_user_it_is_the_threads(saver: PostgresSaver) -> None:
    """Which a run without a thread hasn't got, either."""
    memory = AgentMemory(saver.db)
    asked = {"messages": [HumanMessage("a")]}
    await graph_of(saver, memory.remember_node(said)).ainvoke(asked, config_of("t"))
    recalling = graph_of(saver, memory.recall_node(query=lambda _: None))
    assert texts(await recalling.ainvoke(asked, config_of("t"))) == ["a"]
    assert texts(await recalling.ainvoke(asked, config_of("u"))) == []
    bare = graph_of(None, memory.recall_node())
    with pytest.raises(InvalidArgumentError, match="neither a user nor a thread"):
        await bare.ainvoke({"messages": [HumanMessage("a")]})


async def test_a_node_that_is_tried_again_remembers_once(saver: PostgresSaver) -> None:
    """With its result: what an attempt before it had is dropped."""
    memory = AgentMemory(saver.db)
    tries: list[int] = []

    async def extract(state: State) -> list[NewMemory]:
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError
        return [NewMemory(text=text, importance=0.5) for text in said(state)]

    policy = RetryPolicy(initial_interval=0.01, jitter=False)
    graph = graph_of(saver, memory.remember_node(extract), retry=policy)
    await graph.ainvoke({"messages": [HumanMessage("a")]}, config_of("t", user_id="u"))
    [stored] = (await memory.list(user_id="u")).memories
    assert (len(tries), stored.access_count, stored.importance_score) == (2, 0, 0.5)
    latest = await saver.aget_tuple(config_of("t"))
    assert latest is not None
    assert latest.parent_config is not None
    assert stored.source_checkpoint_id == latest.parent_config["configurable"]["checkpoint_id"]


async def test_nothing_to_remember_is_nothing(saver: PostgresSaver) -> None:
    """None and an empty list; what isn't a function is refused at once."""
    memory = AgentMemory(saver.db)
    nothing: list[Any] = [lambda _: None, lambda _: []]
    for extract in nothing:
        graph = graph_of(saver, memory.remember_node(extract))
        await graph.ainvoke({"messages": []}, config_of("t", user_id="u"))
    assert (await memory.list(user_id="u")).memories == ()
    wrong: Any = "text"
    with pytest.raises(InvalidArgumentError, match="function"):
        memory.remember_node(wrong)
    with pytest.raises(InvalidArgumentError, match="function"):
        memory.recall_node(query=wrong)


def test_sync_graphs_have_them_too(sync_saver: PostgresSaver) -> None:
    """Of the async class and of the one for sync callers."""
    memories: dict[str, Any] = {
        "a": AgentMemory(sync_saver.db),
        "b": sync.AgentMemory(sync_saver.db),
    }
    for user, memory in memories.items():
        asked = {"messages": [HumanMessage(f"the dog of {user}")]}
        config = config_of(user, user_id=user)
        graph_of(sync_saver, memory.remember_node(said)).invoke(asked, config)
        found = graph_of(sync_saver, memory.recall_node()).invoke(asked, config)
        assert texts(found) == [f"the dog of {user}"]
