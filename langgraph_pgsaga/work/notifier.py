"""Notifier: news between processes, by LISTEN and NOTIFY, and polling where they don't come."""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from langgraph_pgsaga import _fork
from langgraph_pgsaga._arguments import checked_instance, checked_seconds, required_text
from langgraph_pgsaga._pause import pause
from langgraph_pgsaga._process_bound import ProcessBound
from langgraph_pgsaga.database import Database, load_statements
from langgraph_pgsaga.errors import ClosedError, InvalidArgumentError
from langgraph_pgsaga.work.error_text import described
from langgraph_pgsaga.work.retry import Retry
from langgraph_pgsaga.work.waiting import LEAST_SECONDS, Waiting, Watch

_log = logging.getLogger("langgraph_pgsaga.work")
_NOTIFY = load_statements("work")["notify"]
# One for all topics, also of databases with several schemas: news too many cost a poll.
_CHANNEL = "pgsaga"
_EVERY_SECONDS = 0.015
_AFTER_ERROR_SECONDS = 1.0
_LONGEST_TOPIC_BYTES = 200
# PostgreSQL takes 7,999.
_LONGEST_PAYLOAD_BYTES = 7_000
# A forked child keeps the parent's loops here: collecting them would close them.
_inherited: list[object] = []
_CONNECTING = Retry(attempts=None, backoff_seconds=0.1, longest_seconds=10.0)


class Notifier(ProcessBound):
    """A process's news of a database: `Notifier.of(db)` is the same one for all who ask.

    News only make things early. They are lost where a connection is, and behind a pooler in
    transaction mode none come (unless the Database has a direct_dsn): polling, every 5 ms where
    there is something and up to longest_seconds apart where there is nothing, is what finds all.

    It has one connection that listens, and sends on one of the portal's pool, both in the
    Database's thread. Watches may be in any event loop, and cost no task and no connection.
    """

    def __init__(self, db: Database) -> None:
        self._db = weakref.ref(db)
        self._is_sending = False
        self._is_listening = False
        self.after_fork()
        _fork.watch(self)

    @classmethod
    def of(cls, db: Database) -> Notifier:
        """That of a Database."""
        return _notifiers.get(checked_instance("db", db, Database, "Pass a Database"))

    @property
    def is_listening(self) -> bool:
        """Whether news come just now; else polling alone finds what there is."""
        return self._is_listening

    def notify(self, *topics: str) -> None:
        """Tells all processes that there are news of these topics. Call it after the commit.

        It doesn't wait and never fails; from any thread. What comes within 15 ms goes together.
        """
        for topic in topics:
            checked_topic(topic)
        with self._lock:
            self._unsent.update(topics)
            if self._is_sending or not self._unsent:
                return
            self._is_sending = True
        self._start(self._send)

    def watch(self, topic: str, look: Callable[[], None], *, longest_seconds: float = 1.0) -> Watch:
        """Calls `look()` in this event loop when there are news of the topic, or to poll.

        `look` mustn't block or wait. Once its consumer has looked, `Watch.again` goes on.
        """
        checked_topic(topic)
        checked_seconds("longest_seconds", longest_seconds, least=LEAST_SECONDS)
        loop = asyncio.get_running_loop()
        with self._lock:
            for ended in [one for one in self._waiting if one.is_closed()]:
                del self._waiting[ended]
            waiting = self._waiting.get(loop)
            if waiting is None:
                waiting = self._waiting[loop] = Waiting(self._end_unwatched)
        watch = waiting.add(topic, look, longest_seconds)
        self._listen_if_watched()
        return watch

    def after_fork(self) -> None:
        """In a forked child: connection, waits and locks are the parent's."""
        _inherited.append(getattr(self, "_waiting", None))
        self._lock = threading.Lock()
        self._waiting: dict[asyncio.AbstractEventLoop, Waiting] = {}
        self._unsent: set[str] = set()
        self._is_sending = self._is_listening = False
        # The listener's, in the portal's loop.
        self._has_listener = False
        self._portal_loop: asyncio.AbstractEventLoop | None = None
        self._changed: asyncio.Event | None = None

    def _start(self, function: Callable[[], Any]) -> None:
        db = self._db()
        with suppress(ClosedError):
            if db is not None:
                db.portal.start(function)

    # Sending

    async def _send(self) -> None:
        is_told = False
        while topics := self._take_unsent():
            db = self._db()
            if db is None:
                return
            try:
                bound = _NOTIFY.bind(channel=_CHANNEL, payloads=_payloads(topics))
                await db.fetch(bound, repeat=False)
            except ClosedError:
                return  # nobody is told of what was last done by who has ended
            except Exception as error:
                if not is_told:
                    _log.warning("news weren't sent, polling finds them: %s", described(error))
                is_told = True
                await asyncio.sleep(_AFTER_ERROR_SECONDS)
            del db
            await asyncio.sleep(_EVERY_SECONDS)

    def _take_unsent(self) -> set[str]:
        with self._lock:
            topics, self._unsent = self._unsent, set()
            self._is_sending = bool(topics)
            return topics

    # Listening

    def _listen_if_watched(self) -> None:
        db = self._db()
        with self._lock:
            if self._has_listener or db is None or not db.can_listen:
                return
            self._has_listener = True
        self._start(self._listen)

    def _end_unwatched(self) -> None:
        """A loop's last watch was closed: the listener may end."""
        with self._lock:
            loop, changed = self._portal_loop, self._changed
        if loop is not None and changed is not None:
            with suppress(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(changed.set)

    async def _listen(self) -> None:
        """Listens as long as anybody watches; connects again and again."""
        changed = asyncio.Event()
        with self._lock:
            self._portal_loop, self._changed = asyncio.get_running_loop(), changed
        attempt = 0
        try:
            while self._goes_on():
                attempt += 1
                try:
                    await self._listen_once(changed)
                    attempt = 0
                except Exception as error:
                    _log.warning("news don't come, polling goes on: %s", described(error))
                    await pause(_CONNECTING.delay(attempt), until=self._wait_unwatched(changed))
        except BaseException:
            with self._lock:
                self._has_listener = False
            raise

    def _goes_on(self) -> bool:
        """Whether anybody watches; where nobody does, the listener has ended from here on."""
        with self._lock:
            self._has_listener = self._is_watched()
            return self._has_listener

    def _is_watched(self) -> bool:
        waiting = list(self._waiting.items())
        return any(not (these.is_empty() or loop.is_closed()) for loop, these in waiting)

    async def _wait_unwatched(self, changed: asyncio.Event) -> None:
        while True:
            await changed.wait()
            changed.clear()
            if not self._is_watched():
                return

    async def _listen_once(self, changed: asyncio.Event) -> None:
        """Listens until the connection is lost, or nobody watches."""
        db = self._db()
        if db is None:
            return
        connection = await db.connect_to_listen()
        try:
            connection.add_termination_listener(lambda _: changed.set())
            with db.translating(OSError, EOFError):
                await connection.add_listener(_CHANNEL, self._heard)
            del db
            self._tell(None)  # of what came before
            self._is_listening = True
            while not connection.is_closed():
                await changed.wait()
                changed.clear()
                if not self._is_watched():
                    return
            _log.info("the connection that listens was lost; it is made anew")
        finally:
            self._is_listening = False
            connection.terminate()

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        self._tell(str(payload).split("\n"))

    def _tell(self, topics: Iterable[str] | None) -> None:
        with self._lock:
            waiting = list(self._waiting.items())
        for loop, these in waiting:
            with suppress(RuntimeError):  # it was closed
                loop.call_soon_threadsafe(these.news, topics)


def checked_topic(topic: str) -> str:
    """A topic that goes into a notification beside others."""
    required_text("topic", topic)
    if not topic or "\n" in topic or len(topic.encode()) > _LONGEST_TOPIC_BYTES:
        problem = f"must be one line of 1 to {_LONGEST_TOPIC_BYTES} bytes, not {topic[:50]!r}"
        raise InvalidArgumentError(argument="topic", problem=problem)
    return topic


def _payloads(topics: Iterable[str]) -> list[str]:
    """The topics in as few payloads as they fit into."""
    payloads = [""]
    for topic in sorted(topics):
        if len(payloads[-1].encode()) + len(topic.encode()) >= _LONGEST_PAYLOAD_BYTES:
            payloads.append("")
        payloads[-1] += f"\n{topic}" if payloads[-1] else topic
    return payloads


class _Notifiers:
    """One for each Database, as long as that lives."""

    def __init__(self) -> None:
        self.after_fork()
        _fork.watch(self)
        self._found: weakref.WeakKeyDictionary[Database, Notifier] = weakref.WeakKeyDictionary()

    def get(self, db: Database) -> Notifier:
        with self._lock:
            found = self._found.get(db)
            if found is None:
                found = self._found[db] = Notifier(db)
            return found

    def after_fork(self) -> None:
        self._lock = threading.Lock()


_notifiers = _Notifiers()
