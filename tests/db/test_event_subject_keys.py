"""Subjects' keys: what they are bound to, how they change, and who makes and erases them."""

from __future__ import annotations

import asyncio
import pickle
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from langgraph_pgsaga import Database
from langgraph_pgsaga.errors import CorruptValueError, MasterKeyError
from langgraph_pgsaga.events import EventStore
from langgraph_pgsaga.events import erasure as erasure_module
from langgraph_pgsaga.events.ciphers import MasterKey, ValueCipher, new_key
from langgraph_pgsaga.events.subjects import MARK, Mark, SubjectKey, decrypted, encrypted
from tests._connections import connected
from tests.db._subjects import MASTER, SECRET, keys, signed_up
from tests.db._waits import waits_for_a_lock

pytestmark = pytest.mark.anyio


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    async with Database(dsn) as found:
        yield found


@pytest.fixture
def store(db: Database) -> EventStore:
    return EventStore(db, subjects=keys())


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
