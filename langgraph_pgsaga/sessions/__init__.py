"""The sessions of threads: who they belong to, where they stand, and how long they are kept."""

from __future__ import annotations

from langgraph_pgsaga.sessions.session import (
    UNCHANGED,
    Session,
    SessionOrder,
    SessionPage,
    Unchanged,
)
from langgraph_pgsaga.sessions.sessions import Sessions
from langgraph_pgsaga.sessions.sweep import RetentionPolicy, SweepResult
from langgraph_pgsaga.threads import SessionStatus

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
