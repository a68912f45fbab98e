"""Rows as checkpoint tuples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import asyncpg
from langgraph.checkpoint.base import (
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    PendingWrite,
    writes_sort_key,
)
from langgraph.checkpoint.serde.types import TASKS, _DeltaSnapshot

from langgraph_pgsaga import _json
from langgraph_pgsaga.checkpoint.address import checkpoint_config
from langgraph_pgsaga.checkpoint.codec import Codec, Encoded
from langgraph_pgsaga.checkpoint.encode import MESSAGES, MESSAGES_SNAPSHOT
from langgraph_pgsaga.errors import CorruptValueError

# What `put` encodes together where jsonb can't hold it.
_EXACT_PARTS = {"checkpoint", "metadata", "checkpoint_ns"}


class StoredValue(NamedTuple):
    """A row of agent_state_values: bytes, or message runs."""

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
    type: str
    payload: bytes


def decode_state(
    codec: Codec, state_data: str, metadata: str, exact_type: str | None, exact: bytes | None
) -> StateData:
    """The columns of agent_states that `put` encoded."""
    data: dict[str, Any] = _json.load(state_data)
    inline = data.pop("channel_values")
    if codec.encrypts and (inline or exact is None):
        problem = "it isn't encrypted, but this saver's serializer encrypts"
        raise CorruptValueError(what="a stored checkpoint", problem=problem)
    if exact_type is None or exact is None:
        return StateData(data, _json.load(metadata), inline, None)
    whole = codec.load(exact_type, exact)
    if not isinstance(whole, dict) or not whole.keys() >= _EXACT_PARTS:
        raise CorruptValueError(what="a stored checkpoint", problem="a part of it is missing")
    return StateData(whole["checkpoint"], whole["metadata"], inline, whole["checkpoint_ns"])


def decode_value(codec: Codec, stored: StoredValue, messages: Mapping[int, Any]) -> Any:
    """A channel's value; `messages` are the session's, decoded, by number.

    Raises:
        CorruptValueError: a message that the runs name isn't there.
        BlockedTypeError, MissingTypeError: as the serializer.
    """
    if stored.type not in (MESSAGES, MESSAGES_SNAPSHOT) or stored.message_runs is None:
        return codec.load(stored.type, stored.payload or b"")
    try:
        value = _distinct(messages, stored.message_runs)
    except KeyError as missing:
        problem = f"message {missing.args[0]} of the thread isn't there any more"
        raise CorruptValueError(what="a list of messages", problem=problem) from None
    return _DeltaSnapshot(value) if stored.type == MESSAGES_SNAPSHOT else value


def _distinct(messages: Mapping[int, Any], message_runs: list[int]) -> list[Any]:
    """The runs' messages; one that stands twice is two objects, since nodes and reducers
    may change one of them in place."""
    seen: set[int] = set()
    found: list[Any] = []
    for number in run_numbers(message_runs):
        message = messages[number]
        found.append(message.model_copy(deep=True) if number in seen else message)
        seen.add(number)
    return found


def run_numbers(message_runs: list[int]) -> Iterable[int]:
    """The message numbers of runs, in order: [1, 3, 7, 7] is 1, 2, 3, 7."""
    for first, last in zip(message_runs[::2], message_runs[1::2], strict=True):
        yield from range(first, last + 1)


def decode_writes(codec: Codec, writes: Iterable[StoredWrite]) -> list[PendingWrite]:
    """Pending writes in the order of writes_sort_key."""
    ordered = sorted(writes, key=lambda w: writes_sort_key(w.task_path, w.task_id, w.idx))
    return [(w.task_id, w.channel, codec.load(w.type, w.payload)) for w in ordered]


def checkpoint_tuple(
    state: StateData,
    *,
    thread_id: Any,
    stored_ns: str,
    checkpoint_id: str,
    parent_checkpoint_id: str | None,
    values: dict[str, Any],
    pending_writes: list[PendingWrite],
) -> CheckpointTuple:
    """The tuple of a decoded state and its decoded values."""
    namespace = stored_ns if state.checkpoint_ns is None else state.checkpoint_ns
    parent = parent_checkpoint_id
    # The merged dict has the keys that `put` was given, in whatever format version.
    checkpoint: Any = {**state.checkpoint, "channel_values": {**state.inline, **values}}
    return CheckpointTuple(
        config=checkpoint_config(thread_id, namespace, checkpoint_id),
        checkpoint=checkpoint,
        metadata=state.metadata,
        parent_config=checkpoint_config(thread_id, namespace, parent) if parent else None,
        pending_writes=pending_writes,
    )


class _FreshMessages(Mapping[int, Any]):
    """Messages by number, decoded anew at each access: no two channels share one."""

    def __init__(self, codec: Codec, encoded: Mapping[int, Encoded]) -> None:
        self._codec = codec
        self._encoded = encoded

    def __getitem__(self, number: int) -> Any:
        return self._codec.decode(self._encoded[number])

    def __iter__(self) -> Iterator[int]:
        return iter(self._encoded)

    def __len__(self) -> int:
        return len(self._encoded)


class FetchedCheckpoint(NamedTuple):
    """What get_checkpoint found. `digests` pairs the messages it saw with their numbers."""

    found: CheckpointTuple
    message_epoch: int | None
    digests: list[tuple[bytes, int]]


def decode_fetched(
    codec: Codec, thread_id: Any, stored_ns: str, rows: list[asyncpg.Record]
) -> FetchedCheckpoint | None:
    """The rows of get_checkpoint as a tuple; None where there is no such checkpoint."""
    by_kind: dict[str, list[asyncpg.Record]] = {}
    for row in rows:
        by_kind.setdefault(row["kind"], []).append(row)
    if "state" not in by_kind:
        return None
    (state_row,) = by_kind["state"]
    encoded = {
        row["no"]: codec.open(row["type"], row["payload"]) for row in by_kind.get("message", ())
    }
    digests = [(codec.digest(message), number) for number, message in encoded.items()]
    messages = _FreshMessages(codec, encoded)
    values = {
        row["name"]: decode_value(
            codec, StoredValue(row["type"], row["payload"], row["message_runs"]), messages
        )
        for row in by_kind.get("value", ())
    }
    found = checkpoint_tuple(
        decode_state(
            codec,
            state_row["state_data"],
            state_row["metadata"],
            state_row["type"],
            state_row["payload"],
        ),
        thread_id=thread_id,
        stored_ns=stored_ns,
        checkpoint_id=state_row["name"],
        parent_checkpoint_id=state_row["ref"],
        values=values,
        pending_writes=decode_writes(codec, map(_write_of, by_kind.get("write", ()))),
    )
    return FetchedCheckpoint(found, state_row["no"], digests)


def _write_of(row: asyncpg.Record) -> StoredWrite:
    return StoredWrite(row["path"], row["ref"], row["no"], row["name"], row["type"], row["payload"])


def needs_pending_sends(checkpoint: Mapping[str, Any]) -> bool:
    """Whether the checkpoint is of a format that kept Sends as writes of its parent."""
    return int(checkpoint.get("v") or 1) < 4


def add_pending_sends(checkpoint: Checkpoint, sends: list[Any], first_version: str) -> None:
    """Gives such a checkpoint the Sends of its parent; `first_version` where it has no versions."""
    if sends:
        versions = checkpoint["channel_versions"]
        checkpoint["channel_values"][TASKS] = sends
        versions[TASKS] = max(versions.values()) if versions else first_version
