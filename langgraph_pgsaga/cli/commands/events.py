"""`pgsaga events`: what happened, by aggregate or as it comes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langgraph_pgsaga._text import shown
from langgraph_pgsaga.cli import values
from langgraph_pgsaga.cli.commands.consumers import consumers, dead_letters
from langgraph_pgsaga.cli.connection import Dsn, Schema, Tenant, opened
from langgraph_pgsaga.cli.options import After, Json
from langgraph_pgsaga.cli.output import (
    ExitCode,
    counted,
    json_lines_out,
    note,
    progress,
    shown_time,
    write_json,
    write_line,
)
from langgraph_pgsaga.cli.table import write_table

if TYPE_CHECKING:
    from langgraph_pgsaga.events import AgentEvent, Verification
    from langgraph_pgsaga.sync import EventStore

app = typer.Typer(help="Show events, by aggregate or as they come.", no_args_is_help=True)

app.command()(consumers)
app.add_typer(dead_letters, name="dead-letters")

_COLUMNS = ("version", "time (UTC)", "type", "data")
_LONGEST_DATA = 200

_Aggregate = Annotated[str, typer.Argument(metavar="AGGREGATE", help="The aggregate's id.")]
_AggregateType = Annotated[
    str | None,
    typer.Option(metavar="TYPE", help="The aggregate's type, where several have the id."),
]
_Type = Annotated[
    list[str] | None,
    typer.Option(
        "--type",
        metavar="TYPE",
        callback=values.all_utf8,
        help="Only events of this type. Repeatable.",
    ),
]
_Tag = Annotated[
    list[str] | None, typer.Option("--tag", metavar="TAG", help="Only with this tag. Repeatable.")
]
_Since = Annotated[
    datetime | None,
    typer.Option(parser=values.moment, metavar="TIME", help="Which happened then or later; 1h."),
]
_Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")]
_JsonLines = Annotated[bool, typer.Option("--json", help="JSON Lines instead of text.")]
_Root = Annotated[
    str | None,
    typer.Option(metavar="ROOT", help="What an earlier verify printed, and you kept."),
]


@app.command()
def show(
    aggregate: _Aggregate,
    aggregate_type: _AggregateType = None,
    dsn: Dsn = None,
    schema: Schema = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Show an aggregate's events, by version.

    \b
    Example:
      pgsaga events show order-1
    """
    from langgraph_pgsaga.sync import EventStore

    with opened(dsn, schema, tenant) as db:
        found = EventStore(db).get_events(aggregate, aggregate_type=aggregate_type)
    if as_json:
        write_json({"events": list(map(_plain, found))})
    elif found:
        write_table(_COLUMNS, [_cells(event) for event in found])
    if not found:
        note(f"no events of {aggregate!r}. Check the id, --dsn, --schema and --tenant")
        raise typer.Exit(ExitCode.ERROR)


@app.command()
def tail(
    type_: _Type = None,
    tag: _Tag = None,
    since: _Since = None,
    after: After = None,
    follow: _Follow = False,
    dsn: Dsn = None,
    schema: Schema = None,
    tenant: Tenant = None,
    as_json: _JsonLines = False,
) -> None:
    """Show the log, in the order in which everybody reads it.

    It begins an hour ago, or where --since or --after says, and ends with what is there; --follow
    goes on until Ctrl-C.

    \b
    Examples:
      pgsaga events tail --follow
      pgsaga events tail --type error_occurred --since 1d
    """
    from langgraph_pgsaga.sync import EventStore

    if since is None and after is None:
        since = values.moment("1h")
    with opened(dsn, schema, tenant) as db:
        for event in _found(EventStore(db), type_ or None, tag or None, since, after, follow):
            if as_json:
                json_lines_out().write(f"{json.dumps(_plain(event), default=str)}\n")
            else:
                _, time, kind, data = _cells(event)
                aggregate = f"{event.aggregate_type} {event.aggregate_id} {event.version}"
                write_line(shown(f"{time}  {kind}  {aggregate}  {data}"))


@app.command()
def verify(
    root: _Root = None,
    dsn: Dsn = None,
    schema: Schema = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Compare the log with its seals: what was changed, taken out or put in.

    Exit code 0 where everything is as it was sealed, 3 where something isn't, or nothing is sealed.
    The root that it prints is one hash of all that is sealed. Keep it where nobody who can change
    the database can change it, and pass it next time: who seals another log anew is found by it.

    \b
    Examples:
      pgsaga events verify
      pgsaga events verify --root "$(cat kept-root)"
    """
    from langgraph_pgsaga.events import SealedRoot
    from langgraph_pgsaga.sync import EventStore

    kept = None if root is None else SealedRoot.parse(root)
    with opened(dsn, schema, tenant) as db, progress() as tell:
        found = EventStore(db).verify(
            root=kept,
            on_progress=lambda state: tell(
                counted(state.events, "event"), state.seals, state.of_seals
            ),
        )
    if as_json:
        write_json(_plain_verification(found))
    else:
        _write_verification(found)
    is_missing = found.seals == 0 and found.unsealed > 0
    if is_missing or not found.is_intact:
        raise typer.Exit(ExitCode.ATTENTION)


def _write_verification(found: Verification) -> None:
    if found.findings:
        rows = [
            (str(one.seal or ""), one.kind.value, one.event_id or "", one.problem)
            for one in found.findings
        ]
        write_table(("seal", "what", "event", "how it shows"), rows)
    if (more := found.finding_count - len(found.findings)) > 0:
        note(f"and {more:,} more")
    if found.seals == 0 and found.unsealed:
        events = counted(found.unsealed, "event")
        write_line(f"nothing is sealed: {events}, of which nobody can tell whether it was changed")
        return
    what = "intact" if found.is_intact else counted(found.finding_count, "finding")
    sealed = f"{counted(found.events, 'event')} in {counted(found.seals, 'seal')}"
    write_line(f"{what}: {sealed}, {found.unsealed:,} not sealed yet")
    if found.root is not None:
        write_line(f"root {found.root}")


def _plain_verification(found: Verification) -> dict[str, Any]:
    return {
        "is_intact": found.is_intact,
        "seals": found.seals,
        "events": found.events,
        "unsealed": found.unsealed,
        "finding_count": found.finding_count,
        "findings": [
            {
                "kind": one.kind.value,
                "seal": one.seal,
                "event_id": one.event_id,
                "problem": one.problem,
            }
            for one in found.findings
        ],
        "root": None if found.root is None else str(found.root),
    }


def _found(
    store: EventStore,
    types: list[str] | None,
    tags: list[str] | None,
    since: datetime | None,
    after: str | None,
    follow: bool,
) -> Iterator[AgentEvent]:
    is_last = False
    while not is_last:
        page = store.read_all(after=after, types=types, tags=tags, since=since)
        yield from page.events
        after, is_last = page.next_cursor, page.is_last
    if follow:
        yield from store.subscribe(after=after, types=types, tags=tags)
    else:
        note(f"go on with --after {after}")


def _cells(event: AgentEvent) -> tuple[str, ...]:
    data = json.dumps(event.event_data, ensure_ascii=False)
    cut = data if len(data) <= _LONGEST_DATA else f"{data[: _LONGEST_DATA - 1]}…"
    return (str(event.version), shown_time(event.timestamp), str(event.event_type), cut)


def _plain(event: AgentEvent) -> dict[str, Any]:
    return {
        "event_id": event.event_id,
        "event_type": str(event.event_type),
        "aggregate_id": event.aggregate_id,
        "aggregate_type": event.aggregate_type,
        "version": event.version,
        "event_data": event.event_data,
        "metadata": event.metadata,
        "timestamp": event.timestamp,
        "correlation_id": event.correlation_id,
        "causation_id": event.causation_id,
        "tags": list(event.tags),
        "schema_version": event.schema_version,
        "session_id": event.session_id,
        "checkpoint_id": event.checkpoint_id,
        "recorded_at": event.recorded_at,
        "cursor": event.cursor,
    }
