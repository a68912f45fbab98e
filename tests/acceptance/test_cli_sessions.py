"""`pgsaga sessions`, as a process."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from langgraph_pgsaga import Database
from langgraph_pgsaga.sync import Sessions
from tests._cli import DANGEROUS, HOSTILE, answer, order, output, pgsaga


def test_a_listing_has_each_session_and_its_pages_follow_each_other(dsn: str) -> None:
    """Pages of one session, by cursor, have together what a listing has."""
    for name in ("a", "b", "c"):
        order(dsn, name, "tea")
    table = output("sessions", "list", "--dsn", dsn)
    assert [line.split()[0] for line in table.splitlines()[2:]] == ["c", "b", "a"]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        after = ["--after", cursor] if cursor else []
        page = answer("sessions", "list", "--limit", "1", "--dsn", dsn, *after)
        seen += [session["thread_id"] for session in page["sessions"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == ["c", "b", "a"]
    first = pgsaga("sessions", "list", "--limit", "1", "--dsn", dsn)
    assert "there are more: --after " in first.stderr


def test_filters_narrow_a_listing(dsn: str) -> None:
    """User, status, text, metadata and activity each leave out what doesn't fit."""
    order(dsn, "hers", "a refund please")
    order(dsn, "his", "tea", user="bob")
    with Database(dsn) as database:
        Sessions(database).update("his", metadata={"plan": "pro"})

    def listed(*filters: str) -> list[str]:
        page = answer("sessions", "list", "--dsn", dsn, *filters)
        return [session["thread_id"] for session in page["sessions"]]

    assert listed("--user", "bob") == ["his"]
    assert listed("--text", "refund") == ["hers"]
    assert listed("--metadata", '{"plan": "pro"}') == ["his"]
    assert listed("--status", "failed") == []
    assert listed("--agent-type", "shop", "--order", "created") == ["his", "hers"]
    assert listed("--active-before", "1h") == []
    assert len(listed("--active-since", "1h")) == 2


def test_an_empty_database_has_no_sessions(dsn: str) -> None:
    """Nothing is no error: an empty document for programs, a word on stderr for people."""
    assert answer("sessions", "list", "--dsn", dsn) == {"sessions": [], "next_cursor": None}
    done = pgsaga("sessions", "list", "--dsn", dsn)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "no sessions\n")


def test_show_has_stable_fields_and_times_with_zones(dsn: str) -> None:
    """The document's fields are these, and its times are ISO 8601 in UTC."""
    order(dsn, "order-1", "tea")
    found = answer("sessions", "show", "order-1", "--dsn", dsn)
    assert set(found) == {
        "thread_id", "session_id", "user_id", "agent_type", "status", "priority", "metadata",
        "message_count", "created_at", "last_activity_at", "expires_at", "tenant_id",
    }  # fmt: skip
    assert datetime.fromisoformat(found["created_at"]).utcoffset() == timedelta(0)
    text = output("sessions", "show", "order-1", "--dsn", dsn)
    assert "user_id           ann\n" in text


def test_expire_sets_the_time_and_takes_it_away(dsn: str) -> None:
    """--in counts from now, --never lets the session live, and without either it is now."""
    order(dsn, "order-1", "tea")
    expire = ["sessions", "expire", "order-1", "--dsn", dsn]
    later = datetime.fromisoformat(answer(*expire, "--in", "30d")["expires_at"])
    assert abs(later - datetime.now(UTC) - timedelta(days=30)) < timedelta(minutes=1)
    assert answer(*expire, "--never")["expires_at"] is None
    assert datetime.fromisoformat(answer(*expire)["expires_at"]) <= datetime.now(UTC)
    assert pgsaga(*expire, "--never", "--in", "1d").returncode == 2


def test_delete_asks_and_where_nobody_is_there_needs_yes(dsn: str) -> None:
    """Without a terminal it deletes only with --yes; a dry run deletes nothing."""
    order(dsn, "order-1", "tea")
    delete = ["sessions", "delete", "order-1", "--dsn", dsn]
    refused = pgsaga(*delete, stdin="y\n")
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    assert output(*delete, "--dry-run") == "would delete thread order-1\n"
    assert output(*delete, "order-1", "--dry-run") == "would delete thread order-1\n"
    assert answer("sessions", "show", "order-1", "--dsn", dsn)["thread_id"] == "order-1"
    assert output(*delete, "--yes") == "deleted order-1\n"
    assert pgsaga("sessions", "show", "order-1", "--dsn", dsn).returncode == 1


def test_a_thread_that_isnt_there_stops_the_whole_deletion(dsn: str) -> None:
    """A misspelt id among several deletes none of them."""
    order(dsn, "order-1", "tea")
    done = pgsaga("sessions", "delete", "order-1", "order-l", "--yes", "--dsn", dsn)
    assert done.returncode == 1
    assert "no thread 'order-l'" in done.stderr
    assert len(answer("sessions", "list", "--dsn", dsn)["sessions"]) == 1


def test_stored_names_reach_no_terminal_raw(dsn: str) -> None:
    """Escape sequences are written out, markup stays text, and JSON has the exact id."""
    thread = HOSTILE.replace("\x00", "").replace("\ud83d", "")
    order(dsn, thread, "tea", user="[red]x[/red]")
    table = output("sessions", "list", "--dsn", dsn)
    assert not any(character in table for character in DANGEROUS)
    assert "a\\x1b[31mred\\x1b]0;title\\x07 [bold]b[/bold] \\x9b2J\\u202edlrow" in table
    assert "[red]x[/red]" in table
    raw = pgsaga("sessions", "list", "--json", "--dsn", dsn).stdout
    assert not any(character in raw for character in DANGEROUS)
    assert json.loads(raw)["sessions"][0]["thread_id"] == thread
    assert answer("sessions", "show", thread, "--dsn", dsn)["thread_id"] == thread
    missing = pgsaga("sessions", "show", "\x1b[31mgone", "--dsn", dsn)
    assert "\x1b" not in missing.stderr


def test_a_table_that_goes_to_a_file_is_whole(dsn: str) -> None:
    """A thread id of a thousand characters isn't cut or folded without a terminal."""
    thread = "long-" * 200
    order(dsn, thread, "tea")
    assert thread in output("sessions", "list", "--dsn", dsn)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["list", "--active-since", "soon"], "'soon' is no time"),
        (["list", "--metadata", "{"], "isn't JSON"),
        (["list", "--metadata", "[]"], "must be a JSON object"),
        (["list", "--status", "odd"], "odd"),
        (["list", "--limit", "0"], "--limit"),
        (["expire", "x", "--in", "5 parsecs"], "no duration"),
        (["expire", "x", "--in", "9999999999w"], "too long"),
        (["expire", "x", "--at", "3d"], "'3d' is no time"),
        (["show"], "THREAD"),
    ],
)
def test_mistakes_in_a_command_are_told(args: list[str], says: str) -> None:
    """What can't be meant is exit code 2, with the word that is wrong."""
    done = pgsaga("sessions", *args, "--dsn", "postgresql://u@127.0.0.1:1/x")
    assert done.returncode == 2
    assert says in done.stderr


def test_a_wrong_cursor_is_an_error(dsn: str) -> None:
    """A cursor that no page gave is a mistake in the command, told in one line."""
    done = pgsaga("sessions", "list", "--after", "x", "--dsn", dsn)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
