"""Tools by which an agent looks after its own memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

from langchain_core.tools import BaseTool, StructuredTool, ToolException
from pydantic import BaseModel, Field

from langgraph_pgsaga import _json
from langgraph_pgsaga._arguments import checked_flag, checked_integer
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.memory.nodes import running

if TYPE_CHECKING:
    from langgraph_pgsaga.memory.memory import AgentMemory

_SAVE = (
    "Remember a fact for later conversations. Write one short sentence that can be understood "
    "without this conversation. To correct a memory, forget it and save what is right."
)
_SEARCH = (
    "Search what was remembered before. The result is a list, the best first, of memory_id, text, "
    "type and recorded_at."
)
_FORGET = "Forget a memory that is wrong, or that the user doesn't want to be remembered."

# What a model is asked for: nobody's name, and no thread's.
_Text = Annotated[str, Field(description="The fact, as one sentence.")]
_Importance = Annotated[
    float, Field(description="From 0, a detail, to 1, what must not be forgotten.", ge=0, le=1)
]
_Query = Annotated[str, Field(description="What is looked for: a question, or words.")]
_Id = Annotated[str, Field(description="The memory_id that a search gave.")]


class _Save(BaseModel):
    text: _Text
    importance: _Importance = 0.5


class _Search(BaseModel):
    query: _Query


class _Forget(BaseModel):
    memory_id: _Id


def memory_tools(memory: AgentMemory, *, k: int, in_thread: bool) -> list[BaseTool]:
    """See `AgentMemory.tools`."""
    checked_integer("k", k, least=1, most=1_000)
    checked_flag("in_thread", in_thread)

    async def save(text: str, importance: float = 0.5) -> str:
        run = running("tool")
        await memory.remember(
            text,
            user_id=run.user_id or None,
            thread_id=run.thread_id if in_thread or not run.user_id else None,
            importance=importance,
        )
        return "Remembered."

    async def search(query: str) -> str:
        run = running("tool")
        found = await memory.recall(
            query, user_id=run.user_id or None, thread_id=run.thread_id, k=k
        )
        return _json.dump([_shown(one.memory) for one in found])

    async def forget(memory_id: str) -> str:
        run = running("tool")
        user_id, thread_id = run.user_id or None, run.thread_id
        is_there = _is_id(memory_id) and await memory.get(
            memory_id, user_id=user_id, thread_id=thread_id
        )
        if not is_there:
            return "There is no such memory."
        await memory.forget(memory_id, user_id=user_id, thread_id=thread_id)
        return "Forgotten."

    return [
        _tool(memory, "save_memory", save, _SAVE, _Save),
        _tool(memory, "search_memories", search, _SEARCH, _Search),
        _tool(memory, "forget_memory", forget, _FORGET, _Forget),
    ]


def _tool(
    memory: AgentMemory,
    name: str,
    work: Callable[..., Awaitable[str]],
    description: str,
    schema: type[BaseModel],
) -> BaseTool:
    async def told(**given: Any) -> str:
        try:
            return await work(**given)
        except InvalidArgumentError as error:
            if error.argument in ("tool", "user_id"):
                raise  # the application's to mend
            raise ToolException(str(error)) from error

    def told_sync(**given: Any) -> str:
        return memory.db.portal.call(told, **given)

    return StructuredTool(
        name=name,
        description=description,
        args_schema=schema,
        func=told_sync,
        coroutine=told,
        # A model may try again with what it can use.
        handle_tool_error=True,
        handle_validation_error=True,
    )


def _shown(memory: Any) -> dict[str, Any]:
    return {
        "memory_id": str(memory.memory_id),
        "text": memory.content_text,
        "type": memory.memory_type,
        "recorded_at": memory.recorded_at.isoformat(),
    }


def _is_id(given: str) -> bool:
    try:
        UUID(given)
    except ValueError:
        return False
    return True
