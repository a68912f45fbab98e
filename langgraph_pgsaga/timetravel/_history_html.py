"""A history as a table for notebooks: self-contained, without script, for light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

# Of the branches, in turn; each is readable on white and on black.
_COLOURS = ("#2a7f62", "#c2691f", "#6b5fc7", "#b03a6f", "#2f7fb5")
_HEADS = ("step", "source", "time", "ran", "changed", "next", "branch", "name")

_STYLE = """<style>
.pgsaga-history {color-scheme: light dark; border-collapse: collapse; font: 13px/1.45 sans-serif}
.pgsaga-history td, .pgsaga-history th {text-align: left; vertical-align: top; padding: 3px 8px;
 border: 0; border-bottom: 1px solid #8883; color: inherit; background: none}
.pgsaga-history td:first-child {text-align: right; font-variant-numeric: tabular-nums}
.pgsaga-history td:nth-child(3) {white-space: nowrap; opacity: .75}
.pgsaga-history .branch {border-radius: 8px; color: #fff; padding: 0 7px}
</style>"""


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
    shown = [_branch(c) if isinstance(c, int) else escape(c) for c in cells]
    return '<tr class="step">' + "".join(f"<td>{cell}</td>" for cell in shown) + "</tr>"


def _branch(number: int) -> str:
    colour = _COLOURS[number % len(_COLOURS)]
    return f'<span class="branch" style="background: {colour}">{number}</span>'
