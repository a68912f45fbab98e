"""Recall: a question to the memories of some scopes, answered by one statement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from langgraph_pgsaga.database import Connection, Database, load_statements
from langgraph_pgsaga.errors import DimensionsError, InvalidArgumentError
from langgraph_pgsaga.memory.remembering import Vectors
from langgraph_pgsaga.memory.row import Recalled
from langgraph_pgsaga.memory.scoring import HYBRID, IMPORTANCE, Scorer, Scoring, check_scorer

_BY_WORDS = load_statements("memory")["recall_by_words"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """What a recall found, the best first, and the time that recency was counted to."""

    found: tuple[Recalled, ...]
    moment: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """What is asked: of which scopes and types, by which words, and at which time."""

    scopes: Sequence[UUID]
    types: Sequence[str] | None
    language: str
    query: str
    scoring: Scoring
    k: int
    now: datetime | None
    as_of: datetime | None

    async def run(
        self, db: Database, vectors: Vectors | None, conn: Connection | None
    ) -> Candidates:
        """The best memories, by the vector of the query, too, where there is one."""
        named = self._named()
        if vectors is None:
            return _found(await db.fetch(_BY_WORDS.bind(**named), conn=conn))
        by_vectors = load_statements("memory_vectors")["recall_by_vectors"]
        statement = by_vectors.bind(**named, model=vectors.model, vector=vectors.values)
        rows = await db.fetch(statement, conn=conn)
        if rows and rows[0]["other_dims"] is not None:
            raise DimensionsError(given=vectors.dims, expected=rows[0]["other_dims"])
        return _found(rows)

    def _named(self) -> dict[str, Any]:
        return {
            "scope_ids": self.scopes,
            "types": self.types,
            "language": self.language,
            # Words that don't count aren't looked for.
            "query": self.query if self.scoring.text else "",
            "moment": self.now,
            "as_of": self.as_of,
            "form": self.scoring.form,
            "text_weight": float(self.scoring.text),
            "semantic_weight": float(self.scoring.semantic),
            "recency_weight": float(self.scoring.recency),
            "importance_weight": float(self.scoring.importance),
            "half_life": float(self.scoring.half_life_seconds),
            "k": self.k,
        }


def scoring_of(given: Scoring | Scorer | None, query: str | None, *, has_vectors: bool) -> Scoring:
    """The rule of a call: what it was given, else, also for a function, the usual one.

    Raises:
        InvalidArgumentError: it is no rule; or it goes by vectors alone, and there are none.
    """
    usual = IMPORTANCE if query is None else HYBRID
    if given is None:
        return usual
    if not isinstance(given, Scoring):
        check_scorer(given)
        return usual
    is_by_vectors = bool(given.semantic) and not (given.text or given.recency or given.importance)
    if is_by_vectors and not has_vectors:
        problem = "goes by vectors alone, and this memory was made without embed="
        raise InvalidArgumentError(argument="scoring", problem=problem)
    return given


def _found(rows: Sequence[asyncpg.Record]) -> Candidates:
    found = tuple(Recalled.from_row(row) for row in rows)
    return Candidates(found=found, moment=rows[0]["moment"] if rows else None)
