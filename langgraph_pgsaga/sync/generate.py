"""The classes for sync callers, written from the async ones by `make docs`.

They are files, not made at run time, so that editors and type checkers see them. What an async
class has to be: in the front of its room, with its Database as `db`; its public methods are
coroutines, async generators, plain methods or properties.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

# A line for each room: its classes that sync callers have, too.
CLASSES = {
    "langgraph_pgsaga.events": ["DeadLetters", "EventStore"],
    "langgraph_pgsaga.memory": ["AgentMemory"],
    "langgraph_pgsaga.messages": ["Messages"],
    "langgraph_pgsaga.sessions": ["Sessions"],
}
# Functions that are written by hand, by module.
FUNCTIONS = {"step_is_stored": "steps"}

_HERE = Path(__file__).resolve().parent
_FRONT = '''\
"""The systems for sync callers: the same classes, without await and connections.

Each call goes through the database's own thread, as the saver's sync methods do. It may be made
anywhere but on that thread: a function that is passed in, such as `on_progress`, is called there,
so it may call nothing of the package that is sync; a file object is written to there.

Made from the async classes by `make docs`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
{imports}

__all__ = [{names}]

if not TYPE_CHECKING:
    # Who wants one system doesn't load the others.
    _MODULES = {{{modules}}}

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {{__name__!r}} has no attribute {{name!r}}")
        found = getattr(importlib.import_module(f"{{__name__}}.{{_MODULES[name]}}"), name)
        globals()[name] = found
        return found
'''
_ITERATORS = {"AsyncIterator", "AsyncIterable", "AsyncGenerator"}
# `conn: ...` of a docstring's Args, with the lines that belong to it.
_CONN_ENTRY = re.compile(r"\n( +)conn: .*(?:\n\1 +.*)*")
_STEP_ENTRY = r"\n\1conn: this_step(), in a node: it is done with the node's result."

Method = ast.AsyncFunctionDef | ast.FunctionDef
Import = tuple[str, str, str | None]


def pages() -> dict[Path, str]:
    """Every file that is generated, as it should be."""
    made = {_HERE / "__init__.py": _front()}
    for room, names in CLASSES.items():
        made[_HERE / f"{room.rpartition('.')[2]}.py"] = module(room, names)
    return made


def module(room: str, names: Sequence[str]) -> str:
    """The module of a room's classes, formatted."""
    front = importlib.import_module(room)
    imports: set[Import] = {("__future__", "annotations", None)}
    classes = []
    for name in names:
        made, needed = _class(getattr(front, name), room)
        classes.append(ast.unparse(made))
        imports |= needed
    lines = [_import_line(found) for found in sorted(imports, key=str)]
    head = f'"""{", ".join(names)} for sync callers, made from `{room}` by `make docs`."""'
    return _formatted("\n".join([head, *lines, *classes]))


def _front() -> str:
    homes = {name: room.rpartition(".")[2] for room, names in CLASSES.items() for name in names}
    homes |= FUNCTIONS
    lines = [f"    from langgraph_pgsaga.sync.{home} import {name}" for name, home in homes.items()]
    return _formatted(
        _FRONT.format(
            imports="\n".join(lines),
            names=", ".join(f'"{name}"' for name in sorted(homes)),
            modules=", ".join(f'"{name}": "{home}"' for name, home in homes.items()),
        )
    )


def _class(cls: type, room: str) -> tuple[ast.ClassDef, set[Import]]:
    """The sync class, and what its signatures need to be imported."""
    name = cls.__name__
    # With what it has from other classes of its room.
    bases = [one for one in cls.__mro__[1:] if one.__module__.startswith(f"{room}.")]
    definitions = [_definition(one) for one in (*reversed(bases), cls)]
    homes = {
        node.name: (node, tree)
        for tree, body in definitions
        for node in body
        if isinstance(node, Method)
    }
    shown = _attributes([node for node, _ in homes.values()], name)
    made: list[ast.FunctionDef] = []
    imports: set[Import] = set()
    for node, tree in homes.values():
        if _is_public(node, name):
            made.append(_method(node, name, shown))
            imports |= set(_imports(made[-1:], tree, room))
    told = f"{inspect.cleandoc(cls.__doc__ or '').split(chr(10) * 2)[0]}\n\n"
    told = (told + f"`{room}.{name}` for sync callers.").replace("\n", "\n    ")
    made_class = ast.ClassDef(
        name=name,
        bases=[],
        keywords=[],
        decorator_list=[],
        body=[_text(told.replace("\n    \n", "\n\n") + "\n    "), *made],
    )
    own: Import = (room, name, None)  # of which the class itself takes the place
    imports = {*imports, (room, name, f"Async{name}")} - {own}
    return ast.fix_missing_locations(made_class), imports


def _definition(cls: type) -> tuple[ast.Module, list[ast.stmt]]:
    """The module that a class is written in, and its body there."""
    tree = ast.parse(Path(inspect.getfile(cls)).read_text("utf-8"))
    name = cls.__name__
    found = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name)
    return tree, found.body


def _is_public(method: Method, cls: str) -> bool:
    if method.name.startswith("__") and method.name != "__init__":
        raise TypeError(
            f"{cls}.{method.name} can't be generated: write what it is for sync callers"
        )
    return method.name == "__init__" or not method.name.startswith("_")


def _attributes(methods: list[Method], cls: str) -> list[str]:
    """The public ones that `__init__` sets, which the sync object shows as well."""
    found = {
        node.attr: None
        for method in methods
        if method.name == "__init__"
        for node in ast.walk(method)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and not node.attr.startswith("_")
    }
    if "db" not in found:
        raise TypeError(f"{cls} can't be generated: its `db` is what calls go through")
    return list(found)


def _method(method: Method, cls: str, shown: list[str]) -> ast.FunctionDef:
    """The method as sync callers have it."""
    made = ast.FunctionDef(
        name=method.name,
        args=_without_conn(method.args),
        body=[],
        decorator_list=method.decorator_list,
        returns=method.returns,
    )
    if (told := ast.get_docstring(method, clean=False)) is not None:
        takes_step = any(arg.arg == "conn" for arg in made.args.kwonlyargs)
        told = _CONN_ENTRY.sub(_STEP_ENTRY if takes_step else "", told)
        made.body.append(_text(told))
    if method.name == "__init__":
        made.body += _constructor(made.args, cls, shown)
        return made
    target = _attribute("self", "_async", method.name)
    decorators = [ast.unparse(decorator) for decorator in method.decorator_list]
    if decorators == ["classmethod"] and ast.unparse(method.returns or made) == cls:
        made.body += _other_constructor(made, cls, shown)
        return made
    if decorators == ["property"]:
        answer: ast.expr = target
    elif decorators:
        raise TypeError(f"{cls}.{method.name} can't be generated: it is a {decorators[0]}")
    elif (items := _items_of(method)) is not None:
        made.returns = items
        answer = _call(_attribute("self", "db", "portal", "iterate"), made.args, target)
    elif isinstance(method, ast.AsyncFunctionDef):
        answer = _call(_attribute("self", "db", "portal", "call"), made.args, target)
    else:
        answer = _call(target, made.args)
    is_nothing = isinstance(made.returns, ast.Constant) and made.returns.value is None
    made.body.append(ast.Expr(answer) if is_nothing else ast.Return(answer))
    return made


def _constructor(args: ast.arguments, cls: str, shown: list[str]) -> Iterator[ast.stmt]:
    """Makes the async object, and shows its public attributes."""
    made = _call(ast.Name(f"Async{cls}"), args)
    yield ast.Assign([_attribute("self", "_async")], made, lineno=0)
    yield from _showing("self", shown)


def _other_constructor(made: ast.FunctionDef, cls: str, shown: list[str]) -> Iterator[ast.stmt]:
    """Makes the object around what the async class's constructor of that name makes."""
    empty = ast.Call(_attribute("cls", "__new__"), [ast.Name("cls")], [])
    inside = _call(_attribute(f"Async{cls}", made.name), made.args)
    yield ast.Assign([ast.Name("made")], empty, lineno=0)
    yield ast.Assign([_attribute("made", "_async")], inside, lineno=0)
    yield from _showing("made", shown)
    yield ast.Return(ast.Name("made"))


def _showing(made: str, shown: list[str]) -> Iterator[ast.stmt]:
    for name in shown:
        value = _attribute(made, "_async", name)
        yield ast.Assign([_attribute(made, name)], value, lineno=0)


def _items_of(method: Method) -> ast.expr | None:
    """`Iterator[X]` where the method gives an `AsyncIterator[X]`."""
    returns = method.returns
    if not isinstance(returns, ast.Subscript) or ast.unparse(returns.value) not in _ITERATORS:
        return None
    if isinstance(method, ast.AsyncFunctionDef) and not any(
        isinstance(node, ast.Yield) for node in ast.walk(method)
    ):
        raise TypeError(f"{method.name} can't be generated: it must be an async generator")
    item = returns.slice.elts[0] if isinstance(returns.slice, ast.Tuple) else returns.slice
    return ast.Subscript(ast.Name("Iterator"), item)


def _without_conn(args: ast.arguments) -> ast.arguments:
    """Without a connection, which belongs to a loop; a Step may come from a sync node, too."""
    kept = [
        (_of_step(arg), default)
        for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)
        if arg.arg != "conn" or _takes_step(arg)
    ]
    return ast.arguments(
        posonlyargs=args.posonlyargs,
        args=args.args,
        vararg=args.vararg,
        kwonlyargs=[arg for arg, _ in kept],
        kw_defaults=[default for _, default in kept],
        kwarg=args.kwarg,
        defaults=args.defaults,
    )


def _takes_step(arg: ast.arg) -> bool:
    return arg.annotation is not None and "Step" in ast.unparse(arg.annotation).split(" | ")


def _of_step(arg: ast.arg) -> ast.arg:
    if arg.arg != "conn":
        return arg
    return ast.arg("conn", ast.parse("Step | None", mode="eval").body)


def _call(function: ast.expr, args: ast.arguments, *first: ast.expr) -> ast.Call:
    """A call that passes on what the method is given."""
    named = [*args.posonlyargs, *args.args][1:]
    positional: list[ast.expr] = [*first, *(ast.Name(arg.arg) for arg in named)]
    if args.vararg is not None:
        positional.append(ast.Starred(ast.Name(args.vararg.arg)))
    keywords = [ast.keyword(arg.arg, ast.Name(arg.arg)) for arg in args.kwonlyargs]
    if args.kwarg is not None:
        keywords.append(ast.keyword(None, ast.Name(args.kwarg.arg)))
    return ast.Call(function, positional, keywords)


def _attribute(name: str, *attributes: str) -> ast.expr:
    found: ast.expr = ast.Name(name)
    for attribute in attributes:
        found = ast.Attribute(found, attribute)
    return found


def _text(docstring: str) -> ast.stmt:
    return ast.Expr(ast.Constant(docstring))


def _imports(methods: Sequence[ast.FunctionDef], tree: ast.Module, room: str) -> Iterator[Import]:
    """What the signatures name, from where the async class has it; of rooms from their fronts."""
    known: dict[str, Import] = {"Iterator": ("collections.abc", "Iterator", None)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            home = _front_of(node.module or "") if isinstance(node, ast.ImportFrom) else ""
            for alias in node.names:
                known[alias.asname or alias.name] = (home, alias.name, alias.asname)
    for method in methods:
        signature = ast.unparse(
            ast.FunctionDef("f", method.args, [ast.Pass()], [], method.returns, lineno=0)
        )
        for node in ast.walk(ast.parse(signature)):
            if isinstance(node, ast.Name) and not hasattr(builtins, node.id):
                yield known.get(node.id, (room, node.id, None))


def _front_of(name: str) -> str:
    package, *rest = name.split(".")
    return ".".join([package, *rest[:1]]) if package == "langgraph_pgsaga" else name


def _import_line(found: Import) -> str:
    home, name, other = found
    line = f"from {home} import {name}" if home else f"import {name}"
    return f"{line} as {other}" if other else line


def _formatted(text: str) -> str:
    """As ruff, with the settings of the repository, leaves it."""
    # For a name that is relative, ruff looks for no settings.
    name = f"--stdin-filename={_HERE / 'made.py'}"
    for command in (["check", "--select=I", "--fix"], ["format"]):
        text = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--quiet", name, "-"],
            input=text,
            capture_output=True,
            check=True,
            encoding="utf-8",
        ).stdout
    return text


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, "utf-8")
