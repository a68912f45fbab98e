"""Tenants: one thread id in two of them is two threads, in whatever way it is come by."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from langgraph_pgsaga import Database, PostgresSaver, sync, timetravel
from langgraph_pgsaga.errors import (
    InvalidArgumentError,
    MissingTenantError,
    SessionExistsError,
    ThreadLeasedError,
)
from langgraph_pgsaga.messages import Messages
from langgraph_pgsaga.sessions import RetentionPolicy, Sessions
from langgraph_pgsaga.takeover import ReadThroughSaver, import_threads
from langgraph_pgsaga.tenants import ALL
from langgraph_pgsaga.threads import Address, TenantsThreadId, session_id_of
from tests.conftest import execute
from tests.db import _histories as histories
from tests.db._puts import checkpoint_of, config_of, put
from tests.db._tenants import fetch, of

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


# The rule


@given(st.lists(st.tuples(TEXT, TEXT), min_size=20, max_size=60))
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_python_and_sql_give_a_tenants_thread_the_same_session(
    dsn: str, pairs: list[tuple[str, str]]
) -> None:
    """pgsaga_session_id and session_id_of are one rule, and without a tenant the one of before."""
    tenants, threads = map(list, zip(*pairs, strict=True))
    rows = fetch(
        dsn,
        "select pgsaga_session_id(a, t) as session, pgsaga_session_id('', t) as nobodys,"
        " pgsaga_session_id(t) as thread from unnest($1::text[], $2::text[]) p (a, t)",
        tenants,
        threads,
    )
    assert [r["session"] for r in rows] == [session_id_of(t, a) for a, t in pairs]
    assert [r["nobodys"] for r in rows] == [r["thread"] for r in rows]
    assert [r["thread"] for r in rows] == [session_id_of(t) for t in threads]


@given(TEXT, TEXT, TEXT, TEXT)
def test_no_two_pairs_have_one_session(
    tenant: str, thread_id: str, other_tenant: str, other_id: str
) -> None:
    """Not where a thread's id is made to look like a tenant's and a thread's, either."""
    pair, other = (tenant, thread_id), (other_tenant, other_id)
    assert (session_id_of(*pair[::-1]) == session_id_of(*other[::-1])) is (pair == other)
    assert session_id_of(thread_id, tenant) != session_id_of(f"{tenant}\xff{thread_id}x")


def test_the_rule_never_changes() -> None:
    """Rows written by earlier versions are found by later ones."""
    assert str(session_id_of("thread-1", "acme")) == "4845d11b-5790-8344-ae22-c706c23b9c98"


@pytest.mark.parametrize("tenant", [5, True, b"a", ["a"], "a\0", "\ud800", "ä" * 128, ALL])
def test_what_is_no_tenant_is_refused(sync_saver: PostgresSaver, tenant: Any) -> None:
    """In a config, by a call, and of the Database, with what to pass instead."""
    with pytest.raises(InvalidArgumentError, match="tenant"):
        sync_saver.get_tuple(of(tenant))
    with pytest.raises(InvalidArgumentError, match="tenant"):
        sync_saver.delete_thread("t", tenant=tenant)
    with pytest.raises(InvalidArgumentError, match="tenant"):
        Database("postgresql://h/db", tenant=tenant)


# Graphs


@pytest.fixture(params=["put", "default"])
def savers(request: pytest.FixtureRequest, dsn: str) -> Iterator[Callable[[str], Any]]:
    """By tenant: a saver, and what its configs have to name. One saver for both, or one each."""
    made: list[PostgresSaver] = []

    def saver_of(tenant: str) -> tuple[PostgresSaver, dict[str, str]]:
        if request.param == "put":
            if not made:
                made.append(PostgresSaver.from_conn_string(dsn))
            return made[0], {"tenant_id": tenant}
        made.append(PostgresSaver.from_conn_string(dsn, tenant=tenant))
        return made[-1], {}

    yield saver_of
    for saver in made:
        saver.close()


def configs_of(found: Any) -> Iterator[Any]:
    """Those that anything of a snapshot or a tuple carries."""
    for config in (found.config, found.parent_config):
        if config is not None:
            yield config
    for task in getattr(found, "tasks", ()):
        if isinstance(task.state, dict):
            yield task.state
        elif task.state is not None:
            yield from configs_of(task.state)


@pytest.mark.parametrize("make", [histories.approval, histories.nested])
def test_one_thread_id_in_two_tenants_is_two_threads(
    savers: Callable[[str], Any], make: Callable[[Any], Any]
) -> None:
    """Each run, answer, update, history and resumed snapshot stays in its tenant."""
    graphs, threads = {}, {}
    for tenant in ("a", "b"):
        saver, named = savers(tenant)
        graphs[tenant], threads[tenant] = make(saver), config_of("t", **named)
        graphs[tenant].invoke({"total": [f"of {tenant}"]}, threads[tenant])
    for tenant, graph in graphs.items():
        asked = graph.get_state(threads[tenant], subgraphs=True)
        assert asked.values["total"][0] == f"of {tenant}"
        assert all(Address.of(c).tenant_id == tenant for c in configs_of(asked))
        inner = [task.state for task in asked.tasks if task.state is not None]
        assert all(one.values["total"][:2] == [f"of {tenant}", "before"] for one in inner)
        assert bool(inner) is (make is histories.nested)
        for interrupt in asked.interrupts:
            graph.invoke(Command(resume={interrupt.id: f"yes of {tenant}"}), asked.config)
        while asked := graph.get_state(threads[tenant]).interrupts:
            graph.invoke(Command(resume={asked[0].id: f"yes of {tenant}"}), threads[tenant])
        last = "works" if make is histories.approval else "child"
        made = graph.update_state(threads[tenant], {"total": ["updated"]}, as_node=last)
        assert made["configurable"]["tenant_id"] == tenant
    for tenant, graph in graphs.items():
        other = "b" if tenant == "a" else "a"
        assert f"of {other}" not in repr(list(graph.get_state_history(threads[tenant])))
        history = list(graph.get_state_history(threads[tenant]))
        assert f"yes of {tenant}" in history[0].values["total"]
        for found in [graph.get_state(threads[tenant], subgraphs=True), *history]:
            assert {Address.of(c).tenant_id for c in configs_of(found)} == {tenant}
            assert found.config["configurable"]["tenant_id"] == tenant
    first = list(graphs["a"].get_state_history(threads["a"]))[-2]
    before = list(graphs["b"].get_state_history(threads["b"]))
    graphs["a"].invoke(None, first.config)
    assert list(graphs["b"].get_state_history(threads["b"])) == before
    assert "of b" not in repr(graphs["a"].get_state(threads["a"]))


async def asynchronously(saver: PostgresSaver) -> None:
    """The same by ainvoke, in short."""
    graph = histories.approval(saver)
    for tenant in ("a", "b", ""):
        await graph.ainvoke({"total": [f"of {tenant}"]}, of(tenant))
    for tenant in ("a", "b", ""):
        (snapshot, *_) = [one async for one in graph.aget_state_history(of(tenant))]
        await graph.ainvoke(Command(resume="1"), snapshot.config)
        assert (await graph.aget_state(snapshot.config)).values["total"][0] == f"of {tenant}"
        carried = snapshot.config["configurable"].get("tenant_id")
        assert carried == (tenant or None)


def test_async_runs_stay_in_their_tenants(dsn: str) -> None:
    """Also those of nobody, whose configs name no tenant."""

    async def work() -> None:
        async with PostgresSaver.from_conn_string(dsn) as saver:
            await asynchronously(saver)

    asyncio.run(work())


@pytest.mark.parametrize("single_writer", [False, True])
def test_two_tenants_write_at_once(dsn: str, single_writer: bool) -> None:
    """Under one thread id: in one statement, under leases and message numbers of their own."""

    async def work() -> None:
        async with PostgresSaver.from_conn_string(dsn, single_writer=single_writer) as saver:
            graph = histories.chat(saver)
            tenants = [f"tenant {n}" for n in range(8)]
            said = {tenant: HumanMessage(f"hello from {tenant}") for tenant in tenants}
            for _ in range(2):
                runs = [graph.ainvoke({"messages": [said[t]]}, of(t)) for t in tenants]
                await asyncio.gather(*runs)
            for tenant in tenants:
                found = await Messages(saver, tenant=tenant).conversation("t")
                texts = [m.content for m in found if isinstance(m, HumanMessage)]
                assert set(texts) == {f"hello from {tenant}"}
                rows = (await Messages(saver, tenant=tenant).rows("t")).rows
                assert [row.message_no for row in rows] == list(range(1, len(rows) + 1))

    asyncio.run(work())


def test_small_values_are_inherited_within_a_tenant(sync_saver: PostgresSaver) -> None:
    """A put below a checkpoint whose id is another tenant's, too, has nothing of that."""
    values = {"kept": "of a", "own": 1}
    first = put(sync_saver, of("a"), values)
    parent_id = first["configurable"]["checkpoint_id"]
    below = checkpoint_of(sync_saver, values)
    del below["channel_values"]["kept"]
    known = sync_saver.get_tuple(first)
    assert known is not None
    below["channel_versions"] = {**known.checkpoint["channel_versions"], "own": "9"}
    for tenant, expected in (("b", None), ("a", "of a")):
        made = sync_saver.put(of(tenant, checkpoint_id=parent_id), below, {}, {"own": "9"})
        found = PostgresSaver(sync_saver.db).get_tuple(made)
        assert found is not None
        assert found.checkpoint["channel_values"].get("kept") == expected


def test_a_thread_id_that_knows_its_tenant_is_text(sync_saver: PostgresSaver) -> None:
    """It is equal to the caller's own, goes through JSON and pickle, and gives way to a name."""
    made = put(sync_saver, of("a"), {"c": 1})
    thread_id = made["configurable"]["thread_id"]
    assert thread_id == "t"
    assert json.loads(json.dumps(made)) == made
    for kept in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):
        assert kept == made
        assert Address.of({"configurable": {"thread_id": kept["configurable"]["thread_id"]}}) == (
            Address.of(of("a"))._replace(checkpoint_id=None)
        )
    assert type(thread_id) is TenantsThreadId
    assert Address.of(of("b", thread_id)).tenant_id == "b"


# A tenant that is required, or was forgotten


def test_a_tenant_can_be_required(dsn: str) -> None:
    """Whatever names none, or '', is refused; what names one works."""
    with PostgresSaver.from_conn_string(dsn, require_tenant=True) as saver:
        graph = histories.approval(saver)
        for config in (config_of("t"), of("")):
            with pytest.raises(MissingTenantError):
                graph.invoke({"total": ["x"]}, config)
            with pytest.raises(MissingTenantError):
                timetravel.history(graph, config)
        calls: list[Callable[..., Any]] = [
            lambda **t: saver.delete_thread("t", **t),
            lambda **t: saver.copy_thread("t", "u", **t),
            lambda **t: saver.prune(["t"], **t),
            lambda **t: saver.delete_for_runs(["r"], **t),
            lambda **t: saver.lease("t", **t),
            lambda **t: list(saver.list(None, **t)),
            lambda **t: Sessions(saver.db, **t),
            lambda **t: Messages(saver, **t),
            lambda **t: ReadThroughSaver(saver, InMemorySaver(), **t),
            lambda **t: asyncio.run(import_threads(InMemorySaver(), saver, **t)),
        ]
        for call in calls:
            for none in ({}, {"tenant": ""}):
                with pytest.raises(MissingTenantError):
                    call(**none)
            call(tenant="a")
        graph.invoke({"total": ["x"]}, of("a"))
    with PostgresSaver.from_conn_string(dsn, require_tenant=True, tenant="a") as saver:
        assert saver.get_tuple(config_of("t")) is not None
        with pytest.raises(MissingTenantError):
            saver.get_tuple(of(""))


def test_whoever_names_tenants_and_then_forgets_one_is_told(sync_saver: PostgresSaver) -> None:
    """A thread that is to be deleted would else stay, and nobody's be deleted instead."""
    put(sync_saver, config_of("t"), {"c": 1})
    sync_saver.delete_thread("u")  # no config named a tenant yet
    put(sync_saver, of("a"), {"c": 2})
    calls: list[Callable[..., Any]] = [
        lambda **t: sync_saver.delete_thread("t", **t),
        lambda **t: sync_saver.copy_thread("t", "u", **t),
        lambda **t: sync_saver.prune(["t"], strategy="delete", **t),
        lambda **t: sync_saver.delete_for_runs(["r"], **t),
        lambda **t: sync_saver.anew().lease("t", **t),
        lambda **t: list(sync_saver.list(None, **t)),
    ]
    for call in calls:
        with pytest.raises(MissingTenantError):
            call()
    for thread in (config_of("t"), of("a")):
        assert sync_saver.get_tuple(thread) is not None
    for call in calls:
        call(tenant="")
    assert sync_saver.get_tuple(config_of("t")) is None
    assert sync_saver.get_tuple(of("a")) is not None


def test_a_databases_tenant_is_that_of_calls_without_one(dsn: str) -> None:
    """A config may name another, or none; those that come back lead to the same thread again."""
    with PostgresSaver.from_conn_string(dsn, tenant="a") as saver:
        for config, text in ((config_of("t"), "a's"), (of("b"), "b's"), (of(""), "nobody's")):
            made = put(saver, config, {"c": text})
            for given in (made, config):
                found = saver.get_tuple(given)
                assert found is not None
                assert found.checkpoint["channel_values"] == {"c": text}
                again = saver.get_tuple(found.config)
                assert again is not None
                assert again.checkpoint["channel_values"] == {"c": text}
        assert [s.tenant_id for s in sync.Sessions(saver.db).list().sessions] == ["a"]


# Over all


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


# Moving here


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


# Views


def test_views_show_the_tenant_and_ask_with_the_readers_rights(dsn: str) -> None:
    """Who has a right on a view alone reads nothing through it."""
    with PostgresSaver.from_conn_string(dsn) as saver:
        for tenant in ("a", "b"):
            put(saver, of(tenant), {"messages": [AIMessage(f"of {tenant}")]})
    views = (
        "agent_state_history",
        "agent_conversations",
        "agent_message_log",
        "agent_message_statistics",
    )
    found = fetch(dsn, "select viewname from pg_views where schemaname = 'public'")
    assert {row["viewname"] for row in found} == set(views)
    for view in views:
        rows = fetch(dsn, f"select * from {view} where tenant_id = 'a'")
        assert [(row["thread_id"], row["tenant_id"]) for row in rows] == [("t", "a")]
    role = "pgsaga_reader"
    asyncio.run(
        execute(
            dsn,
            f"create role {role}",
            *(f"grant select on {view} to {role}" for view in views),
        )
    )
    try:
        for view in views:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                asyncio.run(execute(dsn, f"set role {role}; select * from {view}"))
    finally:
        asyncio.run(execute(dsn, f"drop owned by {role}", f"drop role {role}"))
