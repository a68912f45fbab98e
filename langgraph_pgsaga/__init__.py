"""PostgreSQL state for LangGraph: pass a PostgresSaver to `workflow.compile(checkpointer=...)`.

The main class of each system is here; what goes with it is in the system's own package.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING

from langgraph_pgsaga.errors import PgSagaError

if TYPE_CHECKING:
    from langgraph_pgsaga.checkpoint import PostgresSaver
    from langgraph_pgsaga.database import Database
    from langgraph_pgsaga.events import EventStore
    from langgraph_pgsaga.memory import AgentMemory, FileBackend, MemoryStore
    from langgraph_pgsaga.messages import Messages
    from langgraph_pgsaga.sessions import Sessions
    from langgraph_pgsaga.takeover import ReadThroughSaver
    from langgraph_pgsaga.work import Worker

__version__ = "0.1.0"

__all__ = [
    "AgentMemory",
    "Database",
    "EventStore",
    "FileBackend",
    "MemoryStore",
    "Messages",
    "PgSagaError",
    "PostgresSaver",
    "ReadThroughSaver",
    "Sessions",
    "Worker",
    "__version__",
]

if not TYPE_CHECKING:
    # Its base class is deepagents': without it there is none.
    if find_spec("deepagents") is None:
        __all__.remove("FileBackend")
    # LangGraph takes most of a second to import, which `pgsaga --help` doesn't need.
    _MODULES = {
        "AgentMemory": "memory",
        "Database": "database",
        "EventStore": "events",
        "FileBackend": "memory",
        "MemoryStore": "memory",
        "Messages": "messages",
        "PostgresSaver": "checkpoint",
        "ReadThroughSaver": "takeover",
        "Sessions": "sessions",
        "Worker": "work",
    }

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = found
        return found
