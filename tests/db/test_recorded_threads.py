"""PostgresSaver(db, events=store): a thread's checkpoints, messages and errors as events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.graph import START, MessagesState, StateGraph

from langgraph_pgsaga import Database, PostgresSaver
from langgraph_pgsaga.errors import InvalidArgumentError, LeaseLostError, ServerError
from langgraph_pgsaga.events import AgentEvent, EventStore
from langgraph_pgsaga.threads import session_id_of
from langgraph_pgsaga.work import Notifier
from tests._connections import connected
from tests._proxy import Proxy
from tests.conftest import execute
from tests.db._events import noted
from tests.db._puts import checkpoint_of
from tests.db._waits import waits_for_a_lock

pytestmark = pytest.mark.anyio


@pytest.fixture
async def recording(dsn: str) -> AsyncIterator[PostgresSaver]:
    """A saver whose calls become events."""
    async with Database(dsn) as db:
        yield PostgresSaver(db, events=EventStore(db))


def config_of(thread_id: str = "t", **more: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, **more}}


def graph_of(saver: PostgresSaver, **nodes: Any) -> Any:
    builder: StateGraph[Any] = StateGraph(MessagesState)
    before = START
    for name, node in nodes.items():
        builder.add_node(name, node)
        builder.add_edge(before, name)
        before = name
    return builder.compile(checkpointer=saver)


async def run(graph: Any, mode: str, value: Any) -> Any:
    """By invoke, which has the loop stand still, or by ainvoke."""
    if mode == "invoke":
        return graph.invoke(value, config_of())
    return await graph.ainvoke(value, config_of())


def answers(state: MessagesState) -> Any:
    return {"messages": [("ai", f"answer {len(state['messages'])}")]}


async def events_of(saver: PostgresSaver, thread_id: str = "t", **of: Any) -> list[AgentEvent]:
    return await EventStore(saver.db, **of).get_events(thread_id, aggregate_type="session")


def types(events: list[AgentEvent]) -> list[str]:
    return [str(event.event_type) for event in events]


async def put(
    saver: PostgresSaver, config: RunnableConfig, values: Any = None, **more: Any
) -> RunnableConfig:
    """A new checkpoint below that of the config, or one that is given."""
    config["configurable"].setdefault("checkpoint_ns", "")
    checkpoint = more.pop("checkpoint", None) or checkpoint_of(saver, values or {})
    metadata: Any = {"source": "loop", "step": 0, "parents": {}}
    versions = checkpoint["channel_versions"]
    return await saver.aput(config, checkpoint, metadata, versions, **more)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_run_is_told_of(recording: PostgresSaver, durability: str) -> None:
    """Its beginning, each new message once and without its text, each checkpoint, and how the
    thread stands; of the thread's tenant, and in the aggregate of the thread's id."""
    graph = graph_of(recording, answers=answers)
    config = config_of(user_id="ada", tenant_id="acme")
    for _ in range(2):
        given = {"messages": [("user", "the secret")]}
        await graph.ainvoke(given, config, durability=durability)
    events = await events_of(recording, tenant="acme")
    assert [event.version for event in events] == [*range(1, len(events) + 1)]
    assert types(events).count("session_created") == 1
    assert events[0].event_data == {"user_id": "ada"}
    messages = [e.event_data for e in events if str(e.event_type) == "message_received"]
    assert [(m["message_no"], m["message_type"], m["role"]) for m in messages] == [
        *[(1, "human", "user"), (2, "ai", "assistant")],
        *[(3, "human", "user"), (4, "ai", "assistant")],
    ]
    stored = [found async for found in recording.alist(config)]
    ids = [found.config["configurable"]["checkpoint_id"] for found in stored]
    states = [e for e in events if str(e.event_type) == "state_updated"]
    assert [e.checkpoint_id for e in states] == ids[::-1]
    assert states[-1].event_data["status"] == "completed"
    assert states[-1].event_data["step_id"] == ids[0]
    session_id = session_id_of("t", "acme")
    assert {(e.correlation_id, e.session_id) for e in events} == {("t", session_id)}
    assert "secret" not in repr(events)
    assert await events_of(recording) == []


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
async def test_each_failure_is_told_of(recording: PostgresSaver, mode: str) -> None:
    """Also where the task that fails again is the same; a cancelled one hasn't failed."""

    def fails(state: Any) -> Any:
        raise ValueError("broken")

    graph = graph_of(recording, fails=fails)
    values: list[Any] = [{"messages": []}, None]
    for value in values:
        with pytest.raises(ValueError, match="broken"):
            await run(graph, mode, value)
    errors = [
        e for e in await events_of(recording) if e.event_data.get("error") == "ValueError: broken"
    ]
    assert types(errors) == ["error_occurred"] * 2
    assert {e.event_data["step_name"] for e in errors} == {"fails"}
    [task] = {e.event_data["step_id"] for e in errors}
    [config] = {e.checkpoint_id for e in errors}
    where = config_of(checkpoint_ns="", checkpoint_id=config)
    await recording.aput_writes(where, [("__error__", asyncio.CancelledError())], str(task))
    assert types(await events_of(recording)).count("error_occurred") == 2


async def test_a_subgraphs_checkpoints_say_their_namespace(recording: PostgresSaver) -> None:
    """They and their messages; the thread's own don't."""
    inner = graph_of(recording, answers=answers)
    graph = graph_of(recording, inner=inner)
    await graph.ainvoke({"messages": [("user", "?")]}, config_of())
    events = await events_of(recording)
    ns = [str(e.event_data.get("checkpoint_ns", "")) for e in events]
    told = {(str(e.event_type), n.partition(":")[0]) for e, n in zip(events, ns, strict=True)}
    assert {("state_updated", "inner"), ("state_updated", "")} <= told
    assert types(events).count("message_received") == 2
    assert types(events).count("session_created") == 1


async def test_it_costs_no_round_trip(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A put and a put_writes with events are one statement, as without; nobody waits for the
    notification that goes in the background."""
    monkeypatch.setattr(Notifier, "notify", lambda self, topic: None)
    trips = {}
    with Proxy(dsn) as proxy:
        for is_told in (False, True):
            async with Database(proxy.dsn()) as db:
                saver = PostgresSaver(db, events=EventStore(db) if is_told else None)
                config = await put(saver, config_of("warm"), {"messages": [HumanMessage("a")]})
                for step in range(2):  # the first is prepared
                    with proxy.recording() as traffic:
                        config = await put(saver, config, {"messages": [HumanMessage(str(step))]})
                        await saver.aput_writes(config, [("__error__", ValueError())], "task")
                trips[is_told] = traffic.round_trips, traffic.statements
                await saver.adelete_thread("warm")
    assert trips == {False: (2, 2), True: (2, 2)}


async def test_both_are_there_or_neither(recording: PostgresSaver, dsn: str) -> None:
    """An event that is refused keeps its checkpoint out, and no other thread's."""
    await execute(dsn, "alter table agent_events add check (aggregate_id <> 'refused')")
    threads = ["refused", *map(str, range(20))]
    found = await asyncio.gather(
        *(put(recording, config_of(thread)) for thread in threads), return_exceptions=True
    )
    assert [type(one) for one in found] == [type(found[0]), *[dict] * 20]
    assert isinstance(found[0], ServerError)
    assert await recording.aget_tuple(config_of("refused")) is None
    async with connected(dsn) as conn:
        states = await conn.fetchval("select count(*) from agent_states")
        assert states == await conn.fetchval(
            "select count(*) from agent_events where event_type = 'state_updated'"
        )
        assert states == 20


async def test_a_transaction_that_is_rolled_back_tells_nothing(recording: PostgresSaver) -> None:
    """conn= has both in the caller's transaction."""

    async def in_vain() -> None:
        async with recording.db.transaction() as conn:
            await put(recording, config_of(), conn=conn)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await in_vain()
    assert await events_of(recording) == []
    async with recording.db.transaction() as conn:
        await put(recording, config_of(), conn=conn)
    assert types(await events_of(recording)) == ["session_created", "state_updated"]


async def test_a_statement_that_is_repeated_adds_nothing(
    recording: PostgresSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an answer that was lost: of new sessions, and of known ones with new messages."""
    real = recording.db.fetch

    async def twice(statement: Any, *args: Any, **options: Any) -> Any:
        if statement.name == "write_batch_with_events":
            await real(statement, *args, **options)
        return await real(statement, *args, **options)

    monkeypatch.setattr(recording.db, "fetch", twice)
    config = config_of()
    for step in range(3):
        config = await put(recording, config, {"messages": [HumanMessage(str(step))]})
        await recording.aput_writes(config, [("__error__", ValueError())], "task")
    assert types(await events_of(recording)) == [
        "session_created",
        *["message_received", "state_updated", "error_occurred"] * 3,
    ]


async def test_a_killed_statement_is_told_of_once(recording: PostgresSaver, dsn: str) -> None:
    """Behind somebody who appends to the same aggregate, and whose versions it comes after."""
    store = EventStore(recording.db)
    config = await put(recording, config_of())
    async with connected(dsn) as other, asyncio.timeout(60):
        async with recording.db.transaction() as conn:
            await store.append("t", [noted(1)], aggregate_type="session", conn=conn)
            waiting = asyncio.create_task(put(recording, config))
            await waits_for_a_lock(dsn)
            await other.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where wait_event_type = 'Lock' and datname = current_database()"
            )
            await waits_for_a_lock(dsn)  # again, by another connection
        await waiting
    events = await events_of(recording)
    assert types(events) == ["session_created", "state_updated", "noted", "state_updated"]
    assert [event.version for event in events] == [1, 2, 3, 4]
    assert [e.place for e in events] == sorted(e.place for e in events if e.place)


async def test_who_lost_its_lease_tells_nothing(dsn: str) -> None:
    """Its checkpoint isn't there either."""
    async with Database(dsn) as db, connected(dsn) as conn:
        saver = PostgresSaver(db, events=EventStore(db))
        async with saver.lease("t"):
            config = await put(saver, config_of())
            before = types(await events_of(saver))
            await conn.execute(
                "update agent_sessions set lease_id = gen_random_uuid(),"
                " lease_expires_at = now() + interval '1 hour'"
            )
            with pytest.raises(LeaseLostError):
                await put(saver, config)
            await conn.execute("update agent_sessions set lease_expires_at = null")
        assert types(await events_of(saver)) == before == ["session_created", "state_updated"]


async def test_a_thread_that_begins_anew_goes_on_in_its_aggregate(
    recording: PostgresSaver,
) -> None:
    """What was told of the deleted one stays."""
    for _ in range(2):
        await put(recording, config_of(), {"messages": [HumanMessage("a", id="1")]})
        await recording.adelete_thread("t")
    assert types(await events_of(recording)) == [
        *["session_created", "message_received", "state_updated"] * 2
    ]


async def test_a_new_cluster_begins_its_era(recording: PostgresSaver, dsn: str) -> None:
    """Also where a checkpoint is the first that is stored there."""
    await put(recording, config_of())
    await execute(dsn, "update event_eras set system_identifier = 1")
    await put(recording, config_of("u"))
    [first, _], [second, _] = await events_of(recording), await events_of(recording, "u")
    assert first.place is not None
    assert second.place is not None
    assert (first.place.era, second.place.era) == (1, 2)


async def test_encrypted_threads_are_told_of_in_no_words(dsn: str) -> None:
    """Neither a message's id and kind nor what an error says stand in clear."""
    async with Database(dsn) as db:
        serde = EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef")
        saver = PostgresSaver(db, serde=serde, events=EventStore(db))
        config = await put(saver, config_of(), {"messages": [HumanMessage("hidden", id="hidden")]})
        await saver.aput_writes(config, [("__error__", ValueError("hidden"))], "task")
        events = await events_of(saver)
        assert [e.event_data for e in events][1] == {"message_no": 1}
        assert events[-1].event_data == {"step_id": "task", "error": "ValueError"}
        assert "hidden" not in repr(events)


async def test_many_threads_by_two_savers_and_an_appender(dsn: str) -> None:
    """Each checkpoint is told of once, versions have no gaps, and nobody waits for ever."""
    threads = [f"thread {number}" for number in range(12)]

    async def chain(saver: PostgresSaver, thread: str) -> None:
        config = config_of(thread)
        for step in range(6):
            config = await put(saver, config, {"messages": [HumanMessage(str(step))]})

    async def append(store: EventStore, thread: str) -> None:
        for number in range(6):
            await store.append(thread, [noted(number)], aggregate_type="session")

    async with Database(dsn) as db, Database(dsn) as other, asyncio.timeout(120):
        savers = [PostgresSaver(one, events=EventStore(one)) for one in (db, other)]
        await asyncio.gather(
            *(chain(saver, thread) for saver in savers for thread in threads),
            *(append(EventStore(db), thread) for thread in threads),
        )
        for thread in threads:
            events = await events_of(savers[0], thread)
            assert [e.version for e in events] == [*range(1, len(events) + 1)]
            assert types(events).count("state_updated") == 12
            assert types(events).count("session_created") == 1
            assert types(events).count("noted") == 6


async def test_what_cannot_record_is_told(dsn: str) -> None:
    """No store, one of another database, and tables on several servers."""
    async with Database(dsn) as db, Database(dsn, schema="other") as other:
        for odd in (db, "events", EventStore):
            with pytest.raises(InvalidArgumentError, match="EventStore"):
                PostgresSaver(db, events=odd)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError, match="one database"):
            PostgresSaver(db, events=EventStore(other))
    async with Database(dsn, distributed=True) as spread:
        with pytest.raises(InvalidArgumentError, match="several servers"):
            PostgresSaver(spread, events=EventStore(spread))


async def test_handlers_get_them(dsn: str) -> None:
    """From a store's first checkpoint on, without a worker, and soon."""
    async with Database(dsn) as db:
        store = EventStore(db)
        got: list[AgentEvent] = []
        seen = asyncio.Event()

        async def handle(event: AgentEvent) -> None:
            got.append(event)
            seen.set()

        store.register_event_handler("session_created", handle)
        saver = PostgresSaver(db, events=store)
        await put(saver, config_of())
        async with asyncio.timeout(60):
            await seen.wait()
        assert got[0].aggregate_id == "t"
