"""The `pgsaga` command, as a process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import typer

from langgraph_pgsaga import __version__
from langgraph_pgsaga.cli import app, reference
from tests._cli import NO_DSN, pgsaga
from tests._limits import HANG_SECONDS
from tests._prepared import run_prepared

ROOT = Path(__file__).resolve().parents[2]
# Every command that reads or writes the tables, so that it gets as far as doing that.
ON_TABLES = [
    ["sessions", "list"],
    ["sessions", "show", "t"],
    ["sessions", "expire", "t"],
    ["sessions", "delete", "t", "--yes"],
    ["history", "t"],
    ["show", "t"],
    ["diff", "t", "1"],
    ["tree", "t"],
    ["fork", "t", "--at", "1"],
    ["messages"],
    ["messages", "t"],
    ["messages", "--search", "x"],
    ["messages", "--export", "-"],
    ["sweep", "--yes"],
    ["sweep", "--max-idle", "1d", "--dry-run"],
]


def every_command(group: Any = None, *path: str) -> Iterator[list[str]]:
    """The words of each command."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from every_command(command, *path, name)
        else:
            yield [*path, name]


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
        (["migrate", "up", "--dsn", "nonsense"], 2, "neither a URL"),
        (["migrate", "up", "--dsn", "mysql://u:s3cret@h/x"], 2, "no PostgreSQL scheme"),
        (["migrate", "up", "--dsn", "postgresql://u@h/x", "--schema", ""], 2, "--schema:"),
        (["migrate", "frob"], 2, "No such command"),
        (["migrate", "up", "--frob"], 2, "No such option"),
        (["frob"], 2, "No such command"),
        (["--dsn", "x", "sessions", "list"], 2, "No such option: --dsn. It goes behind"),
        (["migrate", "--schema", "s", "up"], 2, "No such option: --schema. It goes behind"),
        (["migrate", "--role", "x", "up"], 2, "No such option: --role\n"),
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


@pytest.mark.parametrize("command", list(every_command()), ids=" ".join)
def test_help_shows_what_to_type(command: list[str]) -> None:
    """Every command explains itself, and shows an example of itself."""
    result = pgsaga(*command, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"Usage: pgsaga {' '.join(command)} ")
    assert f"pgsaga {' '.join(command)}" in result.stdout.split("Example", 1)[1]


@pytest.mark.parametrize("group", [[], ["migrate"], ["sessions"]], ids=str)
def test_a_list_of_commands_cuts_no_sentence(group: list[str]) -> None:
    """On 80 columns, what each command does is there whole."""
    listed = pgsaga(*group, "--help", COLUMNS="80").stdout.split("Commands:\n")[1]
    assert [line for line in listed.splitlines() if line.endswith("...")] == []


def test_the_reference_is_what_the_help_says() -> None:
    """docs/cli.md is made anew by `make docs`."""
    assert (ROOT / "docs" / "cli.md").read_text("utf-8") == reference.page()


def test_help_and_completion_load_nothing_heavy() -> None:
    """LangGraph, the driver and the tables' library are imported by commands, when they run."""
    heavy = "['langgraph', 'langchain_core', 'asyncpg', 'pydantic_core', 'rich.table']"
    source = f"import langgraph_pgsaga.cli, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        check=True,
        timeout=HANG_SECONDS,
    )
    assert done.stdout == "[]\n"


def test_the_end_looks_through_nothing_that_was_imported() -> None:
    """What a command leaves is frozen, after all else that is done at its end."""
    source = (
        "import atexit, gc, sys; atexit.register(lambda: print(gc.get_freeze_count() > 0));"
        "from langgraph_pgsaga.cli import main; sys.argv[1:] = ['--version']; main()"
    )
    assert run_prepared("-c", source, env=NO_DSN).stdout.endswith("\nTrue\n")


def test_the_version() -> None:
    """--version is the package's."""
    assert pgsaga("--version").stdout == f"pgsaga {__version__}\n"


@pytest.mark.parametrize("command", ON_TABLES, ids=" ".join)
def test_without_tables_each_command_says_how_to_make_them(
    empty_dsn: str, command: list[str]
) -> None:
    """One line that names the command which helps, and exit code 1."""
    result = pgsaga(*command, "--dsn", empty_dsn)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert "`pgsaga migrate up`" in result.stderr


@pytest.mark.parametrize("command", ON_TABLES, ids=" ".join)
def test_without_a_server_each_command_is_one_line(command: list[str]) -> None:
    """Exit code 1, no traceback, no password."""
    result = pgsaga(*command, "--dsn", "postgresql://u:s3cret@127.0.0.1:1/x")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert "can't reach" in result.stderr
    assert "s3cret" not in result.stderr


def test_commands_work_in_a_schema(empty_dsn: str) -> None:
    """--schema is where the tables are made and looked for."""
    where = ["--dsn", empty_dsn, "--schema", 'my "odd" one']
    assert pgsaga("migrate", "up", *where).returncode == 0
    for command in (["sessions", "list"], ["messages"], ["sweep", "--yes"], ["migrate", "status"]):
        assert pgsaga(*command, *where).returncode == 0
    assert pgsaga("sessions", "list", "--dsn", empty_dsn).returncode == 1


async def _interrupted(dsn: str) -> tuple[int | None, bytes]:
    """The exit code and stderr of a command that waits for a lock, and then gets a Ctrl-C."""
    holder, watcher = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    await holder.execute("begin; lock table agent_sessions")
    command = [sys.executable, "-m", "langgraph_pgsaga", "sessions", "list", "--dsn", dsn]
    process = await asyncio.create_subprocess_exec(
        *command, env=NO_DSN, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(HANG_SECONDS):
        while not await watcher.fetchval(
            "select 1 from pg_stat_activity "
            "where wait_event_type = 'Lock' and datname = current_database()"
        ):
            await asyncio.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = await asyncio.wait_for(process.communicate(), HANG_SECONDS)
    await holder.close()
    await watcher.close()
    return process.returncode, said


def test_an_interruption_ends_quietly(dsn: str) -> None:
    """Ctrl-C in the middle of a statement is exit code 130, without a traceback."""
    assert asyncio.run(_interrupted(dsn)) == (130, b"")


@pytest.mark.parametrize(
    "command",
    [["-m", "langgraph_pgsaga"], ["-c", "from langgraph_pgsaga.__main__ import main; main()"]],
    ids=["module", "script"],
)
def test_an_interruption_of_the_imports_ends_quietly(tmp_path: Path, command: list[str]) -> None:
    """Ctrl-C before the command has begun is the same."""
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    done = subprocess.run(
        [sys.executable, *command, "--help"],
        env={**NO_DSN, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_the_console_script_is_the_one_that_ends_quietly() -> None:
    """It imports nothing before it can be interrupted but the package itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"pgsaga": "langgraph_pgsaga.__main__:main"}


def test_a_terminal_that_speaks_ascii_is_no_reason_to_fail(dsn: str) -> None:
    """What its encoding lacks is escaped."""
    result = pgsaga("doctor", "--dsn", dsn, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert result.stderr == ""
    assert "PostgreSQL" in result.stdout


def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    """The script that --show-completion prints, sourced in bash, completes as one would type."""
    wrapper = tmp_path / "pgsaga"
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m langgraph_pgsaga "$@"\n')
    wrapper.chmod(0o755)
    script = """
        source <(pgsaga --show-completion; true)
        try() {
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
            _pgsaga_completion pgsaga
            echo "${COMPREPLY[*]}"
        }
        try pgsaga mig
        try pgsaga sessions l
        try pgsaga sessions list --act
        true
    """
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=True,
    )
    lines = [sorted(line.split()) for line in done.stdout.splitlines()]
    assert lines == [["migrate"], ["list"], ["--active-before", "--active-since"]], done.stderr
