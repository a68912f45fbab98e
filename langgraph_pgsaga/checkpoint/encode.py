"""A call of put or put_writes as what is to be stored, before anything is numbered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    get_checkpoint_metadata,
)

from langgraph_pgsaga import _json, _message_text
from langgraph_pgsaga._langgraph import DeltaSnapshot
from langgraph_pgsaga.checkpoint.run_tracker import NO_CHANGE, SessionChange
from langgraph_pgsaga.checkpoint.session_cache import KnownSession, StateKey
from langgraph_pgsaga.checkpoint.shape import flaw, flaw_of_values
from langgraph_pgsaga.checkpoint.small_values import small_values
from langgraph_pgsaga.checkpoint.stored_message import MessageCodec, StoredMessage
from langgraph_pgsaga.errors import UnstorableValueError
from langgraph_pgsaga.serde import LARGEST_PAYLOAD_BYTES, MOST_LOOKED_AT, Codec, messages_in
from langgraph_pgsaga.threads import Address, configurable_of
from langgraph_pgsaga.work import ToldError, ToldPut

# What agent_state_values.type says of a value that is message runs.
MESSAGES = "messages"
MESSAGES_SNAPSHOT = "messages snapshot"

# Payloads from here on are stored once per session, by their hash.
BLOB_BYTES = 2048
# Messages of a list that stand in it before, at most: a list that repeats more of them is
# stored as a whole, so that what says otherwise is forged.
MOST_REPEATED = MOST_LOOKED_AT
# What an encoded call takes beside its payloads, about.
_CALL_BYTES = 2000

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
# Of a config's metadata, what doesn't describe its session.
_OTHERS_METADATA = ("__", "langgraph_", "checkpoint_")
_TOLD_ELSEWHERE = frozenset((*_SESSION_KEYS, "thread_id", "tenant_id", "run_id"))
_SCALARS = (str, int, float, bool)


class EncodedValue(NamedTuple):
    """A value as its bytes before encryption, and the messages in it, in order.

    Where `list_type` is set (to MESSAGES or MESSAGES_SNAPSHOT) it is those messages and
    nothing else, and `data` isn't made. `chunks` are the bytes of a large value in parts.
    """

    type: str = ""
    data: bytes = b""
    messages: Sequence[StoredMessage] = ()
    list_type: str | None = None
    chunks: Sequence[bytes] = ()

    @property
    def is_large(self) -> bool:
        """Whether its bytes are to be stored by their hash."""
        size = len(self.data)
        if self.list_type is not None:
            size = sum(len(message.data) for message in self.messages)
        return size >= BLOB_BYTES


class SessionColumns(NamedTuple):
    """What a call says of its session."""

    user_id: str
    agent_type: str
    priority: int | None
    # Stored where the session is new; None leaves it as it is.
    metadata: str | None


class StateColumns(NamedTuple):
    """A row of agent_states, beside its key."""

    parent_checkpoint_id: str | None
    state_data: str
    metadata: str
    exact_type: str | None
    exact: bytes | None


class EncodedPut(NamedTuple):
    """A put: its checkpoint, and the new values by channel and version."""

    session_id: UUID
    thread_id: str
    tenant_id: str
    session: SessionColumns
    change: SessionChange
    stored_ns: str
    checkpoint_id: str
    state: StateColumns
    values: Sequence[tuple[str, str, EncodedValue]]
    size: int
    told: ToldPut | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """Two calls of one key may not be in one statement."""
        return self.session_id, self.stored_ns, self.checkpoint_id

    @property
    def parent_key(self) -> StateKey | None:
        """The checkpoint that it is put below; once it was there, it has to be there still."""
        parent_id = self.state.parent_checkpoint_id
        return None if parent_id is None else (self.stored_ns, parent_id)

    def counts_on_parent(self, known: KnownSession | None) -> bool:
        """Whether the checkpoint that it is put below was there, as far as this process knows."""
        key = self.parent_key
        if key is None:
            return False
        return self.change.counts_on(key) or (known is not None and key in known.states)

    @property
    def messages(self) -> Iterable[StoredMessage]:
        """Those of the message lists: they are stored, if they aren't yet."""
        for _, _, value in self.values:
            if value.list_type is not None:
                yield from value.messages


class EncodedWrites(NamedTuple):
    """A put_writes: a task's writes by their place."""

    session_id: UUID
    thread_id: str
    tenant_id: str
    session: SessionColumns
    change: SessionChange
    stored_ns: str
    checkpoint_id: str
    task_id: str
    task_path: str
    rows: Sequence[tuple[int, str, EncodedValue]]
    size: int
    told: ToldError | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """Two calls of one key may not be in one statement."""
        return self.session_id, self.stored_ns, self.checkpoint_id, self.task_id

    @property
    def parent_key(self) -> StateKey | None:
        """The checkpoint that they are of, which may come after them."""
        return self.stored_ns, self.checkpoint_id

    def counts_on_parent(self, known: KnownSession | None) -> bool:
        """Whether the checkpoint was there, as far as this process knows."""
        return known is not None and self.parent_key in known.states

    @property
    def messages(self) -> Iterable[StoredMessage]:
        """None: writes refer to messages that are stored, but store none."""
        return ()


EncodedCall: TypeAlias = EncodedPut | EncodedWrites


Values: TypeAlias = Sequence[tuple[str, str, EncodedValue]]


def encode_values(
    codec: MessageCodec,
    checkpoint: Checkpoint,
    new_versions: ChannelVersions,
    numbers: Mapping[bytes, int],
) -> Values:
    """The new values of a `put`, by channel and version, as they are now.

    They are the graph's own objects, which it changes in place as it goes on: so this comes before
    anything is awaited. `numbers` are those of messages known to be stored already.

    Raises:
        UnstorableValueError: a value couldn't be loaded again.
    """
    checkpoint_values = checkpoint["channel_values"]
    if part := flaw_of_values(checkpoint_values):
        raise _flawed(part)
    inline = small_values(checkpoint) if codec.values.readable else {}
    return [
        (channel, str(version), _encode_value(codec, channel, checkpoint_values[channel], numbers))
        for channel, version in new_versions.items()
        if channel in checkpoint_values and channel not in inline
    ]


def _flawed(part: str) -> UnstorableValueError:
    problem = f"LangGraph couldn't go on from it: its {part} isn't what a graph makes"
    return UnstorableValueError(where="the checkpoint", problem=problem)


def encode_put(
    codec: MessageCodec,
    address: Address,
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    values: Values,
    numbers: Mapping[bytes, int],
    change: SessionChange = NO_CHANGE,
    small: dict[str, Any] | None = None,
) -> EncodedPut:
    """What `put` stores, `values` among it; `numbers` are as of `encode_values`, or newer.

    `small` are the values that stand in its row; None are those that it brings.

    Raises:
        UnstorableValueError: a value couldn't be loaded again.
    """
    full_metadata = get_checkpoint_metadata(config, metadata)
    if part := flaw(checkpoint, full_metadata):
        raise _flawed(part)
    inline = _inline_values(codec.values, checkpoint, small)
    state = _state_columns(codec.values, address, checkpoint, inline, full_metadata)
    new = (m for _, _, value in values for m in value.messages if m.digest not in numbers)
    return EncodedPut(
        session_id=address.session_id,
        thread_id=address.thread_id,
        tenant_id=address.tenant_id,
        session=_session_columns(codec.values, config, may_be_new=True),
        change=change,
        stored_ns=address.stored_ns,
        checkpoint_id=checkpoint["id"],
        state=StateColumns(address.checkpoint_id, *state),
        values=values,
        size=_checked_size((value for _, _, value in values), new, state[0]),
    )


def encode_writes(
    codec: MessageCodec,
    address: Address,
    config: RunnableConfig,
    checkpoint_id: str,
    writes: Sequence[tuple[str, Any]],
    task_id: str,
    task_path: str,
    change: SessionChange = NO_CHANGE,
) -> EncodedWrites:
    """What `put_writes` stores; of several special writes to one channel the last counts.

    Raises:
        UnstorableValueError: a value couldn't be loaded again.
    """
    rows: dict[int, tuple[str, EncodedValue]] = {}
    for place, (channel, value) in enumerate(writes):
        _check_name(channel)
        encoded = _encode_written(codec, channel, value)
        rows[WRITES_IDX_MAP.get(channel, place)] = channel, encoded
    messages = (m for _, value in rows.values() if value.list_type for m in value.messages)
    return EncodedWrites(
        session_id=address.session_id,
        thread_id=address.thread_id,
        tenant_id=address.tenant_id,
        # Without a lease they make no session.
        session=_session_columns(codec.values, config, may_be_new=change.lease is not None),
        change=change,
        stored_ns=address.stored_ns,
        checkpoint_id=checkpoint_id,
        task_id=task_id,
        task_path=task_path,
        rows=[(idx, channel, value) for idx, (channel, value) in rows.items()],
        size=_checked_size((value for _, value in rows.values()), messages, ""),
    )


def _encode_value(
    codec: MessageCodec, channel: str, value: Any, numbers: Mapping[bytes, int]
) -> EncodedValue:
    """One channel's value, as messages where it is a list of them."""
    is_snapshot = type(value) is DeltaSnapshot
    inner = _as_of_now(value.value if is_snapshot else value)
    if not (codec.values.splits_messages and _message_text.is_message_list(inner)):
        return _encode_other(codec, f"the value of channel {channel!r}", value)
    messages = _stored_messages(codec, f"a message of channel {channel!r}", inner)
    if _is_repetitive(messages):
        return _encode_other(codec, f"the value of channel {channel!r}", value)
    for stored, message in zip(messages, inner, strict=True):
        if stored.digest not in numbers:
            codec.readable_columns(stored, message)
    list_type = MESSAGES_SNAPSHOT if is_snapshot else MESSAGES
    return EncodedValue(messages=messages, list_type=list_type)


def _check_name(channel: Any) -> None:
    """UnstorableValueError where a channel's name is text that PostgreSQL can't hold."""
    if isinstance(channel, str) and not _json.is_clean(channel):
        problem = "its name holds a NUL character or a lone surrogate, which PostgreSQL text can't"
        raise UnstorableValueError(where=f"channel {channel!r}", problem=problem)


def _as_of_now(value: Any) -> Any:
    """A list in a copy, which no node changes in place that goes on in another thread."""
    return value.copy() if type(value) is list else value


def _encode_written(codec: MessageCodec, channel: str, value: Any) -> EncodedValue:
    value = _as_of_now(value)
    if codec.values.splits_messages and _message_text.is_message_list(value):
        messages = _stored_messages(codec, f"a message written to channel {channel!r}", value)
        if not _is_repetitive(messages):
            return EncodedValue(messages=messages, list_type=MESSAGES)
    return _encode_other(codec, f"a write to channel {channel!r}", value)


def _encode_other(codec: MessageCodec, where: str, value: Any) -> EncodedValue:
    encoded = codec.values.encode(value, where)
    if not codec.values.splits_messages:
        return EncodedValue(type=encoded.type, data=encoded.data)
    if found := messages_in(value):
        messages = _stored_messages(codec, where, found)
        return EncodedValue(type=encoded.type, data=encoded.data, messages=messages)
    chunks = codec.values.chunks(value, encoded) if len(encoded.data) >= BLOB_BYTES else ()
    return EncodedValue(type=encoded.type, data=encoded.data, chunks=chunks)


def _stored_messages(
    codec: MessageCodec, where: str, messages: Iterable[BaseMessage]
) -> list[StoredMessage]:
    stored = codec.stored
    return [stored(message, where) for message in messages]


def _is_repetitive(messages: Sequence[StoredMessage]) -> bool:
    count = len(messages)
    return count > MOST_REPEATED and count - len({m.digest for m in messages}) > MOST_REPEATED


def _inline_values(
    codec: Codec, checkpoint: Checkpoint, small: dict[str, Any] | None
) -> dict[str, Any]:
    if not codec.readable:
        return {}
    return small_values(checkpoint) if small is None else small


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
        for channel in checkpoint["channel_versions"]:
            _check_name(channel)
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


def _session_columns(codec: Codec, config: RunnableConfig, *, may_be_new: bool) -> SessionColumns:
    configurable, metadata = configurable_of(config), config.get("metadata")
    given: Mapping[str, Any] = {} if metadata is None else metadata
    user_id, agent_type, priority = [
        configurable[key] if key in configurable else given.get(key) for key in _SESSION_KEYS
    ]
    return SessionColumns(
        "" if user_id is None else _json.shown(user_id),
        "" if agent_type is None else _json.shown(agent_type),
        priority if type(priority) is int and abs(priority) < 2**31 else None,
        _session_metadata(given) if may_be_new and codec.readable else None,
    )


def _session_metadata(given: Mapping[str, Any]) -> str:
    described = {
        key: value
        for key, value in given.items()
        if not key.startswith(_OTHERS_METADATA)
        and key not in _TOLD_ELSEWHERE
        and isinstance(value, _SCALARS)
    }
    return _json.dump(_json.project(described)) if described else "{}"


def _checked_size(
    values: Iterable[EncodedValue], messages: Iterable[StoredMessage], state_data: str
) -> int:
    """The bytes of what may have to be sent."""
    total = sum(len(value.data) for value in values) + len(state_data)
    total += sum(len(message.data) for message in messages)
    if total > LARGEST_PAYLOAD_BYTES:
        size = f"{total:,} bytes together, more than PostgreSQL's limit of 1 GB for a statement"
        raise UnstorableValueError(where="the call's values", problem=size)
    return _CALL_BYTES + total
