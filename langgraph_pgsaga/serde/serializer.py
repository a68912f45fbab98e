"""The serializers: what LangGraph's hold, with rules on what a row may become.

`SafeSerializer` reads everything that LangGraph's JsonPlusSerializer wrote as
msgpack. `as_safe` turns the serializer a user passes into one that follows the
rules; a serializer of the user's own is left as it is.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from enum import Enum
from typing import Any

from langgraph.checkpoint.serde.base import CipherProtocol, SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from langgraph_pgsaga import _langgraph
from langgraph_pgsaga._langgraph import allowlist_of, is_plain
from langgraph_pgsaga.errors import (
    BlockedTypeError,
    CorruptValueError,
    EncryptedValueError,
    UnloadableValueError,
)
from langgraph_pgsaga.serde.msgpack_decode import FailureFinder, decoder_of
from langgraph_pgsaga.serde.msgpack_encode import Writers
from langgraph_pgsaga.serde.msgpack_forms import is_numpy_scalar
from langgraph_pgsaga.serde.placeholder import is_placeholder
from langgraph_pgsaga.serde.type_rules import TypeRules
from langgraph_pgsaga.serde.value_path import path_where

Allow = Iterable[type | tuple[str, ...]]


class SafeSerializer(JsonPlusSerializer):
    """Stores what it can load again, and loads only what it may.

    A stored value becomes a known type, one of `allow` (classes, or tuples of
    module and name), or, unless `strict`, a dataclass, pydantic model, enum or
    named tuple that the application has imported. Nothing else is imported or
    called, whatever a row says. `lenient`: what may not, or can't, be loaded comes as
    a Placeholder, which is stored as what it came from. Safe to share between threads.
    """

    def __init__(self, *, allow: Allow = (), strict: bool = False, lenient: bool = False) -> None:
        self._use(TypeRules(allow, strict=strict, lenient=lenient))

    def _use(self, rules: TypeRules) -> None:
        super().__init__(
            allowed_msgpack_modules=rules.allow or None,
            __unpack_ext_hook__=_refuse_hook,
        )
        self._rules = rules
        self._writers = Writers(rules)

    @property
    def strict(self) -> bool:
        """Whether only known and allowed types are stored and loaded."""
        return self._rules.strict

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Type tag and bytes.

        Raises UnstorableValueError for what could not be loaded again.
        """
        if obj is None:
            return "null", b""
        is_own = isinstance(obj, Enum) or is_numpy_scalar(type(obj))
        if isinstance(obj, bytes) and not is_own:
            return "bytes", bytes(obj)
        if isinstance(obj, bytearray):
            return "bytearray", bytes(obj)
        return "msgpack", self.encode_part(obj)

    def encode_part(self, obj: Any) -> bytes:
        """The msgpack of a value, whatever it is.

        Raises UnstorableValueError for what could not be loaded again.
        """
        return self._writers.encode(obj)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """The value of a type tag and bytes.

        Raises UnloadableValueError.
        """
        tag, payload = data
        if tag == "msgpack":
            try:
                return decoder_of(self._rules).load(payload)
            except UnloadableValueError as refused:
                refused.at(path=self._path_of_failure(payload))
                raise
        load = _PLAIN_TAGS.get(tag)
        if load is None:
            raise _refused(tag)
        return load(payload)

    def with_msgpack_allowlist(self, extra_allowlist: Allow) -> SafeSerializer:
        """A serializer that allows these types, too; this one if none is new."""
        rules = self._rules.adding(extra_allowlist)
        return self if rules is self._rules else self._with(rules)

    def _path_of_failure(self, payload: bytes) -> str:
        try:
            value = FailureFinder(self._rules).load(payload)
        except UnloadableValueError:
            return ""
        return path_where(value, is_placeholder)

    def _with(self, rules: TypeRules) -> SafeSerializer:
        clone = type(self).__new__(type(self))
        clone._use(rules)
        return clone

    def _made(self, *, strict: bool, lenient: bool) -> SafeSerializer:
        rules = self._rules
        strict, lenient = strict or rules.strict, lenient or rules.lenient
        if (strict, lenient) == (rules.strict, rules.lenient):
            return self
        return self._with(TypeRules(rules.allow, strict=strict, lenient=lenient))


class SafeEncryptedSerializer(EncryptedSerializer):
    """Encrypts every payload, and loads none that isn't encrypted."""

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """The value of a type tag and an encrypted payload.

        Raises CorruptValueError for a payload that isn't encrypted, or not with
        this key, and what the serializer inside raises.
        """
        kind, plus, cipher_name = data[0].partition("+")
        if not plus:
            raise CorruptValueError(
                what="a stored value",
                problem="it is not encrypted, but this saver accepts encrypted values only",
            )
        return self.serde.loads_typed((kind, _decrypted(self.cipher, cipher_name, data[1])))


_NO_PICKLES = (
    "pickle_fallback=True has no effect: PostgresSaver stores and loads no pickles. See "
    "docs/saver.md for what to store instead, and for a serializer of your own"
)


def as_safe(
    serde: SerializerProtocol | None,
    *,
    allow: Allow = (),
    strict: bool = False,
    lenient: bool = False,
) -> SerializerProtocol:
    """The serializer to use for the one a user passed, or for none.

    None is a SafeSerializer, strict if LANGGRAPH_STRICT_MSGPACK is set.
    LangGraph's own are replaced: a JsonPlusSerializer by a SafeSerializer with
    its allowlist (strict, if it was limited to one), an EncryptedSerializer by
    one with the same cipher. Everything else is the user's own and returned as
    it is. That pickles, which the replaced one may have been to fall back on, are
    refused is told by a warning.
    """
    if serde is None:
        strict = strict or _langgraph.STRICT_MSGPACK_ENABLED
        return SafeSerializer(allow=allow, strict=strict, lenient=lenient)
    if isinstance(serde, SafeSerializer):
        return serde.with_msgpack_allowlist(allow)._made(strict=strict, lenient=lenient)
    if type(serde) is JsonPlusSerializer and is_plain(serde):
        if serde.pickle_fallback:
            warnings.warn(_NO_PICKLES, stacklevel=3)
        listed = allowlist_of(serde)
        if listed is True:
            return SafeSerializer(allow=allow, strict=strict, lenient=lenient)
        return SafeSerializer(allow=(*allow, *(listed or ())), strict=True, lenient=lenient)
    if isinstance(serde, EncryptedSerializer) and type(serde) in _ENCRYPTED:
        inner = as_safe(serde.serde, allow=allow, strict=strict, lenient=lenient)
        return SafeEncryptedSerializer(serde.cipher, inner)
    return serde


def with_allowlist(serde: SerializerProtocol, extra: Allow) -> SerializerProtocol:
    """The serializer with more types allowed; the same object if nothing changes.

    A serializer that knows no allowlist is returned as it is.
    """
    if isinstance(serde, JsonPlusSerializer):
        return serde.with_msgpack_allowlist(extra)
    if isinstance(serde, SafeEncryptedSerializer):
        inner = with_allowlist(serde.serde, extra)
        return serde if inner is serde.serde else SafeEncryptedSerializer(serde.cipher, inner)
    return serde


# A subclass of a user's own may do anything, so it is left alone.
_ENCRYPTED = (EncryptedSerializer, SafeEncryptedSerializer)
_PLAIN_TAGS: dict[str, Any] = {
    "null": lambda _: None,
    "bytes": bytes,
    "bytearray": bytearray,
}


def _refused(tag: str) -> CorruptValueError:
    what = f"a value stored as {tag[:20]!r}"
    if "+" in tag:
        problem = "it is encrypted; pass serde=EncryptedSerializer(...) with its key to the saver"
        return EncryptedValueError(what=what, problem=problem)
    if tag == "pickle":
        return CorruptValueError(what=what, problem="pickles are never loaded")
    return CorruptValueError(what=what, problem="this version loads msgpack, bytes and null only")


def _refuse_hook(_code: int, _data: bytes) -> Any:
    """In the place of the base class's hook, which nothing here calls."""
    raise BlockedTypeError(module="ormsgpack", name="Ext")


def _decrypted(cipher: CipherProtocol, name: str, payload: bytes) -> bytes:
    try:
        return cipher.decrypt(name, payload)
    except Exception as exc:
        problem = f"decryption failed ({type(exc).__name__}): another key, or changed bytes"
    raise CorruptValueError(what="an encrypted value", problem=problem)
