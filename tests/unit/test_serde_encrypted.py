"""Serializers that encrypt, and those of users."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import (
    HumanMessage,
)
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from langgraph_pgsaga.errors import (
    CorruptValueError,
    EncryptedValueError,
    UnstorableValueError,
)
from langgraph_pgsaga.serde.serializer import (
    SafeEncryptedSerializer,
    SafeSerializer,
    as_safe,
    with_allowlist,
)
from tests.unit import _serde_types as sample
from tests.unit._serde_values import (
    SAFE,
    STRICT,
    again,
    name,
)


def cipher_of(key: bytes = b"0123456789abcdef") -> EncryptedSerializer:
    return EncryptedSerializer.from_pycryptodome_aes(key=key)


def test_as_safe_replaces_what_is_langgraphs_own() -> None:
    """None and LangGraph's serializers become safe ones that keep allowlist and strictness."""
    assert isinstance(as_safe(None), SafeSerializer)
    loose = as_safe(JsonPlusSerializer(allowed_msgpack_modules=True))
    limited = as_safe(JsonPlusSerializer(allowed_msgpack_modules=[sample.Point]))
    assert isinstance(loose, SafeSerializer)
    assert isinstance(limited, SafeSerializer)

    assert not loose.strict
    assert limited.strict
    assert again(sample.Point(1), limited) == sample.Point(1)
    with pytest.raises(UnstorableValueError):
        limited.dumps_typed(sample.Pair(1))


def test_as_safe_adds_to_a_safe_serializer() -> None:
    """A SafeSerializer stays itself unless types or strictness are added."""
    assert as_safe(SAFE) is SAFE
    assert as_safe(STRICT, strict=True) is STRICT
    stricter = as_safe(SAFE, allow=[sample.Point], strict=True)
    assert isinstance(stricter, SafeSerializer)
    assert stricter.strict
    assert again(sample.Point(1), stricter) == sample.Point(1)


def test_as_safe_leaves_the_users_own_alone() -> None:
    """A serializer of the user's own, also a subclass, is used as it is."""

    class Own(JsonPlusSerializer):
        pass

    class OwnEncrypted(EncryptedSerializer):
        pass

    hooked = JsonPlusSerializer(__unpack_ext_hook__=lambda code, data: None)
    for serde in (Own(), hooked, OwnEncrypted(cipher_of().cipher)):
        assert as_safe(serde) is serde
    own = OwnEncrypted(cipher_of().cipher)
    assert with_allowlist(own, [sample.Point]) is own


@pytest.mark.parametrize("value", [None, b"a", bytearray(b"a"), [HumanMessage("x")]], ids=name)
def test_encrypted_values_come_back(value: Any) -> None:
    """Every kind of value comes back through encryption, and its text isn't in the bytes."""
    serde = as_safe(cipher_of())
    tag, data = serde.dumps_typed(value)

    assert isinstance(serde, SafeEncryptedSerializer)
    assert tag.endswith("+aes")
    assert b"HumanMessage" not in data
    assert serde.loads_typed((tag, data)) == value


def test_forged_clear_values_are_refused() -> None:
    """An encrypting serializer loads nothing that isn't encrypted."""
    serde = as_safe(cipher_of())

    for row in (SAFE.dumps_typed([1]), ("null", b""), ("bytes", b"payload")):
        with pytest.raises(CorruptValueError, match="not encrypted"):
            serde.loads_typed(row)


def test_wrong_key_or_changed_bytes_are_corrupt() -> None:
    """A wrong key, changed bytes or an unknown cipher raise an error without the payload."""
    tag, data = as_safe(cipher_of()).dumps_typed(["payload"])
    changed = data[:-1] + bytes([data[-1] ^ 1])
    rows = [(tag, changed), (tag, b""), ("msgpack+rot13", data)]

    for serde, row in [(cipher_of(b"f" * 16), (tag, data)), *((cipher_of(), r) for r in rows)]:
        with pytest.raises(CorruptValueError, match="decryption failed") as found:
            as_safe(serde).loads_typed(row)
        assert "payload" not in str(found.value)
        assert found.value.__context__ is None


def test_without_the_key_an_encrypted_value_is_told() -> None:
    """A saver without the serializer that encrypted a value says that this is what is missing."""
    with pytest.raises(EncryptedValueError, match="encrypted; pass serde=EncryptedSerializer"):
        SAFE.loads_typed(as_safe(cipher_of()).dumps_typed(["payload"]))


def test_with_allowlist_keeps_encryption_safe() -> None:
    """Allowing more types keeps the class, the cipher and the refusal of clear values."""
    serde = as_safe(cipher_of(), strict=True)
    derived = with_allowlist(serde, [sample.Point])

    assert with_allowlist(derived, [sample.Point]) is derived
    assert isinstance(derived, SafeEncryptedSerializer)
    assert again(sample.Point(1), derived) == sample.Point(1)
    assert as_safe(derived, strict=True).loads_typed(derived.dumps_typed([1])) == [1]
    with pytest.raises(CorruptValueError):
        derived.loads_typed(SAFE.dumps_typed([1]))
