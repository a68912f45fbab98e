"""The sessions of threads: who they belong to, where they stand, and how long they are kept."""

from __future__ import annotations

from langgraph_pgsaga.sessions.session import (
    UNCHANGED,
    Session,
    SessionOrder,
    SessionPage,
    SessionStatus,
    Unchanged,
)
from langgraph_pgsaga.sessions.sessions import Sessions
from langgraph_pgsaga.sessions.sweep import RetentionPolicy, SweepResult

__all__ = [
    "UNCHANGED",
    "RetentionPolicy",
    "Session",
    "SessionOrder",
    "SessionPage",
    "SessionStatus",
    "Sessions",
    "SweepResult",
    "Unchanged",
]
