"""Numbers of messages that are out of date, or given out by several at once, do no harm."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
)

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import ThreadDeletedError
from tests.db._stored_messages import (
    CONFIG,
    ChatState,
    Server,
    chat,
    graph_of,
    messages_at,
    put,
    said,
)

pytestmark = pytest.mark.anyio


FULL = bool(os.environ.get("PGSAGA_FULL"))


async def test_numbers_from_before_a_deletion_do_no_harm(
    saver: PostgresSaver, second: PostgresSaver
) -> None:
    """A saver that remembers numbers of a thread deleted and made anew stores its messages anew."""
    old = said("one", "two", "three")
    await put(saver, old)
    await second.adelete_thread("t")
    strange = await put(second, said("other one", "other two", "other three", "other four"))
    config = await put(saver, [*old, *said("four")])
    assert await messages_at(second, config) == [*old, *said("four")]
    assert (await messages_at(saver, strange))[0].content == "other one"


async def test_numbers_from_before_a_prune_do_no_harm(
    saver: PostgresSaver, second: PostgresSaver
) -> None:
    """A message that a prune took away is stored again by the saver that remembers its number."""
    await put(saver, said("one", "two"))
    await put(second, said("two"))
    await second.aprune(["t"], strategy="keep_latest")
    await put(second, said("two", "instead"))
    config = await put(saver, said("one", "two"))
    assert await messages_at(second, config) == said("one", "two")


async def test_a_thread_recreated_under_a_running_graph(
    saver: PostgresSaver, second: PostgresSaver
) -> None:
    """A run whose thread is deleted and made anew meanwhile stores nothing in the new one."""

    async def node(state: Any) -> Any:
        await second.adelete_thread("t")
        await put(second, said("x", "y", "z", "q"))
        return {"messages": [AIMessage("done", id="done")]}

    await chat(saver, [AIMessage("reply", id="r")]).ainvoke({"messages": said("one")}, CONFIG)
    graph = graph_of(ChatState, saver, node)
    with pytest.raises(ThreadDeletedError, match="'t'"):
        await graph.ainvoke({"messages": said("two")}, CONFIG, durability="sync")
    found = [found async for found in second.alist(CONFIG)]
    assert [len(one.checkpoint["channel_values"]["messages"]) for one in found] == [4]
    assert [one.pending_writes for one in found] == [[]]


async def test_two_savers_put_the_same_messages_at_once(
    saver: PostgresSaver, second: PostgresSaver, server: Server
) -> None:
    """Of a message that two connections store at the same moment there is one row, and both
    checkpoints show it, in whatever order each had its messages."""
    shared = said("one", "two", "three")
    for n in range(300 if FULL else 40):
        thread = f"t{n}"
        if n % 2:
            await put(saver, said("earlier"), thread)
        left = [*shared, *said("left")]
        right = [*said("right"), *reversed(shared)]
        configs = await asyncio.gather(put(saver, left, thread), put(second, right, thread))
        assert await messages_at(second, configs[0]) == left
        assert await messages_at(saver, configs[1]) == right
    doubled = await server.rows(
        "select count(*) from agent_messages group by session_id, content having count(*) > 1"
    )
    assert doubled == []


async def test_puts_race_with_deletions(
    saver: PostgresSaver, second: PostgresSaver, server: Server
) -> None:
    """Puts, deletions and prunes of one thread at once: all messages of a checkpoint that is there
    are there, and a last deletion leaves no row behind."""
    for n in range(200 if FULL else 30):
        words = [f"word {n} {m}" for m in range(3)]
        lists = [said(*words), said(*words, "more"), said("before", *words)]
        configs, *_ = await asyncio.gather(
            asyncio.gather(*(put(s, m) for m in lists for s in (saver, second))),
            *(s.adelete_thread("t") for s in (saver, second)),
            *(s.aprune(["t"], strategy="keep_latest") for s in (second, saver)),
        )
        for config, messages in zip(configs, [m for m in lists for _ in range(2)], strict=True):
            found = await second.aget_tuple(config)
            assert found is None or found.checkpoint["channel_values"]["messages"] == messages
    await second.adelete_thread("t")
    assert [await server.count(f"agent_{table}") for table in ("sessions", "states")] == [0, 0]
    assert [await server.count(f"agent_{table}") for table in ("state_values", "messages")] == [
        0,
        0,
    ]


async def test_puts_race_with_prunes(saver: PostgresSaver, second: PostgresSaver) -> None:
    """Messages that a prune is about to take stay, or come anew, for a put that names them."""
    known = said(*(f"word {n}" for n in range(10)))
    for n in range(200 if FULL else 40):
        thread = f"t{n}"
        await put(saver, known, thread)
        await put(saver, said("the latest"), thread)
        lists = [[*known, *said("warm")], [*known, *said("cold")]]
        configs, *_ = await asyncio.gather(
            asyncio.gather(put(saver, lists[0], thread), put(second, lists[1], thread)),
            *(s.aprune([thread], strategy="keep_latest") for s in (second, saver)),
        )
        await put(saver, said("after", "all"), thread)
        for config, messages in zip(configs, lists, strict=True):
            found = await second.aget_tuple(config)
            assert found is None or found.checkpoint["channel_values"]["messages"] == messages
