"""A batch's operations: checked, told apart, and of those that put the last on each key."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from langgraph.store.base import GetOp, ListNamespacesOp, Op, PutOp, SearchOp

from langgraph_pgsaga import _json
from langgraph_pgsaga._arguments import (
    checked_integer,
    checked_items,
    required_text,
    shown,
)
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.memory.filters import Filter, compiled
from langgraph_pgsaga.memory.namespaces import check_namespaces, stored_namespace

_LARGEST = 2**62
_MOST_MINUTES = 10_000_000.0
_KINDS = (PutOp, GetOp, SearchOp, ListNamespacesOp)
Place = tuple[str, str]


class VersionedPut(PutOp):
    """A PutOp that is done only where the item has the expected version; 0 is where there is none.

    One of a batch that isn't done refuses the whole batch.
    """

    expected_version: int

    def __new__(
        cls,
        namespace: tuple[str, ...],
        key: str,
        value: Any,
        index: Literal[False] | list[str] | None = None,
        ttl: float | None = None,
        *,
        expected_version: int,
    ) -> VersionedPut:
        made = super().__new__(cls, namespace, key, value, index, ttl)
        checked_integer("expected_version", expected_version, least=0, most=_LARGEST)
        made.expected_version = expected_version
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """What is stored at a place, as statements take it; a value of None is a deletion."""

    namespace: str
    key: str
    value: str | None
    ttl_minutes: float | None
    expected_version: int | None
    op: PutOp = field(repr=False)

    @classmethod
    def of(cls, op: PutOp) -> Put:
        """The put of an operation.

        Raises:
            InvalidArgumentError, UnstorableValueError: it can't be stored.
        """
        return cls(
            namespace=stored_namespace(op.namespace),
            key=op.key,
            value=None if op.value is None else _json.dump_object(op.value),
            ttl_minutes=checked_minutes("ttl", op.ttl),
            expected_version=getattr(op, "expected_version", None),
            op=op,
        )

    @property
    def place(self) -> Place:
        """What it is stored by, and locked in the order of."""
        return self.namespace, self.key


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """The operations of a batch by kind, each with its place in the batch."""

    count: int
    gets: list[tuple[int, GetOp]]
    searches: list[tuple[int, SearchOp, Filter]]
    listings: list[tuple[int, ListNamespacesOp]]
    puts: list[Put]

    @classmethod
    def of(cls, ops: Iterable[Op]) -> Operations:
        """All of them, before anything is done.

        Raises:
            InvalidNamespaceError, InvalidArgumentError, UnstorableValueError: one can't be done.
        """
        given = checked_items("ops", ops)
        made = cls(count=len(given), gets=[], searches=[], listings=[], puts=[])
        puts: dict[Place, Put] = {}
        for number, op in enumerate(given):
            if not isinstance(op, _KINDS):
                problem = f"must be a GetOp, SearchOp, PutOp or ListNamespacesOp, not {shown(op)}"
                raise InvalidArgumentError(argument=f"ops[{number}]", problem=problem)
            check_namespaces(op)
            if isinstance(op, GetOp):
                required_text("key", op.key)
                made.gets.append((number, op))
            elif isinstance(op, SearchOp):
                made.searches.append((number, op, _checked_search(op)))
            elif isinstance(op, ListNamespacesOp):
                _check_listing(op)
                made.listings.append((number, op))
            else:
                required_text("key", op.key)
                put = Put.of(op)
                puts[put.place] = put
        made.puts.extend(puts[place] for place in sorted(puts, key=_stored_order))
        return made


def checked_minutes(argument: str, minutes: Any) -> float | None:
    """How long an item lives; None is for ever."""
    if minutes is None:
        return None
    is_number = isinstance(minutes, int | float) and not isinstance(minutes, bool)
    if not is_number or not 0 < minutes <= _MOST_MINUTES or math.isnan(minutes):
        problem = (
            f"must be a number of minutes above 0 and up to {_MOST_MINUTES:,.0f}, or None for "
            f"no end, not {shown(minutes)}"
        )
        raise InvalidArgumentError(argument=argument, problem=problem)
    return float(minutes)


def _stored_order(place: Place) -> tuple[bytes, bytes]:
    return place[0].encode(), place[1].encode()


def _checked_search(op: SearchOp) -> Filter:
    checked_integer("limit", op.limit, least=0, most=_LARGEST)
    checked_integer("offset", op.offset, least=0, most=_LARGEST)
    if op.query is not None:
        required_text("query", op.query)
    return compiled(op.filter)


def _check_listing(op: ListNamespacesOp) -> None:
    checked_integer("limit", op.limit, least=0, most=_LARGEST)
    checked_integer("offset", op.offset, least=0, most=_LARGEST)
    if op.max_depth is not None:
        checked_integer("max_depth", op.max_depth, least=1)
