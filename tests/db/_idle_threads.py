"""Threads that tests of sessions make, age and look at."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, MessagesState, StateGraph

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.sessions import (
    Sessions,
)
from langgraph_pgsaga.threads import session_id_of

HOUR = timedelta(hours=1)


def config_of(thread_id: str, **configurable: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, **configurable}}


def chat(saver: PostgresSaver) -> Any:
    """A graph that answers a message."""

    def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(f"answer {len(state['messages'])}")]}

    builder = StateGraph(MessagesState)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    return builder.compile(checkpointer=saver)


async def say(saver: PostgresSaver, thread_id: str, *words: str, **configurable: Any) -> None:
    for word in words:
        config = config_of(thread_id, **configurable)
        await chat(saver).ainvoke({"messages": [HumanMessage(word)]}, config)


async def execute(sessions: Sessions, statement: str, *args: Any) -> None:
    async with sessions.db.transaction() as conn:
        await conn.execute(statement, *args)


async def count(sessions: Sessions, table: str, thread_id: str) -> int:
    async with sessions.db.transaction() as conn:
        query = f"select count(*) from {table} where session_id = $1"
        return int(await conn.fetchval(query, session_id_of(thread_id)))


async def make_idle(sessions: Sessions, thread_id: str, age: timedelta) -> None:
    await execute(
        sessions,
        "update agent_sessions set last_activity_at = now() - $2::interval where session_id = $1",
        session_id_of(thread_id),
        age,
    )


async def listed(sessions: Sessions, **filters: Any) -> list[str]:
    """The thread ids of all pages, fetched in pages of two where no limit is given."""
    filters = {"limit": 2, **filters}
    found: list[str] = []
    page = await sessions.list(**filters)
    found += [s.thread_id for s in page.sessions]
    while page.next_cursor is not None:
        page = await sessions.list(after=page.next_cursor, **filters)
        assert page.sessions
        found += [s.thread_id for s in page.sessions]
    return found
