"""`pgsaga tree` and `pgsaga fork`, as processes."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.types import Command

from langgraph_pgsaga import Database, PostgresSaver
from tests._cli import DANGEROUS, answer, config_of, name_step, order, output, pgsaga, shop


def update(dsn: str, thread: str, checkpoint_id: str, text: str) -> None:
    """A branch from a checkpoint."""
    with Database(dsn) as database:
        graph = shop(PostgresSaver(database))
        config: Any = config_of(thread)
        config["configurable"]["checkpoint_id"] = checkpoint_id
        graph.update_state(config, {"messages": [HumanMessage(text)]}, as_node="add_up")


def test_a_tree_has_every_branch_and_where_it_parts(dsn: str) -> None:
    """A line of lanes for people, all checkpoints for programs; a thread alone is one branch."""
    order(dsn, "order-1", "tea")
    one = answer("tree", "order-1", "--dsn", dsn)
    assert [len(branch["checkpoints"]) for branch in one["branches"]] == [4]
    first = name_step(dsn, "order-1", 0, "\x1b[31mparts here")
    update(dsn, "order-1", first, "coffee")
    two = answer("tree", "order-1", "--dsn", dsn)
    assert two["fork_points"] == [first]
    assert [branch["fork"] for branch in two["branches"]].count(first) == 1
    assert len(two["branches"]) == 2
    drawn = output("tree", "order-1", "--dsn", dsn)
    assert "parts here" in drawn
    assert not any(character in drawn for character in DANGEROUS)


def test_a_fork_is_the_thread_as_it_stood_there(dsn: str) -> None:
    """The new thread has the state of the checkpoint, the old one stays as it was."""
    order(dsn, "order-1", "tea", "coffee")
    name_step(dsn, "order-1", 2, "one tea")
    before = answer("show", "order-1", "--dsn", dsn)
    made = answer("fork", "order-1", "--at", "one tea", "--to", "retry", "--dsn", dsn)
    assert (made["thread_id"], made["step"]) == ("retry", 2)
    there = answer("show", "order-1", "--name", "one tea", "--dsn", dsn)
    assert answer("show", "retry", "--dsn", dsn)["values"] == there["values"]
    assert answer("show", "order-1", "--dsn", dsn) == before
    again = pgsaga("fork", "order-1", "--at", "1", "--to", "retry", "--dsn", dsn)
    assert again.returncode == 1
    assert "'retry' already holds state" in again.stderr


def test_a_fork_of_the_latest_state_can_be_answered(dsn: str) -> None:
    """The question that waited waits in the copy, and the run goes on there."""
    order(dsn, "order-1", "tea", note="really?")
    text = output("fork", "order-1", "--at", "latest", "--dsn", dsn)
    assert text.startswith("thread order-1-fork begins with step 1, checkpoint ")
    assert answer("show", "order-1-fork", "--dsn", dsn)["interrupts"] == ["really?"]
    with Database(dsn) as database:
        shop(PostgresSaver(database)).invoke(Command(resume="yes"), config_of("order-1-fork"))
    assert "assistant: Ordered." in output("show", "order-1-fork", "--dsn", dsn)
    assert answer("show", "order-1", "--dsn", dsn)["interrupts"] == ["really?"]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["tree", "nope"], 1, "no thread 'nope'"),
        (["fork", "nope", "--at", "1"], 1, "no thread 'nope'"),
        (["fork", "order-1", "--at", "99"], 1, "none is called '99'"),
        (["fork", "order-1"], 2, "--at"),
        (["fork", "order-1", "--at", "1", "--to", ""], 2, "'--to': is empty"),
        (["fork", "order-1", "--at", "1", "--to", "order-1"], 1, "already holds state"),
    ],
)
def test_what_cant_be_is_told(dsn: str, args: list[str], code: int, says: str) -> None:
    """One line that says what is missing."""
    order(dsn, "order-1", "tea")
    done = pgsaga(*args, "--dsn", dsn)
    assert done.returncode == code
    assert says in done.stderr
    assert code == 2 or done.stderr.count("\n") == 1
