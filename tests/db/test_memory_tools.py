"""AgentMemory.tools and AgentMemory.store: what agents and graphs are given of a memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.runtime import Runtime

from langgraph_pgsaga import AgentMemory, Database, PostgresSaver, sync
from langgraph_pgsaga.errors import InvalidArgumentError, MissingVectorsError
from tests._embedders import DIMS, HashedEmbeddings
from tests._require import require_pgvector
from tests.db._gates import graph_of
from tests.db._puts import config_of

pytestmark = pytest.mark.anyio


class Caller(BaseChatModel):
    """A model that calls tools as it is told, and then says what the last one gave."""

    calls: list[dict[str, Any]]

    @property
    def _llm_type(self) -> str:
        return "caller"

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        made = sum(isinstance(one, ToolMessage) for one in messages)
        if made < len(self.calls):
            call = {"type": "tool_call", "id": f"call {made}", **self.calls[made]}
            said = AIMessage("", tool_calls=[call])
        else:
            said = AIMessage(f"done: {messages[-1].content}")
        return ChatResult(generations=[ChatGeneration(message=said)])


def called(name: str, **args: Any) -> dict[str, Any]:
    return {"name": name, "args": args}


async def told(memory: AgentMemory, saver: Any, config: Any, *calls: Any) -> list[str]:
    """What the tools told an agent that called them."""
    agent: Any = create_agent(Caller(calls=list(calls)), list(memory.tools()), checkpointer=saver)
    state = await agent.ainvoke({"messages": [HumanMessage("go")]}, config)
    return [str(one.content) for one in state["messages"] if isinstance(one, ToolMessage)]


async def texts(memory: AgentMemory, **whose: Any) -> Sequence[str]:
    return [one.content_text for one in (await memory.list(**whose)).memories]


async def test_an_agent_saves_searches_and_forgets(saver: PostgresSaver) -> None:
    """In one conversation, and in the next."""
    memory = AgentMemory(saver.db)
    ann = config_of("monday", user_id="ann")
    given = [called("save_memory", text="Ann eats no nuts", importance=0.9)]
    given += [called("save_memory", text="Ann has a dog"), called("search_memories", query="nuts?")]
    *saved, found = await told(memory, saver, ann, *given)
    assert saved == ["Remembered.", "Remembered."]
    best = json.loads(found)[0]
    assert best["text"] == "Ann eats no nuts"
    stored = await memory.get(best["memory_id"], user_id="ann")
    assert stored is not None
    assert (stored.importance_score, stored.source_thread_id) == (0.9, "monday")
    later = config_of("friday", user_id="ann")
    given = [called("forget_memory", memory_id=best["memory_id"])]
    given += [called("search_memories", query="nuts?")]
    gone, found = await told(memory, saver, later, *given)
    assert gone == "Forgotten."
    assert [one["text"] for one in json.loads(found)] == ["Ann has a dog"]


async def test_whose_it_is_no_model_says(saver: PostgresSaver) -> None:
    """The run's config does: what a model says besides is nothing, and so are others' ids."""
    memory = AgentMemory(saver.db)
    of_bob = await memory.remember("Bob has a cat", user_id="bob")
    of_b = await AgentMemory(saver.db, tenant="b").remember("of b", user_id="ann")
    given = [called("save_memory", text="mine", user_id="bob", thread_id="t", tenant_id="b")]
    given += [called("search_memories", query="cat", user_id="bob", thread_id="x", tenant="b")]
    given += [
        called("forget_memory", memory_id=str(one.memory_id), user_id="bob", tenant_id="b")
        for one in (of_bob, of_b)
    ]
    _, found, *gone = await told(memory, saver, config_of("x", user_id="ann"), *given)
    assert [one["text"] for one in json.loads(found)] == ["mine"]
    assert gone == ["There is no such memory."] * 2
    assert await texts(memory, user_id="bob") == ["Bob has a cat"]
    assert await texts(memory, user_id="ann") == ["mine"]
    for tool in memory.tools():
        assert set(tool.args) <= {"text", "importance", "query", "memory_id"}


async def test_without_a_user_it_is_the_threads(saver: PostgresSaver) -> None:
    """And with in_thread of both."""
    memory = AgentMemory(saver.db)
    await told(memory, saver, config_of("t"), called("save_memory", text="of t"))
    assert await texts(memory, thread_id="t") == ["of t"]
    agent: Any = create_agent(
        Caller(calls=[called("save_memory", text="of both")]),
        list(memory.tools(in_thread=True)),
        checkpointer=saver,
    )
    await agent.ainvoke({"messages": [HumanMessage("go")]}, config_of("t2", user_id="ann"))
    assert await texts(memory, user_id="ann") == []
    assert await texts(memory, user_id="ann", thread_id="t2") == ["of both"]


async def test_what_a_model_says_wrongly_it_is_told(saver: PostgresSaver) -> None:
    """So that it can try again; nothing is stored."""
    memory = AgentMemory(saver.db)
    given = [called("save_memory", text=" "), called("save_memory", text="a", importance=7)]
    given += [called("save_memory"), called("forget_memory", memory_id="5")]
    blank, most, nothing, unknown = await told(memory, saver, config_of("t"), *given)
    assert "not be blank" in blank
    assert "valid" in most.lower()
    assert "valid" in nothing.lower()
    assert unknown == "There is no such memory."
    assert await texts(memory, thread_id="t") == []
    save, *_ = memory.tools()
    with pytest.raises(InvalidArgumentError, match="this is a tool"):
        await save.ainvoke({"text": "outside of a graph"})
    with pytest.raises(InvalidArgumentError):
        memory.tools(k=0)


async def test_a_graph_without_a_saver_has_them_too(dsn: str) -> None:
    """A user is named by its config all the same."""
    async with Database(dsn) as db:
        memory = AgentMemory(db)
        await told(memory, None, config_of("t", user_id="u"), called("save_memory", text="a"))
        assert await texts(memory, user_id="u") == ["a"]


def test_sync_agents_have_them_too(sync_saver: PostgresSaver) -> None:
    """Of the async class and of the one for sync callers."""
    for memory in (AgentMemory(sync_saver.db), sync.AgentMemory(sync_saver.db)):
        user = type(memory).__module__
        calls = [called("save_memory", text="tea"), called("search_memories", query="tea")]
        agent: Any = create_agent(
            Caller(calls=calls), list(memory.tools()), checkpointer=sync_saver
        )
        state = agent.invoke({"messages": [HumanMessage("go")]}, config_of(user, user_id=user))
        assert '"text":"tea"' in state["messages"][-1].content


# The store


@pytest.fixture
async def memory(saver: PostgresSaver, dsn: str) -> AgentMemory:
    """A memory with vectors."""
    require_pgvector(dsn)
    made = AgentMemory(saver.db, embed=HashedEmbeddings(), dims=DIMS)
    await made.setup()
    return made


async def test_a_graph_has_the_store_of_a_memory(memory: AgentMemory, saver: PostgresSaver) -> None:
    """Its items are found by the memory's own embedding."""
    await memory.store.asetup()
    assert memory.store is memory.store

    async def node(_: Any, runtime: Runtime) -> dict[str, Any]:
        assert runtime.store is not None
        await runtime.store.aput(("ann",), "diet", {"text": "no nuts"})
        await runtime.store.aput(("ann",), "pet", {"text": "a dog called Rex"})
        found = await runtime.store.asearch(("ann",), query="which dog?", limit=1)
        return {"items": [found[0].key]}

    builder = graph_of(saver, a=node).builder
    graph = builder.compile(checkpointer=saver, store=memory.store)
    state = await graph.ainvoke({"items": []}, config_of("t"))
    assert state["items"] == ["pet"]
    item = await memory.store.aget(("ann",), "diet")
    assert item is not None
    assert item.value == {"text": "no nuts"}


async def test_the_store_is_of_the_memorys_database_and_tenant(
    memory: AgentMemory, saver: PostgresSaver
) -> None:
    """Its vectors are of the memory's type; without an embedding it has items alone."""
    with pytest.raises(MissingVectorsError, match="setup"):
        await memory.store.asearch(("a",), query="a")
    other = AgentMemory(saver.db, tenant="b")
    await other.store.aput(("a",), "k", {"v": 1})
    assert await memory.store.aget(("a",), "k") is None
    assert other.store.db is saver.db
    full = AgentMemory(saver.db, embed=HashedEmbeddings(), dims=DIMS, vector_type="vector")
    await full.store.asetup()
    async with saver.db.transaction() as conn:
        kind = await conn.fetchval(
            "select atttypid::regtype::text from pg_attribute"
            " where attrelid = 'agent_store_vectors'::regclass and attname = 'embedding'"
        )
    assert kind.rpartition(".")[2] == "vector"
