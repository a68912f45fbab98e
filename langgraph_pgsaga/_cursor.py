"""Where a page ended, as opaque text that is good for the listing it comes from only."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from langgraph_pgsaga import _json
from langgraph_pgsaga.errors import CorruptValueError, InvalidCursorError


def cursor_of(listing: str, place: Sequence[str | int | None]) -> str:
    """The cursor of a place in a listing, which is named by its order, or by its filters."""
    return base64.urlsafe_b64encode(_json.dump([listing, *place]).encode()).decode()


def place_of_cursor(cursor: str, listing: str, told: str) -> list[Any]:
    """The inverse. `told` says which listing it is, as in "a listing by activity".

    What the place is made of is the caller's to check: whoever knows the form can make one.

    Raises:
        InvalidCursorError: the text is no cursor, or one of another listing.
    """
    place: list[Any]
    try:
        found = _json.load(base64.b64decode(cursor.encode(), b"-_", validate=True).decode())
        of_listing, *place = found
        is_cursor = isinstance(of_listing, str) and cursor_of(of_listing, place) == cursor
    except (AttributeError, CorruptValueError, TypeError, ValueError):  # binascii's, too
        is_cursor = False
    if not is_cursor:
        # Not from the error, which may quote all of what was given.
        raise InvalidCursorError(cursor=cursor, problem="isn't a cursor of a listing")
    if of_listing != listing:
        raise InvalidCursorError(cursor=cursor, problem=f"isn't a cursor of {told}")
    return place
