"""Who waits for news in one event loop: a heap of times, one timer, and no task."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import random
from collections.abc import Callable, Iterable

_log = logging.getLogger("langgraph_pgsaga.work")

LEAST_SECONDS = 0.005
# A poll comes so much before its time at most, so that many processes don't poll together.
_SPREAD = 0.2


class Watch:
    """A consumer's wait: `look` is called once, when there are news or it is time to poll.

    Then the consumer looks, and says by `again` what came of it. News that come in between aren't
    lost: `look` is called once more.
    """

    def __init__(
        self, waiting: Waiting, topic: str, look: Callable[[], None], longest_seconds: float
    ) -> None:
        self.topic = topic
        self.due = 0.0
        self._waiting = waiting
        self._look = look
        self._longest_seconds = longest_seconds
        self._pause = LEAST_SECONDS
        self._is_armed = False
        self._has_news = False

    def again(self, *, found: bool) -> None:
        """Waits for the next time: soon where something was found, else up to longest_seconds."""
        self._pause = LEAST_SECONDS if found else min(self._pause * 2, self._longest_seconds)
        self._is_armed = True
        pause = 0.0 if self._has_news else self._pause * random.uniform(1 - _SPREAD, 1)
        self._waiting.schedule(self, pause)

    def close(self) -> None:
        """Waits no more."""
        self._is_armed = False
        self._waiting.remove(self)

    def news(self) -> None:
        """There are some."""
        self._has_news = True
        if self._is_armed:
            self.call()

    def call(self) -> None:
        """Calls `look`, unless it was called already."""
        if not self._is_armed:
            return
        self._is_armed = self._has_news = False
        try:
            self._look()
        except Exception:
            _log.exception("what waits for %s failed when it was called", self.topic)


class Waiting:
    """The watches of one event loop. Used in its thread only."""

    def __init__(self, on_empty: Callable[[], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self._on_empty = on_empty
        self._watches: dict[str, set[Watch]] = {}
        self._heap: list[tuple[float, int, Watch]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, topic: str, look: Callable[[], None], longest_seconds: float) -> Watch:
        """A new watch, which is called soon for the first time."""
        watch = Watch(self, topic, look, longest_seconds)
        self._watches.setdefault(topic, set()).add(watch)
        watch.again(found=True)
        return watch

    def remove(self, watch: Watch) -> None:
        """The watch was closed; `on_empty` hears of the last one."""
        these = self._watches.get(watch.topic, set())
        these.discard(watch)
        if not these:
            self._watches.pop(watch.topic, None)
        if not self._watches:
            self._heap.clear()
            self._set_timer()
            self._on_empty()

    def is_empty(self) -> bool:
        """Whether nobody watches."""
        return not self._watches

    def schedule(self, watch: Watch, seconds: float) -> None:
        """Has the watch called in so many seconds; what was said before counts no more."""
        watch.due = self.loop.time() + seconds
        heapq.heappush(self._heap, (watch.due, next(self._numbers), watch))
        if self._heap[0][2] is watch:
            self._set_timer()

    def news(self, topics: Iterable[str] | None) -> None:
        """Of these topics there are some; None is of all."""
        for topic in self._watches if topics is None else topics:
            for watch in list(self._watches.get(topic, ())):
                watch.news()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(self._heap[0][0], self._call_due) if self._heap else None

    def _call_due(self) -> None:
        self._timer = None
        now = self.loop.time()
        while self._heap and self._heap[0][0] <= now:
            due, _, watch = heapq.heappop(self._heap)
            if watch.due == due:
                watch.call()
        self._set_timer()
