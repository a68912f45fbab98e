"""The schema and the migrations."""

from __future__ import annotations

from dataclasses import dataclass

from langgraph_pgsaga.errors.root import PgSagaError


@dataclass(kw_only=True, eq=False)
class MigrationError(PgSagaError):
    """The schema in the database and the migration files don't fit."""


@dataclass(kw_only=True, eq=False)
class MissingMigrationsError(MigrationError):
    """The tables (or a column of them) aren't there yet."""

    dsn: str
    detail: str

    def __str__(self) -> str:
        return (
            f"{self.detail} in {self.dsn}: the schema isn't there or isn't up to date. "
            "If its name is right, call saver.setup() once, or that of your store or memory (in "
            "async code: await saver.setup()), or run `pgsaga migrate up` with its --dsn and "
            "--schema"
        )


@dataclass(kw_only=True, eq=False)
class MissingCitusError(MigrationError):
    """The database has no Citus, which distributes tables."""

    dsn: str

    def __str__(self) -> str:
        return (
            f"{self.dsn} has no Citus, which distributes tables over servers. On a server that has "
            "it: `create extension citus`, and citus_add_node for each of the others. Nothing was "
            "changed, and on one server nothing needs to be"
        )


@dataclass(kw_only=True, eq=False)
class ChangedMigrationError(MigrationError):
    """An applied migration's file was edited afterwards."""

    name: str

    def __str__(self) -> str:
        return (
            f"migration {self.name} was applied with another text than the file has now. "
            "Restore the file, or reinstall the package"
        )


@dataclass(kw_only=True, eq=False)
class UnknownMigrationError(MigrationError):
    """The database has a migration that this release hasn't, and that doesn't serve it.

    `release` is the one that applied it, as far as that was recorded.
    """

    name: str
    release: str | None = None

    def __str__(self) -> str:
        needed = f"{self.release} or later" if self.release else "the version that made it"
        return (
            f"the database has migration {self.name}, whose file is missing here, and which "
            f"doesn't serve this release. Upgrade langgraph_pgsaga to {needed}, or restore the file"
        )


@dataclass(kw_only=True, eq=False)
class OtherTablesError(MigrationError):
    """No schema was named, and the tables aren't on the search_path but in another schema.

    New ones would be empty, and look as if everything was lost. Nothing was made.
    """

    schema: str
    new_schema: str

    def __str__(self) -> str:
        return (
            f"no schema on the search_path has the tables, but {self.schema!r} has. Pass "
            f"schema={self.schema!r} to use those, or schema={self.new_schema!r} to make new, "
            "empty ones on purpose"
        )
