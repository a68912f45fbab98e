"""The statements agree with the schema, without running any."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from importlib import resources
from urllib.parse import urlsplit

import asyncpg
import pytest
from langchain_core.messages import AIMessage, HumanMessage

from langgraph_pgsaga import Database, PostgresSaver, sync
from langgraph_pgsaga.database import Statement, load_migrations, load_statements, migrate
from langgraph_pgsaga.doctor import CheckStatus, diagnose, privileges
from langgraph_pgsaga.sessions import RetentionPolicy
from tests._connections import connection_of
from tests.conftest import execute, with_database
from tests.db._hostile_schema import plant
from tests.db._puts import config_of, put
from tests.db.test_migrate import run_a_graph

pytestmark = pytest.mark.anyio

_TYPE_NAMES = {"int2": "smallint", "int4": "integer", "int8": "bigint", "bool": "boolean"}
_SYSTEMS = sorted(
    f.name.removesuffix(".sql")
    for f in resources.files("langgraph_pgsaga").joinpath("sql").iterdir()
    # Its vectors are there once a store has set them up; test_store_vectors prepares these.
    if f.name.endswith(".sql") and f.name != "store_vectors.sql"
)
# Their schema's name is no parameter; and what only Citus has.
_NOT_PREPARABLE = {
    "create_schema",
    "distribute_tables",
    "keep_backslashes",
    "set_search_path",
}
_OF_MIGRATIONS = {"create_migrations_table", "insert_migration", "update_migration"}


def _sql_type(name: str, kind: str) -> str:
    base = name.removesuffix("[]")
    renamed = {**_TYPE_NAMES, "timestamptz": "timestamp with time zone"}.get(base, base)
    return renamed + ("[]" if kind == "array" else "")


_STATEMENTS = [
    s
    for system in _SYSTEMS
    for s in load_statements(system).values()
    if s.name not in _NOT_PREPARABLE
]


async def _make_vectors(dsn: str, schema: str = "public") -> None:
    """The tables of vectors, where the server has pgvector, which gets a schema of its own."""
    conn = await asyncpg.connect(dsn)
    try:
        if await conn.fetchval(
            "select count(*) from pg_available_extensions where name = 'vector'"
        ):
            await conn.execute("create schema of_vectors")
            await conn.execute("create extension vector schema of_vectors")
            await conn.execute(f"select {schema}.pgsaga_create_memory_vectors()")
    finally:
        await conn.close()


async def _preparable(conn: asyncpg.Connection[asyncpg.Record]) -> list[Statement]:
    """The statements, but those that need tables of vectors where there are none."""
    if await conn.fetchval("select to_regtype('of_vectors.vector') is not null"):
        return _STATEMENTS
    of_vectors = load_statements("memory_vectors")
    return [statement for statement in _STATEMENTS if statement.name not in of_vectors]


@pytest.fixture(scope="module")
def read_only_dsn(server_dsn: str, template_database: str) -> Iterator[str]:
    """One database for all of them: what is only prepared changes nothing."""
    name = f"pgsaga_prepared_{os.getpid()}"
    asyncio.run(execute(server_dsn, f'create database "{name}" template "{template_database}"'))
    dsn = with_database(server_dsn, name)
    asyncio.run(_make_vectors(dsn))
    yield dsn
    asyncio.run(execute(server_dsn, f'drop database "{name}" with (force)'))


@pytest.mark.parametrize("statement", _STATEMENTS, ids=lambda s: s.name)
async def test_statement_has_the_types_that_its_header_says(
    read_only_dsn: str, statement: Statement
) -> None:
    """A misspelt column or a wrong header fails here, before any data is touched."""
    async with Database(read_only_dsn) as db, connection_of(db) as conn:
        if statement not in await _preparable(conn):
            pytest.skip("the server has no pgvector")
        await _check_types(conn, db, statement)


async def _check_types(
    conn: asyncpg.Connection[asyncpg.Record], db: Database, statement: Statement
) -> None:
    prepared = await conn.prepare(db.text(statement))
    params = [_sql_type(t.name, t.kind) for t in prepared.get_parameters()]
    columns = [(a.name, _sql_type(a.type.name, a.type.kind)) for a in prepared.get_attributes()]
    assert params == [sql_type for _, sql_type in statement.params]
    assert tuple(columns) == statement.columns


def test_no_statement_has_a_backslash() -> None:
    """What one means in a text is a setting of the role or database."""
    assert not [
        s.name for system in _SYSTEMS for s in load_statements(system).values() if "\\" in s.text
    ]


def test_names_are_unique_across_a_file() -> None:
    """Two statements of one name can't shadow each other."""
    for system in _SYSTEMS:
        assert load_statements(system)


# What a role must be allowed


async def test_the_privileges_that_doctor_looks_for_are_those_that_statements_need(
    dsn: str,
) -> None:
    """Without any one of them a statement is refused, and without the others none is."""
    role = f"needs_{urlsplit(dsn).path.removeprefix('/pgsaga_test_')}"
    asked = "explain (generic_plan) "
    async with Database(dsn) as db, connection_of(db) as conn:
        if conn.get_server_version().major < 16:
            pytest.skip("before PostgreSQL 16 nothing explains a statement with parameters")
        await _make_vectors(dsn, "public")
        if not await conn.fetchval("select to_regtype('of_vectors.vector') is not null"):
            pytest.skip("the server has no pgvector")
        texts = [asked + db.text(s) for s in _STATEMENTS if s.name not in _OF_MIGRATIONS]
        await conn.execute(f"create role {role}")
        begun = conn.transaction()
        await begun.start()
        await conn.execute("revoke execute on all functions in schema public from public")
        await conn.execute(f"grant usage on schema of_vectors to {role}")
        assert await _refused(conn, role, texts)
        every = [
            (f"{kind} {await _signatures(conn, name) if kind == 'function' else name}", needed)
            for (kind, name), needed in privileges.NEEDED.items()
        ]
        for what, needed in every:
            await conn.execute(f"grant {', '.join(needed)} on {what} to {role}")
        assert await _refused(conn, role, texts) is None
        for what, needed in every:
            for privilege in needed:
                await conn.execute(f"revoke {privilege} on {what} from {role}")
                assert await _refused(conn, role, texts), (what, privilege)
                await conn.execute(f"grant {privilege} on {what} to {role}")
        await begun.rollback()
        await conn.execute(f"drop role {role}")


async def _signatures(conn: asyncpg.Connection[asyncpg.Record], name: str) -> str:
    """The functions of a name, each with the types that it takes."""
    query = "select string_agg(oid::regprocedure::text, ', ') from pg_proc where proname = $1"
    return str(await conn.fetchval(query, name))


async def _refused(
    conn: asyncpg.Connection[asyncpg.Record], role: str, texts: list[str]
) -> str | None:
    """What the server says of the first statement that the role may not run."""
    for text in texts:
        begun = conn.transaction()
        await begun.start()
        try:
            await conn.execute(f"set local role {role}")
            await conn.execute(text)
        except asyncpg.InsufficientPrivilegeError as error:
            return str(error)
        finally:
            await begun.rollback()
    return None


# What others made in `public` isn't called


@pytest.fixture(scope="module")
def hostile_dsn(server_dsn: str) -> Iterator[str]:
    """A database with tables in the schema "own", and traps for all that SQL here names."""
    name = f"pgsaga_hostile_{os.getpid()}"
    dsn = with_database(server_dsn, name)
    texts = [*(s.text for s in _STATEMENTS), *(m.sql for m in load_migrations())]
    rows = [f"own.{n}" for n in re.findall(r"create type {schema}\.(\w+)", "".join(texts))]

    async def make() -> None:
        await execute(server_dsn, f'create database "{name}" template template0')
        assert await plant(dsn, texts) > 10_000
        async with Database(dsn, schema="own") as db:
            await migrate(db)
        await plant(dsn, texts, rows)
        await _make_vectors(dsn, "own")

    asyncio.run(make())
    yield dsn
    asyncio.run(execute(server_dsn, f'drop database "{name}" with (force)'))


# The functions and operators of `public` that something refers to, and what does.
_REFERENCES = """
  select distinct
    pg_catalog.pg_describe_object(d.classid, d.objid, 0) as who,
    pg_catalog.pg_describe_object(d.refclassid, d.refobjid, 0) as what
  from pg_catalog.pg_depend d
  left join pg_catalog.pg_proc p
    on d.refclassid = 'pg_catalog.pg_proc'::regclass and p.oid = d.refobjid
  left join pg_catalog.pg_operator o
    on d.refclassid = 'pg_catalog.pg_operator'::regclass and o.oid = d.refobjid
  where coalesce(p.pronamespace, o.oprnamespace) = 'public'::regnamespace
    and d.classid <> 'pg_catalog.pg_operator'::regclass
"""


async def test_nothing_of_public_is_what_a_statement_means(hostile_dsn: str) -> None:
    """Given a schema, each statement resolves to PostgreSQL's own functions and operators.

    An error here names what to qualify (pg_catalog.unnest), or whose argument to give its
    exact type ('x'::text).
    """
    open_: list[object] = []
    async with Database(hostile_dsn, schema="own") as db, connection_of(db) as conn:
        for statement in await _preparable(conn):
            if statement.name == "create_migrations_table":  # a utility, with nothing to resolve
                continue
            types = ", ".join(t for _, t in statement.params)
            types = re.sub(r"\b(pgsaga_(?:new|known|grouped)_\w+)", r"own.\1", types)
            probe = f"create function own.probe({types}) returns void language sql begin atomic "
            begun = conn.transaction()
            await begun.start()
            try:
                await conn.execute(f"{probe}{db.text(statement)}; select; end")
                open_ += [(statement.name, row["what"]) for row in await conn.fetch(_REFERENCES)]
            except asyncpg.PostgresError as error:
                open_.append((statement.name, str(error)))
            await begun.rollback()
    assert open_ == []


async def test_types_are_the_same_beside_others_objects(hostile_dsn: str) -> None:
    """Parameters whose type PostgreSQL has to find out, the driver's own question among them."""
    wrong: list[str] = []
    async with Database(hostile_dsn, schema="own") as db, connection_of(db) as conn:
        for statement in await _preparable(conn):
            try:
                await _check_types(conn, db, statement)
            except (AssertionError, asyncpg.PostgresError) as error:
                wrong.append(f"{statement.name}: {str(error)[:200]}")
    assert wrong == []


async def test_nothing_of_public_is_in_what_migrations_make(hostile_dsn: str) -> None:
    """Functions, views, defaults, checks and indexes are bound to what was meant."""
    conn = await asyncpg.connect(hostile_dsn)
    assert await conn.fetch(_REFERENCES) == []
    await conn.close()


def test_a_day_of_work_beside_others_objects(hostile_dsn: str) -> None:
    """Runs, listings, searches, retention and the diagnosis call none of them."""
    with PostgresSaver.from_conn_string(hostile_dsn, schema="own") as saver:
        saver.setup()
        run_a_graph(saver)
        said = HumanMessage("some words", id="1")
        config = put(saver, config_of("day"), {"messages": [said], "big": ["x"] * 5000})
        put(saver, config, {"messages": [said, AIMessage("others")]})
        sessions, messages = sync.Sessions(saver.db), sync.Messages(saver)
        sessions.update("day", metadata={"k": 1})
        for text in (None, "words"):
            page = sessions.list(metadata={"k": 1}, text=text)
            assert [s.thread_id for s in page.sessions] == ["day"]
            assert messages.rows("day", text=text).rows[0].content == "some words"
        assert messages.search("words", thread_id="day") == messages.search("words") != []
        assert len(messages.rows(text="words", checkpoint_id=None).rows) == 1
        saver.copy_thread("day", "night")
        sessions.sweep([RetentionPolicy(keep_last=1)])
        found = saver.db.portal.call(diagnose, saver.db)
        assert found.status is not CheckStatus.FAIL, found
    with PostgresSaver.from_conn_string(hostile_dsn, schema="own", pooler=True) as saver:
        saver.delete_thread("u")
        run_a_graph(saver)
