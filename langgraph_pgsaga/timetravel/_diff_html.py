"""A diff as a table for notebooks: self-contained, without script, for light and dark."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import groupby
from typing import Any

from langchain_core.messages import BaseMessage

from langgraph_pgsaga._message_text import role_of
from langgraph_pgsaga._text import shown_html
from langgraph_pgsaga.timetravel import _page, _text
from langgraph_pgsaga.timetravel._apart import first_apart, written

_Row = tuple[str, tuple[str | int, ...], Any, Any]
_LONGEST_CELL = 2_000
# Longer texts are shown as before and after, without marks inside.
_LONGEST_MARKED = 1_000

_STYLE = _page.style(
    "diff",
    "td {white-space: pre-wrap; overflow-wrap: anywhere}",
    "th {padding-top: 10px; border-bottom: 1px solid #8886}",
    "tr.added {background: #2ea04326}",
    "tr.removed {background: #f8514926}",
    "tr.edited {background: #d2992226}",
    "td.sign {font-family: monospace; white-space: nowrap}",
    "td.place {font-family: monospace; white-space: nowrap}",
    "ins {background: #2ea0434d; text-decoration: none}",
    "del {background: #f851494d}",
    "del + ins {margin-left: 3px}",
    ".role {font-weight: 600; opacity: .75}",
)


def table(rows: Sequence[_Row]) -> str:
    """The rows (kind, path, before, after) by channel."""
    if not rows:
        return "<p>no changes</p>"
    lines = [_STYLE, '<table class="pgsaga-diff">']
    for channel, group in groupby(rows, key=lambda row: str(row[1][0]) if row[1] else "state"):
        lines.append(f'<tr><th colspan="3" scope="colgroup">{shown_html(channel)}</th></tr>')
        lines.extend(_row(*row) for row in group)
    return "\n".join([*lines, "</table>"])


def _row(kind: str, path: tuple[str | int, ...], before: Any, after: Any) -> str:
    inner = "".join(f"[{written(part)}]" for part in path[1:])
    return (
        f'<tr class="{kind}"><td class="sign" aria-label="{kind}">{_text.sign(kind)}</td>'
        f'<td class="place">{shown_html(_text.shortened(inner, 60))}</td>'
        f"<td>{_content(kind, before, after)}</td></tr>"
    )


def _content(kind: str, before: Any, after: Any) -> str:
    if kind == "added":
        return _role(after) + shown_html(_body(after))
    if kind == "removed":
        return _role(before) + shown_html(_body(before))
    old, new = _body(before), _body(after)
    if old != new:
        return _role(after) + _marked(old, new)
    apart = first_apart(before, after)  # the difference isn't in what is said, or far behind
    place = f'<span class="role">{shown_html(apart.place)}</span> ' if apart.place else ""
    return _role(after) + place + _marked(_cut(apart.before), _cut(apart.after))


def _role(value: Any) -> str:
    if not isinstance(value, BaseMessage):
        return ""
    return f'<span class="role">{shown_html(role_of(value))}</span> '


def _body(value: Any) -> str:
    if isinstance(value, BaseMessage):
        text = _text.message_text(value)
    else:
        text = value if isinstance(value, str) else written(value)
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_CELL else f"{text[:_LONGEST_CELL]}…"


def _marked(old: str, new: str) -> str:
    """Both texts in one, what is gone and what is new marked."""
    if max(len(old), len(new)) > _LONGEST_MARKED:
        return f"<del>{shown_html(old)}</del> <ins>{shown_html(new)}</ins>"
    words, new_words = _words(old), _words(new)
    parts = []
    matcher = SequenceMatcher(None, words, new_words, autojunk=False)
    for tag, first, last, new_first, new_last in matcher.get_opcodes():
        gone, come = "".join(words[first:last]), "".join(new_words[new_first:new_last])
        if tag == "equal":
            parts.append(shown_html(gone))
            continue
        parts.append(f"<del>{shown_html(gone)}</del>" if gone else "")
        parts.append(f"<ins>{shown_html(come)}</ins>" if come else "")
    return "".join(parts)


def _words(text: str) -> list[str]:
    """The words of the text, each with the space or the end of the line behind it."""
    return re.split(r"(?<=[ \n])", text)
