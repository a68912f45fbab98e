"""Telling all processes that events were appended."""

from __future__ import annotations

import time

from langgraph_pgsaga.database import Database
from langgraph_pgsaga.work import Notifier

TOPIC = "events"
# Who has been told looks again after 5, 15 and 35 ms.
_EVERY_SECONDS = 0.03


class News:
    """That of a store. It is sent on a connection of its own, never in an append's transaction;
    of one that isn't committed yet it may come too early, and polling finds the events."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._told_at = 0.0

    def tell(self) -> None:
        """There are events; it doesn't wait."""
        now = time.monotonic()
        if now - self._told_at >= _EVERY_SECONDS:
            self._told_at = now
            Notifier.of(self._db).notify(TOPIC)
