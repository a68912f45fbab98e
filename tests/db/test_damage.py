"""Rows that somebody damaged or forged: whoever reads them gets a typed error, or what is
there, and soon."""

from __future__ import annotations

import asyncio
import io
import os
import resource
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.types import Send
from typer.testing import CliRunner

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.cli import app
from langgraph_pgsaga.errors import (
    CheckpointDeletedError,
    CorruptSessionError,
    CorruptValueError,
    PgSagaError,
    ServerError,
)
from langgraph_pgsaga.sessions import RetentionPolicy
from langgraph_pgsaga.sync import Messages, Sessions
from langgraph_pgsaga.threads import session_id_of
from langgraph_pgsaga.timetravel import branches, history, name_checkpoint
from tests._tables import SESSION_TABLES
from tests.conftest import execute, fetch, with_database
from tests.db._puts import checkpoint_of, config_of, put

# Far more than any of the calls takes, far less than what forged rows once made of them: of this
# process's time, and of the server's.
_SECONDS, _SERVER_SECONDS = 5.0, 30
_MEGABYTES = 200


class Damaged(NamedTuple):
    """A database in which the thread `t` is damaged, and `sound` isn't."""

    dsn: str
    saver: PostgresSaver
    first_id: str
    last_id: str


def damage(dsn: str, *statements: str) -> None:
    """What a forger does: no constraint of ours is in the way but those of the tables."""
    asyncio.run(execute(dsn, *statements))


def a_thread(saver: PostgresSaver, thread_id: str) -> tuple[str, str]:
    """Two checkpoints with every kind of row; their ids."""
    human, answer = HumanMessage("hello", id="1"), AIMessage("hello yourself", id="2")
    rows = {f"key {n}": f"{n} " * 300 for n in range(40)}
    first = put(saver, config_of(thread_id), {"messages": [human], "c": 1, "rows": rows})
    values = {"messages": [human, answer], "note": {"at": answer, "n": [1]}, "rows": rows}
    last = put(saver, first, values, {"step": 1})
    saver.put_writes(last, [("messages", [answer]), ("note", Send("n", {"m": answer}))], "task")
    saver.put_writes(first, [("messages", [answer])], "task")
    return tuple(config["configurable"]["checkpoint_id"] for config in (first, last))


@pytest.fixture(scope="module")
def source(server_dsn: str, template_database: str) -> Iterator[tuple[str, PostgresSaver]]:
    """A database with a sound thread, whose copies are damaged, and its saver."""
    name = f"pgsaga_damaged_{os.getpid()}"
    asyncio.run(execute(server_dsn, f'create database "{name}" template "{template_database}"'))
    limit = f"alter database \"{name}\" set statement_timeout = '{_SERVER_SECONDS} s'"
    asyncio.run(execute(server_dsn, limit))
    dsn = with_database(server_dsn, name)
    with PostgresSaver.from_conn_string(dsn) as saver:
        a_thread(saver, "sound")
        yield dsn, saver
    asyncio.run(execute(server_dsn, f'drop database "{name}" with (force)'))


@pytest.fixture
def damaged(source: tuple[str, PostgresSaver]) -> Iterator[Damaged]:
    dsn, saver = source
    saver.copy_thread("sound", "t")
    config = config_of("t")
    ids = [one.config["configurable"]["checkpoint_id"] for one in saver.list(config)]
    saver.get_tuple(config)
    yield Damaged(dsn, saver, ids[1], ids[0])
    damage(dsn, *(f"delete from {table} where {T}" for table in SESSION_TABLES))


T = "session_id = pgsaga_session_id('t')"


def of_runs(runs: str) -> tuple[str, ...]:
    """The runs of all values and writes of the thread."""
    return tuple(
        f"update {table} set message_runs = {runs} where {T} and message_runs is not null"
        for table in ("agent_state_values", "agent_state_writes")
    )


def of_state(column: str, value: str) -> tuple[str, ...]:
    return (f"update agent_states set {column} = {value} where {T}",)


def of_part(key: str, value: str) -> tuple[str, ...]:
    return of_state("state_data", f"jsonb_set(state_data, '{{{key}}}', $${value}$$)")


def of_session(column: str, value: str) -> tuple[str, ...]:
    return (f"update agent_sessions set {column} = {value} where {T}",)


def of_message(column: str, value: str) -> tuple[str, ...]:
    return (f"update agent_messages set {column} = {value} where {T} and message_no = 1",)


# As many as make the server or the reader work for minutes where each is looked at.
MANY_RUNS = "(select array_agg(1 + i % 2) from generate_series(0, 99999) i)"
NESTED_RUNS = """(
  select array_agg(case when i % 2 = 1 then 1 else 2147483647 - i end)
  from generate_series(1, 50000) i
)"""
RUNS = {
    "of an odd number": "'{1}'",
    "of none": "'{}'",
    "to nothing": "'{1,null}'",
    "from nothing": "'{null,2}'",
    "below zero": "'{-5,2}'",
    "from zero": "'{0,1}'",
    "backwards": "'{2,1}'",
    "far too long": "'{1,2147483647}'",
    "at the end of integers": "'{2147483647,2147483647}'",
    "overlapping": "'{1,2,1,2,2,2}'",
    "in rows": "'{{1,2},{1,2}}'",
    "with other bounds": "'[0:1]={1,2}'",
    "over and over": MANY_RUNS,
    "one in another": NESTED_RUNS,
}
JSON = {
    "null": "null",
    "a number": "5",
    "text": '"x"',
    "a list": "[1, [2]]",
    "an object": '{"a": [1], "messages": {"b": 1}}',
}
UNREADABLE = {
    "a number beyond doubles": """'{"x": 1e400}'::jsonb""",
    "lists in one another": (
        "jsonb_build_object('x', (repeat('[', 1500) || repeat(']', 1500))::jsonb)"
    ),
}
PARTS = ("channel_versions", "channel_values", "versions_seen", "v", "ts", "id")
CONTENTS = {
    "of an unknown type": "type = 'x'",
    "of no type": "type = ''",
    "torn": "payload = substr(payload, 2)",
    "of a byte with runs": "payload = '\\x01', blob_hashes = null, message_runs = '{1,2}'",
    "of bytes for messages": (
        "type = 'messages', message_runs = null, payload = '\\x90', blob_hashes = null"
    ),
}
HASHES = {
    "none": "'{}'",
    "null": "'{null}'",
    "unknown": "array['\\x00'::bytea]",
    "repeated": "array(select blob_hashes[1] from generate_series(1, 300000))",
    "in rows": "array[blob_hashes, blob_hashes]",
}
MESSAGE_COLUMNS = {
    "payload": "'\\xc1'",
    "payload_type": "'x'",
    "message_type": "'nobody'",
    "role": "''",
    "parent_message_no": "1",
    "message_id": "null",
    "message_no": "2147483647",
    "content": "repeat('x', 3000000)",
}
STATE_COLUMNS = {
    "exact": "'\\xc1', exact_type = 'msgpack'",
    "parent_checkpoint_id": "''",
    "checkpoint_id": "checkpoint_id || repeat('x', 500)",
    "checkpoint_ns": "'a|b:c|' || repeat('n', 700)",
    "checkpoint_name": "checkpoint_id || repeat('n', 500)",
}
SESSION_COLUMNS = {
    "message_count": "-5",
    "deletion_count": "2147483647",
    "last_position": "9223372036854775807",
    "message_epoch": "-9223372036854775808",
    "priority": "-2147483648",
    "thread_id": "'other'",
    "user_id": "repeat('u', 100000)",
    "lease_expires_at": "'infinity'",
}
ONE = f"where {T} and channel = 'messages'"
WRITE_COLUMNS = {
    "idx": "-2147483648",
    "task_path": "repeat('~', 100000)",
    "task_id": "''",
    "channel": "'__pregel_tasks'",
}
Damages: TypeAlias = Iterator[tuple[str, tuple[str, ...]]]


def of_shapes() -> Damages:
    """Runs, and JSON of another shape than ours."""
    for name, runs in RUNS.items():
        yield f"runs {name}", of_runs(runs)
    for name, value in JSON.items():
        yield f"state_data is {name}", of_state("state_data", f"$${value}$$")
        yield f"metadata is {name}", of_state("metadata", f"$${value}$$")
        yield f"session metadata is {name}", of_session("metadata", f"$${value}$$")
        yield f"message metadata is {name}", of_message("metadata", f"$${value}$$")
        for key in PARTS:
            yield f"{key} is {name}", of_part(key, value)
        for key in ("step", "source", "parents", "counters_since_delta_snapshot"):
            change = f"jsonb_set(metadata, '{{{key}}}', $${value}$$)"
            yield f"metadata's {key} is {name}", of_state("metadata", change)
    for key in PARTS:
        yield f"no {key}", of_state("state_data", f"state_data - '{key}'")
    for v in ("1e300", '"4"', "-1", "3.5", "1"):
        yield f"v is {v}", of_part("v", v)


def of_unreadable_json() -> Damages:
    """What jsonb holds, and no reader takes."""
    for name, value in UNREADABLE.items():
        yield f"state_data has {name}", of_state("state_data", f"state_data || {value}")
        yield f"metadata has {name}", of_state("metadata", f"metadata || {value}")
        yield f"session metadata has {name}", of_session("metadata", value)
        yield f"message metadata has {name}", of_message("metadata", value)


def of_times() -> Damages:
    for ts in ("infinity", "2026-01-01T00:00:00", "99999-01-01T00:00:00+00:00"):
        yield f"ts is {ts}", of_part("ts", f'"{ts}"')
    for moment in ("infinity", "-infinity", "10000-01-01", "4713-01-02 BC"):
        for column in ("created_at", "last_activity_at", "expires_at"):
            yield f"{column} of the session is {moment}", of_session(column, f"'{moment}'")
        yield f"a message of {moment}", of_message("created_at", f"'{moment}'")
        yield f"a state of {moment}", of_state("created_at", f"'{moment}'")


def of_contents() -> Damages:
    """Values, writes and what they refer to."""
    for table in ("agent_state_values", "agent_state_writes"):
        for name, change in CONTENTS.items():
            yield f"{table} {name}", (f"update {table} set {change} where {T}",)
    for name, hashes in HASHES.items():
        change = f"blob_hashes = {hashes} where {T} and blob_hashes is not null"
        yield f"hashes {name}", (f"update agent_state_values set {change}",)
    for table in SESSION_TABLES:
        yield f"{table} gone", (f"delete from {table} where {T}",)
    yield "a message gone", (f"delete from agent_messages where {T} and message_no = 1",)


def of_columns() -> Damages:
    for column, value in MESSAGE_COLUMNS.items():
        yield f"a message's {column}", of_message(column, value)
    for column, value in STATE_COLUMNS.items():
        yield f"a state's {column}", of_state(column, value)
    for column, value in SESSION_COLUMNS.items():
        yield f"the session's {column}", of_session(column, value)
    yield "the session's message_count at its end", of_session("message_count", "2147483647")
    for column, value in WRITE_COLUMNS.items():
        yield f"a write's {column}", (f"update agent_state_writes set {column} = {value} {ONE}",)
    ring = f"update agent_messages set parent_message_no = 3 - message_no where {T}"
    yield "parents in a ring", (ring,)


DAMAGES = dict(chain(of_shapes(), of_unreadable_json(), of_times(), of_contents(), of_columns()))


def readings(d: Damaged) -> dict[str, Callable[[], Any]]:
    """Every way in which a thread is read."""
    saver, messages, sessions = d.saver, Messages(d.saver), Sessions(d.saver.db)
    config = config_of("t")
    at = config_of("t", checkpoint_id=d.last_id)
    fresh = PostgresSaver(saver.db)
    steps = history(saver, config)
    return {
        "get_tuple": lambda: fresh.get_tuple(config),
        "get_tuple by id": lambda: fresh.get_tuple(at),
        "get_tuple remembered": lambda: saver.get_tuple(config),
        "list": lambda: list(saver.list(config)),
        "list all": lambda: list(saver.list(None)),
        "list by metadata": lambda: list(saver.list(None, filter={"step": 0})),
        "delta history": lambda: saver.get_delta_channel_history(
            config=at, channels=["messages", "rows", "note"]
        ),
        "conversation": lambda: messages.conversation("t"),
        "rows": lambda: messages.rows("t"),
        "rows of all": messages.rows,
        "rows of a branch": lambda: messages.rows("t", checkpoint_id=d.last_id),
        "search": lambda: messages.search("hello"),
        "tree": lambda: str(messages.tree("t")),
        "export": lambda: messages.export(io.StringIO()),
        "full export": lambda: messages.export(io.StringIO(), full=True),
        "session": lambda: sessions.get("t"),
        "sessions": lambda: sessions.list(order="priority"),
        "sessions by words": lambda: sessions.list(text="hello"),
        "history": lambda: (str(history(saver, config)), history(saver, config)._repr_html_()),
        "branches": lambda: (str(branches(saver, config)), branches(saver, config)._repr_html_()),
        "at": lambda: history(saver, config).at(step=1),
        "values": lambda: [steps.values(step) for step in steps[:2]],
    }


def bounded(
    name: str, call: Callable[[], Any], *errors: type[BaseException]
) -> BaseException | None:
    """What the call raises of `errors`; it takes neither long nor much."""
    began, size = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    failed: BaseException | None = None
    try:
        call()
    except errors as error:
        failed = error
    seconds = time.process_time() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size) / 1024
    assert seconds < _SECONDS, f"{name} took {seconds:.1f} s"
    assert grown < _MEGABYTES, f"{name} took {grown:.0f} MB"
    return failed


@pytest.mark.parametrize("statements", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_a_typed_error_or_an_honest_answer(
    damaged: Damaged, statements: tuple[str, ...]
) -> None:
    """In every way of reading, in time and memory that the damage doesn't rule."""
    damage(damaged.dsn, *statements)
    for name, call in readings(damaged).items():
        bounded(name, call, PgSagaError)


@pytest.mark.parametrize("change", ["payload = '\\x01'", "payload_type = 'bytes'"])
def test_a_message_that_is_none_is_no_message_of_a_list(damaged: Damaged, change: str) -> None:
    """Its row holds bytes that are sound, of a value that no node takes for a message."""
    damage(damaged.dsn, f"update agent_messages set {change} where message_no = 1 and {T}")
    with pytest.raises(CorruptValueError, match="no message's"):
        PostgresSaver(damaged.saver.db).get_tuple(config_of("t"))


def commands(d: Damaged) -> list[list[str]]:
    """Every command that looks."""
    return [
        ["show", "t"],
        ["history", "t"],
        ["diff", "t", d.first_id, d.last_id],
        ["tree", "t"],
        ["messages"],
        ["messages", "t"],
        ["messages", "--search", "hello"],
        ["messages", "t", "--export", "-", "--full"],
        ["messages", "--export", "-"],
        ["sessions", "list"],
        ["sessions", "show", "t"],
        ["doctor"],
        ["sweep", "--keep-last", "1", "--dry-run"],
    ]


# One or two of each kind.
SHOWN = (
    *("runs of an odd number", "runs to nothing", "runs far too long", "runs one in another"),
    *("state_data is a list", "metadata is text", "session metadata is a list", "v is text"),
    *("message metadata is a list", "channel_versions is text", "ts is a list", "id is text"),
    *("versions_seen is text", "metadata's step is text", "metadata's parents is a list"),
    *("no channel_values", "v is 1", "ts is infinity", "created_at of the session is -infinity"),
    *("last_activity_at of the session is 10000-01-01", "a message of 10000-01-01"),
    *("expires_at of the session is 4713-01-02 BC", "a message of infinity"),
    *("a state of 4713-01-02 BC", "agent_state_values torn", "agent_state_values of no type"),
    *("agent_state_writes torn", "hashes unknown", "hashes repeated", "agent_sessions gone"),
    *("agent_states gone", "agent_messages gone", "a message's payload", "a message's content"),
    *("a state's exact", "a state's checkpoint_ns", "the session's message_count"),
    *("session metadata has a number beyond doubles", "message metadata has lists in one another"),
    *("state_data has lists in one another", "metadata has a number beyond doubles"),
    *("the session's thread_id", "the session's user_id", "a write's channel", "parents in a ring"),
)


@pytest.mark.parametrize("name", SHOWN)
def test_a_command_says_what_is_wrong_or_shows_what_is_there(damaged: Damaged, name: str) -> None:
    """In a line, soon, without a traceback; and lists over all threads have the sound one."""
    damage(damaged.dsn, *DAMAGES[name])
    runner = CliRunner(env={"COLUMNS": "200"})
    for words in commands(damaged):
        done: list[Any] = []
        call = partial(runner.invoke, app, [*words, "--dsn", damaged.dsn])
        bounded(" ".join(words), lambda call=call, done=done: done.append(call()))  # type: ignore[misc]
        (result,) = done
        error = result.exception
        assert error is None or isinstance(error, PgSagaError | SystemExit), words
        assert result.exit_code in (0, 1, 3), words
        if words in (["messages"], ["sessions", "list"], ["messages", "--export", "-"]):
            assert result.exit_code == 0, (words, error)
            assert "sound" in result.stdout, words


CALLS: dict[str, Callable[[Damaged], Any]] = {
    "update": lambda d: put(d.saver, config_of("t", checkpoint_id=d.last_id), {"c": 2}),
    "name": lambda d: name_checkpoint(d.saver, config_of("t"), "named"),
    "copy": lambda d: d.saver.copy_thread("t", "copy"),
    "copy until": lambda d: d.saver.copy_thread("t", "copy of past", checkpoint_id=d.first_id),
    "prune": lambda d: d.saver.prune(["t"]),
    "delete runs": lambda d: d.saver.delete_for_runs(["run"]),
}


# What pruning, copying and deleting look at.
STRUCTURE = [
    name
    for name in DAMAGES
    if name.startswith(("runs", "hashes", "channel_versions", "state_data is", "v is"))
    or name.endswith(("gone", "metadata is a list"))
]


@pytest.mark.parametrize("name", STRUCTURE)
def test_a_damaged_thread_stops_no_other(damaged: Damaged, name: str) -> None:
    """What writes to it, copies or prunes it ends soon, a sweep goes on; it can be deleted."""
    damage(damaged.dsn, *DAMAGES[name])
    try:
        for called, call in CALLS.items():
            bounded(called, partial(call, damaged), PgSagaError)
        sessions = Sessions(damaged.saver.db)
        bounded("sweep", lambda: sessions.sweep([RetentionPolicy(keep_last=1)]))
        assert len(list(damaged.saver.list(config_of("sound")))) == 1
    finally:
        for thread_id in ("t", "copy", "copy of past", "sound"):
            damaged.saver.delete_thread(thread_id)
        a_thread(damaged.saver, "sound")


def test_parts_that_are_too_large_together_are_corrupt(dsn: str) -> None:
    """What the server can't put together for a reader was never stored: it isn't said to be
    a value that can't be."""
    too_large = """
      alter table agent_state_blobs rename to blobs_as_stored;
      create function too_large(payload bytea) returns bytea language plpgsql stable
        as $$ begin raise 'string buffer exceeds' using errcode = '54000'; end $$;
      create view agent_state_blobs as
        select session_id, hash, too_large(payload) as payload from blobs_as_stored
    """
    with PostgresSaver.from_conn_string(dsn) as saver:
        first_id, last_id = a_thread(saver, "t")
        damage(dsn, too_large)
        calls = readings(Damaged(dsn, saver, first_id, last_id))
        for name in ("get_tuple", "get_tuple by id", "list", "list all", "delta history"):
            with pytest.raises(CorruptValueError, match="more together than"):
                calls[name]()


@pytest.mark.parametrize(
    "statements",
    [of_part("channel_versions", "5"), of_runs("'{2,1}'"), of_runs("'{1,2147483647}'")],
    ids=["versions", "runs backwards", "runs to the end"],
)
def test_a_damaged_session_is_counted_and_named(
    damaged: Damaged, caplog: pytest.LogCaptureFixture, statements: tuple[str, ...]
) -> None:
    """By the sweep's result, and by a warning with its id. Pruned by itself, it says that its rows
    are to blame, and no argument."""
    damage(damaged.dsn, *statements)
    with pytest.raises(ServerError):
        damaged.saver.prune(["t"])
    result = Sessions(damaged.saver.db).sweep([RetentionPolicy(keep_last=1)])
    assert (result.damaged_sessions, result.pruned_sessions) == (1, 1)
    (record,) = [r for r in caplog.records if r.name == "langgraph_pgsaga.sessions"]
    assert str(session_id_of("t")) in record.getMessage()
    damaged.saver.delete_thread("sound")
    a_thread(damaged.saver, "sound")


COUNTERS = {
    "of no message": ("message_count", "0"),
    "below zero": ("message_count", "-1"),
    "far below": ("message_count", "-5"),
    "at the end": ("message_count", "2147483647"),
    "of positions at the end": ("last_position", "9223372036854775807"),
}
# What the errors say.
RIGHT = {
    "message_count": f"(select max(message_no) from agent_messages where {T})",
    "last_position": f"(select max(position) from agent_states where {T})",
}


@pytest.mark.parametrize("knows", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("name", COUNTERS)
def test_a_counter_that_was_forged_is_told_and_can_be_put_right(
    damaged: Damaged, name: str, knows: bool
) -> None:
    """By a put, whether or not this process knows the session; also one that joins a transaction.
    Set as the error says, the thread goes on."""
    column, forged = COUNTERS[name]
    saver = damaged.saver if knows else PostgresSaver(damaged.saver.db)
    damage(damaged.dsn, *of_session(column, forged))
    assert PostgresSaver(saver.db).get_tuple(config_of("t")) is not None
    at = config_of("t", checkpoint_id=damaged.last_id)
    human = HumanMessage("anew", id="3")

    async def join() -> None:
        checkpoint = checkpoint_of(saver, {"messages": [human]})
        async with saver.db.transaction() as conn:
            versions = checkpoint["channel_versions"]
            await saver.aput(at, checkpoint, {}, versions, conn=conn)

    for call in (
        lambda: put(saver, at, {"messages": [human]}),
        lambda: saver.db.portal.call(join),
    ):
        with pytest.raises(CorruptSessionError, match=f"{column} in agent_sessions") as caught:
            call()
        assert caught.value.thread_id == "t"
    damage(damaged.dsn, *of_session(column, RIGHT[column]))
    made = put(saver, at, {"messages": [human]})
    found = PostgresSaver(saver.db).get_tuple(made)
    assert found is not None
    assert found.checkpoint["channel_values"]["messages"] == [human]


def test_messages_without_a_session_are_told_and_can_be_deleted(damaged: Damaged) -> None:
    """They aren't taken for those of a new thread of that id."""
    damage(damaged.dsn, f"delete from agent_sessions where {T}")
    saver = PostgresSaver(damaged.saver.db)
    human = HumanMessage("anew", id="3")
    with pytest.raises(CorruptSessionError, match="delete_thread"):
        put(saver, config_of("t"), {"messages": [human]})
    saver.delete_thread("t")
    put(saver, config_of("t"), {"messages": [human]})


def test_a_count_of_deletions_at_its_end_begins_anew(damaged: Damaged) -> None:
    """Whoever remembers a checkpoint that a prune took away is told all the same."""
    damage(damaged.dsn, *of_session("deletion_count", "2147483647"))
    reader = PostgresSaver(damaged.saver.db)
    at = config_of("t", checkpoint_id=damaged.first_id)
    assert reader.get_tuple(at) is not None
    damaged.saver.prune(["t"])
    with pytest.raises(CheckpointDeletedError):
        put(reader, at, {"c": 2})
    damage(damaged.dsn, *of_session("deletion_count", "2147483647"))
    put(damaged.saver, config_of("t", checkpoint_id=damaged.last_id), {"c": 2}, {"run_id": "r"})
    damaged.saver.delete_for_runs(["r"])


VIEWS = (
    "agent_state_history",
    "agent_conversations",
    "agent_message_log",
    "agent_message_statistics",
)


# The view says each of a list's messages, and forged runs may say a hundred thousand.
@pytest.mark.parametrize("name", [name for name in STRUCTURE if name != "runs over and over"])
def test_no_view_fails_for_all(damaged: Damaged, name: str) -> None:
    """Each still has the sound thread's rows, and can be read over all threads."""
    damage(damaged.dsn, *DAMAGES[name])
    for view in VIEWS:
        rows = fetch(damaged.dsn, f"select count(*) from {view} where thread_id = 'sound'")
        assert rows[0][0] > 0, view
        fetch(damaged.dsn, f"select count(*) from (select * from {view} offset 0) v")
