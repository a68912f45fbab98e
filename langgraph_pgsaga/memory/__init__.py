"""What agents keep across threads: LangGraph's store, and memories that are recalled."""

from langgraph_pgsaga.memory.consolidating import ConsolidationResult, Merge
from langgraph_pgsaga.memory.embedding import Embed, Embedder
from langgraph_pgsaga.memory.forgetting import (
    ForgettingPolicy,
    ForgettingResult,
    erase_memories,
)
from langgraph_pgsaga.memory.item import FoundItem, StoredItem
from langgraph_pgsaga.memory.listing import MemoryOrder
from langgraph_pgsaga.memory.memory import AgentMemory
from langgraph_pgsaga.memory.namespaces import scopes_of_namespaces
from langgraph_pgsaga.memory.nodes import Query
from langgraph_pgsaga.memory.operations import VersionedPut
from langgraph_pgsaga.memory.portability import ImportResult
from langgraph_pgsaga.memory.reembedding import EmbeddingProgress
from langgraph_pgsaga.memory.remembering import NewMemory
from langgraph_pgsaga.memory.row import Memory, MemoryPage, MemorySource, MemoryType, Recalled
from langgraph_pgsaga.memory.scoring import (
    GENERATIVE_AGENTS,
    HYBRID,
    IMPORTANCE,
    RANKS,
    SEMANTIC,
    TEXT,
    Scorer,
    Scoring,
)
from langgraph_pgsaga.memory.store import MemoryStore

__all__ = [
    "GENERATIVE_AGENTS",
    "HYBRID",
    "IMPORTANCE",
    "RANKS",
    "SEMANTIC",
    "TEXT",
    "AgentMemory",
    "ConsolidationResult",
    "Embed",
    "Embedder",
    "EmbeddingProgress",
    "ForgettingPolicy",
    "ForgettingResult",
    "FoundItem",
    "ImportResult",
    "Memory",
    "MemoryOrder",
    "MemoryPage",
    "MemorySource",
    "MemoryStore",
    "MemoryType",
    "Merge",
    "NewMemory",
    "Query",
    "Recalled",
    "Scorer",
    "Scoring",
    "StoredItem",
    "VersionedPut",
    "erase_memories",
    "scopes_of_namespaces",
]
