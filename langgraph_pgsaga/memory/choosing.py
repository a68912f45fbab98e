"""Choice: which of the memories that a recall found are given, and in which order."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from langgraph_pgsaga._arguments import checked_integer, shown
from langgraph_pgsaga.database import Connection, Database, load_statements
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.memory.calling import is_async
from langgraph_pgsaga.memory.recalling import Candidates
from langgraph_pgsaga.memory.row import Recalled
from langgraph_pgsaga.memory.scoring import Scorer, Scoring, checked_number

_FETCHED, _FETCHED_TIMES, _MOST_FETCHED = 20, 4, 10_000
# Each is compared with each.
_MOST_COMPARED = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """`k` of the `fetched` best: by a function's scores, and by how they differ."""

    k: int
    fetched: int
    scorer: Scorer | None
    lambda_mult: float | None

    @classmethod
    def of(
        cls,
        *,
        k: int,
        scorer: Any,
        lambda_mult: float | None,
        fetch_k: int | None,
        has_vectors: bool,
    ) -> Choice:
        """The choice of a call; without a function and `lambda_mult` it is what was found.

        Raises:
            InvalidArgumentError: `lambda_mult` isn't within 0 and 1, or there are no vectors;
                `fetch_k` goes with nothing, or is below `k`.
        """
        if lambda_mult is not None:
            if not 0 <= checked_number("lambda_mult", lambda_mult) <= 1:
                problem = f"must be from 0 to 1, not {lambda_mult}"
                raise InvalidArgumentError(argument="lambda_mult", problem=problem)
            if not has_vectors:
                problem = "compares vectors, and this memory was made without embed="
                raise InvalidArgumentError(argument="lambda_mult", problem=problem)
        if scorer is None and lambda_mult is None:
            if fetch_k is not None:
                problem = "goes with lambda_mult=, or a function as scoring="
                raise InvalidArgumentError(argument="fetch_k", problem=problem)
            return cls(k=k, fetched=k, scorer=None, lambda_mult=None)
        most = _MOST_FETCHED if lambda_mult is None else max(_MOST_COMPARED, k)
        if fetch_k is None:
            fetch_k = max(k, min(most, max(_FETCHED, _FETCHED_TIMES * k)))
        fetched = checked_integer("fetch_k", fetch_k, least=k, most=most)
        return cls(k=k, fetched=fetched, scorer=scorer, lambda_mult=lambda_mult)

    async def made(
        self,
        db: Database,
        candidates: Candidates,
        model: str,
        rule: Scoring,
        conn: Connection | None,
    ) -> tuple[Recalled, ...]:
        """The memories that are given, the first first."""
        found = candidates.found
        if self.scorer is not None and candidates.moment is not None:
            found = await _scored(self.scorer, found, candidates.moment)
        if self.lambda_mult is None or len(found) < 2:
            return found[: self.k]
        near = await _similarities(db, found, model, conn)
        is_cosine = self.scorer is None and rule == Scoring(semantic=rule.semantic, form=rule.form)
        relevant = [one.semantic or 0.0 for one in found] if is_cosine else _shares(found)
        places = diverse(relevant, near, k=self.k, lambda_mult=self.lambda_mult)
        return tuple(found[place] for place in places)


def diverse(
    relevant: Sequence[float], near: Sequence[Sequence[float]], *, k: int, lambda_mult: float
) -> list[int]:
    """The places of `k` that are relevant and differ (Carbonell and Goldstein 1998), in the order
    of their choice.

    Each is the one whose relevance, times lambda_mult, less its greatest similarity to those
    chosen before, times the rest, is the greatest. The first is the most relevant.

    Args:
        relevant: how relevant each is; near: how similar each is to each.
    """
    left = list(range(len(relevant)))
    chosen: list[int] = []
    nearest = [0.0] * len(relevant)
    while left and len(chosen) < k:
        if chosen:
            weights = (lambda_mult, 1 - lambda_mult)
            best = max(left, key=lambda p: weights[0] * relevant[p] - weights[1] * nearest[p])
        else:
            best = max(left, key=relevant.__getitem__)
        for place in left:
            similar = near[place][best]
            nearest[place] = max(nearest[place], similar) if chosen else similar
        left.remove(best)
        chosen.append(best)
    return chosen


async def _scored(
    scorer: Scorer, found: Sequence[Recalled], moment: datetime
) -> tuple[Recalled, ...]:
    """By the scores of a function: a sync one is called in a thread, once for all of them."""

    def called() -> list[Any]:
        return [scorer(one, moment) for one in found]

    given = called() if is_async(scorer) else await asyncio.to_thread(called)
    if any(inspect.isawaitable(score) for score in given):
        given = await asyncio.gather(*given)
    for score in given:
        try:
            checked_number("scoring", score)
        except InvalidArgumentError:
            problem = f"gave {shown(score)} as a score, which is no finite number"
            raise InvalidArgumentError(argument="scoring", problem=problem) from None
    scored = [replace(one, score=float(s)) for one, s in zip(found, given, strict=True)]
    return tuple(sorted(scored, key=lambda one: -one.score))


def _shares(found: Sequence[Recalled]) -> list[float]:
    """Their scores, from the least to the greatest as 0 to 1."""
    scores = [one.score for one in found]
    least, most = min(scores), max(scores)
    return [(score - least) / (most - least) if most > least else 1.0 for score in scores]


async def _similarities(
    db: Database, found: Sequence[Recalled], model: str, conn: Connection | None
) -> list[list[float]]:
    """How similar each is to each; what has no vector is to none."""
    statement = load_statements("memory_vectors")["compare_memories"].bind(
        scope_ids=[one.memory.scope_id for one in found],
        memory_ids=[one.memory.memory_id for one in found],
        model=model,
    )
    near = [[0.0] * len(found) for _ in found]
    for row in await db.fetch(statement, conn=conn):
        for place, similarity in zip(row["others"], row["similarities"], strict=True):
            near[row["place"] - 1][place - 1] = similarity
    return near
