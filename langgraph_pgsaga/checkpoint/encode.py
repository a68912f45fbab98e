"""A call of put or put_writes as the arguments of its statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from langgraph_pgsaga import _json
from langgraph_pgsaga.checkpoint import messages as readable
from langgraph_pgsaga.checkpoint.address import Address
from langgraph_pgsaga.checkpoint.codec import LARGEST_PAYLOAD_BYTES, Codec, Encoded
from langgraph_pgsaga.checkpoint.message_numbers import KnownMessages
from langgraph_pgsaga.errors import UnstorableValueError

# What agent_state_values.type says of a value that is message runs.
MESSAGES = "messages"
MESSAGES_SNAPSHOT = "messages snapshot"

# Text up to here stands in the checkpoint's own row.
_INLINE_CHARACTERS = 256
# Payloads from here on are stored once per session, by their hash.
_BLOB_BYTES = 2048

# The metadata that LangGraph itself writes, and that filters, prune and delete_for_runs
# look at: it stays in clear under encryption.
CLEAR_METADATA = (
    "source",
    "step",
    "parents",
    "run_id",
    "counters_since_delta_snapshot",
)
_SESSION_KEYS = ("user_id", "agent_type", "priority")


@dataclass(slots=True)
class _Values:
    """Columns of agent_state_values, agent_state_blobs and agent_messages, row by row."""

    codec: Codec
    known: Mapping[bytes, int]
    channels: list[str] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    payloads: list[bytes | None] = field(default_factory=list)
    blob_hashes: list[bytes | None] = field(default_factory=list)
    run_values: list[int] = field(default_factory=list)
    run_starts: list[int] = field(default_factory=list)
    run_ends: list[int] = field(default_factory=list)
    blobs: dict[bytes, bytes] = field(default_factory=dict)
    # Of the messages the session may not hold yet: digest -> place, from 1.
    places: dict[bytes, int] = field(default_factory=dict)
    messages: list[tuple[BaseMessage, Encoded, int | None]] = field(default_factory=list)

    def add(self, channel: str, version: str, value: Any) -> None:
        """One channel's value, as message runs where it is a list of messages."""
        self.channels.append(channel)
        self.versions.append(version)
        snapshot = type(value) is _DeltaSnapshot
        inner = value.value if snapshot else value
        if self.codec.splits_messages and readable.is_message_list(inner):
            self._add_runs(inner, channel)
            self._add_form(MESSAGES_SNAPSHOT if snapshot else MESSAGES, None, None)
            return
        encoded = self.codec.encode(value, f"the value of channel {channel!r}")
        self._add_form(*stored_form(self.codec, encoded, self.blobs))

    def _add_form(self, type_: str, payload: bytes | None, blob_hash: bytes | None) -> None:
        self.types.append(type_)
        self.payloads.append(payload)
        self.blob_hashes.append(blob_hash)

    def _add_runs(self, messages: list[BaseMessage], channel: str) -> None:
        value_no, previous, last = len(self.channels), None, None
        for message in messages:
            reference = self._reference(message, previous, channel)
            if last is not None and reference == last + 1 > 1:
                self.run_ends[-1] = reference
            else:
                self.run_values.append(value_no)
                self.run_starts.append(reference)
                self.run_ends.append(reference)
            previous = last = reference

    def _reference(self, message: BaseMessage, parent: int | None, channel: str) -> int:
        """The message's number, or its negative place among those of this call."""
        encoded = self.codec.encode(message, f"a message of channel {channel!r}")
        digest = self.codec.digest(encoded)
        if (number := self.known.get(digest)) is not None:
            return number
        if (place := self.places.get(digest)) is None:
            self.messages.append((message, encoded, parent))
            place = self.places[digest] = len(self.messages)
        return -place

    def arguments(self) -> list[Any]:
        """The arguments of put_checkpoint from `channels` on."""
        return [
            self.channels,
            self.versions,
            self.types,
            self.payloads,
            self.blob_hashes,
            self.run_values,
            self.run_starts,
            self.run_ends,
            list(self.blobs),
            list(self.blobs.values()),
            list(self.places),
            *self._message_columns(),
        ]

    def _message_columns(self) -> list[list[Any]]:
        clear = self.codec.readable
        sealed = [self.codec.seal(encoded) for _, encoded, _ in self.messages]
        found = [message for message, _, _ in self.messages]
        return [
            [_json.clean_text(m.id) if m.id and clear else None for m in found],
            [parent for _, _, parent in self.messages],
            [_json.clean_text(m.type) for m in found],
            [readable.role_of(m) if clear else "" for m in found],
            [readable.text_of(m) if clear else "" for m in found],
            [_json.dump(readable.metadata_of(m)) if clear else "{}" for m in found],
            [s.type for s in sealed],
            [s.data for s in sealed],
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPut:
    """A put: the statement's arguments, and the digests of the messages it sends, in order."""

    arguments: list[Any]
    digests: list[bytes]


def encode_put(
    codec: Codec,
    address: Address,
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
    known: KnownMessages,
) -> EncodedPut:
    """What `put` stores; `known` are the messages that needn't be sent.

    Raises:
        UnstorableValueError: a value couldn't be loaded again.
    """
    checkpoint_values = checkpoint["channel_values"]
    inline = _inline_values(codec, checkpoint)
    values = _Values(codec, known.numbers)
    for channel, version in new_versions.items():
        if channel in checkpoint_values and channel not in inline:
            values.add(channel, str(version), checkpoint_values[channel])
    full_metadata = get_checkpoint_metadata(config, metadata)
    arguments = [
        address.session_id,
        address.thread_id,
        *_session_columns(codec, config),
        known.epoch,
        address.stored_ns,
        checkpoint["id"],
        address.checkpoint_id,
        *_state_columns(codec, address, checkpoint, inline, full_metadata),
        *values.arguments(),
    ]
    _check_size(values.payloads, values.blobs.values(), arguments[-1])
    return EncodedPut(arguments=arguments, digests=list(values.places))


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedWrites:
    """A put_writes: arguments of put_writes, or of put_large_writes where there are blobs."""

    arguments: list[Any]
    is_large: bool


def encode_writes(
    codec: Codec,
    address: Address,
    writes: Sequence[tuple[str, Any]],
    task_id: str,
    task_path: str,
) -> EncodedWrites:
    """What `put_writes` stores; of several special writes to one channel the last counts.

    Raises:
        UnstorableValueError: a value couldn't be loaded again.
    """
    blobs: dict[bytes, bytes] = {}
    rows: dict[int, tuple[str, str, bytes | None, bytes | None]] = {}
    for place, (channel, value) in enumerate(writes):
        encoded = codec.encode(value, f"a write to channel {channel!r}")
        rows[WRITES_IDX_MAP.get(channel, place)] = (channel, *stored_form(codec, encoded, blobs))
    columns: list[list[Any]] = [list(column) for column in zip(*rows.values(), strict=True)]
    arguments: list[Any] = [
        address.session_id,
        address.stored_ns,
        address.checkpoint_id,
        task_id,
        task_path,
        list(rows),
        *columns[:3],
    ]
    _check_size(columns[2], blobs.values())
    if not blobs:
        return EncodedWrites(arguments=arguments, is_large=False)
    arguments += [columns[3], list(blobs), list(blobs.values())]
    return EncodedWrites(arguments=arguments, is_large=True)


def stored_form(
    codec: Codec, encoded: Encoded, blobs: dict[bytes, bytes]
) -> tuple[str, bytes | None, bytes | None]:
    """(type, payload, blob_hash) of a value; a large one's bytes go to `blobs` instead."""
    if len(encoded.data) < _BLOB_BYTES:
        sealed = codec.seal(encoded)
        return sealed.type, sealed.data, None
    digest = codec.digest(encoded)
    sealed = codec.seal(encoded)
    blobs.setdefault(digest, sealed.data)
    return sealed.type, None, digest


def _inline_values(codec: Codec, checkpoint: Checkpoint) -> dict[str, Any]:
    if not codec.readable:
        return {}
    versions = checkpoint["channel_versions"]
    return {
        channel: value
        for channel, value in checkpoint["channel_values"].items()
        if channel in versions and _is_inline(value)
    }


def _is_inline(value: Any) -> bool:
    kind = type(value)
    if kind is str:
        return len(value) <= _INLINE_CHARACTERS and _json.is_clean(value)
    if kind is int:
        return bool(-_json.JSON_INT_LIMIT < value < _json.JSON_INT_LIMIT)
    return value is None or kind is bool


def _state_columns(
    codec: Codec,
    address: Address,
    checkpoint: Checkpoint,
    inline: dict[str, Any],
    metadata: CheckpointMetadata,
) -> tuple[str, str, str | None, bytes | None]:
    """state_data, metadata, exact_type and exact of agent_states."""
    rest: dict[str, Any] = {k: v for k, v in checkpoint.items() if k != "channel_values"}
    state_json = metadata_json = None
    if codec.readable and address.stored_ns == address.checkpoint_ns:
        state_json = _json.dump_exact({**rest, "channel_values": inline})
        metadata_json = _json.dump_exact(metadata)
    if state_json is not None and metadata_json is not None:
        return state_json, metadata_json, None, None
    # These stay in clear whatever happens to the rest: values are found by them.
    if _json.dump_exact(checkpoint["channel_versions"]) is None:
        problem = "a channel's name or version isn't text or a number that PostgreSQL can hold"
        raise UnstorableValueError(where="channel_versions", problem=problem)
    whole = {"checkpoint": rest, "metadata": metadata, "checkpoint_ns": address.checkpoint_ns}
    exact = codec.seal(codec.encode(whole, "the checkpoint or its metadata"))
    clear_rest = rest if codec.readable else {"v": rest.get("v")}
    clear_metadata: Mapping[str, Any] = (
        metadata if codec.readable else {k: v for k, v in metadata.items() if k in CLEAR_METADATA}
    )
    state = {
        **_json.project(clear_rest),
        "channel_versions": checkpoint["channel_versions"],
        "channel_values": inline,
    }
    return _json.dump(state), _json.dump(_json.project(clear_metadata)), *exact


def _session_columns(codec: Codec, config: RunnableConfig) -> tuple[str, str, int | None, str]:
    """user_id, agent_type, priority and metadata of agent_sessions."""
    configurable: Mapping[str, Any] = config.get("configurable") or {}
    given: Mapping[str, Any] = config.get("metadata") or {}
    user_id, agent_type, priority = (configurable.get(k, given.get(k)) for k in _SESSION_KEYS)
    described = {
        key: value
        for key, value in given.items()
        if codec.readable
        and isinstance(value, str | int | float | bool)
        and not key.startswith(("__", "langgraph_", "checkpoint_"))
        and key not in (*_SESSION_KEYS, "thread_id", "run_id")
    }
    return (
        "" if user_id is None else _json.shown(user_id),
        "" if agent_type is None else _json.shown(agent_type),
        priority if type(priority) is int and abs(priority) < 2**31 else None,
        _json.dump(_json.project(described)),
    )


def _check_size(*columns: Any) -> None:
    total = sum(len(payload) for column in columns for payload in column if payload)
    if total > LARGEST_PAYLOAD_BYTES:
        size = f"{total:,} bytes together, more than PostgreSQL's limit of 1 GB for a statement"
        raise UnstorableValueError(where="the call's values", problem=size)
