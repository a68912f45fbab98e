"""docs/cli.md, made from the commands' own help by `make docs`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

_WIDTH = 96
_PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
_HEAD = """\
# Command line

`pgsaga` looks after what this package keeps in PostgreSQL. The help below is what
`pgsaga COMMAND --help` prints; `make docs` writes this page.

**Which database.** `--dsn`, else the environment's `PGSAGA_DSN`, else the embedded server in
`.pgsaga` (or `PGSAGA_EMBEDDED_PATH`; where no server can have `.pgsaga`, a folder elsewhere, see
[the database](database.md)). Only `migrate up` and `serve-embedded` make an embedded
server where there is none. Put passwords in `PGPASSWORD` or `~/.pgpass`: other users of the
machine may see a command's arguments. A pooler in transaction mode may stand in between.

**What it prints.** Tables for people; with `--json` one JSON document for programs, whose field
names stay and whose times are ISO 8601. Tables fold their cells on a terminal, or are a list for
each row where it is too narrow; nothing is folded where the output goes to a file. Progress, notes
and errors go to stderr. A connection string with a password that stands where none belongs isn't
shown. Control characters in what was stored are written as escapes, so nothing
stored can give orders to a terminal.

**Exit codes.**

| code | means |
|---|---|
| 0 | done |
| 1 | an error, told on stderr: what isn't there, or can't be reached; a failed check of `doctor`; \
what `import` left; an answer of no |
| 2 | a mistake in the command: a value that can't be used whatever is there, or no file or module \
of that name; an answer that was needed and nobody there to give it |
| 3 | done, and something needs attention: pending migrations, warnings of `doctor`, damaged rows |
| 130 | interrupted by Ctrl-C |
| 141 | the reader of the output went away, as with `| head` |

**What asks first.** `sessions delete` and `sweep`, on a terminal, unless `--yes` is given. Without
a terminal they refuse to go on without `--yes`. `--dry-run` says what they would do.

**Types of the application.** `show` and `diff` don't import the modules that a stored value names.
Such a value is shown as `<shop.state.Plan: {...}>`; `--import shop.state` imports the module first,
found from the current folder or the Python path.

**Encrypted threads.** Commands have no keys. `sessions`, `sweep` and `doctor` need none, and
`messages` lists rows without text; all that reads checkpoints (`history`, `show`, `diff`,
`tree`, `fork`) is refused.

**Completion.** `pgsaga --install-completion` for the current shell, once.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *_sections()])


def _sections() -> Iterator[str]:
    from langgraph_pgsaga.cli import app

    root = typer.main.get_command(app)
    yield from _section(root, typer.Context(root, info_name="pgsaga", terminal_width=_WIDTH))


def _section(command: Any, context: typer.Context) -> Iterator[str]:
    # What --install-completion is for depends on the shell.
    yield f"## {context.command_path}\n\n```\n{command.get_help(context).rstrip()}\n```\n"
    for name, child in getattr(command, "commands", {}).items():
        inner = typer.Context(child, info_name=name, parent=context, terminal_width=_WIDTH)
        yield from _section(child, inner)


if __name__ == "__main__":
    _PAGE.write_text(page(), "utf-8")
