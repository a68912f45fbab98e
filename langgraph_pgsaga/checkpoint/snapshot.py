"""What a message held at one moment, so that later nothing need be encoded or decoded again."""

from __future__ import annotations

import marshal
from functools import lru_cache
from typing import TypeVar

from langchain_core.messages import BaseMessage

Names = TypeVar("Names", tuple[str, ...], frozenset[str])

# Without references between its parts, so that equal values have equal bytes.
_MARSHAL_VERSION = 2
_set = object.__setattr__


# As many as classes of messages have combinations of fields.
@lru_cache(maxsize=256)
def _shared(names: Names) -> Names:
    """One object for all that are equal."""
    return names


class Snapshot:
    """A message's class, and its fields as bytes.

    The bytes are Python's own for plain data, types and all: 1 isn't True, 0.0 isn't -0.0,
    and what isn't plain (an object, a subclass of str) has none. They stay in memory.
    """

    __slots__ = ("_class", "_fields", "_fields_set", "_names")

    def __init__(self, message: BaseMessage) -> None:
        """Raises ValueError for a message that isn't plain."""
        if message.__pydantic_extra__:
            raise ValueError
        fields = message.__dict__
        self._class = type(message)
        self._names = _shared(tuple(fields))
        self._fields = marshal.dumps(fields, _MARSHAL_VERSION)
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
        try:
            return marshal.dumps(message.__dict__, _MARSHAL_VERSION) == self._fields
        except ValueError:  # something that isn't plain any more
            return False

    def copy(self) -> BaseMessage:
        """A message like the decoded one, which shares nothing that can change with any other."""
        values = marshal.loads(self._fields).values()  # noqa: S302 - bytes of our own making
        message = self._class.__new__(self._class)
        # The names of old: new ones would take memory with each copy.
        _set(message, "__dict__", dict(zip(self._names, values, strict=True)))
        _set(message, "__pydantic_fields_set__", set(self._fields_set))
        _set(message, "__pydantic_extra__", {})
        _set(message, "__pydantic_private__", None)
        return message
