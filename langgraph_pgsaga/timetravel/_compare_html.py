"""The outcomes of variants side by side, for notebooks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from langchain_core.messages import BaseMessage

from langgraph_pgsaga._message_text import is_message_list
from langgraph_pgsaga._same import Numbers, is_same
from langgraph_pgsaga._text import shown_html
from langgraph_pgsaga.timetravel import _page, _state_html
from langgraph_pgsaga.timetravel._apart import first_apart

_MOST_MESSAGES = 20
_FOLDED_NOTE, _CUT_NOTE = 300, 2_000
_STYLE = _page.style(
    "compare",
    "td {border-top: 1px solid #8883; overflow-wrap: anywhere; min-width: 180px}",
    "th {border-top: 1px solid #8883}",
    "td.differs {background: #d2992226}",
    "td.failed {background: #f8514926}",
    "td.same {opacity: .75}",
    "code {background: none; color: inherit; padding: 0; font-size: 12px}",
    *_state_html.CONVERSATION,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """What is shown of a variant."""

    name: str
    told: str
    is_failed: bool
    channels: Mapping[str, Any]


def page(columns: Sequence[Column]) -> str:
    """A table with a column per variant and a row per channel."""
    heads = "".join(f'<th scope="col">{shown_html(c.name)}</th>' for c in columns)
    told = "".join(
        f'<td class="{"failed" if c.is_failed else ""}">{shown_html(c.told)}</td>' for c in columns
    )
    lines = [_STYLE, '<table class="pgsaga-compare">', f"<tr><th></th>{heads}</tr>"]
    lines.append(f'<tr><th scope="row">run</th>{told}</tr>')
    for channel in dict.fromkeys(name for c in columns for name in c.channels):
        cells = "".join(_cells([c.channels.get(channel) for c in columns]))
        lines.append(f'<tr><th scope="row">{shown_html(channel)}</th>{cells}</tr>')
    return "\n".join([*lines, "</table>"])


def _cells(values: Sequence[Any]) -> Iterator[str]:
    """A cell for each variant, or one for all where they agree."""
    if all(is_same(values[0], value) for value in values[1:]):
        yield f'<td class="same" colspan="{len(values)}">{_value(values[0])}</td>'
        return
    if not all(is_message_list(value) for value in values):
        shown = [_value(value) for value in values]
        for value, text in zip(values, shown, strict=True):
            note = _note(values[0], value) if text == shown[0] else ""
            yield f'<td class="differs">{text}{note}</td>'
        return
    numbers = Numbers()
    keys = [[numbers.of(message) for message in value] for value in values]
    common = frozenset.intersection(*map(frozenset, keys))
    for value, own in zip(values, keys, strict=True):
        yield f'<td class="differs">{_talk(value, [key in common for key in own])}</td>'


def _talk(messages: Sequence[BaseMessage], is_common: Sequence[bool]) -> str:
    """The messages; those that all variants have are only counted."""
    lines = []
    for common, run in groupby(zip(messages, is_common, strict=True), key=itemgetter(1)):
        found = [message for message, _ in run]
        if not common:
            cut = len(found) - _MOST_MESSAGES
            lines += [_state_html.bubble(message) for message in found[:_MOST_MESSAGES]]
            lines += [_count(cut, "more")] if cut > 0 else []
        else:
            lines.append(_count(len(found), "in common"))
    return "\n".join(lines)


def _note(first: Any, value: Any) -> str:
    """What tells a value from the first that looks like it; nothing where they are the same."""
    if is_same(first, value):
        return ""
    apart = first_apart(first, value)
    told = f"{apart.place}: {apart.after}" if apart.place else apart.after
    return f'<div class="cut">{_page.folded(told, _FOLDED_NOTE, _CUT_NOTE)}</div>'


def _count(number: int, what: str) -> str:
    noun = "message" if number == 1 else "messages"
    return f'<div class="cut">… {number:,} {noun} {what}</div>'


def _value(value: Any) -> str:
    if value is None:
        return ""
    if is_message_list(value):
        return _state_html.conversation(value)
    return _state_html.value(value)
