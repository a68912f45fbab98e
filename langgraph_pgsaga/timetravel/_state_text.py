"""A state as text."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import Any

from langgraph_pgsaga._message_text import is_message_list
from langgraph_pgsaga._times import in_utc, time_of
from langgraph_pgsaga.timetravel import _text

_MOST_MESSAGES = 20
_LONGEST_LINE = 200
_MOST_PARTS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What is shown of a state."""

    thread_id: str
    checkpoint_id: str | None
    step: int | None
    source: str | None
    created_at: str | None
    channels: Mapping[str, Any]
    next: tuple[str, ...]
    interrupts: tuple[Any, ...]
    errors: tuple[tuple[str, str], ...]

    @property
    def title(self) -> str:
        """Which state it is, in one line."""
        time = in_utc(time_of(self.created_at))
        time = f"{time} UTC" if time else ""
        step = "" if self.step is None else f"step {self.step}"
        kind = "no checkpoint" if self.checkpoint_id is None else f"{step} {self.source or ''}"
        return ", ".join(filter(None, [f"thread {self.thread_id}", kind.strip(), time]))


def text(state: Shown) -> str:
    """The title, what comes next, then channel by channel."""
    lines = [state.title, f"next: {', '.join(state.next) or 'nothing'}"]
    lines += [f"interrupted: {_shortened(value)}" for value in state.interrupts]
    lines += [
        f"failed: {name}: {_text.shortened(error, _LONGEST_LINE)}" for name, error in state.errors
    ]
    for name, value in state.channels.items():
        if is_message_list(value):
            lines += _conversation(name, value)
        else:
            lines.append(f"{name}: {_shortened(value)}")
    # One for one: a value's own line breaks and escapes were taken out of each.
    return "\n".join(_text.one_line(line) for line in lines)


def _conversation(name: str, messages: list[Any]) -> list[str]:
    earlier = len(messages) - _MOST_MESSAGES
    cut = [f"  … {earlier:,} earlier messages"] if earlier > 0 else []
    shown = [f"  {_text.summary(m, _LONGEST_LINE)}" for m in messages[-_MOST_MESSAGES:]]
    return [f"{name}:", *cut, *shown]


def _shortened(value: Any) -> str:
    return _text.shortened(value_text(value, 4 * _LONGEST_LINE), _LONGEST_LINE)


def value_text(value: Any, longest: int) -> str:
    """A value as Python writes it, of large containers the beginning."""
    shortener = reprlib.Repr()
    shortener.maxlevel = 12
    shortener.maxstring = shortener.maxother = shortener.maxlong = longest
    for kind in ("list", "tuple", "dict", "set", "frozenset", "deque", "array"):
        setattr(shortener, f"max{kind}", _MOST_PARTS)
    return shortener.repr(value)


def kind_of(value: Any) -> str:
    """The type, and of what has a length, that: `list of 5,000`."""
    name = type(value).__name__
    if isinstance(value, bool | int | float) or not isinstance(value, Sized):
        return name
    try:
        return f"{name} of {len(value):,}"
    except Exception:  # whatever a class of the graph's own does
        return name
