"""How a store's items are indexed for searches by meaning: LangGraph's settings, checked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from langgraph.store.base import PutOp, ensure_embeddings, get_text_at_path, tokenize_path

from langgraph_pgsaga import _json
from langgraph_pgsaga._arguments import (
    check_options,
    checked_choice,
    checked_integer,
    checked_mapping,
    checked_texts,
)
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.memory.embedding import Embedder

_DISTANCES = {"cosine": 1, "l2": 2, "inner_product": 3}
# What pgvector's approximate indexes take.
_MOST_INDEXED = {"halfvec": 4000, "vector": 2000}
_SETTINGS = {
    "hnsw": {"m": "m", "ef_construction": "ef_construction"},
    "ivfflat": {"nlist": "lists"},
}


class ApproximateIndex(TypedDict, total=False):
    """LangGraph's ann_index_config; what is of another kind than `kind` isn't used."""

    kind: Literal["hnsw", "ivfflat", "flat"]
    vector_type: Literal["vector", "halfvec"]
    m: int
    ef_construction: int
    nlist: int


class StoreIndex(TypedDict, total=False):
    """LangGraph's settings of an index, as its PostgresStore takes them."""

    dims: int
    embed: Any
    fields: list[str] | None
    distance_type: Literal["l2", "inner_product", "cosine"]
    ann_index_config: ApproximateIndex


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """The settings of a store's index.

    `settings` are those of an approximate index, as SQL has them.
    """

    embedder: Embedder
    fields: tuple[str, ...]
    distance: str
    vector_type: str
    kind: str
    settings: str

    @classmethod
    def of(cls, given: Any) -> Index | None:
        """The index of LangGraph's settings; None is none.

        Raises:
            InvalidArgumentError: a setting can't be used.
        """
        if given is None:
            return None
        config = dict(checked_mapping("index", given))
        check_options("index", config, list(StoreIndex.__annotations__))
        for name in ("dims", "embed"):
            if config.get(name) is None:
                raise InvalidArgumentError(argument=f"index[{name!r}]", problem="must be given")
        fields = config.get("fields") or ["$"]
        approximate = dict(checked_mapping("ann_index_config", config.get("ann_index_config", {})))
        check_options("ann_index_config", approximate, list(ApproximateIndex.__annotations__))
        embed = config["embed"]
        embed = ensure_embeddings(embed) if isinstance(embed, str) else embed
        vector_type = checked_choice(
            "vector_type", approximate.get("vector_type", "halfvec"), _MOST_INDEXED
        )
        made = cls(
            embedder=Embedder(embed, dims=config["dims"], vector_type=vector_type),
            fields=tuple(checked_texts("fields", [fields] if isinstance(fields, str) else fields)),
            distance=checked_choice(
                "distance_type", config.get("distance_type", "cosine"), _DISTANCES
            ),
            vector_type=vector_type,
            kind=checked_choice("kind", approximate.get("kind", "flat"), ("flat", *_SETTINGS)),
            settings=_settings(approximate),
        )
        made.check_dims()
        return made

    @property
    def dims(self) -> int:
        """Of each vector."""
        return self.embedder.dims

    @property
    def stored_type(self) -> str:
        """What the table's vectors are."""
        return f"{self.vector_type}({self.dims})"

    @property
    def distance_number(self) -> int:
        """As `search_exactly` takes it."""
        return _DISTANCES[self.distance]

    def check_dims(self) -> None:
        """InvalidArgumentError where an approximate index can't have that many."""
        most = _MOST_INDEXED[self.vector_type]
        if self.kind != "flat" and self.dims > most:
            problem = (
                f"an approximate index of {self.vector_type} has up to {most} dimensions, not "
                f"{self.dims}; leave ann_index_config out, and searches are exact"
            )
            raise InvalidArgumentError(argument="dims", problem=problem)

    async def queries(self, queries: Sequence[str]) -> list[str]:
        """The vectors of what is searched for, which some models embed in another way, as text."""
        vectors = await asyncio.gather(*map(self.embedder.of_query, queries))
        return [_json.dump([float(number) for number in vector]) for vector in vectors]

    def texts_of(self, op: PutOp) -> Iterator[tuple[str, str]]:
        """The texts of an item that are indexed, each with its path."""
        if op.value is None or op.index is False:
            return
        paths = self.fields if op.index is None else checked_texts("index", op.index)
        value = dict(op.value)
        for path in paths:
            texts = get_text_at_path(value, "$" if path == "$" else tokenize_path(path))
            for number, text in enumerate(texts):
                yield (path if len(texts) == 1 else f"{path}.{number}"), text


def _settings(approximate: Mapping[str, Any]) -> str:
    names = _SETTINGS.get(str(approximate.get("kind", "flat")), {})
    given = {names[name]: approximate[name] for name in names if name in approximate}
    return ", ".join(
        f"{name} = {checked_integer(name, value, least=1)}" for name, value in given.items()
    )
