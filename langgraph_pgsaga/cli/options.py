"""Options and arguments that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

from langgraph_pgsaga.cli import values

ThreadId = Annotated[
    str,
    typer.Argument(metavar="THREAD", callback=values.thread_id, help="The thread's id."),
]
# Of options and arguments that `checkpoints.named` reads.
CHECKPOINT_HELP = "A checkpoint's id or its beginning, step, name, or `latest`."
Json = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
Namespace = Annotated[
    str, typer.Option("--ns", metavar="NAMESPACE", help="The subgraph's namespace.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
After = Annotated[
    str | None,
    typer.Option(metavar="CURSOR", help="Go on after the page that gave this cursor."),
]
