"""The saver: LangGraph's checkpoints, pending writes and messages in PostgreSQL."""

from langgraph_pgsaga.checkpoint.saver import PostgresSaver

__all__ = ["PostgresSaver"]
