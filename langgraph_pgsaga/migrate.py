"""Migrations: plain SQL files, applied in order, each with its record in one transaction.

Many processes may start `migrate` at once: the first applies, the others wait and
find nothing to do. The lock is the transaction's, so this works through a pooler
too. Files are never edited once released: a changed or missing one is an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import asyncpg

from langgraph_pgsaga import _sql
from langgraph_pgsaga.database import Connection, Database
from langgraph_pgsaga.errors import ChangedMigrationError, MigrationError, UnknownMigrationError

_STATEMENTS = _sql.load("migrate")
_LOCK_NAMESPACE = "langgraph_pgsaga migrations"


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One file of migrations/: `version` and `name` are the file's, `sql` its text."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationStatus:
    """A migration and when it was applied; None means pending."""

    migration: Migration
    applied_at: datetime | None


def load_migrations() -> list[Migration]:
    """The package's migrations in order: from the wheel, or from a checkout beside the package."""
    here = Path(__file__).resolve().parent
    folders = (here / "migrations", here.parent / "migrations")
    files = next((f for f in (sorted(d.glob("[0-9]*.sql")) for d in folders) if f), None)
    if files is None:
        raise FileNotFoundError(f"no migrations in {here}: the installation is incomplete")
    return [
        Migration(version=int(f.name[:4]), name=f.stem, sql=f.read_text("utf-8")) for f in files
    ]


async def migrate(
    database: Database,
    *,
    migrations: Sequence[Migration] | None = None,
    on_applied: Callable[[Migration], None] = lambda _: None,
) -> list[Migration]:
    """Applies what is pending and returns it; `on_applied` hears of each as it commits.

    Raises:
        ChangedMigrationError: an applied file has another text now.
        UnknownMigrationError: the database has a migration that has no file here.
    """
    wanted = load_migrations() if migrations is None else migrations
    applied: list[Migration] = []
    while True:

        async def step(conn: Connection) -> Migration | None:
            return await _apply_next(database, conn, wanted)

        migration = await database.run(step)
        if migration is None:
            return applied
        applied.append(migration)
        on_applied(migration)


async def status(
    database: Database, *, migrations: Sequence[Migration] | None = None
) -> list[MigrationStatus]:
    """Every migration of the package, applied or pending, after checking the applied ones.

    Raises:
        ChangedMigrationError, UnknownMigrationError: as `migrate`.
    """
    wanted = load_migrations() if migrations is None else migrations

    async def read(conn: Connection) -> dict[int, asyncpg.Record]:
        return await _applied(database, conn, wanted)

    rows = await database.run(read)
    return [
        MigrationStatus(
            migration=m, applied_at=rows[m.version]["applied_at"] if m.version in rows else None
        )
        for m in wanted
    ]


async def pending_sql(database: Database) -> str:
    """The SQL that `migrate` would run now, for review or for running by hand with psql."""
    pending = [s.migration for s in await status(database) if s.applied_at is None]
    if not pending:
        return ""

    async def prepare(conn: Connection) -> list[str]:
        return await _preparation(database, conn)

    parts = [f"{text};" for text in await database.run(prepare)]
    for m in pending:
        parts.append(f"-- {m.name}\n{_sql.render(m.sql, database.schema).rstrip()}")
        record = database.text(_STATEMENTS["insert_migration"])
        for number, value in enumerate((m.version, m.name, m.sha256), start=1):
            record = record.replace(f"${number}", f"'{value}'")
        parts.append(f"{record};")
    return "\n\n".join(["begin;", *parts, "commit;"]) + "\n"


async def _apply_next(
    database: Database, conn: Connection, wanted: Sequence[Migration]
) -> Migration | None:
    lock = _STATEMENTS["lock_migrations"]
    await conn.fetch(database.text(lock), _lock_key(database.schema))
    rows = await _applied(database, conn, wanted)
    migration = next((m for m in wanted if m.version not in rows), None)
    if migration is None:
        return None
    for text in await _preparation(database, conn):
        await conn.execute(text)
    await conn.execute(_sql.render(migration.sql, database.schema))
    insert = database.text(_STATEMENTS["insert_migration"])
    await conn.execute(insert, migration.version, migration.name, migration.sha256)
    return migration


async def _applied(
    database: Database, conn: Connection, wanted: Sequence[Migration]
) -> dict[int, asyncpg.Record]:
    table = _sql.render("{schema}.pgsaga_migrations", database.schema)
    exists = _STATEMENTS["exists_migrations_table"]
    if not await conn.fetchval(database.text(exists), table):
        return {}
    rows = await conn.fetch(database.text(_STATEMENTS["select_migrations"]))
    by_version = {m.version: m for m in wanted}
    for row in rows:
        if problem := _mismatch(row, by_version.get(row["version"])):
            raise problem
    return {row["version"]: row for row in rows}


def _mismatch(row: asyncpg.Record, migration: Migration | None) -> MigrationError | None:
    if migration is None or migration.name != row["name"]:
        return UnknownMigrationError(name=row["name"])
    if migration.sha256 != row["sha256"]:
        return ChangedMigrationError(name=row["name"])
    return None


async def _preparation(database: Database, conn: Connection) -> list[str]:
    table = database.text(_STATEMENTS["create_migrations_table"])
    exists = database.text(_STATEMENTS["exists_schema"])
    if database.schema is None or await conn.fetchval(exists, database.schema):
        return [table]
    schema = _STATEMENTS["create_schema"].text
    return [schema.replace("{schema_name}", _sql.quote_identifier(database.schema)), table]


def _lock_key(schema: str | None) -> int:
    digest = hashlib.sha256(f"{_LOCK_NAMESPACE} {schema or ''}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
