"""What a migrated database's schema consists of: as reviewed, and as a server has it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources

import asyncpg

from langgraph_pgsaga.database import Connection, Database, load_statements, render

_LIST_OBJECTS = load_statements("doctor")["list_objects"]
_PRINT_PLAINLY = load_statements("doctor")["print_plainly"]

# (kind, name) to definition: ("column", "agent_states.session_id") to "uuid not null".
Objects = Mapping[tuple[str, str], str]

# The source of functions and views.
TEXT = "text"
INVALID = "(invalid)"
_RELATIONS = ("table", "view", "materialized view", "sequence")
_MISSING_RELATIONS = tuple(f"no {kind} " for kind in _RELATIONS)


@cache
def expected() -> Objects:
    """What all migrations make. The test of the schema keeps sql/catalogue.txt current."""
    text = resources.files("langgraph_pgsaga").joinpath("sql", "catalogue.txt").read_text("utf-8")
    rows = (line.split("\t") for line in text.splitlines())
    return {(kind, name): definition for kind, name, definition in rows}


async def found(db: Database) -> Objects:
    """What is there, in the schema of the table that records the migrations."""
    table = render("{schema}.pgsaga_migrations", db.schema)

    async def work(conn: Connection) -> list[asyncpg.Record]:
        await db.fetch(_PRINT_PLAINLY, conn=conn)
        return await db.fetch(_LIST_OBJECTS.bind(migrations_table=table), conn=conn)

    rows = await db.snapshot(work)
    return {(row["kind"], row["name"]): row["definition"] for row in rows}


def lines(objects: Objects) -> str:
    """The form of sql/catalogue.txt."""
    return "".join(
        f"{kind}\t{name}\t{definition}\n" for (kind, name), definition in objects.items()
    )


def differences(there: Objects) -> list[str]:
    """What of the expected is missing or of another form, the largest first.

    What somebody made beside it is no difference.
    """
    wanted = expected()
    told: list[str] = []
    missing = {name for kind, name in wanted if kind in _RELATIONS and (kind, name) not in there}
    for (kind, name), definition in wanted.items():
        now = there.get((kind, name))
        if now == definition or _is_part_of(missing, kind, name, definition):
            continue
        if kind == TEXT:
            if now is not None:  # else the function or view is missing, or this server isn't known
                told.append(f"{'function' if '(' in name else 'view'} {name} has another source")
            continue
        if now is None:
            told.append(f"no {kind} {name}")
        elif now.endswith(INVALID):
            told.append(f"{kind} {name} {INVALID}")
        else:
            told.append(f"{kind} {name} is {now or 'plain'}, not {definition or 'plain'}")
    return sorted(told, key=lambda text: not text.startswith(_MISSING_RELATIONS))


def _is_part_of(relations: set[str], kind: str, name: str, definition: str) -> bool:
    """Whether it went with one of the relations, which is told instead."""
    if kind in ("index", "trigger"):
        return any(f" ON {relation} " in definition for relation in relations)
    return kind not in _RELATIONS and name.partition(".")[0] in relations
