"""A proxy between client and server that reads what the client sends, message by message.

It understands just the framing of PostgreSQL's protocol: untyped packets (SSLRequest,
GSSENCRequest, CancelRequest, StartupMessage), then messages of one type byte and a length.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from tests._limits import HANG_SECONDS

_NEGOTIATIONS = {80877103: "SSLRequest", 80877104: "GSSENCRequest"}
_CANCEL_REQUEST = 80877102
_CHUNK_BYTES = 1 << 16
# After each of these the client waits for the server: Sync, Query, and Flush, with which
# a driver asks for the description of a statement before it binds the arguments.
_WAITS = b"SQH"
_RUNS = b"EQ"


@dataclass
class ClientMessages:
    """Reads one connection's stream as it comes, in pieces of any size."""

    untyped: list[str] = field(default_factory=list)
    types: bytearray = field(default_factory=bytearray)
    _head: bytearray = field(default_factory=bytearray)
    _left: int = 0
    _started: bool = False

    def feed(self, data: bytes) -> None:
        place = 0
        while place < len(data):
            if self._left:
                skipped = min(self._left, len(data) - place)
                self._left -= skipped
                place += skipped
                continue
            wanted = (5 if self._started else 8) - len(self._head)
            self._head += data[place : place + wanted]
            place += wanted
            self._read_head()

    def _read_head(self) -> None:
        if self._started:
            if len(self._head) == 5:
                self.types.append(self._head[0])
                self._left = int.from_bytes(self._head[1:], "big") - 4
                self._head.clear()
            return
        if len(self._head) == 8:
            code = int.from_bytes(self._head[4:], "big")
            self._left = int.from_bytes(self._head[:4], "big") - 8
            self._started = code not in _NEGOTIATIONS
            names = _NEGOTIATIONS | {_CANCEL_REQUEST: "CancelRequest"}
            self.untyped.append(names.get(code, "StartupMessage"))
            self._head.clear()


@dataclass
class Traffic:
    """What went to the server while it was recorded, message types per connection."""

    messages: list[bytes] = field(default_factory=list)

    @property
    def round_trips(self) -> int:
        return self._count(_WAITS)

    @property
    def statements(self) -> int:
        return self._count(_RUNS)

    def _count(self, types: bytes) -> int:
        return sum(kind in types for sent in self.messages for kind in sent)


class Proxy:
    """Listens on 127.0.0.1 for `dsn`'s server; runs in a thread of its own until closed."""

    def __init__(self, dsn: str) -> None:
        self._url = urlsplit(dsn)
        self._options = dict(parse_qsl(self._url.query))
        self.connections: list[ClientMessages] = []
        # While it is set, nothing that the client says arrives, new connections' words neither.
        self.swallows = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Proxy:
        self._thread.start()
        start = asyncio.start_server(self._connected, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result(HANG_SECONDS)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(HANG_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def dsn(self, sslmode: str = "disable") -> str:
        """The DSN that leads through here."""
        kept = {k: v for k, v in self._options.items() if k not in ("host", "port", "sslmode")}
        login = self._url.netloc.rpartition("@")[0]
        query = urlencode({**kept, "sslmode": sslmode})
        return urlunsplit(
            ("postgresql", f"{login}@127.0.0.1:{self.port}", self._url.path, query, "")
        )

    @contextmanager
    def recording(self) -> Iterator[Traffic]:
        """What is sent within the block; complete once the calls in it have returned."""
        traffic, begun = Traffic(), [len(c.types) for c in self.connections]
        yield traffic
        begun += [0] * (len(self.connections) - len(begun))
        sent = [bytes(c.types[n:]) for c, n in zip(self.connections, begun, strict=True)]
        traffic.messages = [types for types in sent if types]

    async def _connected(
        self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        messages = ClientMessages()
        self.connections.append(messages)
        server, to_server = await self._connect()
        try:
            # Cancelled at the proxy's end, where a client's connection is still open.
            with suppress(asyncio.CancelledError):
                back = asyncio.create_task(_pass_on(server, to_client))
                await _pass_on(client, to_server, messages, lambda: self.swallows)
                await back
        finally:
            to_server.close()
            to_client.close()
            self._tasks.discard(task)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        port = self._url.port or int(self._options.get("port", 5432))
        host = self._url.hostname or self._options.get("host", "localhost")
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)

    async def _end(self) -> None:
        self._server.close()
        tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass_on(
    source: asyncio.StreamReader,
    target: asyncio.StreamWriter,
    messages: ClientMessages | None = None,
    swallows: Callable[[], bool] = lambda: False,
) -> None:
    with suppress(ConnectionError):
        while data := await source.read(_CHUNK_BYTES):
            if messages is not None:
                messages.feed(data)
            if swallows():
                continue
            target.write(data)
            await target.drain()
    with suppress(OSError, RuntimeError):
        target.write_eof()
