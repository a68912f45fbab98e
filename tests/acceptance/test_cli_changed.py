"""Every command that shows or copies states, on threads whose classes are gone or have changed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.sqlite import SqliteSaver

from langgraph_pgsaga import PostgresSaver
from tests._cli import answer, output, pgsaga, shop

MODULE = """
from dataclasses import dataclass
from enum import Enum
from langchain_core.messages import HumanMessage
from pydantic import BaseModel

class Colour(Enum):
    RED = "red"
    {member}

class Plan(BaseModel):
    title: str
    {field}

@dataclass
class Line:
    qty: int
    {field}

{message}
"""
BEFORE = MODULE.format(
    field="", member='BLUE = "blue"', message="class Ticket(HumanMessage):\n    priority: int = 0"
)
AFTER = MODULE.format(field="owner: str", member='GREEN = "green"', message="")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the module that defines the state's types, as it was when threads ran."""
    (tmp_path / "changed_shop.py").write_text(BEFORE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    importlib.invalidate_caches()
    yield tmp_path
    sys.modules.pop("changed_shop", None)


def values() -> dict[str, Any]:
    types: Any = importlib.import_module("changed_shop")
    return {
        "messages": [HumanMessage("hi"), types.Ticket(content="help", id="1", priority=2)],
        "note": [types.Plan(title="sell"), types.Line(3), {"colour": types.Colour.BLUE}],
    }


@pytest.mark.parametrize("is_imported", [False, True])
def test_every_command_shows_it(dsn: str, folder: Path, is_imported: bool) -> None:
    """Placeholders with the type's name stand for what can't be loaded; nothing fails."""
    with PostgresSaver.from_conn_string(dsn) as saver:
        shop(saver).invoke(values(), {"configurable": {"thread_id": "t"}})
    (folder / "changed_shop.py").write_text(AFTER)
    imports = ["--import", "changed_shop"] if is_imported else []

    text = output("show", "t", "--dsn", dsn, *imports)
    for part in ("<changed_shop.Plan: {'title': 'sell'}>", "Line", "Colour", "user: help"):
        assert part in text
    found = answer("show", "t", "--dsn", dsn, *imports)
    assert found["interrupts"][0][0]["type"] == "changed_shop.Plan"
    ticket = found["values"]["messages"][1]
    assert (ticket["role"], ticket["content"]) == ("user", "help")
    assert "changed_shop.Plan" in output("diff", "t", "-1", "latest", "--dsn", dsn, *imports)
    assert answer("diff", "t", "-1", "latest", "--dsn", dsn, *imports)["changes"]
    exported = output("messages", "t", "--export", "-", "--full", "--dsn", dsn, *imports)
    assert "help" in exported
    for command in (["history", "t"], ["tree", "t"], ["messages", "t"]):
        assert output(*command, "--dsn", dsn)
        assert pgsaga(*command, "--json", "--dsn", dsn).returncode == 0
    output("fork", "t", "--at", "latest", "--to", "copy", "--dsn", dsn)
    assert answer("show", "copy", "--dsn", dsn, *imports)["values"] == found["values"]


@pytest.mark.parametrize("is_imported", [False, True])
def test_import_says_which_thread_needs_what(dsn: str, folder: Path, is_imported: bool) -> None:
    """A thread whose values don't load here is named with what it needs; the others are taken
    over, and nothing of it is stored in another form."""
    with SqliteSaver.from_conn_string(str(folder / "old.sqlite")) as sqlite:
        old: Any = sqlite
        shop(old).invoke(values(), {"configurable": {"thread_id": "changed"}})
        shop(old).invoke({"messages": ["hi"]}, {"configurable": {"thread_id": "plain"}})
    (folder / "changed_shop.py").write_text(AFTER)
    imports = ["--import", "changed_shop"] if is_imported else []
    pgsaga("migrate", "up", "--dsn", dsn)

    done = pgsaga("import", "--from", f"sqlite:{folder}/old.sqlite", "--dsn", dsn, *imports)

    assert done.returncode == 1
    assert "changed_shop." in done.stderr + done.stdout
    assert answer("show", "plain", "--dsn", dsn)["values"]["total"] == 3
    assert pgsaga("show", "changed", "--dsn", dsn).returncode == 1
