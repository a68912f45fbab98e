"""Everything public says what it is for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import langgraph_pgsaga

PACKAGE = Path(langgraph_pgsaga.__file__).parent


def undocumented(node: ast.AST) -> Iterator[str]:
    """The public classes, functions and methods below a node that have no docstring.

    What is nested in a function is nobody's to call, a property's setter is its getter's, and
    what a Protocol demands of a class is said where the class has it.
    """
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if child.name.startswith("_"):
            continue
        is_setter = any(ast.unparse(one).endswith(".setter") for one in child.decorator_list)
        is_demand = ast.unparse(child.body[-1]) == "..."
        if ast.get_docstring(child) is None and not is_setter and not is_demand:
            yield child.name
        if isinstance(child, ast.ClassDef):
            yield from (f"{child.name}.{name}" for name in undocumented(child))


def test_everything_public_has_a_docstring() -> None:
    """In every module: what is public there is called by another one."""
    found = [
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for name in undocumented(ast.parse(path.read_text("utf-8")))
    ]
    assert found == []
