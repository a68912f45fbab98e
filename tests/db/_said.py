"""Conversations for tests that read them."""

from __future__ import annotations

import json
import warnings
from typing import Any

from langchain_core._api import LangChainBetaWarning
from langchain_core.load import load
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    ToolMessage,
)
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, MessagesState, StateGraph

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.messages import MATCH_END, MATCH_START
from tests.db._puts import checkpoint_of, config_of

USAGE = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}


def chat(saver: Any) -> Any:
    """A graph that answers "re: ..." under an id made of the question's."""

    def answer(state: MessagesState) -> dict[str, Any]:
        last = state["messages"][-1]
        reply = AIMessage(f"re: {last.content}", id=f"a-{last.id}", usage_metadata=USAGE)
        return {"messages": [reply]}

    builder: Any = StateGraph(MessagesState)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    return builder.compile(saver)


async def say(saver: PostgresSaver, text: str, thread: str = "t", **more: Any) -> None:
    """One turn; the question's id is its text."""
    config: RunnableConfig = {"configurable": {"thread_id": thread, **more}}
    await chat(saver).ainvoke({"messages": [HumanMessage(text, id=text)]}, config)


async def put_messages(
    saver: PostgresSaver, thread: str, messages: list[BaseMessage], **values: Any
) -> None:
    checkpoint = checkpoint_of(saver, {"messages": messages, **values})
    metadata: Any = {"source": "update", "step": 0, "parents": {}}
    await saver.aput(config_of(thread), checkpoint, metadata, checkpoint["channel_versions"])


def contents(found: Any) -> list[str]:
    return [m.content for m in found]


def loaded(line: str) -> Any:
    """The message of a full export's line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LangChainBetaWarning)
        return load(
            json.loads(line)["message"], allowed_objects=[HumanMessage, AIMessage, ToolMessage]
        )


def plain(snippet: str) -> str:
    return snippet.replace(MATCH_START, "").replace(MATCH_END, "")
