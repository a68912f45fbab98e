"""The readable side of a message: what people and SQL see beside its exact bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from langchain_core.messages import BaseMessage

from langgraph_pgsaga import _json

_ROLES = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant"}

# The exact bytes stand beside it; this much is for reading.
_LONGEST_TEXT = 1_000_000
_LONGEST_ARGUMENT = 10_000


def is_message_list(value: Any) -> TypeGuard[list[BaseMessage]]:
    """Whether `value` is a plain, non-empty list of nothing but messages."""
    return type(value) is list and bool(value) and all(isinstance(m, BaseMessage) for m in value)


def role_of(message: BaseMessage) -> str:
    """user, assistant, system, tool, ...; a ChatMessage's own role."""
    own = getattr(message, "role", None)
    if isinstance(own, str):
        return _json.clean_text(own)
    kind = str(message.type).removesuffix("MessageChunk").lower()
    return _json.clean_text(_ROLES.get(message.type, _ROLES.get(kind, kind)))


def text_of(message: BaseMessage) -> str:
    """The text of the content; a block without text is named in brackets, as [image]."""
    content: Any = message.content
    if isinstance(content, list | tuple):
        content = "\n".join(map(_block_text, content))
    text = content if isinstance(content, str) else _block_text(content)
    return _json.clean_text(_json.shortened(text, _LONGEST_TEXT))


def metadata_of(message: BaseMessage) -> dict[str, Any]:
    """What queries ask for: name, tool calls, what a tool answered to, tokens, model."""
    found = {
        "name": message.name,
        "tool_calls": [
            {key: call.get(key) for key in ("name", "args", "id")}
            for call in getattr(message, "tool_calls", None) or ()
            if isinstance(call, Mapping)
        ],
        "tool_call_id": getattr(message, "tool_call_id", None),
        "status": getattr(message, "status", None),
        "usage": getattr(message, "usage_metadata", None),
        "model": (message.response_metadata or {}).get("model_name"),
    }
    kept: dict[str, Any] = _json.project(
        {k: v for k, v in found.items() if v}, longest=_LONGEST_ARGUMENT
    )
    return kept


def _block_text(block: Any) -> str:
    if isinstance(block, str):
        return block
    if isinstance(block, dict):
        text = block.get("text")
        return text if isinstance(text, str) else f"[{block.get('type', 'block')}]"
    return f"[{type(block).__name__}]"
