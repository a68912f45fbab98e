"""Labelled conversations: what was said, and questions with the turns that answer them.

A file has conversations: a JSON list of them, one alone, or, in a file named .jsonl, one a line:

    {
      "id": "shop",
      "sessions": [
        {
          "id": "1", "when": "2026-01-12T18:05:00+00:00",
          "turns": [
            {"id": "1.1", "speaker": "Desk", "text": "May I have the order number?"},
            {"id": "1.2", "speaker": "Priya", "text": "It's FH-20417."}
          ]
        }
      ],
      "questions": [
        {"text": "What was Priya's order number?", "evidence": ["1.2"], "kind": "follow-up"}
      ]
    }

All of it is text. `when`, ISO 8601, may be a session's, a turn's, both or neither; `kind`, by which
questions are counted apart, and a session's `id` may be left out. Evidence is of turns of the
same conversation, whose ids are each there once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

OURS = Path(__file__).parent / "data" / "conversations.json"


class LabelledFileError(Exception):
    """What is wrong with a file, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What somebody said, and what was said right before it in the session."""

    turn_id: str
    speaker: str
    text: str
    when: str | None
    before: Turn | None

    @property
    def said(self) -> str:
        return f"{self.speaker}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    text: str
    evidence: tuple[str, ...]
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    conversation_id: str
    turns: tuple[Turn, ...]
    questions: tuple[Question, ...]


def read_conversations(path: Path) -> list[Conversation]:
    """The conversations of a file.

    Raises:
        LabelledFileError: it can't be read, or isn't of the format.
    """
    found = [_conversation(where, given) for where, given in _documents(path)]
    if not any(one.questions for one in found):
        raise LabelledFileError(f"{path}: there is no question")
    names = [one.conversation_id for one in found]
    if twice := _repeated(names):
        raise LabelledFileError(f"{path}: two conversations have the id {twice!r}")
    return found


def _documents(path: Path) -> Iterator[tuple[str, Any]]:
    """What should be conversations, and where each stands."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it isn't UTF-8"
        raise LabelledFileError(f"{path}: {reason}") from error
    if path.suffix == ".jsonl":
        for no, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                yield f"{path}:{no}", _parsed(f"{path}:{no}", line)
        return
    given = _parsed(str(path), text)
    for no, one in enumerate(given if isinstance(given, list) else [given], start=1):
        yield f"{path}, conversation {no}", one


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise LabelledFileError(f"{where}: not JSON: {error}") from error


def _conversation(where: str, given: Any) -> Conversation:
    fields = _fields(where, given, needed=("id", "sessions", "questions"))
    turns: list[Turn] = []
    for no, session in enumerate(_list(where, fields, "sessions"), start=1):
        turns += _session(f"{where}, session {no}", session)
    ids = [turn.turn_id for turn in turns]
    if twice := _repeated(ids):
        raise LabelledFileError(f"{where}: two turns have the id {twice!r}")
    questions = tuple(
        _question(f"{where}, question {no}", question, ids)
        for no, question in enumerate(_list(where, fields, "questions"), start=1)
    )
    name = _text(where, fields, "id")
    return Conversation(conversation_id=name, turns=tuple(turns), questions=questions)


def _session(where: str, given: Any) -> list[Turn]:
    fields = _fields(where, given, needed=("turns",), others=("id", "when"))
    when = _when(where, fields)
    turns: list[Turn] = []
    for no, turn in enumerate(_list(where, fields, "turns"), start=1):
        place = f"{where}, turn {no}"
        said = _fields(place, turn, needed=("id", "speaker", "text"), others=("when",))
        turns.append(
            Turn(
                turn_id=_text(place, said, "id"),
                speaker=_text(place, said, "speaker"),
                text=_text(place, said, "text"),
                when=_when(place, said) or when,
                before=turns[-1] if turns else None,
            )
        )
    return turns


def _question(where: str, given: Any, ids: Sequence[str]) -> Question:
    fields = _fields(where, given, needed=("text", "evidence"), others=("kind",))
    evidence = tuple(_list(where, fields, "evidence"))
    if not evidence:
        raise LabelledFileError(f"{where}: it has no evidence")
    for one in evidence:
        if one not in ids:
            raise LabelledFileError(f"{where}: its evidence {one!r} is no turn of the conversation")
    kind = _text(where, fields, "kind") if "kind" in fields else "all"
    return Question(text=_text(where, fields, "text"), evidence=evidence, kind=kind)


def _fields(
    where: str, given: Any, *, needed: Sequence[str], others: Sequence[str] = ()
) -> Mapping[str, Any]:
    if not isinstance(given, dict):
        raise LabelledFileError(f"{where}: must be an object with {', '.join(needed)}")
    if missing := [key for key in needed if key not in given]:
        raise LabelledFileError(f"{where}: {missing[0]!r} is missing")
    if unknown := [key for key in given if key not in (*needed, *others)]:
        raise LabelledFileError(f"{where}: {unknown[0]!r} is no key of it")
    return given


def _list(where: str, fields: Mapping[str, Any], key: str) -> list[Any]:
    found = fields[key]
    if not isinstance(found, list):
        raise LabelledFileError(f"{where}: {key!r} must be a list")
    return found


def _text(where: str, fields: Mapping[str, Any], key: str) -> str:
    found = fields[key]
    if not isinstance(found, str) or not found.strip():
        raise LabelledFileError(f"{where}: {key!r} must be a text that isn't blank")
    if "\0" in found or any("\ud800" <= char <= "\udfff" for char in found):
        raise LabelledFileError(f"{where}: {key!r} has a character that PostgreSQL can't store")
    return found


def _when(where: str, fields: Mapping[str, Any]) -> str | None:
    if "when" not in fields:
        return None
    found = _text(where, fields, "when")
    try:
        datetime.fromisoformat(found)
    except ValueError as error:
        raise LabelledFileError(f"{where}: 'when' is no time in ISO 8601: {found!r}") from error
    return found


def _repeated(names: Sequence[str]) -> str | None:
    return next((name for name in names if names.count(name) > 1), None)
