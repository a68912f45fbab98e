"""Recall: a question to the memories of some scopes, answered by one statement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from langgraph_pgsaga.database import Connection, Database, Statement, load_statements
from langgraph_pgsaga.errors import DimensionsError, InvalidArgumentError
from langgraph_pgsaga.memory.remembering import Vectors
from langgraph_pgsaga.memory.row import Recalled
from langgraph_pgsaga.memory.scoring import HYBRID, IMPORTANCE, Scorer, Scoring, check_scorer
from langgraph_pgsaga.memory.vector_tables import VectorKind, VectorTables

# Up to here all vectors of the scopes are compared, whatever index there is.
_MOST_EXACT = 2_000
_FETCHED_TIMES, _FETCHED_MORE, _MOST_NEAREST = 4, 100, 200
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
        self, db: Database, vectors: Vectors | None, conn: Connection | None, tables: VectorTables
    ) -> Candidates:
        """The best memories, by the vector of the query, too, where there is one."""
        named = self._named()
        if vectors is None:
            return _found(await db.fetch(_BY_WORDS.bind(**named), conn=conn))
        named |= {"model": vectors.model, "vector": vectors.values}
        if near := await self._nearest(db, vectors, conn, tables):
            statement = _statement("recall_nearest").bind(
                **named,
                near_scope_ids=[row["scope_id"] for row in near],
                near_ids=[row["memory_id"] for row in near],
            )
            rows = await db.fetch(statement, conn=conn)
            # Some of them may be live no more, or of other types.
            if len(rows) == self.k:
                return _found(rows)
        statement = _statement("recall_by_vectors").bind(**named)
        rows = await db.fetch(statement, conn=conn)
        if rows and rows[0]["other_dims"] is not None:
            raise DimensionsError(given=vectors.dims, expected=rows[0]["other_dims"])
        return _found(rows)

    @property
    def _fetched(self) -> int:
        """What of an approximate index is asked for, which is more than is needed."""
        return self.k * _FETCHED_TIMES + _FETCHED_MORE

    async def _nearest(
        self, db: Database, vectors: Vectors, conn: Connection | None, tables: VectorTables
    ) -> Sequence[asyncpg.Record]:
        """The memories that are near the query by the approximate index; none where all vectors of
        the scopes are to be compared.

        So it is in small scopes, where nothing is quicker; where there is no index; and where
        something else counts, which is looked for in all of a scope, and takes as long as vectors.
        """
        rule = self.scoring
        goes_by_more = rule.recency or rule.importance or (rule.text and self.query)
        if goes_by_more or rule.semantic <= 0 or self.as_of is not None:
            return ()
        if self.k > _MOST_NEAREST:
            return ()
        kind = VectorKind(vectors.model, vectors.dims, vectors.is_half)
        if not await tables.has_index(kind):
            return ()
        count = _statement("count_memories").bind(scope_ids=self.scopes, most=_MOST_EXACT + 1)
        (row,) = await db.fetch(count, conn=conn)
        if row["memories"] <= _MOST_EXACT:
            return ()
        statement = _statement("list_nearest").bind(
            scope_ids=self.scopes,
            model=vectors.model,
            vector=vectors.values,
            is_half=vectors.is_half,
            fetched=self._fetched,
        )
        return await db.fetch(statement, conn=conn)

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


def _statement(name: str) -> Statement:
    return load_statements("memory_vectors")[name]
