"""The saver: LangGraph's checkpoints, pending writes and messages in PostgreSQL.

`PostgresSaver` is what users need. The rest is for the package's other systems, which read and
write the same tables.
"""

from langgraph_pgsaga.checkpoint.contents import Contents, starter_keys
from langgraph_pgsaga.checkpoint.decode import (
    StateData,
    decode_state,
    needs_pending_sends,
    placed,
)
from langgraph_pgsaga.checkpoint.encode import encode_put, encode_values, encode_writes
from langgraph_pgsaga.checkpoint.retention import delete_claimed, delete_thread, prune_free
from langgraph_pgsaga.checkpoint.saver import PostgresSaver
from langgraph_pgsaga.serde import Placeholder, PlaceholderMessage

__all__ = [
    "Contents",
    "Placeholder",
    "PlaceholderMessage",
    "PostgresSaver",
    "StateData",
    "decode_state",
    "delete_claimed",
    "delete_thread",
    "encode_put",
    "encode_values",
    "encode_writes",
    "needs_pending_sends",
    "placed",
    "prune_free",
    "starter_keys",
]
