"""`pgsaga worker`: a process that works in the background, and which ones there are."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import logging
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langgraph_pgsaga.cli.connection import Dsn, Schema, imported, opened
from langgraph_pgsaga.cli.options import Json
from langgraph_pgsaga.cli.output import ExitCode, note, shown_time, write_json
from langgraph_pgsaga.cli.table import write_table

if TYPE_CHECKING:
    from langgraph_pgsaga.work import Worker, WorkerInfo

_COLUMNS = ("worker", "host", "pid", "version", "state", "since (UTC)", "heard (UTC)", "jobs")
_HINT = "MODULE:ATTRIBUTE"
_METAVAR = f"{_HINT}|list"

_Target = Annotated[
    str,
    typer.Argument(
        metavar=_METAVAR,
        help="Where the Worker is, or a function that makes one; or the word list.",
    ),
]
_Port = Annotated[
    int | None,
    typer.Option(min=0, max=65_535, metavar="PORT", help="Serve /healthz and /metrics there."),
]
_Host = Annotated[str, typer.Option(metavar="HOST", help="The address that --port is opened on.")]


def worker(
    context: typer.Context,
    target: _Target,
    port: _Port = None,
    host: _Host = "127.0.0.1",
    dsn: Dsn = None,
    schema: Schema = None,
    as_json: Json = False,
) -> None:
    """Run a worker, or list those there are.

    It runs until SIGTERM or Ctrl-C. The module is found from the current folder, too. Its Worker
    has its own Database; --dsn, --schema and --json are for list. When it is told to stop it takes
    on nothing new, and what runs has the worker's grace time; at a second signal it is given back
    at once. Exit code 0 where it was told to stop, 130 where it was told twice.

    \b
    Examples:
      pgsaga worker app.work:worker
      pgsaga worker app.work:make_worker --port 8080
      pgsaga worker list
    """
    if target == "list":
        _list(dsn, schema, as_json=as_json)
        return
    _check_options_of_list(context)
    found = imported(
        target,
        metavar=_METAVAR,
        problem="is neither MODULE:ATTRIBUTE, such as app.work:worker, nor list",
    )
    # Where the module has set up logging, that stays.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if not asyncio.run(_run(target, found, host, port)):
        raise typer.Exit(ExitCode.INTERRUPTED)


def _check_options_of_list(context: typer.Context) -> None:
    """A --dsn that says where to work would be passed over in silence."""
    for name, option in (("dsn", "--dsn"), ("schema", "--schema"), ("as_json", "--json")):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            problem = "it is for list; a worker works on its own Database, in its module"
            raise typer.BadParameter(problem, param_hint=option)


def _list(dsn: str | None, schema: str | None, *, as_json: bool) -> None:
    from langgraph_pgsaga.work import list_workers

    with opened(dsn, schema) as db:
        found = db.portal.call(list_workers, db)
    if as_json:
        write_json({"workers": [dataclasses.asdict(one) for one in found]})
    elif found:
        write_table(_COLUMNS, [_cells(one) for one in found])
    else:
        note("no workers")


def _cells(info: WorkerInfo) -> tuple[str, ...]:
    state = "draining" if info.draining_at else "working"
    return (
        str(info.worker_id)[:8],
        info.host,
        str(info.pid),
        info.version,
        state if info.is_alive else "dead",
        shown_time(info.started_at),
        shown_time(info.heartbeat_at),
        ", ".join(info.jobs),
    )


async def _made(target: str, found: Any) -> Worker:
    """The Worker itself, or that of a function without arguments, which may be async."""
    from langgraph_pgsaga.work import Worker

    if not isinstance(found, Worker) and callable(found):
        _check_takes_nothing(target, found)
        found = found()
        found = await found if inspect.isawaitable(found) else found
    if not isinstance(found, Worker):
        kind = type(found).__name__
        problem = f"{target} is no Worker, and no function that makes one: it is of type {kind}"
        raise typer.BadParameter(problem, param_hint=_METAVAR)
    return found


def _check_takes_nothing(target: str, function: Callable[..., Any]) -> None:
    try:
        inspect.signature(function).bind()
    except ValueError:
        return  # some builtins have no signature
    except TypeError as error:
        problem = f"{target} is called without arguments: {error}"
        raise typer.BadParameter(problem, param_hint=_METAVAR) from None


async def _run(target: str, found: Any, host: str, port: int | None) -> bool:
    """Whether it ended in its own time."""
    from langgraph_pgsaga.work import serve_health

    made = await _made(target, found)
    async with made.db, AsyncExitStack() as stack:
        task = asyncio.ensure_future(made.run())
        _handle_signals(made.stop, task.cancel)
        if port is not None:
            opened_port = await stack.enter_async_context(serve_health(made, host, port))
            note(f"http://{host}:{opened_port}/healthz and /metrics")
        try:
            await asyncio.wait([task])
            task.result()
        except asyncio.CancelledError:
            return False
    return True


def _handle_signals(stop: Callable[[], None], cancel: Callable[[], object]) -> None:
    """The first signal stops, another one cancels."""
    told: list[int] = []

    def handle(number: int) -> None:
        told.append(number)
        if len(told) == 1:
            note("it ends when what runs is done; once more to give it back now")
            stop()
        else:
            cancel()

    # Ctrl-C is for the foreground: a shell's script has it ignored in its background jobs.
    is_foreground = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    for number in (signal.SIGINT, signal.SIGTERM) if is_foreground else (signal.SIGTERM,):
        asyncio.get_running_loop().add_signal_handler(number, handle, number)
