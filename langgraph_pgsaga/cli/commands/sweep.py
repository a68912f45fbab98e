"""`pgsaga sweep`: what isn't to be kept any longer goes."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from langgraph_pgsaga.cli import values
from langgraph_pgsaga.cli.connection import AllTenants, Dsn, Schema, Tenant, opened, scope_of
from langgraph_pgsaga.cli.options import DryRun, Json, Yes
from langgraph_pgsaga.cli.output import (
    ExitCode,
    confirm,
    counted,
    needs_question,
    progress,
    write_json,
    write_line,
)

if TYPE_CHECKING:
    from langgraph_pgsaga.sessions import SweepResult


_AgentType = Annotated[
    list[str] | None,
    typer.Option(metavar="TYPE", help="The rules are for this agent type. Repeatable."),
]
_MaxIdle = Annotated[
    timedelta | None,
    typer.Option(
        parser=values.duration, metavar="DURATION", help="Delete sessions idle for so long."
    ),
]
_KeepLast = Annotated[
    int | None,
    typer.Option(
        min=1, max=1_000_000, metavar="N", help="Keep so many checkpoints, and what these need."
    ),
]
_KeepNamed = Annotated[
    bool,
    typer.Option(
        "--keep-named/--drop-named",
        help="Keep named checkpoints, and idle sessions that have one.",
    ),
]
_Batch = Annotated[
    int, typer.Option(min=1, max=10_000, metavar="N", help="Sessions in a transaction.")
]


def sweep(
    agent_type: _AgentType = None,
    max_idle: _MaxIdle = None,
    keep_last: _KeepLast = None,
    keep_named: _KeepNamed = True,
    batch: _Batch = 100,
    yes: Yes = False,
    dry_run: DryRun = False,
    dsn: Dsn = None,
    schema: Schema = None,
    tenant: Tenant = None,
    all_tenants: AllTenants = False,
    as_json: Json = False,
) -> None:
    """Delete what has expired, and what the rules don't keep.

    Without --max-idle and --keep-last only what has expired goes. It asks first. What somebody
    else holds just then is left to the next sweep, so any number of them may run at once.

    \b
    Examples:
      pgsaga sweep --max-idle 365d --keep-last 20 --dry-run
      pgsaga sweep --agent-type support --agent-type sales --max-idle 30d --yes
      pgsaga sweep --yes
    """
    from langgraph_pgsaga.sessions import RetentionPolicy
    from langgraph_pgsaga.sync import Sessions

    if agent_type and max_idle is None and keep_last is None:
        problem = "needs --max-idle or --keep-last: what has expired goes whatever its type"
        raise typer.BadParameter(problem, param_hint="--agent-type")
    scope = scope_of(tenant, all_tenants=all_tenants)
    types: list[str | None] = [*dict.fromkeys(agent_type)] if agent_type else [None]
    policies = [
        RetentionPolicy(
            agent_type=name, max_idle=max_idle, keep_last=keep_last, keep_named=keep_named
        )
        for name in types
    ]
    with opened(dsn, schema, tenant) as db:
        sessions = Sessions(db, tenant=scope)
        if dry_run or needs_question(yes=yes):
            found = sessions.sweep(policies, dry_run=True)
            if dry_run:
                _show(found, is_dry=True, as_json=as_json)
                return
            if found.deleted_sessions or found.pruned_sessions:
                confirm(_question(found), yes=yes)
        with progress() as tell:
            done = sessions.sweep(
                policies,
                batch=batch,
                on_progress=lambda result: tell(_text(result, is_dry=False)),
            )
    _show(done, is_dry=False, as_json=as_json)
    if done.damaged_sessions:
        raise typer.Exit(ExitCode.ATTENTION)


def _show(result: SweepResult, *, is_dry: bool, as_json: bool) -> None:
    if as_json:
        write_json({**dataclasses.asdict(result), "dry_run": is_dry})
    else:
        write_line(_text(result, is_dry=is_dry))


def _question(found: SweepResult) -> str:
    deleted = counted(found.deleted_sessions, "session")
    return f"Delete {deleted} and prune up to {found.pruned_sessions:,}?"


def _text(result: SweepResult, *, is_dry: bool) -> str:
    deleted = counted(result.deleted_sessions, "session")
    if is_dry:
        return f"would delete {deleted} and prune up to {result.pruned_sessions:,}"
    checkpoints = counted(result.deleted_checkpoints, "checkpoint")
    text = f"deleted {deleted}, pruned {result.pruned_sessions:,} by {checkpoints}"
    return f"{text}; {result.damaged_sessions:,} damaged" if result.damaged_sessions else text
