"""The example, run as the README says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from tests._limits import HANG_SECONDS

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "research_assistant.py"

pytestmark = pytest.mark.anyio


async def test_the_tour_resumes_follows_up_and_forks(dsn: str) -> None:
    """Four processes share a thread; the rows they leave are the conversation they printed."""
    question = "How does JSON deal with 'NaN' and $HOME?"
    done = subprocess.run(  # noqa: ASYNC221
        [sys.executable, str(EXAMPLE), question],
        env={**os.environ, "PGSAGA_DSN": dsn, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("waits for approval") == 4
    assert f"question: {question}" in done.stdout
    assert "json." in done.stdout.split("summary:")[1]
    assert "Both branches stand side by side" in done.stdout
    thread_id = re.findall(r"thread (tour-\d+)", done.stdout)[0]
    conn = await asyncpg.connect(dsn)
    spoken = await conn.fetch(
        "select role, content from agent_conversations where thread_id = $1 order by position",
        thread_id,
    )
    branches = await conn.fetchval(
        "select count(*) from agent_state_history h where thread_id = $1 and exists"
        " (select from agent_states c where c.session_id = h.session_id"
        "  and c.parent_checkpoint_id = h.checkpoint_id offset 1)",
        thread_id,
    )
    sessions = await conn.fetch("select thread_id, user_id from agent_sessions")
    await conn.close()
    assert [row["role"] for row in spoken][:3] == ["user", "assistant", "tool"]
    assert "separate thread" in spoken[0]["content"]
    assert branches == 1
    assert [tuple(row) for row in sessions] == [(thread_id, "you")]
