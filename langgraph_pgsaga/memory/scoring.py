"""Scoring: how memories are ranked, and of what."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

from langgraph_pgsaga._arguments import checked_choice, checked_seconds, shown
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.memory.row import Recalled

# A rule of one's own: the score of a memory, by its parts and the time of the recall.
Scorer: TypeAlias = (
    Callable[[Recalled, datetime], float] | Callable[[Recalled, datetime], Awaitable[float]]
)
Form = Literal["normalised", "plain", "ranks"]

_FORMS = ("normalised", "plain", "ranks")
_DAY = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """The weights of what a memory's score is made of.

    `text` is BM25 over the words of query and memory, `semantic` the cosine similarity of their
    vectors, `recency` halves in `half_life_seconds` since the last access, `importance` is the
    memory's own. With the form "normalised" each goes from 0 to 1 over the memories of the
    query, with "plain" it stays as it is (words relative to the best), with "ranks" it is 1 / (60 +
    the rank by it).
    """

    text: float = 0.0
    semantic: float = 0.0
    recency: float = 0.0
    importance: float = 0.0
    form: Form = "normalised"
    half_life_seconds: float = 7 * _DAY

    def __post_init__(self) -> None:
        for name in ("text", "semantic", "recency", "importance"):
            checked_number(name, getattr(self, name))
        checked_choice("form", self.form, _FORMS)
        checked_seconds("half_life_seconds", self.half_life_seconds, least=1e-6)


def check_scorer(given: Any) -> None:
    """Refuses what can't be called with a memory and a time."""
    if callable(given) and not isinstance(given, type):
        with suppress(TypeError, ValueError):
            inspect.signature(given).bind(object(), object())
            return
    problem = f"must be a Scoring, or a function of a Recalled and a time, not {shown(given)}"
    raise InvalidArgumentError(argument="scoring", problem=problem)


def checked_number(argument: str, given: Any) -> float:
    """A finite number."""
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    if not is_number or not abs(given) < 2**63 or not math.isfinite(given):
        problem = f"must be a finite number, not {shown(given)}"
        raise InvalidArgumentError(argument=argument, problem=problem)
    return float(given)


# Both, each from its least to its greatest: the default of a query. Vectors count half, so that
# those of a weak model take nothing from what words find.
HYBRID = Scoring(text=1.0, semantic=0.5)
TEXT = Scoring(text=1.0)
SEMANTIC = Scoring(semantic=1.0)
# Reciprocal rank fusion (Cormack, Clarke, Büttcher 2009).
RANKS = Scoring(text=1.0, semantic=1.0, form="ranks")
# Park et al. 2023: recency decays by 0.995 an hour since the last access.
GENERATIVE_AGENTS = Scoring(
    semantic=1.0,
    recency=1.0,
    importance=1.0,
    half_life_seconds=3600 * math.log(0.5) / math.log(0.995),
)
# Without a query.
IMPORTANCE = Scoring(importance=1.0, form="plain")
