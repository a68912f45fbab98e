"""Personal data in events: readable with its subject's key, and erased with it, everywhere."""

from __future__ import annotations

import asyncio
import pickle
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from langgraph_pgsaga import Database, PostgresSaver
from langgraph_pgsaga.errors import (
    CorruptValueError,
    EventIdConflictError,
    InvalidArgumentError,
    MasterKeyError,
    UnstorableValueError,
)
from langgraph_pgsaga.events import (
    AgentEvent,
    Aggregate,
    Condition,
    Consumer,
    DeadLetters,
    EventCallbackHandler,
    EventStore,
    SubjectKeys,
    Upcaster,
    event_node,
)
from langgraph_pgsaga.events import erasure as erasure_module
from langgraph_pgsaga.events.ciphers import MasterKey, ValueCipher, new_key
from langgraph_pgsaga.events.subjects import MARK, Mark, SubjectKey, decrypted, encrypted
from langgraph_pgsaga.work import Retry, Worker
from tests._connections import connected
from tests._limits import HANG_SECONDS
from tests.db._events import settled, taken
from tests.db._waits import waits_for_a_lock

pytestmark = pytest.mark.anyio

SECRET = "ada@example.org"
MASTER = secrets.token_bytes(32)
FIELDS = {"signed_up": ["email", "address"], "moved": ["address"]}


def keys(master: bytes = MASTER, *former: bytes, fields: Any = None) -> SubjectKeys:
    personal: Any = FIELDS if fields is None else fields
    return SubjectKeys(master_key=master, former_master_keys=former, personal=personal)


def signed_up(subject: str | None = "user-7", **more: Any) -> AgentEvent:
    data = {"email": SECRET, "address": {"street": SECRET, "no": 1.5}, "plan": "pro"}
    given = {"event_type": "signed_up", "event_data": data, "subject": subject, **more}
    return AgentEvent(**given)


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    async with Database(dsn) as found:
        yield found


@pytest.fixture
def store(db: Database) -> EventStore:
    return EventStore(db, subjects=keys())


async def stored_texts(dsn: str) -> str:
    async with connected(dsn) as conn:
        rows = await conn.fetch(
            "select e::text from agent_events e union all select s::text from event_snapshots s"
            " union all select k::text from event_subjects k"
        )
    return "\n".join(row[0] for row in rows)


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


# Bound to where it stands


_MOVES = {
    "to another field": "event_data = jsonb_set(event_data, '{email}', event_data->'address')",
    "of another event": "event_data = (select event_data from agent_events where event_id = 'e1')",
    "to another aggregate": "aggregate_id = 'w'",
    "one byte": "event_data = replace(event_data::text, '.' || left(split_part("
    "event_data->'email'->>'$pgsaga.personal', '.', 3), 8), '.AAAAAAAA')::jsonb",
}


@pytest.mark.parametrize("move", _MOVES)
async def test_a_value_that_is_moved_or_changed_is_an_error(
    dsn: str, store: EventStore, move: str
) -> None:
    """It is bound to its field, event and aggregate."""
    await store.append("u", [signed_up(event_id="e1")], aggregate_type="user")
    other = signed_up(event_id="e2", event_data={"email": "x", "address": "y"})
    await store.append("v", [other], aggregate_type="user")
    assert await store.get_event("e2") is not None
    async with connected(dsn) as conn:
        await conn.execute(f"update agent_events set {_MOVES[move]} where event_id = 'e2'")
    with pytest.raises(CorruptValueError, match="event 'e2'") as caught:
        await store.get_event("e2")
    assert SECRET not in str(caught.value)


async def test_a_key_of_another_subject_opens_nothing(dsn: str, store: EventStore) -> None:
    """A wrapped key is its subject's."""
    await store.append("u", [signed_up(), signed_up("user-8")], aggregate_type="user")
    async with connected(dsn) as conn:
        await conn.execute(
            "update event_subjects e set wrapped_key = o.wrapped_key from event_subjects o"
            " where e.subject = 'user-7' and o.subject = 'user-8'"
        )
    with pytest.raises(CorruptValueError, match="a subject's key"):
        await store.get_events("u")


# Keys that change


async def test_another_master_key_is_an_error_and_never_an_erasure(
    db: Database, store: EventStore
) -> None:
    """For reads, appends and rewraps; forgetting needs none."""
    await store.append("u", [signed_up()], aggregate_type="user")
    other = EventStore(db, subjects=keys(secrets.token_bytes(32)))
    for call in (
        other.get_events("u"),
        other.append("u", [signed_up()], aggregate_type="user"),
        other.rewrap_keys(),
    ):
        with pytest.raises(MasterKeyError, match="nothing was erased") as caught:
            await call
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert await EventStore(db).forget_subject("user-7") == 1


async def test_master_keys_change_without_touching_events(
    dsn: str, db: Database, store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read by old and new before, between and after; then the old one isn't needed."""
    monkeypatch.setattr(erasure_module, "_KEYS_PER_PAGE", 2)
    for number in range(5):
        await store.append("u", [signed_up(f"user-{number}")], aggregate_type="user")
    new = secrets.token_bytes(32)
    prepared = EventStore(db, subjects=keys(MASTER, new))
    changed = EventStore(db, subjects=keys(new, MASTER))
    await changed.append("u", [signed_up("user-5")], aggregate_type="user")

    async def emails(one: EventStore) -> list[Any]:
        return [event.event_data["email"] for event in await one.get_events("u")]

    async with connected(dsn) as conn:
        before = await conn.fetch("select e::text from agent_events e order by 1")
        assert await emails(prepared) == await emails(changed) == [SECRET] * 6
        assert await changed.rewrap_keys() == 5
        assert await changed.rewrap_keys() == 0
        assert await conn.fetch("select e::text from agent_events e order by 1") == before
    assert await emails(EventStore(db, subjects=keys(new))) == [SECRET] * 6
    with pytest.raises(MasterKeyError):
        await emails(store)


async def test_a_subject_s_new_key_is_that_of_its_new_events(dsn: str, store: EventStore) -> None:
    """The others are read by the old one; forgetting deletes both."""
    await store.rotate_subject("nobody")
    await store.append("u", [signed_up()], aggregate_type="user")
    await store.rotate_subject("user-7")
    await store.append("u", [signed_up()], aggregate_type="user")
    events = await store.get_events("u")
    assert [event.event_data["email"] for event in events] == [SECRET] * 2
    async with connected(dsn) as conn:
        rows = await conn.fetch("select event_data->'email'->>$1 from agent_events", MARK)
    assert len({row[0].split(".")[1] for row in rows}) == 2
    assert await store.forget_subject("user-7") == 2
    assert all(event.erased for event in await store.get_events("u"))


# Races


async def test_two_that_make_a_first_key_at_once_agree(dsn: str) -> None:
    """Twenty processes, as far as the database goes: one key, and all is readable."""
    databases = [Database(dsn) for _ in range(10)]
    stores = [EventStore(db, subjects=keys()) for db in databases]
    try:
        await asyncio.gather(
            *(
                one.append(f"u{number % 5}", [signed_up()], aggregate_type="user")
                for number, one in enumerate(stores * 2)
            )
        )
        for number in range(5):
            for event in await stores[0].get_events(f"u{number}"):
                assert event.event_data["email"] == SECRET
        assert await stores[0].forget_subject("user-7") == 1
    finally:
        for db in databases:
            await db.aclose()


async def test_the_second_of_two_first_keys_waits_for_the_first(
    dsn: str, store: EventStore
) -> None:
    """In transactions: it takes the other's once that is committed."""
    async with Database(dsn) as other_db:
        other = EventStore(other_db, subjects=keys())
        async with store.db.transaction() as conn:
            await store.append("u", [signed_up()], aggregate_type="user", conn=conn)
            second = asyncio.create_task(other.append("v", [signed_up()], aggregate_type="user"))
            async with connected(dsn) as watcher:
                while not await watcher.fetchval(
                    "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
                    " and datname = current_database()"
                ):
                    await asyncio.sleep(0.002)
        await second
    assert await store.forget_subject("user-7") == 1


async def test_what_is_appended_while_its_subject_is_forgotten_is_erased(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the append's look for the key and its insert: it is stored, and unreadable."""
    await store.append("u", [signed_up()], aggregate_type="user")
    plain = erasure_module.current_keys

    async def forgetting(*given: Any) -> Any:
        found = await plain(*given)
        await store.forget_subject("user-7")
        return found

    monkeypatch.setattr(erasure_module, "current_keys", forgetting)
    await store.append("u", [signed_up()], aggregate_type="user")
    monkeypatch.undo()
    assert [event.erased for event in await store.get_events("u")] == [("address", "email")] * 2
    # And where it is forgotten in the moment in which its first key is made.
    monkeypatch.setattr(erasure_module, "current_keys", _none)
    await store.append("v", [signed_up()], aggregate_type="user")
    monkeypatch.undo()
    [event] = await store.get_events("v")
    assert event.erased


async def test_a_rotation_waits_for_who_forgets_the_subject(dsn: str, store: EventStore) -> None:
    """And makes no key then: what follows is as after any erasure."""
    await store.append("u", [signed_up()], aggregate_type="user")
    async with Database(dsn) as other_db:
        other = EventStore(other_db, subjects=keys())
        async with store.db.transaction() as conn:
            await store.forget_subject("user-7", conn=conn)
            rotating = asyncio.create_task(other.rotate_subject("user-7"))
            await waits_for_a_lock(dsn)
            # By the old key, since no other one is there.
            await other.append("v", [signed_up()], aggregate_type="user")
        await rotating
        [event] = await other.get_events("v")
        assert event.erased
        assert await other.forget_subject("user-7") == 0


async def test_a_key_that_is_made_beside_an_erasure_is_erased(dsn: str, store: EventStore) -> None:
    """It waits for who rotates, and what is committed before it is unreadable."""
    await store.append("u", [signed_up()], aggregate_type="user")
    async with Database(dsn) as other_db:
        other = EventStore(other_db, subjects=keys())
        async with store.db.transaction() as conn:
            await store.rotate_subject("user-7", conn=conn)
            await store.append("u", [signed_up()], aggregate_type="user", conn=conn)
            forgetting = asyncio.create_task(other.forget_subject("user-7"))
            await waits_for_a_lock(dsn)
        assert await forgetting == 2
        assert all(event.erased for event in await other.get_events("u"))


async def _none(*given: Any) -> dict[str, Any]:
    return {}


# Folds and snapshots

_USERS: Aggregate[dict[str, Any]] = Aggregate(
    aggregate_type="user",
    initial=lambda: {"emails": [], "count": 0},
    apply=lambda state, event: {
        "emails": [*state["emails"], event.event_data.get("email")],
        "count": state["count"] + 1,
    },
    snapshot_every=2,
)


async def test_streams_still_fold_and_snapshots_hold_nothing(dsn: str, store: EventStore) -> None:
    """A snapshot is of all whose data went into it: one that is forgotten makes it unreadable,
    and the state is folded from the events again."""
    events = [signed_up(f"user-{number}") for number in (7, 8, 7)]
    await store.append("u", events, aggregate_type="user")
    assert (await store.fold(_USERS, "u")).state["emails"] == [SECRET] * 3
    assert SECRET not in await stored_texts(dsn)
    snapshot = await store.get_latest_snapshot("u")
    assert snapshot == {"snapshot_data": {"emails": [SECRET] * 3, "count": 3}, "version": 3}
    await store.forget_subject("user-8")
    assert await store.get_latest_snapshot("u") is None
    for _ in range(2):
        folded = await store.fold(_USERS, "u")
        assert (folded.state["emails"], folded.version) == ([SECRET, None, SECRET], 3)
    assert await store.get_latest_snapshot("u") is not None
    await store.forget_subject("user-7")
    assert (await store.fold(_USERS, "u")).state == {"emails": [None] * 3, "count": 3}
    assert SECRET not in await stored_texts(dsn)


async def test_a_snapshot_on_a_snapshot_is_of_the_subjects_of_both(
    dsn: str, store: EventStore
) -> None:
    """The events after a snapshot may be of nobody: what is in the snapshot still is of some."""
    await store.append("u", [signed_up(), signed_up()], aggregate_type="user")
    await store.fold(_USERS, "u")
    plain = AgentEvent(event_type="noted", event_data={})
    await store.append("u", [plain, plain_again()], aggregate_type="user")
    folded = await store.fold(_USERS, "u")
    snapshot = await store.get_latest_snapshot("u")
    assert snapshot is not None
    assert (snapshot["version"], snapshot["snapshot_data"]) == (4, folded.state)
    assert SECRET not in await stored_texts(dsn)
    await store.forget_subject("user-7")
    assert (await store.fold(_USERS, "u")).state["emails"] == [None] * 4


def plain_again() -> AgentEvent:
    return AgentEvent(event_type="noted", event_data={})


async def test_what_is_forgotten_during_a_fold_isn_t_in_its_snapshot(
    dsn: str, store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stored by the keys that the events were read with, not by newer ones."""
    await store.append("u", [signed_up(), signed_up()], aggregate_type="user")

    plain = store._reader.stream

    async def forgotten_since(*given: Any) -> Any:
        found = await plain(*given)
        assert await store.forget_subject("user-7") == 1
        await store.append("v", [signed_up()], aggregate_type="user")
        return found

    monkeypatch.setattr(store._reader, "stream", forgotten_since)
    await store.fold(_USERS, "u")
    monkeypatch.undo()
    async with connected(dsn) as conn:
        assert await conn.fetchval("select count(*) from event_snapshots") == 1
    assert await store.get_latest_snapshot("u") is None


async def test_a_snapshot_of_one_s_own_says_whose_data_it_has(dsn: str, store: EventStore) -> None:
    await store.append("u", [signed_up()], aggregate_type="user")
    state = {"emails": [SECRET]}
    await store.save_snapshot("u", "user", state, 1, subjects=["user-7"])
    assert SECRET not in await stored_texts(dsn)
    found = await store.get_latest_snapshot("u")
    assert found == {"snapshot_data": state, "version": 1}
    with pytest.raises(InvalidArgumentError, match="'user-9' has no key"):
        await store.save_snapshot("u", "user", state, 1, subjects=["user-9"])
    with pytest.raises(InvalidArgumentError, match="no keys"):
        await EventStore(store.db).save_snapshot("u", "user", state, 1, subjects=["user-7"])
    await store.forget_subject("user-7")
    assert await store.get_latest_snapshot("u") is None


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


async def test_a_store_without_keys_shows_what_is_stored(db: Database, store: EventStore) -> None:
    """It erases nothing, and has nothing to show it by; it passes over snapshots."""
    await store.append("u", [signed_up(), signed_up()], aggregate_type="user")
    await store.fold(_USERS, "u")
    other = EventStore(db)
    events = await other.get_events("u")
    assert list(events[0].event_data["email"]) == [MARK]
    assert events[0].erased == ()
    assert await other.get_latest_snapshot("u") is None


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


# Ciphers


def test_a_wrapped_key_is_of_its_tenant_subject_and_id_alone() -> None:
    """Moved to another row it is none, so nobody's data becomes another's."""
    master, key, key_id = MasterKey(bytes(32)), new_key(), uuid4()
    wrapped = master.wrap(key, "t", "ada", key_id)
    assert master.unwrap(wrapped, "t", "ada", key_id) == key
    for named in (("u", "ada", key_id), ("t", "bob", key_id), ("t", "ada", uuid4())):
        assert master.unwrap(wrapped, *named) is None
    assert MasterKey(b"x" * 32).unwrap(wrapped, "t", "ada", key_id) is None


def test_no_two_values_share_a_nonce() -> None:
    """Neither by what they are bound to, nor by where that ends and the value begins."""
    cipher = ValueCipher(new_key())
    pairs = [(b"c", b"ab"), (b"bc", b"a"), (b"abc", b""), (b"c", b"a"), (b"d", b"ab")]
    assert len({cipher.encrypt(value, bound_to)[:12] for value, bound_to in pairs}) == len(pairs)
    assert cipher.encrypt(b"c", b"ab") == cipher.encrypt(b"c", b"ab")


def test_what_is_of_several_needs_the_keys_of_all() -> None:
    """Also for who says that it is of one of them."""
    keys = [SubjectKey(subject=name, key_id=uuid4(), key=new_key()) for name in ("ada", "bob")]
    mark = Mark.of(encrypted(keys, {"n": 1}, b"here"))
    assert mark is not None
    ring = {one.key_id: one for one in keys}
    assert decrypted(mark, ring, b"here", "it") == ({"n": 1}, True)
    for one in keys:
        assert decrypted(mark, {one.key_id: one}, b"here", "it") == (None, False)
        alone = replace(mark, key_ids=[one.key_id])
        with pytest.raises(CorruptValueError):
            decrypted(alone, {one.key_id: one}, b"here", "it")


async def test_a_snapshot_that_is_moved_to_another_version_is_an_error(
    dsn: str, store: EventStore
) -> None:
    """As personal data of events is."""
    await store.append("u", [signed_up(), signed_up()], aggregate_type="user")
    await store.save_snapshot("u", "user", {"of": 1}, 1, subjects=["user-7"])
    async with connected(dsn) as conn:
        await conn.execute("update event_snapshots set version = 2")
    with pytest.raises(CorruptValueError):
        await store.get_latest_snapshot("u")
