"""Where an event stands in the order in which all readers see the events of a tenant."""

from __future__ import annotations

from typing import NamedTuple

import asyncpg

from langgraph_pgsaga._cursor import cursor_of, place_of_cursor
from langgraph_pgsaga.errors import InvalidCursorError

_LISTING = "events"
_TOLD = "an event log"
# As far as the columns go: integer, xid8, bigint.
_MOST = (2**31 - 1, 2**64 - 1, 2**63 - 1)


class EventPlace(NamedTuple):
    """The cluster's era, the transaction after which it is read, and a number within it."""

    era: int
    tx: int
    position: int

    def cursor(self) -> str:
        """The place as opaque text."""
        # Text, since JSON readers don't all have 64 bits.
        return cursor_of(_LISTING, [self.era, str(self.tx), str(self.position)])

    def named(self) -> dict[str, int]:
        """As statements take a place that is reached."""
        return {"era": self.era, "tx": self.tx, "position": self.position}

    def after(self) -> dict[str, int]:
        """As statements take a place behind which they read."""
        return {"after_era": self.era, "after_tx": self.tx, "after_position": self.position}

    @classmethod
    def of_row(cls, row: asyncpg.Record) -> EventPlace:
        """That of a row, in the columns era, tx and position."""
        return cls(row["era"], row["tx"], row["position"])

    @classmethod
    def of_columns(cls, row: asyncpg.Record, prefix: str) -> EventPlace:
        """That of a row that has others, too: `prefix` is "reached", as in reached_era, say."""
        return cls(row[f"{prefix}_era"], row[f"{prefix}_tx"], row[f"{prefix}_position"])

    @classmethod
    def of_cursor(cls, cursor: str | None) -> EventPlace:
        """The inverse; None is the beginning.

        Raises:
            InvalidCursorError: the text is no such cursor.
        """
        if cursor is None:
            return START
        found = place_of_cursor(cursor, _LISTING, _TOLD)
        try:
            era, tx, position = found
            place = cls(int(era), int(tx), int(position))
        except (TypeError, ValueError):
            place = cls(-1, -1, -1)
        if not all(0 <= n <= most for n, most in zip(place, _MOST, strict=True)):
            raise InvalidCursorError(cursor=cursor, problem=f"isn't a cursor of {_TOLD}")
        return place


START = EventPlace(0, 0, 0)
