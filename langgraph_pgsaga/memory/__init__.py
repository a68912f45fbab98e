"""What agents keep across threads: LangGraph's store, and memories that are recalled."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from langgraph_pgsaga.memory.files import FileBackend

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
    "FileBackend",
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

if not TYPE_CHECKING:
    if find_spec("deepagents") is None:
        __all__.remove("FileBackend")

    def __getattr__(name: str) -> object:
        # Its base class is deepagents', which takes seconds to import and needn't be there.
        if name != "FileBackend":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            from langgraph_pgsaga.memory.files import FileBackend
        except ModuleNotFoundError as error:
            needs = "the package deepagents: pip install 'langgraph-pgsaga[files]'"
            raise ImportError(f"FileBackend needs {needs}") from error
        return FileBackend
