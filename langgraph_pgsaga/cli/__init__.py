"""`pgsaga`: the command line."""

from __future__ import annotations

import sys

import typer

from langgraph_pgsaga.cli.migrate import app as migrate_app
from langgraph_pgsaga.errors import PgSagaError

app = typer.Typer(
    name="pgsaga",
    help="PostgreSQL state for LangGraph.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(migrate_app, name="migrate")


@app.callback()
def _root() -> None:
    """PostgreSQL state for LangGraph."""


def main() -> None:
    """The console script: errors of the package are one line on stderr and exit code 1."""
    try:
        app()
    except PgSagaError as error:
        print(f"pgsaga: {error}", file=sys.stderr)
        sys.exit(1)
