"""The tables on several servers: by session, over those of a Citus cluster."""

from __future__ import annotations

import asyncpg

from langgraph_pgsaga._arguments import checked_instance
from langgraph_pgsaga.database import (
    Connection,
    Database,
    load_statements,
    quote_identifier,
    render,
)
from langgraph_pgsaga.errors import MissingCitusError, MissingMigrationsError

_STATEMENTS = load_statements("distribution")
_SET_SEARCH_PATH = load_statements("migrate")["set_search_path"]
_HINT = "Pass a Database, such as saver.db"
_SESSIONS_TABLE = "{schema}.agent_sessions"


async def distribute(db: Database) -> None:
    """Distributes the tables over the servers that Citus knows, with what is in them.

    What is distributed already stays as it is. Readers and writers of the tables wait until
    it is done. From then on use Database(distributed=True).

    Raises:
        MissingMigrationsError: the tables aren't there.
        MissingCitusError: the database has no Citus.
    """

    checked_instance("db", db, Database, _HINT)

    async def work(conn: Connection) -> None:
        found = await _find_tables(db, conn)
        if found["citus_version"] is None:
            raise MissingCitusError(dsn=db.dsn)
        for text in _texts(found["schema_name"]):
            await conn.execute(text)

    await db.run(work)


async def distribution_sql(db: Database) -> str:
    """What `distribute` would run, for review or for running by hand with psql.

    Raises:
        MissingMigrationsError: the tables aren't there.
    """
    checked_instance("db", db, Database, _HINT)
    found = await db.run(lambda conn: _find_tables(db, conn))
    parts = ["begin", *_texts(found["schema_name"]), "commit"]
    return ";\n\n".join(parts) + ";\n"


async def _find_tables(db: Database, conn: Connection) -> asyncpg.Record:
    name = render(_SESSIONS_TABLE, db.schema)
    (row,) = await db.fetch(_STATEMENTS["find_tables"].bind(sessions_table=name), conn=conn)
    if row["schema_name"] is None:
        raise MissingMigrationsError(dsn=db.dsn, detail=f"there is no table {name}")
    return row


def _texts(schema: str) -> list[str]:
    path = _SET_SEARCH_PATH.text.replace("{schema_name}", quote_identifier(schema))
    return [path, _STATEMENTS["distribute_tables"].text]
