"""langmem's tools on the store, as they are."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from langgraph_pgsaga.memory import MemoryStore
from tests._embedders import HashingEmbedder
from tests._require import require_package, require_pgvector

with warnings.catch_warnings():
    # It imports what LangGraph has moved.
    warnings.simplefilter("ignore")
    langmem: Any = require_package("langmem")

pytestmark = pytest.mark.anyio

_NAMESPACE = ("memories", "{langgraph_user_id}")


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[MemoryStore]:
    require_pgvector(dsn)
    index: Any = {"dims": 64, "embed": HashingEmbedder(), "fields": ["content"]}
    async with MemoryStore.from_conn_string(dsn, index=index) as store:
        await store.asetup()
        yield store


def config_of(user: str) -> Any:
    return {"configurable": {"langgraph_user_id": user}}


@pytest.mark.parametrize("form", ["sync", "async"])
async def test_its_tools_keep_find_change_and_delete(store: MemoryStore, form: str) -> None:
    """What a user said is found by its meaning, by that user alone."""
    manage = langmem.create_manage_memory_tool(_NAMESPACE, store=store)
    search = langmem.create_search_memory_tool(
        _NAMESPACE, store=store, response_format="content_and_artifact"
    )

    async def call(tool: Any, user: str = "ann", **arguments: Any) -> Any:
        asked = {"name": tool.name, "args": arguments, "id": "1", "type": "tool_call"}
        if form == "async":
            return await tool.ainvoke(asked, config_of(user))
        return await asyncio.to_thread(tool.invoke, asked, config_of(user))

    async def found(query: str, user: str = "ann") -> list[str]:
        items = (await call(search, user, query=query)).artifact
        return [item.value["content"] for item in items]

    await call(manage, content="drinks green tea", action="create")
    await call(manage, content="drives a red car", action="create")
    await call(manage, "bob", content="drinks coffee", action="create")
    assert await found("green tea") == ["drinks green tea", "drives a red car"]
    assert await found("green tea", "bob") == ["drinks coffee"]

    (tea, _) = await store.asearch(("memories", "ann"), query="green tea")
    await call(manage, content="drinks black tea", action="update", id=tea.key)
    assert (await found("black tea"))[0] == "drinks black tea"
    await call(manage, action="delete", id=tea.key)
    assert await found("tea") == ["drives a red car"]


async def test_they_take_the_store_of_the_graph(store: MemoryStore) -> None:
    """In a ToolNode, whose graph was compiled with it."""
    tools = [
        langmem.create_manage_memory_tool(_NAMESPACE),
        langmem.create_search_memory_tool(_NAMESPACE),
    ]
    workflow = StateGraph(MessagesState)
    workflow.add_node("tools", ToolNode(tools))
    workflow.add_edge(START, "tools")
    graph = workflow.compile(store=store)

    async def call(name: str, arguments: dict[str, Any]) -> str:
        said = AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": "1"}])
        given = await graph.ainvoke({"messages": [said]}, config_of("ann"))
        return str(given["messages"][-1].content)

    await call("manage_memory", {"content": "lives in Rome", "action": "create"})
    assert "lives in Rome" in await call("search_memory", {"query": "Rome"})
    assert [item.namespace for item in await store.asearch(())] == [("memories", "ann")]
