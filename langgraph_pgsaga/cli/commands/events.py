"""`pgsaga events`: what happened, by aggregate or as it comes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langgraph_pgsaga._text import shown
from langgraph_pgsaga.cli import values
from langgraph_pgsaga.cli.connection import Dsn, Schema, Tenant, opened
from langgraph_pgsaga.cli.options import After, Json
from langgraph_pgsaga.cli.output import json_lines_out, note, shown_time, write_json, write_line
from langgraph_pgsaga.cli.table import write_table

if TYPE_CHECKING:
    from langgraph_pgsaga.events import AgentEvent
    from langgraph_pgsaga.sync import EventStore

app = typer.Typer(help="Show events, by aggregate or as they come.", no_args_is_help=True)

_COLUMNS = ("version", "time (UTC)", "type", "data")
_LONGEST_DATA = 200

_Aggregate = Annotated[str, typer.Argument(metavar="AGGREGATE", help="The aggregate's id.")]
_AggregateType = Annotated[
    str | None,
    typer.Option(metavar="TYPE", help="The aggregate's type, where several have the id."),
]
_Type = Annotated[
    list[str] | None,
    typer.Option("--type", metavar="TYPE", help="Only events of this type. Repeatable."),
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
    else:
        note("no events")


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
