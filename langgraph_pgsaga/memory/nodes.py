"""Memory in graphs: a node that recalls, and one that remembers with its result."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from langchain_core.messages import HumanMessage
from langchain_core.runnables import Runnable, RunnableLambda

from langgraph_pgsaga._arguments import checked_flag, shown
from langgraph_pgsaga._message_text import text_of
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.memory.row import MemoryType, Recalled
from langgraph_pgsaga.memory.scope import checked_name
from langgraph_pgsaga.memory.scoring import Scorer, Scoring
from langgraph_pgsaga.work import RunContext, has_step, this_step

if TYPE_CHECKING:
    from langgraph_pgsaga.memory.memory import AgentMemory

# What a state asks; None is for the most important.
Query: TypeAlias = Callable[[Any], str | None]


def recall_node(
    memory: AgentMemory,
    *,
    k: int,
    types: Sequence[MemoryType | str] | None,
    into: str,
    query: Query | None,
    scoring: Scoring | Scorer | None,
) -> Runnable[Any, dict[str, Any]]:
    """See `AgentMemory.recall_node`."""
    checked_name("into", into)
    asked = last_question if query is None else _checked_function("query", query)

    async def recall(state: Any) -> dict[str, Any]:
        run = running()
        found = await memory.recall(
            asked(state),
            user_id=run.user_id or None,
            thread_id=run.thread_id,
            types=types,
            k=k,
            scoring=scoring,
        )
        return {into: [_shown(one) for one in found]}

    return _node(memory, recall, "recall")


def remember_node(
    memory: AgentMemory, extract: Callable[[Any], Any], *, in_thread: bool
) -> Runnable[Any, dict[str, Any]]:
    """See `AgentMemory.remember_node`."""
    _checked_function("extract", extract)
    checked_flag("in_thread", in_thread)

    async def remember(state: Any) -> dict[str, Any]:
        run = running()
        found = extract(state)
        given = (await found if inspect.isawaitable(found) else found) or ()
        await memory.remember_many(
            given,
            user_id=run.user_id or None,
            thread_id=run.thread_id if in_thread or not run.user_id else None,
            conn=this_step() if has_step(memory.db) else None,
        )
        return {}

    return _node(memory, remember, "remember")


def last_question(state: Any) -> str | None:
    """The text of a person's last message in a state's "messages"; None where there is none."""
    messages = state.get("messages") if isinstance(state, dict) else None
    for message in reversed(messages or ()):
        if isinstance(message, HumanMessage):
            return text_of(message)
    return None


def running(what: str = "node") -> RunContext:
    """The step that the node, or tool, is part of."""
    run = RunContext.current()
    if run is None:
        problem = f"this is a {what}: it can be called by a graph that runs only"
        raise InvalidArgumentError(argument=what, problem=problem)
    return run


def _node(memory: AgentMemory, work: Callable[[Any], Any], name: str) -> Runnable[Any, Any]:
    def run(state: Any) -> Any:
        return memory.db.portal.call(work, state)

    return RunnableLambda(run, work, name=name)


def _shown(found: Recalled) -> dict[str, Any]:
    """What a state has of a memory: JSON, which any model can be shown."""
    memory = found.memory
    return {
        "memory_id": str(memory.memory_id),
        "type": memory.memory_type,
        "text": memory.content_text,
        "score": found.score,
        "recorded_at": memory.recorded_at.isoformat(),
        "source_thread_id": memory.source_thread_id,
    }


def _checked_function(argument: str, given: Any) -> Any:
    if not callable(given):
        problem = f"must be a function of the state, not {shown(given)}"
        raise InvalidArgumentError(argument=argument, problem=problem)
    return given
