"""Keys of subjects in the database: made with the first event, asked for at each read, deleted.

Nothing keeps a key: what is deleted is unreadable for every process with its next read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from langgraph_pgsaga import _json
from langgraph_pgsaga.database import Connection, Database, load_statements
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.events.batch import Batch
from langgraph_pgsaga.events.ciphers import new_key
from langgraph_pgsaga.events.event import AgentEvent
from langgraph_pgsaga.events.seal import framed
from langgraph_pgsaga.events.subjects import (
    MARK,
    Mark,
    Ring,
    SubjectKey,
    SubjectKeys,
    decrypted,
    encrypted,
)

_STATEMENTS = load_statements("subjects")
_KEYS_PER_PAGE = 1000


# Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRing:
    """The keys that are there still of those that some rows need."""

    tenant_id: str
    keys: Ring

    def opened(
        self, row: asyncpg.Record, data: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[SubjectKey], tuple[str, ...]]:
        """An event's data in clear, by which keys, and the names of the fields that are erased,
        which are None."""
        found, used, erased = dict(data), {}, []
        for name, value in data.items():
            mark = Mark.of(value)
            if mark is None:
                continue
            named = (row["aggregate_type"], row["aggregate_id"], row["event_id"], name)
            what = f"event {row['event_id']!r}"
            found[name], is_there = decrypted(
                mark, self.keys, _of_field(self.tenant_id, *named), what
            )
            if is_there:
                used.update({key_id: self.keys[key_id] for key_id in mark.key_ids})
            else:
                erased.append(name)
        return found, list(used.values()), tuple(sorted(erased))


async def ring_for(
    db: Database,
    keys: SubjectKeys | None,
    tenant_id: str,
    texts: Iterable[str | None],
    conn: Connection | None = None,
) -> KeyRing | None:
    """The keys that events or snapshots need, of which these are the data; None without any."""
    if keys is None:
        return None
    marks = [mark for text in texts if text and MARK in text for mark in _marks_in(text)]
    key_ids = {key_id for mark in marks for key_id in mark.key_ids}
    if not key_ids:
        return None
    statement = _STATEMENTS["get_keys"].bind(tenant_id=tenant_id, key_ids=sorted(key_ids))
    rows = await db.fetch(statement, conn=conn)
    return KeyRing(tenant_id=tenant_id, keys=_unwrapped(keys, tenant_id, rows))


def _marks_in(text: str) -> list[Mark]:
    data = _json.load(text)
    values = [data, *data.values()] if isinstance(data, dict) else []
    return [mark for value in values if (mark := Mark.of(value)) is not None]


def _unwrapped(
    keys: SubjectKeys, tenant_id: str, rows: Iterable[asyncpg.Record]
) -> dict[UUID, SubjectKey]:
    found = {}
    for row in rows:
        subject, key_id = row["subject"], row["key_id"]
        key = keys.unwrapped(row["wrapped_key"], row["master_id"], tenant_id, subject, key_id)
        found[key_id] = SubjectKey(subject=subject, key_id=key_id, key=key)
    return found


def _of_field(
    tenant_id: str, aggregate_type: str, aggregate_id: str, event_id: str, name: str
) -> bytes:
    """What an encrypted field is bound to."""
    return framed(("pgsaga field 1", tenant_id, aggregate_type, aggregate_id, event_id, name))


# Appending


def personal_fields(keys: SubjectKeys | None, event: AgentEvent, text: str) -> list[str]:
    """The fields of an event, whose data is this text, that are to be encrypted.

    Raises:
        InvalidArgumentError: whom they are about isn't said, or that it is said means nothing.
    """
    event_type = str(event.event_type)
    if keys is None:
        if event.subject is None:
            return []
        problem = "this store has no keys: make it with EventStore(db, subjects=SubjectKeys(...))"
        raise InvalidArgumentError(argument="subject", problem=problem)
    fields = keys.fields.get(event_type, frozenset())
    if event.subject is not None and not fields:
        problem = (
            f"{event_type!r} has no personal fields, so nothing of the event would be encrypted. "
            f"Name them: SubjectKeys(personal={{{event_type!r}: [...]}})"
        )
        raise InvalidArgumentError(argument="subject", problem=problem)
    found = sorted(fields & _json.load(text).keys()) if fields else []
    if found and event.subject is None:
        problem = (
            f"must say whom it is about: {event_type!r} has the personal field {found[0]!r}. "
            "Pass AgentEvent(subject=...)"
        )
        raise InvalidArgumentError(argument="subject", problem=problem)
    return found


class Protection:
    """The personal data of one append. Made by `of`, which checks it."""

    def __init__(self, keys: SubjectKeys, batch: Batch, fields: list[list[str]]) -> None:
        self._keys = keys
        self._batch = batch
        self._fields = fields
        pairs = zip(batch.events, fields, strict=True)
        self._subjects = sorted(
            {event.subject for event, names in pairs if names and event.subject}
        )

    @classmethod
    def of(cls, keys: SubjectKeys | None, batch: Batch) -> Protection | None:
        """That of a batch; None where it has no personal data. Raises as `personal_fields`."""
        if keys is None and not any(event.subject for event in batch.events):
            return None
        fields = [
            personal_fields(keys, event, text)
            for event, text in zip(batch.events, batch.event_data, strict=True)
        ]
        if keys is None or not any(fields):
            return None
        return cls(keys, batch, fields)

    async def encrypted(self, db: Database, conn: Connection | None) -> Batch:
        """The batch as it is stored, by the newest keys, which are made where there are none."""
        tenant_id = self._batch.tenant_id
        current = await current_keys(db, self._keys, tenant_id, self._subjects, conn)
        if missing := [name for name in self._subjects if name not in current]:
            if await self._stored(db, conn):
                # Sent again, and erased since: no new key is made for that.
                return await self.as_stored(db, conn)
            await _make_keys(db, self._keys, tenant_id, missing, conn)
            current = await current_keys(db, self._keys, tenant_id, self._subjects, conn)
            for name in set(self._subjects) - current.keys():
                # Forgotten in this very moment: what is appended beside that is erased with it.
                current[name] = SubjectKey(subject=name, key_id=uuid4(), key=new_key())
        subjects = [event.subject or "" for event in self._batch.events]
        return self._with(lambda number, _: [current[subjects[number]]], {})

    async def as_stored(self, db: Database, conn: Connection | None) -> Batch:
        """The batch by the keys of the events of its ids that are stored; what is erased there is
        taken for the same."""
        stored = await self._stored(db, conn)
        texts = [_json.dump(data) for data in stored.values()]
        ring = await ring_for(db, self._keys, self._batch.tenant_id, texts, conn)
        keys: Ring = {} if ring is None else ring.keys
        ids = [event.event_id for event in self._batch.events]
        marks: dict[tuple[int, str], Mark | None] = {
            (number, name): Mark.of(stored.get(ids[number], {}).get(name))
            for number, names in enumerate(self._fields)
            for name in names
        }

        def keys_of(number: int, name: str) -> list[SubjectKey]:
            if ids[number] not in stored:
                # Not sent again: it is refused beside those that are, and isn't told in clear.
                subject = self._batch.events[number].subject or ""
                return [SubjectKey(subject=subject, key_id=uuid4(), key=new_key())]
            mark = marks[number, name]
            return [keys[i] for i in mark.key_ids if i in keys] if mark is not None else []

        kept = {
            at: mark.value()
            for at, mark in marks.items()
            if mark is not None and not all(key_id in keys for key_id in mark.key_ids)
        }
        return self._with(keys_of, kept)

    async def _stored(self, db: Database, conn: Connection | None) -> dict[str, dict[str, Any]]:
        statement = _STATEMENTS["list_stored_data"].bind(
            tenant_id=self._batch.tenant_id,
            event_ids=[event.event_id for event in self._batch.events],
        )
        rows = await db.fetch(statement, conn=conn)
        return {row["event_id"]: _json.load(row["event_data"]) for row in rows}

    def _with(
        self,
        keys_of: Callable[[int, str], Sequence[SubjectKey]],
        kept: Mapping[tuple[int, str], Any],
    ) -> Batch:
        """The batch with its fields encrypted by their keys; without one they stay in clear, as
        those that were stored before they were declared."""
        texts = list(self._batch.event_data)
        for number, names in enumerate(self._fields):
            if not names:
                continue
            data = _json.load(texts[number])
            for name in names:
                if (number, name) in kept:
                    data[name] = kept[number, name]
                elif keys := keys_of(number, name):
                    data[name] = encrypted(keys, data[name], self._bound_to(number, name))
            texts[number] = _json.dump(data)
        return replace(self._batch, event_data=texts)

    def _bound_to(self, number: int, name: str) -> bytes:
        """What the field of an event is bound to."""
        batch = self._batch
        event_id = batch.events[number].event_id
        return _of_field(batch.tenant_id, batch.aggregate_type, batch.aggregate_id, event_id, name)


async def current_keys(
    db: Database,
    keys: SubjectKeys,
    tenant_id: str,
    subjects: Sequence[str],
    conn: Connection | None,
) -> dict[str, SubjectKey]:
    """The newest keys of those subjects that have one."""
    statement = _STATEMENTS["get_current_keys"].bind(tenant_id=tenant_id, subjects=list(subjects))
    rows = await db.fetch(statement, conn=conn)
    return {one.subject: one for one in _unwrapped(keys, tenant_id, rows).values()}


async def _make_keys(
    db: Database,
    keys: SubjectKeys,
    tenant_id: str,
    subjects: Sequence[str],
    conn: Connection | None,
) -> None:
    """The first key of each subject, in their order, unless somebody has made it."""
    master = keys.master
    key_ids = [uuid4() for _ in subjects]
    pairs = zip(subjects, key_ids, strict=True)
    statement = _STATEMENTS["insert_keys"].bind(
        tenant_id=tenant_id,
        subjects=list(subjects),
        key_ids=key_ids,
        master_id=master.master_id,
        wrapped_keys=[
            master.wrap(new_key(), tenant_id, subject, key_id) for subject, key_id in pairs
        ],
    )
    await db.fetch(statement, conn=conn)


# Subjects


async def erase_subject(db: Database, tenant_id: str, subject: str, conn: Connection | None) -> int:
    """Deletes a subject's keys, those that are made beside it, too; how many there were."""
    statement = _STATEMENTS["delete_keys"].bind(tenant_id=tenant_id, subject=subject)

    async def work(conn: Connection) -> int:
        erased = 0
        while row := await db.fetch_one(statement, conn=conn):
            if row["keys"] == 0:
                break
            erased += row["keys"]
        return erased

    return await (db.run(work, once=True) if conn is None else work(conn))


async def rotate_subject_key(
    db: Database, keys: SubjectKeys, tenant_id: str, subject: str, conn: Connection | None
) -> None:
    """A new key for a subject's next events, where it has one."""
    key_id, master = uuid4(), keys.master
    statement = _STATEMENTS["insert_next_key"].bind(
        tenant_id=tenant_id,
        subject=subject,
        key_id=key_id,
        master_id=master.master_id,
        wrapped_key=master.wrap(new_key(), tenant_id, subject, key_id),
    )
    await db.fetch(statement, conn=conn)


async def rewrap(db: Database, keys: SubjectKeys, tenant_id: str) -> int:
    """Wraps a tenant's keys by the newest master key, page by page; how many that were."""
    master, done = keys.master, 0
    while True:
        statement = _STATEMENTS["list_keys_of_other_masters"].bind(
            tenant_id=tenant_id, master_id=master.master_id, page=_KEYS_PER_PAGE
        )
        rows = await db.fetch(statement)
        if not rows:
            return done
        ring = _unwrapped(keys, tenant_id, rows)
        statement = _STATEMENTS["rewrap_keys"].bind(
            tenant_id=tenant_id,
            key_ids=list(ring),
            old_keys=[row["wrapped_key"] for row in rows],
            master_id=master.master_id,
            wrapped_keys=[
                master.wrap(one.key, tenant_id, one.subject, one.key_id) for one in ring.values()
            ],
        )
        await db.fetch(statement)
        done += len(rows)
