"""A serializer for looking at state without the application that made it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from langgraph_pgsaga.checkpoint._msgpack_decode import Decoder
from langgraph_pgsaga.checkpoint.serde import SafeSerializer
from langgraph_pgsaga.errors import BlockedTypeError, MissingTypeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Placeholder:
    """What stands for a value whose type isn't loaded here, or isn't allowed.

    `type_name` is the type's, with its module; `content` what the value is made of.
    """

    type_name: str
    content: Any

    def __repr__(self) -> str:
        return f"<{self.type_name}: {self.content!r}>"


class PlaceholderSerializer(SafeSerializer):
    """Loads what SafeSerializer loads, and a Placeholder for each value that it refuses.

    A saver with it is for reading. It stores no placeholder.
    """

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """The value of a type tag and bytes."""
        tag, payload = data
        if tag == "msgpack":
            return _PlaceholderDecoder(self._rules).load(payload)
        return super().loads_typed(data)


class _PlaceholderDecoder(Decoder):
    """Remembers what it decoded last: a refused object's parts, which are decoded once."""

    __slots__ = ("_decoded",)

    def load(self, data: bytes) -> Any:
        """The value in these bytes."""
        self._decoded: Any = super().load(data)
        return self._decoded

    def _hook(self, code: int, data: bytes) -> Any:
        try:
            return super()._hook(code, data)
        except (BlockedTypeError, MissingTypeError):
            self._failure = None
        # An object is refused after its own parts were decoded, and before any others are.
        match self._decoded:
            case [str() as module, str() as name, content, *rest] if len(rest) < 2:
                return Placeholder(type_name=f"{module}.{name}", content=content)
            case content:
                # A moment or an array has a record of another shape.
                return Placeholder(type_name="unknown", content=content)
