"""What a message held at one moment, so that later nothing need be encoded or decoded again."""

from __future__ import annotations

import marshal
from typing import Any

from langchain_core.messages import BaseMessage

_SCALARS = frozenset({str, int, float, bool, type(None)})
_DEEPEST = 20
# Without references between its parts, so that equal values have equal bytes.
_MARSHAL_VERSION = 2
_set = object.__setattr__


class Snapshot:
    """A private copy of a message's fields.

    There are snapshots of plain messages only: fields of None, bool, int, float and str,
    and lists and dicts of these; no extra fields.
    """

    __slots__ = ("_class", "_containers", "_exact", "_fields", "_fields_set", "_filled", "_types")

    def __init__(self, message: BaseMessage) -> None:
        """Raises ValueError for a message that isn't plain."""
        if message.__pydantic_extra__:
            raise ValueError
        self._class = type(message)
        self._fields = {name: _copied(value) for name, value in message.__dict__.items()}
        self._fields_set = frozenset(message.__pydantic_fields_set__)
        self._types = list(map(type, self._fields.values()))
        self._containers = [n for n, v in self._fields.items() if type(v) not in _SCALARS]
        self._filled = [name for name in self._containers if self._fields[name]]
        self._exact = _exact_bytes(self._fields, self._filled) if self._filled else b""

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
        """Whether encoding the message now would give the bytes of then.

        Equal fields aren't enough where 1 equals True, 0.0 equals -0.0 and an enum equals
        its text: types must be the same, and what containers hold the same to the byte.
        """
        fields = message.__dict__
        if type(message) is not self._class or fields != self._fields:
            return False
        if list(map(type, fields.values())) != self._types or message.__pydantic_extra__:
            return False
        try:
            return not self._filled or _exact_bytes(fields, self._filled) == self._exact
        except ValueError:  # something that isn't plain, and yet equal
            return False

    def copy(self) -> BaseMessage:
        """A message like the decoded one, which shares nothing that can change with any other."""
        fields = self._fields.copy()
        for name in self._containers:
            fields[name] = _copied(fields[name])
        message = self._class.__new__(self._class)
        _set(message, "__dict__", fields)
        _set(message, "__pydantic_fields_set__", set(self._fields_set))
        _set(message, "__pydantic_extra__", {})
        _set(message, "__pydantic_private__", None)
        return message


def _exact_bytes(fields: dict[str, Any], names: list[str]) -> bytes:
    return marshal.dumps([fields[name] for name in names], _MARSHAL_VERSION)


def _copied(value: Any, depth: int = 0) -> Any:
    kind = type(value)
    if kind in _SCALARS:
        return value
    if depth == _DEEPEST:
        raise ValueError
    if kind is list:
        return [_copied(item, depth + 1) for item in value] if value else []
    if kind is dict and _SCALARS.issuperset(map(type, value)):
        return {key: _copied(item, depth + 1) for key, item in value.items()} if value else {}
    raise ValueError
