"""What goes over threads is of one tenant, unless all of them are asked for."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.types import Command

from langgraph_pgsaga import PostgresSaver, sync, timetravel
from langgraph_pgsaga.errors import InvalidArgumentError, SessionExistsError, ThreadLeasedError
from langgraph_pgsaga.sessions import RetentionPolicy
from langgraph_pgsaga.tenants import ALL
from tests.conftest import execute
from tests.db import _histories as histories
from tests.db._puts import put
from tests.db._tenants import fetch, of


def test_only_all_goes_over_all_tenants(sync_saver: PostgresSaver) -> None:
    """Listings, searches and sweeps: '' is a tenant like another."""
    config = {"run_id": "r"}
    for tenant in ("", "a", "b"):
        for thread in ("t", f"only {tenant}"):
            place = of(tenant, thread)
            put(sync_saver, place, {"messages": [AIMessage(f"word of {tenant}")]}, config)
    scopes: list[tuple[Any, set[str]]] = [("", {""}), ("a", {"a"}), (ALL, {"", "a", "b"})]
    for scope, expected in scopes:
        listed = list(sync_saver.list(None, tenant=scope))
        assert {one.config["configurable"].get("tenant_id", "") for one in listed} == expected
        assert len(listed) == 2 * len(expected)
        filtered = list(sync_saver.list(None, filter={"run_id": "r"}, tenant=scope))
        assert [one.config for one in filtered] == [one.config for one in listed]
        paged: list[Any] = []
        before: Any = None
        while some := list(sync_saver.list(None, tenant=scope, limit=1, before=before)):
            paged += some
            before = some[-1].config
        assert [one.config for one in paged] == [one.config for one in listed]
        sessions: Any = sync.Sessions(sync_saver.db, tenant=scope)
        for order in ("activity", "created", "priority"):
            for narrowed in ({}, {"agent_type": ""}, {"user_id": ""}, {"text": "word"}):
                found = sessions.list(order=order, **narrowed).sessions
                assert {s.tenant_id for s in found} == expected
                assert len(found) == 2 * len(expected)
                page = sessions.list(order=order, limit=1, **narrowed)
                ids = [s.session_id for s in page.sessions]
                while page.next_cursor:
                    cursor = page.next_cursor
                    page = sessions.list(order=order, limit=1, after=cursor, **narrowed)
                    ids += [s.session_id for s in page.sessions]
                assert ids == [s.session_id for s in found]
        messages = sync.Messages(sync_saver, tenant=scope)
        assert {row.tenant_id for row in messages.rows().rows} == expected
        assert {row.tenant_id for row in messages.rows(text="word").rows} == expected
        assert {hit.message.tenant_id for hit in messages.search("word")} == expected
        first = messages.rows(limit=1)
        numbers = list(first.rows)
        while first.next_cursor:
            first = messages.rows(limit=1, after=first.next_cursor)
            numbers += first.rows
        assert numbers == messages.rows().rows
        policies = [RetentionPolicy(keep_last=1)]
        assert sessions.sweep(policies, dry_run=True).pruned_sessions == 0
    with pytest.raises(InvalidArgumentError, match="goes with a config of None"):
        list(sync_saver.list(of("a"), tenant=ALL))
    for call in (
        lambda: sync.Sessions(sync_saver.db, tenant=ALL).get("t"),
        lambda: sync.Sessions(sync_saver.db, tenant=ALL).delete("t"),
        lambda: sync.Messages(sync_saver, tenant=ALL).conversation("t"),
        lambda: sync.Messages(sync_saver, tenant=ALL).rows("t"),
    ):
        with pytest.raises(InvalidArgumentError, match="one tenant's"):
            call()


@pytest.mark.parametrize(("tenant", "left"), [("", 2), ("a", 2), (ALL, 0)])
def test_a_sweep_is_of_one_tenant_unless_all_is_said(dsn: str, tenant: Any, left: int) -> None:
    """What has expired, what was idle, and what is one checkpoint too many."""
    for kind in ("expired", "idle", "long"):
        with PostgresSaver.from_conn_string(dsn) as saver:
            for one in ("", "a", "b"):
                config = of(one)
                for n in range(3):
                    config = put(saver, config, {"c": n})
            change = {
                "expired": "set expires_at = now() - interval '1 second'",
                "idle": "set last_activity_at = now() - interval '1 hour'",
                "long": "set priority = 0",
            }[kind]
            asyncio.run(execute(dsn, f"update agent_sessions {change}"))
            policies: list[RetentionPolicy] = {
                "expired": [],
                "idle": [RetentionPolicy(max_idle=timedelta(minutes=30))],
                "long": [RetentionPolicy(keep_last=1)],
            }[kind]
            sessions = sync.Sessions(saver.db, tenant=tenant)
            planned = sessions.sweep(policies, dry_run=True)
            done = sessions.sweep(policies)
            count = done.deleted_sessions + done.pruned_sessions
            assert count == 3 - left == planned.deleted_sessions + planned.pruned_sessions
            for one in ("", "a", "b"):
                kept = len(list(saver.list(of(one))))
                is_swept = tenant in (ALL, one)
                swept = {"expired": 0, "idle": 0, "long": 1}[kind]
                assert kept == (swept if is_swept else 3)
                saver.delete_thread("t", tenant=one)


def test_runs_are_deleted_in_one_tenant(sync_saver: PostgresSaver) -> None:
    """A run's id may be in two; ALL is said where both are meant."""
    for tenant in ("", "a", "b"):
        put(sync_saver, of(tenant), {"c": 1}, {"run_id": "r"})
    sync_saver.delete_for_runs(["r"], tenant="a")
    there = [sync_saver.get_tuple(of(tenant)) is not None for tenant in ("", "a", "b")]
    assert there == [True, False, True]
    sync_saver.delete_for_runs(["r"], tenant=ALL)
    assert list(sync_saver.list(None, tenant=ALL)) == []


def test_a_lease_is_of_one_tenants_thread(sync_saver: PostgresSaver) -> None:
    """Another tenant's thread of that id is anybody's to write to."""
    other = PostgresSaver(sync_saver.db)
    with sync_saver.lease("t", tenant="a"):
        put(other, of("b"), {"c": 1})
        put(other, of(""), {"c": 1})
        put(sync_saver, of("a"), {"c": 1})
        with pytest.raises(ThreadLeasedError):
            put(other, of("a"), {"c": 2})
    rows = fetch(sync_saver.db.dsn, "select tenant_id from agent_sessions order by 1")
    assert [row["tenant_id"] for row in rows] == ["", "a", "b"]


def test_copies_stay_in_their_tenant(sync_saver: PostgresSaver) -> None:
    """The copy is the same tenant's; another tenant's thread of the target's id is no hindrance."""
    put(sync_saver, of("a"), {"c": "a's"})
    put(sync_saver, of("b", "copy"), {"c": "b's"})
    sync_saver.copy_thread("t", "copy", tenant="a")
    for tenant in ("a", "b"):
        found = sync_saver.get_tuple(of(tenant, "copy"))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"c": f"{tenant}'s"}
        session = sync.Sessions(sync_saver.db, tenant=tenant).get("copy")
        assert session is not None
        assert session.tenant_id == tenant


def test_sessions_are_made_and_named_within_a_tenant(sync_saver: PostgresSaver) -> None:
    """Also by SQL, where both ids are given."""
    for tenant in ("", "a"):
        made = sync.Sessions(sync_saver.db, tenant=tenant).create("s", user_id=f"of {tenant}")
        assert made.tenant_id == tenant
        with pytest.raises(SessionExistsError):
            sync.Sessions(sync_saver.db, tenant=tenant).create("s")
    asyncio.run(
        execute(
            sync_saver.db.dsn,
            "insert into agent_sessions (session_id, tenant_id, thread_id)"
            " values (pgsaga_session_id('c', 's'), 'c', 's')",
        )
    )
    assert sync.Sessions(sync_saver.db, tenant="c").get("s") is not None
    assert sync.Sessions(sync_saver.db, tenant="b").get("s") is None
    put(sync_saver, of("a", "s"), {"c": 1})
    rows = fetch(sync_saver.db.dsn, "select * from agent_sessions")
    assert len(rows) == 3


def test_time_travel_stays_in_its_tenant(sync_saver: PostgresSaver) -> None:
    """Histories, names, forks to new threads and comparisons."""
    graph = histories.approval(sync_saver)
    for tenant in ("a", "b"):
        graph.invoke({"total": [f"of {tenant}"]}, of(tenant))
    timetravel.name_checkpoint(graph, of("a"), "here")
    steps = timetravel.history(graph, of("a"))
    assert {s.config["configurable"]["tenant_id"] for s in steps} == {"a"}
    assert [s.name for s in timetravel.history(graph, of("b"))] == [None, None]
    state = timetravel.get_state(graph, of("a"))
    forked = timetravel.fork(state, thread_id="fork")
    assert forked.values["total"][0] == "of a"
    assert forked.config["configurable"]["tenant_id"] == "a"
    compared = timetravel.compare(state, {"one": Command(resume="1")})
    made = {
        s.thread_id: s.tenant_id for s in sync.Sessions(sync_saver.db, tenant=ALL).list().sessions
    }
    (variant,) = [name for name in made if name.startswith("t:one")]
    assert made == {"t": made["t"], "fork": "a", variant: "a"}
    compared.discard()
    assert sync.Sessions(sync_saver.db, tenant="a").get(variant) is None
