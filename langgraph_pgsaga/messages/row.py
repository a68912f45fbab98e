"""Stored messages, and what a search found, as their readers get them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from langgraph_pgsaga import _json
from langgraph_pgsaga._times import time_of_row
from langgraph_pgsaga.messages.snippet import snippet_of

# How much of a message a search sees.
_SEARCHED = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRow:
    """A stored version of a message, as SQL users see it.

    `message_no` counts the thread's stored versions. `parent_message_no` is the message
    before it in its list when it was stored. `content` is text for reading, cut after a
    million characters, and empty (as are message_id, message_type, role and metadata) where
    the saver encrypts. `created_at` is in UTC; where Python has no such time (before the year
    1, after 9999, or infinity), it is `datetime.min` or `datetime.max`.
    """

    thread_id: str
    tenant_id: str = ""
    message_no: int
    message_id: str | None
    parent_message_no: int | None
    message_type: str
    role: str
    content: str
    metadata: dict[str, Any]
    created_at: datetime

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> MessageRow:
        """The row of a statement that gives these columns."""
        return cls(
            thread_id=row["thread_id"],
            tenant_id=row["tenant_id"],
            message_no=row["message_no"],
            message_id=row["message_id"],
            parent_message_no=row["parent_message_no"],
            message_type=row["message_type"],
            role=row["role"],
            content=row["content"],
            metadata=_json.load_object(row["metadata"]),
            created_at=time_of_row(row["created_at"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagePage:
    """Rows, and the cursor of those that follow; None where there are no more."""

    rows: list[MessageRow]
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageHit:
    """What a search found.

    `rank` is PostgreSQL's ts_rank. `snippet` is the content where that is short, else one or
    two parts of it; unescaped, with MATCH_START and MATCH_END around each word that was found.
    """

    message: MessageRow
    user_id: str
    rank: float
    snippet: str

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> MessageHit:
        """A row of the search: the message's columns, and what was found in them."""
        return cls(
            message=MessageRow.from_row(row),
            user_id=row["user_id"],
            rank=row["rank"],
            snippet=snippet_of(row["marked"], is_cut=len(row["content"]) > _SEARCHED),
        )
