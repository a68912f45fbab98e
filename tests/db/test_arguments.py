"""Every argument of every public method, given what it isn't made for."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_pgsaga import Database, PgSagaError, PostgresSaver, sync, timetravel
from langgraph_pgsaga.database import migrate, migration_status, pending_sql, table_schemas
from langgraph_pgsaga.distribution import distribute, distribution_sql
from langgraph_pgsaga.doctor import diagnose
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.events import (
    AgentEvent,
    Aggregate,
    Condition,
    Consumer,
    DeadLetters,
    EventStore,
    Projection,
    Upcaster,
    event_node,
    recorded,
)
from langgraph_pgsaga.memory import AgentMemory, ForgettingPolicy, NewMemory, Scoring
from langgraph_pgsaga.messages import Messages
from langgraph_pgsaga.sessions import RetentionPolicy, Sessions, SessionStatus
from langgraph_pgsaga.takeover import ReadThroughSaver, import_threads
from tests.conftest import execute, with_database
from tests.db import _histories as histories
from tests.db._puts import checkpoint_of, config_of, put

ODD: list[Any] = [
    None,
    5,
    -1,
    1.5,
    math.nan,
    True,
    "",
    "text",
    "a\0b",
    "\ud800",
    b"",
    b"bytes",
    [],
    [5],
    {},
    {"a": object()},
    object(),
    lambda: None,
    int,
    datetime(2026, 1, 1),  # noqa: DTZ001
]
# What LangGraph, the graph's nodes or the caller's own function get as it is.
NOT_OURS = {"values", "as_node", "input", "context", "predicate", "on_progress", "conn"}


class Target(NamedTuple):
    """A public function, and arguments that it takes."""

    name: str
    function: Callable[..., Any]
    arguments: dict[str, Any]

    def call(self, **odd: Any) -> Any:
        return finished(self.function(**self.arguments, **odd))


def finished(answer: Any) -> Any:
    """What comes of an answer when it is waited for, or gone through."""
    if isinstance(answer, AsyncIterator):
        return asyncio.run(_listed(answer))
    if isinstance(answer, Awaitable):
        return asyncio.run(_awaited(answer))
    if isinstance(answer, Iterator | timetravel.History):
        return list(answer)
    return answer


async def _awaited(answer: Awaitable[Any]) -> Any:
    return await answer


async def _listed(answer: AsyncIterator[Any]) -> list[Any]:
    return [one async for one in answer]


def methods_of(owner: object, prefix: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The public methods of an object's own class, and of what it has of the package.

    But those that end or start something, or run a function that they are given, and the one that
    has no end.
    """
    left_out = {"close", "aclose", "setup", "asetup", "embedded", "from_conn_string", "call"}
    left_out |= (
        {"recall_node", "remember_node", "tools"} if prefix.endswith("AgentMemory") else set()
    )
    left_out |= {"initialize", "subscribe", "job", "consolidate_job", "register_event_handler"}
    homes = [cls for cls in type(owner).__mro__ if cls.__module__.startswith("langgraph_pgsaga")]
    names = [name for cls in homes for name in vars(cls)]
    for name in dict.fromkeys(names):  # a class that is copied gets a name more
        found = getattr(owner, name)
        if not name.startswith("_") and inspect.isroutine(found) and name not in left_out:
            yield f"{prefix}.{name}", found


async def handle(event: Any, conn: Any = None) -> None:
    """A consumer's handler."""


class World:
    """Everything public on one database that has a thread."""

    def __init__(self, dsn: str) -> None:
        self.saver = PostgresSaver.from_conn_string(dsn)
        self.old = InMemorySaver()
        self.both = ReadThroughSaver(self.saver, self.old)
        self.graph = histories.approval(self.saver)
        self.config = config_of("t")
        self.graph.invoke({"total": ["start"]}, self.config)
        histories.approval(self.old).invoke({"total": ["start"]}, config_of("old"))
        self.state = timetravel.get_state(self.graph, self.config)
        self.steps = timetravel.history(self.graph, self.config)
        # Their methods are those of the async classes.
        self.sessions: Any = sync.Sessions(self.saver.db)
        self.messages: Any = sync.Messages(self.saver)

    def found(self) -> Any:
        return self.saver.get_tuple(self.config)

    def states(self, **options: Any) -> Iterator[Any]:
        return timetravel.list_states(self.graph, self.config, **options)

    def targets(self) -> Iterator[Target]:
        """Every public function, method and constructor with good arguments."""
        db = self.saver.db
        for owner, prefix in (
            (self.saver, "PostgresSaver"),
            (self.both, "ReadThroughSaver"),
            (Sessions(db), "Sessions"),
            (sync.Sessions(db), "sync.Sessions"),
            (Messages(self.saver), "Messages"),
            (sync.Messages(self.saver), "sync.Messages"),
            (self.steps, "History"),
            (EventStore(db), "EventStore"),
            (sync.EventStore(db), "sync.EventStore"),
            (AgentMemory(db), "AgentMemory"),
            (sync.AgentMemory(db), "sync.AgentMemory"),
            (DeadLetters(db), "DeadLetters"),
            (sync.DeadLetters(db), "sync.DeadLetters"),
        ):
            yield from (self._target(*found) for found in methods_of(owner, prefix))
        for name in timetravel.__all__:
            found = getattr(timetravel, name)
            if inspect.isfunction(found):
                yield self._target(f"timetravel.{name}", found)
        yield self._target("import_threads", import_threads)
        for kind in (PostgresSaver, Sessions, sync.Sessions, Messages, sync.Messages):
            yield self._target(kind.__name__, kind)
        kinds: tuple[Any, ...] = (EventStore, Condition, Aggregate, Upcaster)
        kinds += (Consumer, Projection, DeadLetters, sync.DeadLetters)
        kinds += (AgentMemory, sync.AgentMemory, NewMemory, Scoring, ForgettingPolicy)
        for made in kinds:
            yield self._target(made.__name__, made)
        # Of a store that appends nothing, so that nobody is called.
        yield self._target("register_event_handler", EventStore(db).register_event_handler)
        yield self._target("event_node", event_node)
        yield self._target("recorded", recorded)
        yield self._target("ReadThroughSaver", ReadThroughSaver)
        yield self._target("RetentionPolicy", RetentionPolicy)
        yield self._target("Database", Database)

    def _target(self, name: str, function: Callable[..., Any]) -> Target:
        wanted = inspect.signature(function).parameters
        given = {key: value for key, value in self._good(name).items() if key in wanted}
        return Target(name, function, given)

    def _good(self, name: str) -> dict[str, Any]:
        checkpoint = checkpoint_of(self.saver, {"c": 1})
        return {
            "thread_id": "u" if name.endswith("delete_thread") else "t",
            "config": self.state.config,
            "graph": self.graph,
            "state": self.state,
            "before": self.state.config,
            "after": self.state.values if name == "timetravel.diff" else None,
            "checkpoint": checkpoint,
            "metadata": {},
            "new_versions": checkpoint["channel_versions"],
            "writes": [("c", 1)],
            "task_id": "task",
            "channels": ["c"],
            "channel": "messages",
            "current": None,
            "extra_allowlist": [],
            "run_ids": ["r"],
            "thread_ids": ["u"],
            "source_thread_id": "t",
            "target_thread_id": "u",
            "status": SessionStatus.PAUSED,
            "text": "hello",
            "file": io.StringIO(),
            "message_no": 1,
            "step": self.steps[0] if name in ("History.values", "History.avalues") else 0,
            "steps": self.steps,
            "predicate": bool,
            "name": "c" if name in ("Consumer", "Projection") else None,
            "variants": {"as it is": None},
            "values": None,
            "source": self.old,
            "target": self.saver,
            "db": self.saver.db,
            "saver": self.saver,
            "found": self.found(),
            "new": self.saver,
            "old": self.old,
            "dsn": "postgresql://nobody@/nowhere",
            "store": EventStore(self.saver.db),
            "events": [AgentEvent(event_type="noted")],
            "event": AgentEvent(event_type="noted", aggregate_id="a", aggregate_type="desk"),
            "event_id": "1",
            "event_type": "noted",
            "aggregate": Aggregate(
                aggregate_type="desk", initial=dict, apply=lambda state, event: state
            ),
            "aggregate_id": "a",
            "aggregate_type": "desk",
            "snapshot_data": {},
            "version": 1,
            "schema_version": 1,
            "condition": None if "append" in name else Condition(types=["noted"], tags=["t"]),
            "types": ["noted"],
            "tags": ["t"],
            "initial": dict,
            "apply": lambda state, event: state,
            "upcast": lambda data: data,
            "node": lambda state: {},
            "handler": handle,
            "consumer": "c",
            "memories": ["a"],
            "policies": [ForgettingPolicy(max_age=timedelta(days=999))],
            "max_age": timedelta(days=999),
            "memory_id": "00000000-0000-0000-0000-000000000000",
            "user_id": "u",
            "query": "a",
        }


@pytest.fixture(scope="module")
def world(server_dsn: str, template_database: str) -> Iterator[World]:
    """One for all: what these calls store does no harm to the next."""
    name = "pgsaga_arguments"
    make = f'create database "{name}" template "{template_database}"'
    asyncio.run(execute(server_dsn, f"drop database if exists {name} with (force)", make))
    world = World(with_database(server_dsn, name))
    yield world
    world.saver.close()
    asyncio.run(execute(server_dsn, f"drop database {name} with (force)"))


def test_no_argument_fails_in_a_way_of_its_own(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is passed: it works, or a PgSagaError says what can't be used."""
    monkeypatch.chdir(tmp_path)  # some of it is the name of a file to write
    wrong: list[str] = []
    for target in world.targets():
        for parameter in inspect.signature(target.function).parameters.values():
            if parameter.name in NOT_OURS or parameter.kind is parameter.VAR_KEYWORD:
                continue
            for odd in ODD:
                arguments = {**target.arguments, parameter.name: odd}
                try:
                    finished(target.function(**arguments))
                except PgSagaError:
                    pass
                except Exception as error:
                    what = f"{target.name}({parameter.name}={odd!r})"
                    wrong.append(f"{what}: {type(error).__name__}: {error}"[:200])
    assert wrong == []


_SEQUENCES = {"channels", "types", "roles", "run_ids", "thread_ids", "policies", "allow", "writes"}
_SEQUENCES |= {
    "extra_allowlist",
    "events",
    "memories",
    "tags",
    "upcasters",
    "aggregate_types",
    "subjects",
}


def test_a_lone_text_is_no_list(world: World) -> None:
    """Every parameter that takes several refuses one text, whose characters nobody means, and a
    dict."""
    tried: set[str] = set()
    for target in world.targets():
        for name, parameter in inspect.signature(target.function).parameters.items():
            kinds = ("Sequence[", "Iterable[", "Collection[", "list[", "set[")
            if any(kind in str(parameter.annotation) for kind in kinds):
                tried.add(name)
                for alone in ("thread-t", b"thread-t", {"thread-t": 1}):
                    with pytest.raises(InvalidArgumentError, match="list") as caught:
                        finished(target.function(**{**target.arguments, name: alone}))
                    assert caught.value.argument in (name, "allow")
    assert tried == _SEQUENCES


def test_one_text_deletes_no_threads(world: World) -> None:
    """The threads that its characters would name stay."""
    saver = world.saver
    put(saver, config_of("x"), {"c": 1}, {"run_id": "x"})
    calls: list[Callable[[], None]] = [
        lambda: saver.prune("x", strategy="delete"),
        lambda: saver.delete_for_runs("x"),
        lambda: world.both.prune("x", strategy="delete"),
        lambda: world.both.delete_for_runs("x"),
    ]
    for call in calls:
        with pytest.raises(InvalidArgumentError, match=r"pass a list, also of one: \['x'\]"):
            call()
    assert saver.get_tuple(config_of("x")) is not None


NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001
Refused = tuple[str, Callable[[World], Any], str]
_LIMITS = (1.5, -1, True, "5")
REFUSED: list[Refused] = [
    *(("limit", lambda w, n=n: list(w.saver.list(None, limit=n)), "int") for n in _LIMITS),
    *(("limit", lambda w, n=n: list(w.both.list(None, limit=n)), "int") for n in _LIMITS),
    *(("limit", lambda w, n=n: w.messages.rows(limit=n), "int") for n in _LIMITS),
    *(("limit", lambda w, n=n: w.messages.search("a", limit=n), "int") for n in _LIMITS),
    *(("limit", lambda w, n=n: w.sessions.list(limit=n), "int") for n in _LIMITS),
    *(("limit", lambda w, n=n: list(w.states(limit=n)), "int") for n in _LIMITS),
    *(
        ("since", lambda w, t=t: w.messages.rows(since=t), "datetime with a time zone")
        for t in ("2026", NAIVE, 2026)
    ),
    *(
        ("active_since", lambda w, t=t: w.sessions.list(active_since=t), "time zone")
        for t in ("2026", NAIVE, 2026)
    ),
    *(("time", lambda w, t=t: w.steps.at(time=t), "time zone") for t in ("2026", NAIVE)),
    ("user_id", lambda w: w.sessions.create("n", user_id=5), "str, not int"),
    ("user_id", lambda w: w.sessions.create("n", user_id=None), "str, not NoneType"),
    ("user_id", lambda w: w.sessions.list(user_id=5), "str, not int"),
    ("user_id", lambda w: w.messages.search("a", user_id=5), "str, not int"),
    ("max_idle", lambda w: RetentionPolicy(max_idle=30), "timedelta"),  # type: ignore[arg-type]
    ("agent_type", lambda w: RetentionPolicy(agent_type=5), "str"),  # type: ignore[arg-type]
    ("db", lambda w: PostgresSaver("postgresql://h/db"), "from_conn_string"),  # type: ignore[arg-type]
    ("db", lambda w: Sessions("postgresql://h/db"), "Pass a Database"),  # type: ignore[arg-type]
    ("db", lambda w: sync.Sessions(w.saver), "saver.db"),  # type: ignore[arg-type]
    ("saver", lambda w: Messages(w.saver.db), "saver"),  # type: ignore[arg-type]
    ("saver", lambda w: Messages(w.both), "its new"),  # type: ignore[arg-type]
    ("saver", lambda w: sync.Messages(w.both), "its new"),  # type: ignore[arg-type]
    *(
        ("source", lambda w, s=s: import_threads(s, w.saver), "with")
        for s in ("postgresql://h/db", contextlib.nullcontext(InMemorySaver()))
    ),
    ("old", lambda w: ReadThroughSaver(w.saver, contextlib.nullcontext(InMemorySaver())), "with"),  # type: ignore[arg-type]
    *(
        ("statement", lambda w, m=m: getattr(w.saver.db, m)("select 1"), "db.transaction()")
        for m in ("fetch", "fetch_one", "text")
    ),
    *(
        ("work", lambda w, m=m: getattr(w.saver.db, m)("select 1"), "async def work(conn)")
        for m in ("run", "snapshot")
    ),
    *(
        ("db", lambda w, f=f: f("postgresql://h/db"), "such as saver.db")
        for f in (
            *(migrate, migration_status, pending_sql, table_schemas),
            *(diagnose, distribute, distribution_sql),
        )
    ),
    ("dsn", lambda w: Database(5), "str"),  # type: ignore[arg-type]
    ("max_size", lambda w: Database("postgresql://h/db", max_size=2.5), "int"),  # type: ignore[arg-type]
    ("before", lambda w: list(w.saver.list(None, before={})), "names no checkpoint"),
    ("before", lambda w: list(w.saver.list(None, before=config_of("t"))), "names no checkpoint"),
    ("before", lambda w: list(w.saver.list(None, before="1f")), "dict"),  # type: ignore[arg-type]
    ("before", lambda w: list(w.saver.list(None, before=w.state.snapshot)), "its .config"),  # type: ignore[arg-type]
    ("before", lambda w: list(w.saver.list(None, before=w.found())), "its .config"),
    ("before", lambda w: list(w.both.list(None, before=config_of("t"))), "names no checkpoint"),
    ("config", lambda w: w.saver.get_tuple("t"), "dict"),  # type: ignore[arg-type]
    ("configurable", lambda w: w.saver.get_tuple({"configurable": "t"}), "dict"),  # type: ignore[typeddict-item]
    ("filter", lambda w: list(w.saver.list(None, filter=[("a", 1)])), "dict"),  # type: ignore[arg-type]
    ("metadata", lambda w: w.sessions.list(metadata="a"), "dict"),
    ("checkpoint_id", lambda w: w.saver.copy_thread("t", "v", checkpoint_id=""), "checkpoint"),
    ("lease_seconds", lambda w: PostgresSaver(w.saver.db, lease_seconds=math.inf), "seconds"),
    ("seconds", lambda w: w.saver.lease("t", seconds=math.nan), "seconds"),
    *(
        ("thread_id", lambda w, t=t: w.saver.delete_thread(t), "str")
        for t in (True, 1.5, b"t", ["t"])
    ),
    ("thread_id", lambda w: w.saver.delete_thread("t\0"), "NUL"),
]


@pytest.mark.parametrize(("argument", "call", "hint"), REFUSED)
def test_what_cant_be_used_is_told(
    world: World, argument: str, call: Callable[[World], Any], hint: str
) -> None:
    """It is neither ignored nor an AttributeError: the message names it and what to pass."""
    with pytest.raises(InvalidArgumentError) as caught:
        finished(call(world))
    assert caught.value.argument == argument
    assert hint in str(caught.value)


def test_a_limit_of_none_is_nothing_and_the_time_may_have_any_zone(world: World) -> None:
    """As with LangGraph's own savers."""
    assert list(world.saver.list(None, limit=0)) == []
    east = timezone(timedelta(hours=5))
    assert world.messages.rows(since=datetime.now(east)).rows == []


class Falsy(dict[str, Any]):
    """A mapping that is false whatever is in it."""

    def __bool__(self) -> bool:
        return False


def test_a_mapping_that_is_false_is_not_dropped(sync_saver: PostgresSaver) -> None:
    """A filter, a config or a `before` counts by what is in it: dropped, each would list more, and
    a session would be nobody's."""
    own = Falsy(config_of("t", user_id="ada"), metadata=Falsy(plan="gold"))
    own["configurable"] = Falsy(own["configurable"])
    first = put(sync_saver, own, {"a": 1}, {"step": 1})  # type: ignore[arg-type]
    put(sync_saver, first, {"a": 2}, {"step": 2})
    put(sync_saver, config_of("t", "sub"), {"a": 1}, {"step": 4})
    put(sync_saver, config_of("other"), {"a": 1}, {"step": 3})

    def steps(*args: Any, **options: Any) -> list[Any]:
        return [one.metadata.get("step") for one in sync_saver.list(*args, **options)]

    place: Any = Falsy(configurable=Falsy(config_of("t")["configurable"]))
    assert steps(place) == [2, 1]
    assert steps(None, filter=Falsy(step=3)) == [3]
    assert steps(config_of("t"), before=Falsy(configurable=Falsy(first["configurable"]))) == []
    found = sync_saver.get_tuple(place)
    assert found is not None
    assert found.metadata.get("step") == 2
    session = sync.Sessions(sync_saver.db).get("t")
    assert session is not None
    assert (session.user_id, session.metadata) == ("ada", {"plan": "gold"})


@pytest.mark.parametrize("kind", ["deep dict", "deep list", "loop", "branching loop"])
def test_a_filter_without_an_end_is_refused(sync_saver: PostgresSaver, kind: str) -> None:
    """One that nests too deeply, or refers to itself, is told before anything is asked."""
    wanted: dict[str, Any] = {}
    if kind.startswith("deep"):
        inner: Any = 1
        for _ in range(300):
            inner = {"a": inner} if kind == "deep dict" else [inner]
        wanted = {"a": inner}
    elif kind == "loop":
        wanted["a"] = wanted
    else:
        loop: list[Any] = []
        loop += [loop, loop, [loop, {"a": loop}]]
        wanted["a"] = loop
    sync_saver.db.close()  # whatever is asked of it raises another error
    with pytest.raises(InvalidArgumentError, match="nests more than 200 deep"):
        list(sync_saver.list(None, filter=wanted))


def test_a_filter_may_nest_as_deep_as_metadata(sync_saver: PostgresSaver) -> None:
    """200 deep it is compared."""
    inner: Any = 1
    for _ in range(198):
        inner = {"a": inner}
    metadata: Any = {"source": "loop", "step": 0, "parents": {}, "deep": inner}
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    sync_saver.put(config, empty_checkpoint(), metadata, {})
    assert len(list(sync_saver.list(None, filter={"deep": inner}))) == 1
