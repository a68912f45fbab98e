"""Subjects: whom personal data is about, which data that is, and how it stands in an event.

An encrypted value is an object with one key, MARK, that names the keys that it needs. Nobody else's
data may have such an object where encrypted values stand: an append refuses it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from langgraph_pgsaga import _json
from langgraph_pgsaga._arguments import checked_items, checked_mapping, required_text
from langgraph_pgsaga.errors import (
    CorruptValueError,
    InvalidArgumentError,
    MasterKeyError,
    UnstorableValueError,
)
from langgraph_pgsaga.events.ciphers import KEY_BYTES, MasterKey, ValueCipher, aes, joined_key
from langgraph_pgsaga.events.condition import checked_type
from langgraph_pgsaga.events.event import EventType

MARK = "$pgsaga.personal"
_FORM = "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectKeys:
    """Which fields of events are personal, and the master key of their subjects' keys.

    Args:
        master_key: 32 bytes, from where you keep secrets; `secrets.token_bytes(32)` makes one.
            Who loses it loses all personal data.
        personal: by type of event, the names of its personal fields: keys of `event_data`.
        former_master_keys: with which keys may be wrapped still; see `EventStore.rewrap_keys`.
    """

    master_key: bytes = field(repr=False)
    personal: Mapping[str, Iterable[str]] | Mapping[EventType, Iterable[str]]
    former_master_keys: Iterable[bytes] = field(default=(), repr=False)
    masters: Mapping[str, MasterKey] = field(init=False, repr=False, compare=False)
    fields: Mapping[str, frozenset[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        former = checked_items("former_master_keys", self.former_master_keys)
        object.__setattr__(self, "former_master_keys", tuple(former))
        masters = [_master("master_key", self.master_key)]
        masters += [_master("former_master_keys", key) for key in former]
        aes(self.master_key)  # a package that is missing is told at once
        # The first one is that of new keys.
        object.__setattr__(self, "masters", {one.master_id: one for one in reversed(masters)})
        fields: dict[str, frozenset[str]] = {}
        for event_type, names in checked_mapping("personal", self.personal).items():
            given = [required_text("personal", name) for name in checked_items("personal", names)]
            fields[checked_type("personal", event_type)] = frozenset(given)
        object.__setattr__(self, "fields", fields)

    @property
    def master(self) -> MasterKey:
        """That of new keys."""
        return _master("master_key", self.master_key)

    def unwrapped(
        self, wrapped_key: bytes, master_id: str, tenant_id: str, subject: str, key_id: UUID
    ) -> bytes:
        """A subject's key.

        Raises:
            MasterKeyError: it was wrapped by a master key that isn't here.
            CorruptValueError: it was changed.
        """
        master = self.masters.get(master_id)
        if master is None:
            raise MasterKeyError(master_id=master_id, known=tuple(sorted(self.masters)))
        key = master.unwrap(wrapped_key, tenant_id, subject, key_id)
        if key is None:
            problem = "it isn't the one that was stored"
            raise CorruptValueError(what="a subject's key", problem=problem)
        return key


def _master(argument: str, key: Any) -> MasterKey:
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        # Nothing of it is shown.
        what = f"{len(key)} bytes" if isinstance(key, bytes) else f"a {type(key).__name__}"
        problem = f"must be {KEY_BYTES} bytes, such as secrets.token_bytes({KEY_BYTES}), not {what}"
        raise InvalidArgumentError(argument=argument, problem=problem)
    return MasterKey(key)


def check_impersonal(keys: SubjectKeys | None, types: Iterable[EventType], what: str) -> None:
    """InvalidArgumentError where a store has personal fields for events that say nobody's."""
    for event_type in types:
        if keys is not None and keys.fields.get(event_type.value):
            problem = (
                f"it has personal fields for {event_type.value!r}, and an event of {what} doesn't "
                "say whom it is about, so that nothing of it would be encrypted. Pass a store "
                "without these"
            )
            raise InvalidArgumentError(argument="store", problem=problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """An encrypted value, and the keys that it needs, in their order."""

    key_ids: Sequence[UUID]
    data: bytes

    def value(self) -> dict[str, str]:
        """As it stands in jsonb."""
        names = "+".join(key_id.hex for key_id in self.key_ids)
        return {MARK: f"{_FORM}.{names}.{base64.b64encode(self.data).decode()}"}

    @classmethod
    def of(cls, value: Any) -> Mark | None:
        """The mark that a value is; None where it is none."""
        if type(value) is not dict or len(value) != 1 or not isinstance(value.get(MARK), str):
            return None
        form, _, rest = value[MARK].partition(".")
        names, _, data = rest.partition(".")
        try:
            key_ids = tuple(map(UUID, names.split("+")))
            decoded = base64.b64decode(data, validate=True)
        except (ValueError, binascii.Error):
            return None
        return cls(key_ids=key_ids, data=decoded) if form == _FORM else None


def check_unmarked(data: Any, where: str) -> None:
    """UnstorableValueError where data has what would be taken for an encrypted value."""
    if not isinstance(data, Mapping):
        return
    if MARK in data or any(type(v) is dict and MARK in v for v in data.values()):
        problem = f"it has a key {MARK!r}, by which encrypted values are known; rename it"
        raise UnstorableValueError(where=where, problem=problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectKey:
    """A subject's key, unwrapped."""

    subject: str
    key_id: UUID
    key: bytes = field(repr=False)


Ring = Mapping[UUID, SubjectKey]


def encrypted(keys: Sequence[SubjectKey], value: Any, bound_to: bytes) -> dict[str, str]:
    """A value as it is stored, readable with all of the keys."""
    ordered = sorted(keys, key=lambda one: one.key_id)
    data = _cipher(ordered).encrypt(_json.dump_sorted(value).encode(), bound_to)
    return Mark(key_ids=[one.key_id for one in ordered], data=data).value()


def decrypted(mark: Mark, ring: Ring, bound_to: bytes, what: str) -> tuple[Any, bool]:
    """The value, and whether it is there still: None and False where a key was deleted.

    Raises:
        CorruptValueError: it was changed, or belongs to something else.
    """
    keys = [ring[key_id] for key_id in mark.key_ids if key_id in ring]
    if len(keys) < len(mark.key_ids):
        return None, False
    value = _cipher(keys).decrypt(mark.data, bound_to)
    if value is None:
        problem = "it was changed, or moved here from elsewhere"
        raise CorruptValueError(what=f"personal data of {what}", problem=problem)
    return _json.load(value.decode()), True


def _cipher(keys: Sequence[SubjectKey]) -> ValueCipher:
    only = keys[0].key if len(keys) == 1 else joined_key([one.key for one in keys])
    return ValueCipher(only)
