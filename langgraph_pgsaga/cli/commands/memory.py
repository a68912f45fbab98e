"""`pgsaga memory`: what agents remember of a user or in a thread."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

import typer

from langgraph_pgsaga._text import shown
from langgraph_pgsaga.cli import values
from langgraph_pgsaga.cli.connection import Dsn, Schema, Tenant, imported, opened
from langgraph_pgsaga.cli.options import After, DryRun, Json, Yes
from langgraph_pgsaga.cli.output import (
    confirm,
    needs_question,
    note,
    progress,
    shown_time,
    write_json,
    write_line,
)
from langgraph_pgsaga.cli.table import write_table
from langgraph_pgsaga.errors import MissingMemoryError

if TYPE_CHECKING:
    from langgraph_pgsaga.memory import ForgettingPolicy, ForgettingResult, Memory, Recalled
    from langgraph_pgsaga.sync import AgentMemory

app = typer.Typer(help="Search, list, show and forget what agents remember.", no_args_is_help=True)

_COLUMNS = ("memory", "type", "importance", "accesses", "recorded (UTC)", "text")
_FOUND = ("memory", "type", "score", "recorded (UTC)", "text")
_LONGEST_CELL = 200

_Query = Annotated[
    str, typer.Argument(metavar="TEXT", callback=values.text, help="What is looked for.")
]
_MemoryId = Annotated[
    UUID, typer.Argument(metavar="MEMORY", parser=values.uuid, help="The memory's id.")
]
_UserId = Annotated[
    str | None,
    typer.Option("--user", metavar="USER", callback=values.user_id, help="This user's."),
]
_Thread = Annotated[
    str | None,
    typer.Option(
        "--thread",
        metavar="THREAD",
        callback=values.thread_id,
        help="Those of this thread; with --user also that user's in it.",
    ),
]
_Type = Annotated[
    list[str] | None,
    typer.Option(
        "--type",
        metavar="TYPE",
        callback=values.texts,
        help="Only of this type, such as semantic or episodic. Repeatable.",
    ),
]
_Order = Annotated[
    Literal["created", "importance", "accessed"],
    typer.Option(help="The newest first, the most important, or those accessed last."),
]
_Limit = Annotated[int, typer.Option(min=1, max=10_000, metavar="N", help="How many at most.")]
_Language = Annotated[
    str,
    typer.Option(
        metavar="NAME", callback=values.text, help="The configuration of text search it has."
    ),
]
_AsOf = Annotated[
    datetime | None,
    typer.Option(parser=values.moment, metavar="TIME", help="As it was known then; 7d is ago."),
]
_Erase = Annotated[
    bool, typer.Option("--erase", help="Delete it; else it is only not recalled any more.")
]
_MaxAge = Annotated[
    timedelta | None,
    typer.Option(parser=values.duration, metavar="DURATION", help="Those as old, or older."),
]
_MaxIdle = Annotated[
    timedelta | None,
    typer.Option(
        parser=values.duration, metavar="DURATION", help="Those not accessed for so long."
    ),
]
_MaxExpired = Annotated[
    timedelta | None,
    typer.Option(parser=values.duration, metavar="DURATION", help="Those expired for so long."),
]
_MaxAccesses = Annotated[
    int | None,
    typer.Option(min=0, max=1_000_000_000, metavar="N", help="Those accessed at most so often."),
]
_KeepBest = Annotated[
    int | None,
    typer.Option(
        min=0, max=1_000_000_000, metavar="N", help="But the N most important of each scope."
    ),
]
_Embedder = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:ATTRIBUTE",
        help="Where the embeddings are: LangChain's, or a function of a list of texts.",
    ),
]
_Dims = Annotated[
    int, typer.Option(min=1, max=16_000, metavar="N", help="How many dimensions they have.")
]
_Model = Annotated[
    str, typer.Option(metavar="NAME", callback=values.utf8, help="The model's name.")
]
_VectorType = Annotated[
    Literal["halfvec", "vector"], typer.Option(help="Two bytes for a dimension, or four.")
]
_Batch = Annotated[
    int, typer.Option(min=1, max=10_000, metavar="N", help="How many texts are embedded at once.")
]


@app.command()
def search(
    query: _Query,
    user_id: _UserId = None,
    thread: _Thread = None,
    type_: _Type = None,
    limit: _Limit = 8,
    language: _Language = "english",
    as_of: _AsOf = None,
    dsn: Dsn = None,
    schema: Schema = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Find memories by their words, the best first.

    It has no model, so nothing is found by meaning. It isn't counted as an access.

    \b
    Examples:
      pgsaga memory search "what does she drink" --user ann
      pgsaga memory search diet --user ann --as-of 7d
    """
    from langgraph_pgsaga.memory import TEXT

    with _opened(dsn, schema, tenant, user_id, thread, language) as (memory, whose):
        best = memory.recall(
            query, types=type_, k=limit, scoring=TEXT, as_of=as_of, touch=False, **whose
        )
    found = [one for one in best if one.text > 0]
    if as_json:
        write_json({"found": [_plain_found(one) for one in found]})
    elif found:
        write_table(_FOUND, [_found_cells(one) for one in found])
    else:
        note("no memories")


@app.command("list")
def list_(
    user_id: _UserId = None,
    thread: _Thread = None,
    type_: _Type = None,
    order: _Order = "created",
    limit: _Limit = 50,
    after: After = None,
    dsn: Dsn = None,
    schema: Schema = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """List memories of a user or a thread.

    Those that were superseded or forgotten, or have expired, aren't in it.

    \b
    Examples:
      pgsaga memory list --user ann
      pgsaga memory list --thread order-1 --order importance --json
    """
    with _opened(dsn, schema, tenant, user_id, thread) as (memory, whose):
        page = memory.list(types=type_, order=order, limit=limit, after=after, **whose)
    if as_json:
        memories = [_plain(one) for one in page.memories]
        write_json({"memories": memories, "next_cursor": page.next_cursor})
        return
    if page.memories:
        write_table(_COLUMNS, [_cells(one) for one in page.memories])
    else:
        note("no memories")
    if page.next_cursor:
        note(f"there are more: --after {page.next_cursor}")


@app.command()
def show(
    memory_id: _MemoryId,
    user_id: _UserId = None,
    thread: _Thread = None,
    dsn: Dsn = None,
    schema: Schema = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Show a memory: its text, where it comes from, and what became of it.

    \b
    Example:
      pgsaga memory show 0198c3a4-5b6c-7d8e-9fa0-b1c2d3e4f506 --user ann
    """
    with _opened(dsn, schema, tenant, user_id, thread) as (memory, whose):
        found = memory.get(memory_id, **whose)
    if found is None:
        raise MissingMemoryError(memory_id=str(memory_id))
    plain = _plain(found)
    if as_json:
        write_json(plain)
        return
    for name, value in plain.items():
        text = shown_time(value) if isinstance(value, datetime) else _text(value)
        write_line(f"{name:<20} {shown(text)}")


@app.command()
def forget(
    memory_id: _MemoryId,
    user_id: _UserId = None,
    thread: _Thread = None,
    erase: _Erase = False,
    yes: Yes = False,
    dsn: Dsn = None,
    schema: Schema = None,
    tenant: Tenant = None,
) -> None:
    """Have a memory not recalled any more, or delete it.

    What was forgotten is still told as of a time before. What was erased isn't. It asks first.

    \b
    Examples:
      pgsaga memory forget 0198c3a4-5b6c-7d8e-9fa0-b1c2d3e4f506 --user ann
      pgsaga memory forget 0198c3a4-5b6c-7d8e-9fa0-b1c2d3e4f506 --user ann --erase --yes
    """
    with _opened(dsn, schema, tenant, user_id, thread) as (memory, whose):
        found = memory.get(memory_id, **whose)
        # What was forgotten already may be deleted all the same.
        if found is None and not erase:
            raise MissingMemoryError(memory_id=str(memory_id))
        what = repr(_shortened(found.content_text)) if found else f"memory {memory_id}"
        confirm(f"{'Delete' if erase else 'Forget'} {what}?", yes=yes)
        memory.forget(memory_id, erase=erase, **whose)
    write_line("deleted" if erase else "forgotten")


@app.command()
def sweep(
    type_: _Type = None,
    max_age: _MaxAge = None,
    max_idle: _MaxIdle = None,
    max_expired: _MaxExpired = None,
    max_accesses: _MaxAccesses = None,
    keep_best: _KeepBest = None,
    erase: _Erase = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    dsn: Dsn = None,
    schema: Schema = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Forget the memories of which all that is given holds; pinned ones stay.

    Of all users and threads. It asks first.

    \b
    Examples:
      pgsaga memory sweep --max-idle 90d --max-accesses 1 --dry-run
      pgsaga memory sweep --type working --max-age 1d --yes
      pgsaga memory sweep --max-expired 30d --erase --yes
    """
    from langgraph_pgsaga.memory import ForgettingPolicy

    rules = (max_age, max_idle, max_expired, max_accesses, keep_best)
    if all(rule is None for rule in rules):
        problem = "or another rule is needed, such as --max-expired or --keep-best"
        raise typer.BadParameter(problem, param_hint="--max-idle")
    policy = ForgettingPolicy(
        types=type_,
        max_age=max_age,
        max_idle=max_idle,
        max_expired=max_expired,
        max_accesses=max_accesses,
        keep_best=keep_best,
        erase=erase,
    )
    with opened(dsn, schema, tenant) as db:
        done = _swept(_memory(db), policy, yes=yes, dry_run=dry_run)
    if as_json:
        write_json({**dataclasses.asdict(done), "dry_run": dry_run})
    else:
        count = done.erased if erase else done.forgotten
        would = "would " if dry_run else ""
        verb = ("delete" if erase else "forget") if dry_run else ("deleted" if erase else "forgot")
        write_line(f"{would}{verb} {_memories(count)}")


def _swept(
    memory: AgentMemory, policy: ForgettingPolicy, *, yes: bool, dry_run: bool
) -> ForgettingResult:
    if dry_run or needs_question(yes=yes):
        found = memory.sweep([policy], dry_run=True)
        if dry_run:
            return found
        if count := found.erased + found.forgotten:
            confirm(f"{'Delete' if policy.erase else 'Forget'} {_memories(count)}?", yes=yes)
    return memory.sweep([policy])


@app.command()
def reembed(
    embedder: _Embedder,
    dims: _Dims,
    model: _Model = "",
    vector_type: _VectorType = "halfvec",
    batch: _Batch = 100,
    dsn: Dsn = None,
    schema: Schema = None,
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Make the vectors of a model for all memories that have none of it.

    Recalls go on by those that are there. Who is interrupted calls it again. Give a model that
    takes another one's place a name of its own, and the application that name when it is done.

    \b
    Example:
      pgsaga memory reembed app.models:embeddings --dims 384 --model minilm
    """
    from langgraph_pgsaga.sync import AgentMemory

    problem = "isn't MODULE:ATTRIBUTE, such as app.models:embeddings"
    embed = imported(embedder, metavar="MODULE:ATTRIBUTE", problem=problem)
    with opened(dsn, schema, tenant) as db, progress() as tell:
        memory = AgentMemory(db, embed=embed, dims=dims, model=model, vector_type=vector_type)
        done = memory.reembed(
            batch=batch,
            on_progress=lambda so_far: tell("memories", so_far.done, so_far.total),
        )
    if as_json:
        write_json(dataclasses.asdict(done))
    else:
        write_line(f"made vectors of {_memories(done.done)}")


@contextmanager
def _opened(
    dsn: str | None,
    schema: str | None,
    tenant: str | None,
    user_id: str | None,
    thread: str | None,
    language: str = "english",
) -> Iterator[tuple[AgentMemory, dict[str, Any]]]:
    """The memory, and whose memories a command is about, as its calls take it."""
    if user_id is None and thread is None:
        problem = "or --thread is needed: nobody's memories are shown to everybody"
        raise typer.BadParameter(problem, param_hint="--user")
    with opened(dsn, schema, tenant) as db:
        yield _memory(db, language), {"user_id": user_id, "thread_id": thread}


def _memory(db: Any, language: str = "english") -> AgentMemory:
    from langgraph_pgsaga.sync import AgentMemory

    return AgentMemory(db, language=language)


def _memories(count: int) -> str:
    return f"{count:,} memory" if count == 1 else f"{count:,} memories"


def _plain(memory: Memory) -> dict[str, Any]:
    plain = dataclasses.asdict(memory)
    del plain["scope_id"]
    return plain


def _plain_found(found: Recalled) -> dict[str, Any]:
    parts = {part.name: getattr(found, part.name) for part in dataclasses.fields(found)}
    return {**parts, "memory": _plain(found.memory)}


def _text(value: Any) -> str:
    return "-" if value is None else str(value)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_CELL else f"{text[:_LONGEST_CELL]}…"


def _cells(memory: Memory) -> tuple[str, ...]:
    return (
        str(memory.memory_id),
        memory.memory_type,
        f"{memory.importance_score:g}",
        f"{memory.access_count:,}",
        shown_time(memory.recorded_at),
        _shortened(memory.content_text),
    )


def _found_cells(found: Recalled) -> tuple[str, ...]:
    memory = found.memory
    return (
        str(memory.memory_id),
        memory.memory_type,
        f"{found.score:.2f}",
        shown_time(memory.recorded_at),
        _shortened(memory.content_text),
    )
