"""What agents keep across threads: what the store and the memory refuse."""

from __future__ import annotations

from dataclasses import dataclass

from langgraph_pgsaga.errors.root import InvalidArgumentError, PgSagaError


@dataclass(kw_only=True, eq=False)
class InvalidFilterError(InvalidArgumentError, ValueError):
    """A filter of a search that can't be used; `argument` is the place in it."""


@dataclass(kw_only=True, eq=False)
class ItemConflictError(PgSagaError):
    """An item of the store isn't at the version that was expected. Nothing was stored.

    `actual` is 0 where there is none.
    """

    namespace: tuple[str, ...]
    key: str
    expected: int
    actual: int

    def __str__(self) -> str:
        return (
            f"item {self.key!r} in {self.namespace!r} is at version {self.actual}, and expected "
            f"was {self.expected}. Get it again, change what it then is, and put that with its "
            "version"
        )


@dataclass(kw_only=True, eq=False)
class MissingMemoryError(PgSagaError):
    """There is no such live memory in the scope: another has superseded it, or it was forgotten."""

    memory_id: str

    def __str__(self) -> str:
        return (
            f"memory {self.memory_id!r} isn't there, or isn't live any more, for this user and "
            "thread. Nothing was stored"
        )


@dataclass(kw_only=True, eq=False)
class EmbeddingError(PgSagaError):
    """What an embedding function gave can't be used."""

    problem: str

    def __str__(self) -> str:
        return f"the embedding can't be used: {self.problem}"


@dataclass(kw_only=True, eq=False)
class DimensionsError(EmbeddingError):
    """A vector has `given` dimensions, where `expected` are meant, or are there."""

    problem: str = "it is of another model"
    given: int
    expected: int

    def __str__(self) -> str:
        return (
            f"a vector has {self.given} dimensions, and {self.expected} are expected: "
            f"{self.problem}. Pass dims= as the model has it; another model gets a name of its own "
            "(model=)"
        )


@dataclass(kw_only=True, eq=False)
class MissingVectorsError(PgSagaError):
    """The database has no tables of vectors: the server has no pgvector, or they weren't made."""

    detail: str

    def __str__(self) -> str:
        return f"there are no vectors here: {self.detail}"


@dataclass(kw_only=True, eq=False)
class VectorTypeError(PgSagaError):
    """The database has vectors of another type or length than the store is to have."""

    stored: str
    wanted: str

    def __str__(self) -> str:
        return (
            f"the store's vectors here are {self.stored}, and the index says {self.wanted}. Give "
            "the index those dims and that vector_type, or make a store in another schema"
        )
