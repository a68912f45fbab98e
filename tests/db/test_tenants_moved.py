"""Threads of other savers move into one tenant, and are read as that one's before."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import MissingTenantError
from langgraph_pgsaga.takeover import ReadThroughSaver, import_threads
from langgraph_pgsaga.tenants import ALL
from tests.db import _histories as histories
from tests.db._puts import checkpoint_of, config_of, put
from tests.db._tenants import configs_of, fetch, of


def test_an_old_savers_threads_are_one_tenants(dsn: str) -> None:
    """Another tenant's config with their ids finds nothing, moves nothing and deletes nothing."""
    old = InMemorySaver()
    old_graph = histories.approval(old)
    old_graph.invoke({"total": ["old"]}, config_of("t"))
    with PostgresSaver.from_conn_string(dsn) as new:
        both = ReadThroughSaver(new, old, tenant="a")
        graph = histories.approval(both)
        assert both.get_tuple(of("b")) is None
        assert list(both.list(of("b"))) == []
        assert list(both.list(None, tenant="b")) == []
        both.delete_thread("t", tenant="b")
        both.prune(["t"], tenant="b")
        both.delete_for_runs(["r"], tenant="b")
        both.copy_thread("t", "stolen", tenant="b")
        put_at = put_both(both, of("b"))
        assert put_at["configurable"]["tenant_id"] == "b"
        found = both.get_tuple(of("a"))
        assert found is not None
        assert {c["configurable"]["tenant_id"] for c in configs_of(found)} == {"a"}
        assert new.get_tuple(of("a")) is None  # nobody has moved it
        listed = list(both.list(None, tenant=ALL))
        assert {c.config["configurable"]["tenant_id"] for c in listed} == {"a", "b"}
        snapshot = graph.get_state(of("a"))
        graph.invoke(Command(resume={snapshot.interrupts[0].id: "yes"}), snapshot.config)
        assert new.get_tuple(of("a")) is not None
        assert both.get_tuple(of("b")) is not None
        assert len(list(both.list(of("b")))) == 1
        both.delete_thread("t", tenant="a")
        assert old.get_tuple(config_of("t")) is None


@pytest.mark.parametrize("default", ["", "c"])
def test_a_listing_of_all_tenants_has_nobodys_threads_where_one_is_required(
    dsn: str, default: str
) -> None:
    """Those of '' that are there, beside what the old saver has; and it names no tenant."""
    old = InMemorySaver()
    histories.approval(old).invoke({"total": ["old"]}, config_of("t"))
    with PostgresSaver.from_conn_string(dsn) as new:
        put(new, config_of("t"), {"c": 1})
    with PostgresSaver.from_conn_string(dsn, require_tenant=True, tenant=default) as new:
        both = ReadThroughSaver(new, old, tenant="a")
        listed = list(both.list(None, tenant=ALL))
        found = {one.config["configurable"].get("tenant_id", "") for one in listed}
        assert found == {"", "a"}


def test_listing_all_tenants_names_none(dsn: str) -> None:
    """Whoever only lists has named no tenant, and may leave it out elsewhere."""
    with PostgresSaver.from_conn_string(dsn) as writing:
        put(writing, of("a"), {"c": 1})
    with PostgresSaver.from_conn_string(dsn) as new:
        both = ReadThroughSaver(new, InMemorySaver())
        assert len(list(both.list(None, tenant=ALL))) == 1
        both.delete_thread("u")


@pytest.mark.parametrize("required", [False, True])
def test_subgraphs_of_an_old_savers_threads_are_the_tenants(dsn: str, required: bool) -> None:
    """Their states are there before the thread has moved, by snapshot and by the task's config."""
    old = InMemorySaver()
    asking = histories.nested(old)
    asking.invoke({"total": ["old"]}, config_of("t"))
    (expected,) = asking.get_state(config_of("t"), subgraphs=True).tasks
    with PostgresSaver.from_conn_string(dsn, require_tenant=required) as new:
        graph = histories.nested(ReadThroughSaver(new, old, tenant="a"))
        (found,) = graph.get_state(of("a"), subgraphs=True).tasks
        assert (found.state.values, found.state.next) == (expected.state.values, ("inner",))
        (task,) = graph.get_state(of("a")).tasks
        assert graph.get_state(task.state).values == expected.state.values
        (listed, *_) = graph.get_state_history(of("a"))
        assert graph.get_state(listed.tasks[0].state).values == expected.state.values
        graph.update_state(found.state.config, {"total": ["updated"]})
        moved = graph.get_state(of("a"), subgraphs=True).tasks[0].state
        assert moved.values["total"][-1] == "updated"
        assert [r["tenant_id"] for r in fetch(dsn, "select tenant_id from agent_sessions")] == ["a"]


def test_a_subgraphs_config_that_went_through_json_is_refused_without_its_tenant(dsn: str) -> None:
    """LangGraph makes it of the thread id, whose text alone JSON keeps; with the tenant it leads
    to the same state."""
    with PostgresSaver.from_conn_string(dsn, require_tenant=True) as saver:
        graph = histories.nested(saver)
        graph.invoke({"total": ["start"]}, of("a"))
        (task,) = graph.get_state(of("a")).tasks
        sent = json.loads(json.dumps(task.state))
        with pytest.raises(MissingTenantError):
            graph.get_state(sent)
        sent["configurable"]["tenant_id"] = "a"
        expected = graph.get_state(task.state)
        assert expected.values
        assert graph.get_state(sent).values == expected.values


@pytest.mark.parametrize(("theirs", "ours"), [("", "b"), ("a", "b"), ("a", ""), ("a", "a")])
def test_an_old_saver_with_tenants_is_asked_for_its_own(dsn: str, theirs: str, ours: str) -> None:
    """Configs of its threads name the tenant here, and lead there to the one that it has."""
    source = PostgresSaver.from_conn_string(dsn, schema="source", tenant=theirs)
    with source as old, PostgresSaver.from_conn_string(dsn) as new:
        old.setup()
        asking = histories.nested(old)
        asking.invoke({"total": ["old"]}, config_of("t"))
        graph = histories.nested(ReadThroughSaver(new, old, tenant=ours))
        found = graph.get_state(of(ours), subgraphs=True)
        assert found.tasks[0].state.next == ("inner",)
        assert graph.get_state(found.config).values == {"total": ["old"]}
        assert graph.get_state(found.tasks[0].state.config).next == ("inner",)
        graph.update_state(found.config, {"total": ["updated"]}, as_node="child")
        rows = fetch(dsn, "select tenant_id from agent_sessions where thread_id = 't'")
        assert [row["tenant_id"] for row in rows] == [ours]


def put_both(both: ReadThroughSaver, config: Any) -> Any:
    checkpoint = checkpoint_of(both.new, {"c": 1})
    return both.put(config, checkpoint, {}, checkpoint["channel_versions"])


def test_threads_are_imported_into_a_tenant(dsn: str) -> None:
    """Also those that are nobody's here, which so become a tenant's; twice is once."""
    with PostgresSaver.from_conn_string(dsn) as saver:
        graph = histories.nested(saver)
        graph.invoke({"total": ["start"]}, config_of("t"))
        for _ in range(2):
            report = asyncio.run(import_threads(saver.anew(), saver, tenant="a"))
            assert report.threads[0].errors == ()
        imported = list(graph.get_state_history(of("a")))
        assert [s.values for s in imported] == [
            s.values for s in graph.get_state_history(config_of("t"))
        ]
        (asked,) = graph.get_state(of("a")).interrupts
        graph.invoke(Command(resume={asked.id: "yes"}), of("a"))
        assert graph.get_state(config_of("t")).interrupts
