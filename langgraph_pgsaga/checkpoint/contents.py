"""What many checkpoints hold, each value and message fetched and decoded once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from langgraph_pgsaga._langgraph import is_trigger
from langgraph_pgsaga.checkpoint.decode import (
    Runs,
    SharedMessages,
    StateData,
    StoredValue,
    decode_state,
    decode_value,
    reading,
    runs_of,
    slices,
    value_of,
)
from langgraph_pgsaga.checkpoint.status import status_of
from langgraph_pgsaga.checkpoint.stored_message import MessageCodec, StoredMessage
from langgraph_pgsaga.database import Connection, Database, load_statements
from langgraph_pgsaga.errors import SerializationError
from langgraph_pgsaga.threads import Address, SessionStatus

_STATEMENTS = load_statements("history")


class ValueKey(NamedTuple):
    """Where a channel's value is stored."""

    session_id: UUID
    stored_ns: str
    channel: str
    version: str


class Contents:
    """Values and messages of any number of checkpoints, each fetched and decoded once."""

    def __init__(self, db: Database, codec: MessageCodec) -> None:
        self._db = db
        self._codec = codec
        self._stored: dict[ValueKey, StoredValue | None] = {}
        self._messages: dict[UUID, dict[int, StoredMessage]] = {}
        self._fetched: dict[UUID, Runs] = {}
        self._shared: dict[UUID, SharedMessages] = {}
        self._epochs: dict[UUID, int] = {}

    def expect(self, session_id: UUID, epoch: int) -> None:
        """Forgets what is here of the session, unless it is from under the same epoch."""
        if self._epochs.setdefault(session_id, epoch) != epoch:
            self._epochs[session_id] = epoch
            self._stored = {k: v for k, v in self._stored.items() if k.session_id != session_id}
            self._messages.pop(session_id, None)
            self._fetched.pop(session_id, None)
            self._shared.pop(session_id, None)

    async def fetch(self, keys: Sequence[ValueKey], conn: Connection) -> None:
        """Fetches what of `keys`, and of the messages they name, isn't here yet."""
        missing = list(dict.fromkeys(k for k in keys if k not in self._stored))
        if not missing:
            return
        rows: list[asyncpg.Record] = []
        for keys_of_one in self._db.routed(missing):
            session_ids, namespaces, channels, versions = map(list, zip(*keys_of_one, strict=True))
            select = _STATEMENTS["select_values"].bind(
                session_ids=session_ids,
                checkpoint_nss=namespaces,
                channels=channels,
                versions=versions,
            )
            with reading():
                rows += await self._db.fetch(select, conn=conn)
        await self.fetch_messages(((row["session_id"], row["message_runs"]) for row in rows), conn)
        self._stored.update(dict.fromkeys(missing))
        for row in rows:
            key = ValueKey(row["session_id"], row["checkpoint_ns"], row["channel"], row["version"])
            self._stored[key] = value_of(row)
            await self.messages(row["session_id"]).prepare([value_of(row)])

    async def fetch_messages(
        self, runs: Iterable[tuple[UUID, list[int] | None]], conn: Connection
    ) -> None:
        """Fetches what of the runs of each session isn't here yet."""
        wanted: dict[UUID, Runs] = {}
        for session_id, found in runs:
            if found is not None:
                wanted.setdefault(session_id, []).extend(runs_of(found))
        united = {
            session_id: _united([*self._fetched.get(session_id, []), *asked])
            for session_id, asked in wanted.items()
        }
        rows = [
            (session_id, *run)
            for session_id, asked in wanted.items()
            for run in _without(_united(asked), self._fetched.get(session_id, []))
        ]
        for rows_of_one in self._db.routed(rows):
            session_ids, firsts, lasts = map(list, zip(*rows_of_one, strict=True))
            select = _STATEMENTS["select_messages"].bind(
                session_ids=session_ids, first_nos=firsts, last_nos=lasts
            )
            found_rows = await self._db.fetch(select, conn=conn)
            for place, some in enumerate(slices(found_rows)):
                if place:
                    await asyncio.sleep(0)
                for row in some:
                    stored = self._codec.of_row(row["payload_type"], row["payload"])
                    self._messages.setdefault(row["session_id"], {})[row["message_no"]] = stored
        # Only now: what fails before is fetched again.
        self._fetched.update(united)

    def messages(self, session_id: UUID) -> SharedMessages:
        """The session's messages, as far as they were fetched."""
        shared = self._shared.get(session_id)
        if shared is None:
            stored = self._messages.setdefault(session_id, {})
            shared = self._shared[session_id] = SharedMessages(self._codec, stored)
        return shared

    def values(self, keys: Sequence[ValueKey]) -> dict[str, Any]:
        """The decoded values by channel; keys without a stored value are left out."""
        found = {key: self._stored[key] for key in keys}
        return {
            key.channel: decode_value(
                self._codec.values, key.channel, stored, self.messages(key.session_id)
            )
            for key, stored in found.items()
            if stored is not None
        }


def _united(runs: Runs) -> Runs:
    """The runs in ascending order, those that meet or overlap as one."""
    found: Runs = []
    for first, last in sorted(runs):
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(last, found[-1][1])
        else:
            found.append((first, last))
    return found


def _without(runs: Runs, others: Runs) -> Runs:
    """What of the runs is in none of the others; both are united."""
    found: Runs = []
    left = iter(others)
    other = next(left, None)
    for first, last in runs:
        begin = first
        while other is not None and other[0] <= last:
            if begin < other[0]:
                found.append((begin, other[0] - 1))
            begin = max(begin, other[1] + 1)
            if other[1] > last:
                break
            other = next(left, None)
        if begin <= last:
            found.append((begin, last))
    return found


async def status_at(
    db: Database, codec: MessageCodec, address: Address, conn: Connection
) -> SessionStatus | None:
    """The status that the checkpoint leaves its thread with, without what its tasks wrote.

    None where it doesn't tell, can't be loaded, or isn't there.
    """
    select = _STATEMENTS["select_states"].bind(
        session_id=address.session_id,
        checkpoint_ns=address.stored_ns,
        checkpoint_ids=[address.checkpoint_id],
    )
    rows = await db.fetch(select, conn=conn)
    try:
        for row in rows:
            columns = row["state_data"], row["metadata"], row["exact_type"], row["exact"]
            state = decode_state(codec.values, row["checkpoint_id"], *columns)
            keys = starter_keys(address, state)
            contents = Contents(db, codec)
            await contents.fetch(keys, conn)
            triggers = {**state.inline, **contents.values(keys)}
            return status_of(state.checkpoint, triggers, state.metadata)
    except SerializationError:
        pass  # a copy needs nothing loaded
    return None


def starter_keys(address: Address, state: StateData) -> list[ValueKey]:
    """The values that say which nodes are next, beside those that stand in the row."""
    return [
        ValueKey(address.session_id, address.stored_ns, channel, str(version))
        for channel, version in state.checkpoint["channel_versions"].items()
        if is_trigger(channel) and channel not in state.inline
    ]
