"""The calls by which pending writes of another saver are stored anew."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.checkpoint.base import CheckpointTuple, empty_checkpoint

from langgraph_pgsaga._langgraph import INPUT_TASK_ID
from langgraph_pgsaga.takeover.pending import calls_of, results_of

GIVEN = [("items", [1]), ("branch:to:next", None)]


def found_with(task_id: str, *writes: tuple[str, Any]) -> CheckpointTuple:
    pending = [(task_id, *write) for write in writes]
    return CheckpointTuple({"configurable": {}}, empty_checkpoint(), {}, None, pending)


@pytest.mark.parametrize("answers", [["yes"], ["yes", "no", "yes"]], ids=len)
def test_each_answer_has_a_place_before_what_its_task_gave(answers: list[str]) -> None:
    """In whatever order the source lists them."""
    answer = ("__resume__", answers)
    for writes in ([answer, *GIVEN], [*GIVEN, answer]):
        (call,) = calls_of(found_with("task", *writes))
        assert call.writes == [*[answer] * len(answers), *GIVEN]


@pytest.mark.parametrize(
    ("task_id", "writes"),
    [
        ("task", GIVEN),
        ("task", [("__resume__", [])]),
        (INPUT_TASK_ID, [*GIVEN, ("__resume__", ["a", "list"])]),
    ],
    ids=["no answer", "an empty one", "of an input"],
)
def test_other_writes_are_left_as_they_are(task_id: str, writes: list[tuple[str, Any]]) -> None:
    """Nothing is lost of them, and an input's answer is one, be it a list or not."""
    (call,) = calls_of(found_with(task_id, *writes))
    assert call.writes == writes


def test_a_result_that_is_stored_isnt_written_again() -> None:
    """At whatever places it stands there; what its task was asked since is."""
    question = ("__interrupt__", ["?"])
    found = found_with("task", *GIVEN, question)
    assert results_of(found) == {"task"}
    assert [call.writes for call in calls_of(found, {"task"})] == [[question]]
    assert calls_of(found_with("task", *GIVEN), {"task"}) == []
