"""`list`: the checkpoints that fit, newest first, page by page."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias, cast
from uuid import UUID

import asyncpg
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    CheckpointTuple,
    PendingWrite,
)
from langgraph.checkpoint.serde.types import TASKS

from langgraph_pgsaga import _json
from langgraph_pgsaga.checkpoint.contents import Contents, ValueKey
from langgraph_pgsaga.checkpoint.decode import (
    StateData,
    StoredWrite,
    add_pending_sends,
    checkpoint_tuple,
    decode_state,
    decode_writes,
    needs_pending_sends,
    placed,
    reading,
    value_of,
)
from langgraph_pgsaga.checkpoint.encode import CLEAR_METADATA
from langgraph_pgsaga.checkpoint.session_cache import SessionCache
from langgraph_pgsaga.checkpoint.stored_message import MessageCodec
from langgraph_pgsaga.database import Connection, Database, load_statements
from langgraph_pgsaga.serde import Codec
from langgraph_pgsaga.tenants import Tenants, TenantScope, check_no_scope, stored_scope
from langgraph_pgsaga.threads import Address, configurable_of, optional_checkpoint_id

_STATEMENTS = load_statements("history")
# Seconds for which the event loop may stand still between two checkpoints of a page.
_LONGEST_TURN = 0.005
_FIRST_PAGE = 32
_LARGEST_PAGE = 256
# Session, namespace and checkpoint id.
_StateKey: TypeAlias = tuple[UUID, str, str]


class _Before(NamedTuple):
    """The checkpoint before which a listing begins; of which thread, if that is known."""

    session_id: UUID | None
    stored_ns: str
    checkpoint_id: str

    @classmethod
    def of(cls, config: RunnableConfig, listed: Address | None, tenants: Tenants) -> _Before | None:
        """None where the config names no checkpoint."""
        checkpoint_id = optional_checkpoint_id(config)
        if checkpoint_id is None:
            return None
        given = configurable_of(config)
        own = Address.of(config, tenants) if "thread_id" in given else None
        address = listed or own
        if address is None:
            return cls(None, "", checkpoint_id)
        named = own if own is not None and "checkpoint_ns" in given else address
        return cls(address.session_id, named.stored_ns, checkpoint_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """How far a listing is: below this position, or at it behind this session.

    `before_id` is that of a checkpoint that isn't stored: then ids must be lower. Of one that is,
    `of_ns` and `of_position` say where it stands, on every page.
    """

    position: int | None = None
    session_id: UUID | None = None
    before_id: str | None = None
    of_ns: str | None = None
    of_position: int | None = None


class _Page(NamedTuple):
    tuples: list[CheckpointTuple]
    place: _Place
    is_last: bool


def _as_dict(config: RunnableConfig | None) -> RunnableConfig | None:
    """What isn't even a mapping is left to who reads it."""
    return cast("RunnableConfig", dict(config)) if isinstance(config, Mapping) else config


class CheckpointListing:
    """`list`: the checkpoints that fit, newest first, fetched page by page.

    A page is what was there at one moment. No connection is held between pages. A
    checkpoint saved meanwhile is newer than those still to come, so none of these is missed
    or given twice. Messages that several checkpoints of the listing share are the same
    objects in each.
    """

    def __init__(
        self,
        db: Database,
        codec: MessageCodec,
        cache: SessionCache,
        config: RunnableConfig | None,
        *,
        filter: Mapping[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
        first_version: str,
        tenants: Tenants,
        scope: TenantScope,
    ) -> None:
        self._db = db
        self._codec = codec
        self._cache = cache
        self._first_version = first_version
        # As dicts: an object of the user's may be false although there is something in it.
        config, before = _as_dict(config), _as_dict(before)
        if config:
            check_no_scope(scope)
        self._address = Address.of(config, tenants) if config else None
        self._tenants = tenants
        # Of a listing of all threads; null is those of all tenants.
        self._tenant_id = None if config else stored_scope(tenants.of_listing(scope))
        given_ns = configurable_of(config).get("checkpoint_ns") if config else None
        self._stored_ns = None if given_ns is None or not self._address else self._address.stored_ns
        self._filter = {} if filter is None else dict(filter)
        self._filter_is_exact = _json.dump_exact(self._filter) is not None
        self._clear_filter = _clear_filter(codec.values, self._filter)
        self._before = _Before.of(before, self._address, tenants) if before else None
        self._left = limit
        self._size = _FIRST_PAGE
        self._place: _Place | None = None
        self._done = False
        self._contents = Contents(db, codec)

    async def next_page(self) -> list[CheckpointTuple]:
        """The next checkpoints; [] when there are no more."""
        while not self._done and (self._left is None or self._left > 0):
            page = await self._db.snapshot(self._fetch_page)
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
        name, asked = self._statement(place)
        rows = await self._db.fetch(_STATEMENTS[name].bind(**asked, page=size), conn=conn)
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
        find = _STATEMENTS["find_place"].bind(
            session_id=before.session_id,
            checkpoint_ns=before.stored_ns,
            checkpoint_id=before.checkpoint_id,
        )
        (row,) = await self._db.fetch(find, conn=conn)
        if row["place"] is None:
            return _Place(before_id=before.checkpoint_id)
        of_ns, position = row["place"][0], int(row["place"][1])
        return _Place(
            position=position, session_id=before.session_id, of_ns=of_ns, of_position=position
        )

    def _remember(self, rows: Sequence[asyncpg.Record]) -> None:
        """What was listed of one thread was read: it can be told from what never was there."""
        if self._address is not None and rows:
            self._cache.learn(
                self._address.session_id,
                rows[0]["message_epoch"],
                rows[0]["message_count"],
                states=[(row["checkpoint_ns"], row["checkpoint_id"]) for row in rows],
                deletion_count=rows[0]["deletion_count"],
            )

    def _statement(self, place: _Place) -> tuple[str, dict[str, Any]]:
        """The listing that fits what is given, and its parameters but the page's size."""
        metadata, address = self._clear_filter, self._address
        asked: dict[str, Any] = {"before_id": place.before_id, "before_position": place.position}
        if address is None:
            asked |= {"after_session": place.session_id, "tenant_id": self._tenant_id}
            if metadata:
                return "list_by_metadata", asked | {"metadata": metadata}
            return "list_tenant" if self._tenant_id else "list_all", asked
        asked |= {"session_id": address.session_id, "checkpoint_id": address.checkpoint_id}
        asked |= {"metadata": metadata, "of_ns": place.of_ns, "of_position": place.of_position}
        if self._stored_ns is None:
            return "list_thread", asked
        return "list_namespace", asked | {"checkpoint_ns": self._stored_ns}

    def _decoded_state(self, row: asyncpg.Record) -> StateData:
        columns = row["state_data"], row["metadata"], row["exact_type"], row["exact"]
        with self._placed(row):
            return decode_state(self._codec.values, row["checkpoint_id"], *columns)

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
            tenant_id=self._config_tenant(row),
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
        return decode_writes(self._codec.values, writes, self._contents.messages(row["session_id"]))

    def _thread_id(self, row: asyncpg.Record) -> Any:
        return self._address.given_thread_id if self._address else row["thread_id"]

    def _config_tenant(self, row: asyncpg.Record) -> str | None:
        if self._address:
            return self._address.config_tenant
        return self._tenants.in_config(row["tenant_id"])

    async def _writes(
        self, states: Iterable[_StateKey], conn: Connection
    ) -> dict[_StateKey, list[StoredWrite]]:
        found: dict[_StateKey, list[StoredWrite]] = {}
        rows: list[asyncpg.Record] = []
        for keys in self._db.routed(list(dict.fromkeys(states))):
            session_ids, namespaces, ids = map(list, zip(*keys, strict=True))
            select = _STATEMENTS["select_writes"].bind(
                session_ids=session_ids, checkpoint_nss=namespaces, checkpoint_ids=ids
            )
            with reading():
                rows += await self._db.fetch(select, conn=conn)
        runs = ((row["session_id"], row["message_runs"]) for row in rows)
        await self._contents.fetch_messages(runs, conn)
        for row in rows:
            place = row["task_path"], row["task_id"], row["idx"], row["channel"]
            write = StoredWrite(*place, value_of(row))
            found.setdefault(_state_key(row), []).append(write)
        return found


def _clear_filter(codec: Codec, filter_: Mapping[str, Any]) -> str | None:
    """What the metadata column, itself a projection, must contain at least."""
    visible = {k: v for k, v in filter_.items() if codec.readable or k in CLEAR_METADATA}
    return _json.dump(_json.project(visible)) if visible else None


def _state_key(row: asyncpg.Record) -> _StateKey:
    return row["session_id"], row["checkpoint_ns"], row["checkpoint_id"]


def _parent_key(row: asyncpg.Record) -> _StateKey:
    return row["session_id"], row["checkpoint_ns"], row["parent_checkpoint_id"]


def _has_sender(row: asyncpg.Record, state: StateData) -> bool:
    """Whether the parent's writes may hold Sends of this checkpoint."""
    return bool(row["parent_checkpoint_id"]) and needs_pending_sends(state.checkpoint)
