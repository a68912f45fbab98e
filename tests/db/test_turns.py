"""Long lists are read in turns, so that the event loop goes on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from langchain_core.messages import BaseMessage, HumanMessage

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.checkpoint import decode, listing
from langgraph_pgsaga.checkpoint.stored_message import MessageCodec
from langgraph_pgsaga.errors import UnloadableValueError
from tests.conftest import execute
from tests.db._puts import checkpoint_of, config_of

pytestmark = pytest.mark.anyio

CONFIG = config_of("t")
COUNT = 3_000


@asynccontextmanager
async def most_at_once(
    monkeypatch: pytest.MonkeyPatch, kind: type, *names: str
) -> AsyncIterator[Callable[[], int]]:
    """Counts the calls of these methods between two turns of the loop."""
    done, most = 0, 0

    def counting(method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            nonlocal done, most
            done += 1
            most = max(most, done)
            return method(*arguments)

        return counted

    async def turn() -> None:
        nonlocal done
        while True:
            await asyncio.sleep(0)
            done = 0

    for name in names:
        monkeypatch.setattr(kind, name, counting(getattr(kind, name)))
    turning = asyncio.create_task(turn())
    try:
        yield lambda: most
    finally:
        turning.cancel()


async def listed(saver: PostgresSaver) -> Any:
    return await anext(saver.alist(CONFIG))


READINGS: dict[str, Callable[[PostgresSaver], Awaitable[Any]]] = {
    "get_tuple": lambda saver: saver.aget_tuple(CONFIG),
    "list": listed,
}


@pytest.mark.parametrize("reading", READINGS)
async def test_others_have_their_turn_while_a_long_list_is_read(
    saver: PostgresSaver, reading: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some hundred messages are decoded at once, however many there are, read anew or again."""
    said: list[BaseMessage] = [HumanMessage(str(n), id=str(n)) for n in range(COUNT)]
    checkpoint = checkpoint_of(saver, {"messages": [*said, said[0]]})
    await saver.aput(CONFIG, checkpoint, {}, checkpoint["channel_versions"])
    reader = PostgresSaver(saver.db)

    for _ in range(2):
        async with most_at_once(monkeypatch, MessageCodec, "fresh", "of_row") as most:
            found = await READINGS[reading](reader)
        assert found.checkpoint["channel_values"]["messages"] == [*said, said[0]]
        # The two of one message are different objects.
        assert len({id(m) for m in found.checkpoint["channel_values"]["messages"]}) == COUNT + 1
        assert 0 < most() <= 2 * decode._AT_ONCE


async def test_others_have_their_turn_between_the_checkpoints_of_a_page(
    saver: PostgresSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page is put together in as many turns as its checkpoints take time, here one each."""
    monkeypatch.setattr(listing, "_LONGEST_TURN", -1)
    for _ in range(5):
        checkpoint = checkpoint_of(saver, {"a": ["b"]})
        await saver.aput(CONFIG, checkpoint, {}, checkpoint["channel_versions"])
    async with most_at_once(monkeypatch, listing.CheckpointListing, "_tuple") as most:
        assert len([found async for found in saver.alist(CONFIG)]) == 5
    assert most() == 1


async def test_a_message_that_fails_is_named_by_its_place(saver: PostgresSaver, dsn: str) -> None:
    """Where one of many messages can't be loaded, the error says which, as with a few."""
    said: list[BaseMessage] = [HumanMessage(str(n), id=str(n)) for n in range(COUNT)]
    checkpoint = checkpoint_of(saver, {"messages": said})
    await saver.aput(CONFIG, checkpoint, {}, checkpoint["channel_versions"])
    await execute(dsn, "update agent_messages set payload = '\\xc1' where message_no = 2000")

    with pytest.raises(UnloadableValueError) as found:
        await PostgresSaver(saver.db).aget_tuple(CONFIG)

    assert found.value.path.startswith("[1999]")
