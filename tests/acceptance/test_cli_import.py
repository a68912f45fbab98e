"""`pgsaga import`, as a process, from the real savers of the other packages."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.postgres import PostgresSaver as OtherPostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver

from tests._cli import Order, answer, output, pgsaga, shop
from tests.conftest import execute

ROOT = Path(__file__).resolve().parents[2]


def fill(saver: Any, *threads: str, note: Any = None) -> None:
    graph = shop(saver)
    for thread in threads:
        given: Order = {"messages": [("user", "tea")]}
        if note is not None:
            given["note"] = note
        graph.invoke(given, {"configurable": {"thread_id": thread}})


@pytest.fixture(params=["sqlite", "postgres"])
def source(request: pytest.FixtureRequest, new_database: Callable[..., str], tmp_path: Path) -> str:
    """--from's argument for a source with two threads."""
    if request.param == "sqlite":
        path = tmp_path / "old.sqlite"
        with SqliteSaver.from_conn_string(str(path)) as sqlite:
            fill(sqlite, "a", "\x1b[31mb")
        return f"sqlite:{path}"
    made = new_database()
    with OtherPostgresSaver.from_conn_string(made) as postgres:
        postgres.setup()
        fill(postgres, "a", "\x1b[31mb")
    return f"postgres:{made}"


def test_threads_come_over_and_a_second_run_has_nothing_to_do(dsn: str, source: str) -> None:
    """A dry run stores nothing, the import all of it, the next one only compares."""
    command = ["import", "--from", source, "--dsn", dsn]
    said = output(*command, "--dry-run")
    assert said == "2 threads with 8 checkpoints: 8 would be stored\n"
    dry = answer(*command, "--dry-run")
    assert (dry["dry_run"], dry["stored"], dry["failed"]) == (True, 8, 0)
    assert answer("sessions", "list", "--dsn", dsn)["sessions"] == []
    text = output(*command)
    assert text == "2 threads with 8 checkpoints: 8 stored and verified\n"
    again = answer(*command)
    assert (again["checkpoints"], again["stored"]) == (8, 0)
    assert "assistant: Ordered." in output("show", "a", "--dsn", dsn)
    assert len(answer("sessions", "list", "--dsn", dsn)["sessions"]) == 2


def test_threads_can_be_chosen(dsn: str, source: str) -> None:
    """--thread takes only these."""
    found = answer("import", "--from", source, "--thread", "a", "--dsn", dsn)
    assert [(t["thread_id"], t["checkpoints"]) for t in found["threads"]] == [("a", 4)]


def test_a_thread_that_isnt_there_is_an_error(dsn: str, source: str) -> None:
    """A mistyped name isn't an import of nothing; the threads that are there come over."""
    command = ["import", "--from", source, "--thread", "nope", "--thread", "a", "--dsn", dsn]
    done = pgsaga(*command)
    assert done.returncode == 1
    assert "failed: nope: there is no thread 'nope'" in done.stderr
    found = json.loads(pgsaga(*command, "--json").stdout)
    errors = [[error["type"] for error in thread["errors"]] for thread in found["threads"]]
    assert errors == [["MissingThreadError"], []]
    assert "assistant: Ordered." in output("show", "a", "--dsn", dsn)


def test_a_thread_of_an_unknown_type_fails_alone(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others come over, the exit code is 1, and --import brings the one that was left."""
    (tmp_path / "import_types.py").write_text(
        "from dataclasses import dataclass\n\n\n@dataclass\nclass Plan:\n    seats: int\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import import_types  # type: ignore[import-not-found]

    path = tmp_path / "old.sqlite"
    with SqliteSaver.from_conn_string(str(path)) as sqlite:
        fill(sqlite, "plain")
        fill(sqlite, "typed", note=import_types.Plan(2))
    command = ["import", "--from", f"sqlite:{path}", "--dsn", dsn]
    done = pgsaga(*command, PYTHONPATH=str(ROOT))
    assert done.returncode == 1
    assert "1 thread failed" in done.stdout
    assert "failed: typed: " in done.stderr
    assert "import_types.Plan" in done.stderr
    assert "--import MODULE" in done.stderr
    assert "assistant: Ordered." in output("show", "plain", "--dsn", dsn)
    both = {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    whole = answer(*command, "--import", "import_types", **both)
    assert (whole["failed"], whole["stored"]) == (0, 3)


def test_a_checkpoint_that_differs_is_told(dsn: str, source: str) -> None:
    """What was altered here since fails the import of its thread, and of no other."""
    output("import", "--from", source, "--dsn", dsn)
    alter = (
        "update agent_states set metadata = metadata || '{\"step\": 77}' "
        "where session_id = pgsaga_session_id('a')"
    )
    asyncio.run(execute(dsn, alter))
    done = pgsaga("import", "--from", source, "--dsn", dsn)
    assert done.returncode == 1
    assert "failed: a: thread 'a'" in done.stderr
    assert "1 thread failed" in done.stdout


def test_progress_is_lines_without_a_terminal(dsn: str, source: str) -> None:
    """Nothing of a bar is printed to a file."""
    done = pgsaga("import", "--from", source, "--dsn", dsn)
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stderr


@pytest.mark.parametrize(
    ("source", "code", "says"),
    [
        ("mongo:x", 2, "sqlite:PATH"),
        ("sqlite:", 2, "sqlite:PATH"),
        ("sqlite:/no/such/file", 2, "there is no file /no/such/file"),
        ("postgres:s3cret nonsense", 2, "--from: neither a URL"),
        ("postgresql://u:s3cret@127.0.0.1:1/x", 1, "--from"),
        ("postgresql://u:s3cret%@127.0.0.1:1/x", 1, "connection failed"),
        ("postgresql://u:a s3cret@127.0.0.1:1/x", 1, "connection failed"),
        ("postgresql://u:a@s3cret@127.0.0.1:1/x", 1, "connection failed"),
        ("postgresql+psycopg://u:s3cret@127.0.0.1:1/x", 1, "connection failed"),
        ("postgres:postgresql+psycopg://u:s3cret@127.0.0.1:1/x", 1, "connection failed"),
        ("postgres:host=127.0.0.1 port=1 password='a;s3cret'", 1, "connection failed"),
        ("postgres:host=127.0.0.1;password=s3cret", 2, "quotes"),
        ("postgresql://127.0.0.1:1/x?passwd=s3cret", 2, "password="),
        ("postgresql://127.0.0.1:1/x?password=a&s3cret=1", 2, "libpq doesn't know"),
        ("sqlite:postgresql://u:s3cret@127.0.0.1:1/x", 2, "there is no file"),
    ],
)
def test_sources_that_cant_be_used(dsn: str, source: str, code: int, says: str) -> None:
    """A line says what is wrong with --from, without a password."""
    done = pgsaga("import", "--from", source, "--dsn", dsn)
    assert done.returncode == code
    assert says in done.stderr
    assert "s3cret" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_files_that_are_no_checkpoints(dsn: str, tmp_path: Path) -> None:
    """Text, and a database without the tables, are one line each, and stay as they were."""
    text, other = tmp_path / "text", tmp_path / "other.sqlite"
    text.write_text("hello " * 1000)
    sqlite3.connect(other).execute("create table t (x)").connection.close()
    before = text.read_bytes(), other.read_bytes()
    for path in (text, other):
        done = pgsaga("import", "--from", f"sqlite:{path}", "--dsn", dsn)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert "langgraph-checkpoint-sqlite finds no checkpoints" in done.stderr
    assert (text.read_bytes(), other.read_bytes()) == before


def test_a_target_without_tables_says_how_to_make_them(empty_dsn: str, source: str) -> None:
    """The import ends at once, with the command that helps."""
    done = pgsaga("import", "--from", source, "--dsn", empty_dsn)
    assert done.returncode == 1
    assert "pgsaga migrate up" in done.stderr
