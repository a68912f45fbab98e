"""Everything public, and every command, tried from the wrong tenant with another one's ids.

What is there is found by walking the package: a new method, function or command without a case
here fails the test that counts them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import io
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.errors import EmptyInputError, InvalidUpdateError
from typer.testing import CliRunner

from langgraph_pgsaga import Database, PgSagaError, PostgresSaver, cli, sync, takeover, timetravel
from langgraph_pgsaga.checkpoint.lease_block import LeaseBlock
from langgraph_pgsaga.errors import MissingConsumerError, MissingVersionError
from langgraph_pgsaga.events import (
    AgentEvent,
    Aggregate,
    Condition,
    Consumer,
    DeadLetters,
    EventStore,
    SubjectKeys,
)
from langgraph_pgsaga.messages import Messages
from langgraph_pgsaga.sessions import RetentionPolicy, Sessions, SessionStatus
from langgraph_pgsaga.takeover import ReadThroughSaver
from langgraph_pgsaga.work import Periodic, Worker
from tests import _cli as shops
from tests.conftest import execute
from tests.db._puts import checkpoint_of, config_of, put
from tests.db._tenants import fetch, of, rows_of

SECRET = "what a said"
NAME = "what a calls it"
# What shows that something is "a"'s: configs, and rows.
MARKS = (SECRET, NAME, "'tenant_id': 'a'", "tenant_id='a'")

# What reads or writes no thread.
NOT_OF_THREADS = {
    "PostgresSaver.get_next_version",
    "PostgresSaver.with_allowlist",
    "PostgresSaver.setup",
    "PostgresSaver.asetup",
    "PostgresSaver.close",
    "PostgresSaver.aclose",
    "PostgresSaver.from_conn_string",
    "PostgresSaver.embedded",
    "ReadThroughSaver.get_next_version",
    "ReadThroughSaver.with_allowlist",
    "ReadThroughSaver.call",
    *(f"{room}EventStore.{name}" for room in ("", "sync.")
      for name in ("from_conn_string", "initialize", "latest",  # "latest" tells no event
                   "register_event_handler")),
    "timetravel.diff",  # of two dicts that the caller has
    "timetravel.aopen_errors",  # of a tuple that the caller has
}  # fmt: skip
_OF_SAVERS = {
    "list", "prune", "copy_thread", "delete_thread", "delete_for_runs", "put", "put_writes",
    "get_tuple", "get_delta_channel_history",
}  # fmt: skip
_OF_SESSIONS = {"create", "get", "update", "set_status", "delete", "list", "sweep", "job"}
_OF_MESSAGES = {"conversation", "rows", "children_of", "search", "tree", "export"}
_OF_TIMETRAVEL = {
    "at", "branches", "compare", "fork", "get_state", "list_states", "name_checkpoint", "replay",
    "update_state", "bisect",
}  # fmt: skip
OF_THREADS = {
    *(f"{owner}.{a}{name}"
      for owner in ("PostgresSaver", "ReadThroughSaver") for name in _OF_SAVERS for a in ("", "a")),
    "PostgresSaver.aget_iter",
    "PostgresSaver.anew",
    "PostgresSaver.lease",
    "ReadThroughSaver.ais_imported",
    "ReadThroughSaver.aimport_thread",
    *(f"{room}Sessions.{name}" for room in ("", "sync.") for name in _OF_SESSIONS),
    *(f"{room}Messages.{name}" for room in ("", "sync.") for name in _OF_MESSAGES),
    "History.at",
    "History.load",
    "History.values",
    "History.avalues",
    *(f"timetravel.{a}{name}" for name in _OF_TIMETRAVEL for a in ("", "a")),
    "timetravel.history",
    "timetravel.anamespaces",
    "takeover.import_threads",
}  # fmt: skip
_OF_EVENTS = {
    "append", "append_event", "fold", "forget_subject", "get_event", "get_events",
    "get_latest_snapshot", "guard", "lag", "prove", "read_all", "read_matching", "rewrap_keys",
    "rotate_subject", "save_snapshot", "seal", "seal_job", "sealed_root", "subscribe", "verify",
    "forget_consumer", "job", "list_consumers", "replace_consumer",
}  # fmt: skip
OF_EVENTS = {f"{room}EventStore.{name}" for room in ("", "sync.") for name in _OF_EVENTS}
OF_EVENTS |= {f"{room}DeadLetters.{n}" for room in ("", "sync.") for n in ("list", "retry", "skip")}
OF_EVENTS |= {"events.event_node", "events.recorded"}
_OF_SEALED = {"prove", "sealed_root", "verify"}
_OF_SUBJECTS = {"forget_subject", "rewrap_keys", "rotate_subject"}
# They give nothing of a thread, and change nothing of one, also to whose it is.
_SAY_NOTHING = {
    "timetravel.anamespaces",
    "PostgresSaver.anew",
    "PostgresSaver.lease",
    "ReadThroughSaver.ais_imported",
}


def public_names() -> set[str]:
    """Every public function, and every method of a public class."""
    owners: list[tuple[str, type]] = [
        ("PostgresSaver", PostgresSaver),
        ("ReadThroughSaver", ReadThroughSaver),
        ("Sessions", Sessions),
        ("sync.Sessions", sync.Sessions),
        ("Messages", Messages),
        ("sync.Messages", sync.Messages),
        ("History", timetravel.History),
        ("EventStore", EventStore),
        ("sync.EventStore", sync.EventStore),
        ("DeadLetters", DeadLetters),
        ("sync.DeadLetters", sync.DeadLetters),
    ]
    found = {
        f"{prefix}.{name}"
        for prefix, owner in owners
        for name, member in vars(owner).items()
        if not name.startswith("_") and (callable(member) or isinstance(member, classmethod))
    }
    found |= {
        f"timetravel.{name}"
        for name in timetravel.__all__
        if inspect.isfunction(getattr(timetravel, name))
    }
    return found | {"takeover.import_threads", "events.event_node", "events.recorded"}


def test_everything_public_has_a_case() -> None:
    """A method or function that is new says here whether it is of threads."""
    assert public_names() == OF_THREADS | OF_EVENTS | NOT_OF_THREADS
    assert not OF_THREADS & NOT_OF_THREADS


class World:
    """A thread of the tenant "a", in the new saver and in an old one, as seen by `tenant`."""

    def __init__(self, saver: PostgresSaver, old: InMemorySaver, tenant: str) -> None:
        self.saver = saver
        self.both = ReadThroughSaver(saver, old, tenant="a")
        self.tenant = tenant
        self.graph: Any = shops.shop(saver)
        self.latest = saver.get_tuple(of("a"))
        assert self.latest is not None
        ids = self.latest.config["configurable"]["checkpoint_id"]
        self.config = of(tenant, checkpoint_id=ids)
        state = timetravel.get_state(self.graph, of("a", checkpoint_id=ids))
        self.state = dataclasses.replace(state, config=self.config)
        self.steps = timetravel.history(self.graph, of(tenant))
        self.a_steps = timetravel.history(self.graph, of("a"))
        self.file = io.StringIO()

    @classmethod
    def made(cls, dsn: str, tenant: str) -> World:
        saver = PostgresSaver.from_conn_string(dsn)
        said = {"messages": [HumanMessage(SECRET)], "note": SECRET}
        shops.shop(saver).invoke(said, of("a"))
        timetravel.name_checkpoint(saver, of("a"), NAME)
        put(saver, of("a", "of a run"), {"c": SECRET}, {"run_id": "run of a"})
        event = AgentEvent(event_type="said", event_data={"said": SECRET})
        sync.EventStore(saver.db, tenant="a").append("t", [event], aggregate_type="desk")
        old = InMemorySaver()
        made: Any = shops.shop
        made(old).invoke(said, config_of("old"))
        return cls(saver, old, tenant)

    def owner(self, prefix: str) -> Any:
        owners: dict[str, Callable[[], Any]] = {
            "PostgresSaver": lambda: self.saver,
            "ReadThroughSaver": lambda: self.both,
            "Sessions": lambda: Sessions(self.saver.db, tenant=self.tenant),
            "sync.Sessions": lambda: sync.Sessions(self.saver.db, tenant=self.tenant),
            "Messages": lambda: Messages(self.saver, tenant=self.tenant),
            "sync.Messages": lambda: sync.Messages(self.saver, tenant=self.tenant),
            "History": lambda: self.steps,
            "timetravel": lambda: timetravel,
            "takeover": lambda: takeover,
        }
        return owners[prefix]()

    def arguments(self, name: str) -> dict[str, Any]:
        """Those by which the tenant asks for what is "a"'s."""
        checkpoint = checkpoint_of(self.saver, {"c": 1})
        if name.endswith("put"):
            assert self.latest is not None
            checkpoint["id"] = self.latest.checkpoint["id"]
        return {
            "thread_id": "old" if "import" in name else "t",
            "config": self.config,
            "tenant": self.tenant,
            "graph": self.graph,
            "state": self.state,
            "checkpoint": checkpoint,
            "metadata": {},
            "new_versions": checkpoint["channel_versions"],
            "writes": [("__error__", "broken")],
            "task_id": "00000000-0000-0000-0000-000000000000",
            "channels": ["messages"],
            "run_ids": ["run of a"],
            "thread_ids": ["t"],
            "strategy": "delete",
            "source_thread_id": "t",
            "target_thread_id": "copy",
            "status": SessionStatus.COMPLETED,
            "text": SECRET,
            "file": self.file,
            "message_no": 1,
            "step": self.a_steps[1] if name.endswith("values") else None,
            "steps": self.steps,
            "predicate": bool,
            "name": NAME if name == "History.at" or name.endswith("at") else "taken by b",
            "variants": {"as it is": None},
            "values": {"total": 5},
            "as_node": "add_up",
            "source": self.saver.anew(tenant=self.tenant),
            "target": self.saver,
            "saver": self.saver,
            "policies": [RetentionPolicy(max_idle=timedelta(microseconds=1), keep_named=False)],
            "user_id": None if "list" in name or "search" in name else "b",
            "priority": 7,
        }


# What the saver of LangGraph may be called with besides.
_OPTIONAL = {"tenant", "strategy", "name", "text", "policies", "as_node", "thread_ids", "values"}


def call(world: World, name: str) -> str:
    """What the tenant gets to see; an error of ours or of LangGraph's is an answer, too."""
    prefix, _, method = name.rpartition(".")
    function = getattr(world.owner(prefix), method)
    wanted = inspect.signature(function).parameters
    values = world.arguments(name)
    given = {
        key: values[key]
        for key, parameter in wanted.items()
        if parameter.default is parameter.empty or key in _OPTIONAL
        if parameter.kind is not parameter.VAR_KEYWORD
    }
    if "config" in given and "tenant" in given:
        del given["tenant"]
    if name == "sync.Messages.rows" or name == "Messages.rows":
        given.pop("text", None)
    if method in ("list", "alist") and "Saver" in prefix:
        everything = {"config": None, "tenant": world.tenant}
        return seen(finished(function(**given))) + seen(finished(function(**everything)))
    if name == "Messages.search" or name == "sync.Messages.search":
        thread = function(**given, thread_id="t")
        return seen(finished(function(**given))) + seen(finished(thread))
    if "compare" in name:
        found = finished(function(**given))
        shown = seen(found)
        found.discard()
        return shown
    return seen(finished(function(**given))) + world.file.getvalue()


def finished(answer: Any) -> Any:
    """What comes of an answer when it is waited for, or gone through."""

    async def listed(found: AsyncIterator[Any]) -> list[Any]:
        return [one async for one in found]

    async def awaited(found: Awaitable[Any]) -> Any:
        return await found

    if isinstance(answer, AsyncIterator):
        return asyncio.run(listed(answer))
    if isinstance(answer, Awaitable):
        return asyncio.run(awaited(answer))
    if isinstance(answer, Periodic):
        return asyncio.run(awaited(answer.work()))
    if isinstance(answer, LeaseBlock):
        with answer:
            return None
    return list(answer) if isinstance(answer, Iterator | timetravel.History) else answer


def seen(found: Any) -> str:
    """All that an answer shows."""
    if isinstance(found, list | tuple) and not hasattr(found, "_fields"):
        return "".join(map(seen, found))
    if isinstance(found, timetravel.State):
        return repr(found.snapshot)
    if isinstance(found, timetravel.Comparison):
        return "".join(seen(one.state) for one in found.outcomes.values() if one.state)
    if isinstance(found, timetravel.BranchTree):
        return repr([branch.steps for branch in found.branches])
    if isinstance(found, timetravel.History):
        return repr(list(found))
    return repr(found)


_ANSWERS = (PgSagaError, InvalidUpdateError, EmptyInputError)


@pytest.mark.parametrize("name", sorted(OF_THREADS))
def test_the_wrong_tenant_gets_and_changes_nothing(dsn: str, name: str) -> None:
    """Whatever is called with "a"'s ids by "b": "a"'s rows stay, and "b" sees nothing of them.

    And the same call by "a" shows something or changes something, so that it could have.
    """
    world = World.made(dsn, "b")
    with world.saver:
        before, old = rows_of(dsn, "a"), repr(world.both.old.get_tuple(config_of("old")))
        try:
            shown = call(world, name)
        except _ANSWERS as error:
            shown = str(error)
        assert not [mark for mark in MARKS if mark in shown]
        assert rows_of(dsn, "a") == before
        assert repr(world.both.old.get_tuple(config_of("old"))) == old
        right = World(world.saver, world.both.old, "a")  # type: ignore[arg-type]
        try:
            shown = call(right, name)
        except _ANSWERS as error:
            # A name or a session that is there already shows that "a" was reached.
            shown = f"{SECRET}: {error}" if "already" in str(error) else ""
        is_felt = any(mark in shown for mark in MARKS) or rows_of(dsn, "a") != before
        assert is_felt or name in _SAY_NOTHING


@pytest.mark.parametrize("name", sorted(OF_EVENTS - {"events.event_node", "events.recorded"}))
def test_the_wrong_tenant_gets_and_changes_no_event(dsn: str, name: str) -> None:
    """As with threads: "b" calls everything with the ids of "a"'s events, and then "a" does."""
    with Database(dsn) as db:
        of_a = sync.EventStore(db, tenant="a")
        event = AgentEvent(event_type="said", event_data={"said": SECRET}, tags=["t"])
        [event] = of_a.append("t", [event], aggregate_type="desk")
        of_a.save_snapshot("t", "desk", {"said": SECRET}, 1)
        if name.rpartition(".")[2] in _OF_SUBJECTS:
            before_keys = sync.EventStore(db, tenant="a", subjects=_subjects(bytes(32)))
            told = AgentEvent(event_type="told", event_data={"said": SECRET}, subject="s")
            before_keys.append("t", [told], aggregate_type="desk")
        while name.rpartition(".")[2] in _OF_SEALED and not of_a.seal():
            pass  # another transaction of the server is open
        asyncio.run(execute(dsn, *_A_DEAD_LETTER))

        def rows() -> list[Any]:
            tables = ["agent_events", "event_snapshots", "event_guards", "event_seals"]
            tables += ["event_consumers", "event_dead_letters", "event_subjects"]
            asked = "select r::text from {} r where tenant_id = 'a' order by 1"
            return [tuple(map(tuple, fetch(dsn, asked.format(table)))) for table in tables]

        before = rows()
        shown = _event_call(db, name, "b", event)
        assert SECRET not in shown
        assert rows() == before
        shown = _event_call(db, name, "a", event)
        assert SECRET in shown or re.search("(events|seals)=1", shown) or rows() != before


_A_DEAD_LETTER = (
    f"""
    insert into event_consumers (tenant_id, name, partition, partition_count, era, tx, position)
    select 'a', name, 0, 1, 0, '0', 0 from unnest(array['{SECRET}', 'new of a']) k (name)
    """,
    f"""
    insert into event_dead_letters
      (tenant_id, consumer, partition, aggregate_type, aggregate_id, version, event_id)
    values ('a', '{SECRET}', 0, 'desk', 'of a', 1, 'event of a')
    """,
)


def _subjects(master_key: bytes) -> SubjectKeys:
    """With the other one of two master keys as a former one."""
    both = [bytes(32), bytes(range(32))]
    return SubjectKeys(master_key=master_key, former_master_keys=both, personal={"told": ["said"]})


def _event_call(db: Database, name: str, tenant: str, event: AgentEvent) -> str:
    """What a tenant gets of it."""
    prefix, _, method = name.rpartition(".")
    owner, _, cls = prefix.rpartition(".")
    here: Any = {"EventStore": EventStore, "DeadLetters": DeadLetters}[cls]
    more_keys = {"subjects": _subjects(bytes(range(32)))} if cls == "EventStore" else {}
    store: Any = (getattr(sync, cls) if owner == "sync" else here)(db, tenant=tenant, **more_keys)
    is_own = tenant == "a"
    more = AgentEvent(
        event_id="more",
        event_type="said",
        aggregate_id="t",
        aggregate_type="desk",
        event_data={"said": SECRET if is_own else "b"},
    )
    aggregate: Aggregate[Any] = Aggregate(
        aggregate_type="desk", initial=dict, apply=lambda state, event: event.event_data
    )
    arguments: dict[str, tuple[Any, ...]] = {
        "append": ("t", [more]),
        "append_event": (more,),
        "fold": (aggregate, "t"),
        "get_event": (event.event_id,),
        "get_events": ("t",),
        "get_latest_snapshot": ("t",),
        "guard": (["said"],),
        "read_matching": (Condition(types=["said"], tags=["t"]),),
        "save_snapshot": ("t", "desk", {}, 1),
        "prove": (event.event_id,),
        "forget_consumer": (SECRET,),
        "replace_consumer": (SECRET, "new of a"),
        "retry": (SECRET, "event of a"),
        "skip": (SECRET, "event of a"),
        "forget_subject": ("s",),
        "rotate_subject": ("s",),
    }
    if method == "seal_job":
        return repr(db.portal.call(store.seal_job().work))
    if method == "job":
        return asyncio.run(_consumed(db, store, tenant))
    named = {"aggregate_type": "desk"} if method == "append" else {}
    try:
        answer = getattr(store, method)(*arguments.get(method, ()), **named)
        if method != "subscribe":
            return repr(finished(answer))
    except (MissingConsumerError, MissingVersionError):  # it says what was asked for
        return ""
    ended = EventStore(db, tenant=tenant)
    finished(ended.append("end", [AgentEvent(event_type="end")], aggregate_type="desk"))
    if isinstance(answer, AsyncIterator):
        return repr(asyncio.run(_first(answer)))
    return repr(next(answer))


async def _consumed(db: Database, store: Any, tenant: str) -> str:
    """What a consumer of the tenant's is given, up to an event of its own."""
    found: list[str] = []
    is_over = asyncio.Event()

    async def handle(event: AgentEvent) -> None:
        found.append(repr(event.event_data))
        if event.aggregate_id == "end":
            is_over.set()

    end = AgentEvent(event_type="end")
    await EventStore(db, tenant=tenant).append("end", [end], aggregate_type="desk")
    async with Worker(db, store.job(Consumer(name=f"of {tenant}", handler=handle))):
        await is_over.wait()
    return "".join(found)


async def _first(answer: Any) -> Any:
    try:
        return await anext(answer)
    finally:
        await answer.aclose()


def test_the_namespaces_of_another_tenants_thread_are_none(sync_saver: PostgresSaver) -> None:
    """They are those of the config's thread, and so of its tenant."""
    checkpoint = checkpoint_of(sync_saver, {"c": 1})
    for namespace in ("", "sub"):
        place = of("a", checkpoint_ns=namespace)
        sync_saver.put(place, checkpoint, {}, checkpoint["channel_versions"])

    def namespaces(tenant: str, limit: int | None = None) -> list[str]:
        call = sync_saver.db.portal.call
        return call(timetravel.anamespaces, sync_saver, of(tenant), limit)

    assert namespaces("a") == ["", "sub"]
    assert namespaces("a", 1) == [""]
    assert namespaces("b") == []


# Commands

_A_TIME = "2020-01-01"
# By its words (and what tells two calls of one apart): what it is called with.
COMMANDS: dict[str, list[str]] = {
    "history": ["t"],
    "show": ["t"],
    "diff": ["t", "-1", "latest"],
    "tree": ["t"],
    "fork": ["t", "--at", "latest", "--to", "copy"],
    "messages": ["t"],
    "messages --search": ["--search", SECRET],
    "messages --export": ["--export", "-"],
    "messages all": [],
    "sweep": ["--max-idle", "1s", "--drop-named", "--yes"],
    "import": ["--thread", "old"],
    "sessions list": [],
    "sessions show": ["t"],
    "sessions expire": ["t", "--at", _A_TIME],
    "sessions delete": ["t", "--yes"],
    "events consumers": [],
    "events dead-letters list": [],
    "events dead-letters retry": [SECRET, "event of a"],
    "events dead-letters skip": [SECRET, "event of a"],
    "events show": ["t"],
    "events tail": ["--since", "1h"],
    "events verify": [],
}
NO_THREADS = {
    "migrate up",
    "migrate status",
    "migrate sql",
    "migrate distribute",
    "doctor",
    "serve-embedded",
    "worker",
}


def commands(app: Any, *before: str) -> Iterator[str]:
    for name, command in app.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *before, name)
        else:
            yield " ".join((*before, name))


def test_every_command_has_a_case() -> None:
    """One that is new says here whether it is of threads; those that are take --tenant."""
    app: Any = typer.main.get_command(cli.app)
    words = {name.split(" --")[0].removesuffix(" all") for name in COMMANDS}
    assert set(commands(app)) == words | NO_THREADS
    for name in words:
        command = app
        for word in name.split():
            command = command.commands[word]
        assert "tenant" in {parameter.name for parameter in command.params}, name


@pytest.fixture
def old_file(tmp_path: Path) -> str:
    """A checkpoint file of another saver, with a thread that everybody may import as theirs."""
    path = tmp_path / "old.sqlite"
    with SqliteSaver.from_conn_string(str(path)) as old:
        made: Any = shops.shop
        made(old).invoke({"messages": [HumanMessage("old")]}, config_of("old"))
    return f"sqlite:{path}"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_in_the_wrong_tenant_shows_and_changes_nothing(
    dsn: str, old_file: str, name: str
) -> None:
    """And in the right one, or in none, what is that one's."""
    world = World.made(dsn, "b")
    world.saver.close()
    asyncio.run(_grown_old(dsn))
    asyncio.run(execute(dsn, *_A_DEAD_LETTER))
    before = rows_of(dsn, "a")
    words = name.split(" --", maxsplit=1)[0].removesuffix(" all").split()
    more = ["--from", old_file] if name == "import" else []
    run: Callable[..., Any] = CliRunner(env={"COLUMNS": "300"}).invoke

    def said(*options: str) -> str:
        done = run(cli.app, [*words, *COMMANDS[name], *more, "--dsn", dsn, *options])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            assert isinstance(done.exception, PgSagaError), done.exception
        return str(done.output)

    for options in (["--tenant", "b"], []):
        shown = said(*options)
        assert SECRET not in shown
        assert NAME not in shown
        assert rows_of(dsn, "a") == before
    shown = said("--tenant", "a")
    assert SECRET in shown or NAME in shown or "t " in shown or rows_of(dsn, "a") != before


@pytest.mark.parametrize("name", ["messages all", "messages --search", "sessions list", "sweep"])
def test_all_tenants_are_asked_for(dsn: str, name: str) -> None:
    """By --all-tenants alone: with --tenant, or of one thread, it is a mistake."""
    World.made(dsn, "b").saver.close()
    asyncio.run(_grown_old(dsn))
    run: Callable[..., Any] = CliRunner(env={"COLUMNS": "300"}).invoke
    words = name.split(" --", maxsplit=1)[0].removesuffix(" all").split()
    asked = [*words, *COMMANDS[name], "--dsn", dsn, "--all-tenants"]
    assert run(cli.app, [*asked, "--tenant", "a"]).exit_code == 2
    done = run(cli.app, asked)
    assert done.exit_code == 0, done.output
    if name == "sweep":
        assert fetch(dsn, "select from agent_sessions") == []
    else:
        assert "a" in {line.split()[-1] for line in done.output.splitlines() if line.split()}
    if name == "messages all":
        assert run(cli.app, ["messages", "t", "--dsn", dsn, "--all-tenants"]).exit_code == 2


async def _grown_old(dsn: str) -> None:
    at = datetime.now(UTC) - timedelta(hours=1)
    await execute(dsn, f"update agent_sessions set last_activity_at = '{at.isoformat()}'")
