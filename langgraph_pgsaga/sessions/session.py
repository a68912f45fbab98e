"""A session as it is read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

import asyncpg

from langgraph_pgsaga import _json
from langgraph_pgsaga._times import time_of_row
from langgraph_pgsaga.threads import SessionStatus

SessionOrder: TypeAlias = Literal["activity", "priority", "created"]


class Unchanged(Enum):
    """The default of an argument for which None is a value."""

    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session as it was when read. Unknown user and agent type are '', as is no tenant; times are
    in UTC.

    A time in the tables that Python has no datetime for (before the year 1, after 9999, or
    infinity) is the first or last that there is: `datetime.min` or `datetime.max`, in UTC.

    `message_count` is the highest number that one of its messages got: messages that were
    edited or deleted count, too.
    """

    thread_id: str
    session_id: UUID
    user_id: str
    agent_type: str
    status: SessionStatus
    priority: int
    metadata: dict[str, Any]
    message_count: int
    created_at: datetime
    last_activity_at: datetime
    expires_at: datetime | None
    tenant_id: str = ""

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> Session:
        """The session of a row that has these columns."""
        given = dict(row)
        given["status"] = SessionStatus(row["status"])
        given["metadata"] = _json.load_object(row["metadata"])
        for name in ("created_at", "last_activity_at", "expires_at"):
            given[name] = row[name] and time_of_row(row[name])
        return cls(**given)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPage:
    """Sessions in the order asked for. `next_cursor` is None where no more are left."""

    sessions: tuple[Session, ...]
    next_cursor: str | None
