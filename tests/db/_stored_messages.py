"""Chats, and what is stored of their messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

from langchain_core.messages import (
    AnyMessage,
    BaseMessage,
    HumanMessage,
)
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages

from langgraph_pgsaga import PostgresSaver

CONFIG: RunnableConfig = {"configurable": {"thread_id": "t"}}


class ChatState(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def graph_of(schema: Any, saver: Any, node: Any) -> Any:
    """A graph of one node; `saver` may be True in a subgraph."""
    builder: Any = StateGraph(schema)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    return builder.compile(saver)


def chat(saver: BaseCheckpointSaver[Any], *replies: Any) -> Any:
    """A stock add_messages graph that answers with `replies`, turn by turn."""
    left = iter(replies)
    return graph_of(ChatState, saver, lambda state: {"messages": next(left, [])})


@dataclass
class Server:
    """SQL beside the saver."""

    saver: PostgresSaver

    async def rows(self, query: str, *args: Any) -> list[tuple[Any, ...]]:
        async with self.saver.db.transaction() as connection:
            return [tuple(row) for row in await connection.fetch(query, *args)]

    async def count(self, table: str) -> int:
        ((count,),) = await self.rows(f"select count(*) from {table}")
        assert isinstance(count, int)
        return count

    async def conversation(self, *columns: str) -> list[tuple[Any, ...]]:
        query = f"select {', '.join(columns)} from agent_conversations order by position"
        return await self.rows(query)


def checkpoint_of(messages: list[Any], version: str) -> Checkpoint:
    checkpoint = empty_checkpoint()
    checkpoint["id"] = str(uuid6())
    checkpoint["channel_values"] = {"messages": messages}
    checkpoint["channel_versions"] = {"messages": version}
    return checkpoint


async def put(saver: PostgresSaver, messages: list[Any], thread: str = "t") -> RunnableConfig:
    """Puts a checkpoint of these messages without having read any."""
    config: RunnableConfig = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
    version = saver.get_next_version(None, None)
    checkpoint = checkpoint_of(messages, version)
    return await saver.aput(config, checkpoint, {"step": 0}, {"messages": version})


async def messages_at(saver: PostgresSaver, config: RunnableConfig) -> Any:
    found = await saver.aget_tuple(config)
    assert found is not None
    return found.checkpoint["channel_values"]["messages"]


def said(*words: str) -> list[BaseMessage]:
    return [HumanMessage(word, id=word) for word in words]
