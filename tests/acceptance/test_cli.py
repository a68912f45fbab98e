"""The `pgsaga` command, as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

NO_DSN = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "PGSAGA_DSN"))}


def pgsaga(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "langgraph_pgsaga", *args]
    environment = {**NO_DSN, "COLUMNS": "100", **env}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_up_applies_once_and_says_what_it_did(empty_dsn: str) -> None:
    """The first run names each file, the second has nothing to do, and both succeed."""
    first = pgsaga("migrate", "up", "--dsn", empty_dsn)
    assert (first.returncode, first.stderr) == (0, "")
    assert "applied 0001_checkpoints" in first.stdout
    second = pgsaga("migrate", "up", PGSAGA_DSN=empty_dsn)
    assert (second.returncode, second.stdout) == (0, "nothing to do: the tables are up to date\n")


def test_status_tells_programs_what_is_pending(empty_dsn: str) -> None:
    """--json lists every migration, and the exit code says whether any is pending."""
    before = pgsaga("migrate", "status", "--json", "--dsn", empty_dsn)
    assert before.returncode == 3
    assert {row["applied_at"] for row in json.loads(before.stdout)} == {None}
    assert pgsaga("migrate", "up", "--dsn", empty_dsn).returncode == 0
    after = pgsaga("migrate", "status", "--json", "--dsn", empty_dsn)
    assert after.returncode == 0
    assert all(row["applied_at"] for row in json.loads(after.stdout))
    table = pgsaga("migrate", "status", "--dsn", empty_dsn)
    assert "0001_checkpoints" in table.stdout
    assert table.returncode == 0


def test_sql_prints_what_up_would_run(empty_dsn: str) -> None:
    """The printed SQL names the schema asked for, and nothing was applied by printing it."""
    printed = pgsaga("migrate", "sql", "--dsn", empty_dsn, "--schema", 'o\'dd "name"')
    assert printed.returncode == 0
    assert 'create table "o\'dd ""name""".agent_sessions' in printed.stdout
    assert pgsaga("migrate", "status", "--dsn", empty_dsn).returncode == 3


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["migrate", "up", "--dsn", "postgresql://u:s3cret@127.0.0.1:1/x"], 1, "can't reach"),
        (["migrate", "up", "--dsn", "nonsense"], 1, "neither a URL"),
        (["migrate", "up", "--dsn", "mysql://u:s3cret@h/x"], 1, "no PostgreSQL scheme"),
        (["migrate", "up", "--dsn", "postgresql://u@h/x", "--schema", ""], 1, "schema:"),
        (["migrate", "frob"], 2, "No such command"),
        (["migrate", "up", "--frob"], 2, "No such option"),
        (["frob"], 2, "No such command"),
    ],
)
def test_mistakes_get_a_line_that_helps(args: list[str], code: int, says: str) -> None:
    """A wrong word or server gives a short message on stderr, no traceback and no password."""
    result = pgsaga(*args)
    assert result.returncode == code
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert "s3cret" not in result.stdout + result.stderr


def test_a_missing_database_is_named(server_dsn: str) -> None:
    """The message names the database that isn't there and how to make it."""
    absent = urlsplit(server_dsn)._replace(path="/absent_db").geturl()
    result = pgsaga("migrate", "status", "--dsn", absent)
    assert result.returncode == 1
    assert "absent_db" in result.stderr
    assert "createdb" in result.stderr


@pytest.mark.parametrize("args", [[], ["migrate"], ["migrate", "up"], ["migrate", "sql"]])
def test_help_shows_what_to_type(args: list[str]) -> None:
    """Every command explains itself, and each one that does something shows an example."""
    result = pgsaga(*args, "--help")
    assert result.returncode == 0
    assert "Usage:" in result.stdout
    if len(args) == 2:
        assert "Example: pgsaga" in result.stdout
