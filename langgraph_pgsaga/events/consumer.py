"""Consumer and Projection: what is to be done with the events of a log, from a place on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from langgraph_pgsaga._arguments import (
    checked_flag,
    checked_instance,
    checked_integer,
    checked_items,
    required_text,
    shown,
)
from langgraph_pgsaga.errors import InvalidArgumentError, InvalidCursorError
from langgraph_pgsaga.events.condition import checked_name, checked_tags, checked_types
from langgraph_pgsaga.events.event import EventType
from langgraph_pgsaga.events.place import START, EventPlace
from langgraph_pgsaga.work import Retry

BEGINNING = "beginning"
END = "end"
_MOST_PARTITIONS = 256
MOST_IN_BATCH = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """Calls a handler with each event of a tenant's log, whichever worker runs it.

    How far it has come is a row by its name, so it goes on there after every restart. An event
    is given again where the worker died before that was written: it is given at least once, and
    its `event_id` is the key by which something outside is done once. A handler that raises has
    the event tried again as `retry` says, and then it is a dead letter. Later events of that
    aggregate wait for it meanwhile, those of others don't.

    Args:
        name: whose place it is. Another name begins anew.
        handler: is given an event, or with `in_batches` a sequence of some; async, or sync, which
            runs in a thread. One batch after the other in each partition.
        types, tags, aggregate_types: only events of one of the types, with all of the tags, of
            one of these types of aggregates.
        start_from: where a name that isn't known yet begins: "beginning", "end" (with what
            is appended from its first start on), or a cursor.
        retry: how often an event is tried, and when.
        partitions: how many share the aggregates, each worked at by one worker at a time; the
            events of an aggregate keep their order, and with one partition all do. For good.
        in_batches: whether the handler takes several events at once. One that raises is given
            parts of the batch, down to the event that can't be handled, alone.
        batch: how many events at most are read at once, and handled before that is written.
    """

    name: str
    handler: Callable[..., Any] = field(repr=False)
    types: Iterable[EventType | str] | None = None
    tags: Iterable[str] | None = None
    aggregate_types: Iterable[str] | None = None
    start_from: str = BEGINNING
    retry: Retry = field(default_factory=Retry)
    partitions: int = 1
    in_batches: bool = False
    batch: int = 2000

    is_projection: ClassVar[bool] = False

    def __post_init__(self) -> None:
        checked_name("name", self.name)
        if isinstance(self.handler, type) or not callable(self.handler):
            problem = f"must be a function, sync or async, not {shown(self.handler)}"
            raise InvalidArgumentError(argument="handler", problem=problem)
        _check_takes(self.handler, ["event", "conn"] if self.is_projection else ["event"])
        checked_instance("retry", self.retry, Retry, "Pass Retry(attempts=5), say")
        checked_integer("partitions", self.partitions, least=1, most=_MOST_PARTITIONS)
        checked_integer("batch", self.batch, least=1, most=MOST_IN_BATCH)
        checked_flag("in_batches", self.in_batches)
        for argument, check in (
            ("types", checked_types),
            ("tags", checked_tags),
            ("aggregate_types", _checked_names),
        ):
            if (given := getattr(self, argument)) is not None:
                object.__setattr__(self, argument, tuple(check(argument, given)))
        self.place()

    def place(self) -> EventPlace | None:
        """Where it begins; None is the end.

        Raises:
            InvalidArgumentError: `start_from` is neither a word nor a cursor.
        """
        if required_text("start_from", self.start_from) == END:
            return None
        if self.start_from == BEGINNING:
            return START
        try:
            return EventPlace.of_cursor(self.start_from)
        except InvalidCursorError:
            problem = (
                f"must be {BEGINNING!r}, {END!r} or a cursor of the log, such as an event's, "
                f"not {shown(self.start_from)}"
            )
            raise InvalidArgumentError(argument="start_from", problem=problem) from None

    def asked(self) -> dict[str, list[str] | None]:
        """The filters as statements take them; None, and no tags, is no filter."""
        return {
            "types": None if self.types is None else [str(one) for one in self.types],
            "tags": list(self.tags or ()) or None,
        }

    @property
    def is_async(self) -> bool:
        """Whether the handler is awaited, rather than called in a thread."""
        return inspect.iscoroutinefunction(self.handler) or inspect.iscoroutinefunction(
            getattr(self.handler, "__call__", None)  # noqa: B004
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection(Consumer):
    """A Consumer whose effects are rows of this database, each event's exactly once.

    `handler(event, conn)` (with `in_batches`: `handler(events, conn)`) is async and writes by
    `conn`, in the transaction that also writes how far the projection has come, by a worker that
    has the claim: all of it is stored or nothing. Some events share a transaction. What it does
    otherwise than by `conn` may be done several times.
    """

    is_projection: ClassVar[bool] = True

    def __post_init__(self) -> None:
        Consumer.__post_init__(self)
        if not self.is_async:
            problem = "must be async: async def handler(event, conn): await conn.execute(...)"
            raise InvalidArgumentError(argument="handler", problem=problem)


def _check_takes(handler: Callable[..., Any], given: list[str]) -> None:
    """Found here, since a handler that can't be called would make a dead letter of each event."""
    try:
        signature = inspect.signature(handler)
    except ValueError:
        return  # some builtins have none
    try:
        signature.bind(*given)
    except TypeError:
        problem = f"is called as handler({', '.join(given)}), and takes {signature}"
        if len(given) == 1:
            problem += ". One that writes by conn is a Projection's"
        raise InvalidArgumentError(argument="handler", problem=problem) from None


def _checked_names(argument: str, given: Iterable[str]) -> list[str]:
    return [checked_name(argument, one) for one in checked_items(argument, given)]
