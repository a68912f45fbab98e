"""Calling a consumer's handler, and what becomes of its error."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from langgraph_pgsaga.database import Connection, check_in_transaction
from langgraph_pgsaga.errors import ClaimLostError, ServerError
from langgraph_pgsaga.events.consumer import Consumer
from langgraph_pgsaga.events.read_events import ReadEvents

# Events that are handled one by one are stored as handled so often, however many there are.
_LONGEST_SECONDS = 1.0
_PASSING = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
_PASSING_CLASS = "40"


# What ends the process, and isn't about the event.
_OF_THE_PROCESS = (KeyboardInterrupt, SystemExit, GeneratorExit)


class HandlerFailedError(Exception):
    """A handler raised `error`, at the event of this index, or at one of several (None)."""

    def __init__(self, index: int | None, error: BaseException) -> None:
        super().__init__(index)
        self.index = index
        self.error = error


async def call(
    consumer: Consumer,
    events: ReadEvents,
    conn: Connection | None,
    is_ending: Callable[[], bool],
) -> int:
    """Has a consumer's handler do some of the events, from the first on: how many it did.

    At least one; not all where they take long, or `is_ending()`.

    Raises:
        HandlerFailedError: at one of them.
    """
    if consumer.in_batches:
        return await _call_batch(consumer, events, conn)
    if consumer.is_async:
        return await _call_each(consumer, events, conn, is_ending)
    done = 0
    while True:
        try:
            done, answer = await asyncio.to_thread(
                _call_in_thread, consumer.handler, events, done, is_ending
            )
            if answer is None:
                return done
            await answer
        except BaseException as error:
            raise _failed(done, error, None) from error
        done += 1
        if done == len(events):
            return done


async def _call_batch(consumer: Consumer, events: ReadEvents, conn: Connection | None) -> int:
    given = (events,) if conn is None else (events, conn)
    index = 0 if len(events) == 1 else None
    try:
        if consumer.is_async:
            await consumer.handler(*given)
        else:
            answer = await asyncio.to_thread(_call_once_in_thread, consumer.handler, events, index)
            if inspect.isawaitable(answer):
                await answer
    except BaseException as error:
        raise _failed(index, error, conn) from error
    return len(events)


async def _call_each(
    consumer: Consumer,
    events: ReadEvents,
    conn: Connection | None,
    is_ending: Callable[[], bool],
) -> int:
    until = time.monotonic() + _LONGEST_SECONDS
    handler = consumer.handler
    for index in range(len(events)):
        if index and (time.monotonic() >= until or is_ending()):
            return index
        try:
            event = events[index]
            await (handler(event) if conn is None else handler(event, conn))
            if conn is not None:
                check_in_transaction(conn)
        except BaseException as error:
            raise _failed(index, error, conn) from error
    return len(events)


def _failed(index: int | None, error: BaseException, conn: Connection | None) -> HandlerFailedError:
    """The handler's failure; raises the error itself where that says nothing of the event.

    What code of the handler's own cancelled is as good as any error.
    """
    if isinstance(error, HandlerFailedError):
        raise error
    task = asyncio.current_task()
    is_cancelled = isinstance(error, asyncio.CancelledError) and (
        task is None or task.cancelling() > 0
    )
    if is_cancelled or isinstance(error, _OF_THE_PROCESS):
        raise error
    if isinstance(error, Exception) and is_passing(error, conn):
        raise error
    return HandlerFailedError(index, error)


def _call_in_thread(
    handler: Callable[..., Any],
    events: ReadEvents,
    first: int,
    is_ending: Callable[[], bool],
) -> tuple[int, Awaitable[Any] | None]:
    """How many were done; and what is to be awaited for the one that follows, if anything."""
    until = time.monotonic() + _LONGEST_SECONDS
    for index in range(first, len(events)):
        if index and (time.monotonic() >= until or is_ending()):
            return index, None
        try:
            answer = handler(events[index])
        except BaseException as error:
            # Whatever it is: asyncio hands some errors of a thread to nobody.
            raise HandlerFailedError(index, error) from error
        if inspect.isawaitable(answer):
            return index, answer
    return len(events), None


def _call_once_in_thread(handler: Callable[..., Any], events: ReadEvents, index: int | None) -> Any:
    """What the handler of a batch answers."""
    try:
        return handler(events)
    except BaseException as error:
        raise HandlerFailedError(index, error) from error


def is_passing(error: Exception, conn: Connection | None) -> bool:
    """Whether an error says nothing of the event: of a transaction that is to be tried again."""
    if conn is None:
        return isinstance(error, ClaimLostError)
    if isinstance(error, ServerError):
        return conn.is_closed() or (error.sqlstate or "").startswith(_PASSING_CLASS)
    return conn.is_closed() or isinstance(error, (ClaimLostError, *_PASSING))
