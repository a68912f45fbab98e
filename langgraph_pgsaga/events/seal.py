"""What is hashed of an event and of a seal: bytes that no other event, and no other seal, has.

An event is hashed as the server writes its columns as text: of jsonb that is one form for each
value, which a dump and its restoration keep, in another cluster, too. Each value stands behind its
length, and each kind of thing behind a name of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg

from langgraph_pgsaga._arguments import required_text, shown
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.events.merkle import HASH_BYTES, leaf_hash
from langgraph_pgsaga.events.place import EventPlace

# In the order in which they are hashed, and in which statements give them.
COLUMNS: Final = (
    *("tenant_id", "aggregate_type", "aggregate_id", "version", "era", "tx", "position"),
    *("event_id", "event_type", "schema_version", "event_data", "metadata", "tags"),
    *("correlation_id", "causation_id", "session_id", "checkpoint_id", "timestamp", "recorded_at"),
)
GENESIS = bytes(HASH_BYTES)
_EVENT = "pgsaga event 1"
_SEAL = "pgsaga seal 1"
_ROOT = "pgsaga root 1"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ABSENT = b"\x00"
_PRESENT = b"\x01"
# Behind those of leaves and nodes of trees, which are 0 and 1.
_OF_SEAL = b"\x02"
_OF_ROOT = b"\x03"


def framed(values: Sequence[str | None]) -> bytes:
    """Texts, of which None is none of all texts, so that no other sequence gives the same bytes."""
    parts: list[bytes] = []
    for value in values:
        if value is None:
            parts.append(_ABSENT)
        else:
            data = value.encode("utf-8", "surrogatepass")
            parts += (_PRESENT, len(data).to_bytes(8, "big"), data)
    return b"".join(parts)


def leaf_of(columns: Sequence[str | None]) -> bytes:
    """The hash of an event, of its columns as text."""
    return leaf_hash(framed((_EVENT, *columns)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """A seal: which events it has, in what order of seals, and the root of their hashes.

    `sealed_at` is in seconds since 1970, as text.
    """

    tenant_id: str
    number: int
    first: EventPlace
    last: EventPlace
    events: int
    root: bytes
    previous: bytes
    sealed_at: str

    @classmethod
    def from_row(cls, tenant_id: str, row: asyncpg.Record) -> Seal:
        """The row of list_seals or find_seal."""
        return cls(
            tenant_id=tenant_id,
            number=row["number"],
            first=EventPlace.of_columns(row, "first"),
            last=EventPlace.of_columns(row, "last"),
            events=row["events"],
            root=row["root"],
            previous=row["previous"],
            sealed_at=row["sealed_at"],
        )

    def hash(self) -> bytes:
        """What the next seal, and the root of all, are made of."""
        values = (
            *(_SEAL, self.tenant_id, self.number, *self.first, *self.last, self.events),
            *(self.root.hex(), self.previous.hex(), self.sealed_at),
        )
        return hashlib.sha256(_OF_SEAL + framed([str(value) for value in values])).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedRoot:
    """One hash of a tenant's first `seals` seals, and so of all events that they have.

    `str(root)` is the text to keep where nobody who can change the database can change it.
    """

    seals: int
    hash: bytes

    @classmethod
    def of(cls, tenant_id: str, seals: int, tree: bytes) -> SealedRoot:
        """The root of the tree of some seals' hashes, bound to the tenant and their number."""
        data = framed((_ROOT, tenant_id, str(seals), tree.hex()))
        return cls(seals=seals, hash=hashlib.sha256(_OF_ROOT + data).digest())

    @classmethod
    def parse(cls, text: str) -> SealedRoot:
        """The inverse of `str`.

        Raises:
            InvalidArgumentError: the text is no root.
        """
        number, _, hexed = required_text("root", text).strip().partition(":")
        is_number = number.isascii() and number.isdigit() and len(number) < 19 and int(number) > 0
        try:
            found = bytes.fromhex(hexed) if is_number and hexed.isalnum() else b""
        except ValueError:
            found = b""
        if len(found) != HASH_BYTES:
            problem = f"isn't a root, such as 12:4f8a..., which has 64 digits: {shown(text)}"
            raise InvalidArgumentError(argument="root", problem=problem)
        return cls(seals=int(number), hash=found)

    def __str__(self) -> str:
        return f"{self.seals}:{self.hash.hex()}"


def seconds_of(moment: datetime) -> str:
    """The time in seconds since 1970, as the server writes it."""
    micros = (moment - _EPOCH) // timedelta(microseconds=1)
    return f"{micros // 10**6}.{micros % 10**6:06d}"


def split_leaves(data: bytes) -> list[bytes]:
    """The hashes of a seal's column `leaves`."""
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]
