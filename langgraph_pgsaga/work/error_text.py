"""What logs and tables say of an error: never what it may quote."""

from __future__ import annotations

import traceback

from langgraph_pgsaga.errors import PgSagaError


def described(error: BaseException) -> str:
    """The error's class and place; of ours, whose texts have no payload, the text."""
    if isinstance(error, PgSagaError):
        return f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    at = f" at {frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    return f"{type(error).__name__}{at}"
