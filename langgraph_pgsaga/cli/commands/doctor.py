"""`pgsaga doctor`: whether the server is fit."""

from __future__ import annotations

import typer

from langgraph_pgsaga.cli.connection import Dsn, Schema, opened
from langgraph_pgsaga.cli.options import Json
from langgraph_pgsaga.cli.output import ExitCode, write_json
from langgraph_pgsaga.cli.table import write_table


def doctor(dsn: Dsn = None, schema: Schema = None, as_json: Json = False) -> None:
    """Check the server and the tables, and say what to do.

    Exit code 0 where all is well, 3 where something warns, 1 where something fails. It writes
    nothing, and may be run at any time.

    \b
    Examples:
      pgsaga doctor
      pgsaga doctor --json | jq '.checks[] | select(.status != "ok")'
    """
    from langgraph_pgsaga.doctor import CheckStatus, diagnose

    with opened(dsn, schema) as db:
        diagnosis = db.portal.call(diagnose, db)
    if as_json:
        checks = [
            {"name": c.name, "status": c.status.value, "found": c.found, "advice": c.advice}
            for c in diagnosis.checks
        ]
        write_json({"status": diagnosis.status.value, "checks": checks})
    else:
        rows = [(c.status.value, c.name, c.found, c.advice) for c in diagnosis.checks]
        write_table(("", "check", "found", "what to do"), rows)
    codes = {CheckStatus.WARN: ExitCode.ATTENTION, CheckStatus.FAIL: ExitCode.ERROR}
    raise typer.Exit(codes.get(diagnosis.status, ExitCode.OK))
