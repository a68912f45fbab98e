"""Migrations: plain SQL files, applied in order, each with its record in one transaction.

Many processes may start `migrate` at once: the first applies, the others wait and
find nothing to do. The lock is the transaction's, so this works through a pooler
too. Files are never edited once released: a changed or missing one is an error,
but for those of a newer release that say that they still serve this one.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from langgraph_pgsaga import __version__
from langgraph_pgsaga._arguments import checked_instance
from langgraph_pgsaga._times import time_of_row
from langgraph_pgsaga.database.connection import NO_LIMITS
from langgraph_pgsaga.database.statements import (
    BoundStatement,
    load_statements,
    quote_identifier,
    render,
)
from langgraph_pgsaga.errors import (
    ChangedMigrationError,
    InvalidArgumentError,
    LockTimeoutError,
    MigrationError,
    OtherTablesError,
    UnknownMigrationError,
)

if TYPE_CHECKING:
    from langgraph_pgsaga.database.connection import Connection
    from langgraph_pgsaga.database.database import Database

_log = logging.getLogger("langgraph_pgsaga.database")
_STATEMENTS = load_statements("migrate")
# How long a migration waits for a table, and so whoever wants it next, and how often.
_TABLE_MILLISECONDS = 3000
_LOCKING_PAUSE_SECONDS = 1.0
_LOCKING_SECONDS = 60.0
_SERVES = re.compile(r"-- serves: (\d{4})\n")
# One runner at a time per database: processes that name a schema and such that find the
# same one by the search_path must not run side by side.
_LOCK_KEY = int.from_bytes(
    hashlib.sha256(b"langgraph_pgsaga migrations").digest()[:8], "big", signed=True
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One file of migrations/: `version` and `name` are the file's, `sql` its text."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """Of the text, as it is recorded when the file is applied."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def serves(self) -> int | None:
        """The lowest number that a release's newest migration may have for it to work still."""
        line = _SERVES.match(self.sql)
        return int(line[1]) if line else None


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationStatus:
    """A migration and when it was applied; None means pending.

    Where `migration` is None, it is a newer release's, which still serves this one.
    """

    name: str
    migration: Migration | None
    applied_at: datetime | None


def load_migrations() -> list[Migration]:
    """The package's migrations in order: from the wheel, or from a checkout beside the package."""
    here = Path(__file__).resolve().parent.parent
    folders = (here / "migrations", here.parent / "migrations")
    files = next((f for f in (sorted(d.glob("[0-9]*.sql")) for d in folders) if f), None)
    if files is None:
        raise FileNotFoundError(f"no migrations in {here}: the installation is incomplete")
    return [
        Migration(version=int(f.name[:4]), name=f.stem, sql=f.read_text("utf-8")) for f in files
    ]


async def migrate(
    db: Database,
    *,
    migrations: Sequence[Migration] | None = None,
    on_applied: Callable[[Migration], None] = lambda _: None,
) -> list[Migration]:
    """Applies what is pending and returns it; `on_applied` hears of each as it commits.

    Where no schema is named, that is done where the search_path finds the tables.

    Raises:
        ChangedMigrationError: an applied file has another text now.
        UnknownMigrationError: the database has a migration that has no file here.
        OtherTablesError: the tables are elsewhere, and new ones would be empty.
    """
    _check_database(db)
    wanted = load_migrations() if migrations is None else migrations
    applied: list[Migration] = []
    while True:

        async def step(conn: Connection) -> Migration | None:
            return await _apply_next(db, conn, wanted)

        migration = await _locking(db, step)
        if migration is None:
            return applied
        applied.append(migration)
        on_applied(migration)


def _check_database(db: Database) -> None:
    from langgraph_pgsaga.database.database import Database  # which has this module do setup()

    checked_instance("db", db, Database, "Pass a Database, such as saver.db")


async def _locking(
    db: Database, step: Callable[[Connection], Awaitable[Migration | None]]
) -> Migration | None:
    """Runs it, and again where it didn't get its tables at once: meanwhile others have them."""
    deadline = time.monotonic() + _LOCKING_SECONDS
    while True:
        try:
            return await db.run(step, limits=NO_LIMITS)
        except LockTimeoutError as error:
            if time.monotonic() > deadline:
                raise
            _log.warning("a migration waits for tables in use, and tries again: %s", error.holders)
        await asyncio.sleep(_LOCKING_PAUSE_SECONDS)


async def migration_status(
    db: Database, *, migrations: Sequence[Migration] | None = None
) -> list[MigrationStatus]:
    """Every migration of the package, applied or pending, after checking the applied ones.

    Those of a newer release that still serve this one come last.

    Raises:
        ChangedMigrationError, UnknownMigrationError, OtherTablesError: as `migrate`.
    """
    _check_database(db)
    wanted = load_migrations() if migrations is None else migrations

    async def read(conn: Connection) -> dict[int, asyncpg.Record]:
        return await _applied(db, conn, wanted, await _schema(db, conn))

    rows = await db.run(read)
    here = {m.version: m for m in wanted}
    found = [
        MigrationStatus(
            name=m.name,
            migration=m,
            applied_at=time_of_row(rows[m.version]["applied_at"]) if m.version in rows else None,
        )
        for m in wanted
    ]
    newer = [row for version, row in rows.items() if version not in here]
    return found + [
        MigrationStatus(name=row["name"], migration=None, applied_at=time_of_row(row["applied_at"]))
        for row in newer
    ]


async def table_schemas(db: Database) -> tuple[str, list[str]]:
    """The schema whose tables count, and every schema that has tables.

    Raises:
        OtherTablesError: as `migrate`.
    """
    _check_database(db)

    async def read(conn: Connection) -> tuple[str, list[str]]:
        (row,) = await db.fetch(_STATEMENTS["find_schemas"], conn=conn)
        return await _schema(db, conn), row["every"]

    return await db.run(read)


async def pending_sql(db: Database) -> str:
    """The SQL that `migrate` would run now, for review or for running by hand with psql."""
    found = await migration_status(db)
    pending = [s.migration for s in found if s.migration and s.applied_at is None]
    if not pending:
        return ""

    async def prepare(conn: Connection) -> list[str]:
        schema = await _schema(db, conn)
        parts = await _preparation(db, conn, schema)
        for m in pending:
            parts.append(f"-- {m.name}\n{render(m.sql, schema).rstrip().rstrip(';')}")
            parts += [_written(record, schema) for record in _records(m)]
        return parts

    parts = [f"{text};" for text in await db.run(prepare)]
    return "\n\n".join(["begin;", *parts, "commit;"]) + "\n"


async def _apply_next(
    db: Database, conn: Connection, wanted: Sequence[Migration]
) -> Migration | None:
    await _lock(db, conn)
    schema = await _schema(db, conn)
    rows = await _applied(db, conn, wanted, schema)
    newer = [row["name"] for version, row in rows.items() if version > _newest(wanted)]
    migration = next((m for m in wanted if m.version not in rows), None)
    if migration is None:
        if newer:
            _log.warning("a newer release applied %s, still serving this one", ", ".join(newer))
        return None
    if newer:
        raise UnknownMigrationError(name=newer[0])
    if not rows:
        await _tell_others(db, conn, schema)
    for text in await _preparation(db, conn, schema):
        await conn.execute(text)
    await conn.execute(render(migration.sql, schema))
    for record in _records(migration):
        await conn.execute(render(record.statement.text, schema), *record.values)
    return migration


async def _lock(db: Database, conn: Connection) -> None:
    """Waits for other runners for as long as they take. Of the limits of time only that of waiting
    for a table counts for the migrations themselves, and is short: others wait behind them."""
    limits = await db.fetch(_STATEMENTS["lift_limits"], conn=conn)
    before = next(row["before"] for row in limits if row["name"] == "lock_timeout")
    await db.fetch(_STATEMENTS["lock_migrations"].bind(key=_LOCK_KEY), conn=conn)
    limit = min(int(before) or _TABLE_MILLISECONDS, _TABLE_MILLISECONDS)
    await db.fetch(_STATEMENTS["limit_locks"].bind(lock_timeout=str(limit)), conn=conn)


async def _schema(db: Database, conn: Connection) -> str:
    """Where the tables are, or are to be made."""
    if db.schema is not None:
        return db.schema
    (row,) = await db.fetch(_STATEMENTS["find_schemas"], conn=conn)
    if found := row["found"]:
        return str(found)
    if creation := row["creation"]:
        if row["every"]:
            raise OtherTablesError(schema=row["every"][0], new_schema=creation)
        return str(creation)
    problem = "the search_path names none that is there; pass schema=..., or make it first"
    raise InvalidArgumentError(argument="schema", problem=problem)


async def _tell_others(db: Database, conn: Connection, schema: str) -> None:
    (row,) = await db.fetch(_STATEMENTS["find_schemas"], conn=conn)
    if others := [name for name in row["every"] if name != schema]:
        _log.info("making new tables in schema %r, beside those in %r", schema, others[:3])


def _newest(migrations: Sequence[Migration]) -> int:
    return max(m.version for m in migrations)


async def _applied(
    db: Database, conn: Connection, wanted: Sequence[Migration], schema: str
) -> dict[int, asyncpg.Record]:
    table = render("{schema}.pgsaga_migrations", schema)
    look = _STATEMENTS["exists_migrations_table"].bind(table_name=table)
    (found,) = await db.fetch(look, conn=conn)
    if not found["is_there"]:
        return {}
    rows = await conn.fetch(render(_STATEMENTS["select_migrations"].text, schema))
    by_version = {m.version: m for m in wanted}
    for row in rows:
        migration = by_version.get(row["version"])
        if problem := _mismatch(row, migration, newest=_newest(wanted)):
            raise problem
    return {row["version"]: row for row in rows}


def _mismatch(
    row: asyncpg.Record, migration: Migration | None, *, newest: int
) -> MigrationError | None:
    if migration is None and (row["serves"] or row["version"]) <= newest < row["version"]:
        return None
    if migration is None or migration.name != row["name"]:
        return UnknownMigrationError(name=row["name"], release=row["release"])
    if migration.sha256 != row["sha256"]:
        return ChangedMigrationError(name=row["name"])
    return None


async def _preparation(db: Database, conn: Connection, schema: str) -> list[str]:
    name = quote_identifier(schema)
    texts = [
        _STATEMENTS["keep_backslashes"].text,
        _STATEMENTS["set_search_path"].text.replace("{schema_name}", name),
    ]
    (found,) = await db.fetch(_STATEMENTS["exists_schema"].bind(schema_name=schema), conn=conn)
    if not found["is_there"]:
        texts.insert(0, _STATEMENTS["create_schema"].text.replace("{schema_name}", name))
    return [*texts, render(_STATEMENTS["create_migrations_table"].text, schema)]


def _records(migration: Migration) -> list[BoundStatement]:
    """The statements that record a migration."""
    insert, update = (_STATEMENTS[f"{verb}_migration"] for verb in ("insert", "update"))
    version = migration.version
    records = [insert.bind(version=version, name=migration.name, sha256=migration.sha256)]
    if migration.serves is not None:
        serves = migration.serves
        records.append(update.bind(version=version, serves=serves, release=__version__))
    return records


def _written(record: BoundStatement, schema: str) -> str:
    """A statement with its values, which are our own, as literals."""
    text, values = record.statement.text, record.values
    # Before the schema's name goes in, which may have a $1 of its own.
    literal = re.sub(r"\$(\d)", lambda place: f"'{values[int(place[1]) - 1]}'", text)
    return render(literal, schema)
