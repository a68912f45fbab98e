"""diagnose, on databases that something is wrong with."""

from __future__ import annotations

import asyncio
import shlex
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlencode, urlsplit

import asyncpg
import pytest
from langchain_core.messages import HumanMessage

from langgraph_pgsaga import Database, PostgresSaver
from langgraph_pgsaga.doctor import Check, CheckStatus, Diagnosis, catalogue, diagnose, doctor
from langgraph_pgsaga.errors import UnstorableValueError
from langgraph_pgsaga.timetravel import Step, history
from tests._cli import order
from tests._limits import HANG_SECONDS
from tests.conftest import execute, with_database
from tests.db._gates import CONFIG, adds, graph_of

pytestmark = pytest.mark.anyio


async def diagnosed(dsn: str, **options: str) -> Diagnosis:
    async with Database(dsn, pooler=True, schema=options.get("schema")) as database:
        return await diagnose(database)


async def check(dsn: str, name: str) -> Check:
    found = await diagnosed(dsn)
    (one,) = (one for one in found.checks if one.name == name)
    assert bool(one.advice) or one.status is CheckStatus.OK
    return one


async def test_a_new_database_is_well(dsn: str) -> None:
    """On a migrated database nothing fails, and each check says what it found."""
    found = await diagnosed(dsn)
    assert all(one.status is not CheckStatus.FAIL for one in found.checks)
    assert all(one.found for one in found.checks)
    names = [one.name for one in found.checks]
    assert len(set(names)) == len(names)
    assert {"server", "migrations", "objects", "sessions", "replicas"} <= set(names)


async def test_missing_pending_and_changed_migrations_fail(dsn: str, empty_dsn: str) -> None:
    """Each is told apart, and the tables aren't looked at where they may not be there."""
    missing = await diagnosed(empty_dsn)
    assert missing.status is CheckStatus.FAIL
    assert missing.checks[-1].name == "migrations"
    assert "no tables" in missing.checks[-1].found
    async with Database(empty_dsn, schema="the app's") as db:
        advice = (await diagnose(db)).checks[-1].advice
    assert shlex.split(advice.strip("`").split("`")[1])[3:] == ["--schema", "the app's"]
    last = "(select max(version) from pgsaga_migrations)"
    await execute(dsn, f"delete from pgsaga_migrations where version = {last}")
    assert "pending: 0" in (await check(dsn, "migrations")).found
    await execute(dsn, "update pgsaga_migrations set sha256 = 'x' where version = 1")
    changed = await check(dsn, "migrations")
    assert "another text" in changed.found
    assert changed.status is CheckStatus.FAIL


async def test_a_setting_that_loses_states_is_told(dsn: str) -> None:
    """synchronous_commit off, as the database sets it, warns."""
    name = urlsplit(dsn).path.removeprefix("/")
    await execute(dsn, f'alter database "{name}" set synchronous_commit = off')
    found = await check(dsn, "synchronous_commit")
    assert (found.status, found.found) == (CheckStatus.WARN, "off")


async def test_a_database_whose_words_are_ascii_is_told(dsn: str, server_dsn: str) -> None:
    """With LC_CTYPE C a search misses words next to quotation marks beyond ASCII."""
    name = f"{urlsplit(dsn).path.removeprefix('/')}_c"
    make = f"create database {name} template template0 lc_ctype 'C' lc_collate 'C'"
    await execute(server_dsn, f"{make} encoding 'UTF8'")
    try:
        found = await check(with_database(server_dsn, name), "words")
        assert found.status is CheckStatus.WARN
        assert found.found.startswith("LC_CTYPE is C:")
    finally:
        await execute(server_dsn, f"drop database {name} with (force)")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_that_lacks_characters_is_told(
    dsn: str, server_dsn: str, encoding: str
) -> None:
    """By doctor; a text that such a database can't hold is refused without a word of it."""
    name = f"{urlsplit(dsn).path.removeprefix('/')}_e"
    make = f"create database {name} template template0 lc_ctype 'C' lc_collate 'C'"
    await execute(server_dsn, f"{make} locale_provider libc encoding '{encoding}'")
    its_dsn = with_database(server_dsn, name)
    try:
        found = await check(its_dsn, "encoding")
        assert found.status is CheckStatus.WARN
        assert found.found.startswith(f"{encoding}: ")
        async with PostgresSaver.from_conn_string(its_dsn) as saver:
            await saver.asetup()
            graph = graph_of(
                saver, one=adds(HumanMessage("na\N{LATIN SMALL LETTER I WITH DIAERESIS}f"))
            )
            assert (await graph.ainvoke({"items": []}, CONFIG))["items"]
            graph = graph_of(saver, one=adds(HumanMessage("a \N{EURO SIGN}")))
            if encoding == "LATIN1":
                with pytest.raises(UnstorableValueError, match="encoding UTF8") as refused:
                    await graph.ainvoke({"items": []}, CONFIG)
                assert "0x" not in "".join(traceback.format_exception(refused.value))
            else:
                await graph.ainvoke({"items": []}, CONFIG)
    finally:
        await execute(server_dsn, f"drop database {name} with (force)")


async def test_transactions_that_stay_open_are_named(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that idles and one that works are each told, with pid and application."""
    monkeypatch.setattr(doctor, "_IDLE_SECONDS", -1)
    monkeypatch.setattr(doctor, "_ACTIVE_SECONDS", -1)
    idle = await asyncpg.connect(dsn, server_settings={"application_name": "idler"})
    busy = await asyncpg.connect(dsn)
    await idle.execute("begin; select 1")
    working = asyncio.ensure_future(busy.execute("select pg_sleep(60)"))
    is_active = "select 1 from pg_stat_activity where pid = $1 and state = 'active'"
    async with asyncio.timeout(HANG_SECONDS):
        while not await idle.fetchval(is_active, busy.get_server_pid()):
            await asyncio.sleep(0.01)
            await idle.execute("rollback; begin; select 1")
    found = await check(dsn, "idle in transaction")
    assert found.status is CheckStatus.WARN
    assert f"pid {idle.get_server_pid()} of" in found.found
    assert "(idler)" in found.found
    assert f"pid {busy.get_server_pid()} of" in (await check(dsn, "long transactions")).found
    working.cancel()
    busy.terminate()
    idle.terminate()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("drop index agent_messages_words_idx", "no index agent_messages_words_idx"),
        ("drop view agent_message_log", "no view agent_message_log"),
        (
            "alter table agent_states drop column checkpoint_name cascade",
            "no view agent_state_history; no column agent_states.checkpoint_name",
        ),
        ("drop table agent_state_writes cascade", "no table agent_state_writes"),
        (
            "alter table agent_messages drop constraint agent_messages_digest_key",
            "no constraint agent_messages.agent_messages_digest_key",
        ),
        (
            "drop function pgsaga_message_words cascade",
            "no function pgsaga_message_words(content text)",
        ),
        (
            "drop function pgsaga_joined_blobs",
            "no function pgsaga_joined_blobs(session_id uuid, hashes bytea[])",
        ),
        (
            """
            create or replace function pgsaga_session_id(thread_id text) returns uuid
            language sql immutable strict parallel safe
            return md5(thread_id)::uuid
            """,
            "function pgsaga_session_id(thread_id text) has another source",
        ),
        (
            """
            create or replace function pgsaga_joined_blobs(session_id uuid, hashes bytea[])
            returns bytea language sql volatile strict return hashes[1]
            """,
            """
            function pgsaga_joined_blobs(session_id uuid, hashes bytea[]) is returns bytea sql
            volatile strict, not returns bytea sql stable strict; function
            pgsaga_joined_blobs(session_id uuid, hashes bytea[]) has another source
            """,
        ),
        (
            """
            create or replace view agent_message_log as
            select t.thread_id, t.user_id, m.session_id, m.message_no, m.message_id,
              m.parent_message_no, m.message_type, m.role, ''::text as content, m.metadata,
              m.created_at, t.tenant_id
            from agent_messages m
            join agent_sessions t on t.session_id = m.session_id
            """,
            "view agent_message_log has another source",
        ),
        ("drop type pgsaga_new_state cascade", "no type pgsaga_new_state"),
        (
            "alter table agent_sessions alter column priority type bigint",
            "column agent_sessions.priority is bigint not null default 0, not integer",
        ),
        (
            "alter table agent_sessions alter column user_id drop not null",
            "column agent_sessions.user_id is text",
        ),
        # As a concurrent build that failed leaves it.
        (
            """
            update pg_index set indisvalid = false
            where indexrelid = 'agent_messages_words_idx'::regclass
            """,
            "index agent_messages_words_idx (invalid)",
        ),
    ],
)
async def test_what_the_migrations_made_and_isnt_there(dsn: str, change: str, told: str) -> None:
    """A missing, altered or invalid table, view, column, index, constraint, function or type."""
    assert (await check(dsn, "objects")).status is CheckStatus.OK
    await execute(dsn, change)
    found = await check(dsn, "objects")
    assert found.status is CheckStatus.FAIL
    assert found.found.startswith(" ".join(told.split()))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("drop trigger touched on agent_messages", "no trigger agent_messages.touched"),
        (
            "alter table agent_messages disable trigger touched",
            """
            trigger agent_messages.touched is CREATE TRIGGER touched BEFORE UPDATE ON
            agent_messages FOR EACH STATEMENT EXECUTE FUNCTION touch() (disabled), not CREATE
            TRIGGER touched BEFORE UPDATE ON agent_messages FOR EACH STATEMENT EXECUTE FUNCTION
            touch()
            """,
        ),
        (
            """
            create or replace function touch() returns trigger language plpgsql
            as 'begin return new; end'
            """,
            "function touch() has another source",
        ),
    ],
)
async def test_a_trigger_that_is_gone_would_be_named(
    dsn: str, change: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The migrations make none yet; with one, its loss and its function's change are told."""
    await execute(
        dsn,
        "create function touch() returns trigger language plpgsql as 'begin return null; end'",
        "create trigger touched before update on agent_messages execute function touch()",
    )
    async with Database(dsn) as database:
        expected = await catalogue.found(database)
    monkeypatch.setattr(catalogue, "expected", lambda: expected)
    assert (await check(dsn, "objects")).status is CheckStatus.OK
    await execute(dsn, change)
    assert (await check(dsn, "objects")).found == " ".join(told.split())


async def test_all_that_is_missing_is_named(dsn: str) -> None:
    """However many it are, in the table as in the document."""
    indexes = ["sessions_user", "sessions_expires", "messages_words", "states_name"]
    await execute(dsn, *(f"drop index agent_{name}_idx" for name in indexes))
    found = await check(dsn, "objects")
    assert found.found.split("; ") == sorted(f"no index agent_{name}_idx" for name in indexes)


@pytest.mark.parametrize(
    "setting",
    [
        "standard_conforming_strings = off",
        "bytea_output = 'escape'",
        "datestyle = 'German, DMY'",
        "intervalstyle = 'sql_standard'",
        "search_path = public, pg_catalog",
        "quote_all_identifiers = on",
        "extra_float_digits = -15",
        "timezone = 'Asia/Kolkata'",
    ],
)
async def test_settings_of_the_database_change_nothing_of_it(dsn: str, setting: str) -> None:
    """What the migrations made is the same, however the database reads and prints values."""
    name = urlsplit(dsn).path.removeprefix("/")
    await execute(dsn, f'alter database "{name}" set {setting}')
    assert (await check(dsn, "objects")).status is CheckStatus.OK


async def test_what_somebody_made_beside_it_is_fine(dsn: str) -> None:
    """A column, an index, a view and a table of one's own are no fault."""
    await execute(
        dsn,
        "alter table agent_sessions add column region text",
        *(
            f"alter table agent_{name} add column mine text"
            for name in ("states", "state_values", "state_writes", "messages")
        ),
        "create index mine on agent_sessions (region)",
        "create view agent_regions as select region from agent_sessions",
        "create table agent_notes (id int)",
    )
    assert (await check(dsn, "objects")).status is CheckStatus.OK


async def test_sessions_that_wait_for_a_sweep(dsn: str) -> None:
    """Those that expired just now are normal, those of two days ago warn."""
    await asyncio.to_thread(order, dsn, "order-1", "tea")
    await execute(dsn, "update agent_sessions set expires_at = now()")
    found = await check(dsn, "sessions")
    assert (found.status, found.found) == (CheckStatus.OK, "1, of which 1 have expired")
    await execute(dsn, "update agent_sessions set expires_at = now() - interval '2 days'")
    assert (await check(dsn, "sessions")).status is CheckStatus.WARN


async def test_dead_rows_and_updates_that_touch_indexes(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bloat, and an index of one's own that makes supersteps slow, are seen in the statistics."""
    monkeypatch.setattr(doctor, "_MANY_DEAD", 10)
    monkeypatch.setattr(doctor, "_MANY_UPDATES", 10)
    await asyncio.to_thread(order, dsn, "order-1", "tea")
    touch = "update agent_sessions set last_activity_at = clock_timestamp()"
    await execute(
        dsn,
        "alter table agent_sessions set (autovacuum_enabled = off)",
        "create index mine on agent_sessions (last_activity_at)",
        *[touch] * 20,
        "select pg_stat_force_next_flush()",
    )
    dead = await check(dsn, "dead rows")
    assert dead.status is CheckStatus.WARN
    assert "agent_sessions has" in dead.found
    assert (await check(dsn, "HOT updates")).status is CheckStatus.WARN


async def test_a_slot_that_nobody_reads_warns_once_it_keeps_much(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The WAL kept for it counts."""
    name = f"doctor_{urlsplit(dsn).path.removeprefix('/pgsaga_test_')}"
    await execute(dsn, f"select pg_create_physical_replication_slot('{name}', true)")
    try:
        assert name in (await check(dsn, "idle slots")).found
        monkeypatch.setattr(doctor, "_LARGEST_KEPT_BYTES", -1)
        assert (await check(dsn, "idle slots")).status is CheckStatus.WARN
    finally:
        await execute(dsn, f"select pg_drop_replication_slot('{name}')")


async def test_other_schemas_are_not_mixed_up(dsn: str) -> None:
    """With a schema of one's own, sizes and sessions are those of its tables."""
    await asyncio.to_thread(order, dsn, "order-1", "tea")
    async with Database(dsn, schema='my "odd" one') as database:
        await PostgresSaver(database).asetup()
    found = {one.name: one for one in (await diagnosed(dsn, schema='my "odd" one')).checks}
    assert found["sessions"].found == "0, of which 0 have expired"
    assert found["migrations"].status is CheckStatus.OK
    assert found["objects"].status is CheckStatus.OK


@asynccontextmanager
async def nobody(dsn: str) -> AsyncIterator[tuple[str, str]]:
    """A role that may nothing, and a DSN with it."""
    role = f"nobody_{urlsplit(dsn).path.removeprefix('/pgsaga_test_')}"
    await execute(dsn, f"create role {role}")
    url = urlsplit(dsn)
    try:
        yield role, url._replace(query=f"{url.query}&{urlencode({'role': role})}").geturl()
    finally:
        await execute(dsn, f"drop owned by {role}", f"drop role {role}")


async def test_row_security_that_counts_is_told(dsn: str) -> None:
    """It warns the user it counts for, whose deletions may leave rows behind, and no other."""
    async with nobody(dsn) as (role, theirs):
        await execute(
            dsn,
            f"grant select on all tables in schema public to {role}",
            "alter table agent_states enable row level security",
        )
        found = await check(theirs, "row security")
        assert (found.status, found.found) == (CheckStatus.WARN, "on for agent_states")
        assert (await check(dsn, "row security")).status is CheckStatus.OK


async def test_what_a_user_may_not_see_is_a_warning(dsn: str) -> None:
    """A user without rights on the tables gets warnings, not an exception."""
    async with nobody(dsn) as (role, theirs):
        found = {one.name: one for one in (await diagnosed(theirs)).checks}
        assert found["migrations"].status is CheckStatus.WARN
        assert found["migrations"].found == (
            "couldn't check: permission denied for table pgsaga_migrations"
        )
        assert found["objects"].status is CheckStatus.OK
        await execute(dsn, f"grant select on pgsaga_migrations to {role}")
        sessions = await check(theirs, "sessions")
        assert sessions.status is CheckStatus.WARN
        assert "couldn't check: permission denied" in sessions.found


# What a role may not do

_ALL_TABLES = (
    "table agent_sessions, table agent_states, table agent_state_writes, table agent_messages, "
    "table agent_workers, table agent_store_items, table agent_memory, table event_consumers, "
    "table event_dead_letters, table event_subjects"
)
_OTHERS = "table agent_state_values, table agent_state_blobs"
_JOBS = "table agent_jobs, table event_seal_heads, table event_snapshots"
_LOG = "table agent_events, table event_eras, table event_seals"


async def test_a_role_that_may_only_read_fails(dsn: str) -> None:
    """It is told what it may not do, where, and that this is enough to look."""
    async with nobody(dsn) as (role, theirs):
        await execute(dsn, f"grant select on all tables in schema public to {role}")
        found = await check(theirs, "privileges")
        assert found.status is CheckStatus.FAIL
        assert found.found == (
            f"role {role} has no insert, update, delete on {_ALL_TABLES}; "
            f"no insert, delete on {_OTHERS}; no insert, update on {_JOBS}; no insert on {_LOG}"
        )
        assert "to read only" in found.advice
        graph = await asyncio.to_thread(history_of, theirs)
        assert graph == []


def history_of(dsn: str) -> list[Step]:
    with PostgresSaver.from_conn_string(dsn) as saver:
        return list(history(saver, {"configurable": {"thread_id": "t"}}))


async def test_a_role_that_may_nothing_fails(dsn: str) -> None:
    """What is missing is told even where the list of migrations can't be read."""
    async with nobody(dsn) as (role, theirs):
        await execute(
            dsn,
            "create schema own",
            "revoke execute on function pgsaga_message_words from public",
        )
        found = await check(theirs, "privileges")
        assert found.status is CheckStatus.FAIL
        assert found.found == (
            f"role {role} has no select, insert, update, delete on {_ALL_TABLES}; "
            f"no select, insert, delete on {_OTHERS}; no select, insert, update on {_JOBS}; "
            f"no select, insert on {_LOG}; "
            "no select on table event_guards, table pgsaga_migrations; "
            "no execute on function pgsaga_message_words"
        )
        assert "to read only" not in found.advice
        async with Database(dsn, schema="own") as database:
            await PostgresSaver(database).asetup()
        closed = {one.name: one for one in (await diagnosed(theirs, schema="own")).checks}
        assert "has no usage on schema own; no select" in closed["privileges"].found


async def test_the_role_that_the_page_describes_is_well(dsn: str) -> None:
    """Usage of the schema, and the four privileges on all its tables."""
    async with nobody(dsn) as (role, theirs):
        grant = "grant select, insert, update, delete on all tables in schema public"
        await execute(dsn, f"{grant} to {role}")
        assert (await check(theirs, "privileges")).status is CheckStatus.OK


async def test_a_role_whose_transactions_only_read_fails(dsn: str) -> None:
    """With default_transaction_read_only, privileges are of no use."""
    name = urlsplit(dsn).path.removeprefix("/")
    await execute(dsn, f'alter database "{name}" set default_transaction_read_only = on')
    found = await check(dsn, "server")
    assert found.status is CheckStatus.FAIL
    assert "default_transaction_read_only is on" in found.found


@pytest.mark.parametrize(
    ("view", "names"),
    [
        ("pg_stat_activity", {"connections", "idle in transaction", "long transactions"}),
        ("pg_settings", {"fsync", "shared_buffers", "random_page_cost", "synchronous_commit"}),
        ("pg_stat_replication", {"replicas"}),
        ("pg_replication_slots", {"idle slots"}),
        ("pg_stat_user_tables", {"size", "dead rows", "HOT updates"}),
        ("pg_proc", {"objects", "privileges"}),
    ],
)
async def test_one_view_that_is_denied_takes_no_other_check_along(
    dsn: str, view: str, names: set[str]
) -> None:
    """Each check that reads it says so by itself; the others are as before."""
    before = await diagnosed(dsn)
    async with nobody(dsn) as (role, theirs):
        await execute(
            dsn,
            f"grant select, insert, update, delete on all tables in schema public to {role}",
            f"revoke select on pg_catalog.{view} from public",
        )
        found = await diagnosed(theirs)
    assert [one.name for one in found.checks] == [one.name for one in before.checks]
    denied = {one.name for one in found.checks if one.found.startswith("couldn't check: perm")}
    assert names <= denied
    assert denied <= {*names, *doctor._UNSAFE}
    assert found.status is not CheckStatus.FAIL
