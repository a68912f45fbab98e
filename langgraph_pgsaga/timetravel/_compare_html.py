"""The outcomes of variants side by side, for notebooks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langgraph_pgsaga.checkpoint.messages import is_message_list
from langgraph_pgsaga.timetravel import _page, _state_html
from langgraph_pgsaga.timetravel.diff import key_of

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
    heads = "".join(f'<th scope="col">{_page.text(c.name)}</th>' for c in columns)
    told = "".join(
        f'<td class="{"failed" if c.is_failed else ""}">{_page.text(c.told)}</td>' for c in columns
    )
    lines = [_STYLE, '<table class="pgsaga-compare">', f"<tr><th></th>{heads}</tr>"]
    lines.append(f'<tr><th scope="row">run</th>{told}</tr>')
    for channel in dict.fromkeys(name for c in columns for name in c.channels):
        cells = "".join(_cells([c.channels.get(channel) for c in columns]))
        lines.append(f'<tr><th scope="row">{_page.text(channel)}</th>{cells}</tr>')
    return "\n".join([*lines, "</table>"])


def _cells(values: Sequence[Any]) -> Iterator[str]:
    """A cell for each variant, or one for all where they agree."""
    if len({key_of(value) for value in values}) == 1:
        yield f'<td class="same" colspan="{len(values)}">{_value(values[0])}</td>'
        return
    common = 0
    if all(is_message_list(value) for value in values):
        common = _common([[key_of(message) for message in value] for value in values])
    for value in values:
        yield f'<td class="differs">{_value(value, common)}</td>'


def _common(keys: Sequence[Sequence[Any]]) -> int:
    """With how many equal messages all of them begin."""
    count = 0
    for first in zip(*keys, strict=False):
        if len(set(first)) > 1:
            break
        count += 1
    return count


def _value(value: Any, common: int = 0) -> str:
    if value is None:
        return ""
    if not is_message_list(value):
        return _state_html.value(value)
    noun = "message" if common == 1 else "messages"
    cut = f'<div class="cut">… {common:,} {noun} in common</div>' if common else ""
    return cut + _state_html.conversation(value[common:])
