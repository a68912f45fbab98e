"""State values as JSON for programs, and as text for people."""

from __future__ import annotations

import base64
import dataclasses
import enum
import math
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timedelta
from pprint import pformat
from typing import Any
from uuid import UUID

from langchain_core.messages import AIMessage, BaseMessage
from langgraph.types import Send
from pydantic import BaseModel

from langgraph_pgsaga._message_text import is_message_list, role_of, text_of
from langgraph_pgsaga._text import shown, shown_block
from langgraph_pgsaga.serde import Placeholder

_DEEPEST = 100
_WIDTH = 88
_MOST_BITS = 10_000
_MOST_WRITTEN = 400_000


def plain(value: Any, _depth: int = 0) -> Any:
    """`value` as JSON: messages by their fields, other objects as {"type": ..., "value": ...}."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, enum.Enum):
        return plain(value.value, _depth)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        # Python writes out integers of some thousand digits in no other base.
        return int(value) if value.bit_length() < _MOST_BITS else hex(value)
    if isinstance(value, float):
        # JSON has neither NaN nor infinities.
        return float(value) if math.isfinite(value) else str(float(value))
    if _depth >= _DEEPEST:
        return type(value).__name__
    if isinstance(value, Mapping):
        return {_key(key): plain(part, _depth + 1) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(part, _depth + 1) for part in value]
    return _plain_object(value, _depth + 1)


def _plain_object(value: Any, depth: int) -> Any:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, UUID | timedelta):
        return str(value)
    if isinstance(value, BaseMessage):
        return {"role": role_of(value), **plain(value.__dict__, depth)}
    if isinstance(value, Placeholder):
        return {"type": value.type_name, "value": plain(value.content, depth)}
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, bytes | bytearray):
        return {"type": type(value).__name__, "base64": base64.b64encode(value).decode()}
    if isinstance(value, BaseModel):
        fields = {**value.__dict__, **(value.__pydantic_extra__ or {})}
        return {"type": kind, "value": plain(fields, depth)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {"type": kind, "value": plain({n: getattr(value, n, None) for n in names}, depth)}
    if isinstance(value, Send):
        return {"type": kind, "value": plain({"node": value.node, "arg": value.arg}, depth)}
    return {"type": kind, "repr": _repr(value)}


def _key(key: Any) -> str:
    return key if type(key) is str else str(plain(key)) if not isinstance(key, tuple) else repr(key)


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:
        return f"<its repr() raised {type(error).__name__}>"


def text(value: Any) -> str:
    """`value` for people: messages as a conversation, everything else as Python writes it."""
    if is_message_list(value):
        return "\n".join(map(conversation_line, value))
    if isinstance(value, BaseMessage):
        return conversation_line(value)
    if isinstance(value, str):
        return shown_block(value)
    try:
        is_wide = _is_wide_and_deep(value)
        written = repr(value) if is_wide else pformat(value, width=_WIDTH, sort_dicts=False)
        return shown_block(written)
    except Exception:
        return shown(_repr(value))


def _is_wide_and_deep(value: Any) -> bool:
    """Whether pformat, which writes each part anew for each level around it, would take long."""
    written = 0
    waiting = [(value, 1)]
    while waiting and written < _MOST_WRITTEN:
        part, depth = waiting.pop()
        written += depth
        inside: Iterable[Any] = ()
        if isinstance(part, dict):
            inside = part.values()
        elif isinstance(part, list | tuple | set | frozenset):
            inside = part
        elif dataclasses.is_dataclass(part):
            inside = [getattr(part, field.name, None) for field in dataclasses.fields(part)]
        waiting.extend((inner, depth + 1) for inner in inside)
    return written >= _MOST_WRITTEN


def conversation_line(message: BaseMessage) -> str:
    """`user: text`, with the tools that it calls on lines of their own."""
    name = f" ({message.name})" if isinstance(message.name, str) and message.name else ""
    lines = [indented(text_of(message))] if text_of(message) else []
    if isinstance(message, AIMessage):
        for call in message.tool_calls:
            arguments = ", ".join(f"{key}={_repr(part)}" for key, part in call["args"].items())
            lines.append(shown(f"calls {call['name']}({arguments})"))
    said = "\n  ".join(lines)
    return f"{shown(f'{role_of(message)}{name}')}: {said}"


def indented(block: str) -> str:
    """Lines below the first are set in, so that none passes for another message."""
    return shown_block(block).replace("\n", "\n  ")
