"""Migrations: at once from many processes, all or nothing, and on servers without extensions."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import urlencode, urlsplit, urlunsplit

import asyncpg
import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from langgraph_pgsaga import Database, PostgresSaver, __version__
from langgraph_pgsaga.database.migrations import (
    _LOCK_KEY,
    Migration,
    load_migrations,
    migrate,
    migration_status,
    pending_sql,
)
from langgraph_pgsaga.doctor import CheckStatus, catalogue, diagnose
from langgraph_pgsaga.errors import (
    ChangedMigrationError,
    InvalidArgumentError,
    OtherTablesError,
    ServerError,
    UnknownMigrationError,
)
from langgraph_pgsaga.sessions import Sessions
from tests._connections import connection_of
from tests._limits import HANG_SECONDS
from tests._servers import find_programs, postgres_server
from tests.conftest import execute, fetch
from tests.db._puts import config_of
from tests.db.test_schema import catalogue_of

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
SETUP = Path(__file__).parent / "_setup_process.py"
ODD_SCHEMA = 'o"d d; drop table x; --{schema}. %s \U0001f600'


class Draft(TypedDict):
    text: str


def ask(state: Draft) -> Draft:
    return {"text": state["text"] + interrupt("more?")}


def graph_on(saver: PostgresSaver) -> Any:
    builder = StateGraph(Draft)
    builder.add_node("ask", ask)
    builder.add_edge(START, "ask")
    builder.add_edge("ask", END)
    return builder.compile(checkpointer=saver)


def run_a_graph(saver: PostgresSaver) -> None:
    """Interrupts, resumes, lists and forks on the saver's database."""
    graph, config = graph_on(saver), config_of("t")
    graph.invoke({"text": "a"}, config)
    assert graph.invoke(Command(resume="b"), config) == {"text": "ab"}
    before = next(s for s in graph.get_state_history(config) if s.next == ("ask",))
    fork = graph.update_state(before.config, {"text": "c"}, as_node=START)
    graph.invoke(None, fork)
    assert graph.invoke(Command(resume="d"), config) == {"text": "cd"}
    saver.copy_thread("t", "u")
    saver.prune(["t"])
    assert len(list(saver.list(config))) == 1
    assert graph.get_state({"configurable": {"thread_id": "u"}}).values == {"text": "cd"}
    saver.delete_thread("t")
    assert saver.get_tuple({"configurable": {"thread_id": "t"}}) is None


def tables_of(dsn: str) -> set[tuple[str, str]]:
    rows = fetch(
        dsn,
        "select schemaname, tablename from pg_tables"
        " where schemaname not in ('pg_catalog', 'information_schema')",
    )
    return {(row[0], row[1]) for row in rows}


def with_user(dsn: str, user: str) -> str:
    parts = urlsplit(dsn)
    hosts = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}@{hosts}"))


@pytest.mark.parametrize(
    ("schema", "newer"),
    [("", []), (ODD_SCHEMA, []), ("", ["serves"])],
    ids=["none", "odd", "two releases"],
)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forked")
def test_ten_processes_at_once_all_succeed(empty_dsn: str, schema: str, newer: list[str]) -> None:
    """Each setup() on an empty database ends well, and every file was applied once.

    Also where half of them are of a newer release that still serves the others.
    """
    done = subprocess.run(
        [sys.executable, str(SETUP), empty_dsn, schema, *newer],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    told = [line for line in done.stderr.splitlines() if "still serving this one" not in line]
    assert (done.stdout.strip(), told, done.returncode) == ("10", [], 0)
    tables = tables_of(empty_dsn)
    assert {name for name, _ in tables} == {schema or "public"}
    assert "agent_states" in {table for _, table in tables}
    quoted = schema.replace('"', '""') or "public"
    applied = fetch(empty_dsn, f'select name from "{quoted}".pgsaga_migrations order by version')
    here = load_migrations()
    names = [m.name for m in here] + [f"{here[-1].version + 1:04}_newer" for _ in newer]
    assert [row["name"] for row in applied] == names


_BLOCKED = """
  select count(*) from pg_stat_activity
  where datname = current_database() and wait_event_type = 'Lock'
"""


async def test_a_second_runner_waits_for_the_first(empty_dsn: str) -> None:
    """While one is in the middle of a file, another waits, and then has nothing to do."""
    slow = Migration(
        version=1,
        name="0001_slow",
        sql="create table once (a int); select pg_advisory_xact_lock(77)",
    )
    gate = await asyncpg.connect(empty_dsn)
    await gate.execute("select pg_advisory_lock(77)")
    async with Database(empty_dsn) as one, Database(empty_dsn) as other:
        runs = []
        for number, db in enumerate((one, other), start=1):
            runs.append(asyncio.create_task(migrate(db, migrations=[slow])))
            async with asyncio.timeout(HANG_SECONDS):
                while await gate.fetchval(_BLOCKED) < number:
                    await asyncio.sleep(0.01)
        await gate.execute("select pg_advisory_unlock(77)")
        assert await asyncio.gather(*runs) == [[slow], []]
    await gate.close()


async def test_time_outs_of_the_application_dont_end_it(empty_dsn: str) -> None:
    """A runner waits for another, and a migration runs, for as long as it takes; only waiting for a
    table, which holds off others, goes by lock_timeout. What a pool's connection had stays."""
    name = urlsplit(empty_dsn).path.lstrip("/")
    text = (
        "select pg_sleep(0.3); create table noted as select current_setting('lock_timeout') as it"
    )
    slow = Migration(version=1, name="0001_slow", sql=text)
    gate = await asyncpg.connect(empty_dsn)
    for limit in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        await gate.execute(f"alter database \"{name}\" set {limit} = '200ms'")
    await gate.execute(f"select pg_advisory_lock({_LOCK_KEY})")
    async with Database(empty_dsn) as db:
        running = asyncio.create_task(migrate(db, migrations=[slow]))
        await _waits_long(gate)
        assert not running.done()
        await gate.execute(f"select pg_advisory_unlock({_LOCK_KEY})")
        assert await running == [slow]
        async with db.transaction() as conn:
            assert await conn.fetchval("select it from noted") == "200ms"
            assert await conn.fetchval("show statement_timeout") == "200ms"
    await gate.close()


async def _waits_long(gate: asyncpg.Connection[Any]) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while not await gate.fetchval(
            "select exists (select from pg_stat_activity where datname = current_database() "
            "and wait_event = 'advisory' and clock_timestamp() - query_start > interval '0.5 s')"
        ):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("schema", ["own", ODD_SCHEMA, 'q"'], ids=["own", "odd", "quote"])
def test_a_schema_of_ones_own_holds_everything(empty_dsn: str, schema: str) -> None:
    """A graph runs in it, nothing stands elsewhere, and two schemas know nothing of each other."""
    with PostgresSaver.from_conn_string(empty_dsn, schema=schema) as saver:
        saver.setup()
        run_a_graph(saver)
        with PostgresSaver.from_conn_string(empty_dsn, schema="another") as other:
            other.setup()
            graph_on(other).invoke({"text": "a"}, {"configurable": {"thread_id": "u"}})
            other.delete_thread("u")
        assert saver.get_tuple({"configurable": {"thread_id": "u"}}) is not None
    assert {name for name, _ in tables_of(empty_dsn)} == {schema, "another"}


async def test_a_second_run_has_nothing_to_do(empty_dsn: str) -> None:
    """migrate returns what it applied, tells of each, and then nothing more."""
    told: list[Migration] = []
    async with Database(empty_dsn) as db:
        assert await migrate(db, on_applied=told.append) == load_migrations() == told
        assert await migrate(db, on_applied=told.append) == []
    assert told == load_migrations()


async def test_a_changed_file_is_named(empty_dsn: str) -> None:
    """Neither migrate nor status goes on when an applied file has another text."""
    async with Database(empty_dsn) as db:
        await migrate(db)
        first, *rest = load_migrations()
        changed = [replace(first, sql=first.sql + " "), *rest]
        for call in (migrate, migration_status):
            with pytest.raises(ChangedMigrationError, match=first.name) as caught:
                await call(db, migrations=changed)
            assert caught.value.name == first.name


async def test_a_missing_file_is_named(empty_dsn: str) -> None:
    """A database from a later version, or with a renamed file, isn't touched by an older one."""
    later = newer_migration()
    async with Database(empty_dsn) as db:
        await migrate(db, migrations=[*load_migrations(), later])
        for call in (migrate, migration_status):
            with pytest.raises(UnknownMigrationError, match=later.name):
                await call(db)
        renamed = [*load_migrations(), replace(later, name=later.name + "s")]
        with pytest.raises(UnknownMigrationError, match=later.name):
            await migrate(db, migrations=renamed)


def newer_migration(serves: str = "", number: int = 1) -> Migration:
    """That of a newer release, `number` after the newest here."""
    version = load_migrations()[-1].version + number
    sql = f"{serves}create table {{schema}}.later{number} (a int);"
    return Migration(version=version, name=f"{version:04}_later", sql=sql)


def serving(version: int) -> str:
    return f"-- serves: {version:04}\n"


async def test_a_release_that_is_still_served_starts(
    empty_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """On a newer schema whose files say so setup logs and goes on, and a graph runs."""
    here = load_migrations()
    newest = here[-1].version
    newer = [newer_migration(serving(newest)), newer_migration(serving(newest - 1), 2)]
    async with Database(empty_dsn) as db:
        await migrate(db, migrations=[*here, *newer])
        for migrations in (here, [*here, newer[0]]):
            assert await migrate(db, migrations=migrations) == []
            assert newer[1].name in caplog.messages[-1]
        found = await migration_status(db)
        assert [(s.name, s.migration) for s in found[-2:]] == [(m.name, None) for m in newer]
        assert all(s.applied_at for s in found)
        assert await pending_sql(db) == ""
        checks = {check.name: check for check in (await diagnose(db)).checks}
        assert newer[0].name in checks["migrations"].found
        assert checks["objects"].status is CheckStatus.OK
    with PostgresSaver.from_conn_string(empty_dsn) as saver:
        await asyncio.to_thread(run_a_graph, saver)


async def test_a_release_that_is_not_served_any_more_is_told_which_is(empty_dsn: str) -> None:
    """As soon as one newer file doesn't serve it; the error names the release that applied it."""
    here = load_migrations()
    newest = here[-1].version
    newer = [newer_migration(serving(newest)), newer_migration(serving(newest + 1), 2)]
    async with Database(empty_dsn) as db:
        await migrate(db, migrations=[*here, *newer])
        with pytest.raises(UnknownMigrationError, match=f"{__version__} or later") as caught:
            await migrate(db)
        assert caught.value.name == newer[1].name
        assert await migrate(db, migrations=[*here, newer[0]]) == []


async def test_a_file_of_ones_own_never_goes_below_a_newer_one(empty_dsn: str) -> None:
    """A newer release whose files serve this one left one of this one's out: nothing is applied,
    since the newer files were made for tables without it."""
    here = load_migrations()
    newer = newer_migration(serving(here[-2].version))
    async with Database(empty_dsn) as db:
        await migrate(db, migrations=[*here[:-1], newer])
        with pytest.raises(UnknownMigrationError) as caught:
            await migrate(db)
        assert caught.value.name == newer.name
        pending = [s.name for s in await migration_status(db) if s.applied_at is None]
        assert pending == [here[-1].name]


async def test_a_database_without_the_columns_gets_them(empty_dsn: str) -> None:
    """One from before records said what they serve is read, and migrated, as it is."""
    here = load_migrations()
    async with Database(empty_dsn) as db:
        await migrate(db, migrations=here[:5])
        assert len([s for s in await migration_status(db) if s.applied_at]) == 5
        assert await migrate(db, migrations=here[:6]) == here[5:6]
        # And those before them still start.
        assert await migrate(db, migrations=here[:5]) == []
        with pytest.raises(UnknownMigrationError):
            await migrate(db, migrations=here[:3])


def test_files_say_whom_they_serve() -> None:
    """From the sixth on each says so in its first line: itself or one before it."""
    for migration in load_migrations()[5:]:
        assert migration.serves, f"{migration.name} needs a first line like -- serves: 0005"
        assert migration.serves <= migration.version


def with_settings(dsn: str, **settings: str) -> str:
    return f"{dsn}&{urlencode(settings)}"


async def test_a_second_set_of_tables_is_not_made_by_chance(
    empty_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """When the search_path leads elsewhere the error names both schemas; naming one is enough, and
    is told in the log."""
    caplog.set_level(logging.INFO, "langgraph_pgsaga.database")
    elsewhere = with_settings(empty_dsn, search_path="app")
    async with Database(empty_dsn) as db, Database(elsewhere) as moved:
        await migrate(db)
        with pytest.raises(InvalidArgumentError, match="search_path"):
            await migrate(moved)
        await execute(empty_dsn, "create schema app")
        for call in (migrate, migration_status, pending_sql):
            with pytest.raises(OtherTablesError, match=r"'public'.*schema='app'"):
                await call(moved)
        check = next(c for c in (await diagnose(moved)).checks if c.name == "migrations")
        assert "schema='public'" in check.found
    assert "app" not in {schema for schema, _ in await asyncio.to_thread(tables_of, empty_dsn)}
    async with Database(elsewhere, schema="public") as same:
        assert await migrate(same) == []
    assert "making new tables" not in caplog.text
    async with Database(elsewhere, schema="app") as own:
        assert await migrate(own) == load_migrations()
    assert "making new tables in schema 'app', beside those in ['public']" in caplog.text
    async with Database(empty_dsn) as db:
        check = next(c for c in (await diagnose(db)).checks if c.name == "schema")
        assert check.status is CheckStatus.WARN
        assert "public" in check.found
        assert "app" in check.found


@pytest.mark.parametrize(
    "path", ["pg_catalog, public", "information_schema, pg_temp, missing, public"]
)
async def test_no_table_is_made_among_postgresqls_own(empty_dsn: str, path: str) -> None:
    """Nor among a session's temporary ones: the first schema that is the user's has them."""
    dsn = with_settings(empty_dsn, search_path=path)
    async with Database(dsn) as db:
        async with db.transaction() as conn:
            await conn.execute("create temporary table t (a int)")
        await migrate(db)
        await Sessions(db).create("s")
        assert await Sessions(db).get("s") is not None
    assert {schema for schema, _ in await asyncio.to_thread(tables_of, empty_dsn)} == {"public"}
    alone = with_settings(empty_dsn, search_path="pg_catalog")
    await execute(empty_dsn, "drop schema public cascade")
    async with Database(alone) as db:
        with pytest.raises(InvalidArgumentError, match="search_path"):
            await migrate(db)


async def test_pending_files_go_where_the_tables_are(empty_dsn: str) -> None:
    """Also once there is a schema before it on the search_path, which new objects would go to."""
    path = with_settings(empty_dsn, search_path="app, public")
    async with Database(path) as db:
        await migrate(db, migrations=load_migrations()[:3])
        await execute(empty_dsn, "create schema app")
        assert await migrate(db) == load_migrations()[3:]
    assert {schema for schema, _ in await asyncio.to_thread(tables_of, empty_dsn)} == {"public"}


async def test_a_failing_file_leaves_nothing(empty_dsn: str) -> None:
    """Its first statements, and its record, go with the one that fails; earlier files stay."""
    good = Migration(version=1, name="0001_good", sql="create table good (a int)")
    bad = Migration(version=2, name="0002_bad", sql="create table bad (a int); select 1 / 0")
    async with Database(empty_dsn) as db:
        with pytest.raises(ServerError, match="division by zero"):
            await migrate(db, migrations=[good, bad])
        found = await migration_status(db, migrations=[good, bad])
        async with connection_of(db) as conn:
            names = await conn.fetch("select tablename from pg_tables where schemaname = 'public'")
    assert [s.applied_at is not None for s in found] == [True, False]
    assert {row["tablename"] for row in names} == {"good", "pgsaga_migrations"}


async def test_status_shows_what_is_pending(empty_dsn: str) -> None:
    """Every file is there, in order, first without and then with the time of its application."""
    async with Database(empty_dsn) as db:
        before = await migration_status(db)
        await migrate(db)
        after = await migration_status(db)
    assert [s.migration for s in before] == [s.migration for s in after] == load_migrations()
    assert all(s.applied_at is None for s in before)
    assert all(s.applied_at is not None and s.applied_at.tzinfo for s in after)


async def test_versions_are_the_files_numbers() -> None:
    """They count from 1 and none is there twice: the order of the files is the order of time."""
    versions = [m.version for m in load_migrations()]
    assert versions == sorted(set(versions))
    assert versions[0] == 1
    assert all(m.name.startswith(f"{m.version:04}_") for m in load_migrations())


def _pending(dsn: str, schema: str | None = None) -> str:
    async def run() -> str:
        async with Database(dsn, schema=schema) as db:
            return await pending_sql(db)

    return asyncio.run(run())


def _migrated(dsn: str, schema: str | None = None) -> list[Migration]:
    async def run() -> list[Migration]:
        async with Database(dsn, schema=schema) as db:
            return await migrate(db)

    return asyncio.run(run())


def test_the_printed_sql_makes_the_same_database(dsn: str, empty_dsn: str) -> None:
    """Run by hand it gives the same catalogue, and migrate then has nothing left to do."""
    fetch_script(empty_dsn, _pending(empty_dsn))
    assert catalogue_of(empty_dsn) == catalogue_of(dsn)
    assert _migrated(empty_dsn) == []
    assert _pending(empty_dsn) == ""


def test_the_printed_sql_makes_a_schema_too(empty_dsn: str) -> None:
    """Also one of an odd name; asking for the SQL changes nothing."""
    script = _pending(empty_dsn, ODD_SCHEMA)
    assert tables_of(empty_dsn) == set()
    fetch_script(empty_dsn, script)
    assert {name for name, _ in tables_of(empty_dsn)} == {ODD_SCHEMA}
    assert _migrated(empty_dsn, ODD_SCHEMA) == []


@pytest.mark.parametrize("by_hand", [False, True], ids=["by migrate", "by psql"])
def test_a_database_where_a_backslash_escapes_gets_the_same_tables(
    dsn: str, empty_dsn: str, by_hand: bool
) -> None:
    """What a migration's literals mean isn't left to the settings of a role or a database."""
    name = urlsplit(empty_dsn).path.lstrip("/")
    setting = f'alter database "{name}" set standard_conforming_strings = off'
    asyncio.run(execute(empty_dsn, setting))
    if by_hand:
        psql = [str(find_programs() / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", empty_dsn]
        subprocess.run(psql, input=_pending(empty_dsn), text=True, check=True)
    else:
        _migrated(empty_dsn)
    assert catalogue_of(empty_dsn) == catalogue_of(dsn)
    with PostgresSaver.from_conn_string(empty_dsn) as saver:
        run_a_graph(saver)


@pytest.mark.parametrize("schema", ["a$1b", "a$$b$2", "a'b", "a\nb--", "a\\:b{schema}."])
def test_a_schemas_name_is_no_part_of_the_printed_sql(empty_dsn: str, schema: str) -> None:
    """Whatever a name has that means something to SQL, to psql or to us."""
    psql = [str(find_programs() / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", empty_dsn]
    subprocess.run(psql, input=_pending(empty_dsn, schema), text=True, check=True)
    assert {name for name, _ in tables_of(empty_dsn)} == {schema}
    assert _migrated(empty_dsn, schema) == []


def fetch_script(dsn: str, script: str) -> None:
    async def run() -> None:
        conn = await asyncpg.connect(dsn)
        try:
            await conn.execute(script)
        finally:
            await conn.close()

    asyncio.run(run())


@pytest.fixture
def own_role(empty_dsn: str) -> Iterator[str]:
    """The DSN of a role that owns the schema "own" and may make nothing anywhere else."""
    role = f"pgsaga_test_{os.getpid()}"
    fetch_script(empty_dsn, f"create role {role} login; create schema own authorization {role}")
    yield with_user(empty_dsn, role)
    fetch_script(empty_dsn, f"drop owned by {role} cascade; drop role {role}")


def test_a_role_with_one_schema_of_its_own_is_enough(own_role: str) -> None:
    """It migrates and runs a graph without any right on the database or on `public`."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        fetch_script(own_role, "create schema more")
    assert "create schema" not in _pending(own_role, "own")
    with PostgresSaver.from_conn_string(own_role, schema="own") as saver:
        saver.setup()
        run_a_graph(saver)


def test_a_role_that_may_only_use_the_tables_is_enough(own_role: str, empty_dsn: str) -> None:
    """With the rights that the page names it runs graphs and deletes; without, an error tells them.

    Its setup() finds nothing to do.
    """
    role = f"pgsaga_test_{os.getpid()}_app"
    fetch_script(empty_dsn, f"create role {role} login")
    try:
        with PostgresSaver.from_conn_string(own_role, schema="own") as owner:
            owner.setup()
        with PostgresSaver.from_conn_string(with_user(empty_dsn, role), schema="own") as saver:
            with pytest.raises(ServerError, match="usage of the schema"):
                run_a_graph(saver)
            fetch_script(
                own_role,
                f"grant usage on schema own to {role};"
                f"grant select, insert, update, delete on all tables in schema own to {role}",
            )
            saver.setup()
            run_a_graph(saver)
    finally:
        fetch_script(empty_dsn, f"drop owned by {role} cascade; drop role {role}")


@pytest.fixture(scope="module")
def plain_server(public_tmp: Path) -> Iterator[str]:
    with postgres_server(public_tmp / "packaged") as dsn:
        yield dsn


def test_an_old_server_without_extensions_is_enough(plain_server: str) -> None:
    """The packaged PostgreSQL migrates, also by psql, and runs a graph in two schemas.

    Nothing makes an extension there, whether or not the machine has some to make, and what
    the migrations make is the same on every version.
    """
    with PostgresSaver.from_conn_string(plain_server) as saver:
        saver.setup()
        run_a_graph(saver)
    psql = [str(find_programs() / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", plain_server]
    script = _pending(plain_server, ODD_SCHEMA)
    subprocess.run(psql, input=script, text=True, check=True)
    assert _migrated(plain_server, ODD_SCHEMA) == []
    with PostgresSaver.from_conn_string(plain_server, schema=ODD_SCHEMA) as saver:
        run_a_graph(saver)
    extensions = fetch(plain_server, "select extname from pg_extension")
    assert [row["extname"] for row in extensions] == ["plpgsql"]
    for schema in (None, ODD_SCHEMA):
        assert catalogue.differences(catalogue_of(plain_server, schema)) == []
