"""Tenants: one thread id in two of them is two threads, in whatever way it is come by."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from langgraph_pgsaga import Database, PostgresSaver, sync, timetravel
from langgraph_pgsaga.errors import InvalidArgumentError, MissingTenantError
from langgraph_pgsaga.messages import Messages
from langgraph_pgsaga.sessions import Sessions
from langgraph_pgsaga.takeover import ReadThroughSaver, import_threads
from langgraph_pgsaga.tenants import ALL
from langgraph_pgsaga.threads import Address, TenantsThreadId, session_id_of
from tests.conftest import execute
from tests.db import _histories as histories
from tests.db._puts import checkpoint_of, config_of, put
from tests.db._tenants import configs_of, fetch, of

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
