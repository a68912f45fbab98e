"""`pgsaga events verify`: what it says of a log, and what it ends with."""

from __future__ import annotations

import json
import re
import sys

import pytest

from langgraph_pgsaga.events import AgentEvent
from langgraph_pgsaga.sync import EventStore
from tests._cli import answer, output, pgsaga
from tests.conftest import fetch


@pytest.fixture
def sealed_dsn(dsn: str) -> str:
    """A database with seven sealed events, and one that isn't."""
    store = EventStore.from_conn_string(dsn)
    try:
        events = [AgentEvent(event_type="noted", event_id=f"event {n}") for n in range(7)]
        store.append("a", events, aggregate_type="desk")
        while not store.seal():
            pass  # another transaction of the server is open
        store.append("a", [AgentEvent(event_type="noted")], aggregate_type="desk")
        while store.lag().withheld:
            pass
    finally:
        store.db.close()
    return dsn


def test_an_intact_log_is_told_with_its_root(sealed_dsn: str) -> None:
    told, root = output("events", "verify", "--dsn", sealed_dsn).splitlines()
    assert told == "intact: 7 events in 1 seal, 1 not sealed yet"
    kept = root.removeprefix("root ")
    found = answer("events", "verify", "--dsn", sealed_dsn, "--root", kept)
    assert (found["is_intact"], found["root"], found["findings"]) == (True, kept, [])


def test_what_was_done_to_it_is_told(sealed_dsn: str) -> None:
    """With exit code 3."""
    tampered(sealed_dsn)
    done = pgsaga("events", "verify", "--dsn", sealed_dsn)
    assert done.returncode == 3, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[2:5] == [
        "1 event changed event 3 event 4 of the seal isn't as it was sealed",
        "1 event missing event 6 of the seal isn't there",
        "2 findings: 6 events in 1 seal, 1 not sealed yet",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("columns", [60, 80])
def test_a_narrow_terminal_shows_all_of_it(sealed_dsn: str, columns: int) -> None:
    """Folded, with each word whole."""
    from tests._terminal import at_terminal

    tampered(sealed_dsn)
    code, shown = at_terminal("events", "verify", "--dsn", sealed_dsn, columns=columns)
    assert code == 3
    lines = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", shown).split("\r\n")
    (begin,) = (number for number, line in enumerate(lines) if line.strip().startswith("seal "))
    table = [line.strip() for line in lines[begin:-2]]
    assert max(map(len, table)) <= columns, shown
    words = {word for line in table for word in line.split()}
    assert {"changed", "missing", "sealed", "isn't"} <= words


def tampered(dsn: str) -> None:
    fetch(dsn, "update agent_events set tags = '{x}' where event_id = 'event 3'")
    fetch(dsn, "delete from agent_events where event_id = 'event 5'")


def test_a_log_without_seals_is_not_said_to_be_intact(dsn: str) -> None:
    """Where there are events; an empty one is."""
    assert "intact: 0 events in 0 seals" in output("events", "verify", "--dsn", dsn)
    store = EventStore.from_conn_string(dsn)
    try:
        store.append("a", [AgentEvent(event_type="noted")], aggregate_type="desk")
        while store.lag().withheld:
            pass
    finally:
        store.db.close()
    done = pgsaga("events", "verify", "--dsn", dsn)
    assert (done.returncode, done.stdout) == (
        3,
        "nothing is sealed: 1 event, of which nobody can tell whether it was changed\n",
    )
    assert answer_of_three(dsn) == {"is_intact": True, "seals": 0, "unsealed": 1}


def answer_of_three(dsn: str) -> dict[str, object]:
    done = pgsaga("events", "verify", "--dsn", dsn, "--json")
    assert done.returncode == 3
    found = json.loads(done.stdout)
    return {name: found[name] for name in ("is_intact", "seals", "unsealed")}
