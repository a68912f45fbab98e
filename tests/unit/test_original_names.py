"""The pages say of every name of the original schema where it is now, and why."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import langgraph_pgsaga
from langgraph_pgsaga import PostgresSaver, sessions, takeover, timetravel
from langgraph_pgsaga.database import Database, load_migrations
from langgraph_pgsaga.events import EventStore, EventType
from langgraph_pgsaga.memory import AgentMemory, MemoryType
from langgraph_pgsaga.messages import Messages
from tests._original_names import ORIGINAL

DOCS = Path(__file__).resolve().parents[2] / "docs"
CATALOGUE = Path(langgraph_pgsaga.__file__).parent / "sql" / "catalogue.txt"
HEAD = "| original | here | why |"
# What the pages name as code, by the first part of the name.
OWNERS = {
    "Database": Database,
    "AgentMemory": AgentMemory,
    "MemoryType": MemoryType,
    "Messages": Messages,
    "PostgresSaver": PostgresSaver,
    "SessionStatus": sessions.SessionStatus,
    "Sessions": sessions.Sessions,
    "EventStore": EventStore,
    "EventType": EventType,
    "takeover": takeover,
    "timetravel": timetravel,
}


def rows_of(page: str) -> Iterator[tuple[str, str, str]]:
    """The cells of every such table of a page."""
    is_inside = False
    for line in (DOCS / page).read_text("utf-8").splitlines():
        if line == HEAD:
            is_inside = True
        elif not line.startswith("|"):
            is_inside = False
        elif is_inside and not line.startswith("|---"):
            original, here, why = (cell.strip() for cell in line.strip("|").split(" | "))
            yield original, here, why


def names_in(cell: str) -> list[str]:
    """What a cell names: what stands in backticks, else its words."""
    return re.findall(r"`([^`]+)`", cell) or [cell]


def catalogue_names() -> set[str]:
    """Tables, views, `table.column`, indexes, constraints and functions of a migrated database."""
    found = set()
    for line in CATALOGUE.read_text("utf-8").splitlines():
        kind, name, _ = line.split("\t", 2)
        if kind != "text":
            found.add(name.partition("(")[0])
            if kind == "constraint":
                found.add(name.partition(".")[2])
    # Tables of vectors are made by functions, where the server has pgvector.
    for migration in load_migrations():
        found |= set(re.findall(r"create (?:table|view) %\d\$I\.(\w+)", migration.sql))
    return found


@pytest.mark.parametrize("page", ORIGINAL)
def test_a_page_has_every_name_of_the_original_once(page: str) -> None:
    """None is missing, none is there twice, and none is one that the original doesn't have."""
    found = [name for original, _, _ in rows_of(page) for name in names_in(original)]
    assert sorted(found) == sorted(ORIGINAL[page])


@pytest.mark.parametrize("page", ORIGINAL)
def test_each_name_has_what_is_here_and_why(page: str) -> None:
    """No cell of the tables is empty."""
    assert [row for row in rows_of(page) if not all(row)] == []


@pytest.mark.parametrize("page", ORIGINAL)
def test_what_a_page_names_is_there(page: str) -> None:
    """Tables, columns, indexes and functions are in the catalogue, methods in their classes."""
    known = catalogue_names()
    named = [
        name
        for _, *cells in rows_of(page)
        for cell in cells
        for name in re.findall(r"`([\w.]+)(?:\([^`]*)?`", cell)
    ]
    in_database = [name for name in named if name.startswith(("agent_", "pgsaga_"))]
    assert len(in_database) > 9
    assert [name for name in in_database if name not in known and name != "agent_type"] == []
    for name in named:
        owner, _, attribute = name.partition(".")
        if owner in OWNERS and attribute:
            assert hasattr(OWNERS[owner], attribute), name


def test_every_column_of_a_table_is_told() -> None:
    """A column that is only here is named by the page of its table, too."""
    for page, (table, *_) in ORIGINAL.items():
        section = (DOCS / page).read_text("utf-8").partition("\n## The original schema\n")[2]
        told = set(re.findall(r"`(?:\w+\.)?(\w+)", section.partition("\n## ")[0]))
        found = (name.partition(".") for name in catalogue_names())
        columns = {
            name for of, _, name in found if of == table and name and not name.startswith(table)
        }
        assert len(columns) > 9
        assert columns - told == set()


def test_every_index_and_constraint_of_the_tables_is_told() -> None:
    """Each index and constraint has its place on the page of its table."""
    told = "".join((DOCS / page).read_text("utf-8") for page in ORIGINAL)
    tables = tuple(f"{table}_" for table, *_ in ORIGINAL.values() if table.startswith("agent_"))
    named = {name for name in catalogue_names() if name.startswith(tables) and "." not in name}
    assert [name for name in sorted(named) if f"`{name}`" not in told] == []
