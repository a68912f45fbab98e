"""A thread with an event loop of its own, through which sync callers reach async code."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
)
from contextlib import suppress
from enum import Enum
from typing import Any, TypeVar

from langgraph_pgsaga.errors import BlockingCallError, ClosedError

T = TypeVar("T")


class _End(Enum):
    """What an iterator's items end with."""

    END = "end"


class Portal:
    """Runs coroutines for other threads. Starts at the first call; `stop` ends it for good.

    It may be called from a thread whose own event loop is running: that loop then
    stands still for as long as the call lasts. Only the portal's own loop is
    refused, since it would wait for itself.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False
        # What later calls wait for.
        self._begun: asyncio.Task[Any] | None = None

    def call(self, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """The result of `await function(*args, **kwargs)` in the portal's loop.

        Interrupting the waiting thread (Ctrl-C) cancels the coroutine.

        Raises:
            BlockingCallError: called from the portal's own loop.
            ClosedError: the portal was stopped, before the call or during it.
        """
        if threading.current_thread() is self._thread:
            raise BlockingCallError(call=function.__qualname__)

        async def run() -> T:
            if self._begun is not None:
                await asyncio.wait([self._begun])
            return await function(*args, **kwargs)

        # It is there before anything runs, so that an interrupt at any moment can cancel it.
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        try:
            self._submit(run, future)
            return future.result()
        except concurrent.futures.CancelledError as error:
            if not self._stopped:
                raise
            raise ClosedError from error
        except BaseException:
            future.cancel()
            raise

    def iterate(
        self, function: Callable[..., AsyncIterator[T]], *args: Any, **kwargs: Any
    ) -> Iterator[T]:
        """What `function(*args, **kwargs)` gives, each item as it is asked for.

        An async generator is closed when the caller is done, or drops the iterator.

        Raises:
            BlockingCallError, ClosedError: as `call`, when an item is asked for.
        """
        items = function(*args, **kwargs)

        async def next_item() -> T | _End:
            return await anext(items, _End.END)

        async def close() -> None:
            if isinstance(items, AsyncGenerator):
                await items.aclose()

        next_item.__qualname__ = close.__qualname__ = function.__qualname__
        try:
            while not isinstance(item := self.call(next_item), _End):
                yield item
        finally:
            with suppress(BlockingCallError, ClosedError):
                self.call(close)

    def start(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begins `function()` in the portal's loop and doesn't wait; `stop` cancels it.

        Raises:
            ClosedError: the portal was stopped.
        """
        self._submit(function, concurrent.futures.Future())

    def begin(self, function: Callable[[], Awaitable[None]]) -> concurrent.futures.Future[None]:
        """Begins `function()` in the portal's loop; calls that come after it wait for its end.

        Raises:
            ClosedError: the portal was stopped; from the future, where it was so meanwhile.
        """

        async def run() -> None:
            before, self._begun = self._begun, asyncio.current_task()
            try:
                if before is not None:
                    await asyncio.wait([before])
                await function()
            except asyncio.CancelledError as error:
                if not self._stopped:
                    raise
                raise ClosedError from error
            finally:
                if self._begun is asyncio.current_task():
                    self._begun = None

        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._submit(run, future)
        return future

    def stop(self) -> None:
        """Ends the thread and its loop, cancelling what still runs there."""
        with self._lock:
            # What was submitted before this has its task by the time the loop stops.
            self._stopped = True
            loop, thread = self._loop, self._thread
        if loop is None:
            return
        if thread is None or thread.ident is None:  # interrupted before it began
            loop.close()
            return
        if thread.is_alive() and not loop.is_closed():
            loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join()

    def abandon(self) -> bool:
        """`stop` without waiting, or any lock, for who finds that nobody uses it any more.

        Returns:
            Whether there was something to end.
        """
        self._stopped = True
        loop = self._loop
        if loop is None or loop.is_closed():
            return False
        with suppress(RuntimeError):  # it closed meanwhile
            loop.call_soon_threadsafe(loop.stop)
        return True

    def _submit(
        self,
        function: Callable[[], Coroutine[Any, Any, T]],
        future: concurrent.futures.Future[T],
    ) -> None:
        with self._lock:
            self._started().call_soon_threadsafe(_begin, function, future)

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._stopped:
            raise ClosedError
        # An interrupt may come between any two of these: the next call goes on from there.
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        if self._thread is None:
            self._thread = threading.Thread(
                target=_run_forever, args=(self._loop,), name=self._name, daemon=True
            )
        if self._thread.ident is None:
            self._thread.start()
        return self._loop


def _begin(
    function: Callable[[], Coroutine[Any, Any, T]], future: concurrent.futures.Future[T]
) -> None:
    """Runs `function()` in this loop for `future`, which ends it if it is cancelled."""
    if future.cancelled():
        return
    loop = asyncio.get_running_loop()
    task = loop.create_task(function())

    def cancel(cancelled: concurrent.futures.Future[T]) -> None:
        if cancelled.cancelled() and not loop.is_closed():
            loop.call_soon_threadsafe(task.cancel)

    future.add_done_callback(cancel)
    task.add_done_callback(lambda ended: _answer(future, ended))


def _answer(future: concurrent.futures.Future[T], task: asyncio.Task[T]) -> None:
    if task.cancelled():
        future.cancel()
        return
    error = task.exception()
    if not future.set_running_or_notify_cancel():
        return
    if error is None:
        future.set_result(task.result())
    else:
        future.set_exception(error)


def _run_forever(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(_cancel_others())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _cancel_others() -> None:
    """Ends every task of the loop, those that are about to begin, too."""
    await asyncio.sleep(0)
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
