"""States and their parts as one line of text."""

from __future__ import annotations

import re
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from langgraph_pgsaga.checkpoint.messages import role_of, text_of

_SIGNS = {"added": "+", "removed": "-", "edited": "~"}
_LONGEST_LINE = 80
# What a terminal would obey, and what would break the line.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


def place(path: tuple[str | int, ...]) -> str:
    """A path as one would write it: `files['a.py'][3]`."""
    head, *rest = path or ("state",)
    return str(head) + "".join(f"[{part!r}]" for part in rest)


def sign(kind: str) -> str:
    """`+`, `-` or `~`."""
    return _SIGNS[kind]


def change_line(kind: str, path: tuple[str | int, ...], before: Any, after: Any) -> str:
    """`~ count: 3 → 4`."""
    shown = {
        "added": lambda: summary(after),
        "removed": lambda: summary(before),
        "edited": lambda: f"{summary(before)} → {summary(after)}",
    }
    return f"{sign(kind)} {one_line(place(path))}: {shown[kind]()}"


def summary(value: Any, longest: int = _LONGEST_LINE) -> str:
    """A value in one line, messages as `role: text`."""
    if isinstance(value, BaseMessage):
        return shortened(f"{role_of(value)}: {message_text(value)}", longest)
    if isinstance(value, list) and value and isinstance(value[0], BaseMessage):
        return f"{len(value)} messages"
    try:
        return shortened(repr(value), longest)
    except Exception:  # an integer of thousands of digits, for one
        return type(value).__name__


def message_text(message: BaseMessage) -> str:
    """What the message says, and the tools that it calls."""
    calls = message.tool_calls if isinstance(message, AIMessage) else []
    called = [f"{call['name']}({_arguments(call['args'])})" for call in calls]
    return " ".join(filter(None, [text_of(message), *called]))


def _arguments(arguments: Any) -> str:
    if not isinstance(arguments, dict):
        return repr(arguments)
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


def shortened(text: str, longest: int) -> str:
    """One line of at most so many characters."""
    # Cut first: a value may have megabytes.
    text = one_line(text[: 4 * longest])
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def one_line(text: str) -> str:
    """Without line breaks and whatever else a terminal would obey."""
    return _CONTROL.sub(" ", text)
