"""`pgsaga migrate`: make and update the tables."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from langgraph_pgsaga import migrate
from langgraph_pgsaga.database import Database

app = typer.Typer(
    help="Make and update the tables.\n\nThe database is --dsn's, else PGSAGA_DSN's, else the "
    "embedded server's in .pgsaga/ (or PGSAGA_EMBEDDED_PATH).",
    no_args_is_help=True,
)

Dsn = Annotated[
    str | None,
    typer.Option(
        envvar="PGSAGA_DSN",
        show_envvar=True,
        help="postgresql://user@host:5432/database; the password may come from PGPASSWORD.",
    ),
]
Schema = Annotated[
    str | None, typer.Option(help="The tables' schema; without it the search_path decides.")
]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]


@app.command()
def up(dsn: Dsn = None, schema: Schema = None) -> None:
    """Apply what is pending. Safe to run at every start, by many processes at once.

    Example: pgsaga migrate up --dsn postgresql://app@db:5432/agents --schema agents
    """
    with _database(dsn, schema) as db:
        applied = db.portal.call(
            migrate.migrate, db, on_applied=lambda m: print(f"applied {m.name}", flush=True)
        )
        if not applied:
            print("nothing to do: the tables are up to date")


@app.command()
def status(dsn: Dsn = None, schema: Schema = None, as_json: Json = False) -> None:
    """Show which migrations are applied, and which are pending (exit code 3 if any is).

    Example: pgsaga migrate status --json
    """
    with _database(dsn, schema) as db:
        found = db.portal.call(migrate.status, db)
    rows = [(s.migration.name, s.applied_at.isoformat() if s.applied_at else None) for s in found]
    if as_json:
        print(json.dumps([{"name": name, "applied_at": at} for name, at in rows]))
    else:
        table = Table("migration", "applied")
        for name, at in rows:
            table.add_row(name, at or "pending")
        Console().print(table)
    if any(at is None for _, at in rows):
        raise typer.Exit(3)


@app.command()
def sql(dsn: Dsn = None, schema: Schema = None) -> None:
    """Print the SQL that `up` would run now, to review it or to run it with psql.

    Example: pgsaga migrate sql | psql postgresql://dba@db:5432/agents
    """
    with _database(dsn, schema) as db:
        pending = db.portal.call(migrate.pending_sql, db)
    print(pending or "-- nothing to do: the tables are up to date\n", end="")


def _database(dsn: str | None, schema: str | None) -> Database:
    if dsn or os.environ.get("PGSAGA_DSN"):
        return Database(dsn, schema=schema)
    return Database.embedded(schema=schema)
