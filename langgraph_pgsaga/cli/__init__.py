"""`pgsaga`: the command line.

What takes long to import (LangGraph, the driver) is imported inside the commands, so that
help and completion answer at once.
"""

from __future__ import annotations

import atexit
import gc
import sys
from typing import Annotated, Any

import typer

from langgraph_pgsaga import __version__
from langgraph_pgsaga.cli import errors
from langgraph_pgsaga.cli.commands import (
    branches,
    doctor,
    embedded,
    erasure,
    events,
    history,
    importing,
    memory,
    messages,
    migrate,
    sessions,
    states,
    sweep,
    worker,
)
from langgraph_pgsaga.cli.output import ExitCode, give_up_stdout, note, open_streams, write_line
from langgraph_pgsaga.errors import PgSagaError

app = typer.Typer(
    name="pgsaga",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(migrate.app, name="migrate")
app.add_typer(sessions.app, name="sessions")
app.add_typer(events.app, name="events")
app.add_typer(memory.app, name="memory")
app.command()(history.history)
app.command()(states.show)
app.command(context_settings=states.DIFF_SETTINGS)(states.diff)
app.command()(branches.tree)
app.command()(branches.fork)
app.command()(messages.messages)
app.command()(sweep.sweep)
app.command()(erasure.forget_user)
app.command()(worker.worker)
app.command()(doctor.doctor)
app.command("import")(importing.import_)
app.command()(embedded.serve_embedded)


def _print_version(asked: bool) -> None:
    if asked:
        write_line(f"pgsaga {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version."),
    ] = False,
) -> None:
    """PostgreSQL state for LangGraph.

    The database is --dsn's, else PGSAGA_DSN's, else the embedded server's in .pgsaga.
    Exit codes: 0 done, 1 an error, 2 a mistake in the command, 3 something needs attention
    (pending migrations, warnings), 130 interrupted.
    """


# What the parser raises. Its own package is not always the same.
_UsageError: Any = typer.BadParameter.__bases__[0]


def main() -> None:
    """The console script: errors of the package are one line on stderr."""
    # The last thing that is done: Python's own end would look through all that was imported.
    atexit.register(gc.freeze)
    open_streams()
    try:
        sys.exit(app(prog_name="pgsaga", standalone_mode=False))
    except _UsageError as error:
        text = errors.without_secrets(errors.of_usage(error), sys.argv[1:])
        error.format_message = lambda: text
        error.show()
        sys.exit(ExitCode.USAGE)
    except typer.Abort:
        sys.exit(_told("aborted"))
    except PgSagaError as error:
        _told(errors.told(error))
        sys.exit(errors.exit_code(error))
    except OSError as error:
        give_up_stdout()
        is_output = error.filename is None
        sys.exit(_told(f"the output can't be written: {error}" if is_output else error))
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except SystemExit as end:
        # Typer's own help, of which nobody reads the rest.
        if isinstance(end.__context__, BrokenPipeError):
            give_up_stdout()
            sys.exit(ExitCode.BROKEN_PIPE)
        raise


def _told(error: object) -> ExitCode:
    note(f"pgsaga: {errors.without_secrets(str(error), sys.argv[1:])}")
    return ExitCode.ERROR
