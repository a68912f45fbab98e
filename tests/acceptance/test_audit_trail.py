"""The example of the log of events, run as a process that starts and kills others."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests._limits import HANG_SECONDS
from tests.conftest import fetch

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "audit_trail.py"


def test_what_an_agent_did_is_shown_whole(dsn: str) -> None:
    """Each refund is paid once though its process was killed, tampering is found, one event is
    proven, and a customer forgotten."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        env={**os.environ, "PGSAGA_DSN": dsn, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = done.stdout
    assert "killed, while ticket 4 is being paid" in told
    assert "ticket 4: goes on before " in told
    assert re.findall(r"(\w+): (\d+) cents in (\d)", told) == [
        ("ada", "5400", "2"),
        ("bob", "300", "1"),
        ("cy", "9000", "2"),
    ]
    assert re.findall(r"intact: (\w+)", told) == ["True", "False", "True", "True", "True"]
    assert "event changed: that one" in told
    assert re.search(r"900 cents to ada, in \d+ bytes: True", told)
    assert "emails: [None, None, 'cy@example.org'" in told
    paid = fetch(
        dsn,
        "select event_data->>'ticket', count(*) from agent_events"
        " where event_type = 'refund_paid' group by 1 order by 1",
    )
    assert [tuple(row) for row in paid] == [(str(n), 1) for n in (1, 3, 4, 5, 6)]
