"""Values in the binary form of their type, whatever codec a connection has for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Packed(bytes):
    """A value as the server reads it in binary; `text` is the same value as text."""

    def text(self) -> str:
        """For a codec of text, as a user may have set it on a connection."""
        raise NotImplementedError


def passing(encoder: Callable[[Any], Any], form: str) -> Callable[[Any], Any]:
    """A codec's encoder that leaves what is packed as it is.

    Args:
        form: the codec's, "binary" or "text"; the encoder of another is returned as it is.
    """
    if form not in ("binary", "text"):
        return encoder
    is_binary = form == "binary"

    def encode(value: Any) -> Any:
        if isinstance(value, Packed):
            return value if is_binary else value.text()
        return encoder(value)

    return encode
