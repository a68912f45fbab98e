"""Personal data in events: readable with its subject's key, and erased with it, everywhere."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from langgraph_pgsaga import Database, PostgresSaver
from langgraph_pgsaga.errors import EventIdConflictError, InvalidArgumentError, UnstorableValueError
from langgraph_pgsaga.events import (
    AgentEvent,
    Condition,
    Consumer,
    DeadLetters,
    EventCallbackHandler,
    EventStore,
    SubjectKeys,
    Upcaster,
    event_node,
)
from langgraph_pgsaga.events.subjects import MARK
from langgraph_pgsaga.work import Retry, Worker
from tests._connections import connected
from tests._limits import HANG_SECONDS
from tests.db._events import settled, taken
from tests.db._subjects import MASTER, SECRET, keys, signed_up, stored_texts

pytestmark = pytest.mark.anyio


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    async with Database(dsn) as found:
        yield found


@pytest.fixture
def store(db: Database) -> EventStore:
    return EventStore(db, subjects=keys())


# Stored and read


async def test_personal_fields_are_stored_encrypted_and_read_in_clear(
    dsn: str, store: EventStore
) -> None:
    """By every way of reading; the other fields stay as they are."""
    given = signed_up(tags=["t"])
    [appended] = await store.append("u7", [given], aggregate_type="user")
    assert appended.event_data == given.event_data
    text = await stored_texts(dsn)
    assert SECRET not in text
    assert '""plan"": ""pro""' in text
    await settled(store)
    found = [
        *await store.get_events("u7"),
        await store.get_event(given.event_id),
        *(await store.read_all()).events,
        *(await store.read_all(tags=["t"])).events,
        *(await store.read_matching(Condition(types=["signed_up"], tags=["t"]))).events,
        *await taken(store.subscribe(), 1),
    ]
    assert len(found) == 6
    for event in found:
        assert event is not None
        assert (event.event_data, event.subject, event.erased) == (
            given.event_data,
            "user-7",
            (),
        )


async def test_what_is_forgotten_is_unreadable_in_every_process(
    dsn: str, store: EventStore
) -> None:
    """At once, also in one that has read it before; another subject's data isn't touched."""
    async with Database(dsn) as other_db:
        other = EventStore(other_db, subjects=keys())
        events = [signed_up(), signed_up("user-8"), signed_up()]
        await store.append("u", events, aggregate_type="user")
        assert [e.erased for e in await other.get_events("u")] == [(), (), ()]
        assert await store.forget_subject("user-7") == 1
        for reader in (other, store):
            first, second, third = await reader.get_events("u")
            for event in (first, third):
                assert event.event_data == {"email": None, "address": None, "plan": "pro"}
                assert (event.erased, event.subject) == (("address", "email"), None)
            assert second.event_data["email"] == SECRET
        assert await store.forget_subject("user-7") == 0


async def test_a_subject_that_comes_back_has_a_new_key(store: EventStore) -> None:
    """What was erased stays erased."""
    await store.append("u", [signed_up()], aggregate_type="user")
    await store.forget_subject("user-7")
    await store.append("u", [signed_up()], aggregate_type="user")
    first, second = await store.get_events("u")
    assert (first.event_data["email"], second.event_data["email"]) == (None, SECRET)


async def test_erasure_joins_a_transaction(store: EventStore) -> None:
    """Rolled back, nothing is forgotten."""
    await store.append("u", [signed_up()], aggregate_type="user")

    async def forgetting() -> None:
        async with store.db.transaction() as conn:
            await store.forget_subject("user-7", conn=conn)
            [event] = await store.get_events("u", conn=conn)
            assert event.erased
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await forgetting()
    [event] = await store.get_events("u")
    assert event.erased == ()


async def test_seals_outlast_erasure_and_rotation(store: EventStore) -> None:
    """They are of what is stored, which nothing changes."""
    await store.append("u", [signed_up()], aggregate_type="user")
    await settled(store)
    await store.seal()
    root = await store.sealed_root()
    await store.rotate_subject("user-7")
    await store.forget_subject("user-7")
    found = await store.verify(root=root)
    assert (found.is_intact, found.events) == (True, 1)


async def test_a_subject_is_its_tenant_s(db: Database) -> None:
    """The same name in another tenant is another one."""
    stores = [EventStore(db, tenant=name, subjects=keys()) for name in ("a", "b")]
    for one in stores:
        await one.append("u", [signed_up()], aggregate_type="user")
    await stores[0].forget_subject("user-7")
    [of_a], [of_b] = [await one.get_events("u") for one in stores]
    assert (of_a.event_data["email"], of_b.event_data["email"]) == (None, SECRET)


async def test_events_of_nodes_are_encrypted_too(dsn: str, store: EventStore) -> None:
    """The way of event_node, in its step's transaction."""
    from langgraph.graph import START, StateGraph

    from langgraph_pgsaga import PostgresSaver

    async with PostgresSaver.from_conn_string(dsn) as saver:
        own = EventStore(saver.db, subjects=keys(fields={"noted": ["email"]}))
        builder: Any = StateGraph

        def graph(**more: Any) -> Any:
            node: Any = event_node(own, "noted", data=lambda state: {"email": SECRET}, **more)
            return builder(dict).add_node("n", node).add_edge(START, "n").compile(saver)

        config = {"configurable": {"thread_id": "t"}}
        with pytest.raises(InvalidArgumentError, match="must say whom it is about"):
            await graph().ainvoke({"x": 1}, config)
        for thread, subject in (("u", "user-7"), ("v", lambda state: "user-7")):
            config = {"configurable": {"thread_id": thread}}
            await graph(subject=subject).ainvoke({"x": 1}, config)
            [event] = await own.get_events(thread, aggregate_type="session")
            assert (event.event_data["email"], event.subject) == (SECRET, "user-7")
    assert SECRET not in await stored_texts(dsn)


async def test_a_slow_subscriber_gets_nothing_that_is_forgotten(store: EventStore) -> None:
    """What others of the process had read before, and was kept for it, is read anew."""
    first = AgentEvent(event_type="noted")
    await store.append("u", [first], aggregate_type="user")
    subscribers: list[Any] = [store.subscribe(), store.subscribe()]
    slow, fast = subscribers
    async with asyncio.timeout(HANG_SECONDS):
        assert (await anext(slow)).event_id == (await anext(fast)).event_id == first.event_id
        waiting = asyncio.create_task(anext(slow))  # joins the common reader
        waiting_fast = asyncio.create_task(anext(fast))
        await settled(store)
        second = AgentEvent(event_type="noted")
        await store.append("u", [second], aggregate_type="user")
        assert (await waiting).event_id == (await waiting_fast).event_id == second.event_id
        await store.append("u", [signed_up()], aggregate_type="user")
        assert (await anext(fast)).event_data["email"] == SECRET
        await store.forget_subject("user-7")
        assert (await anext(slow)).event_data["email"] is None
    for one in subscribers:
        await one.aclose()


async def test_consumers_and_dead_letters_have_it_as_others_do(dsn: str, store: EventStore) -> None:
    """A handler sees the value; a dead letter refers to the event, and holds none; tried again
    once it is forgotten, the handler sees None."""
    seen: list[Any] = []

    async def handler(event: AgentEvent) -> None:
        seen.append((event.event_data["email"], event.erased))
        if event.event_data["email"] is not None:
            raise RuntimeError(SECRET)

    consumer = Consumer(name="mails", handler=handler, retry=Retry(attempts=1))
    letters = DeadLetters(store.db)
    await store.append("u", [signed_up(event_id="e1")], aggregate_type="user")
    async with Worker(store.db, store.job(consumer)), asyncio.timeout(HANG_SECONDS):
        while not any(one.is_dead for one in (await letters.list("mails")).dead_letters):
            await asyncio.sleep(0.01)
        assert seen == [(SECRET, ())]
        async with connected(dsn) as conn:
            rows = await conn.fetch("select d::text from event_dead_letters d")
        assert SECRET not in str(rows)
        await store.forget_subject("user-7")
        await letters.retry("mails", "e1")
        while len(seen) < 2:
            await asyncio.sleep(0.01)
    assert seen[1] == (None, ("address", "email"))


# What can't be meant


async def test_what_would_be_stored_in_clear_is_refused(dsn: str, db: Database) -> None:
    """A personal field without a subject; a subject without personal fields, or without keys."""
    store = EventStore(db, subjects=keys())
    for event, other, message in (
        (signed_up(None), store, "must say whom it is about: 'signed_up'"),
        (signed_up(event_type="other"), store, "'other' has no personal fields"),
        (signed_up(), EventStore(db), "this store has no keys"),
    ):
        with pytest.raises(InvalidArgumentError, match=message) as caught:
            await other.append("u", [event], aggregate_type="user")
        assert SECRET not in str(caught.value)
    without = AgentEvent(event_type="signed_up", event_data={"plan": "pro"})
    await store.append("u", [without], aggregate_type="user")
    assert SECRET not in await stored_texts(dsn)


@pytest.mark.parametrize(
    "data", [{MARK: "x"}, {"email": {MARK: "1.x.y"}}, {"x": {MARK: 1, "y": 2}}]
)
async def test_nobody_else_s_data_can_look_encrypted(db: Database, data: dict[str, Any]) -> None:
    """In a store with keys or without, in events and snapshots."""
    for store in (EventStore(db), EventStore(db, subjects=keys())):
        event = AgentEvent(event_type="noted", event_data=data)
        with pytest.raises(UnstorableValueError, match="rename it"):
            await store.append("u", [event], aggregate_type="user")
        with pytest.raises(UnstorableValueError, match="rename it"):
            await store.save_snapshot("u", "user", data, 1)
    deep = AgentEvent(event_type="noted", event_data={"a": {"b": {MARK: "x"}}, "t": MARK})
    await store.append("u", [deep], aggregate_type="user")
    [found] = await store.get_events("u")
    assert found.event_data == deep.event_data


async def test_keys_are_shown_nowhere() -> None:
    with pytest.raises(InvalidArgumentError, match="not 5 bytes") as caught:
        keys(b"short")
    assert "short" not in str(caught.value)
    with pytest.raises(InvalidArgumentError, match="not a str"):
        keys("k" * 32)  # type: ignore[arg-type]
    assert repr(MASTER)[2:-1] not in repr(keys())
    for fields in ({"signed_up": "email"}, ["email"], {"": ["x"]}, {"x": [1]}):
        with pytest.raises(InvalidArgumentError, match="personal"):
            keys(fields=fields)


# Sent again


async def test_an_append_that_is_sent_again_is_stored_once(store: EventStore) -> None:
    """The same content; after a rotation, and after the subject was forgotten, too."""
    event = signed_up(event_id="e1")
    [first] = await store.append("u", [event], aggregate_type="user")
    turned = {"address": {"no": 1.5, "street": SECRET}, "plan": "pro", "email": SECRET}
    for change in (None, store.rotate_subject, store.forget_subject):
        if change is not None:
            await change("user-7")
        for data in (event.event_data, turned):
            [again] = await store.append(
                "u", [replace(event, event_data=data)], aggregate_type="user"
            )
            assert (again.version, again.place) == (1, first.place)
        if change != store.forget_subject:
            other = {**event.event_data, "email": "other"}
            with pytest.raises(EventIdConflictError, match="other content"):
                await store.append("u", [replace(event, event_data=other)], aggregate_type="user")
    other = {**event.event_data, "plan": "free"}
    with pytest.raises(EventIdConflictError, match="other content"):
        await store.append("u", [replace(event, event_data=other)], aggregate_type="user")
    [found] = await store.get_events("u")
    assert found.erased == ("address", "email")
    assert await store.forget_subject("user-7") == 0, "sending again made a key"


async def test_what_was_stored_in_clear_is_the_same_when_it_is_sent_again(db: Database) -> None:
    """Before its field was declared."""
    event = signed_up(event_id="e1")
    before = EventStore(db)
    await before.append("u", [replace(event, subject=None)], aggregate_type="user")
    [again] = await EventStore(db, subjects=keys()).append("u", [event], aggregate_type="user")
    assert again.version == 1


async def test_upcasters_see_the_values_in_clear(db: Database) -> None:
    """And None where they are erased."""
    seen: list[Any] = []

    def upcast(data: dict[str, Any]) -> dict[str, Any]:
        seen.append(data["email"])
        return data

    caster = Upcaster(event_type="signed_up", schema_version=1, upcast=upcast)
    store = EventStore(db, subjects=keys(), upcasters=[caster])
    await store.append("u", [signed_up()], aggregate_type="user")
    await store.get_events("u")
    await store.forget_subject("user-7")
    await store.get_events("u")
    assert seen == [SECRET, None]


async def test_nothing_is_sent_in_clear_beside_what_was_erased(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new event, appended with one that is sent again and whose subject is forgotten."""
    sent: list[str] = []
    fetch = Database.fetch

    async def watched(self: Database, statement: Any, *args: Any, **options: Any) -> Any:
        sent.append(repr((getattr(statement, "values", ()), args)))
        return await fetch(self, statement, *args, **options)

    first, other = signed_up(event_id="first"), signed_up(event_id="other")
    await store.append("user-7", [first], aggregate_type="user")
    await store.forget_subject("user-7")
    monkeypatch.setattr(Database, "fetch", watched)
    with pytest.raises(EventIdConflictError):
        await store.append("user-7", [first, other], aggregate_type="user")
    assert any("other" in text for text in sent)
    assert not any(SECRET in text for text in sent)


@pytest.mark.parametrize(
    "event_type", ["session_created", "message_received", "state_updated", "error_occurred"]
)
async def test_what_a_saver_tells_cant_be_personal(db: Database, event_type: str) -> None:
    """Nobody says whom it is about, and it would stand in clear."""
    personal = SubjectKeys(master_key=secrets.token_bytes(32), personal={event_type: ["user_id"]})
    with pytest.raises(InvalidArgumentError, match=f"'{event_type}'.*in.*encrypted"):
        PostgresSaver(db, events=EventStore(db, subjects=personal))


@pytest.mark.parametrize("event_type", ["llm_started", "llm_ended", "tool_executed"])
async def test_what_callbacks_tell_cant_be_personal(db: Database, event_type: str) -> None:
    """Such events would be refused as they are appended, and lost."""
    personal = SubjectKeys(master_key=secrets.token_bytes(32), personal={event_type: ["prompts"]})
    with pytest.raises(InvalidArgumentError, match=f"'{event_type}'"):
        EventCallbackHandler(EventStore(db, subjects=personal), prompts=True)
