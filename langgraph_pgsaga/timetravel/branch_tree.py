"""The checkpoints of a thread as a tree: its branches, and where they part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from langchain_core.runnables import RunnableConfig

from langgraph_pgsaga.threads import Address
from langgraph_pgsaga.timetravel import _lanes, _lanes_svg
from langgraph_pgsaga.timetravel.steps import Source, Step, history


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A way from an end back to where it parted from another branch.

    `steps` are its own, newest first. `fork` is the step of another branch that it began
    from; None where it began with the thread, or where older checkpoints were deleted.
    """

    number: int
    steps: tuple[Step, ...]
    fork: Step | None

    @property
    def end(self) -> Step:
        """Its latest step."""
        return self.steps[0]


class BranchTree:
    """All branches of a thread, the one that leads to the latest checkpoint first.

    It prints like `git log --graph`, and draws itself in a notebook; long ways on which
    nothing parts are folded.
    """

    def __init__(self, thread_id: str, steps: Sequence[Step]) -> None:
        self._thread_id = thread_id
        by_id = {step.checkpoint_id: step for step in steps}
        own: dict[int, list[Step]] = {}
        for step in steps:
            own.setdefault(step.branch, []).append(step)
        self.branches = tuple(
            Branch(
                number=number,
                steps=tuple(own[number]),
                fork=by_id.get(own[number][-1].parent_checkpoint_id or ""),
            )
            for number in sorted(own)
        )
        children = Counter(step.parent_checkpoint_id for step in steps)
        self.fork_points = tuple(step for step in steps if children[step.checkpoint_id] > 1)

    def __str__(self) -> str:
        return _lanes.text(self._rows()) or "no checkpoints"

    def __repr__(self) -> str:
        return f"<BranchTree of thread {self._thread_id!r}: {len(self.branches)} branches>"

    def _repr_html_(self) -> str:
        return _lanes_svg.page(self._rows())

    def _rows(self) -> list[_lanes.Row]:
        forks = {branch.number: branch.fork for branch in self.branches}
        return _lanes.rows([branch.steps for branch in self.branches], forks)


def branches(graph: Source, config: RunnableConfig) -> BranchTree:
    """The tree of the thread (and namespace) that `config` names; reads no values.

    `graph` may be the saver alone.

    Raises:
        InvalidArgumentError: the graph has no PostgresSaver.
    """
    return BranchTree(Address.of(config).thread_id, list(history(graph, config)))


async def abranches(graph: Source, config: RunnableConfig) -> BranchTree:
    """`branches` for async callers."""
    steps = await history(graph, config).load()
    return BranchTree(Address.of(config).thread_id, list(steps))
