"""A serializer for looking at state without the application that made it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from langgraph_pgsaga.checkpoint._msgpack_decode import Decoder
from langgraph_pgsaga.checkpoint.serde import SafeSerializer
from langgraph_pgsaga.errors import BlockedTypeError, CorruptValueError, MissingTypeError


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
    __slots__ = ()

    def _hook(self, code: int, data: bytes) -> Any:
        try:
            return super()._hook(code, data)
        except (BlockedTypeError, MissingTypeError):
            self._failure = None
        try:
            module, name, content, _ = self._named(data)
        except CorruptValueError:
            # A moment or an array has a record of another shape.
            self._failure = None
            return Placeholder(type_name="unknown", content=self.load(data))
        return Placeholder(type_name=f"{module}.{name}", content=content)
