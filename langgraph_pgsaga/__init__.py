"""PostgreSQL state for LangGraph: pass a PostgresSaver to `workflow.compile(checkpointer=...)`."""

from langgraph_pgsaga.checkpoint import PostgresSaver
from langgraph_pgsaga.database import Database
from langgraph_pgsaga.errors import PgSagaError

__version__ = "0.1.0"

__all__ = ["Database", "PgSagaError", "PostgresSaver", "__version__"]
