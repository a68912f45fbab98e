"""PostgreSQL state for LangGraph: pass a PostgresSaver to `workflow.compile(checkpointer=...)`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from langgraph_pgsaga.errors import PgSagaError

if TYPE_CHECKING:
    from langgraph_pgsaga.checkpoint import PostgresSaver
    from langgraph_pgsaga.database import Database

__version__ = "0.1.0"

__all__ = ["Database", "PgSagaError", "PostgresSaver", "__version__"]

if not TYPE_CHECKING:
    # LangGraph takes most of a second to import, which `pgsaga --help` doesn't need.
    _MODULES = {"Database": "database", "PostgresSaver": "checkpoint"}

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = found
        return found
