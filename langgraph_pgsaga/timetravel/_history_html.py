"""A history as a table for notebooks: self-contained, without script, for light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from langgraph_pgsaga._text import shown_html
from langgraph_pgsaga.timetravel import _page

_HEADS = ("step", "source", "time (UTC)", "ran", "changed", "next", "branch", "name")

_STYLE = _page.style(
    "history",
    "td {border-bottom: 1px solid #8883}",
    "th {border-bottom: 1px solid #8883}",
    "td:first-child {text-align: right; font-variant-numeric: tabular-nums}",
    "td:nth-child(3) {white-space: nowrap; opacity: .75}",
    "td[colspan] {text-align: left; opacity: .75}",
    ".branch {border-radius: 8px; color: #fff; padding: 0 7px}",
)


class Cells(NamedTuple):
    """A row of the table, as text."""

    step: str
    source: str
    time: str
    nodes: str
    changed: str
    next: str
    branch: int
    name: str


def table(rows: Sequence[Cells], has_more: bool) -> str:
    """The rows in their order."""
    if not rows:
        return "<p>no checkpoints</p>"
    heads = "".join(f'<th scope="col">{head}</th>' for head in _HEADS)
    more = [f'<tr><td colspan="{len(_HEADS)}">…and more</td></tr>'] if has_more else []
    body = [_row(cells) for cells in rows]
    lines = [_STYLE, '<table class="pgsaga-history">', f"<tr>{heads}</tr>", *body, *more]
    return "\n".join([*lines, "</table>"])


def _row(cells: Cells) -> str:
    shown = [_branch(c) if isinstance(c, int) else shown_html(c) for c in cells]
    return '<tr class="step">' + "".join(f"<td>{cell}</td>" for cell in shown) + "</tr>"


def _branch(number: int) -> str:
    colour = _page.COLOURS[number % len(_page.COLOURS)]
    return f'<span class="branch" style="background: {colour}">{number}</span>'
