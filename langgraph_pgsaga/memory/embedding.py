"""Embedder: texts as vectors, by a model of LangChain's or a function of the user's."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from langchain_core.embeddings import Embeddings

from langgraph_pgsaga._arguments import checked_integer, shown
from langgraph_pgsaga.errors import DimensionsError, EmbeddingError, InvalidArgumentError
from langgraph_pgsaga.memory.calling import called

# What a vector may have: halfvec's own limit is that of what pgvector compares.
MOST_DIMENSIONS = 16_000
# Of the numbers that each type holds, half a float's and a float's.
_LARGEST = {"halfvec": 65_504.0, "vector": 3.4028234663852886e38}

Vector: TypeAlias = Sequence[float]
Vectors: TypeAlias = Sequence[Vector]
# A function takes texts and gives as many vectors.
Embed: TypeAlias = (
    Embeddings | Callable[[Sequence[str]], Vectors] | Callable[[Sequence[str]], Awaitable[Vectors]]
)


class Embedder:
    """Makes vectors of texts, by one call for all of them; a sync function runs in a thread.

    Args:
        embed: LangChain's Embeddings, or a function of a list of texts, sync or async.
        dims: how many dimensions its vectors have.
        vector_type: what they are stored as, "halfvec" or "vector".

    Raises:
        InvalidArgumentError: `embed` can't be called, or `dims` isn't within 1 and 16,000.
    """

    def __init__(self, embed: Embed, *, dims: int | None, vector_type: str) -> None:
        if not isinstance(embed, Embeddings) and not callable(embed):
            problem = f"must be LangChain's Embeddings or a function of texts, not {shown(embed)}"
            raise InvalidArgumentError(argument="embed", problem=problem)
        if dims is None:
            problem = "has to be given with embed=: how many dimensions its vectors have"
            raise InvalidArgumentError(argument="dims", problem=problem)
        self.embed = embed
        self._type, self._largest = vector_type, _LARGEST[vector_type]
        # How long a text took at best, of those embedded so far.
        self.fastest_seconds = math.inf
        self.dims = checked_integer("dims", dims, least=1, most=MOST_DIMENSIONS)

    async def of_texts(self, texts: Sequence[str]) -> list[Vector]:
        """The vectors of texts, whose numbers can be stored, of whatever type the model gives.

        Raises:
            EmbeddingError: there are others than one for each text, or a number of them is
                none, or larger than the type holds.
            DimensionsError: one has other dimensions than were said.
        """
        if not texts:
            return []
        begun = time.perf_counter()
        if isinstance(self.embed, Embeddings):
            found: Any = await self.embed.aembed_documents(list(texts))
        else:
            found = await called(self.embed, list(texts))
        taken = (time.perf_counter() - begun) / len(texts)
        self.fastest_seconds = min(self.fastest_seconds, taken)
        return self._checked(found, len(texts))

    async def of_query(self, text: str) -> Vector:
        """The vector that a question is compared by; raises as `of_texts`."""
        if isinstance(self.embed, Embeddings):
            return self._checked([await self.embed.aembed_query(text)], 1)[0]
        return (await self.of_texts([text]))[0]

    def _checked(self, vectors: Any, count: int) -> list[Vector]:
        try:
            rows: list[Vector] = [row if type(row) is list else list(row) for row in vectors]
            # No number is larger than the length, which costs a tenth of looking at each.
            are_held = all(
                math.hypot(*row) <= self._largest or all(map(self._is_held, row)) for row in rows
            )
        except (TypeError, ValueError, OverflowError) as error:
            problem = f"it is {shown(vectors)}, not a list of vectors"
            raise EmbeddingError(problem=problem) from error
        if len(rows) != count:
            raise EmbeddingError(problem=f"it has {len(rows)} vectors for {count} texts")
        for row in rows:
            if len(row) != self.dims:
                raise DimensionsError(given=len(row), expected=self.dims)
        if not are_held:
            problem = (
                f"a number of it is infinite, none (NaN), or larger than {self._type} holds "
                f"({self._largest:g})"
            )
            raise EmbeddingError(problem=problem)
        return rows

    def _is_held(self, number: float) -> bool:
        return abs(number) <= self._largest
