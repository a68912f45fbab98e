"""The database that a command works on, and the options that say which."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langgraph_pgsaga.cli import values
from langgraph_pgsaga.errors import EmbeddedServerError

if TYPE_CHECKING:
    from langgraph_pgsaga.checkpoint import PostgresSaver
    from langgraph_pgsaga.database import Database
    from langgraph_pgsaga.tenants import TenantScope

Dsn = Annotated[
    str | None,
    typer.Option(
        envvar="PGSAGA_DSN",
        show_envvar=True,
        metavar="DSN",
        help="postgresql://user@host:5432/database; the password may come from PGPASSWORD. "
        "Without it, the embedded server in .pgsaga (or PGSAGA_EMBEDDED_PATH).",
    ),
]
Schema = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The tables' schema; without it the search_path decides."),
]
Tenant = Annotated[
    str | None,
    typer.Option(
        metavar="TENANT",
        callback=values.tenant,
        help="Only this tenant's; without it, those of no tenant.",
    ),
]
AllTenants = Annotated[bool, typer.Option("--all-tenants", help="Those of every tenant.")]
Imports = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        metavar="MODULE",
        help="Import this module, found from here, which defines types of the state. Repeatable.",
    ),
]

_PYTHONS_OWN = (AttributeError, ImportError, NameError, SyntaxError)


@contextmanager
def opened(
    dsn: str | None, schema: str | None, tenant: str | None = None, *, make: bool = False
) -> Iterator[Database]:
    """The database of --dsn and --schema, whose everything is that of --tenant.

    An embedded server is made only where `make` says so: a command that looks would else
    leave one in each folder that it is called from by mistake.
    """
    from langgraph_pgsaga.database import Database

    if dsn == "":  # of a variable that isn't set, say
        raise typer.BadParameter("is empty; leave it out to use PGSAGA_DSN", param_hint="--dsn")
    if dsn is not None:
        # As behind a pooler, which may be there: a command has no use for prepared statements.
        db = Database(dsn, schema=schema, pooler=True, tenant=tenant or "")
    else:
        if not make:
            _refuse_to_make()
        db = Database.embedded(schema=schema, tenant=tenant or "")
    with db:
        yield db


@contextmanager
def opened_saver(
    dsn: str | None,
    schema: str | None,
    imports: Sequence[str] | None = None,
    tenant: str | None = None,
) -> Iterator[PostgresSaver]:
    """A saver for looking: types that aren't loaded come as placeholders."""
    from langgraph_pgsaga.checkpoint import PostgresSaver

    import_modules(imports)
    with opened(dsn, schema, tenant) as db:
        yield PostgresSaver(db, lenient=True)


def scope_of(tenant: str | None, *, all_tenants: bool) -> TenantScope:
    """What --all-tenants says; None leaves it to --tenant."""
    if not all_tenants:
        return None
    if tenant is not None:
        problem = "and --tenant can't both be so"
        raise typer.BadParameter(problem, param_hint="--all-tenants")
    from langgraph_pgsaga.tenants import ALL

    return ALL


def import_modules(names: Sequence[str] | None) -> None:
    """Imports the modules that --import names, also from the current folder."""
    if names and "" not in sys.path:
        sys.path.insert(0, "")
    for name in names or ():
        try:
            importlib.import_module(name)
        except Exception as error:
            # Others than Python's own may quote anything, as a connection string.
            told = f": {error}" if isinstance(error, _PYTHONS_OWN) else ""
            problem = f"{name} can't be imported: {type(error).__name__}{told}"
            raise typer.BadParameter(problem, param_hint="--import") from error


def imported(target: str, *, metavar: str, problem: str) -> Any:
    """What `module:attribute` names, found from the current folder, too; `problem` is told of what
    isn't of that form."""
    from langgraph_pgsaga.work import described

    module, _, attribute = target.partition(":")
    if not module or not attribute:
        raise typer.BadParameter(f"{target!r} {problem}", param_hint=metavar)
    if "/" in module or module.endswith(".py"):
        name = module.removesuffix(".py").strip("./").replace("/", ".")
        told = f"{module!r} is a file; write the module's name, {name}:{attribute}"
        raise typer.BadParameter(told, param_hint=metavar)
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module)
        for name in attribute.split("."):
            found = getattr(found, name)
    except Exception as error:
        # Others than Python's own may quote anything, as a connection string.
        is_shown = isinstance(error, _PYTHONS_OWN)
        told = f"{type(error).__name__}: {error}" if is_shown else described(error)
        raise typer.BadParameter(
            f"{target} can't be imported: {told}", param_hint=metavar
        ) from error
    return found


def _refuse_to_make() -> None:
    from langgraph_pgsaga.embedded import default_path

    if not (default_path() / "data").is_dir():
        problem = (
            "there is none. Pass --dsn or set PGSAGA_DSN to use another server, "
            "or make one with `pgsaga migrate up`"
        )
        raise EmbeddedServerError(path=os.fspath(default_path()), problem=problem)
