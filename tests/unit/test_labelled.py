"""The file of labelled conversations, and the figures that are taken of what was found."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.labelled import OURS, LabelledFileError, Question, read_conversations
from benchmarks.recall import FIGURES, Ranking, figures

TURNS = [
    {"id": "1", "speaker": "Desk", "text": "Which order?"},
    {"id": "2", "speaker": "Ann", "text": "The second", "when": "2026-01-12T18:05:00+00:00"},
]
QUESTION = {"text": "Which one was it?", "evidence": ["2"], "kind": "fact"}


def conversation(**changed: Any) -> dict[str, Any]:
    return {"id": "a", "sessions": [{"turns": TURNS}], "questions": [QUESTION], **changed}


def test_ours_is_of_its_own_format() -> None:
    """Six long conversations, each with questions whose evidence it has."""
    found = read_conversations(OURS)
    assert len(found) == 6
    assert min(len(one.turns) for one in found) >= 90
    assert min(len(one.questions) for one in found) >= 20
    assert sum(len(one.questions) for one in found) >= 120


def test_a_session_has_its_time_and_begins_without_a_turn_before(tmp_path: Path) -> None:
    """A list, one alone, and one a line are the same."""
    sessions = [{"id": "s", "when": "2026-01-01", "turns": TURNS[:1]}, {"turns": TURNS[1:]}]
    given = conversation(sessions=sessions)
    for name, text in (
        ("list.json", json.dumps([given])),
        ("one.json", json.dumps(given)),
        ("lines.jsonl", f"{json.dumps(given)}\n\n{json.dumps({**given, 'id': 'b'})}\n"),
    ):
        path = tmp_path / name
        path.write_text(text)
        first, second = read_conversations(path)[0].turns
        assert (first.when, second.when) == ("2026-01-01", "2026-01-12T18:05:00+00:00")
        assert second.before is None
    path.write_text(json.dumps(conversation()))
    first, second = read_conversations(path)[0].turns
    assert second.before is first
    assert second.said == "Ann: The second"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("{", "not JSON: Expecting property name"),
        ([3], "conversation 1: must be an object with id, sessions, questions"),
        ([conversation(), conversation()], "two conversations have the id 'a'"),
        ([], "there is no question"),
        (conversation(questions=[]), "there is no question"),
        ({"id": "a", "sessions": []}, "'questions' is missing"),
        (conversation(speakers=[]), "'speakers' is no key of it"),
        (conversation(id=" "), "'id' must be a text that isn't blank"),
        (conversation(id="a\0"), "'id' has a character that PostgreSQL can't store"),
        (conversation(id="\ud800"), "'id' has a character that PostgreSQL can't store"),
        (conversation(sessions={}), "'sessions' must be a list"),
        (conversation(sessions=[{"turns": [{"id": "1"}]}]), "turn 1: 'speaker' is missing"),
        (conversation(sessions=[{"turns": TURNS, "when": "soon"}]), "'when' is no time"),
        (conversation(sessions=[{"turns": TURNS * 2}]), "two turns have the id '1'"),
        (conversation(questions=[{**QUESTION, "evidence": ["9"]}]), "question 1: its evidence '9'"),
        (conversation(questions=[{**QUESTION, "evidence": [["2"]]}]), "its evidence ['2'] is no"),
        (conversation(questions=[{**QUESTION, "evidence": []}]), "question 1: it has no evidence"),
        (conversation(questions=[{**QUESTION, "answer": "x"}]), "'answer' is no key of it"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(given: Any, problem: str, tmp_path: Path) -> None:
    """With the file and the place in it."""
    path = tmp_path / "given.json"
    path.write_text(given if isinstance(given, str) else json.dumps(given))
    with pytest.raises(LabelledFileError) as raised:
        read_conversations(path)
    assert str(path) in str(raised.value)
    assert problem in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    """A file that isn't there, a folder, and other bytes than UTF-8."""
    other = tmp_path / "other.json"
    other.write_bytes(b"\xff\xfe")
    lines = tmp_path / "lines.jsonl"
    lines.write_text(json.dumps(conversation()) + "\n\n{\n")
    for path, problem in (
        (tmp_path / "none.json", "No such file"),
        (tmp_path, "Is a directory"),
        (other, "it isn't UTF-8"),
        (lines, "lines.jsonl:3: not JSON"),
    ):
        with pytest.raises(LabelledFileError, match=problem):
            read_conversations(path)


def test_figures_are_those_of_their_definitions() -> None:
    """Two of three found, at the second and the seventh place; and none of one."""
    question = Question(text="?", evidence=("1",), kind="fact")
    some = Ranking(question=question, places=(2, 7), needed=3)
    none = Ranking(question=question, places=(), needed=1)
    assert list(FIGURES) == ["recall@5", "recall@10", "nDCG@10", "MRR"]
    gained = 1 / math.log2(3) + 1 / math.log2(8)
    most = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert list(figures([some]).values()) == pytest.approx([1 / 3, 2 / 3, gained / most, 1 / 2])
    assert list(figures([some, none]).values()) == pytest.approx(
        [1 / 6, 1 / 3, gained / most / 2, 1 / 4]
    )
