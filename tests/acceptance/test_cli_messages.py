"""`pgsaga messages`, as a process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests._cli import DANGEROUS, HOSTILE, NO_DSN, answer, order, output, pgsaga


def test_a_threads_messages_in_order_and_filtered(dsn: str) -> None:
    """A table of one thread; roles and words leave out the rest; pages follow by cursor."""
    order(dsn, "order-1", "two flat whites", "a cake")
    order(dsn, "order-2", "tea")
    table = output("messages", "order-1", "--dsn", dsn)
    assert "two flat whites" in table
    assert "tea" not in table

    def said(*args: str) -> list[str]:
        found = answer("messages", "--dsn", dsn, *args)["messages"]
        return [message["content"] for message in found]

    assert said("order-1", "--role", "user") == ["two flat whites", "a cake"]
    assert said("order-1", "--type", "human", "--text", "cake") == ["a cake"]
    assert len(said()) == 9
    assert said("--until", "1h") == []
    assert len(said("--since", "1h")) == 9
    first = answer("messages", "order-1", "--limit", "2", "--dsn", dsn)
    second = answer("messages", "order-1", "--after", first["next_cursor"], "--dsn", dsn)
    numbers = [m["message_no"] for m in first["messages"] + second["messages"]]
    assert numbers == [1, 2, 3, 4, 5, 6]
    state = answer("show", "order-1", "--step", "0", "--dsn", dsn)
    assert said("order-1", "--checkpoint", state["checkpoint_id"]) == ["two flat whites"]


def test_a_search_marks_what_it_found(dsn: str) -> None:
    """Hits of every thread, or of one user's, with the words marked; nothing found is no error."""
    order(dsn, "order-1", "two flat whites")
    order(dsn, "order-2", "a flat tyre", user="bob")
    table = output("messages", "--search", "flat", "--dsn", dsn)
    assert "»flat« whites" in table
    assert "»flat« tyre" in table
    hits = answer("messages", "--search", "flat", "--user", "bob", "--dsn", dsn)["hits"]
    assert [(hit["thread_id"], hit["user_id"]) for hit in hits] == [("order-2", "bob")]
    assert answer("messages", "order-1", "--search", "tyre", "--dsn", dsn) == {"hits": []}
    none = pgsaga("messages", "--search", "nothing", "--dsn", dsn)
    assert (none.returncode, none.stdout, none.stderr) == (0, "", "nothing found\n")


def test_an_export_is_json_lines(dsn: str, tmp_path: Path) -> None:
    """To a file or to stdout, of a thread or of all, with LangChain's form where asked for."""
    order(dsn, "order-1", "tea")
    order(dsn, "order-2", HOSTILE)
    target = tmp_path / "out.jsonl"
    done = pgsaga("messages", "order-1", "--export", str(target), "--full", "--dsn", dsn)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"3 messages in {target}\n"
    lines = [json.loads(line) for line in target.read_text("utf-8").splitlines()]
    assert [line["content"] for line in lines] == ["tea", "That is 3 EUR.", "Ordered."]
    assert lines[0]["message"]["id"][-1] == "HumanMessage"
    printed = output("messages", "--export", "-", "--dsn", dsn)
    assert not any(character in printed for character in DANGEROUS)
    assert len([json.loads(line) for line in printed.splitlines()]) == 6


def test_text_reaches_no_terminal_raw(dsn: str) -> None:
    """Control characters of messages and of ids are escaped in tables and documents."""
    order(dsn, "\x1b[2Jthread", HOSTILE)
    for args in ([], ["--json"], ["--search", "end"], ["--search", "end", "--json"]):
        printed = output("messages", "--dsn", dsn, *args)
        assert printed
        assert not any(character in printed for character in DANGEROUS)


def test_a_reader_that_stops_reading_ends_the_command_quietly(dsn: str) -> None:
    """As with `| head -1`: no traceback, no message, and the code of a broken pipe."""
    order(dsn, "order-1", *["tea " * 2000] * 20)
    for args in (["--export", "-"], ["--json"], []):
        command = [sys.executable, "-m", "langgraph_pgsaga", "messages", "--dsn", dsn, *args]
        with subprocess.Popen(
            command, env=NO_DSN, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode == 141


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["nope"], 1, "no thread 'nope'"),
        (["--search", "x", "--type", "ai"], 2, "--type"),
        (["--user", "ann"], 2, "--search"),
        (["--full"], 2, "--export"),
        (["--export", "x", "--json"], 2, "JSON Lines"),
        (["--export", "/no/such/folder/x"], 2, "can't be written"),
        (["--limit", "9999"], 2, "--limit"),
        (["--checkpoint", "x"], 2, "needs a THREAD"),
        (["order-1", "--checkpoint", "99"], 1, "none is called '99'"),
        (["--after", "x"], 2, "--after"),
    ],
)
def test_mistakes_are_told(dsn: str, args: list[str], code: int, says: str) -> None:
    """Options that say nothing together, and what isn't there."""
    order(dsn, "order-1", "tea")
    done = pgsaga("messages", *args, "--dsn", dsn)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr
