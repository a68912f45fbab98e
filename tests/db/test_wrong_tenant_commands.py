"""Every command, tried from the wrong tenant with another one's ids.

A new command without a case here fails the test that counts them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.sqlite import SqliteSaver
from typer.testing import CliRunner

from langgraph_pgsaga import PgSagaError, cli, sync
from tests import _cli as shops
from tests._embedders import DIMS, hashed
from tests.conftest import execute
from tests.db._puts import config_of
from tests.db._tenants import fetch, rows_of
from tests.db._wrong_tenant import A_DEAD_LETTER, NAME, SECRET, World

_A_TIME = "2020-01-01"
# The id of the memory of "a", which is made anew for each test.
MEMORY = "the memory of a"
# By its words (and what tells two calls of one apart): what it is called with.
COMMANDS: dict[str, list[str]] = {
    "history": ["t"],
    "show": ["t"],
    "diff": ["t", "-1", "latest"],
    "tree": ["t"],
    "fork": ["t", "--at", "latest", "--to", "copy"],
    "messages": ["t"],
    "messages --search": ["--search", SECRET],
    "messages --export": ["--export", "-"],
    "messages all": [],
    "sweep": ["--max-idle", "1s", "--drop-named", "--yes"],
    "import": ["--thread", "old"],
    "forget-user": ["ann", "--yes"],
    "memory search": [SECRET, "--user", "ann"],
    "memory list": ["--user", "ann"],
    "memory show": [MEMORY, "--user", "ann"],
    "memory forget": [MEMORY, "--user", "ann", "--yes"],
    "memory sweep": ["--max-age", "0s", "--yes"],
    "memory reembed": ["tests._embedders:hashed", "--dims", "64"],
    "sessions list": [],
    "sessions show": ["t"],
    "sessions expire": ["t", "--at", _A_TIME],
    "sessions delete": ["t", "--yes"],
    "events consumers": [],
    "events dead-letters list": [],
    "events dead-letters retry": [SECRET, "event of a"],
    "events dead-letters skip": [SECRET, "event of a"],
    "events show": ["t"],
    "events tail": ["--since", "1h"],
    "events verify": [],
}
NO_THREADS = {
    "migrate up",
    "migrate status",
    "migrate sql",
    "migrate distribute",
    "doctor",
    "serve-embedded",
    "worker",
}


def commands(app: Any, *before: str) -> Iterator[str]:
    for name, command in app.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *before, name)
        else:
            yield " ".join((*before, name))


def test_every_command_has_a_case() -> None:
    """One that is new says here whether it is of threads; those that are take --tenant."""
    app: Any = typer.main.get_command(cli.app)
    words = {name.split(" --")[0].removesuffix(" all") for name in COMMANDS}
    assert set(commands(app)) == words | NO_THREADS
    for name in words:
        command = app
        for word in name.split():
            command = command.commands[word]
        assert "tenant" in {parameter.name for parameter in command.params}, name


@pytest.fixture
def old_file(tmp_path: Path) -> str:
    """A checkpoint file of another saver, with a thread that everybody may import as theirs."""
    path = tmp_path / "old.sqlite"
    with SqliteSaver.from_conn_string(str(path)) as old:
        made: Any = shops.shop
        made(old).invoke({"messages": [HumanMessage("old")]}, config_of("old"))
    return f"sqlite:{path}"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_in_the_wrong_tenant_shows_and_changes_nothing(
    dsn: str, old_file: str, name: str
) -> None:
    """And in the right one, or in none, what is that one's."""
    world = World.made(dsn, "b")
    memory = sync.AgentMemory(world.saver.db, tenant="a").remember(SECRET, user_id="ann")
    sync.AgentMemory(world.saver.db, embed=hashed, dims=DIMS).setup()
    world.saver.close()
    given = [str(memory.memory_id) if word == MEMORY else word for word in COMMANDS[name]]
    asyncio.run(_grown_old(dsn))
    asyncio.run(execute(dsn, *A_DEAD_LETTER))
    before = _rows(dsn)
    words = name.split(" --", maxsplit=1)[0].removesuffix(" all").split()
    more = ["--from", old_file] if name == "import" else []
    run: Callable[..., Any] = CliRunner(env={"COLUMNS": "300"}).invoke

    def said(*options: str) -> str:
        done = run(cli.app, [*words, *given, *more, "--dsn", dsn, *options])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            assert isinstance(done.exception, PgSagaError), done.exception
        return str(done.output)

    for options in (["--tenant", "b"], []):
        shown = said(*options)
        assert SECRET not in shown
        assert NAME not in shown
        assert _rows(dsn) == before
    shown = said("--tenant", "a")
    assert SECRET in shown or NAME in shown or "t " in shown or _rows(dsn) != before


@pytest.mark.parametrize("name", ["messages all", "messages --search", "sessions list", "sweep"])
def test_all_tenants_are_asked_for(dsn: str, name: str) -> None:
    """By --all-tenants alone: with --tenant, or of one thread, it is a mistake."""
    World.made(dsn, "b").saver.close()
    asyncio.run(_grown_old(dsn))
    run: Callable[..., Any] = CliRunner(env={"COLUMNS": "300"}).invoke
    words = name.split(" --", maxsplit=1)[0].removesuffix(" all").split()
    asked = [*words, *COMMANDS[name], "--dsn", dsn, "--all-tenants"]
    assert run(cli.app, [*asked, "--tenant", "a"]).exit_code == 2
    done = run(cli.app, asked)
    assert done.exit_code == 0, done.output
    if name == "sweep":
        assert fetch(dsn, "select from agent_sessions") == []
    else:
        assert "a" in {line.split()[-1] for line in done.output.splitlines() if line.split()}
    if name == "messages all":
        assert run(cli.app, ["messages", "t", "--dsn", dsn, "--all-tenants"]).exit_code == 2


def _rows(dsn: str) -> list[str]:
    """Every row of "a", as text."""
    memories = fetch(dsn, "select m::text as row from agent_memory m where m.tenant_id = 'a'")
    vectors = fetch(
        dsn,
        "select memory_id::text as row from agent_memory_vectors v"
        " join agent_memory m using (memory_id) where m.tenant_id = 'a'",
    )
    return [*rows_of(dsn, "a"), *(row["row"] for row in (*memories, *vectors))]


async def _grown_old(dsn: str) -> None:
    at = datetime.now(UTC) - timedelta(hours=1)
    await execute(dsn, f"update agent_sessions set last_activity_at = '{at.isoformat()}'")
