"""`pgsaga sessions`: whose threads there are."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from langgraph_pgsaga._text import shown
from langgraph_pgsaga.cli import values
from langgraph_pgsaga.cli.connection import AllTenants, Dsn, Schema, Tenant, opened, scope_of
from langgraph_pgsaga.cli.options import After, DryRun, Json, ThreadId, Yes
from langgraph_pgsaga.cli.output import confirm, counted, note, shown_time, write_json, write_line
from langgraph_pgsaga.cli.table import write_table
from langgraph_pgsaga.errors import MissingThreadError

if TYPE_CHECKING:
    from langgraph_pgsaga.sessions import Session

app = typer.Typer(help="List, show, expire and delete threads' sessions.", no_args_is_help=True)

_COLUMNS = ("thread", "user", "agent type", "status", "messages", "last active (UTC)", "expires")

Status = Literal["active", "paused", "completed", "failed"]


_User = Annotated[str | None, typer.Option(help="Only this user's.")]
_AgentType = Annotated[str | None, typer.Option(help="Only of this agent type.")]
_Status = Annotated[Status | None, typer.Option(help="Only those that stand there.")]
_Metadata = Annotated[
    dict[str, Any] | None,
    typer.Option(parser=values.json_object, metavar="JSON", help="Metadata that contains it."),
]
_ActiveSince = Annotated[
    datetime | None,
    typer.Option(parser=values.moment, metavar="TIME", help="Active then or later."),
]
_ActiveBefore = Annotated[
    datetime | None,
    typer.Option(parser=values.moment, metavar="TIME", help="Not active since then."),
]
_Text = Annotated[str | None, typer.Option(help="Words in the messages.")]
_Order = Annotated[
    Literal["activity", "priority", "created"],
    typer.Option(help="The latest first; by priority the highest, and of each the oldest."),
]
_Limit = Annotated[int, typer.Option(min=1, max=10_000, metavar="N", help="How many at most.")]


@app.command("list")
def list_sessions(
    user: _User = None,
    agent_type: _AgentType = None,
    status: _Status = None,
    metadata: _Metadata = None,
    active_since: _ActiveSince = None,
    active_before: _ActiveBefore = None,
    text: _Text = None,
    order: _Order = "activity",
    limit: _Limit = 50,
    after: After = None,
    dsn: Dsn = None,
    schema: Schema = None,
    tenant: Tenant = None,
    all_tenants: AllTenants = False,
    as_json: Json = False,
) -> None:
    """List sessions, those that were active last first.

    A TIME is 2026-01-31, 2026-01-31T12:00:00+00:00, or 2d: so long ago.

    \b
    Examples:
      pgsaga sessions list --user ann --active-since 7d
      pgsaga sessions list --status failed --metadata '{"plan": "pro"}' --json
      pgsaga sessions list --text 'refund -invoice'
    """
    from langgraph_pgsaga.sessions import SessionStatus
    from langgraph_pgsaga.sync import Sessions

    scope = scope_of(tenant, all_tenants=all_tenants)
    with opened(dsn, schema, tenant) as db:
        page = Sessions(db, tenant=scope).list(
            user_id=user,
            agent_type=agent_type,
            status=SessionStatus(status) if status else None,
            metadata=metadata,
            active_since=active_since,
            active_before=active_before,
            text=text,
            order=order,
            limit=limit,
            after=after,
        )
    if as_json:
        found = [_plain(session) for session in page.sessions]
        write_json({"sessions": found, "next_cursor": page.next_cursor})
        return
    if page.sessions:
        cells = [
            (*_cells(session), *([session.tenant_id] * all_tenants)) for session in page.sessions
        ]
        write_table((*_COLUMNS, *(["tenant"] * all_tenants)), cells)
    else:
        note("no sessions")
    if page.next_cursor:
        note(f"there are more: --after {page.next_cursor}")


@app.command()
def show(
    thread: ThreadId,
    dsn: Dsn = None,
    schema: Schema = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Show a thread's session.

    \b
    Example: pgsaga sessions show order-1
    """
    from langgraph_pgsaga.sync import Sessions

    with opened(dsn, schema, tenant) as db:
        session = Sessions(db).get(thread)
    if session is None:
        raise MissingThreadError(thread_id=thread)
    plain = _plain(session)
    if as_json:
        write_json(plain)
        return
    for name, value in plain.items():
        text = shown_time(value) if isinstance(value, datetime) else str(value or "-")
        write_line(f"{name:<17} {shown(text)}")


@app.command()
def expire(
    thread: ThreadId,
    within: Annotated[
        timedelta | None,
        typer.Option("--in", parser=values.duration, metavar="DURATION", help="So much later."),
    ] = None,
    at: Annotated[
        datetime | None,
        typer.Option(parser=values.date, metavar="TIME", help="At this time, such as 2026-01-31."),
    ] = None,
    never: Annotated[bool, typer.Option("--never", help="It is kept for good.")] = False,
    dsn: Dsn = None,
    schema: Schema = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Say when a session expires: now, unless told otherwise. The next sweep deletes it then.

    \b
    Examples:
      pgsaga sessions expire order-1 --in 30d
      pgsaga sessions expire order-1 --never
    """
    from langgraph_pgsaga.sync import Sessions

    if (within is not None) + (at is not None) + never > 1:
        raise typer.BadParameter("only one of --in, --at and --never can be so")
    expires_at = None if never else at or datetime.now(UTC) + (within or timedelta())
    with opened(dsn, schema, tenant) as db:
        sessions = Sessions(db)
        if sessions.get(thread) is None:
            raise MissingThreadError(thread_id=thread)
        session = sessions.update(thread, expires_at=expires_at)
    if as_json:
        write_json(_plain(session))
    elif session.expires_at is None:
        write_line(f"{shown(thread)} doesn't expire")
    else:
        write_line(f"{shown(thread)} expires at {shown_time(session.expires_at)} UTC")


@app.command()
def delete(
    threads: Annotated[
        list[str],
        typer.Argument(metavar="THREAD", callback=values.thread_ids, help="The threads' ids."),
    ],
    yes: Yes = False,
    dry_run: DryRun = False,
    dsn: Dsn = None,
    schema: Schema = None,
    tenant: Tenant = None,
) -> None:
    """Delete threads from every table: state, messages and session.

    It asks first. If one of them isn't there, none is deleted.

    \b
    Example: pgsaga sessions delete order-1 order-2
    """
    from langgraph_pgsaga.sync import Sessions

    threads = list(dict.fromkeys(threads))
    with opened(dsn, schema, tenant) as db:
        sessions = Sessions(db)
        for thread in threads:
            if sessions.get(thread) is None:
                raise MissingThreadError(thread_id=thread)
        if dry_run:
            write_line(f"would delete {_count(threads)}")
            return
        confirm(f"Delete {_count(threads)} for good?", yes=yes)
        for thread in threads:
            sessions.delete(thread)
            write_line(f"deleted {shown(thread)}")


def _count(threads: Sequence[str]) -> str:
    one = len(threads) == 1
    return shown(f"thread {threads[0]}") if one else counted(len(threads), "thread")


def _plain(session: Session) -> dict[str, Any]:
    return {**dataclasses.asdict(session), "status": session.status.value}


def _cells(session: Session) -> tuple[str, ...]:
    return (
        session.thread_id,
        session.user_id,
        session.agent_type,
        session.status.value,
        str(session.message_count),
        shown_time(session.last_activity_at),
        shown_time(session.expires_at),
    )
