"""How personal data is encrypted: AES-256-GCM, bound to what it belongs to.

A value's nonce is computed from the value and all that it is bound to, by a key of its own (the
construction that SIV modes are made of): the same value of the same event gives the same bytes, so
that an append that is sent again is recognised, and two different ones have the same nonce as
seldom as two random ones. Keys are wrapped with random nonces.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from functools import cached_property
from typing import TYPE_CHECKING
from uuid import UUID

from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.events.seal import framed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
_NONCE_BYTES = 12
_TAG_BYTES = 16


def aes(key: bytes) -> AESGCM:
    """AES-256-GCM with a key."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        problem = "needs the package cryptography: pip install 'langgraph-pgsaga[erasure]'"
        raise InvalidArgumentError(argument="subjects", problem=problem) from error
    return AESGCM(key)


def opened(cipher: AESGCM, data: bytes, bound_to: bytes) -> bytes | None:
    """What was encrypted; None where it was by another key, for something else, or was changed."""
    from cryptography.exceptions import InvalidTag

    if len(data) < _NONCE_BYTES + _TAG_BYTES:
        return None
    try:
        return cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], bound_to)
    except InvalidTag:
        return None


def new_key() -> bytes:
    """A key for a subject."""
    return os.urandom(KEY_BYTES)


def joined_key(keys: list[bytes]) -> bytes:
    """A key that only who has all of these can make."""
    return _derived(hashlib.sha256(b"".join(keys)).digest(), "pgsaga joined key 1")


def _derived(key: bytes, purpose: str) -> bytes:
    return hmac.digest(key, purpose.encode(), "sha256")


class ValueCipher:
    """Encrypts values by a subject's key."""

    def __init__(self, key: bytes) -> None:
        self._cipher = aes(_derived(key, "pgsaga value key 1"))
        self._nonce_key = _derived(key, "pgsaga nonce key 1")

    def encrypt(self, value: bytes, bound_to: bytes) -> bytes:
        """The same for the same value that is bound to the same."""
        framed_value = len(bound_to).to_bytes(8, "big") + bound_to + value
        nonce = hmac.digest(self._nonce_key, framed_value, "sha256")[:_NONCE_BYTES]
        return nonce + self._cipher.encrypt(nonce, value, bound_to)

    def decrypt(self, data: bytes, bound_to: bytes) -> bytes | None:
        """The value; None where it wasn't encrypted so, or was changed."""
        return opened(self._cipher, data, bound_to)


class MasterKey:
    """Wraps subjects' keys; `master_id` tells two of them apart and nothing else."""

    def __init__(self, key: bytes) -> None:
        self.master_id = _derived(key, "pgsaga master key id 1").hex()[:16]
        self._key = key

    @cached_property
    def _cipher(self) -> AESGCM:
        return aes(_derived(self._key, "pgsaga wrapping key 1"))

    def wrap(self, key: bytes, tenant_id: str, subject: str, key_id: UUID) -> bytes:
        """A subject's key, encrypted."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, key, _of_key(tenant_id, subject, key_id))

    def unwrap(self, data: bytes, tenant_id: str, subject: str, key_id: UUID) -> bytes | None:
        """The inverse; None where it was changed, or is another subject's."""
        return opened(self._cipher, data, _of_key(tenant_id, subject, key_id))


def _of_key(tenant_id: str, subject: str, key_id: UUID) -> bytes:
    return framed(("pgsaga key 1", tenant_id, subject, str(key_id)))
