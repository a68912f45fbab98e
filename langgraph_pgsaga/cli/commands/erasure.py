"""`pgsaga forget-user`: what is about a user goes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from langgraph_pgsaga.cli import values
from langgraph_pgsaga.cli.connection import Dsn, Schema, Tenant, opened
from langgraph_pgsaga.cli.options import DryRun, Json, Yes
from langgraph_pgsaga.cli.output import (
    confirm,
    counted,
    needs_question,
    note,
    progress,
    write_json,
    write_line,
)
from langgraph_pgsaga.cli.table import write_table

if TYPE_CHECKING:
    from langgraph_pgsaga.erasure import ForgottenUser

_UserId = Annotated[
    str, typer.Argument(metavar="USER", callback=values.user_id, help="The user's id.")
]
_Namespaces = Annotated[
    list[str] | None,
    typer.Option(
        "--namespace",
        metavar="NAMESPACE",
        callback=values.namespaces,
        help="Also the store's items in it and below, such as users.ada. Repeatable.",
    ),
]


def forget_user(
    user_id: _UserId,
    namespace: _Namespaces = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    dsn: Dsn = None,
    schema: Schema = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Erase what is about a user, in every system.

    Those are the user's sessions with all that is of them, memories, and the keys of personal data
    in events. Items of the store don't say whose they are: name their namespaces. It asks first.

    \b
    Examples:
      pgsaga forget-user ada --dry-run
      pgsaga forget-user ada --namespace users.ada --yes
    """
    from langgraph_pgsaga.erasure import forget_user as erase

    namespaces = [tuple(one.split(".")) for one in namespace or ()]
    with opened(dsn, schema, tenant) as db:

        def done(*, dry_run: bool) -> ForgottenUser:
            with progress() as tell:
                return db.portal.call(
                    erase,
                    db,
                    user_id,
                    namespaces=namespaces,
                    dry_run=dry_run,
                    on_progress=lambda so_far: tell(_text(so_far)),
                )

        if dry_run or needs_question(yes=yes):
            found = done(dry_run=True)
            if dry_run:
                _show(found, as_json=as_json)
                return
            if not found.is_empty:
                confirm(f"Delete {_rows(found)} about {user_id}?", yes=yes)
        _show(done(dry_run=False), as_json=as_json)


def _show(result: ForgottenUser, *, as_json: bool) -> None:
    if as_json:
        write_json(dataclasses.asdict(result))
    elif result.is_empty:
        note("nothing is about this user")
    else:
        rows = [(table, f"{count:,}") for table, count in result.rows.items()]
        write_table(("table", "rows"), rows)
        write_line(_text(result))


def _text(result: ForgottenUser) -> str:
    return f"{'would delete' if result.dry_run else 'deleted'} {_rows(result)}"


def _rows(result: ForgottenUser) -> str:
    return counted(sum(result.rows.values()), "row")
