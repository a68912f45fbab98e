"""The benchmark of recall, run as a process on one of its conversations."""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path

import asyncpg
import pytest

from benchmarks.labelled import OURS
from tests._prepared import run_prepared
from tests._require import require_models, require_pgvector

ROOT = Path(__file__).resolve().parents[2]


def run_recall(*arguments: str) -> tuple[int, str, str]:
    done = run_prepared("-m", "benchmarks.recall", *arguments, env=dict(os.environ), cwd=ROOT)
    return done.returncode, done.stdout, done.stderr


def test_words_and_vectors_together_find_most(server_dsn: str, tmp_path: Path) -> None:
    """Of the last conversation, with both models: both parts together find more than vectors
    alone, and with the better model about what words find, or more. No database stays."""
    require_models()
    require_pgvector(server_dsn)
    *_, last = json.loads(OURS.read_text("utf-8"))
    path = tmp_path / "one.json"
    path.write_text(json.dumps(last))
    code, printed, complaints = run_recall(str(path), "--dsn", server_dsn)
    assert (code, complaints) == (0, "")
    table, _, kinds = printed.partition("recall@5 by kind")
    rows = {
        name: [float(number) for number in numbers.split()]
        for name, numbers in re.findall(r"^(\S.*?)  +((?:\d\.\d+ *)+)$", table, re.MULTILINE)
    }
    assert f"{len(last['questions'])} questions" in printed
    assert "follow-up" in kinds
    for model, least in (("wordllama", 0.75), ("MiniLM", 0.9)):
        parts = zip(rows["words"], rows[f"{model} vectors"], strict=True)
        for both, (words, vectors) in zip(rows[f"{model} hybrid"], parts, strict=True):
            assert both >= least * words
            assert both > vectors
    assert asyncio.run(left(server_dsn)) == []


async def left(server_dsn: str) -> list[str]:
    conn = await asyncpg.connect(server_dsn)
    rows = await conn.fetch("select datname from pg_database where datname like '%_recall'")
    await conn.close()
    return [row["datname"] for row in rows]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("not JSON", "given.json: not JSON: Expecting value"),
        ('{"id": "a", "sessions": []}', "conversation 1: 'questions' is missing"),
        ('{"id": "a", "sessions": [], "questions": []}', "there is no question"),
        (
            '{"id": "a", "sessions": [], "questions": [{"text": "?", "evidence": ["7"]}]}',
            "question 1: its evidence '7' is no turn of the conversation",
        ),
    ],
)
def test_a_file_of_another_format_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    """In one line, before a server is started."""
    path = tmp_path / "given.json"
    path.write_text(text)
    code, printed, complaints = run_recall(str(path))
    assert (code, printed) == (2, "")
    assert problem in complaints
    assert len(complaints.splitlines()) == 1
