"""`pgsaga migrate`: make and update the tables."""

from __future__ import annotations

import typer

from langgraph_pgsaga.cli.connection import Dsn, Schema, opened
from langgraph_pgsaga.cli.options import DryRun, Json
from langgraph_pgsaga.cli.output import ExitCode, write, write_json, write_line
from langgraph_pgsaga.cli.table import write_table

app = typer.Typer(help="Make and update the tables.", no_args_is_help=True)


@app.command()
def up(dsn: Dsn = None, schema: Schema = None) -> None:
    """Apply what is pending. Safe to run at every start, by many processes at once.

    \b
    Example: pgsaga migrate up --dsn postgresql://app@db:5432/agents --schema agents
    """
    from langgraph_pgsaga.database import migrate

    with opened(dsn, schema, make=True) as db:
        applied = db.portal.call(migrate, db, on_applied=lambda m: write_line(f"applied {m.name}"))
    if not applied:
        write_line("nothing to do: the tables are up to date")


@app.command()
def status(dsn: Dsn = None, schema: Schema = None, as_json: Json = False) -> None:
    """Show what is applied, and what is pending.

    Exit code 3 if anything is pending.

    \b
    Example: pgsaga migrate status --json
    """
    from langgraph_pgsaga.database import migration_status

    with opened(dsn, schema) as db:
        found = db.portal.call(migration_status, db)
    rows = [(s.name, s.applied_at) for s in found]
    if as_json:
        write_json([{"name": name, "applied_at": at} for name, at in rows])
    else:
        cells = [(name, at.isoformat() if at else "pending") for name, at in rows]
        write_table(("migration", "applied"), cells)
    if any(at is None for _, at in rows):
        raise typer.Exit(ExitCode.ATTENTION)


@app.command()
def sql(dsn: Dsn = None, schema: Schema = None) -> None:
    """Print the SQL that `up` would run, for review or psql.

    \b
    Example: pgsaga migrate sql | psql postgresql://dba@db:5432/agents
    """
    from langgraph_pgsaga.database import pending_sql

    with opened(dsn, schema) as db:
        pending = db.portal.call(pending_sql, db)
    write(pending or "-- nothing to do: the tables are up to date\n")


@app.command()
def distribute(dsn: Dsn = None, schema: Schema = None, dry_run: DryRun = False) -> None:
    """Distribute the tables over the servers of a Citus cluster.

    What is in them goes along, by session: all of a thread is on one server. Readers and
    writers wait until it is done; afterwards applications need Database(distributed=True).
    --dry-run prints the SQL.

    \b
    Example: pgsaga migrate distribute --dsn postgresql://dba@coordinator:5432/agents --dry-run
    """
    from langgraph_pgsaga import distribution

    with opened(dsn, schema) as db:
        if dry_run:
            write(db.portal.call(distribution.distribution_sql, db))
            return
        db.portal.call(distribution.distribute, db)
    write_line("distributed: set PGSAGA_DISTRIBUTED=1, or pass Database(distributed=True)")
