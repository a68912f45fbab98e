"""Values as bytes and back: safe types only, and equal after loading."""

from langgraph_pgsaga.serde.codec import LARGEST_PAYLOAD_BYTES, NOT_ENCRYPTED, Codec, Encoded
from langgraph_pgsaga.serde.payload_parts import MOST_LOOKED_AT, cut_out, fill, messages_in
from langgraph_pgsaga.serde.placeholder import Placeholder, PlaceholderMessage
from langgraph_pgsaga.serde.serializer import SafeSerializer, as_safe, with_allowlist

__all__ = [
    "LARGEST_PAYLOAD_BYTES",
    "MOST_LOOKED_AT",
    "NOT_ENCRYPTED",
    "Codec",
    "Encoded",
    "Placeholder",
    "PlaceholderMessage",
    "SafeSerializer",
    "as_safe",
    "cut_out",
    "fill",
    "messages_in",
    "with_allowlist",
]
