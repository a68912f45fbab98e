"""The example of an agent that remembers, run as a process that starts others."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from tests._limits import HANG_SECONDS
from tests._require import require_pgvector
from tests.conftest import fetch

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "memory_agent.py"


def run_example(dsn: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        env={**os.environ, "PGSAGA_DSN": dsn, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_an_agent_remembers_and_corrects_itself(dsn: str) -> None:
    """Another process in another thread knows what was said and takes a correction; what was
    known before can be asked. A second run begins anew."""
    if find_spec("wordllama") is not None:
        require_pgvector(dsn)
    for _ in range(2):
        told = run_example(dsn)
        assert re.findall(r'agent: "(.*)", you said \((\w+) \d+\)', told)[:2] == [
            ("I drink green tea", "monday"),
            ("I drink coffee now", "friday"),
        ]
        assert "now: I drink coffee now\n   then: I drink green tea\n" in told
        by_meaning = 'Any pets?\n   agent: "My dog is called Rex"'
        by_words = "Any pets?\n   agent: I don't know."
        assert (by_meaning if find_spec("wordllama") else by_words) in told
    stored = fetch(
        dsn,
        "select content_text, superseded_at is null from agent_memory order by recorded_at, 1",
    )
    assert [tuple(row) for row in stored] == [
        ("I drink green tea", False),
        ("My dog is called Rex", True),
        ("I live in Porto", True),
        ("I drink coffee now", True),
    ]
