"""What is stored is as it was when the call was made, whatever is changed in place behind it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.checkpoint.write_queue import WriteQueue

pytestmark = pytest.mark.anyio


def _checkpoint(number: int, value: Any) -> Any:
    return {
        **empty_checkpoint(),
        "id": f"{number:08}",
        "channel_values": {"seen": value},
        "channel_versions": {"seen": f"{number}.0", "gone": "1.0"},
    }


async def _begun(call: Any) -> asyncio.Task[Any]:
    """The call, up to where it awaits something."""
    task = asyncio.create_task(call)
    await asyncio.sleep(0)
    return task


async def test_a_put_that_asks_for_its_parent_stores_what_it_was_given(
    saver: PostgresSaver,
) -> None:
    """A graph that goes on under "async" changes the values of its channels."""
    first: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    below = await saver.aput(first, _checkpoint(1, {"a"}), {"step": 0}, {"seen": "1.0"})
    seen = {"a"}
    other = saver.anew()  # which knows nothing of the parent's row
    put = await _begun(other.aput(below, _checkpoint(2, seen), {"step": 1}, {"seen": "2.0"}))
    seen.add("b")
    found = await other.aget_tuple(await put)
    assert found is not None
    assert found.checkpoint["channel_values"]["seen"] == {"a"}


async def test_writes_that_wait_are_stored_as_they_were_given(
    saver: PostgresSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reducer may make the first write its channel's value, and change that."""
    first: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    at = await saver.aput(first, _checkpoint(1, {"a"}), {"step": 0}, {"seen": "1.0"})
    given = {"a": 1}
    goes_on = asyncio.Event()

    async def turn(_: WriteQueue) -> None:
        """As where too much is queued."""
        await goes_on.wait()

    monkeypatch.setattr(WriteQueue, "turn", turn)
    written = await _begun(saver.aput_writes(at, [("seen", given)], "task"))
    given["b"] = 2
    goes_on.set()
    await written
    found = await saver.aget_tuple(at)
    assert found is not None
    assert found.pending_writes == [("task", "seen", {"a": 1})]
