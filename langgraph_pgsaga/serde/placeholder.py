"""What stands for values that can't be loaded here, and is stored as they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from langchain_core.messages import BaseMessage
from pydantic import PrivateAttr

# An extension's code and bytes.
Stored: TypeAlias = tuple[int, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placeholder:
    """What a lenient saver loads for a value whose class isn't here, isn't allowed or has changed.

    A lenient saver that stores it stores the very bytes that it came from. Two are equal if
    these are.

    `type_name` is the type's, with its module; `content` what the value is made of; `reason`
    says why it wasn't loaded.
    """

    type_name: str
    content: Any = field(compare=False)
    reason: str = field(default="", compare=False)
    stored: Stored | None = None

    def __repr__(self) -> str:
        return f"<{self.type_name}: {self.content!r}>"


class PlaceholderMessage(BaseMessage):
    """A Placeholder for a message: with its fields, so that lists and reducers of messages work."""

    type: str
    _type_name: str = PrivateAttr(default="")
    _reason: str = PrivateAttr(default="")
    _stored: Stored | None = PrivateAttr(default=None)

    @property
    def type_name(self) -> str:
        """The name of the message's own class, with its module."""
        return self._type_name

    @property
    def reason(self) -> str:
        """Why it wasn't loaded."""
        return self._reason

    @property
    def stored(self) -> Stored | None:
        """The bytes that it came from."""
        return self._stored


def is_placeholder(value: Any) -> bool:
    """Whether the value stands for one that wasn't loaded."""
    return isinstance(value, Placeholder | PlaceholderMessage)


def is_unchanged(value: Placeholder | PlaceholderMessage, loaded: Any) -> bool:
    """Whether a placeholder still is what loading its bytes gives."""
    if isinstance(value, PlaceholderMessage) and isinstance(loaded, PlaceholderMessage):
        # Reducers give a message without an id one of their own.
        loaded.id = loaded.id or value.id
    return bool(value == loaded)


_MESSAGE_FIELDS = BaseMessage.model_fields.keys()


def placeholder_of(
    code: int, data: bytes, record: Any, reason: str
) -> Placeholder | PlaceholderMessage:
    """The placeholder of an extension's code and bytes, of which `record` was decoded."""
    match record:
        case [str() as module, str() as name, content, *rest] if len(rest) < 2:
            type_name = f"{module}.{name}"
        case content:
            # A moment or an array has a record of another shape.
            type_name = "unknown"
    if isinstance(content, dict) and content.keys() >= _MESSAGE_FIELDS:
        try:
            message = PlaceholderMessage(**content)
        except Exception:  # noqa: S110 - it isn't a message after all
            pass
        else:
            message._type_name, message._reason, message._stored = type_name, reason, (code, data)
            return message
    return Placeholder(type_name=type_name, content=content, reason=reason, stored=(code, data))
