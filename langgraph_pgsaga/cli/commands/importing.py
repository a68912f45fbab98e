"""`pgsaga import`: threads of another checkpointer."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from langgraph_pgsaga.cli import errors as cli_errors
from langgraph_pgsaga.cli import values
from langgraph_pgsaga.cli.connection import (
    Dsn,
    Imports,
    Schema,
    Tenant,
    import_modules,
    opened,
)
from langgraph_pgsaga.cli.options import DryRun, Json
from langgraph_pgsaga.cli.output import ExitCode, counted, note, progress, write_json, write_line
from langgraph_pgsaga.errors import (
    BlockedTypeError,
    InvalidArgumentError,
    MissingTypeError,
    PgSagaError,
)

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.checkpoint.serde.base import SerializerProtocol

    from langgraph_pgsaga.database import Database
    from langgraph_pgsaga.takeover import ImportProgress, ImportReport, ThreadReport

Saver: TypeAlias = "BaseCheckpointSaver[Any]"
MakeSaver: TypeAlias = "Callable[[SerializerProtocol], Saver]"

_MISSING_PACKAGE = "its saver isn't installed: pip install 'langgraph-pgsaga[import]'"


_Source = Annotated[
    str,
    typer.Option(
        "--from",
        envvar="PGSAGA_IMPORT_FROM",
        show_envvar=True,
        metavar="SOURCE",
        help="sqlite:PATH, or postgres:DSN of langgraph-checkpoint-postgres's tables.",
    ),
]
_Thread = Annotated[
    list[str] | None,
    typer.Option(
        metavar="THREAD", callback=values.thread_ids, help="Only this thread. Repeatable."
    ),
]
_Batch = Annotated[
    int, typer.Option(min=1, max=10_000, metavar="N", help="Checkpoints in memory at once.")
]


def import_(
    source: _Source,
    thread: _Thread = None,
    batch: _Batch = 50,
    dry_run: DryRun = False,
    imports: Imports = None,
    dsn: Dsn = None,
    schema: Schema = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Take threads over from another checkpointer, verified.

    They come with their whole history. Each checkpoint is read back and compared with the
    source, which is only read. What is here already isn't written again, so after an
    interruption the same command goes on. Values of types of the application need --import with
    the modules that define them. Exit code 1 where a thread couldn't be taken over whole; the
    others are.

    \b
    Examples:
      pgsaga import --from sqlite:checkpoints.sqlite --dry-run
      pgsaga import --from postgres:postgresql://app@old/agents --import shop.state
      pgsaga import --from sqlite:checkpoints.sqlite --thread order-1 --json
    """
    import_modules(imports)
    kind, _, place = source.partition(":")
    if kind.split("+")[0] in ("postgresql", "postgres") and place.startswith("//"):
        kind, place = "postgres", source
    if kind not in _SOURCES or not place:
        problem = "write sqlite:PATH or postgres:postgresql://user@host/database"
        raise typer.BadParameter(problem, param_hint="--from")
    with opened(dsn, schema, tenant) as db, progress() as tell:
        report = db.portal.call(
            _imported,
            db,
            kind,
            place,
            thread_ids=thread or None,
            batch=batch,
            dry_run=dry_run,
            on_progress=lambda state: tell(_far(state), state.threads_done, state.threads),
        )
    if as_json:
        write_json(_plain(report))
    else:
        _show(report)
    if report.failed:
        raise typer.Exit(ExitCode.ERROR)


@dataclass(kw_only=True, eq=False)
class UnusableSourceError(PgSagaError):
    """Where --from leads to, nothing can be read just now."""

    problem: str

    def __str__(self) -> str:
        return f"--from: {self.problem}"


async def _imported(
    db: Database, kind: str, place: str, *, thread_ids: list[str] | None, **options: Any
) -> ImportReport:
    from langgraph_pgsaga.checkpoint import PostgresSaver
    from langgraph_pgsaga.serde import SafeSerializer
    from langgraph_pgsaga.takeover import import_threads

    try:
        async with _SOURCES[kind](place) as saver_with:
            if thread_ids is None:
                # What can't be loaded then fails its own thread, and not the listing of all.
                thread_ids = await _threads_of(saver_with(SafeSerializer(lenient=True)))
            return await import_threads(
                saver_with(SafeSerializer()),
                PostgresSaver(db),
                thread_ids=thread_ids,
                **options,
            )
    except ImportError as error:
        raise UnusableSourceError(problem=_MISSING_PACKAGE) from error
    except _driver_errors() as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        problem = f"langgraph-checkpoint-{kind} finds no checkpoints to read there: {said[0]}"
        raise UnusableSourceError(problem=problem) from error


async def _threads_of(source: Saver) -> list[str]:
    found = [str(one.config["configurable"]["thread_id"]) async for one in source.alist(None)]
    return list(dict.fromkeys(found))


def _demand_file(place: str) -> None:
    if not Path(place).is_file():
        # Or it would be made. What isn't a path may be a DSN.
        name = place if re.fullmatch(r"[\w./\\ ~-]{1,300}", place) else "of that name"
        raise InvalidArgumentError(argument="--from", problem=f"there is no file {name}")


@asynccontextmanager
async def _sqlite(place: str) -> AsyncIterator[MakeSaver]:
    import aiosqlite
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    _demand_file(place)

    def saver_with(serde: SerializerProtocol) -> Saver:
        saver = AsyncSqliteSaver(connection, serde=serde)
        # Or it would make its tables.
        saver.is_setup = True
        return saver

    async with aiosqlite.connect(place) as connection:
        yield saver_with


@asynccontextmanager
async def _postgres(place: str) -> AsyncIterator[MakeSaver]:
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
    from psycopg import AsyncConnection
    from psycopg.conninfo import make_conninfo
    from psycopg.pq import Conninfo
    from psycopg.rows import dict_row

    from langgraph_pgsaga.database import parse_dsn

    # Read here: of what it can't read, the driver would quote the password.
    try:
        parameters = parse_dsn(place)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(argument="--from", problem=error.problem) from None
    if not parameters.keys() <= {option.keyword.decode() for option in Conninfo.get_defaults()}:
        problem = "the DSN has parameters that libpq doesn't know; write settings as options=-c a=b"
        raise InvalidArgumentError(argument="--from", problem=problem)
    async with await AsyncConnection.connect(
        make_conninfo(**parameters), autocommit=True, prepare_threshold=None, row_factory=dict_row
    ) as connection:
        yield lambda serde: AsyncPostgresSaver(connection, serde=serde)


_SOURCES: dict[str, Callable[[str], AbstractAsyncContextManager[MakeSaver]]] = {
    "sqlite": _sqlite,
    "postgres": _postgres,
}


def _driver_errors() -> tuple[type[Exception], ...]:
    """What the other savers' drivers raise, as far as these are installed."""
    try:
        import psycopg
    except ImportError:
        return (sqlite3.Error, OSError)
    return (sqlite3.Error, OSError, psycopg.Error)


def _far(state: ImportProgress) -> str:
    return f"{counted(state.checkpoints_done, 'checkpoint')}, thread {state.thread_id}"


def _plain(report: ImportReport) -> dict[str, Any]:
    return {
        "dry_run": report.dry_run,
        "checkpoints": report.checkpoints,
        "stored": report.stored,
        "writes": report.writes,
        "failed": len(report.failed),
        "threads": [_plain_thread(thread) for thread in report.threads],
    }


def _plain_thread(thread: ThreadReport) -> dict[str, Any]:
    return {
        "thread_id": thread.thread_id,
        "checkpoints": thread.checkpoints,
        "stored": thread.stored,
        "writes": thread.writes,
        "errors": [
            {"type": type(e).__name__, "message": cli_errors.told(e)} for e in thread.errors
        ],
    }


def _show(report: ImportReport) -> None:
    done, failed = "stored and verified", "failed"
    if report.dry_run:
        done, failed = "would be stored", "would fail"
    left = f", {counted(len(report.failed), 'thread')} {failed}" if report.failed else ""
    write_line(
        f"{counted(len(report.threads), 'thread')} with "
        f"{counted(report.checkpoints, 'checkpoint')}: {report.stored:,} {done}{left}"
    )
    errors = [(thread.thread_id, error) for thread in report.failed for error in thread.errors]
    for thread_id, error in errors:
        note(f"failed: {thread_id}: {cli_errors.told(error)}")
    if any(isinstance(error, BlockedTypeError | MissingTypeError) for _, error in errors):
        note("--import MODULE imports the modules that define the types of the state")
