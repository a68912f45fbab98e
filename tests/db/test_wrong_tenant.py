"""Everything public, tried from the wrong tenant with another one's ids.

What is there is found by walking the package: a new method or function without a case here, or
among those of events and memory in tests/db/_wrong_tenant.py, fails the test that counts them.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from langgraph.errors import EmptyInputError, InvalidUpdateError

from langgraph_pgsaga import PgSagaError, PostgresSaver, sync, timetravel
from langgraph_pgsaga.events import DeadLetters, EventStore
from langgraph_pgsaga.memory import AgentMemory
from langgraph_pgsaga.messages import Messages
from langgraph_pgsaga.sessions import Sessions
from langgraph_pgsaga.takeover import ReadThroughSaver
from tests.db._puts import checkpoint_of, config_of
from tests.db._tenants import of, rows_of
from tests.db._wrong_tenant import NAME, OF_EVENTS, OF_MEMORY, SECRET, World, finished

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
    *(f"{room}AgentMemory.{name}" for room in ("", "sync.") for name in ("setup", "flush",
      "create_index",
      "recall_node", "remember_node", "tools")),  # of the run's tenant: test_memory_nodes.py
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
        ("AgentMemory", AgentMemory),
        ("sync.AgentMemory", sync.AgentMemory),
        ("EventStore", EventStore),
        ("sync.EventStore", sync.EventStore),
        ("DeadLetters", DeadLetters),
        ("sync.DeadLetters", sync.DeadLetters),
    ]
    found = {
        f"{prefix}.{name}"
        for prefix, owner in owners
        for cls in owner.__mro__
        if cls.__module__.startswith("langgraph_pgsaga")
        for name, member in vars(cls).items()
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
    assert public_names() == OF_THREADS | OF_EVENTS | OF_MEMORY | NOT_OF_THREADS
    assert not OF_THREADS & NOT_OF_THREADS


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
