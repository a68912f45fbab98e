"""Reading many checkpoints: listings by pages, and the history of delta channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
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

from langgraph_pgsaga import _json, _sql
from langgraph_pgsaga.checkpoint.address import Address, optional_checkpoint_id
from langgraph_pgsaga.checkpoint.codec import Codec
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
)
from langgraph_pgsaga.checkpoint.encode import CLEAR_METADATA
from langgraph_pgsaga.checkpoint.stored_message import MessageCodec, StoredMessage
from langgraph_pgsaga.database import Database

_STATEMENTS = _sql.load("history")
_HOT = _sql.load("checkpoint")
_FIRST_PAGE = 32
_LARGEST_PAGE = 256
# Session, namespace and checkpoint id.
_StateKey: TypeAlias = tuple[UUID, str, str]


class ValueKey(NamedTuple):
    session_id: UUID
    stored_ns: str
    channel: str
    version: str


class Contents:
    """Values and messages of any number of checkpoints, each fetched and decoded once."""

    def __init__(self, database: Database, codec: MessageCodec) -> None:
        self._database = database
        self._codec = codec
        self._stored: dict[ValueKey, StoredValue | None] = {}
        self._messages: dict[UUID, dict[int, StoredMessage]] = {}
        self._fetched: dict[UUID, Runs] = {}
        self._shared: dict[UUID, SharedMessages] = {}

    async def fetch(self, keys: Sequence[ValueKey]) -> None:
        """Fetches what of `keys`, and of the messages they name, isn't here yet."""
        missing = list(dict.fromkeys(k for k in keys if k not in self._stored))
        if not missing:
            return
        self._stored.update(dict.fromkeys(missing))
        columns = [list(column) for column in zip(*missing, strict=True)]
        rows = await self._database.fetch(_STATEMENTS["select_values"], *columns)
        for row in rows:
            key = ValueKey(row["session_id"], row["checkpoint_ns"], row["channel"], row["version"])
            self._stored[key] = _value_of(row)
        await self.fetch_messages((row["session_id"], row["message_runs"]) for row in rows)

    async def fetch_messages(self, runs: Iterable[tuple[UUID, list[int] | None]]) -> None:
        """Fetches what of the runs of each session isn't here yet."""
        wanted: dict[UUID, Runs] = {}
        for session_id, found in runs:
            if found is not None:
                wanted.setdefault(session_id, []).extend(runs_of(found))
        rows = []
        for session_id, asked in wanted.items():
            fetched = self._fetched.get(session_id, [])
            rows += [(session_id, *run) for run in _without(_united(asked), fetched)]
            self._fetched[session_id] = _united([*fetched, *asked])
        if not rows:
            return
        columns = [list(column) for column in zip(*rows, strict=True)]
        for row in await self._database.fetch(_STATEMENTS["select_messages"], *columns):
            stored = self._codec.of_row(row["payload_type"], row["payload"])
            self._messages.setdefault(row["session_id"], {})[row["message_no"]] = stored

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


class CheckpointListing:
    """`list`: the checkpoints that fit, newest first, fetched page by page.

    No connection is held between pages. A checkpoint saved meanwhile is newer than
    those still to come, so none of these is missed or given twice. Messages that
    several checkpoints of the listing share are the same objects in each.
    """

    def __init__(
        self,
        database: Database,
        codec: MessageCodec,
        config: RunnableConfig | None,
        *,
        filter: Mapping[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
        first_version: str,
    ) -> None:
        self._database = database
        self._codec = codec
        self._first_version = first_version
        self._address = Address.of(config) if config else None
        given_ns = (config.get("configurable") or {}).get("checkpoint_ns") if config else None
        self._stored_ns = None if given_ns is None or not self._address else self._address.stored_ns
        self._filter = dict(filter or {})
        self._filter_is_exact = _json.dump_exact(self._filter) is not None
        self._clear_filter = _clear_filter(codec.codec, self._filter)
        self._before = optional_checkpoint_id(before) if before else None
        self._left = limit
        self._page = _FIRST_PAGE
        self._last: asyncpg.Record | None = None
        self._done = False
        self._contents = Contents(database, codec)

    async def next_page(self) -> list[CheckpointTuple]:
        """The next checkpoints; [] when there are no more."""
        while not self._done and (self._left is None or self._left > 0):
            rows = await self._fetch_states()
            states = [(row, self._decoded_state(row)) for row in rows]
            fitting = [(row, state) for row, state in states if self._fits(row, state)]
            if fitting:
                return await self._tuples(fitting[: self._left])
        return []

    async def _fetch_states(self) -> list[asyncpg.Record]:
        size = self._page if self._left is None else min(self._page, self._left)
        name, arguments = self._statement()
        rows = await self._database.fetch(_STATEMENTS[name], *arguments, size)
        self._done = len(rows) < size
        self._last = rows[-1] if rows else None
        self._page = min(self._page * 2, _LARGEST_PAGE)
        return rows

    def _statement(self) -> tuple[str, list[Any]]:
        """The listing that fits what is given, and its arguments but the page's size."""
        after_id, after_ns, after_session = _place(self._last)
        metadata, before, address = self._clear_filter, self._before, self._address
        if address is None:
            place = [before, after_id, after_ns, after_session]
            return ("list_by_metadata", [metadata, *place]) if metadata else ("list_all", place)
        place = [address.checkpoint_id, metadata, before, after_id]
        if self._stored_ns is None:
            return "list_thread", [address.session_id, *place, after_ns]
        return "list_namespace", [address.session_id, self._stored_ns, *place]

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

    async def _tuples(self, found: list[tuple[asyncpg.Record, StateData]]) -> list[CheckpointTuple]:
        if self._left is not None:
            self._left -= len(found)
        keys = [
            [
                ValueKey(row["session_id"], row["checkpoint_ns"], channel, str(version))
                for channel, version in state.checkpoint["channel_versions"].items()
                if channel not in state.inline
            ]
            for row, state in found
        ]
        await self._contents.fetch([key for one in keys for key in one])
        senders = [_parent_key(row) for row, state in found if _has_sender(row, state)]
        writes = await self._writes([*(_state_key(row) for row, _ in found), *senders])
        tuples = []
        for (row, state), own_keys in zip(found, keys, strict=True):
            with self._placed(row):
                tuples.append(self._tuple(row, state, own_keys, writes))
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

    async def _writes(self, states: Iterable[_StateKey]) -> dict[_StateKey, list[StoredWrite]]:
        columns = [list(column) for column in zip(*dict.fromkeys(states), strict=True)]
        found: dict[_StateKey, list[StoredWrite]] = {}
        rows = await self._database.fetch(_STATEMENTS["select_writes"], *columns)
        await self._contents.fetch_messages((r["session_id"], r["message_runs"]) for r in rows)
        for row in rows:
            place = row["task_path"], row["task_id"], row["idx"], row["channel"]
            write = StoredWrite(*place, _value_of(row))
            found.setdefault(_state_key(row), []).append(write)
        return found


async def delta_channel_history(
    database: Database, codec: MessageCodec, address: Address, channels: Sequence[str]
) -> dict[str, DeltaChannelHistory]:
    """What each channel's ancestors wrote, oldest first, back to its nearest stored value.

    The contract is BaseCheckpointSaver.get_delta_channel_history's. Takes three or
    four statements, however long the way is.
    """
    if not channels:
        return {}
    names = list(dict.fromkeys(channels))
    walk = await database.fetch(
        _STATEMENTS["walk_delta_channels"],
        address.session_id,
        address.stored_ns,
        address.checkpoint_id,
        names,
    )
    seeds = await _seeds(database, codec, address, walk)
    open_at = {row["checkpoint_id"]: set(row["open_channels"]) for row in walk}
    writes: dict[str, list[PendingWrite]] = {name: [] for name in names}
    rows = await database.fetch(
        _STATEMENTS["select_channel_writes"],
        address.session_id,
        address.stored_ns,
        [row["checkpoint_id"] for row in reversed(walk)],
        names,
    )
    contents = Contents(database, codec)
    await contents.fetch_messages((address.session_id, row["message_runs"]) for row in rows)
    messages = contents.messages(address.session_id)
    for row in rows:
        if row["channel"] in open_at[row["checkpoint_id"]]:
            with placed(address.given_thread_id, address.stored_ns, row["checkpoint_id"]):
                value = decode_value(codec.codec, row["channel"], _value_of(row), messages)
            writes[row["channel"]].append((row["task_id"], row["channel"], value))
    return {name: _delta_history(writes[name], name, seeds) for name in names}


async def pending_sends(
    database: Database, codec: MessageCodec, address: Address, checkpoint_id: str
) -> list[Any]:
    """The Sends among a checkpoint's writes, in order."""
    rows = await database.fetch(
        _HOT["select_pending_sends"], address.session_id, address.stored_ns, checkpoint_id, TASKS
    )
    contents = Contents(database, codec)
    await contents.fetch_messages((address.session_id, row["message_runs"]) for row in rows)
    messages = contents.messages(address.session_id)
    with placed(address.given_thread_id, address.stored_ns, checkpoint_id):
        return [decode_value(codec.codec, TASKS, _value_of(row), messages) for row in rows]


async def _seeds(
    database: Database, codec: MessageCodec, address: Address, walk: list[asyncpg.Record]
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
    await contents.fetch(keys)
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


def _place(row: asyncpg.Record | None) -> tuple[str | None, str | None, UUID | None]:
    """Where the row stands in the order of the listings."""
    if row is None:
        return None, None, None
    return row["checkpoint_id"], row["checkpoint_ns"], row["session_id"]


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
