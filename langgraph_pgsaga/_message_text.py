"""The readable side of a message: what people and SQL see beside its exact bytes."""

from __future__ import annotations

from typing import Any, TypeGuard

from langchain_core.messages import BaseMessage

from langgraph_pgsaga import _json

_ROLES = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant"}

# The exact bytes stand beside it; this much is for reading.
_LONGEST_TEXT = 1_000_000
_LONGEST_ARGUMENT = 10_000


def is_message_list(value: Any) -> TypeGuard[list[BaseMessage]]:
    """Whether `value` is a plain, non-empty list of nothing but messages."""
    # By class: isinstance asks the models' metaclass, for every message anew.
    return (
        type(value) is list and bool(value) and all(map(_is_message_class, set(map(type, value))))
    )


def _is_message_class(cls: type) -> bool:
    return BaseMessage in cls.__mro__


def role_of(message: BaseMessage) -> str:
    """user, assistant, system, tool, ...; a ChatMessage's own role."""
    own = message.__dict__.get("role")
    if isinstance(own, str):
        return _json.clean_text(own)
    type_ = _json.shown(message.type)
    if (known := _ROLES.get(type_)) is not None:
        return known
    kind = type_.removesuffix("MessageChunk").lower()
    return _ROLES.get(kind, kind)


def text_of(message: BaseMessage) -> str:
    """The text of the content; a block without text is named in brackets, as [image]."""
    content: Any = message.content
    if isinstance(content, list | tuple):
        content = "\n".join(map(_block_text, content))
    text = content if isinstance(content, str) else _block_text(content)
    return _json.clean_text(_json.shortened(text, _LONGEST_TEXT))


def metadata_of(message: BaseMessage) -> dict[str, Any]:
    """What queries ask for: name, tool calls, what a tool answered to, tokens, model."""
    # Not by attribute: where a model has none of that name, looking it up is slow. And nothing
    # has checked what was set without validation (`model_construct`).
    fields = message.__dict__
    calls, response = fields.get("tool_calls"), fields.get("response_metadata")
    found = {
        "name": fields.get("name"),
        "tool_calls": [
            {key: call.get(key) for key in ("name", "args", "id")}
            for call in (calls if isinstance(calls, list | tuple) else ())
            if isinstance(call, dict)
        ],
        "tool_call_id": fields.get("tool_call_id"),
        "status": fields.get("status"),
        "usage": fields.get("usage_metadata"),
        "model": response.get("model_name") if isinstance(response, dict) else None,
    }
    said = {name: value for name, value in found.items() if not _is_nothing(value)}
    kept: dict[str, Any] = _json.project(said, longest=_LONGEST_ARGUMENT) if said else said
    return kept


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | tuple | dict) and not value)


def _block_text(block: Any) -> str:
    if isinstance(block, str):
        return block
    if isinstance(block, dict):
        text = block.get("text")
        return text if isinstance(text, str) else f"[{block.get('type', 'block')}]"
    return f"[{type(block).__name__}]"
