"""What every saver has to answer, and a short run of random calls may not ask."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import (
    HumanMessage,
)
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.types import (
    INTERRUPT,
    TASKS,
    _DeltaSnapshot,
)
from langgraph.types import Send

from tests._tables import SESSION_TABLES
from tests.db._model_calls import (
    DELTA,
    Place,
    config_of,
    long_text,
)
from tests.db._model_machine import Driver, SaverMachine, driven


def a_thread(driver: Driver) -> tuple[SaverMachine, Place]:
    """A machine with one checkpoint."""
    machine = SaverMachine(driver)
    first = machine.new_place(machine.thread("t1"), "", None)
    return machine, machine.put(first, {"a": 1}, {"source": "input", "step": -1}, root=0)


def next_step(machine: SaverMachine, parent: Place, updates: dict[str, Any], v: int = 4) -> Place:
    place = machine.new_place(parent.thread_id, parent.checkpoint_ns, parent.checkpoint_id)
    return machine.put(place, updates, {"source": "loop", "step": 0}, root=0, v=v)


def ids_of(driver: Driver, place: Place) -> list[str]:
    """The ids of all of the place's thread, newest first."""
    return [found.checkpoint["id"] for found in driver.listed(config_of(place.thread_id))]


# What the machine finds too, but not in every short run of it.


@pytest.mark.parametrize("options", [{}, {"serde": "encrypted"}], ids=["clear", "encrypted"])
def test_old_checkpoints_have_the_sends_of_their_parents(dsn: str, options: dict[str, Any]) -> None:
    """Before format 4 a Send is a write of the parent: get_tuple, list and prune know it."""
    if options:
        options = {"serde": EncryptedSerializer.from_pycryptodome_aes(key=b"0" * 16)}
    with driven(dsn, is_async=True, **options) as driver:
        machine, parent = a_thread(driver)
        machine.put_writes(parent, [("a", 2), (TASKS, Send("late", 1))], "task-1", "path b")
        machine.put_writes(parent, [(TASKS, Send("early", 2))], "task-2", "path a")
        child = next_step(machine, parent, {"b": 1}, v=3)
        newest, oldest = driver.listed(config_of(child.thread_id))
        got = driver.call("get_tuple", child.config)
        machine.prune(["t1"])
        kept = driver.call("get_tuple", child.config)
    assert newest.checkpoint["channel_values"][TASKS] == [Send("early", 2), Send("late", 1)]
    assert TASKS not in oldest.checkpoint["channel_values"]
    assert got.checkpoint == kept.checkpoint == newest.checkpoint


def test_pruning_keeps_no_ancestor_of_a_snapshot_that_the_head_still_has(dsn: str) -> None:
    """A delta channel that didn't change since its snapshot needs no ancestor."""
    with driven(dsn, is_async=True) as driver:
        machine, first = a_thread(driver)
        snapshot = next_step(machine, first, {DELTA: _DeltaSnapshot([1, 2])})
        head = next_step(machine, snapshot, {"a": 2})
        machine.prune(["t1"])
        kept = driver.call("get_tuple", head.config)
        ids = ids_of(driver, head)
    assert ids == [head.checkpoint_id]
    assert kept.checkpoint["channel_values"][DELTA] == _DeltaSnapshot([1, 2])


def test_pruning_keeps_the_subgraph_calls_that_can_be_resumed(dsn: str) -> None:
    """A call goes with the root checkpoint it began at, unless that one isn't saved yet."""
    with driven(dsn, is_async=True) as driver:
        machine, first = a_thread(driver)
        over = Place(first.thread_id, "child:1", "00000010", None)
        running = Place(first.thread_id, "child:2", "00000011", None)
        early = Place(first.thread_id, "child:3", "00000012", None)
        machine.put(over, {"a": 1}, {"source": "loop"}, root=0)
        head = next_step(machine, first, {"a": 2})
        machine.put(running, {"a": 1}, {"source": "loop"}, root=0)
        machine.put(early, {"a": 1}, {"source": "loop"}, root=9)
        machine.prune(["t1"])
        ids = ids_of(driver, head)
    assert ids == [early.checkpoint_id, running.checkpoint_id, head.checkpoint_id]


def test_a_message_that_was_deleted_can_come_again(dsn: str) -> None:
    """What the saver remembers of a session's messages ends when some are deleted."""
    message = HumanMessage("hello", id="m1")
    with driven(dsn, is_async=True) as driver:
        machine, first = a_thread(driver)
        there = next_step(machine, first, {"messages": [("append", message)]})
        gone = next_step(machine, there, {"messages": [("remove", 0)]})
        machine.prune(["t1"])
        again = next_step(machine, gone, {"messages": [("append", message)]})
        found = driver.call("get_tuple", again.config)
    assert found.checkpoint["channel_values"]["messages"] == [message]


def test_a_regular_write_stays_and_a_special_one_is_replaced(dsn: str) -> None:
    """Of a task that writes again, small or large values, only the special writes are new."""
    with driven(dsn, is_async=True) as driver:
        machine, place = a_thread(driver)
        for text in ("x", long_text(9000), "y"):
            writes = [("a", text), (INTERRUPT, text), ("b", text)]
            machine.put_writes(place, writes, "task-1", "")
        found = driver.call("get_tuple", place.config)
    assert found.pending_writes == [
        ("task-1", INTERRUPT, "y"),
        ("task-1", "a", "x"),
        ("task-1", "b", "x"),
    ]


def test_a_copy_answers_as_the_thread_does(dsn: str) -> None:
    """The order of writes, values by hash and messages are the original's in the copy."""
    with driven(dsn, is_async=True) as driver:
        machine, first = a_thread(driver)
        updates = {"b": long_text(9000), "messages": [("append", HumanMessage("hello"))]}
        head = next_step(machine, first, updates)
        machine.put_writes(head, [("a", "second")], "task-1", "path b")
        machine.put_writes(head, [("a", "first"), ("b", long_text(9000))], "task-2", "path a")
        machine.copy_thread("t1", "t2")
        copy = driver.call("get_tuple", config_of(machine.thread("t2")))
        original = driver.call("get_tuple", head.config)
    assert copy.pending_writes == original.pending_writes
    assert [value for _, _, value in copy.pending_writes][::2] == ["first", "second"]
    assert copy.checkpoint == original.checkpoint


def test_every_table_of_a_session_is_counted(dsn: str) -> None:
    """A table with a session_id that the checks above don't know fails here."""
    with driven(dsn, is_async=True) as driver:
        known = driver.count(
            "select count(*) from information_schema.columns c "
            "join information_schema.tables t using (table_schema, table_name) "
            "where t.table_type = 'BASE TABLE' and t.table_schema = current_schema() "
            "and c.column_name = 'session_id'"
            # A log stays; memories go with a thread, and aren't copied with one.
            " and t.table_name not in ('agent_events', 'agent_memory')"
        )
    assert known == len(SESSION_TABLES)
