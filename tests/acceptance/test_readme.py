"""Every code block of the pages runs as it stands, or is checked word by word."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import asyncpg
import pytest
from packaging.requirements import Requirement

from langgraph_pgsaga.doctor import doctor
from langgraph_pgsaga.embedded import EmbeddedServer
from tests._cli import pgsaga
from tests._prepared import run_prepared
from tests._require import require_package

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
    if "FileBackend" in source:
        require_package("deepagents")
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


def test_targets_in_a_sentence_exist() -> None:
    """What the text tells to make can be made, as what stands in a block."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE))
    for page in [*PAGES, ROOT / "benchmarks" / "README.md"]:
        told = " ".join(page.read_text("utf-8").split())
        assert set(re.findall(r"`make ([a-z-]+)", told)) <= targets, page.name


# What a row of the README's comparison tells, as the benchmark calls it, and its unit there.
MEASURED = {
    "tables after 150 turns": ("chat 150, KB of tables", {"MB": 1000}),
    "tables after 600 turns": ("chat 600, KB of tables", {"MB": 1000}),
    "a turn, at 150 turns": ("chat 150, ms per turn in the last tenth", {"ms": 1}),
    "all history of 300 turns": ("chat 300, ms of all its history", {"s": 1000}),
    "supersteps per second, 200 chats at once": ("crowd, supersteps per s", {"": 1}),
    "the same where a flush takes 1 ms more": ("crowd at a 1 ms flush, supersteps per s", {"": 1}),
}


def measured() -> tuple[dict[str, str], dict[str, list[str]]]:
    """What was measured with, and of each measure this package's result and the reference's."""
    results = ROOT / "benchmarks" / "results"
    environment = json.loads((results / "results.json").read_text("utf-8"))["environment"]
    head, *lines = (results / "table.txt").read_text("utf-8").splitlines()
    columns = len(head.split())
    found = {}
    for measure, *figures in (line.rsplit(maxsplit=columns) for line in lines if line):
        found[measure] = [figure.replace(",", "") for figure in figures[:2]]
    return environment, found


def test_the_comparison_tells_what_was_measured() -> None:
    """Each figure is the benchmark's, to two digits, and the versions are those of its run."""
    readme = (ROOT / "README.md").read_text("utf-8")
    head, *rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", readme, re.MULTILINE)[:7]
    environment, results = measured()
    assert head[1:] == ("langgraph_pgsaga", "langgraph-checkpoint-postgres")
    assert {label for label, *_ in rows} == MEASURED.keys()
    for label, *told in rows:
        measure, units = MEASURED[label]
        for text, exact in zip(told, results[measure], strict=True):
            number, _, unit = text.replace(",", "").partition(" ")
            assert float(number) * units[unit] == pytest.approx(float(exact), rel=0.05), label
    reference = environment["langgraph-checkpoint-postgres"]
    assert f"`langgraph-checkpoint-postgres` {reference}:" in " ".join(readme.split())
    assert f"({reference} takes one for each call" in readme
    major = environment["server_version"].partition(".")[0]
    python = ".".join(environment["python"].split(".")[:2])
    assert f"Two cores, PostgreSQL {major}, Python {python}, fsync {environment['fsync']}" in readme


def test_the_versions_it_needs_are_those_that_count() -> None:
    """Python's and LangGraph's are the package's, PostgreSQL's the doctor's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    bounds = {r.name: str(r.specifier) for r in map(Requirement, project["dependencies"])}
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    python = project["requires-python"].removeprefix(">=")
    langgraph = bounds["langgraph"].removeprefix(">=")
    server = doctor._OLDEST_VERSION // 10_000
    needed = (
        f"Python {python} or later, LangGraph {langgraph} or later, PostgreSQL {server} or later"
    )
    assert needed in readme


def test_decisions_are_headed_and_dated() -> None:
    """Each begins with what was decided, below the day, and the days go on."""
    page = (ROOT / "docs" / "decisions.md").read_text("utf-8")
    _, *days = re.split(r"^## (.*)$", page, flags=re.MULTILINE)
    dates = [date.fromisoformat(day) for day in days[::2]]
    assert dates == sorted(dates)
    for taken in days[1::2]:
        assert [p for p in taken.strip().split("\n\n") if not p.startswith("**")] == []


def test_every_link_leads_somewhere() -> None:
    """Relative links of the pages name files that are there."""
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
