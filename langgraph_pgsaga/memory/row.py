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
from langgraph_pgsaga.errors import CorruptValueError


class MemoryType(Enum):
    """The usual types of memories; a type may be any other text."""

    EPISODIC = "episodic"
    SEMANTIC = "semantic"
    PROCEDURAL = "procedural"
    WORKING = "working"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySource:
    """A memory that another one was merged from: its id, and where it came from."""

    memory_id: UUID
    recorded_at: datetime
    thread_id: str | None
    checkpoint_ns: str | None
    checkpoint_id: str | None
    message_no: int | None

    @classmethod
    def of(cls, given: Any) -> MemorySource:
        """Of JSON, as it is stored.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        return cls(
            memory_id=UUID(given["memory_id"]),
            recorded_at=datetime.fromisoformat(given["recorded_at"]),
            **{name: given[name] for name in _OF_SOURCE},
        )


_OF_SOURCE = ("thread_id", "checkpoint_ns", "checkpoint_id", "message_no")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A memory as it is stored.

    With a `thread_id` it is one of that thread, else its user's everywhere. `source_...` say
    where it comes from: a thread, a checkpoint, a message. `valid_from` and `valid_to` are when it
    holds, `recorded_at` and `superseded_at` from when to when it was what is known. `sources` are
    those that it was merged from, also of these in their turn.
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
    sources: tuple[MemorySource, ...] = ()
    scope_id: UUID = field(repr=False)

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> Memory:
        """A row of any statement that gives memories."""
        given = {name: row[name] for name in _NAMES}
        given["metadata"] = _json.load_object(row["metadata"])
        given["sources"] = sources_of(row["sources"])
        return cls(**given)


def sources_of(text: str) -> tuple[MemorySource, ...]:
    """Of stored JSON.

    Raises:
        CorruptValueError: somebody stored something else.
    """
    if text == "[]":
        return ()
    try:
        return tuple(MemorySource.of(one) for one in _json.load(text))
    except (KeyError, TypeError, ValueError):
        pass
    problem = "it is no list of where memories came from"
    raise CorruptValueError(what="agent_memory.sources", problem=problem)


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
