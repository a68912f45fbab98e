"""What was begun in the background, for the caller to wait for."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import warnings
from collections.abc import Awaitable, Generator

_log = logging.getLogger("langgraph_pgsaga.database")


class Begun(Awaitable[None]):
    """Awaited, it waits for the work to end, and raises what that raised.

    One that is never awaited warns, as a coroutine does, and logs an error if the work failed.
    """

    def __init__(self, name: str, future: concurrent.futures.Future[None]) -> None:
        self._name = name
        self._future = future
        self._is_awaited = False

    def __await__(self) -> Generator[object, None, None]:
        self._is_awaited = True
        yield from asyncio.wrap_future(self._future).__await__()

    def __repr__(self) -> str:
        return f"<{self._name}() in the background: await it>"

    def __del__(self) -> None:
        if self._is_awaited:
            return
        name = self._name
        self._future.add_done_callback(lambda future: _tell(name, future))
        problem = f"{name}() was never awaited in a running event loop. Write `await` before it"
        warnings.warn(problem, RuntimeWarning, source=self, stacklevel=2)


class Done(Awaitable[None]):
    """What was waited for already."""

    def __await__(self) -> Generator[object, None, None]:
        yield from ()

    def __repr__(self) -> str:
        return "<done>"


def _tell(name: str, future: concurrent.futures.Future[None]) -> None:
    if future.cancelled():
        _log.error("%s(), which nobody awaited, was cancelled", name)
    elif (error := future.exception()) is not None:
        told = f"{type(error).__name__}: {getattr(error, 'detail', '')}".removesuffix(": ")
        _log.error("%s(), which nobody awaited, failed: %s", name, told)
