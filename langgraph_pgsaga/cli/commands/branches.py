"""`pgsaga tree` and `pgsaga fork`: a thread's branches, and threads that begin with its past."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from langgraph_pgsaga._text import shown_block
from langgraph_pgsaga.cli import checkpoints, values
from langgraph_pgsaga.cli.commands.history import plain_step
from langgraph_pgsaga.cli.connection import Dsn, Schema, Tenant, opened_saver
from langgraph_pgsaga.cli.options import CHECKPOINT_HELP, Json, Namespace, ThreadId
from langgraph_pgsaga.cli.output import in_lines, note, shown_id, write_json, write_line

if TYPE_CHECKING:
    from langgraph_pgsaga.timetravel import Branch, BranchTree


def tree(
    thread: ThreadId,
    ns: Namespace = "",
    dsn: Dsn = None,
    schema: Schema = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Draw a thread's branches, and where they part.

    The latest is on top, in the first lane. Long ways on which nothing parts are folded; --json
    has every checkpoint.

    \b
    Example: pgsaga tree order-1
    """
    from langgraph_pgsaga.timetravel import branches

    with opened_saver(dsn, schema, tenant=tenant) as saver:
        # Fails where there is no such thread.
        checkpoints.history_of(saver, thread, ns)
        found = branches(saver, {"configurable": {"thread_id": thread, "checkpoint_ns": ns}})
    if as_json:
        write_json(_plain(thread, ns, found))
    elif found.branches:
        write_line(shown_block(str(found)))
    else:
        note("no checkpoints")


def fork(
    thread: ThreadId,
    at: Annotated[
        str,
        typer.Option(metavar="CHECKPOINT", callback=values.utf8, help=CHECKPOINT_HELP),
    ],
    to: Annotated[
        str | None,
        typer.Option(
            metavar="THREAD", callback=values.thread_id, help="The new thread; else THREAD-fork."
        ),
    ] = None,
    dsn: Dsn = None,
    schema: Schema = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Copy a thread up to a checkpoint into a new thread.

    That can go on from there, and the old one isn't touched. Of the latest checkpoint, what its
    tasks wrote comes along, so questions are still open; of an earlier one its tasks have yet
    to run.

    \b
    Examples:
      pgsaga fork order-1 --at 'before the refund' --to order-1-retry
      pgsaga fork order-1 --at 3
    """
    target = to if to is not None else f"{thread}-fork"
    with opened_saver(dsn, schema, tenant=tenant) as saver:
        step = checkpoints.named(checkpoints.history_of(saver, thread), thread, at)
        saver.copy_thread(thread, target, checkpoint_id=step.checkpoint_id)
    if as_json:
        write_json({"thread_id": target, "source_thread_id": thread, **plain_step(step)})
    else:
        parts = [] if step.step is None else [f"step {step.step}"]
        parts.append(f"checkpoint {shown_id(step.checkpoint_id)}")
        parts[0] = f"thread {target} begins with {parts[0]}"
        write_line(in_lines(parts))


def _plain(thread: str, namespace: str, found: BranchTree) -> dict[str, Any]:
    return {
        "thread_id": thread,
        "checkpoint_ns": namespace,
        "branches": list(map(_plain_branch, found.branches)),
        "fork_points": [step.checkpoint_id for step in found.fork_points],
    }


def _plain_branch(branch: Branch) -> dict[str, Any]:
    return {
        "number": branch.number,
        "end": branch.end.checkpoint_id,
        "fork": branch.fork.checkpoint_id if branch.fork else None,
        "checkpoints": list(map(plain_step, branch.steps)),
    }
