"""`pgsaga history`: what a thread's runs did."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langgraph_pgsaga.cli.checkpoints import history_of
from langgraph_pgsaga.cli.connection import Dsn, Schema, Tenant, opened_saver
from langgraph_pgsaga.cli.options import Json, Namespace, ThreadId
from langgraph_pgsaga.cli.output import note, shown_id, shown_time, write_json
from langgraph_pgsaga.cli.table import write_table

if TYPE_CHECKING:
    from langgraph_pgsaga.timetravel import Step

_COLUMNS = (
    "step", "source", "time (UTC)", "nodes", "changed", "next", "branch", "name", "checkpoint",
)  # fmt: skip

_MOST = 1_000_000
_Limit = Annotated[int, typer.Option(min=1, max=_MOST, metavar="N", help="How many at most.")]


def history(
    thread: ThreadId,
    limit: _Limit = 50,
    ns: Namespace = "",
    dsn: Dsn = None,
    schema: Schema = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """List a thread's checkpoints, newest first.

    For each: the nodes that ran, the channels that changed, the nodes that come next. Branch 0
    leads to the latest state, the others ended elsewhere. A terminal shows the beginnings of
    ids, which other commands take, too.

    \b
    Examples:
      pgsaga history order-1
      pgsaga history order-1 --limit 1000 --json
    """
    with opened_saver(dsn, schema, tenant=tenant) as saver:
        steps = history_of(saver, thread, ns)
        found = list(islice(steps, limit))
        has_more = len(steps[limit : limit + 1]) > 0
    if as_json:
        document = {"thread_id": thread, "checkpoint_ns": ns, "has_more": has_more}
        write_json({**document, "checkpoints": list(map(plain_step, found))})
        return
    if found:
        write_table(_COLUMNS, map(_cells, found))
    else:
        note("no checkpoints")
    if has_more:
        note(f"there are more: --limit {min(limit * 10, _MOST)}")


def plain_step(step: Step) -> dict[str, Any]:
    """A checkpoint without its values, as JSON has it."""
    return {
        "checkpoint_id": step.checkpoint_id,
        "parent_checkpoint_id": step.parent_checkpoint_id,
        "step": step.step,
        "source": step.source,
        "created_at": step.created_at,
        "name": step.name,
        "nodes": list(step.nodes),
        "changed": list(step.changed),
        "next": list(step.next),
        "is_interrupted": step.is_interrupted,
        "has_error": step.has_error,
        "branch": step.branch,
    }


def _cells(step: Step) -> tuple[str, ...]:
    marks = ["(interrupted)"] * step.is_interrupted + ["(failed)"] * step.has_error
    return (
        "" if step.step is None else str(step.step),
        step.source or "",
        shown_time(step.created_at),
        ", ".join(step.nodes),
        ", ".join(step.changed),
        " ".join([", ".join(step.next), *marks]).strip(),
        str(step.branch),
        step.name or "",
        shown_id(step.checkpoint_id),
    )
