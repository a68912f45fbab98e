"""The tree of a thread's branches, and how it is drawn."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.types import Command

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.threads import checkpoint_config
from langgraph_pgsaga.timetravel import (
    abranches,
    aname_checkpoint,
    at,
    branches,
    fork,
    history,
    name_checkpoint,
    replay,
)
from tests._html import tags_of, text_of
from tests._limits import times_as_long
from tests.db._travelled import asking, joined, nested, thread

pytestmark = pytest.mark.anyio


def test_branches_part_where_they_were_forked(sync_saver: PostgresSaver) -> None:
    """Each has its own steps, its end, and the step of another that it began from."""
    graph = asking(sync_saver)
    graph.invoke({"seen": ["q"]}, thread())
    graph.invoke(Command(resume="yes"), thread())
    first = list(history(graph, thread()))
    asked = at(graph, thread(), step=0)
    replay(fork(asked, {"seen": ["no"]}, as_node="ask"))
    copy = fork(asked)
    tree = branches(graph, thread())
    latest, other, original = tree.branches
    assert latest.end.checkpoint_id == copy.checkpoint_id
    assert [s.checkpoint_id for s in original.steps] == [s.checkpoint_id for s in first[:2]]
    assert [s.nodes for s in other.steps] == [("reply",), ("ask",), ()]
    assert [branch.number for branch in tree.branches] == [0, 1, 2]
    # The copy stands beside the state that asked, so it parted at the input before it.
    forks = [branch.fork.checkpoint_id if branch.fork else None for branch in tree.branches]
    assert forks == [None, first[3].checkpoint_id, asked.checkpoint_id]
    assert {s.checkpoint_id for s in tree.fork_points} == {
        asked.checkpoint_id,
        first[3].checkpoint_id,
    }
    assert repr(tree) == "<BranchTree of thread 't': 3 branches>"


def test_a_tree_is_drawn_with_lanes(sync_saver: PostgresSaver) -> None:
    """The latest branch goes straight down on the left, the others join where they began."""
    graph = asking(sync_saver)
    graph.invoke({"seen": ["q"]}, thread())
    graph.invoke(Command(resume="yes"), thread())
    name_checkpoint(graph, at(graph, thread(), step=0).config, "asked")
    fork(at(graph, thread(), step=1), {"seen": ["again"]}, as_node="reply")
    replay(fork(at(graph, thread(), name="asked"), {"seen": ["no"]}, as_node="ask"))
    assert str(branches(graph, thread())).splitlines() == [
        "●      2  reply",
        "●      1  update: ask",
        "│ ●    2  update: reply  (branch 1)",
        "│ │ ●  2  reply  (branch 2)",
        "│ ├─╯",
        "│ ●    1  ask  (branch 1)",
        "├─╯",
        "●      0  interrupted  “asked”",
        "●      -1  input",
    ]


@pytest.mark.alone
def test_a_long_way_is_folded(sync_saver: PostgresSaver) -> None:
    """A thousand steps are a few lines, each looked at once; what has a name is shown."""
    config = checkpoint_config("t", "", "")
    put: Any = sync_saver.put
    trees = {}
    for number in range(1_000):
        checkpoint = {**empty_checkpoint(), "channel_values": {}, "channel_versions": {}}
        config = put(config, checkpoint, {"step": number, "source": "loop"}, {})
        if number == 700:
            name_checkpoint(sync_saver, config, "here")
        if number in (200, 201):
            put(config, {**checkpoint, "id": empty_checkpoint()["id"]}, {"step": 999}, {})
        if number in (249, 999):
            trees[number] = branches(sync_saver, thread())
    tree, short = trees[999], trees[249]
    lines, html = str(tree).splitlines(), tree._repr_html_()
    assert times_as_long(lambda: str(tree), lambda: str(short)) < 10
    assert times_as_long(tree._repr_html_, short._repr_html_) < 10
    assert lines[0] == "●    999"
    assert lines[1] == "┊    … 298 steps"
    assert lines[2] == "●    700  “here”"
    assert len(lines) == 13
    assert len(html) < 8_000


def test_many_branches_are_cut(sync_saver: PostgresSaver) -> None:
    """Of hundreds the newest are drawn, and how much is left out is said."""
    put: Any = sync_saver.put
    root = checkpoint_config("t", "", "")
    parent = put(root, empty_checkpoint(), {"step": -1, "source": "input"}, {})
    for _ in range(400):
        put(parent, empty_checkpoint(), {"step": 0, "source": "fork"}, {})
    tree = branches(sync_saver, thread())
    assert len(tree.branches) == 400
    lines = str(tree).splitlines()
    assert (len(lines), lines[-1].split()[-3:]) == (301, ["…", "101", "steps"])
    assert tags_of(tree._repr_html_()) == {
        "style",
        "div",
        "svg",
        "path",
        "circle",
        *["text", "title", "tspan"],
    }


def test_nothing_in_a_tree_becomes_a_tag_or_an_escape(sync_saver: PostgresSaver) -> None:
    """Names of checkpoints and nodes are shown as they are."""
    evil = "<script>alert('x')</script>\" onload=y \x1b[31m\u202e"
    graph = nested(sync_saver)
    graph.invoke({"seen": ["q"]}, thread(evil))
    name_checkpoint(graph, thread(evil), evil)
    tree = branches(graph, thread(evil))
    html = tree._repr_html_()
    assert tags_of(html) == {"style", "div", "svg", "path", "circle", "text", "title"}
    assert "<script>alert('x')</script>" in text_of(html)
    for shown in (html, str(tree)):
        assert "\x1b" not in shown
        assert "\u202e" not in shown


async def test_async_callers(saver: PostgresSaver) -> None:
    """The same tree, without blocking; of the saver alone, and of an empty thread."""
    graph = joined(saver)
    await graph.ainvoke({"seen": ["q"]}, thread())
    await aname_checkpoint(graph, thread(), "end")
    tree = await abranches(saver, thread())
    assert str(tree).splitlines() == [
        "●  4  worker  “end”",
        "┊  … 4 steps",
        "●  -1  input",
    ]
    assert tree.branches == branches(graph, thread()).branches
    empty = await abranches(saver, thread("nobody"))
    assert (empty.branches, str(empty)) == ((), "no checkpoints")
    assert "no checkpoints" in text_of(empty._repr_html_())
    with pytest.raises(InvalidArgumentError, match="PostgresSaver"):
        await abranches(joined(None), thread())
