"""`pgsaga events consumers` and `dead-letters`: who follows events, and what failed."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from langgraph_pgsaga._text import shown
from langgraph_pgsaga.cli.connection import Dsn, Schema, Tenant, opened
from langgraph_pgsaga.cli.options import After, Json
from langgraph_pgsaga.cli.output import counted, note, shown_time, write_json, write_line
from langgraph_pgsaga.cli.table import write_table

if TYPE_CHECKING:
    from langgraph_pgsaga.events import ConsumerInfo, DeadLetter

dead_letters = typer.Typer(
    help="Show events that consumers couldn't handle; try them again, or skip them.",
    no_args_is_help=True,
)

_CONSUMERS = ("consumer", "part", "behind", "seconds", "waiting", "dead", "state")
_LETTERS = ("consumer", "aggregate", "version", "event", "attempts", "again (UTC)", "error")
_MOST_COUNTED = 10_000

_Consumer = Annotated[str, typer.Argument(metavar="CONSUMER", help="The consumer's name.")]
_AnyConsumer = Annotated[
    str | None, typer.Argument(metavar="CONSUMER", help="Only those of this consumer.")
]
_Event = Annotated[str, typer.Argument(metavar="EVENT", help="The id of the event that failed.")]
_AnyEvent = Annotated[
    str | None,
    typer.Argument(metavar="EVENT", help="The id of the event that failed; without, all."),
]
_Limit = Annotated[int, typer.Option(min=1, max=10_000, help="How many are shown at most.")]


def consumers(
    dsn: Dsn = None, schema: Schema = None, tenant: Tenant = None, as_json: Json = False
) -> None:
    """Show who follows events, and how far behind each is.

    Behind are events that come after its place, whether it wants them or not, the oldest for so
    many seconds. Waiting are aggregates with an event that failed; the dead of these aren't tried
    any more.

    \b
    Example:
      pgsaga events consumers
    """
    from langgraph_pgsaga.sync import EventStore

    with opened(dsn, schema, tenant) as db:
        found = EventStore(db).list_consumers()
    if as_json:
        write_json({"consumers": [dataclasses.asdict(one) for one in found]})
    elif found:
        write_table(_CONSUMERS, [_consumer_cells(one) for one in found])
    else:
        note("no consumers")


def _consumer_cells(info: ConsumerInfo) -> tuple[str, ...]:
    behind = f"{info.behind:,}+" if info.behind >= _MOST_COUNTED else f"{info.behind:,}"
    is_retired = info.retired_at is not None  # it never goes on, so it isn't late
    return (
        info.name,
        f"{info.partition + 1}/{info.partitions}",
        "" if is_retired else behind,
        "" if is_retired else f"{info.seconds:,.0f}",
        str(info.waiting),
        str(info.dead),
        _state(info),
    )


def _state(info: ConsumerInfo) -> str:
    if info.retired_at is not None:
        return "retired"
    if info.withheld and info.pid is not None:
        return f"waits for pid {info.pid}"
    if info.withheld:
        return "waits for a transaction"
    if info.is_claimed:
        return "at work"
    return info.last_error or ("idle" if not info.behind else "nobody is at it")


@dead_letters.command("list")
def list_(
    consumer: _AnyConsumer = None,
    after: After = None,
    limit: _Limit = 100,
    dsn: Dsn = None,
    schema: Schema = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Show aggregates that wait, each since an event of it failed.

    Those with a time are tried again then, the others are dead letters.

    \b
    Example:
      pgsaga events dead-letters list
    """
    from langgraph_pgsaga.sync import DeadLetters

    with opened(dsn, schema, tenant) as db:
        page = DeadLetters(db).list(consumer, after=after, limit=limit)
    if as_json:
        found = [dataclasses.asdict(one) | {"is_dead": one.is_dead} for one in page.dead_letters]
        write_json({"dead_letters": found, "next_cursor": page.next_cursor})
        return
    if page.dead_letters:
        write_table(_LETTERS, [_letter_cells(one) for one in page.dead_letters])
    else:
        note("no dead letters")
    if page.next_cursor is not None:
        note(f"more: --after {page.next_cursor}")


def _letter_cells(letter: DeadLetter) -> tuple[str, ...]:
    return (
        letter.consumer,
        f"{letter.aggregate_type} {letter.aggregate_id}",
        str(letter.version),
        letter.event_id or "",
        str(letter.attempts),
        "" if letter.due_at is None else shown_time(letter.due_at),
        letter.error or "",
    )


@dead_letters.command()
def retry(
    consumer: _Consumer,
    event: _AnyEvent = None,
    dsn: Dsn = None,
    schema: Schema = None,
    tenant: Tenant = None,
) -> None:
    """Have an event tried again, with all attempts; or all of a consumer's.

    A worker with the consumer does it at once, and what waited for it follows in order.

    \b
    Example:
      pgsaga events dead-letters retry mails 01a2f0c4-77aa-7000-8000-000000000001
    """
    from langgraph_pgsaga.sync import DeadLetters

    with opened(dsn, schema, tenant) as db:
        done = DeadLetters(db).retry(consumer, event)
    write_line(shown(f"{consumer}: {counted(done, 'aggregate')} to be tried again"))


@dead_letters.command()
def skip(
    consumer: _Consumer,
    event: _Event,
    dsn: Dsn = None,
    schema: Schema = None,
    tenant: Tenant = None,
) -> None:
    """Have a consumer never get an event; what waited for it follows.

    \b
    Example:
      pgsaga events dead-letters skip mails 01a2f0c4-77aa-7000-8000-000000000001
    """
    from langgraph_pgsaga.sync import DeadLetters

    with opened(dsn, schema, tenant) as db:
        DeadLetters(db).skip(consumer, event)
    write_line(shown(f"{consumer}: event {event} is skipped"))
