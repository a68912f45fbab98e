"""A state as a page for notebooks: the conversation first, then the other channels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from langchain_core.messages import BaseMessage

from langgraph_pgsaga._message_text import is_message_list, role_of, text_of
from langgraph_pgsaga._text import shown_html
from langgraph_pgsaga.timetravel import _page, _state_text

_MOST_MESSAGES = 20
# Longer texts are folded, much longer ones cut.
_FOLDED, _CUT = 800, 20_000
_FOLDED_VALUE, _CUT_VALUE = 300, 5_000
_MOST_CALLS = 20

CONVERSATION = (
    ".talk {max-width: 760px; margin: 4px 0 10px}",
    ".message {margin: 4px 0; padding: 5px 11px; border-radius: 10px; background: #8881}",
    ".message {width: fit-content; max-width: 88%}",
    ".message {white-space: pre-wrap; overflow-wrap: anywhere}",
    ".message.user {background: #2b79ad2e; margin-left: auto}",
    ".message.tool {background: #2a7f6226; font-family: monospace}",
    ".message.failed {background: #f8514926}",
    ".role {display: block; font: 600 11px sans-serif; opacity: .7}",
    ".call {font-family: monospace; margin-top: 3px; padding: 2px 7px}",
    ".call {border-left: 3px solid #b25d17; white-space: pre-wrap}",
    ".cut {opacity: .6; font-style: italic; font-size: 12px; white-space: normal}",
    "summary {cursor: pointer}",
)
_STYLE = _page.style(
    "state",
    "td {border-top: 1px solid #8883; overflow-wrap: anywhere; white-space: pre-wrap}",
    "td:first-child {font-weight: 600; white-space: nowrap}",
    "td:nth-child(2) {opacity: .6; white-space: nowrap}",
    "code {background: none; color: inherit; padding: 0; font-size: 12px}",
    ".title {font-weight: 600; margin: 4px 0}",
    ".note {margin: 3px 0; padding: 3px 9px; border-left: 3px solid #b25d17}",
    ".note.failed {border-color: #f85149}",
    *CONVERSATION,
)


def page(state: _state_text.Shown) -> str:
    """The whole of a state."""
    talks = {k: v for k, v in state.channels.items() if is_message_list(v)}
    rest = {k: v for k, v in state.channels.items() if k not in talks}
    parts = [
        _STYLE,
        '<div class="pgsaga-state">',
        f'<p class="title">{shown_html(state.title)}</p>',
    ]
    parts += notes(state)
    for name, messages in talks.items():
        parts += [f'<p class="title">{shown_html(name)}</p>', conversation(messages)]
    if rest:
        rows = "".join(_row(name, value) for name, value in rest.items())
        parts.append(f'<table class="pgsaga-state">{rows}</table>')
    return "\n".join([*parts, "</div>"])


def notes(state: _state_text.Shown) -> list[str]:
    """What comes next, what was asked, and what failed."""
    found = [("", "next: ", ", ".join(state.next) or "nothing")]
    found += [("", "interrupted: ", _plain(value)) for value in state.interrupts]
    found += [(" failed", f"{name} failed: ", error) for name, error in state.errors]
    return [
        f'<div class="note{kind}">{shown_html(head)}'
        f"{_page.folded(body, _FOLDED_VALUE, _CUT_VALUE)}</div>"
        for kind, head, body in found
    ]


def conversation(messages: list[BaseMessage]) -> str:
    """Messages one below the other, of many the last."""
    earlier = len(messages) - _MOST_MESSAGES
    cut = [f'<div class="cut">… {earlier:,} earlier messages</div>'] if earlier > 0 else []
    shown = [bubble(message) for message in messages[-_MOST_MESSAGES:]]
    return "\n".join(['<div class="talk">', *cut, *shown, "</div>"])


def value(found: Any) -> str:
    """A channel's value, folded where it is long."""
    return f"<code>{_page.folded(_plain(found), _FOLDED_VALUE, _CUT_VALUE)}</code>"


def bubble(message: BaseMessage) -> str:
    """A message: who says it, what, and the tools that are called."""
    role, name = role_of(message), message.__dict__.get("name")
    label = f"{role}, {name}" if name else role
    kinds = ["message", role if role in ("user", "tool") else "other"]
    if message.__dict__.get("status") == "error":
        kinds.append("failed")
        label += ", failed"
    body = _page.folded(text_of(message), _FOLDED, _CUT)
    calls = "".join(_calls(message))
    head = f'<span class="role">{shown_html(label)}</span>'
    return f'<div class="{" ".join(kinds)}">{head}{body}{calls}</div>'


def _calls(message: BaseMessage) -> Iterable[str]:
    calls = message.__dict__.get("tool_calls") or []
    for call in calls[:_MOST_CALLS]:
        arguments = call.get("args")
        pairs = arguments.items() if isinstance(arguments, dict) else [("args", arguments)]
        said = ", ".join(f"{key}={_state_text.value_text(part, _CUT_VALUE)}" for key, part in pairs)
        shown = _page.folded(f"{call.get('name')}({said})", _FOLDED_VALUE, _CUT_VALUE)
        yield f'<div class="call">{shown}</div>'
    if len(calls) > _MOST_CALLS:
        yield f'<span class="cut">… {len(calls) - _MOST_CALLS:,} more calls</span>'


def _row(name: str, found: Any) -> str:
    kind = shown_html(_state_text.kind_of(found))
    return f"<tr><td>{shown_html(name)}</td><td>{kind}</td><td>{value(found)}</td></tr>"


def _plain(found: Any) -> str:
    return found if isinstance(found, str) else _state_text.value_text(found, _CUT_VALUE)
