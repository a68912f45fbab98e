"""Every code block of the pages runs as it stands, or is checked word by word."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from langgraph_pgsaga.embedded import EmbeddedServer
from tests._cli import pgsaga
from tests._prepared import run_prepared

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md")),
]


def blocks(language: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for page in PAGES:
        for kind, body in re.findall(
            r"^```(\w*)\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE
        ):
            if kind == language:
                found.append((f"{page.name}-{len(found) + 1}", body))
    return found


@pytest.fixture(scope="module")
def server_folder(public_tmp: Path) -> Iterator[Path]:
    """One embedded server for the page, as a reader would have one for the afternoon."""
    folder = public_tmp / "readme"
    with EmbeddedServer.start(folder):
        yield folder


def run_python(source: str, folder: Path, cwd: Path) -> str:
    environment = {**os.environ, "PGSAGA_EMBEDDED_PATH": str(folder)}
    done = run_prepared("-c", source, env=environment, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_every_language_is_known() -> None:
    """No block escapes the tests below by its language."""
    languages = {
        kind
        for page in PAGES
        for kind in re.findall(r"^```(\w+)\n", page.read_text("utf-8"), re.MULTILINE)
    }
    assert languages <= {"python", "sh", "sql"}


def test_the_example_runs_and_its_rows_can_be_read(public_tmp: Path, tmp_path: Path) -> None:
    """The first example prints what it promises, and the SQL below it finds the conversation.

    On a server of its own: the other examples write conversations, too.
    """
    _, example = blocks("python")[0]
    folder = public_tmp / "first-example"
    with EmbeddedServer.start(folder):
        check_first_example(example, folder, tmp_path)


def check_first_example(example: str, folder: Path, tmp_path: Path) -> None:
    printed = run_python(example, folder, tmp_path)
    assert printed == "May I place this order: two flat whites?\nOrdered.\n"

    async def read() -> list[tuple[str, ...]]:
        with EmbeddedServer.start(folder) as server:
            conn = await asyncpg.connect(server.dsn)
            rows = await conn.fetch(blocks("sql")[0][1])
            await conn.close()
        return [tuple(row)[:3] for row in rows]

    turn = [("order-1", "user", "two flat whites"), ("order-1", "assistant", "Ordered.")]
    assert asyncio.run(read()) == turn
    assert run_python(example, folder, tmp_path) == printed
    assert asyncio.run(read()) == turn * 2


def test_the_mistake_is_found(server_folder: Path, tmp_path: Path) -> None:
    """The second example names the step, and what changed in it, however often it is run."""
    _, example = blocks("python")[1]
    for _ in range(2):
        assert run_python(example, server_folder, tmp_path).splitlines() == [
            "step 137, answer",
            "+ done[136]: 'ticket 137'",
            "~ refunded: 122400 → 212400",
        ]


@pytest.mark.parametrize(("name", "source"), blocks("python")[2:], ids=lambda v: str(v)[:20])
def test_other_examples_run(name: str, source: str, server_folder: Path, tmp_path: Path) -> None:
    """Every other Python block runs without a word on stderr, and again on what it left."""
    for _ in range(2):
        run_python(source, server_folder, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_a_bold_beginning_is_a_paragraph_of_its_own(page: Path) -> None:
    """What begins with bold words isn't shown as the end of the paragraph above it."""
    assert re.findall(r"^.+\n\*\*[A-Z`].*", page.read_text("utf-8"), re.MULTILINE) == []


def command_lines() -> list[str]:
    return [line for _, body in blocks("sh") for line in body.splitlines() if line.strip()]


@pytest.mark.parametrize("line", command_lines())
def test_commands_exist(line: str, dsn: str) -> None:
    """A pgsaga line runs; a make line names a target; a pip line names a real extra."""
    words = shlex.split(line.replace("$PGSAGA_DSN", dsn))
    if words[0] == "pgsaga":
        done = pgsaga(*words[1:], PGSAGA_DSN=dsn)
        # The tests' own server may be one that a doctor warns of.
        assert done.returncode in ({0, 3} if words[1:] == ["doctor"] else {0}), done.stderr
    elif words[0] == "make":
        targets = re.findall(
            r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE
        )
        assert set(words[1:]) <= set(targets)
    else:
        assert words[:2] == ["pip", "install"]
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        wanted = re.fullmatch(rf"{project['name']}\[(\w+)\]", words[2])
        assert wanted
        assert wanted[1] in project["optional-dependencies"]


def test_every_link_leads_somewhere() -> None:
    """Relative links of the pages name files that are there."""
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
