"""What a message held at one moment, so that later nothing need be encoded or decoded again."""

from __future__ import annotations

import marshal
from functools import lru_cache
from typing import Any, TypeVar

import orjson
import ormsgpack
from langchain_core.messages import BaseMessage
from pydantic import BaseModel

Names = TypeVar("Names", tuple[str, ...], frozenset[str])

# Without references between its parts, so that equal values have equal bytes.
_MARSHAL_VERSION = 2
# Everything is refused that isn't of one of msgpack's own types.
_NATIVE = (
    ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_UUID
)
# How pydantic's own parts of an object are set: its class would look their names up each time.
_PARTS: Any = vars(BaseModel)
_set_fields = _PARTS["__dict__"].__set__
_set_fields_set = _PARTS["__pydantic_fields_set__"].__set__
_set_extra = _PARTS["__pydantic_extra__"].__set__
_set_private = _PARTS["__pydantic_private__"].__set__


# As many as classes of messages have combinations of fields.
@lru_cache(maxsize=256)
def _shared(names: Names) -> Names:
    """One object for all that are equal."""
    return names


class Snapshot:
    """A message's class, the names of its fields, and their values as bytes.

    The bytes are Python's own for plain data, types and all: 1 isn't True, 0.0 isn't -0.0,
    and what isn't plain (an object, a subclass of str) has none. One kind of objects is taken
    for another: whatever shows its memory, as arrays and numpy's scalars do, is written as
    bytes. So a message with bytes isn't plain either, and where equal bytes are made of
    another message there is no such object in it. The bytes stay in memory.
    """

    __slots__ = ("_class", "_fields_set", "_names", "_values")

    def __init__(self, message: BaseMessage) -> None:
        """Raises ValueError for a message that isn't plain."""
        if message.__pydantic_extra__:
            raise ValueError
        fields = message.__dict__
        _demand_no_buffers(fields)
        self._class = type(message)
        self._names = _shared(tuple(fields))
        self._values = marshal.dumps(tuple(fields.values()), _MARSHAL_VERSION)
        self._fields_set = _shared(frozenset(message.__pydantic_fields_set__))

    @classmethod
    def of(cls, message: BaseMessage) -> Snapshot | None:
        """The message as it is now; None where it isn't plain."""
        try:
            return cls(message)
        except ValueError:
            return None

    @classmethod
    def of_decoded(cls, message: BaseMessage) -> Snapshot | None:
        """Of a message just decoded: one that can be copied."""
        is_known = type(message).__module__.startswith("langchain_core.messages.")
        return cls.of(message) if is_known and not message.__pydantic_private__ else None

    def matches(self, message: BaseMessage) -> bool:
        """Whether encoding the message now would give the bytes of then."""
        if type(message) is not self._class or message.__pydantic_extra__:
            return False
        fields = message.__dict__
        try:
            # Called for each message of each list that is put: no function's call more.
            values = marshal.dumps(tuple(fields.values()), _MARSHAL_VERSION)
            return values == self._values and tuple(fields) == self._names
        except ValueError:  # something that isn't plain any more
            return False

    def copy(self) -> BaseMessage:
        """A message like the decoded one, which shares nothing that can change with any other."""
        values = marshal.loads(self._values)  # noqa: S302 - bytes of our own making
        message = self._class.__new__(self._class)
        # Names aren't among the bytes: new ones would take time and memory with each copy.
        _set_fields(message, dict(zip(self._names, values, strict=False)))
        _set_fields_set(message, set(self._fields_set))
        _set_extra(message, {})
        _set_private(message, None)
        return message


def _demand_no_buffers(fields: dict[str, Any]) -> None:
    """Raises ValueError for fields with bytes or anything that marshal takes for bytes.

    Of these, ormsgpack takes bytes, bytearray and memoryview only, which orjson doesn't.
    """
    try:
        ormsgpack.packb(fields, None, _NATIVE)
        orjson.dumps(fields)
    except TypeError as error:  # both have errors of that class
        raise ValueError from error
