"""Commands at a terminal: questions, colours, folded tables, bars."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from tests._cli import HOSTILE, answer, order, output
from tests.conftest import execute

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
if sys.platform != "win32":
    from tests._terminal import at_terminal

_STYLE = re.compile(r"\x1b\[[0-9;]*m")


def test_a_deletion_waits_for_a_yes(dsn: str) -> None:
    """No and Ctrl-C delete nothing, each with its exit code; yes does."""
    order(dsn, "order-1", "tea")
    delete = ["sessions", "delete", "order-1", "--dsn", dsn]
    question = "Delete thread order-1 for good?"
    code, shown = at_terminal(*delete, answers={question: "n\n"})
    assert (code, "nothing was done" in shown) == (1, True)
    assert at_terminal(*delete, answers={question: "\x03"})[0] == 130
    assert len(answer("sessions", "list", "--dsn", dsn)["sessions"]) == 1
    code, shown = at_terminal(*delete, answers={question: "y\n"})
    assert (code, "deleted order-1" in shown) == (0, True)
    assert answer("sessions", "list", "--dsn", dsn)["sessions"] == []


def test_a_sweep_says_what_it_would_do_before_it_asks(dsn: str) -> None:
    """The question has the numbers; where there is nothing to do there is none."""
    order(dsn, "order-1", "tea")
    sweep = ["sweep", "--keep-last", "1", "--dsn", dsn]
    question = "Delete 0 sessions and prune up to 1?"
    code, shown = at_terminal(*sweep, answers={question: "y\n"})
    assert (code, "pruned 1 by 3 checkpoints" in shown) == (0, True)
    code, shown = at_terminal(*sweep)
    assert (code, "[y/N]" in shown) == (0, False)


def test_a_table_fits_the_terminal_and_loses_nothing(dsn: str) -> None:
    """Long ids are folded, none cut; times and the beginnings of checkpoints stay whole."""
    thread = "thread-" + "0123456789" * 15
    order(dsn, thread, "tea")
    _, shown = at_terminal("sessions", "list", "--dsn", dsn)
    lines = [_STYLE.sub("", line) for line in shown.split("\r\n")]
    assert max(map(len, lines)) <= 80
    assert "".join(line.split(" ")[0] for line in lines[2:]).endswith(thread)
    _, shown = at_terminal("history", thread, "--dsn", dsn)
    for step in answer("history", thread, "--dsn", dsn)["checkpoints"]:
        beginning = step["checkpoint_id"][:18]
        assert beginning in shown
        found = answer("show", thread, "--checkpoint", beginning, "--dsn", dsn)
        assert found["checkpoint_id"] == step["checkpoint_id"]


_FAILED = (
    """
    insert into event_consumers (name, partition, partition_count, era, tx, position)
    values ('mails', 1, 3, 1, '1', 1)
    """,
    """
    insert into event_dead_letters
      (consumer, partition, aggregate_type, aggregate_id, version, event_id, attempts, error)
    values (
      'mails', 1, 'order', 'order-1', 7, '01a2f0c4-77aa-7000-8000-000000000001', 10,
      'ValueError at /srv/app/mails.py:17 in send'
    )
    """,
)


@pytest.mark.parametrize("columns", [60, 80])
def test_a_narrow_terminal_shows_whole_words(dsn: str, columns: int) -> None:
    """No column is too narrow for its words; where there is no room a row is a list of lines."""
    order(dsn, "order-1", "Can you do it to me at Oslo?")
    asyncio.run(execute(dsn, *_FAILED))
    for command in (
        *(["sessions", "list"], ["history", "order-1"], ["messages"], ["doctor"]),
        *(["events", "consumers"], ["events", "dead-letters", "list"]),
    ):
        _, shown = at_terminal(*command, "--dsn", dsn, columns=columns)
        lines = [_STYLE.sub("", line) for line in shown.split("\r\n")]
        assert max(map(len, lines)) <= columns
        words = {word for line in lines for word in line.split()}
        whole = {
            "sessions": {"order-1", "ann", "shop", "completed"},
            "history": {"loop", "add_up", "messages", "__start__"},
            "messages": {"order-1", "assistant", "Oslo?"},
            "doctor": {"synchronous_commit", "full_page_writes", "transaction"},
            "consumers": {"mails", "2/3", "idle"},
            "dead-letters": {"mails", "order-1", "ValueError", "7"},
        }[command[command[0] == "events"]]
        assert whole <= words, shown


@pytest.mark.parametrize("columns", [60, 80])
def test_headings_fit_the_terminal(dsn: str, columns: int) -> None:
    """They have the beginnings of ids, and go on in the next line; a file has them whole."""
    order(dsn, "order-1", "tea")
    latest = answer("show", "order-1", "--dsn", dsn)["checkpoint_id"]
    for command in (
        ["show", "order-1"],
        ["diff", "order-1", "0"],
        ["tree", "order-1"],
        ["fork", "order-1", "--at", "latest", "--to", "order-1-another-way"],
    ):
        _, shown = at_terminal(*command, "--dsn", dsn, columns=columns)
        assert max(len(line) for line in shown.split("\r\n")) < columns, shown
        assert (latest[:18] in shown) == (command[0] != "tree")
        assert latest not in shown
    first = output("show", "order-1", "--dsn", dsn).split("\n")[0]
    assert first.startswith("thread order-1, step ")
    assert first.endswith(f"checkpoint {latest}")


def test_nothing_stored_gives_orders_to_the_terminal(dsn: str) -> None:
    """The only escape sequences are the styles of tables."""
    order(dsn, "\x1b[2Jevil", HOSTILE, note={"k": HOSTILE})
    for command in (
        ["sessions", "list"],
        ["sessions", "show", "\x1b[2Jevil"],
        ["history", "\x1b[2Jevil"],
        ["show", "\x1b[2Jevil"],
        ["diff", "\x1b[2Jevil", "0"],
        ["messages"],
        ["messages", "--search", "end"],
        ["messages", "--export", "-"],
    ):
        code, shown = at_terminal(*command, "--dsn", dsn)
        assert code == 0, shown
        assert "\x1b" not in _STYLE.sub("", shown), command
        assert not re.search("[\x07\x9b\u202e]", shown), command
        assert "\x1b[31m" not in shown, command


def test_an_import_shows_a_bar(dsn: str, tmp_path: Path) -> None:
    """A bar while it works, which leaves the result behind and nothing else."""
    from langgraph.checkpoint.sqlite import SqliteSaver

    from tests.acceptance.test_cli_import import fill

    path = tmp_path / "old.sqlite"
    with SqliteSaver.from_conn_string(str(path)) as sqlite:
        fill(sqlite, *(f"t{number}" for number in range(5)))
    code, shown = at_terminal("import", "--from", f"sqlite:{path}", "--dsn", dsn)
    assert code == 0
    assert re.search("[0-5]/5", shown)
    assert "5 threads with 20 checkpoints: 20 stored and verified" in shown
    assert "[" not in output("show", "t0", "--dsn", dsn)
