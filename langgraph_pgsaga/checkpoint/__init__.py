"""The saver: LangGraph's checkpoints, pending writes and messages in PostgreSQL."""

from langgraph_pgsaga.checkpoint.placeholder import Placeholder, PlaceholderMessage
from langgraph_pgsaga.checkpoint.saver import PostgresSaver

__all__ = ["Placeholder", "PlaceholderMessage", "PostgresSaver"]
