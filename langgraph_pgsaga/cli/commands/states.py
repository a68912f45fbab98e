"""`pgsaga show` and `pgsaga diff`: states, and what changed from one to another."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langgraph_pgsaga._text import shown
from langgraph_pgsaga.cli import checkpoints, values
from langgraph_pgsaga.cli.commands.history import plain_step
from langgraph_pgsaga.cli.connection import Dsn, Imports, Schema, Tenant, opened_saver
from langgraph_pgsaga.cli.options import CHECKPOINT_HELP, Json, Namespace, ThreadId
from langgraph_pgsaga.cli.output import (
    in_lines,
    shown_id,
    shown_time,
    write,
    write_json,
    write_line,
)
from langgraph_pgsaga.errors import MissingCheckpointError

if TYPE_CHECKING:
    from langgraph.checkpoint.base import CheckpointTuple

    from langgraph_pgsaga.checkpoint import PostgresSaver
    from langgraph_pgsaga.timetravel import Change, Step


def show(
    thread: ThreadId,
    checkpoint: Annotated[
        str | None,
        typer.Option(metavar="CHECKPOINT", callback=values.utf8, help=CHECKPOINT_HELP),
    ] = None,
    step: Annotated[
        int | None, typer.Option(metavar="N", help="The superstep; -1 is the input.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", callback=values.utf8, help="What the checkpoint is called."),
    ] = None,
    node: Annotated[
        str | None,
        typer.Option(
            metavar="NODE", callback=values.utf8, help="The last state that this node made."
        ),
    ] = None,
    time: Annotated[
        datetime | None,
        typer.Option(parser=values.moment, metavar="TIME", help="The state as it was then."),
    ] = None,
    ns: Namespace = "",
    imports: Imports = None,
    dsn: Dsn = None,
    schema: Schema = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Show a state: its messages, then the other channels.

    It is the latest, unless the options ask for another. Types of the application are shown as
    placeholders with the type's name, unless --import names the modules that define them.

    \b
    Examples:
      pgsaga show order-1
      pgsaga show order-1 --step 3 --json
      pgsaga show order-1 --node ask_customer --import shop.state
      pgsaga show order-1 --time 2026-01-31T12:00:00+00:00
    """
    from langgraph_pgsaga.timetravel import aopen_errors

    with opened_saver(dsn, schema, imports, tenant) as saver:
        steps = checkpoints.history_of(saver, thread, ns)
        chosen = checkpoints.chosen(
            steps, thread, checkpoint=checkpoint, step=step, name=name, node=node, time=time
        )
        found = _state(saver, thread, chosen)
        errors = saver.db.portal.call(aopen_errors, saver, found)
    if as_json:
        write_json(_plain_state(thread, ns, chosen, found, errors))
    else:
        write(_state_text(thread, chosen, found, errors))


# Or the step -1 would be taken for an option.
DIFF_SETTINGS = {"ignore_unknown_options": True}


def diff(
    thread: ThreadId,
    before: Annotated[
        str, typer.Argument(metavar="BEFORE", callback=values.utf8, help=CHECKPOINT_HELP)
    ],
    after: Annotated[
        str, typer.Argument(metavar="AFTER", callback=values.utf8, help=CHECKPOINT_HELP)
    ] = "latest",
    other_thread: Annotated[
        str | None,
        typer.Option(
            metavar="THREAD", callback=values.thread_id, help="The later state is this thread's."
        ),
    ] = None,
    ns: Namespace = "",
    imports: Imports = None,
    dsn: Dsn = None,
    schema: Schema = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Show what changed from one state to another.

    As lines of +, - and ~. Long values are cut to a line; --json has them whole.

    \b
    Examples:
      pgsaga diff order-1 2 5
      pgsaga diff order-1 'before the refund'
      pgsaga diff order-1 latest latest --other-thread order-1-retry
    """
    from langgraph_pgsaga.timetravel import diff as difference

    for reference in (before, after):
        if reference.startswith("--"):
            raise typer.BadParameter(f"there is no such option: {reference}")
    later_thread = thread if other_thread is None else other_thread
    with opened_saver(dsn, schema, imports, tenant) as saver:
        history = checkpoints.history_of(saver, thread, ns)
        first = checkpoints.named(history, thread, before)
        if other_thread is not None:
            history = checkpoints.history_of(saver, other_thread, ns)
        second = checkpoints.named(history, later_thread, after)
        states = _values(_state(saver, thread, first)), _values(_state(saver, thread, second))
    changes = difference(*states)
    if as_json:
        write_json(
            {
                "before": {"thread_id": thread, **plain_step(first)},
                "after": {"thread_id": later_thread, **plain_step(second)},
                "changes": [_plain_change(change) for change in changes],
            }
        )
        return
    titles = _title(thread, first, "from "), _title(later_thread, second, "to   ")
    write_line(f"{titles[0]}\n{titles[1]}\n")
    write_line("\n".join(shown(str(change)) for change in changes) or "no changes")


def _state(saver: PostgresSaver, thread: str, step: Step) -> CheckpointTuple:
    found = saver.get_tuple(step.config)
    if found is None:
        raise MissingCheckpointError(thread_id=thread)
    return found


def _values(found: CheckpointTuple) -> dict[str, Any]:
    """The graph's own channels."""

    from langgraph_pgsaga._langgraph import DeltaSnapshot, own_values

    values = own_values(found.checkpoint["channel_values"])
    return {n: v.value if type(v) is DeltaSnapshot else v for n, v in values.items()}


def _deltas(found: CheckpointTuple) -> list[str]:
    """Channels whose value only their graph can make."""
    counters: Any = found.metadata.get("counters_since_delta_snapshot")
    if not isinstance(counters, dict):
        return []
    return [str(name) for name in counters if name not in found.checkpoint["channel_values"]]


def _written(found: CheckpointTuple, channel: str) -> list[Any]:
    return [value for _, name, value in found.pending_writes or () if name == channel]


def _interrupts(found: CheckpointTuple) -> list[Any]:
    waiting = _written(found, "__interrupt__")
    every = [
        one for some in waiting for one in (some if isinstance(some, list | tuple) else [some])
    ]
    return [getattr(one, "value", one) for one in every]


def _plain_state(
    thread: str, namespace: str, step: Step, found: CheckpointTuple, errors: Sequence[Any]
) -> dict[str, Any]:
    from langgraph_pgsaga.cli.plain import plain

    return {
        "thread_id": thread,
        "checkpoint_ns": namespace,
        **plain_step(step),
        "interrupts": plain(_interrupts(found)),
        "errors": plain(errors),
        "values": plain(_values(found)),
        "delta_channels": _deltas(found),
        "metadata": plain(found.metadata),
    }


def _plain_change(change: Change) -> dict[str, Any]:
    from langgraph_pgsaga.cli.plain import plain

    return {
        "kind": change.kind.value,
        "path": plain(change.path),
        "place": change.place,
        "before": plain(change.before),
        "after": plain(change.after),
    }


def _title(thread: str, step: Step, before: str = "") -> str:
    parts = [
        f"thread {thread}",
        f"step {step.step}" if step.step is not None else "",
        f"“{step.name}”" if step.name else "",
        f"{shown_time(step.created_at)} UTC" if step.created_at else "",
        f"checkpoint {shown_id(step.checkpoint_id)}",
    ]
    return in_lines(list(filter(None, parts)), before=before)


def _state_text(thread: str, step: Step, found: CheckpointTuple, errors: Sequence[Any]) -> str:
    from langgraph_pgsaga.cli.plain import indented, text

    lines = [_title(thread, step)]
    if step.next:
        lines.append(shown(f"next: {', '.join(step.next)}"))
    lines += [f"waits for an answer to: {indented(text(one))}" for one in _interrupts(found)]
    lines += [f"failed: {indented(text(one))}" for one in errors]
    # Conversations first.
    channels = sorted(_values(found).items(), key=lambda item: not _is_conversation(item[1]))
    for name, value in channels:
        body = "\n".join(f"  {line}" for line in text(value).split("\n"))
        lines.append(f"\n{shown(name)}\n{body}")
    lines += [f"\n{shown(name)}\n  (only its graph can make it)" for name in _deltas(found)]
    return "\n".join(lines) + "\n"


def _is_conversation(value: Any) -> bool:
    from langgraph_pgsaga._message_text import is_message_list

    return is_message_list(value)
