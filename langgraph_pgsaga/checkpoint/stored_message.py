"""Messages as they are stored, each encoded and decoded as seldom as can be."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

from langchain_core.messages import BaseMessage

from langgraph_pgsaga import _json, _message_text
from langgraph_pgsaga.checkpoint.mutation_check import Snapshot
from langgraph_pgsaga.errors import CorruptValueError
from langgraph_pgsaga.serde import Codec, Encoded, Placeholder

# What a remembered message takes beside its bytes: the object, and their pristine copy.
_OBJECT_BYTES = 1500
_TIMES_DATA = 3


class ReadableColumns(NamedTuple):
    """The readable columns of agent_messages; empty where nothing may stand in clear."""

    message_id: str | None
    message_type: str
    role: str
    content: str
    metadata: str


_HIDDEN = ReadableColumns(None, "", "", "", "{}")


class StoredMessage:
    """A version of a message: its bytes before encryption, and what stands for them.

    `readable` may be missing: it is needed when the message is new to its session only.
    """

    # Many live long: each object less is one less for the garbage collector to visit.
    __slots__ = ("data", "digest", "pristine", "readable", "type")

    def __init__(self, encoded: Encoded, digest: bytes) -> None:
        self.type, self.data = encoded
        self.digest = digest
        self.readable: ReadableColumns | None = None
        # Of the decoded message; None before the first decoding, False where none is exact.
        self.pristine: Snapshot | bool | None = None

    @property
    def encoded(self) -> Encoded:
        """Its bytes with their type."""
        return Encoded(self.type, self.data)

    @property
    def size(self) -> int:
        """The bytes of memory that it takes, about."""
        return _OBJECT_BYTES + _TIMES_DATA * len(self.data)


class _Seen(weakref.ref[BaseMessage]):
    """A message that was encoded or decoded, for as long as it lives."""

    __slots__ = ("key", "snapshot", "stored")

    key: int
    stored: StoredMessage
    snapshot: Snapshot


class MessageCodec:
    """Messages to their stored form and back.

    A message that this object has encoded or decoded, and that hasn't changed since, isn't
    encoded again: its content still equals a snapshot of then. One that was decoded is
    copied from its snapshot when it is asked for again. What is remembered of a message
    goes with the message.
    """

    def __init__(self, values: Codec) -> None:
        self.values = values
        self._seen: dict[int, _Seen] = {}

        def forget(ref: weakref.ref[BaseMessage], seen: dict[int, Any] = self._seen) -> None:
            seen.pop(ref.key, None)  # type: ignore[attr-defined]

        self._forget = forget

    def lenient(self) -> MessageCodec:
        """One that loads placeholders for what this one refuses."""
        values = self.values.lenient()
        return self if values is self.values else MessageCodec(values)

    def stored(self, message: BaseMessage, where: str) -> StoredMessage:
        """The message's stored form; `where` names it in errors.

        Raises:
            UnstorableValueError: it couldn't be loaded again.
        """
        found = self._seen.get(id(message))
        if found is not None and found() is message and found.snapshot.matches(message):
            return found.stored
        # Before the encoding: what changes meanwhile must not match.
        snapshot = Snapshot.of(message)
        stored = self._with_digest(self.values.encode(message, where))
        if snapshot is not None:
            self._remember(message, stored, snapshot)
        return stored

    def of_row(self, type_: str, payload: bytes) -> StoredMessage:
        """The stored form of a row of agent_messages.

        Raises:
            CorruptValueError: as Codec.open.
        """
        return self._with_digest(self.values.open(type_, payload))

    def fresh(self, stored: StoredMessage) -> Any:
        """The message, an object of the caller's own.

        Raises:
            UnloadableValueError: as Codec.decode.
            CorruptValueError: its bytes are no message's.
        """
        pristine = stored.pristine
        if isinstance(pristine, Snapshot):
            message: Any = pristine.copy()
            self._remember(message, stored, pristine)
            return message
        message = self.values.decode(stored.encoded)
        if not isinstance(message, BaseMessage | Placeholder):
            problem = f"its bytes are no message's, but of type {type(message).__name__}"
            raise CorruptValueError(what="a message", problem=problem)
        if pristine is None and isinstance(message, BaseMessage):
            found = stored.pristine = Snapshot.of_decoded(message) or False
            if isinstance(found, Snapshot):
                self._remember(message, stored, found)
        return message

    def readable_columns(
        self, stored: StoredMessage, message: BaseMessage | None = None
    ) -> ReadableColumns:
        """The readable columns; `message` is the stored one as an object, if it's at hand."""
        if stored.readable is None and not self.values.readable:
            stored.readable = _HIDDEN
        if stored.readable is None:
            message = message if message is not None else self.values.decode(stored.encoded)
            stored.readable = _readable(message)
        return stored.readable

    def _with_digest(self, encoded: Encoded) -> StoredMessage:
        return StoredMessage(encoded, self.values.digest(encoded))

    def _remember(self, message: BaseMessage, stored: StoredMessage, snapshot: Snapshot) -> None:
        seen = _Seen(message, self._forget)
        seen.key, seen.stored, seen.snapshot = id(message), stored, snapshot
        self._seen[seen.key] = seen


def _readable(message: BaseMessage) -> ReadableColumns:
    # What was assigned to a field isn't validated: an id may be a UUID.
    return ReadableColumns(
        _json.shown(message.id) if message.id else None,
        _json.shown(message.type),
        _message_text.role_of(message),
        _message_text.text_of(message),
        _json.dump(_message_text.metadata_of(message)),
    )
