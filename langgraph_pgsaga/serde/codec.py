"""Values as bytes and back: the serializer, the cipher where there is one, and digests."""

from __future__ import annotations

import hashlib
import os
from typing import Any, NamedTuple

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from langgraph_pgsaga.errors import CorruptValueError, SerializationError, UnstorableValueError
from langgraph_pgsaga.serde import payload_parts
from langgraph_pgsaga.serde.serializer import SafeSerializer, as_safe

# PostgreSQL refuses messages and fields of 1 GiB; the rest of the statement needs room too.
LARGEST_PAYLOAD_BYTES = 1_000_000_000
_DIGEST_BYTES = 16
NOT_ENCRYPTED = (
    "it isn't encrypted, but this saver's serializer encrypts. What was stored before has to be"
    " imported from a saver without encryption into another schema"
)


class Encoded(NamedTuple):
    """A serializer's answer, before encryption."""

    type: str
    data: bytes


class Codec:
    """What the saver knows about its serializer.

    `readable`: values may also stand in clear (inline JSON, message text, metadata).
    `splits_messages`: a list of messages may be stored message by message, because
    the serializer's encoding of a list is made of the encodings of its elements.
    A serializer of the user's own is neither.
    `encrypts`: what stands in clear isn't the saver's, so it isn't read.
    """

    def __init__(self, serde: SerializerProtocol, *, digest_key: bytes | None = None) -> None:
        encrypted = isinstance(serde, EncryptedSerializer)
        self.encrypts = encrypted
        self._whole_serde = serde
        self._cipher = serde.cipher if isinstance(serde, EncryptedSerializer) else None
        self._serde = serde.serde if isinstance(serde, EncryptedSerializer) else serde
        self.splits_messages = isinstance(self._serde, SafeSerializer)
        self.readable = self.splits_messages and not encrypted
        # A plain hash of a short secret can be guessed: where nothing may be readable,
        # digests are keyed, so equal values are recognised within this process only.
        self.digest_key = b"" if self.readable else digest_key or os.urandom(32)

    def lenient(self) -> Codec:
        """One that loads placeholders for what this one refuses."""
        serde = as_safe(self._whole_serde, lenient=True)
        return self if serde is self._whole_serde else Codec(serde, digest_key=self.digest_key)

    def encode(self, value: Any, where: str) -> Encoded:
        """`value` as bytes, not encrypted yet; `where` names it in errors.

        Raises:
            UnstorableValueError: it couldn't be loaded again, or is too large.
        """
        try:
            encoded = Encoded(*self._serde.dumps_typed(value))
        except UnstorableValueError as error:
            place = error.where.removeprefix("the ").removeprefix("value")
            raise UnstorableValueError(where=f"{where}{place}", problem=error.problem) from error
        except SerializationError:
            raise
        except Exception as error:
            # The serializer's text may quote the value.
            problem = f"the serializer raised {type(error).__name__}"
            raise UnstorableValueError(where=where, problem=problem) from error
        if len(encoded.data) > LARGEST_PAYLOAD_BYTES:
            size = f"{len(encoded.data):,} bytes, more than PostgreSQL's limit of 1 GB for a value"
            raise UnstorableValueError(where=where, problem=size)
        return encoded

    def chunks(self, value: Any, encoded: Encoded) -> list[bytes]:
        """The bytes of an encoded value in parts, as `payload_parts.chunks` has them.

        In one where they are encrypted: by their number the parts would tell of the value.
        """
        if self.encrypts or not isinstance(self._serde, SafeSerializer):
            return [encoded.data]
        return payload_parts.chunks(value, encoded.data, self._serde.encode_part)

    def seal(self, encoded: Encoded) -> Encoded:
        """What is stored: encrypted where there is a cipher, which the type then names."""
        if self._cipher is None:
            return encoded
        name, data = self._cipher.encrypt(encoded.data)
        return Encoded(f"{encoded.type}+{name}", data)

    def open(self, type_: str, payload: bytes) -> Encoded:
        """The inverse of `seal`.

        Raises:
            CorruptValueError: it isn't encrypted although it should be, or was altered.
        """
        if self._cipher is None:
            return Encoded(type_, payload)
        inner, separator, cipher = type_.partition("+")
        if not separator:
            raise CorruptValueError(what="a stored value", problem=NOT_ENCRYPTED)
        try:
            return Encoded(inner, self._cipher.decrypt(cipher, payload))
        except Exception as error:
            problem = f"decryption failed ({type(error).__name__}): another key, or altered bytes"
            raise CorruptValueError(what="a stored value", problem=problem) from error

    def decode(self, encoded: Encoded) -> Any:
        """The value of what `open` gave.

        Raises:
            UnloadableValueError: it may not, or can't, be loaded.
        """
        try:
            return self._serde.loads_typed((encoded.type, encoded.data))
        except SerializationError:
            raise
        except Exception as error:
            problem = f"the serializer raised {type(error).__name__}"
            raise CorruptValueError(what="a stored value", problem=problem) from error

    def load(self, type_: str, payload: bytes) -> Any:
        """`decode` of `open`."""
        return self.decode(self.open(type_, payload))

    def digest(self, encoded: Encoded) -> bytes:
        """16 bytes that stand for the value within its session."""
        hasher = hashlib.blake2b(digest_size=_DIGEST_BYTES, key=self.digest_key)
        hasher.update(encoded.type.encode() + b"\0")
        hasher.update(encoded.data)
        return hasher.digest()
