"""Embedder: texts as vectors, by a model of LangChain's or a function of the user's."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeAlias, cast

from langchain_core.embeddings import Embeddings

from langgraph_pgsaga._arguments import checked_integer, shown
from langgraph_pgsaga.errors import DimensionsError, EmbeddingError, InvalidArgumentError
from langgraph_pgsaga.memory.calling import called

# What a vector may have: halfvec's own limit is that of what pgvector compares.
MOST_DIMENSIONS = 16_000

Vectors: TypeAlias = Sequence[Sequence[float]]
# A function takes texts and gives as many vectors.
Embed: TypeAlias = (
    Embeddings | Callable[[Sequence[str]], Vectors] | Callable[[Sequence[str]], Awaitable[Vectors]]
)


class Embedder:
    """Makes vectors of texts, by one call for all of them; a sync function runs in a thread.

    Args:
        embed: LangChain's Embeddings, or a function of a list of texts, sync or async.
        dims: how many dimensions its vectors have.

    Raises:
        InvalidArgumentError: `embed` can't be called, or `dims` isn't within 1 and 16,000.
    """

    def __init__(self, embed: Embed, *, dims: int | None) -> None:
        if not isinstance(embed, Embeddings) and not callable(embed):
            problem = f"must be LangChain's Embeddings or a function of texts, not {shown(embed)}"
            raise InvalidArgumentError(argument="embed", problem=problem)
        if dims is None:
            problem = "has to be given with embed=: how many dimensions its vectors have"
            raise InvalidArgumentError(argument="dims", problem=problem)
        self._embed = embed
        self.dims = checked_integer("dims", dims, least=1, most=MOST_DIMENSIONS)

    async def of_texts(self, texts: Sequence[str]) -> list[float]:
        """The vectors of texts, one after the other.

        Raises:
            EmbeddingError: there are others than one for each text, or they aren't all finite.
            DimensionsError: one has other dimensions than were said.
        """
        if not texts:
            return []
        if isinstance(self._embed, Embeddings):
            found: Any = await self._embed.aembed_documents(list(texts))
        else:
            found = await called(self._embed, list(texts))
        return self._flat(found, len(texts))

    async def of_query(self, text: str) -> list[float]:
        """The vector that a question is compared by; raises as `of_texts`."""
        if isinstance(self._embed, Embeddings):
            return self._flat([await self._embed.aembed_query(text)], 1)
        return await self.of_texts([text])

    def _flat(self, vectors: Any, count: int) -> list[float]:
        try:
            rows = [[float(value) for value in cast("Iterable[Any]", row)] for row in vectors]
        except (TypeError, ValueError) as error:
            problem = f"it is {shown(vectors)}, not a list of vectors"
            raise EmbeddingError(problem=problem) from error
        if len(rows) != count:
            raise EmbeddingError(problem=f"it has {len(rows)} vectors for {count} texts")
        for row in rows:
            if len(row) != self.dims:
                raise DimensionsError(given=len(row), expected=self.dims)
        flat = [value for row in rows for value in row]
        if not all(map(math.isfinite, flat)):
            raise EmbeddingError(problem="a number of it is infinite, or none (NaN)")
        return flat
