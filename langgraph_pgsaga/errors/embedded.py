"""The embedded development server."""

from __future__ import annotations

from dataclasses import dataclass

from langgraph_pgsaga.errors.root import PgSagaError


@dataclass(kw_only=True, eq=False)
class EmbeddedServerError(PgSagaError):
    """The embedded development server can't be used at this path."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"embedded PostgreSQL at {self.path}: {self.problem}"
