"""A tree of checkpoints laid out in lanes, as `git log --graph` does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from langgraph_pgsaga.timetravel import _text
from langgraph_pgsaga.timetravel.steps import Step

# Fewer steps in a row than this aren't worth folding.
_SHORTEST_FOLD = 4
_MOST_ROWS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the drawing: a step, or how many were `folded` (no step: the rest is cut).

    `passing` are the lanes of other branches that go by; `joining` the lanes that end here,
    because their branches began from this step. A lane has at most one branch at a time.
    """

    step: Step | None
    folded: int
    branch: int
    lane: int
    passing: Mapping[int, int]
    joining: Mapping[int, int]

    @property
    def label(self) -> str:
        """What the row says."""
        if self.step is None:
            return f"… {self.folded:,} steps"
        return label_of(self.step)


def label_of(step: Step) -> str:
    """A step in a few words: number, what made it, its marks and its name."""
    made = ", ".join(step.nodes)
    if step.source not in (None, "loop"):
        made = f"{step.source}: {made}" if made else f"{step.source}"
    marks = ["interrupted"] * step.is_interrupted + ["failed"] * step.has_error
    number = "" if step.step is None else str(step.step)
    name = f"“{step.name}”" if step.name else ""
    return _text.one_line("  ".join(filter(None, [number, made, *marks, name])))


def rows(branches: Sequence[Sequence[Step]], forks: Mapping[int, Step | None]) -> list[Row]:
    """The rows of branches in the order of their numbers, newest first."""
    fork_ids: set[str | None] = {step.checkpoint_id for step in forks.values() if step is not None}
    pieces = [piece for steps in branches for piece in _folded(steps, fork_ids)]
    pieces.sort(key=lambda piece: piece[0].checkpoint_id, reverse=True)
    cut = pieces[:_MOST_ROWS]
    places = {piece[0].checkpoint_id: place for place, piece in enumerate(cut)}
    spans = dict(_spans(cut, forks, places))
    lanes = _lanes(spans)
    found = [_row(place, piece, spans, lanes) for place, piece in enumerate(cut)]
    if rest := sum(map(len, pieces[_MOST_ROWS:])):
        more = Row(step=None, folded=rest, branch=0, lane=0, passing={}, joining={})
        found.append(more)
    return found


def _folded(steps: Sequence[Step], fork_ids: set[str | None]) -> Iterator[Sequence[Step]]:
    """The steps of a branch one by one, but those between two special ones together.

    Special are ends, what has a name, the steps where branches part, and the first after.
    """
    run: list[Step] = []
    for place, step in enumerate(steps):
        is_end = place in (0, len(steps) - 1)
        is_at_fork = not fork_ids.isdisjoint((step.checkpoint_id, step.parent_checkpoint_id))
        if not is_end and not is_at_fork and step.name is None:
            run.append(step)
            continue
        yield from _one_by_one(run)
        run = []
        yield [step]


def _one_by_one(run: list[Step]) -> Iterator[Sequence[Step]]:
    if len(run) >= _SHORTEST_FOLD:
        yield run
    else:
        yield from ([step] for step in run)


def _spans(
    pieces: Sequence[Sequence[Step]], forks: Mapping[int, Step | None], places: Mapping[str, int]
) -> Iterator[tuple[int, tuple[int, int]]]:
    """Per branch its first row, and the row where it is over: of the step it began from."""
    own: dict[int, list[int]] = {}
    for place, piece in enumerate(pieces):
        own.setdefault(piece[0].branch, []).append(place)
    for number, found in own.items():
        fork = forks[number]
        over = found[-1] if fork is None else places.get(fork.checkpoint_id, len(pieces))
        yield number, (found[0], over)


def _lanes(spans: Mapping[int, tuple[int, int]]) -> dict[int, int]:
    """A lane for each branch: 0 is that of branch 0, of the others the first that is free."""
    lanes: dict[int, int] = {}
    free_from: list[int] = []
    for number, (first, over) in sorted(spans.items(), key=lambda item: (item[0] != 0, item[1])):
        lane = next((n for n, row in enumerate(free_from) if row <= first), len(free_from))
        free_from[lane : lane + 1] = [over]
        if number == 0:
            free_from = [2**63]
        lanes[number] = lane
    return lanes


def _row(
    place: int,
    piece: Sequence[Step],
    spans: Mapping[int, tuple[int, int]],
    lanes: Mapping[int, int],
) -> Row:
    step = piece[0]
    passing: dict[int, int] = {}
    joining: dict[int, int] = {}
    for number, (first, over) in spans.items():
        if number == step.branch or not first <= place <= over:
            continue
        (passing if place < over else joining)[lanes[number]] = number
    return Row(
        step=step if len(piece) == 1 else None,
        folded=0 if len(piece) == 1 else len(piece),
        branch=step.branch,
        lane=lanes[step.branch],
        passing=passing,
        joining=joining,
    )


def text(found: Sequence[Row]) -> str:
    """The rows with lanes of box-drawing characters."""
    width = 1 + max((lane for row in found for lane in (row.lane, *row.passing)), default=0)
    lines = []
    for row in found:
        if row.joining:
            lines.append(_joint(row, width).rstrip())
        marks = ["│" if lane in row.passing else " " for lane in range(width)]
        marks[row.lane] = "┊" if row.step is None else "●"
        branch = f"  (branch {row.branch})" if row.branch and row.step is not None else ""
        lines.append(f"{' '.join(marks)}  {row.label}{branch}")
    return "\n".join(lines)


def _joint(row: Row, width: int) -> str:
    """The line above a step in which the branches that began from it come together."""
    low, high = min(row.lane, *row.joining), max(row.lane, *row.joining)
    marks = []
    for lane in range(width):
        is_inside = low <= lane <= high
        marks.append(_corner(row, lane, low, high) if is_inside else _passing(row, lane))
        marks.append("─" if is_inside and lane < high else " ")
    return "".join(marks)


def _corner(row: Row, lane: int, low: int, high: int) -> str:
    if lane == row.lane:
        return "├" if lane == low else "┤" if lane == high else "┼"
    if lane in row.joining:
        return "╰" if lane == low else "╯" if lane == high else "┴"
    return "┼" if lane in row.passing else "─"


def _passing(row: Row, lane: int) -> str:
    return "│" if lane in row.passing else " "
