"""What rows of agent_memory become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import Enum
from typing import Any
from uuid import UUID

import asyncpg

from langgraph_pgsaga import _json


class MemoryType(Enum):
    """The usual types of memories; a type may be any other text."""

    EPISODIC = "episodic"
    SEMANTIC = "semantic"
    PROCEDURAL = "procedural"
    WORKING = "working"


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A memory as it is stored.

    With a `thread_id` it is one of that thread, else its user's everywhere. `source_...` say
    where it comes from: a thread, a checkpoint, a message. `valid_from` and `valid_to` are when it
    holds, `recorded_at` and `superseded_at` from when to when it was what is known.
    """

    memory_id: UUID
    user_id: str | None
    thread_id: str | None
    memory_type: str
    content_text: str
    context_text: str | None
    importance_score: float
    access_count: int
    created_at: datetime
    last_accessed_at: datetime
    expires_at: datetime | None
    pinned: bool
    metadata: Mapping[str, Any]
    source_thread_id: str | None
    source_checkpoint_ns: str | None
    source_checkpoint_id: str | None
    source_message_no: int | None
    valid_from: datetime | None
    valid_to: datetime | None
    recorded_at: datetime
    superseded_at: datetime | None
    superseded_by: UUID | None
    scope_id: UUID = field(repr=False)

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> Memory:
        """A row of any statement that gives memories."""
        given = {name: row[name] for name in _NAMES}
        return cls(**{**given, "metadata": _json.load_object(row["metadata"])})


_NAMES = [found.name for found in fields(Memory)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """A memory that was recalled, and why: its score, and the parts that it is made of.

    `semantic` is None of a memory that has no vector, or where nothing was asked by one.
    """

    memory: Memory
    score: float
    text: float
    semantic: float | None
    recency: float
    importance: float

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> Recalled:
        """A row of a recall."""
        memory = Memory.from_row(row)
        return cls(
            memory=memory,
            score=row["score"],
            text=row["text_score"],
            semantic=row["semantic_score"],
            recency=row["recency_score"],
            importance=memory.importance_score,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPage:
    """Memories in the order asked for. `next_cursor` is None where no more are left."""

    memories: tuple[Memory, ...]
    next_cursor: str | None
