"""Rows as checkpoint tuples."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias, TypeVar
from uuid import UUID

import asyncpg
from langgraph.checkpoint.base import (
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    PendingWrite,
    writes_sort_key,
)
from langgraph.checkpoint.serde.types import TASKS

from langgraph_pgsaga import _json
from langgraph_pgsaga._langgraph import DeltaSnapshot
from langgraph_pgsaga.checkpoint.encode import (
    MESSAGES,
    MESSAGES_SNAPSHOT,
    MOST_REPEATED,
)
from langgraph_pgsaga.checkpoint.session_cache import KnownSession
from langgraph_pgsaga.checkpoint.shape import flaw, flaw_of_values
from langgraph_pgsaga.checkpoint.small_values import SMALL_TYPES
from langgraph_pgsaga.checkpoint.stored_message import MessageCodec, StoredMessage
from langgraph_pgsaga.errors import CorruptValueError, UnloadableValueError, UnstorableValueError
from langgraph_pgsaga.serde import LARGEST_PAYLOAD_BYTES, NOT_ENCRYPTED, Codec, Encoded, fill
from langgraph_pgsaga.threads import Address, checkpoint_config

# What `put` encodes together where jsonb can't hold it.
_EXACT_PARTS = {"checkpoint", "metadata", "checkpoint_ns"}
_INT = frozenset({int})


class StoredValue(NamedTuple):
    """The content of a row of agent_state_values or agent_state_writes.

    Its bytes, or where its type says so just messages; bytes with runs have gaps that
    the messages fill.
    """

    type: str
    payload: bytes | None
    message_runs: list[int] | None


class StateData(NamedTuple):
    """The decoded row of agent_states. `inline` are the values that stand in it."""

    checkpoint: dict[str, Any]
    metadata: CheckpointMetadata
    inline: dict[str, Any]
    # Only where the stored namespace isn't the whole one.
    checkpoint_ns: str | None


class StoredWrite(NamedTuple):
    """A row of agent_state_writes."""

    task_path: str
    task_id: str
    idx: int
    channel: str
    value: StoredValue


Runs: TypeAlias = list[tuple[int, int]]
T = TypeVar("T")

# Messages that are decoded at once, 5 ms of them; then others of the loop have their turn.
_AT_ONCE = 250


def slices(items: Sequence[T]) -> Sequence[Sequence[T]]:
    """The items, as many at once as are decoded in one turn of the event loop."""
    if len(items) <= _AT_ONCE:
        return (items,)
    return [items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE)]


class Messages:
    """A session's messages by number. Each list made of them has objects of its own."""

    def __init__(self, codec: MessageCodec, stored: Mapping[int, StoredMessage]) -> None:
        self._codec = codec
        self._stored = stored
        # Objects made ahead, by number, for one list each.
        self._ready: dict[int, Any] = {}

    async def prepare(self, values: Iterable[StoredValue]) -> None:
        """Makes the objects of long lists ahead, and lets others have their turn meanwhile.

        What fails is left to `objects`, which says where it stands.
        """
        if len(self._stored) <= _AT_ONCE:
            return
        for value in values:
            if not value.message_runs or value.type not in (MESSAGES, MESSAGES_SNAPSHOT):
                continue
            with suppress(UnloadableValueError, KeyError):
                numbers = self.numbers(value.message_runs)
                if len(numbers) > _AT_ONCE:
                    await self._make_ready(numbers)

    async def _make_ready(self, numbers: Sequence[int]) -> None:
        ready, stored, fresh = self._ready, self._stored, self._codec.fresh
        for place, some in enumerate(slices(numbers)):
            if place:
                await asyncio.sleep(0)
            for number in some:
                if number not in ready:
                    ready[number] = fresh(stored[number])

    def numbers(self, message_runs: Sequence[Any]) -> list[int]:
        """The numbers in the runs, in order: [1, 3, 7, 7] is 1, 2, 3, 7.

        Raises:
            CorruptValueError: there are more of them, or of what they name, than is ever stored.
        """
        runs = runs_of(message_runs)
        if sum(last - first + 1 for first, last in runs) > len(self._stored) + MOST_REPEATED:
            raise _corrupt_list("it names more messages than the thread has")
        numbers = [number for first, last in runs for number in range(first, last + 1)]
        if any(run[1] >= following[0] for run, following in pairwise(runs)):
            found = (self._stored[number] for number in numbers if number in self._stored)
            if sum(len(message.data) for message in found) > LARGEST_PAYLOAD_BYTES:
                raise _corrupt_list("it repeats its messages until they are too large")
        return numbers

    def encoded(self, numbers: Iterable[int]) -> list[bytes]:
        """Their bytes, in order; KeyError where one isn't there."""
        return [self._stored[number].data for number in numbers]

    def objects(self, numbers: Iterable[int]) -> list[Any]:
        """The messages, in order; KeyError where one isn't there."""
        found: list[Any] = []
        stored, ready, fresh = self._stored, self._ready, self._codec.fresh
        try:
            if not ready:
                found.extend(map(fresh, map(stored.__getitem__, numbers)))
            for number in numbers if ready else ():
                message = ready.pop(number, None)
                found.append(fresh(stored[number]) if message is None else message)
        except UnloadableValueError as error:
            error.path = f"[{len(found)}]{error.path}"
            raise
        return found


class SharedMessages(Messages):
    """The same, but lists share their objects: for reading many checkpoints."""

    def __init__(self, codec: MessageCodec, stored: Mapping[int, StoredMessage]) -> None:
        super().__init__(codec, stored)
        # Those made ahead among them.
        self._objects = self._ready

    def objects(self, numbers: Iterable[int]) -> list[Any]:
        """One that stands twice in a list is two objects, since nodes and reducers may
        change one of them in place."""
        seen: set[int] = set()
        found: list[Any] = []
        for number in numbers:
            message = self._objects.get(number)
            if message is None or number in seen:
                try:
                    message = self._codec.fresh(self._stored[number])
                except UnloadableValueError as error:
                    error.path = f"[{len(found)}]{error.path}"
                    raise
                self._objects.setdefault(number, message)
            seen.add(number)
            found.append(message)
        return found


class placed:  # noqa: N801 - used as contextlib's, which would make a generator of each
    """Errors of values that can't be loaded say of which checkpoint these are."""

    __slots__ = ("_checkpoint_id", "_stored_ns", "_thread_id")

    def __init__(self, thread_id: Any, stored_ns: str, checkpoint_id: str) -> None:
        self._thread_id, self._stored_ns = thread_id, stored_ns
        self._checkpoint_id = checkpoint_id

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, UnloadableValueError):
            error.at(
                thread_id=str(self._thread_id),
                checkpoint_ns=self._stored_ns or None,
                checkpoint_id=self._checkpoint_id,
            )


class reading:  # noqa: N801 - as above
    """Errors of a statement that reads: what the server can't hold was never stored so."""

    __slots__ = ("_place",)

    def __init__(self, **place: Any) -> None:
        self._place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, UnstorableValueError):
            problem = "its parts are more together than PostgreSQL's limit of 1 GB for a value"
            raise CorruptValueError(what="a large value", problem=problem, **self._place) from error


def decode_state(
    codec: Codec,
    checkpoint_id: str,
    state_data: str,
    metadata: str,
    exact_type: str | None,
    exact: bytes | None,
) -> StateData:
    """The columns of agent_states that `put` encoded.

    Raises:
        CorruptValueError: it didn't, or they were altered.
    """
    data = _mapping(_json.load(state_data))
    inline = _mapping(data.pop("channel_values", None), "channel_values")
    if codec.encrypts and (inline or exact is None):
        raise CorruptValueError(what="a stored checkpoint", problem=NOT_ENCRYPTED)
    _check_small(inline)
    if exact_type is None or exact is None:
        return _checked(checkpoint_id, StateData(data, _json.load(metadata), inline, None))
    whole = codec.load(exact_type, exact)
    if not isinstance(whole, dict) or not whole.keys() >= _EXACT_PARTS:
        raise CorruptValueError(what="a stored checkpoint", problem="a part of it is missing")
    namespace = whole["checkpoint_ns"]
    if not isinstance(namespace, str):
        raise _corrupt_state("checkpoint_ns")
    state = StateData(whole["checkpoint"], whole["metadata"], inline, namespace)
    return _checked(checkpoint_id, state)


def _checked(checkpoint_id: str, state: StateData) -> StateData:
    """The state, whose parts are what LangGraph and the rest of this package count on."""
    if part := flaw(state.checkpoint, state.metadata):
        raise _corrupt_state(part)
    if state.checkpoint["id"] != checkpoint_id:
        raise _corrupt_state("id")
    return state


def _mapping(value: Any, part: str = "state_data") -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _corrupt_state(part)
    return value


def _corrupt_state(part: str) -> CorruptValueError:
    return CorruptValueError(what="a stored checkpoint", problem=f"its {part} was altered")


def _check_small(inline: dict[str, Any]) -> None:
    if not SMALL_TYPES.issuperset(map(type, inline.values())):
        raise _corrupt_state("channel_values")


def small_values_of(state_data: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The versions of a checkpoint's channels, and the values that stand in its row.

    Raises:
        CorruptValueError: they were altered.
    """
    data = _mapping(_json.load(state_data))
    versions = _mapping(data.get("channel_versions"), "channel_versions")
    inline = _mapping(data.get("channel_values"), "channel_values")
    _check_small(inline)
    return versions, {channel: inline[channel] for channel in inline if channel in versions}


def inline_values(state_data: str) -> dict[str, Any]:
    """The values that stand in a checkpoint's row."""
    return _mapping(_mapping(_json.load(state_data)).get("channel_values"), "channel_values")


def decode_value(codec: Codec, channel: str, stored: StoredValue, messages: Messages) -> Any:
    """A channel's value; `messages` are the session's.

    Raises:
        UnloadableValueError: as the serializer; a message that the runs name isn't there, or
            a blob.
    """
    try:
        return _decoded(codec, stored, messages)
    except UnloadableValueError as error:
        error.at(channel=channel)
        raise


def _decoded(codec: Codec, stored: StoredValue, messages: Messages) -> Any:
    type_, payload, runs = stored
    try:
        if runs is not None and type_ in (MESSAGES, MESSAGES_SNAPSHOT):
            value = messages.objects(messages.numbers(runs))
            return DeltaSnapshot(value) if type_ == MESSAGES_SNAPSHOT else value
        parts = None if runs is None else messages.encoded(messages.numbers(runs))
    except KeyError as missing:
        problem = f"message {missing.args[0]} of the thread isn't there any more"
        raise _corrupt_list(problem) from None
    if payload is None:
        raise CorruptValueError(what="a large value", problem="a part of it isn't there any more")
    encoded = codec.open(type_, payload)
    if parts is not None:
        encoded = Encoded(encoded.type, _filled(encoded.data, parts))
    return codec.decode(encoded)


def _filled(skeleton: bytes, parts: list[bytes]) -> bytes:
    try:
        return fill(skeleton, parts)
    except ValueError as error:  # msgpack's own is one, too
        problem = "its gaps and its messages don't fit together"
        raise CorruptValueError(what="a value with messages", problem=problem) from error


def runs_of(message_runs: Sequence[Any]) -> Runs:
    """The first and last numbers of the runs: [1, 3, 7, 7] is (1, 3) and (7, 7).

    Raises:
        CorruptValueError: they are none.
    """
    is_sound = _INT.issuperset(map(type, message_runs)) and len(message_runs) % 2 == 0
    runs = list(zip(message_runs[::2], message_runs[1::2], strict=True)) if is_sound else []
    if not runs or any(not 1 <= first <= last for first, last in runs):
        raise _corrupt_list("its runs aren't pairs of ascending numbers")
    return runs


def _corrupt_list(problem: str) -> CorruptValueError:
    return CorruptValueError(what="a list of messages", problem=problem)


def decode_writes(
    codec: Codec, writes: Iterable[StoredWrite], messages: Messages
) -> list[PendingWrite]:
    """Pending writes in the order of writes_sort_key."""
    ordered = sorted(writes, key=lambda w: writes_sort_key(w.task_path, w.task_id, w.idx))
    return [
        (w.task_id, w.channel, decode_value(codec, w.channel, w.value, messages)) for w in ordered
    ]


def checkpoint_tuple(
    state: StateData,
    *,
    thread_id: Any,
    tenant_id: str | None,
    stored_ns: str,
    checkpoint_id: str,
    parent_checkpoint_id: str | None,
    values: dict[str, Any],
    pending_writes: list[PendingWrite],
) -> CheckpointTuple:
    """The tuple of a decoded state and its values; `tenant_id` is what its configs carry."""
    namespace = stored_ns if state.checkpoint_ns is None else state.checkpoint_ns
    parent = parent_checkpoint_id
    # The merged dict has the keys that `put` was given, in whatever format version.
    channel_values = {**state.inline, **values}
    if channel := flaw_of_values(channel_values):
        raise _corrupt_state(f"channel {channel}")
    checkpoint: Any = {**state.checkpoint, "channel_values": channel_values}
    return CheckpointTuple(
        config=checkpoint_config(thread_id, namespace, checkpoint_id, tenant_id),
        checkpoint=checkpoint,
        metadata=state.metadata,
        parent_config=(
            checkpoint_config(thread_id, namespace, parent, tenant_id) if parent else None
        ),
        pending_writes=pending_writes,
    )


class FetchedSession(NamedTuple):
    """How a session stood when its checkpoint, at `position`, was read."""

    epoch: int
    message_count: int
    deletion_count: int
    position: int

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> FetchedSession | None:
        """The session of a row of kind 'state'; None where it isn't there."""
        epoch, message_count, deletion_count, _, position = row["counters"]
        return None if epoch is None else cls(epoch, message_count, deletion_count, position)


class FetchedCheckpoint(NamedTuple):
    """What get_checkpoint found; `messages` are those it sent, by number, and `inline` the
    values in the checkpoint's own row.

    The others are the session's, None where its row is gone: `lease_id` is the lease that it
    was written under last, `last_position` the highest position that one of its checkpoints
    got; `session` isn't there without a checkpoint either. `known` is what was known of
    it, and is there still.
    """

    found: CheckpointTuple | None
    lease_id: UUID | None
    last_position: int | None
    session: FetchedSession | None = None
    messages: Mapping[int, StoredMessage] = MappingProxyType({})
    inline: Mapping[str, Any] = MappingProxyType({})
    known: KnownSession | None = None


def is_last_known(rows: Sequence[asyncpg.Record]) -> bool:
    """Whether the last of what get_checkpoint was told to be known is there."""
    return any(row["kind"] == "state" and row["is_last_known"] for row in rows)


async def decode_fetched(
    codec: MessageCodec,
    address: Address,
    rows: list[asyncpg.Record],
    known: KnownSession | None,
) -> FetchedCheckpoint | None:
    """The rows of get_checkpoint; None where there is no such checkpoint, and no lease.

    `known` is what the statement was told that needn't be sent, and found. While there is much to
    decode the event loop goes on.
    """
    by_kind: dict[str, list[asyncpg.Record]] = {}
    for row in rows:
        by_kind.setdefault(row["kind"], []).append(row)
    if "state" not in by_kind:
        return None
    (state_row,) = by_kind["state"]
    if state_row["checkpoint_id"] is None:
        return FetchedCheckpoint(None, *_base_of(state_row))
    with placed(address.given_thread_id, address.stored_ns, state_row["checkpoint_id"]):
        return await _decode_fetched(codec, address, state_row, by_kind, known)


async def _decode_fetched(
    codec: MessageCodec,
    address: Address,
    state_row: asyncpg.Record,
    by_kind: Mapping[str, list[asyncpg.Record]],
    known: KnownSession | None,
) -> FetchedCheckpoint:
    sent: dict[int, StoredMessage] = {}
    for place, some in enumerate(slices(by_kind.get("message", ()))):
        if place:
            await asyncio.sleep(0)
        sent.update((row["number"], codec.of_row(row["type"], row["payload"])) for row in some)
    session = FetchedSession.from_row(state_row)
    stored: Mapping[int, StoredMessage] = sent
    if known and session and known.epoch == session.epoch:
        stored = {**known.contents, **sent}
    messages = Messages(codec, stored)
    blobs = {row["hashes"][0]: row["payload"] for row in by_kind.get("blob", ())}
    held = [(row["channel"], _held(row, blobs)) for row in by_kind.get("value", ())]
    await messages.prepare(value for _, value in held)
    values = {
        channel: decode_value(codec.values, channel, value, messages) for channel, value in held
    }
    writes = [_write_of(row, blobs) for row in by_kind.get("write", ())]
    state = decode_state(
        codec.values,
        state_row["checkpoint_id"],
        state_row["state_data"],
        state_row["metadata"],
        state_row["type"],
        state_row["payload"],
    )
    found = checkpoint_tuple(
        state,
        thread_id=address.given_thread_id,
        tenant_id=address.config_tenant,
        stored_ns=address.stored_ns,
        checkpoint_id=state_row["checkpoint_id"],
        parent_checkpoint_id=state_row["parent_checkpoint_id"],
        values=values,
        pending_writes=decode_writes(codec.values, writes, messages),
    )
    return FetchedCheckpoint(found, *_base_of(state_row), session, sent, state.inline, known)


def _base_of(state_row: asyncpg.Record) -> tuple[UUID | None, int | None]:
    _, _, _, last_position, _ = state_row["counters"]
    return state_row["lease_id"], last_position


def value_of(row: asyncpg.Record) -> StoredValue:
    """What a row of a value, or of a write, holds."""
    return StoredValue(row["type"], row["payload"], row["message_runs"])


def _held(row: asyncpg.Record, blobs: Mapping[bytes, bytes]) -> StoredValue:
    """What the row holds, put together of its blobs where they have its payload."""
    payload = row["payload"]
    if payload is None and row["hashes"] is not None:
        payload = _joined(row["hashes"], blobs)
    return StoredValue(row["type"], payload, row["message_runs"])


def _joined(hashes: Sequence[Any], blobs: Mapping[bytes, bytes]) -> bytes | None:
    """The blobs one after the other; None where one isn't there any more."""
    found = [blobs[hash_] for hash_ in hashes if isinstance(hash_, bytes) and hash_ in blobs]
    if len(found) < len(hashes):
        return None
    if sum(map(len, found)) > LARGEST_PAYLOAD_BYTES:
        raise CorruptValueError(what="a large value", problem="its parts are too large together")
    return b"".join(found)


def _write_of(row: asyncpg.Record, blobs: Mapping[bytes, bytes]) -> StoredWrite:
    place = row["task_path"], row["task_id"], row["number"], row["channel"]
    return StoredWrite(*place, _held(row, blobs))


def needs_pending_sends(checkpoint: Mapping[str, Any]) -> bool:
    """Whether the checkpoint is of a format that kept Sends as writes of its parent."""
    return bool((checkpoint.get("v") or 1) < 4)


def add_pending_sends(checkpoint: Checkpoint, sends: list[Any], first_version: str) -> None:
    """Gives such a checkpoint the Sends of its parent; `first_version` where it has no versions."""
    if sends:
        versions = checkpoint["channel_versions"]
        checkpoint["channel_values"][TASKS] = sends
        versions[TASKS] = max(versions.values()) if versions else first_version
