"""The results as a table, as JSON, and as a chart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from math import log10
from statistics import median
from typing import Any

from benchmarks.contenders import CONTENDERS, MEMORY, OURS, REFERENCE
from benchmarks.workloads import Options

FLOOR = "floor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A measure, round by round, by contender; `floor` is what no saver can beat."""

    measure: str
    readings: dict[str, list[float]]

    def middle(self, name: str) -> float | None:
        found = self.readings.get(name)
        return median(found) if found else None

    def ratio(self, name: str) -> float | None:
        """The median of each round's pgsaga/other; None where there is nothing to compare."""
        pairs = zip(self.readings[OURS.name], self.readings.get(name, ()), strict=False)
        ratios = [ours / theirs for ours, theirs in pairs if theirs > 0]
        return median(ratios) if ratios else None

    @property
    def is_more_better(self) -> bool:
        return self.measure.endswith("per s")


def table(environment: dict[str, str], options: Options, results: Sequence[Result]) -> str:
    """What was measured, and with what."""
    others = [contender.name for contender in CONTENDERS if contender is not OURS]
    columns = [OURS.name, *others, FLOOR]
    compared = [REFERENCE.name, MEMORY.name, FLOOR]
    heads = [f"{name:>10}" for name in columns] + [f"{f'/{name}':>11}" for name in compared]
    lines = [f"{'':<42}{''.join(heads)}"]
    for result in results:
        cells = [f"{_number(result.middle(name)):>10}" for name in columns]
        cells += [f"{_number(result.ratio(name)):>11}" for name in compared]
        lines.append(f"{result.measure:<42}{''.join(cells)}")
    legend = (
        "Medians of the rounds. /name: the median of each round's pgsaga/name; less is better, "
        "but for what is per s."
    )
    details = [f"  {name}: {value}" for name, value in environment.items()]
    return "\n".join([*lines, "", legend, str(options), *details])


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def as_json(environment: dict[str, str], options: Options, results: Sequence[Result]) -> str:
    found = [
        {
            "measure": result.measure,
            "readings": result.readings,
            "ratio_to_reference": result.ratio(REFERENCE.name),
        }
        for result in results
    ]
    whole: dict[str, Any] = {"environment": environment, "options": asdict(options)}
    return json.dumps({**whole, "results": found}, indent=1) + "\n"


# The chart: how much better than the reference, on a logarithmic scale.

_WIDTH, _ROW, _LEFT, _TOP, _RIGHT = 860, 24, 330, 56, 80


def chart(results: Sequence[Result], title: str) -> str:
    """An SVG of the factors by which pgsaga is ahead of the reference, or behind."""
    rows = [(result.measure, _advantage(result)) for result in results]
    found = [(measure, factor) for measure, factor in rows if factor]
    highest = max([factor for _, factor in found], default=1.0)
    ticks = [10**power for power in range(4) if power == 0 or 10 ** (power - 1) < highest]
    height = _TOP + _ROW * len(found) + 30
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"',
        f'  width="{_WIDTH}" height="{height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="16" y="26" font-size="16" font-weight="bold" fill="#222">{escape(title)}</text>',
    ]
    for tick in ticks:
        x = _place(tick, ticks[-1])
        lines.append(
            f'<line x1="{x:.1f}" y1="{_TOP - 8}" x2="{x:.1f}" y2="{height - 26}" stroke="#ddd"/>'
            f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle" fill="#666">'
            f"{tick}&#215;</text>"
        )
    for number, (measure, factor) in enumerate(found):
        lines.append(_bar(_TOP + _ROW * number, measure, factor, ticks[-1]))
    return "\n".join([*lines, "</svg>"]) + "\n"


def _advantage(result: Result) -> float | None:
    ratio = result.ratio(REFERENCE.name)
    if not ratio or result.measure.endswith("KB of text"):
        return None
    return ratio if result.is_more_better else 1 / ratio


def _place(factor: float, highest: float) -> float:
    """Where a factor stands, one at the left, by its logarithm."""
    span = max(log10(highest), 0.3)
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * max(log10(max(factor, 0.1)), 0.0) / span


def _factor(factor: float) -> str:
    return f"{factor:.0f}" if factor >= 10 else f"{factor:.1f}"


def _bar(y: int, measure: str, factor: float, highest: float) -> str:
    end = max(_place(factor, highest), _LEFT + 2)
    colour = "#2a7f62" if factor >= 1 else "#b4552d"
    return (
        f'<text x="{_LEFT - 10}" y="{y + 13}" text-anchor="end" fill="#222">'
        f"{escape(measure)}</text>"
        f'<rect x="{_LEFT}" y="{y}" width="{end - _LEFT:.1f}" height="{_ROW - 7}" '
        f'fill="{colour}" rx="2"/>'
        f'<text x="{end + 6:.1f}" y="{y + 13}" fill="#222">{_factor(factor)}&#215;</text>'
    )
