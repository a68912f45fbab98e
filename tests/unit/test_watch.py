"""The watch over waiting calls: whom it gives up, and whose cancellation is whose."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any, cast

import pytest

from langgraph_pgsaga.database import watch as module
from langgraph_pgsaga.database.watch import FOR_SERVER, Wait, Watch

pytestmark = pytest.mark.anyio


class Silent:
    """A connection whose server should have answered at once, and never does."""

    def __init__(self, answer_seconds: float = 0.0) -> None:
        self.answer_seconds = answer_seconds

    def plain(self) -> Silent:
        return self


async def call(wait: Wait) -> None:
    """A statement that is never answered."""
    with wait:
        wait.begin("some", cast("Any", Silent()))
        await wait.answered(asyncio.Event().wait())


async def waiting() -> tuple[Wait, asyncio.Task[None], Watch]:
    watch = Watch(None)
    wait = watch.wait("some", FOR_SERVER)
    task = asyncio.ensure_future(call(wait))
    await asyncio.sleep(0)
    return wait, task, watch


async def test_a_call_that_is_given_up_is_a_time_out() -> None:
    """Its caller's task isn't cancelled, and goes on."""
    wait, task, watch = await waiting()
    wait.look(math.inf)
    wait.look(math.inf)
    with pytest.raises(TimeoutError):
        await task
    assert not task.cancelled()
    assert task.cancelling() == 0
    watch.close()


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_cancellation_beside_it_counts(is_first: bool) -> None:
    """Whoever cancels the caller in that moment has it cancelled, whichever came first."""
    wait, task, watch = await waiting()
    if is_first:
        task.cancel()
    wait.look(math.inf)
    if not is_first:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    watch.close()


@pytest.mark.parametrize("is_blocked", [True, False])
async def test_the_time_of_a_blocked_loop_is_not_the_servers(
    is_blocked: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that lay there unread while a node blocked the loop didn't take long."""
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.1)
    loop, watch, seconds = asyncio.get_running_loop(), Watch(0.4), 1.5
    with watch.wait("some", FOR_SERVER) as wait:
        wait.begin("some", cast("Any", Silent(math.inf)))
        answer = loop.create_future()
        loop.call_later(0.01 if is_blocked else seconds, answer.set_result, None)
        if is_blocked:
            loop.call_soon(time.sleep, seconds)
        await wait.answered(answer)
    watch.close()
    assert ("statement some took" in caplog.text) is not is_blocked


async def test_what_has_ended_is_not_given_up() -> None:
    """The statement is over, whatever its caller does then."""
    watch = Watch(None)
    wait = watch.wait("some", FOR_SERVER)
    with wait:
        wait.begin("some", cast("Any", Silent()))
        await wait.answered(asyncio.sleep(0))
        wait.look(math.inf)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
    watch.close()
