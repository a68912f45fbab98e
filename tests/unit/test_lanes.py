"""The lanes of random trees."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from langgraph_pgsaga.timetravel import BranchTree, Step
from langgraph_pgsaga.timetravel._lanes import Row


def step_of(number: int, parent: int | None, branch: int) -> Step:
    return Step(
        config={},
        checkpoint_id=f"{number:04}",
        parent_checkpoint_id=None if parent is None else f"{parent:04}",
        step=number,
        source="loop",
        created_at=None,
        name=None,
        nodes=(),
        changed=(),
        next=(),
        is_interrupted=False,
        has_error=False,
        branch=branch,
    )


def steps_of(parents: list[int]) -> list[Step]:
    """A tree whose node n + 1 has the parent parents[n] (modulo), newest first, numbered."""
    links = [None, *(parent % (number + 1) for number, parent in enumerate(parents))]
    branches: dict[int, int] = {}
    found, ends = [], 0
    for number in reversed(range(len(links))):
        if number not in branches:
            branches[number], ends = ends, ends + 1
        parent, branch = links[number], branches[number]
        if parent is not None:
            branches[parent] = min(branch, branches.get(parent, branch))
        found.append(step_of(number, parent, branch))
    return found


def held(row: Row) -> dict[int, int]:
    """The lanes in use at a row, with their branches."""
    return {**row.passing, row.lane: row.branch}


@given(st.lists(st.integers(0, 10_000), max_size=60))
def test_every_branch_has_a_lane_to_where_it_began(parents: list[int]) -> None:
    """It keeps the lane from its end on, shares it with none, and joins its fork there."""
    tree = BranchTree("t", steps_of(parents))
    rows = tree._rows()
    assert sum(row.folded or 1 for row in rows) == len(parents) + 1
    for branch in tree.branches:
        lanes = [
            {lane for lane, number in held(row).items() if number == branch.number} for row in rows
        ]
        where = [place for place, found in enumerate(lanes) if found]
        assert where == list(range(where[0], where[-1] + 1))
        assert len(set.union(*lanes)) == 1
        assert rows[where[0]].step == branch.end
        if branch.fork is not None:
            joined = rows[where[-1] + 1]
            assert joined.step == branch.fork
            assert joined.joining[lanes[where[0]].pop()] == branch.number
    for row in rows:
        assert row.lane not in row.passing
        assert not row.joining.keys() & held(row).keys()
        assert len(set(held(row).values())) == len(held(row))
    assert rows[0].lane == 0 == rows[-1].lane
