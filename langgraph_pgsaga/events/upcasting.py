"""Upcasters: event data of an older form, brought up to date as it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from langgraph_pgsaga._arguments import checked_instance, checked_integer, checked_items, shown
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.events.condition import checked_type
from langgraph_pgsaga.events.event import EventType

Upcast = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Upcaster:
    """Makes event data of one form that of the next: of `schema_version` that of the one after.

    What is stored stays as it is. Several chain: of 1 to 2, of 2 to 3.
    """

    event_type: EventType | str
    schema_version: int
    upcast: Upcast

    def __post_init__(self) -> None:
        checked_type("event_type", self.event_type)
        checked_integer("schema_version", self.schema_version, least=1)
        if not callable(self.upcast):
            problem = f"must be a function of a dict that returns a dict, not {shown(self.upcast)}"
            raise InvalidArgumentError(argument="upcast", problem=problem)


class Upcasters:
    """Those of a store, by type and form."""

    def __init__(self, given: Iterable[Upcaster]) -> None:
        self._known: dict[tuple[str, int], Upcast] = {}
        for one in checked_items("upcasters", given):
            checked_instance("upcasters", one, Upcaster, "Pass Upcaster(event_type=...)")
            key = (str(one.event_type), one.schema_version)
            if key in self._known:
                problem = f"there are two of {key[0]!r} for schema version {key[1]}"
                raise InvalidArgumentError(argument="upcasters", problem=problem)
            self._known[key] = one.upcast

    @property
    def identity(self) -> frozenset[tuple[str, int, int]]:
        """The same of those that do the same, as long as one of them lives."""
        return frozenset((*key, id(upcast)) for key, upcast in self._known.items())

    def up_to_date(
        self, event_type: str, schema_version: int, data: dict[str, Any], event_id: str
    ) -> tuple[int, Mapping[str, Any]]:
        """The latest form that there is a way to, and the data in it.

        Raises:
            Whatever an upcaster does, with a note which one it was and at which event.
        """
        while (upcast := self._known.get((event_type, schema_version))) is not None:
            try:
                data = upcast(data)
            except Exception as error:
                error.add_note(
                    f"in the upcaster of {event_type!r} from schema version {schema_version}, at "
                    f"event {event_id!r}. Events of a later form are appended with that "
                    f"schema_version="
                )
                raise
            schema_version += 1
        return schema_version, data
