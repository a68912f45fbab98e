"""The systems for sync callers: the same classes, without await and connections.

Each call goes through the database's own thread, as the saver's sync methods do. It may be made
anywhere but on that thread: a function that is passed in, such as `on_progress`, is called there,
so it may call nothing of the package that is sync; a file object is written to there.

Made from the async classes by `make docs`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langgraph_pgsaga.sync.events import DeadLetters, EventStore
    from langgraph_pgsaga.sync.memory import AgentMemory
    from langgraph_pgsaga.sync.messages import Messages
    from langgraph_pgsaga.sync.sessions import Sessions
    from langgraph_pgsaga.sync.steps import step_is_stored

__all__ = ["AgentMemory", "DeadLetters", "EventStore", "Messages", "Sessions", "step_is_stored"]

if not TYPE_CHECKING:
    # Who wants one system doesn't load the others.
    _MODULES = {
        "DeadLetters": "events",
        "EventStore": "events",
        "AgentMemory": "memory",
        "Messages": "messages",
        "Sessions": "sessions",
        "step_is_stored": "steps",
    }

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = found
        return found
