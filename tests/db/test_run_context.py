"""What a node, a task or a tool is told of the step that it is part of."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, RetryPolicy, Send, interrupt

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.work import RunContext

pytestmark = pytest.mark.anyio

THREAD: RunnableConfig = {"configurable": {"thread_id": "t", "user_id": "ada", "tenant_id": "acme"}}


class Seen:
    """Collects the contexts of a run."""

    def __init__(self) -> None:
        self.found: list[RunContext] = []

    def note(self) -> RunContext:
        found = RunContext.current()
        assert found is not None
        self.found.append(found)
        return found

    def node(self, answer: Any = None) -> Callable[[Any], Any]:
        def node(state: Any) -> Any:
            self.note()
            return {"messages": [AIMessage("done")]} if answer is None else answer

        return node


@pytest.fixture
def seen() -> Iterator[Seen]:
    seen = Seen()
    yield seen
    assert RunContext.current() is None


def graph_of(**nodes: Any) -> StateGraph[Any]:
    """The nodes, one after the other."""
    workflow = StateGraph(MessagesState)
    last = START
    for name, node in nodes.items():
        workflow.add_node(name, node)
        workflow.add_edge(last, name)
        last = name
    return workflow


def tasks_of(saver: PostgresSaver, found: RunContext) -> set[str]:
    """The tasks that have writes at the checkpoint that a context names."""
    place = {
        "thread_id": found.thread_id,
        "checkpoint_ns": found.checkpoint_ns,
        "checkpoint_id": found.checkpoint_id,
        "tenant_id": found.tenant_id,
    }
    stored = saver.get_tuple({"configurable": place})
    assert stored is not None
    return {task_id for task_id, _, _ in stored.pending_writes or ()}


def check_all(saver: PostgresSaver, seen: Seen, nodes: list[str]) -> None:
    assert [found.node for found in seen.found] == nodes
    for found in seen.found:
        assert found.task_id in tasks_of(saver, found)
        assert (found.thread_id, found.user_id, found.tenant_id) == ("t", "ada", "acme")


def test_a_nodes_writes_are_where_its_context_says(sync_saver: PostgresSaver, seen: Seen) -> None:
    """Of nodes, of a subgraph's and of one that is called: checkpoint and task are as stored."""
    inner = graph_of(inner=seen.node()).compile()
    called = graph_of(called=seen.node()).compile()
    nodes = {"a": seen.node(), "sub": inner, "calls": lambda s: called.invoke(s) and {}}
    graph = graph_of(**nodes).compile(checkpointer=sync_saver)
    graph.invoke({"messages": [HumanMessage("hi")]}, THREAD, durability="sync")
    check_all(sync_saver, seen, ["a", "inner", "called"])
    assert [found.checkpoint_ns.partition(":")[0] for found in seen.found] == ["", "sub", "calls"]
    assert [found.step for found in seen.found] == [1, 1, 1]


async def test_async_nodes_sends_and_threads(saver: PostgresSaver, seen: Seen) -> None:
    """Async nodes have it, each of several Sends its own, and threads made with the context."""

    async def spread(state: Any) -> Command[Any]:
        seen.note()
        return Command(goto=[Send("one", {"n": n}) for n in range(2)])

    async def one(state: Any) -> dict[str, Any]:
        found = await asyncio.to_thread(seen.note)
        bare: list[RunContext | None] = []
        thread = threading.Thread(target=lambda: bare.append(RunContext.current()))
        thread.start()
        await asyncio.to_thread(thread.join)
        assert (found, bare) == (RunContext.current(), [None])
        return {"messages": [AIMessage("one")]}

    workflow = graph_of(spread=spread)
    workflow.add_node("one", one)
    graph = workflow.compile(checkpointer=saver)
    await graph.ainvoke({"messages": [HumanMessage("hi")]}, THREAD, durability="sync")
    await asyncio.to_thread(check_all, saver, seen, ["spread", "one", "one"])
    assert len({found.task_id for found in seen.found}) == 3


def test_a_tool_is_told_of_its_node(sync_saver: PostgresSaver, seen: Seen) -> None:
    """A tool has the context of the node that calls it."""

    @tool
    def look() -> str:
        """Looks."""
        seen.note()
        return "seen"

    def ask(state: MessagesState) -> dict[str, Any]:
        call = {"name": "look", "args": {}, "id": "1", "type": "tool_call"}
        return {"messages": [AIMessage("", tool_calls=[call])]}

    graph = graph_of(ask=ask, tools=ToolNode([look])).compile(checkpointer=sync_saver)
    graph.invoke({"messages": [HumanMessage("hi")]}, THREAD, durability="sync")
    check_all(sync_saver, seen, ["tools"])


def test_what_is_called_by_task_is_of_the_same_checkpoint(
    sync_saver: PostgresSaver, seen: Seen
) -> None:
    """Tasks of an entrypoint, and tasks of tasks, each have their own id at its checkpoint."""

    @task
    def innermost(n: int) -> int:
        seen.note()
        return n

    @task
    def outer(n: int) -> int:
        seen.note()
        return innermost(n).result()

    @entrypoint(checkpointer=sync_saver)
    def flow(n: int) -> int:
        seen.note()
        return outer(n).result()

    flow.invoke(1, THREAD, durability="sync")
    check_all(sync_saver, seen, ["flow", "outer", "innermost"])
    assert {(found.checkpoint_ns, found.checkpoint_id) for found in seen.found} == {
        ("", seen.found[0].checkpoint_id)
    }


def test_attempts_are_counted_and_a_resumed_task_keeps_its_id(
    sync_saver: PostgresSaver, seen: Seen
) -> None:
    """A retry is the next attempt of the same task, and so is what goes on after a question."""

    def node(state: MessagesState) -> dict[str, Any]:
        found = seen.note()
        if found.attempt == 1 and len(seen.found) == 1:
            raise ConnectionError
        return {"messages": [AIMessage(interrupt("go on?"))]}

    workflow = StateGraph(MessagesState)
    workflow.add_node("node", node, retry_policy=RetryPolicy(initial_interval=0.01))
    workflow.add_edge(START, "node")
    graph = workflow.compile(checkpointer=sync_saver)
    graph.invoke({"messages": [HumanMessage("hi")]}, THREAD, durability="sync")
    graph.invoke(Command(resume="yes"), THREAD, durability="sync")
    assert [found.attempt for found in seen.found] == [1, 2, 1]
    assert len({found.task_id for found in seen.found}) == 1
    assert seen.found[-1].task_id in tasks_of(sync_saver, seen.found[-1])


def test_without_a_saver_there_is_no_thread(seen: Seen) -> None:
    """A graph without a checkpointer has tasks, a run id and no thread; the caller none of it."""
    run_id = uuid4()
    graph_of(a=seen.node()).compile().invoke(
        {"messages": [HumanMessage("hi")]}, {"run_id": run_id, "metadata": {"user_id": 7}}
    )
    (found,) = seen.found
    assert (found.thread_id, found.node, found.run_id) == (None, "a", str(run_id))
    assert (found.user_id, found.tenant_id) == ("7", "")
