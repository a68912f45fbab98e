"""What agents keep across threads: LangGraph's store on PostgreSQL."""

from langgraph_pgsaga.memory.item import FoundItem, StoredItem
from langgraph_pgsaga.memory.operations import VersionedPut
from langgraph_pgsaga.memory.store import MemoryStore

__all__ = ["FoundItem", "MemoryStore", "StoredItem", "VersionedPut"]
