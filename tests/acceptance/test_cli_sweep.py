"""`pgsaga sweep`, as a process."""

from __future__ import annotations

import asyncio

import pytest

from tests._cli import answer, name_step, order, output, pgsaga
from tests.conftest import execute


def threads(dsn: str) -> set[str]:
    page = answer("sessions", "list", "--dsn", dsn)
    return {session["thread_id"] for session in page["sessions"]}


def age(dsn: str, thread: str) -> None:
    """Makes the session one that was idle for a hundred days."""
    statement = (
        "update agent_sessions set last_activity_at = now() - interval '100 days' "
        f"where thread_id = '{thread}'"
    )
    asyncio.run(execute(dsn, statement))


def test_what_has_expired_goes_and_nothing_else(dsn: str) -> None:
    """Without rules, only expired sessions are deleted; a second sweep finds nothing."""
    for name in ("gone", "stays"):
        order(dsn, name, "tea")
    output("sessions", "expire", "gone", "--dsn", dsn)
    dry = answer("sweep", "--dry-run", "--dsn", dsn)
    assert (dry["deleted_sessions"], dry["dry_run"]) == (1, True)
    assert threads(dsn) == {"gone", "stays"}
    assert answer("sweep", "--yes", "--dsn", dsn)["deleted_sessions"] == 1
    assert threads(dsn) == {"stays"}
    assert output("sweep", "--yes", "--dsn", dsn).startswith("deleted 0 sessions")


def test_rules_are_for_their_agent_types(dsn: str) -> None:
    """Idle sessions of the type named go; one with a named checkpoint stays until dropped."""
    for name in ("idle", "named", "busy"):
        order(dsn, name, "tea")
    age(dsn, "idle")
    age(dsn, "named")
    name_step(dsn, "named", 0, "keep me")
    rule = ["sweep", "--max-idle", "30d", "--yes", "--dsn", dsn]
    assert answer(*rule, "--agent-type", "other")["deleted_sessions"] == 0
    assert answer(*rule, "--agent-type", "shop", "--dry-run")["deleted_sessions"] == 1
    assert answer(*rule, "--agent-type", "shop", "--agent-type", "b")["deleted_sessions"] == 1
    assert threads(dsn) == {"named", "busy"}
    assert answer(*rule, "--drop-named")["deleted_sessions"] == 1
    assert threads(dsn) == {"busy"}


def test_keep_last_prunes(dsn: str) -> None:
    """Only the last checkpoints are left, and the state is what it was."""
    order(dsn, "order-1", "tea", "coffee")
    before = answer("show", "order-1", "--dsn", dsn)
    dry = output("sweep", "--keep-last", "2", "--dry-run", "--dsn", dsn)
    assert dry == "would delete 0 sessions and prune up to 1\n"
    done = answer("sweep", "--keep-last", "2", "--yes", "--batch", "1", "--dsn", dsn)
    assert (done["pruned_sessions"], done["deleted_checkpoints"]) == (1, 6)
    assert answer("show", "order-1", "--dsn", dsn)["values"] == before["values"]


def test_an_expired_idle_session_counts_once(dsn: str) -> None:
    """A dry run counts a session for one reason, and an empty database has none."""
    assert answer("sweep", "--dry-run", "--max-idle", "1d", "--dsn", dsn)["deleted_sessions"] == 0
    order(dsn, "both", "tea")
    age(dsn, "both")
    output("sessions", "expire", "both", "--dsn", dsn)
    dry = answer("sweep", "--max-idle", "1d", "--keep-last", "1", "--dry-run", "--dsn", dsn)
    assert (dry["deleted_sessions"], dry["pruned_sessions"]) == (1, 0)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "--yes"),
        (["--max-idle", "30"], "no duration"),
        (["--max-idle", "0d", "--yes"], "--max-idle"),
        (["--keep-last", "0", "--yes"], "--keep-last"),
        (["--agent-type", "shop", "--yes"], "--max-idle"),
    ],
)
def test_mistakes_delete_nothing(dsn: str, args: list[str], says: str) -> None:
    """Without a terminal it wants --yes, and rules that say nothing are refused."""
    done = pgsaga("sweep", *args, "--dsn", dsn, stdin="y\n")
    assert done.returncode in (1, 2)
    assert says in done.stderr
