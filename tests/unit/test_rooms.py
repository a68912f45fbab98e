"""The rooms of the package: who may import whom, and what stays behind its own door."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import langgraph_pgsaga
from langgraph_pgsaga import events, work

PACKAGE = "langgraph_pgsaga"
ROOT = Path(langgraph_pgsaga.__file__).parent

# From the ground up: a room imports rooms of lower levels only. docs/architecture.md draws it.
LEVELS: list[set[str]] = [
    {"errors"},
    {"_fork", "_json", "_langgraph", "_pause", "_same", "_text", "_times"},
    {"_arguments", "_cursor", "_message_text", "_process_bound"},
    {"_files", "tenants"},
    {"threads"},
    {"embedded", "serde"},
    {"database"},
    {"distribution", "work"},
    {"checkpoint", "events", "memory"},
    {"messages", "sessions", "takeover", "timetravel"},
    {"doctor", "erasure", "sync"},
    {"cli"},
]
LEVEL_OF = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

# Where the picture says what the rooms are for.
_DRAWN = 50

# Of the driver, which `database` alone knows; of pydantic; of named tuples; of deepagents'
# StoreBackend, for what derives from it.
FOREIGN = {
    "_convert_store_item_to_file_data",
    "_get_namespace",
    "_get_store",
    "_intro_query",
    "_is_cancelling",
    "_protocol",
    "_top_xact",
    "_transport",
    "_init_private_attributes",
    "_replace",
}

Imported = tuple[str, str, list[str]]


def room_of(path: Path) -> str:
    """The room that a module stands in: a package, or a module of the top level."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def modules() -> Iterator[tuple[str, Path, ast.Module]]:
    """Every module but the front door."""
    for path in sorted(ROOT.rglob("*.py")):
        if path.parent != ROOT or not path.name.startswith("__"):
            yield room_of(path), path, ast.parse(path.read_text())


def imports(tree: ast.Module) -> Iterator[tuple[str, str, list[str]]]:
    """What a module imports of the package: the room, the rest of the path, and the names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith(PACKAGE) for alias in node.names)
        if not isinstance(node, ast.ImportFrom):
            continue
        assert node.level == 0, "imports are absolute"
        words = (node.module or "").split(".")
        if words[0] != PACKAGE:
            continue
        names = [alias.name for alias in node.names]
        if len(words) > 1:
            yield words[1], ".".join(words[2:]), names
        else:
            for name in names:
                if name != "__version__":
                    yield name, "", []


def test_every_room_has_its_level() -> None:
    """A new room is added to the table before it is imported."""
    assert {room for room, _, _ in modules()} == set(LEVEL_OF)


def drawn_levels(picture: str) -> list[set[str]]:
    """The levels of a picture of the rooms, from the ground up; a stroke is between two."""
    levels = re.split(r"^ +\|$", picture, flags=re.MULTILINE)
    return [
        {room for line in level.splitlines() for room in line[:_DRAWN].split()}
        for level in reversed(levels)
    ]


def test_the_picture_has_every_room_at_its_level() -> None:
    """docs/architecture.md draws the table."""
    page = (ROOT.parent / "docs" / "architecture.md").read_text("utf-8")
    picture = page.partition("```\n")[2].partition("```")[0]
    assert drawn_levels(picture) == LEVELS


def test_what_the_page_names_is_there() -> None:
    """The ways of a put and of a read go by functions, classes, statements and files that exist."""
    page = (ROOT.parent / "docs" / "architecture.md").read_text("utf-8")
    sources = [*ROOT.rglob("*.py"), *ROOT.rglob("*.sql"), ROOT.parent / "Makefile"]
    words = {word for path in sources for word in re.findall(r"\w+", path.read_text("utf-8"))}
    named = set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL)))
    named = {name for name in named if "<" not in name}
    files = {name for name in named if "/" in name}
    folders = (ROOT, ROOT.parent, ROOT / "checkpoint")
    assert [f for f in sorted(files) if not any((folder / f).exists() for folder in folders)] == []
    told = {word for name in named - files for word in re.findall(r"[a-zA-Z_]\w{2,}", name)}
    assert told - words == set()
    assert {"aput", "of_put", "encode_put", "write_batch", "get_checkpoint"} & told


def test_rooms_import_lower_levels_only() -> None:
    """Data flows down: what a lower room needs of a higher one comes as a value or a Protocol."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {other}"
        for room, path, tree in modules()
        for other, _, _ in imports(tree)
        if other != room and LEVEL_OF[other] >= LEVEL_OF[room]
    ]
    assert wrong == []


def test_rooms_know_each_others_front_only() -> None:
    """Of another package only what its `__init__` gives, and nothing private."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {other}.{rest} {name}"
        for room, path, tree in modules()
        for other, rest, names in imports(tree)
        for name in names or [""]
        if other != room and (rest or name.startswith("_"))
    ]
    assert wrong == []


def private_names(tree: ast.AST) -> set[str]:
    """What private attributes, methods and functions a module makes."""
    made = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            made.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            made.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            made.add(node.id)
    return made


def test_nobody_touches_another_rooms_private_names() -> None:
    """`something._name` is of the room where `_name` is made."""
    made: dict[str, set[str]] = {}
    for room, _, tree in modules():
        made.setdefault(room, set()).update(private_names(tree))
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}"
        for room, path, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.endswith("_")  # an enum's own, and Python's
        and path.name != "_langgraph.py"
        and node.attr not in made[room] | FOREIGN
    ]
    assert wrong == []


@pytest.mark.parametrize("package", sorted(path.parent.name for path in ROOT.glob("*/__init__.py")))
def test_no_module_is_hidden_by_a_name_of_its_front(package: str) -> None:
    """`import package.x` and `from package import x` never mean two things."""
    front = importlib.import_module(f"{PACKAGE}.{package}")
    inside = {path.stem for path in (ROOT / package).glob("*.py")}
    assert not inside & set(getattr(front, "__all__", ()))


def test_private_names_of_langgraph_stand_in_one_module() -> None:
    """What a new LangGraph may change without telling is looked for in `_langgraph.py`."""
    wrong = []
    for _, path, tree in modules():
        for node in ast.walk(tree):
            words: list[str] = []
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lang"):
                words = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
                words = [] if words[0] == PACKAGE else words
            elif isinstance(node, ast.Constant) and str(node.value).startswith("__pregel"):
                words = [str(node.value)]
            if path.name != "_langgraph.py" and any(word.startswith("_") for word in words):
                wrong.append(f"{path.relative_to(ROOT)}: {words}")
    assert wrong == []


def test_what_stands_in_a_config_is_found_by_one_rule() -> None:
    """`configurable_of`: what is empty by its own word may have something in it all the same.

    LangGraph's own config of a run is read in `_langgraph.py`.
    """
    reading = re.compile(r"""\.get\("(configurable)"\)""")
    found = {room for room, path, _ in modules() if reading.search(path.read_text("utf-8"))}
    assert found == {"threads", "_langgraph"}


def test_private_names_in_a_docstring_are_there() -> None:
    """A function that got another name has it where others speak of it, too."""
    told, made = set(), {"sql"}
    for _, path, tree in modules():
        made |= {room_of(path), path.stem} | private_names(tree)
        told |= set(re.findall(r"`(_[a-z]\w*[a-z])`", path.read_text("utf-8")))
    assert told - made == set()


def test_the_front_has_the_main_class_of_each_system() -> None:
    """By the name of its own package, and without loading LangGraph before it is asked for."""
    asked = "import sys, langgraph_pgsaga; print('langgraph' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    for name in langgraph_pgsaga.__all__:
        assert getattr(langgraph_pgsaga, name) is not None
    assert langgraph_pgsaga.EventStore is events.EventStore
    assert langgraph_pgsaga.Worker is work.Worker
    with pytest.raises(AttributeError, match="has no attribute 'EventStor'"):
        _ = langgraph_pgsaga.EventStor  # type: ignore[attr-defined]
