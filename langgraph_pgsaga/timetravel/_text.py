"""States and their parts as one line of text."""

from __future__ import annotations

import re
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from langgraph_pgsaga._message_text import role_of, text_of
from langgraph_pgsaga._text import shown
from langgraph_pgsaga.timetravel._apart import first_apart, written

_SIGNS = {"added": "+", "removed": "-", "edited": "~"}
_LONGEST_LINE = 80
_SPACES = re.compile("[\t\n\v\f\r]+")


def place(path: tuple[str | int, ...]) -> str:
    """A path as one would write it: `files['a.py'][3]`."""
    head, *rest = path or ("state",)
    return str(head) + "".join(f"[{written(part)}]" for part in rest)


def sign(kind: str) -> str:
    """`+`, `-` or `~`."""
    return _SIGNS[kind]


def change_line(kind: str, path: tuple[str | int, ...], before: Any, after: Any) -> str:
    """`~ count: 3 → 4`."""
    shown = {
        "added": lambda: summary(after),
        "removed": lambda: summary(before),
        "edited": lambda: _edit(before, after),
    }
    return f"{sign(kind)} {one_line(place(path))}: {shown[kind]()}"


def _edit(before: Any, after: Any) -> str:
    old, new = summary(before), summary(after)
    if old != new:
        return f"{old} → {new}"
    apart = first_apart(before, after)
    old, new = (shortened(text, _LONGEST_LINE) for text in (apart.before, apart.after))
    return f"{old} → {new}" if not apart.place else f"{one_line(apart.place)}: {old} → {new}"


def summary(value: Any, longest: int = _LONGEST_LINE) -> str:
    """A value in one line, messages as `role: text`."""
    if isinstance(value, BaseMessage):
        return shortened(f"{role_of(value)}: {message_text(value)}", longest)
    if isinstance(value, list) and value and isinstance(value[0], BaseMessage):
        return f"{len(value)} messages"
    return shortened(written(value), longest)


def message_text(message: BaseMessage) -> str:
    """What the message says, and the tools that it calls."""
    calls = message.tool_calls if isinstance(message, AIMessage) else []
    called = [f"{call['name']}({_arguments(call['args'])})" for call in calls]
    return " ".join(filter(None, [text_of(message), *called]))


def _arguments(arguments: Any) -> str:
    if not isinstance(arguments, dict):
        return written(arguments)
    return ", ".join(f"{name}={written(value)}" for name, value in arguments.items())


def shortened(text: str, longest: int) -> str:
    """One line of at most so many characters."""
    # Cut first: a value may have megabytes.
    text = one_line(text[: 4 * longest])
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def one_line(text: str) -> str:
    """Without line breaks, and whatever else a terminal would obey as escapes."""
    return shown(_SPACES.sub(" ", text))
