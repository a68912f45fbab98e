"""Reading many checkpoints: listings by pages, and the history of delta channels."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

import asyncpg
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    CheckpointTuple,
    DeltaChannelHistory,
    PendingWrite,
)
from langgraph.checkpoint.serde.types import TASKS

from langgraph_pgsaga import _json
from langgraph_pgsaga._langgraph import is_trigger
from langgraph_pgsaga.checkpoint.decode import (
    Runs,
    SharedMessages,
    StateData,
    StoredValue,
    StoredWrite,
    add_pending_sends,
    checkpoint_tuple,
    decode_state,
    decode_value,
    decode_writes,
    inline_values,
    needs_pending_sends,
    placed,
    runs_of,
    slices,
)
from langgraph_pgsaga.checkpoint.encode import CLEAR_METADATA
from langgraph_pgsaga.checkpoint.known_sessions import SessionMemory
from langgraph_pgsaga.checkpoint.run_tracker import status_of
from langgraph_pgsaga.checkpoint.stored_message import MessageCodec, StoredMessage
from langgraph_pgsaga.database import Connection, Database, load_statements
from langgraph_pgsaga.errors import CheckpointDeletedError, CorruptValueError, SerializationError
from langgraph_pgsaga.serde import Codec
from langgraph_pgsaga.threads import Address, optional_checkpoint_id

_STATEMENTS = load_statements("history")
_HOT = load_statements("checkpoint")
# Seconds for which the event loop may stand still between two checkpoints of a page.
_LONGEST_TURN = 0.005
_FIRST_PAGE = 32
_LARGEST_PAGE = 256
# Session, namespace and checkpoint id.
_StateKey: TypeAlias = tuple[UUID, str, str]


class ValueKey(NamedTuple):
    session_id: UUID
    stored_ns: str
    channel: str
    version: str


class _Before(NamedTuple):
    """The checkpoint before which a listing begins; of which thread, if that is known."""

    session_id: UUID | None
    stored_ns: str
    checkpoint_id: str

    @classmethod
    def of(cls, config: RunnableConfig, listed: Address | None) -> _Before | None:
        """None where the config names no checkpoint."""
        checkpoint_id = optional_checkpoint_id(config)
        if checkpoint_id is None:
            return None
        given = config.get("configurable") or {}
        own = Address.of(config) if "thread_id" in given else None
        address = listed or own
        if address is None:
            return cls(None, "", checkpoint_id)
        named = own if own is not None and "checkpoint_ns" in given else address
        return cls(address.session_id, named.stored_ns, checkpoint_id)


class Contents:
    """Values and messages of any number of checkpoints, each fetched and decoded once."""

    def __init__(self, database: Database, codec: MessageCodec) -> None:
        self._database = database
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
        columns = [list(column) for column in zip(*missing, strict=True)]
        rows = await self._database.fetch(_STATEMENTS["select_values"], *columns, conn=conn)
        await self.fetch_messages(((row["session_id"], row["message_runs"]) for row in rows), conn)
        self._stored.update(dict.fromkeys(missing))
        for row in rows:
            key = ValueKey(row["session_id"], row["checkpoint_ns"], row["channel"], row["version"])
            self._stored[key] = _value_of(row)
            await self.messages(row["session_id"]).prepare([_value_of(row)])

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
        if rows:
            columns = [list(column) for column in zip(*rows, strict=True)]
            statement = _STATEMENTS["select_messages"]
            found_rows = await self._database.fetch(statement, *columns, conn=conn)
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
                self._codec.codec, key.channel, stored, self.messages(key.session_id)
            )
            for key, stored in found.items()
            if stored is not None
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """How far a listing is: below this position, or at it behind this session.

    `before_id` is that of a checkpoint that isn't stored: then ids must be lower.
    """

    position: int | None = None
    session_id: UUID | None = None
    before_id: str | None = None


class _Page(NamedTuple):
    tuples: list[CheckpointTuple]
    place: _Place
    is_last: bool


class CheckpointListing:
    """`list`: the checkpoints that fit, newest first, fetched page by page.

    A page is what was there at one moment. No connection is held between pages. A
    checkpoint saved meanwhile is newer than those still to come, so none of these is missed
    or given twice. Messages that several checkpoints of the listing share are the same
    objects in each.
    """

    def __init__(
        self,
        database: Database,
        codec: MessageCodec,
        memory: SessionMemory,
        config: RunnableConfig | None,
        *,
        filter: Mapping[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
        first_version: str,
    ) -> None:
        self._database = database
        self._codec = codec
        self._memory = memory
        self._first_version = first_version
        self._address = Address.of(config) if config else None
        given_ns = (config.get("configurable") or {}).get("checkpoint_ns") if config else None
        self._stored_ns = None if given_ns is None or not self._address else self._address.stored_ns
        self._filter = {} if filter is None else dict(filter)
        self._filter_is_exact = _json.dump_exact(self._filter) is not None
        self._clear_filter = _clear_filter(codec.codec, self._filter)
        self._before = _Before.of(before, self._address) if before else None
        self._left = limit
        self._size = _FIRST_PAGE
        self._place: _Place | None = None
        self._done = False
        self._contents = Contents(database, codec)

    async def next_page(self) -> list[CheckpointTuple]:
        """The next checkpoints; [] when there are no more."""
        while not self._done and (self._left is None or self._left > 0):
            page = await self._database.snapshot(self._fetch_page)
            self._place, self._done = page.place, page.is_last
            self._size = min(self._size * 2, _LARGEST_PAGE)
            if page.tuples:
                self._left = None if self._left is None else self._left - len(page.tuples)
                return page.tuples
        return []

    async def _fetch_page(self, conn: Connection) -> _Page:
        """May be called again where the connection was lost, so it only adds contents."""
        size = self._size if self._left is None else min(self._size, self._left)
        place = self._place or await self._first_place(conn)
        name, arguments = self._statement(place)
        rows = await self._database.fetch(_STATEMENTS[name], *arguments, size, conn=conn)
        for row in rows:
            self._contents.expect(row["session_id"], row["message_epoch"])
        states = [(row, self._decoded_state(row)) for row in rows]
        fitting = [(row, state) for row, state in states if self._fits(row, state)]
        tuples = await self._tuples(fitting[: self._left], conn) if fitting else []
        self._remember(rows)
        if rows:
            last = rows[-1]["position"], rows[-1]["session_id"]
            place = replace(place, position=last[0], session_id=last[1])
        return _Page(tuples, place, len(rows) < size)

    async def _first_place(self, conn: Connection) -> _Place:
        before = self._before
        if before is None:
            return _Place()
        if before.session_id is None:
            return _Place(before_id=before.checkpoint_id)
        (row,) = await self._database.fetch(_STATEMENTS["find_place"], *before, conn=conn)
        if row["position"] is None:
            return _Place(before_id=before.checkpoint_id)
        return _Place(position=row["position"], session_id=before.session_id)

    def _remember(self, rows: Sequence[asyncpg.Record]) -> None:
        """What was listed of one thread was read: it can be told from what never was there."""
        if self._address is not None and rows:
            self._memory.learn(
                self._address.session_id,
                rows[0]["message_epoch"],
                rows[0]["message_count"],
                (),
                states=[(row["checkpoint_ns"], row["checkpoint_id"]) for row in rows],
                deletion_count=rows[0]["deletion_count"],
            )

    def _statement(self, place: _Place) -> tuple[str, list[Any]]:
        """The listing that fits what is given, and its arguments but the page's size."""
        metadata, address = self._clear_filter, self._address
        if address is None:
            start = [place.before_id, place.position, place.session_id]
            return ("list_by_metadata", [metadata, *start]) if metadata else ("list_all", start)
        start = [address.checkpoint_id, metadata, place.before_id, place.position]
        if self._stored_ns is None:
            return "list_thread", [address.session_id, *start]
        return "list_namespace", [address.session_id, self._stored_ns, *start]

    def _decoded_state(self, row: asyncpg.Record) -> StateData:
        columns = row["state_data"], row["metadata"], row["exact_type"], row["exact"]
        with self._placed(row):
            return decode_state(self._codec.codec, *columns)

    def _placed(self, row: asyncpg.Record) -> AbstractContextManager[None]:
        return placed(self._thread_id(row), row["checkpoint_ns"], row["checkpoint_id"])

    def _fits(self, row: asyncpg.Record, state: StateData) -> bool:
        """What the server couldn't see: metadata that isn't, or can't be, stored in clear."""
        if self._filter_is_exact and row["exact_type"] is None:
            return True
        return _json.contains(state.metadata, self._filter)

    async def _tuples(
        self, found: list[tuple[asyncpg.Record, StateData]], conn: Connection
    ) -> list[CheckpointTuple]:
        keys = [
            [
                ValueKey(row["session_id"], row["checkpoint_ns"], channel, str(version))
                for channel, version in state.checkpoint["channel_versions"].items()
                if channel not in state.inline
            ]
            for row, state in found
        ]
        await self._contents.fetch([key for one in keys for key in one], conn)
        senders = [_parent_key(row) for row, state in found if _has_sender(row, state)]
        writes = await self._writes([*(_state_key(row) for row, _ in found), *senders], conn)
        tuples = []
        turn = time.monotonic()
        for (row, state), own_keys in zip(found, keys, strict=True):
            with self._placed(row):
                tuples.append(self._tuple(row, state, own_keys, writes))
            # Lists of many messages take their time even where these are there already.
            if time.monotonic() - turn > _LONGEST_TURN:
                await asyncio.sleep(0)
                turn = time.monotonic()
        return tuples

    def _tuple(
        self,
        row: asyncpg.Record,
        state: StateData,
        keys: Sequence[ValueKey],
        writes: Mapping[_StateKey, list[StoredWrite]],
    ) -> CheckpointTuple:
        found = checkpoint_tuple(
            state,
            thread_id=self._thread_id(row),
            stored_ns=row["checkpoint_ns"],
            checkpoint_id=row["checkpoint_id"],
            parent_checkpoint_id=row["parent_checkpoint_id"],
            values=self._contents.values(keys),
            pending_writes=self._decoded_writes(row, writes.get(_state_key(row), ())),
        )
        if _has_sender(row, state):
            sent = [w for w in writes.get(_parent_key(row), ()) if w.channel == TASKS]
            sends = [value for _, _, value in self._decoded_writes(row, sent)]
            add_pending_sends(found.checkpoint, sends, self._first_version)
        return found

    def _decoded_writes(
        self, row: asyncpg.Record, writes: Iterable[StoredWrite]
    ) -> list[PendingWrite]:
        return decode_writes(self._codec.codec, writes, self._contents.messages(row["session_id"]))

    def _thread_id(self, row: asyncpg.Record) -> Any:
        return self._address.given_thread_id if self._address else row["thread_id"]

    async def _writes(
        self, states: Iterable[_StateKey], conn: Connection
    ) -> dict[_StateKey, list[StoredWrite]]:
        columns = [list(column) for column in zip(*dict.fromkeys(states), strict=True)]
        found: dict[_StateKey, list[StoredWrite]] = {}
        rows = await self._database.fetch(_STATEMENTS["select_writes"], *columns, conn=conn)
        runs = ((row["session_id"], row["message_runs"]) for row in rows)
        await self._contents.fetch_messages(runs, conn)
        for row in rows:
            place = row["task_path"], row["task_id"], row["idx"], row["channel"]
            write = StoredWrite(*place, _value_of(row))
            found.setdefault(_state_key(row), []).append(write)
        return found


async def delta_channel_history(
    database: Database,
    codec: MessageCodec,
    memory: SessionMemory,
    address: Address,
    channels: Sequence[str],
) -> dict[str, DeltaChannelHistory]:
    """What each channel's ancestors wrote, oldest first, back to its nearest stored value.

    The contract is BaseCheckpointSaver.get_delta_channel_history's. Takes three or
    four statements, however long the way is, which see one moment.

    Raises:
        CheckpointDeletedError: the checkpoint was deleted since it was read by this process,
            or may be what it is built on.
        CorruptValueError: a checkpoint is its own ancestor.
    """
    names = list(dict.fromkeys(channels))
    if not names:
        return {}
    known = memory.known(address.session_id)
    key = address.stored_ns, address.checkpoint_id or ""

    async def work(conn: Connection) -> dict[str, DeltaChannelHistory]:
        walk = await database.fetch(
            _STATEMENTS["walk_delta_channels"],
            address.session_id,
            address.stored_ns,
            address.checkpoint_id,
            names,
            conn=conn,
        )
        _check_walk(address, walk, known.states.get(key) if known else None)
        seeds = await _seeds(database, codec, address, walk, conn)
        writes = await _channel_writes(database, codec, address, walk, names, conn)
        return {name: _delta_history(writes[name], name, seeds) for name in names}

    return await database.snapshot(work)


def _check_walk(address: Address, walk: list[asyncpg.Record], seen: int | None) -> None:
    """`seen` is the session's deletion_count of when the checkpoint was there."""
    first, last = walk[0], walk[-1]
    if last["is_again"]:
        with placed(address.given_thread_id, address.stored_ns, last["checkpoint_id"]):
            raise CorruptValueError(what="its history", problem="it is its own ancestor")
    # Where an ancestor is gone, its child is a root: the walk then ends without a value.
    is_cut = first["deletion_count"] != seen and set(last["open_channels"]) > set(
        last["found_channels"]
    )
    if seen is not None and (first["checkpoint_id"] is None or is_cut):
        raise CheckpointDeletedError(
            thread_id=address.thread_id, checkpoint_id=address.checkpoint_id or ""
        )


async def _channel_writes(
    database: Database,
    codec: MessageCodec,
    address: Address,
    walk: list[asyncpg.Record],
    names: list[str],
    conn: Connection,
) -> dict[str, list[PendingWrite]]:
    """What was written to each channel at the checkpoints of the walk, oldest first."""
    ancestors = walk[1:]
    open_at = {row["checkpoint_id"]: set(row["open_channels"]) for row in ancestors}
    rows = await database.fetch(
        _STATEMENTS["select_channel_writes"],
        address.session_id,
        address.stored_ns,
        [row["checkpoint_id"] for row in reversed(ancestors)],
        names,
        conn=conn,
    )
    contents = Contents(database, codec)
    await contents.fetch_messages(((address.session_id, row["message_runs"]) for row in rows), conn)
    messages = contents.messages(address.session_id)
    writes: dict[str, list[PendingWrite]] = {name: [] for name in names}
    for row in rows:
        if row["channel"] in open_at[row["checkpoint_id"]]:
            with placed(address.given_thread_id, address.stored_ns, row["checkpoint_id"]):
                value = decode_value(codec.codec, row["channel"], _value_of(row), messages)
            writes[row["channel"]].append((row["task_id"], row["channel"], value))
    return writes


async def pending_sends(
    database: Database, codec: MessageCodec, address: Address, checkpoint_id: str, conn: Connection
) -> list[Any]:
    """The Sends among a checkpoint's writes, in order."""
    key = address.session_id, address.stored_ns, checkpoint_id, TASKS
    rows = await database.fetch(_HOT["select_pending_sends"], *key, conn=conn)
    contents = Contents(database, codec)
    runs = ((address.session_id, row["message_runs"]) for row in rows)
    await contents.fetch_messages(runs, conn)
    messages = contents.messages(address.session_id)
    with placed(address.given_thread_id, address.stored_ns, checkpoint_id):
        return [decode_value(codec.codec, TASKS, _value_of(row), messages) for row in rows]


async def status_at(
    database: Database, codec: MessageCodec, address: Address, conn: Connection
) -> str | None:
    """The status that the checkpoint leaves its thread with, without what its tasks wrote.

    None where it doesn't tell, can't be loaded, or isn't there.
    """
    place = address.session_id, address.stored_ns, [address.checkpoint_id]
    rows = await database.fetch(_STATEMENTS["select_states"], *place, conn=conn)
    try:
        for row in rows:
            columns = row["state_data"], row["metadata"], row["exact_type"], row["exact"]
            state = decode_state(codec.codec, *columns)
            keys = starter_keys(address, state)
            contents = Contents(database, codec)
            await contents.fetch(keys, conn)
            versions = state.checkpoint["channel_versions"]
            return status_of(versions, {**state.inline, **contents.values(keys)}, state.metadata)
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


async def _seeds(
    database: Database,
    codec: MessageCodec,
    address: Address,
    walk: list[asyncpg.Record],
    conn: Connection,
) -> dict[str, Any]:
    seeds: dict[str, Any] = {}
    keys: list[ValueKey] = []
    for row in walk:
        for channel in row["found_channels"]:
            inline = inline_values(row["state_data"])
            if channel in inline and not codec.codec.encrypts:
                seeds[channel] = inline[channel]
            else:
                version = str(_json.load(row["state_data"])["channel_versions"][channel])
                keys.append(ValueKey(address.session_id, address.stored_ns, channel, version))
    contents = Contents(database, codec)
    await contents.fetch(keys, conn)
    with placed(address.given_thread_id, address.stored_ns, address.checkpoint_id or ""):
        return {**seeds, **contents.values(keys)}


def _delta_history(
    writes: list[PendingWrite], channel: str, seeds: Mapping[str, Any]
) -> DeltaChannelHistory:
    if channel in seeds:
        return {"writes": writes, "seed": seeds[channel]}
    return {"writes": writes}


def _clear_filter(codec: Codec, filter_: Mapping[str, Any]) -> str | None:
    """What the metadata column, itself a projection, must contain at least."""
    visible = {k: v for k, v in filter_.items() if codec.readable or k in CLEAR_METADATA}
    return _json.dump(_json.project(visible)) if visible else None


def _value_of(row: asyncpg.Record) -> StoredValue:
    return StoredValue(row["type"], row["payload"], row["message_runs"])


def _state_key(row: asyncpg.Record) -> _StateKey:
    return row["session_id"], row["checkpoint_ns"], row["checkpoint_id"]


def _parent_key(row: asyncpg.Record) -> _StateKey:
    return row["session_id"], row["checkpoint_ns"], row["parent_checkpoint_id"]


def _has_sender(row: asyncpg.Record, state: StateData) -> bool:
    """Whether the parent's writes may hold Sends of this checkpoint."""
    return bool(row["parent_checkpoint_id"]) and needs_pending_sends(state.checkpoint)


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
