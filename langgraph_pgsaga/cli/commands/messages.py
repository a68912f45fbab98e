"""`pgsaga messages`: what was said, by thread, by filters, by search, to a file."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from langgraph_pgsaga.cli import checkpoints, values
from langgraph_pgsaga.cli.connection import (
    AllTenants,
    Dsn,
    Imports,
    Schema,
    Tenant,
    opened_saver,
    scope_of,
)
from langgraph_pgsaga.cli.options import CHECKPOINT_HELP, After, Json
from langgraph_pgsaga.cli.output import counted, json_lines_out, note, shown_time, write_json
from langgraph_pgsaga.cli.table import write_table
from langgraph_pgsaga.errors import InvalidArgumentError, MissingThreadError

if TYPE_CHECKING:
    from langgraph_pgsaga.checkpoint import PostgresSaver
    from langgraph_pgsaga.messages import MessageHit, MessagePage, MessageRow
    from langgraph_pgsaga.sync import Messages
    from langgraph_pgsaga.tenants import TenantScope

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
_LONGEST_CELL = 200
_COLUMNS = ("thread", "no", "time (UTC)", "role", "message")
_ROWS_ONLY = ("type_", "role", "since", "until", "text", "checkpoint", "after", "export", "full")

_Thread = Annotated[
    str | None,
    typer.Argument(
        metavar="THREAD", callback=values.thread_id, help="Only this thread's; else all threads'."
    ),
]
_Search = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        callback=values.utf8,
        help='Find words: refund -invoice, "lost parcel", tea or coffee.',
    ),
]
_User = Annotated[str | None, typer.Option(metavar="USER", help="With --search: only this user's.")]
_Order = Annotated[Literal["best", "newest"], typer.Option(help="With --search: what comes first.")]
_Type = Annotated[
    list[str] | None,
    typer.Option(
        "--type", metavar="TYPE", callback=values.all_utf8, help="human, ai, tool, ... Repeatable."
    ),
]
_Role = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ROLE",
        callback=values.all_utf8,
        help="user, assistant, system, tool, ... Repeatable.",
    ),
]
_Since = Annotated[
    datetime | None,
    typer.Option(parser=values.moment, metavar="TIME", help="Stored then or later."),
]
_Until = Annotated[
    datetime | None,
    typer.Option(parser=values.moment, metavar="TIME", help="Stored before then."),
]
_Text = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="With these words, in the order of the thread."),
]
_Checkpoint = Annotated[
    str | None,
    typer.Option(
        metavar="CHECKPOINT",
        callback=values.utf8,
        help=f"Only what a state of the thread holds. {CHECKPOINT_HELP}",
    ),
]
_Ns = Annotated[
    str, typer.Option("--ns", metavar="NAMESPACE", help="The namespace of --checkpoint.")
]
_Limit = Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="How many at most.")]
_Export = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Write all of them as JSON Lines; - is stdout."),
]
_Full = Annotated[
    bool, typer.Option("--full", help="With --export: LangChain's form of each, too.")
]


def messages(
    context: typer.Context,
    thread: _Thread = None,
    search: _Search = None,
    user: _User = None,
    order: _Order = "best",
    type_: _Type = None,
    role: _Role = None,
    since: _Since = None,
    until: _Until = None,
    text: _Text = None,
    checkpoint: _Checkpoint = None,
    ns: _Ns = "",
    limit: _Limit = 100,
    after: After = None,
    export: _Export = None,
    full: _Full = False,
    imports: Imports = None,
    dsn: Dsn = None,
    schema: Schema = None,
    tenant: Tenant = None,
    all_tenants: AllTenants = False,
    as_json: Json = False,
) -> None:
    """Read what was said, by thread, filters or search.

    Without a THREAD it is what all threads say. An edited message is there once for each version
    that a checkpoint still holds. A long message is cut in the table; --json and --export have
    it whole.

    \b
    Examples:
      pgsaga messages order-1 --role user --since 7d
      pgsaga messages --search '"lost parcel" -refund' --user ann
      pgsaga messages order-1 --export order-1.jsonl
      pgsaga messages --export - | head
    """
    _check(context, search)
    scope = scope_of(tenant, all_tenants=all_tenants)
    with opened_saver(dsn, schema, imports, tenant) as saver:
        reader = _reader(saver, thread, scope)
        filters: dict[str, Any] = {
            "types": type_ or None, "roles": role or None, "since": since, "until": until,
            "text": text, "checkpoint_id": _id_of(saver, thread, ns, checkpoint),
            "checkpoint_ns": ns,
        }  # fmt: skip
        if search is not None:
            hits = reader.search(search, user_id=user, thread_id=thread, order=order, limit=limit)
            _show_hits(hits, all_tenants=all_tenants, as_json=as_json)
        elif export is not None:
            _export(reader, export, {**filters, "thread_id": thread, "full": full})
        else:
            page = reader.rows(thread, limit=limit, after=after, **filters)
            _show_page(page, all_tenants=all_tenants, as_json=as_json)


def _check(context: typer.Context, search: str | None) -> None:
    """Refuses options that would say nothing together."""
    given = {name for name, value in context.params.items() if value}
    if search is not None and (odd := [name for name in _ROWS_ONLY if name in given]):
        problem = f"has no --{odd[0].strip('_')}; filter with --text instead of --search"
        raise typer.BadParameter(problem, param_hint="--search")
    if search is None and "user" in given:
        raise typer.BadParameter("goes with --search", param_hint="--user")
    if "all_tenants" in given and "thread" in given:
        problem = "goes without a THREAD, which is one tenant's: name that one by --tenant"
        raise typer.BadParameter(problem, param_hint="--all-tenants")
    if "checkpoint" in given and "thread" not in given:
        raise typer.BadParameter("needs a THREAD", param_hint="--checkpoint")
    if "full" in given and "export" not in given:
        raise typer.BadParameter("goes with --export", param_hint="--full")
    if "export" in given and given & {"as_json", "after"}:
        problem = "is JSON Lines of all, so neither --json nor --after goes with it"
        raise typer.BadParameter(problem, param_hint="--export")


def _reader(saver: PostgresSaver, thread: str | None, scope: TenantScope) -> Messages:
    """What reads; MissingThreadError where the thread to be read isn't there."""
    from langgraph_pgsaga.sync import Messages, Sessions

    if thread is not None and Sessions(saver.db).get(thread) is None:
        raise MissingThreadError(thread_id=thread)
    return Messages(saver, tenant=scope)


def _id_of(saver: PostgresSaver, thread: str | None, ns: str, named: str | None) -> str | None:
    """The id of the checkpoint that --checkpoint names."""
    if thread is None or named is None:
        return None
    return checkpoints.named(checkpoints.history_of(saver, thread, ns), thread, named).checkpoint_id


def _export(reader: Messages, target: str, query: dict[str, Any]) -> None:
    if target == "-":
        reader.export(json_lines_out(), **query)
        return
    try:
        count = reader.export(Path(target), **query)
    except InvalidArgumentError as error:
        if error.argument != "file":
            raise
        problem = f"{target} can't be written: {error.problem}"
        raise typer.BadParameter(problem, param_hint="--export") from error
    except OSError as error:
        if error.errno in _DISK_ERRORS:  # no other path would be a better one
            raise
        problem = f"{target} can't be written: {error.strerror}"
        raise typer.BadParameter(problem, param_hint="--export") from error
    note(f"{counted(count, 'message')} in {target}")


def _show_page(page: MessagePage, *, all_tenants: bool, as_json: bool) -> None:
    if as_json:
        found = list(map(_plain, page.rows))
        write_json({"messages": found, "next_cursor": page.next_cursor})
        return
    if page.rows:
        _write([(row, _cut(row.content)) for row in page.rows], all_tenants=all_tenants)
    else:
        note("no messages")
    if page.next_cursor:
        note(f"there are more: --after {page.next_cursor}")


def _write(said: Sequence[tuple[MessageRow, str]], *, all_tenants: bool) -> None:
    cells = [(*_cells(row, text), *([row.tenant_id] * all_tenants)) for row, text in said]
    write_table((*_COLUMNS, *(["tenant"] * all_tenants)), cells)


def _show_hits(hits: Sequence[MessageHit], *, all_tenants: bool, as_json: bool) -> None:
    from langgraph_pgsaga.messages import MATCH_END, MATCH_START

    if as_json:
        found = [
            {
                **_plain(hit.message),
                "user_id": hit.user_id,
                "rank": hit.rank,
                "snippet": hit.snippet,
            }
            for hit in hits
        ]
        write_json({"hits": found})
    elif hits:
        marked = [hit.snippet.replace(MATCH_START, "»").replace(MATCH_END, "«") for hit in hits]
        said = [(hit.message, text) for hit, text in zip(hits, marked, strict=True)]
        _write(said, all_tenants=all_tenants)
    else:
        note("nothing found")


def _plain(row: MessageRow) -> dict[str, Any]:
    """The fields of a line of an export."""
    return {
        "thread_id": row.thread_id,
        "tenant_id": row.tenant_id,
        "message_no": row.message_no,
        "message_id": row.message_id,
        "parent_message_no": row.parent_message_no,
        "type": row.message_type,
        "role": row.role,
        "content": row.content,
        "metadata": row.metadata,
        "created_at": row.created_at,
    }


def _cells(row: MessageRow, said: str) -> tuple[str, ...]:
    calls = row.metadata.get("tool_calls")
    names = [str(call.get("name")) for call in calls] if isinstance(calls, list) else []
    called = _cut(" ".join(f"[calls {name}]" for name in names))
    text = " ".join(filter(None, [said, called]))
    return (row.thread_id, str(row.message_no), shown_time(row.created_at), row.role, text)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 1]}…"
