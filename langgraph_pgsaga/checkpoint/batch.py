"""Queued calls of any number of sessions as the arguments of one statement."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast
from uuid import UUID

from langgraph_pgsaga.checkpoint.encode import (
    BLOB_BYTES,
    EncodedCall,
    EncodedPut,
    EncodedValue,
    EncodedWrites,
    SessionColumns,
)
from langgraph_pgsaga.checkpoint.lease import ANY_LEASE, NO_LEASE, Lease, LeaseColumns
from langgraph_pgsaga.checkpoint.recording import (
    MESSAGES_CHANNEL,
    sorted_rows,
)
from langgraph_pgsaga.checkpoint.run_tracker import RunTracker, SessionChange
from langgraph_pgsaga.checkpoint.session_cache import (
    NOTHING_KNOWN,
    KnownSession,
    LastKnown,
    SessionCache,
    StateKey,
    is_same_session,
    lasting,
)
from langgraph_pgsaga.checkpoint.stored_message import MessageCodec, StoredMessage
from langgraph_pgsaga.serde import Encoded, cut_out
from langgraph_pgsaga.threads import SessionStatus
from langgraph_pgsaga.work import NewEvent, StepRecorder, ToldMessage

_EPOCH_BITS = 53
# The deletion_count of a checkpoint that may not be there: no session has it, so it's looked at.
_NEVER = -1


@dataclass(slots=True, kw_only=True)
class SessionPart:
    """What a batch does with one session: the numbers that it counts on and gives out."""

    session_id: UUID
    thread_id: str
    tenant_id: str
    columns: SessionColumns
    epoch: int
    message_count: int
    is_new: bool
    known: KnownSession | None
    numbers: Mapping[bytes, int]
    lease: Lease | None
    new_states: int = 0
    stored_states: list[StateKey] = field(default_factory=list)
    # That under which the parents of these were seen; None where none was.
    deletion_count: int | None = None
    status: SessionStatus | None = None
    ends_run: bool | None = None
    fresh: dict[bytes, int] = field(default_factory=dict)
    stored: list[tuple[int, StoredMessage]] = field(default_factory=list)
    fresh_hashes: set[bytes] = field(default_factory=set)

    @classmethod
    def of(cls, call: EncodedCall, known: KnownSession | None) -> SessionPart:
        """The session as it is known; one that isn't is taken for new."""
        return cls(
            session_id=call.session_id,
            thread_id=call.thread_id,
            tenant_id=call.tenant_id,
            columns=call.session,
            epoch=known.epoch if known else _random_epoch(),
            message_count=known.message_count if known else 0,
            is_new=known is None,
            known=known,
            numbers=known.numbers if known else {},
            lease=call.change.lease,
        )

    def expect(self, epoch: int | None) -> None:
        """A call is for the session of this epoch: nothing is stored where it is another's."""
        if epoch is not None and (self.is_new or not is_same_session(self.epoch, epoch)):
            self.epoch, self.is_new = epoch, False

    def stand(self, change: SessionChange) -> None:
        """The run stands as the latest call says."""
        self.status = change.status or self.status
        if change.lease is not None:
            self.lease = change.lease
            self.ends_run = self.ends_run if change.ends_run is None else change.ends_run

    def add_state(self, put: EncodedPut) -> None:
        """The put is stored below its parent only while that is known to be there."""
        self.stored_states.append((put.stored_ns, put.checkpoint_id))
        known, key = self.known, put.parent_key
        seen = None
        if key is not None and known is not None and key not in known.doubtful:
            seen = known.states.get(key)
        if seen is None:
            if not put.counts_on_parent(known):
                return
            seen = _NEVER
        self.deletion_count = seen if self.deletion_count in (None, seen) else _NEVER

    def has_blob(self, digest: bytes) -> bool:
        """Whether a blob is stored, or going to be by a call before."""
        is_known = self.known is not None and digest in self.known.hashes
        return is_known or digest in self.fresh_hashes

    @property
    def last_known(self) -> LastKnown:
        """What has to be there still."""
        return NOTHING_KNOWN if self.known is None or self.is_new else self.known.last

    def lease_columns(self) -> LeaseColumns:
        """What it is going to be written under."""
        if self.lease is None:
            return NO_LEASE if self.new_states else ANY_LEASE
        return self.lease.columns(ends_run=self.ends_run)

    @property
    def is_plain(self) -> bool:
        """Whether it is there, and its last checkpoint alone tells that the rest is."""
        last = self.last_known
        return not self.is_new and last.known_no is None and last.known_hash is None

    def row(self) -> tuple[Any, ...]:
        """Its pgsaga_new_session."""
        session_id, user_id, agent_type, priority, metadata, *numbers = self.parameters()
        columns = user_id, agent_type, priority, metadata
        return session_id, self.thread_id, *columns, *numbers[:3], self.is_new, *numbers[3:]

    def parameters(self) -> tuple[Any, ...]:
        """How its row has to be, and what becomes of it, as statements for one session take it."""
        is_new = self.is_new or bool(self.lease and self.lease.is_session_new)
        user_id, agent_type, priority, metadata = self.columns
        return (
            self.session_id,
            user_id,
            agent_type,
            priority,
            metadata if is_new else None,
            self.epoch,
            # It matters where numbers are given out.
            self.message_count if self.fresh else None,
            len(self.fresh),
            self.status and self.status.value,
            *self.lease_columns(),
            self.new_states,
            self.deletion_count,
            None if self.lease is None else self.lease.base.position,
        )

    def numbers_of(self, messages: Sequence[StoredMessage]) -> list[int | None]:
        """The messages' numbers; None of those that have none."""
        known, fresh = self.numbers.get, self.fresh.get
        return [known(message.digest) or fresh(message.digest) for message in messages]


class _Row(NamedTuple):
    """The columns of a value, or of a write, that hold its content."""

    type: str
    payload: bytes | None
    blob_hashes: list[bytes] | None
    message_runs: list[int] | None


@dataclass(slots=True)
class Batch:
    """The rows of some calls. `sessions` are those whose row must be as expected.

    `changes` is what the calls say of their sessions' runs, in their order.
    """

    codec: MessageCodec
    changes: list[tuple[UUID, SessionChange]] = field(default_factory=list)
    sessions: dict[UUID, SessionPart] = field(default_factory=dict)
    states: list[tuple[Any, ...]] = field(default_factory=list)
    values: list[tuple[Any, ...]] = field(default_factory=list)
    blobs: list[tuple[Any, ...]] = field(default_factory=list)
    messages: list[tuple[Any, ...]] = field(default_factory=list)
    writes: list[tuple[Any, ...]] = field(default_factory=list)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    told_tenants: set[str] = field(default_factory=set)

    @classmethod
    def of(
        cls,
        codec: MessageCodec,
        calls: Sequence[EncodedCall],
        cache: SessionCache,
        tracker: RunTracker,
        recorder: StepRecorder | None = None,
    ) -> Batch:
        """The calls' rows, their messages numbered by what `cache` knows."""
        batch = cls(codec)
        # A stable sort: what one session's calls say stays in its order.
        ordered = sorted(calls, key=lambda call: call.session_id)
        puts = [call for call in ordered if isinstance(call, EncodedPut)]
        for put in puts:
            batch._number_messages(batch._part(put, cache), put)
        for put in puts:
            batch._add_put(batch.sessions[put.session_id], put)
        for call in ordered:
            if isinstance(call, EncodedWrites):
                batch._add_writes(batch._part_of_writes(call, cache), call)
        changes = tracker.in_order(call.change for call in ordered)
        for call, change in zip(ordered, changes, strict=True):
            batch.changes.append((call.session_id, change))
            if part := batch.sessions.get(call.session_id):
                part.stand(change)
        if recorder is not None:
            batch.events = sorted_rows(batch._told(recorder, ordered, changes))
            batch.told_tenants = {call.tenant_id for call in ordered if call.told is not None}
        return batch

    @property
    def statement(self) -> str:
        """The smallest statement that stores all of it."""
        if self.events:
            return "write_batch_with_events"
        if not self.sessions:
            return "write_pending"
        if self.blobs or len(self.sessions) > 1 or not next(iter(self.sessions.values())).is_plain:
            return "write_batch"
        if not self.writes:
            return "write_turns" if self.messages else "write_states"
        return "write_batch" if self.states else "write_dependent"

    def arguments(self) -> list[Any]:
        """Those of `statement`."""
        name = self.statement
        if name == "write_pending":
            return [self.writes]
        if name in ("write_dependent", "write_states", "write_turns"):
            (part,) = self.sessions.values()
            arguments = [*part.parameters(), *part.last_known[:2]]
            if name == "write_dependent":
                return [*arguments, self.writes]
            arguments += [self.states, self.values]
            return arguments if name == "write_states" else [*arguments, self.messages]
        # Locked in this order: no two statements may wait for each other.
        ids = sorted(self.sessions)
        parts = [self.sessions[session_id] for session_id in ids]
        arguments = [ids, [part.row() for part in parts], [part.last_known for part in parts]]
        arguments += [self.states, self.values, self.blobs, self.messages, self.writes]
        arguments.append(self._tenants(ids))
        return [*arguments, self.events] if self.events else arguments

    def _tenants(self, ids: Sequence[UUID]) -> list[str]:
        """The sessions' tenants in that order; none where there are none."""
        tenants = [self.sessions[session_id].tenant_id for session_id in ids]
        return tenants if any(tenants) else []

    def _part(self, call: EncodedCall, cache: SessionCache) -> SessionPart:
        part = self.sessions.get(call.session_id)
        if part is None:
            part = SessionPart.of(call, cache.known(call.session_id))
            self.sessions[call.session_id] = part
        part.expect(call.change.epoch)
        return part

    def _part_of_writes(self, call: EncodedWrites, cache: SessionCache) -> SessionPart | None:
        """None where the writes need nothing of the session's row.

        They may be stored before the session's first checkpoint: they hold all of their
        bytes then.
        """
        part = self.sessions.get(call.session_id)
        known = cache.known(call.session_id)
        if part is not None:
            part.expect(call.change.epoch)
        if part is not None or (known is None and call.change.lease is None):
            return part
        return self._part(call, cache) if known is None or _needs_row(call, known) else None

    def _number_messages(self, part: SessionPart, put: EncodedPut) -> None:
        part.new_states += 1
        number = part.message_count + len(part.fresh)
        # Their methods: this is done for each message of each list that is put.
        known, fresh = part.numbers.get, part.fresh.get
        for _, _, value in put.values:
            previous: int | None = None
            for message in value.messages if value.list_type is not None else ():
                digest = message.digest
                found = known(digest) or fresh(digest)
                if found is None:
                    found = number = number + 1
                    part.fresh[digest] = number
                    part.stored.append((number, message))
                    self.messages.append(self._message_row(part, number, previous, message))
                previous = found

    def _message_row(
        self, part: SessionPart, number: int, parent: int | None, message: StoredMessage
    ) -> tuple[Any, ...]:
        readable = self.codec.readable_columns(message)
        sealed = self.codec.values.seal(message.encoded)
        return (
            part.session_id,
            number,
            readable.message_id,
            parent,
            *readable[1:],
            message.digest,
            sealed.type,
            sealed.data,
        )

    def _add_put(self, part: SessionPart, put: EncodedPut) -> None:
        key = put.session_id, put.stored_ns
        part.add_state(put)
        followers = part.new_states - len(part.stored_states)
        self.states.append((*key, put.checkpoint_id, *put.state, followers))
        for channel, version, value in put.values:
            self.values.append((*key, channel, version, *self._row(part, value)))

    def _add_writes(self, part: SessionPart | None, call: EncodedWrites) -> None:
        key = call.session_id, call.stored_ns, call.checkpoint_id, call.task_id
        depends = part is not None
        for idx, channel, value in call.rows:
            row = self._row(part, value)
            self.writes.append((*key, idx, call.task_path, channel, *row, depends))

    def _told(
        self,
        recorder: StepRecorder,
        calls: Sequence[EncodedCall],
        changes: Sequence[SessionChange],
    ) -> Iterator[tuple[UUID, bool, Sequence[NewEvent]]]:
        """The calls' events: their session, whether it has to be as expected, and they."""
        known: dict[UUID, set[bytes]] = defaultdict(set)
        for call, change in zip(calls, changes, strict=True):
            part = self.sessions.get(call.session_id)
            if call.told is None:
                continue
            if isinstance(call, EncodedWrites):
                yield call.session_id, part is not None, recorder.of_error(call.told)
            elif part is not None:
                messages = self._told_messages(part, call, known[call.session_id])
                session_no = lasting(part.epoch)
                found = recorder.of_put(call.told, change.status, session_no, messages)
                yield call.session_id, True, found

    def _told_messages(
        self, part: SessionPart, put: EncodedPut, known: set[bytes]
    ) -> list[ToldMessage]:
        """The messages that the put brings, but those of calls before, which are `known`."""
        told: list[ToldMessage] = []
        for channel, _, value in put.values:
            if channel != MESSAGES_CHANNEL or value.list_type is None or not part.fresh:
                continue
            for message in value.messages:
                number = part.fresh.get(message.digest)
                if number is not None and message.digest not in known:
                    known.add(message.digest)
                    readable = self.codec.readable_columns(message)
                    told.append(ToldMessage(number, message.digest, *readable[:3]))
        return told

    def _row(self, part: SessionPart | None, value: EncodedValue) -> _Row:
        numbers = [] if part is None else part.numbers_of(value.messages)
        if value.list_type is not None and part and None not in numbers:
            return _Row(value.list_type, None, None, _runs(cast("list[int]", numbers)))
        found = [number for number in numbers if number is not None]
        type_, data, runs = value.type, value.data, None
        if value.list_type is not None:
            type_, data = _list_of(value.messages)
        if found:
            pairs = zip(numbers, value.messages, strict=True)
            cut = cut_out(data, [m.data for number, m in pairs if number is not None])
            if cut is not None:
                data, places = cut
                runs = _runs([found[place] for place in places])
        return self._content_row(part, type_, data, value.chunks if runs is None else (), runs)

    def _content_row(
        self,
        part: SessionPart | None,
        type_: str,
        data: bytes,
        chunks: Sequence[bytes],
        runs: list[int] | None,
    ) -> _Row:
        codec = self.codec.values
        if part is None or len(data) < BLOB_BYTES:
            sealed = codec.seal(Encoded(type_, data))
            return _Row(sealed.type, sealed.data, None, runs)
        hashes = []
        for chunk in chunks or (data,):
            encoded = Encoded(type_, chunk)
            sealed, digest = codec.seal(encoded), codec.digest(encoded)
            hashes.append(digest)
            if not part.has_blob(digest):
                part.fresh_hashes.add(digest)
                self.blobs.append((part.session_id, digest, sealed.data))
        return _Row(sealed.type, None, hashes, runs)


def _needs_row(call: EncodedWrites, known: KnownSession) -> bool:
    """Whether writes say something of their session, or refer to what a deletion could take."""
    if call.change.lease is not None or call.change.status is not None or call.told is not None:
        return True
    return any(
        value.is_large or any(message.digest in known.numbers for message in value.messages)
        for _, _, value in call.rows
    )


def _random_epoch() -> int:
    return int.from_bytes(os.urandom(8), "big") >> (64 - _EPOCH_BITS)


def _runs(numbers: list[int]) -> list[int]:
    """The numbers as runs: 1, 2, 3, 4, 6 is [1, 4, 6, 6]."""
    if numbers == list(range(numbers[0], numbers[0] + len(numbers))):  # nearly always
        return [numbers[0], numbers[-1]]
    runs: list[int] = []
    last = -1
    for number in numbers:
        if number != last + 1:
            if runs:
                runs.append(last)
            runs.append(number)
        last = number
    return [*runs, last]


def _list_of(messages: Sequence[StoredMessage]) -> tuple[str, bytes]:
    """The encoding of the list of these messages: msgpack's header of an array, then theirs."""
    count = len(messages)
    if count < 16:
        header = bytes([0x90 | count])
    elif count < 1 << 16:
        header = b"\xdc" + count.to_bytes(2, "big")
    else:
        header = b"\xdd" + count.to_bytes(4, "big")
    return messages[0].type, header + b"".join(m.data for m in messages)
