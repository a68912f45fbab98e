"""What runs in the background, and what it knows of the run that it belongs to."""

from langgraph_pgsaga.work.run_context import RunContext

__all__ = ["RunContext"]
