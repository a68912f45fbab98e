"""The connections of one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

import asyncpg

from langgraph_pgsaga.database.watch import Watch
from langgraph_pgsaga.errors import ClosedError, copy_of

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

_AT_HAND_SECONDS = 30.0


class LoopPool:
    """The pool of one event loop, which closes itself when that loop shuts down.

    `asyncio.run` (and every runner like it) closes the asynchronous generators of
    its loop before the loop itself: the generator that holds the pool open is how
    the pool learns of its loop's end.
    """

    def __init__(self, create: Callable[[], Pool], slow_seconds: float | None) -> None:
        self._create = create
        self.watch = Watch(slow_seconds)
        self.pool: Pool | None = None
        self._opening: asyncio.Task[Exception | None] | None = None
        self._life: AsyncGenerator[Pool, None] | None = None
        # Taking a connection from the pool and giving it back costs as much as a short
        # statement: those that were used well are kept at hand while nobody waits.
        self._at_hand: list[PoolConnectionProxy[asyncpg.Record]] = []
        self._waiting = 0
        self._is_closing = False
        self._clearing: asyncio.TimerHandle | None = None
        self._releasing: asyncio.Future[None] | None = None

    async def open(self) -> None:
        """Opens the pool, the first caller for all; a failed opening is tried again."""
        if self.pool is not None:
            return
        if self._opening is None or self._opening.done():
            self._opening = asyncio.ensure_future(self._open())
        # Shielded: a cancelled caller must not take the opening from the others.
        error = await asyncio.shield(self._opening)
        if error is not None:
            raise copy_of(error)

    async def _open(self) -> Exception | None:
        """Opens it; the result is the error of all who wait."""
        self._life = self._hold()
        try:
            self.pool = await anext(self._life)
        except Exception as error:
            return error
        return None

    async def _hold(self) -> AsyncGenerator[Pool, None]:
        pool = await self._create()
        try:
            yield pool
        finally:
            self.pool = None
            self._at_hand.clear()
            self.watch.close()
            pool.terminate()

    def take_at_hand(self) -> PoolConnectionProxy[asyncpg.Record] | None:
        """A connection that was kept, if one is still open."""
        while self._at_hand:
            connection = self._at_hand.pop()
            with suppress(asyncpg.InterfaceError):  # it was lost, and the pool knows
                if not connection.is_closed():
                    return connection
                connection.terminate()
        return None

    async def acquire(self, timeout_seconds: float) -> PoolConnectionProxy[asyncpg.Record]:
        """A connection; TimeoutError where none became free in time."""
        if (connection := self.take_at_hand()) is not None:
            return connection
        self._waiting += 1
        try:
            return await self._opened().acquire(timeout=timeout_seconds)
        finally:
            self._waiting -= 1

    async def release(self, connection: PoolConnectionProxy[asyncpg.Record]) -> None:
        """Gives the connection back to the pool, which looks after its state."""
        if self.pool is not None:
            await self.pool.release(connection)

    def keep_at_hand(self, connection: PoolConnectionProxy[asyncpg.Record]) -> bool:
        """Keeps a connection whose statements all succeeded, unless somebody waits for it."""
        if self._waiting or self._is_closing or self.pool is None or connection.is_closed():
            return False
        self._at_hand.append(connection)
        if self._clearing is None:
            loop = asyncio.get_running_loop()
            self._clearing = loop.call_later(_AT_HAND_SECONDS, self._clear)
        return True

    async def expire(self) -> None:
        """Has each connection that is open now closed, once it isn't in use."""
        if self.pool is not None:
            await self.pool.expire_connections()
            await self._release_all()

    def has_room(self) -> bool:
        """Whether the pool could give a connection."""
        pool = self._opened()
        return bool(pool.get_idle_size() or pool.get_size() < pool.get_max_size())

    def _opened(self) -> Pool:
        if self.pool is None:
            raise ClosedError
        return self.pool

    def _clear(self) -> None:
        """Now and then all go back to the pool, which closes what is idle for long."""
        self._clearing = None
        if self._at_hand:
            self._releasing = asyncio.ensure_future(self._release_all())

    async def _release_all(self) -> None:
        while self._at_hand:
            await self.release(self._at_hand.pop())

    async def aclose(self) -> None:
        """Waits for the connections that are in use, then closes all."""
        self._is_closing = True  # from here on nothing is kept at hand
        if self.pool is not None:
            closing = asyncio.ensure_future(self.pool.close())
            await self._release_all()
            await closing
            self.terminate()

    def terminate(self) -> None:
        """Cuts the connections without a word to the server; works on a closed loop too."""
        pool, self.pool = self.pool, None
        self._at_hand.clear()
        self.watch.close()
        if self._clearing is not None:
            self._clearing.cancel()
        # A closed loop's sockets go with the objects; a generator that runs ends by itself.
        with suppress(RuntimeError):
            if pool is not None:
                pool.terminate()
        with suppress(RuntimeError, StopIteration):
            if self._life is not None:
                # Nothing in it waits. Collected open, it would have the loop close it, which may
                # end before.
                self._life.aclose().send(None)
