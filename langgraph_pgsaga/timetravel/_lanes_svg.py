"""A tree of checkpoints as a drawing for notebooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from langgraph_pgsaga._text import shown_html
from langgraph_pgsaga.timetravel import _page
from langgraph_pgsaga.timetravel._lanes import Row

_HEIGHT, _LANE, _MARGIN = 24, 18, 12
_LONGEST_LABEL = 120
_STYLE = _page.style(
    "tree",
    "svg {display: block; max-width: none; overflow: visible}",
    "text {fill: currentColor; font: 13px sans-serif; white-space: pre}",
    "text.rest {opacity: .6; font-style: italic}",
    "text.branch {font-size: 11px; opacity: .7}",
    "path {fill: none; stroke-width: 2}",
)


def page(rows: Sequence[Row]) -> str:
    """The rows as one SVG drawing, which has a tooltip for each step."""
    if not rows:
        return "<p>no checkpoints</p>"
    lanes = 1 + max(lane for row in rows for lane in (row.lane, *row.passing))
    left = 2 * _MARGIN + lanes * _LANE
    width = left + 7 * min(_LONGEST_LABEL, max(len(_label(row)) for row in rows)) + 120
    size = f'width="{width}" height="{len(rows) * _HEIGHT}"'
    lines = [line for place, row in enumerate(rows) for line in _lines(place, row, rows)]
    marks = [mark for place, row in enumerate(rows) for mark in _marks(place, row, left)]
    drawing = [f'<svg {size} role="img" aria-label="branches">', *lines, *marks, "</svg>"]
    return "\n".join([_STYLE, '<div class="pgsaga-tree">', *drawing, "</div>"])


def _lines(place: int, row: Row, rows: Sequence[Row]) -> Iterator[str]:
    """From this row to the next: lanes that go by, and those that come together there."""
    if place + 1 == len(rows):
        return
    following = rows[place + 1]
    top, below = _y(place), _y(place + 1)
    for lane, branch in {**row.passing, row.lane: row.branch}.items():
        x = _x(lane)
        if following.joining.get(lane) == branch:
            end = _x(following.lane)
            yield _path(f"M{x} {top} C{x} {below - 4} {end} {top + 12} {end} {below}", branch)
        elif following.passing.get(lane) == branch or (
            (following.lane, following.branch) == (lane, branch)
        ):
            yield _path(f"M{x} {top} V{below}", branch)


def _path(data: str, branch: int) -> str:
    return f'<path d="{data}" stroke="{_colour(branch)}"/>'


def _marks(place: int, row: Row, left: int) -> Iterator[str]:
    x, y, colour = _x(row.lane), _y(place), _colour(row.branch)
    if row.step is None:
        yield f'<circle cx="{x}" cy="{y}" r="2" fill="{colour}"/>'
        yield f'<text class="rest" x="{left}" y="{y + 4}">{shown_html(_label(row))}</text>'
        return
    hint = f"{row.step.checkpoint_id}\n{row.step.created_at or ''}"
    hint += f"\nchanged: {', '.join(row.step.changed) or 'nothing'}"
    hint += f"\nnext: {', '.join(row.step.next) or 'nothing'}"
    title = f"<title>{shown_html(hint)}</title>"
    yield f'<circle cx="{x}" cy="{y}" r="5" fill="{colour}">{title}</circle>'
    branch = ""
    if row.branch:
        branch = f'<tspan dx="10">branch {row.branch}</tspan>'
    label = f"{shown_html(_label(row))}{branch}{title}"
    yield f'<text x="{left}" y="{y + 4}">{label}</text>'


def _label(row: Row) -> str:
    label = row.label
    return label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…"


def _x(lane: int) -> int:
    return _MARGIN + lane * _LANE


def _y(place: int) -> int:
    return place * _HEIGHT + _HEIGHT // 2


def _colour(branch: int) -> str:
    return _page.COLOURS[branch % len(_page.COLOURS)]
