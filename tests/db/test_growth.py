"""A long chat with a stock add_messages graph grows the tables linearly."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.serde.serializer import SafeSerializer
from tests._tables import SESSION_TABLES
from tests.conftest import execute, with_database

TURNS = 400 if os.environ.get("PGSAGA_FULL") else 120
CONFIG: RunnableConfig = {"configurable": {"thread_id": "t"}}


class Chat(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


class Talk:
    """Messages of random words, each of its own length: few characters to a few thousand."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        letters = "abcdefghijklmnopqrstuvwxyz"
        self._words = ["".join(self._rng.choices(letters, k=n % 9 + 2)) for n in range(2000)]
        self.characters = 0

    def text(self) -> str:
        count = self._rng.choice([3, 20, 60, 300])
        text = " ".join(self._rng.choices(self._words, k=count))
        self.characters += len(text)
        return text


@dataclass(frozen=True, kw_only=True)
class Size:
    """The tables after so many turns: the bytes of their rows, and of all their files."""

    turns: int
    characters: int
    rows: int
    disk: int
    messages: int
    checkpoints: int


async def _measure(saver: PostgresSaver, turns: int, characters: int) -> Size:
    rows = " + ".join(
        f"(select coalesce(sum(pg_column_size(x.*)), 0)::bigint from {t} x)" for t in SESSION_TABLES
    )
    disk = " + ".join(f"pg_total_relation_size('{table}')" for table in SESSION_TABLES)
    counts = "(select count(*) from agent_messages), (select count(*) from agent_states)"
    async with saver.db.transaction() as connection:
        row = await connection.fetchrow(f"select {rows}, {disk}, {counts}")
    assert row is not None
    return Size(
        turns=turns,
        characters=characters,
        rows=row[0],
        disk=row[1],
        messages=row[2],
        checkpoints=row[3],
    )


@dataclass(frozen=True)
class Growth:
    """The sizes after each quarter of the turns, and the messages of the last state."""

    sizes: list[Size]
    messages: list[AnyMessage]


async def _chat(dsn: str) -> Growth:
    talk = Talk(seed=5)
    sizes: list[Size] = []
    async with PostgresSaver.from_conn_string(dsn) as saver:
        builder: Any = StateGraph(Chat)
        builder.add_node("reply", lambda state: {"messages": [AIMessage(talk.text())]})
        builder.add_edge(START, "reply")
        graph = builder.compile(checkpointer=saver)
        for turn in range(1, TURNS + 1):
            await graph.ainvoke({"messages": [HumanMessage(talk.text())]}, CONFIG)
            if turn % (TURNS // 4) == 0:
                sizes.append(await _measure(saver, turn, talk.characters))
        messages = (await graph.aget_state(CONFIG)).values["messages"]
    return Growth(sizes, messages)


@pytest.fixture(scope="module")
def grown(server_dsn: str, template_database: str) -> Growth:
    name = f"pgsaga_growth_{os.getpid()}"
    asyncio.run(execute(server_dsn, f'create database "{name}" template "{template_database}"'))
    try:
        return asyncio.run(_chat(with_database(server_dsn, name)))
    finally:
        asyncio.run(execute(server_dsn, f'drop database "{name}" with (force)'))


def is_linear(before: float, after: float) -> bool:
    """Whether twice the turns take about twice the bytes; whole lists would take four times."""
    return 1.5 < after / before <= 2.3


def test_twice_the_turns_take_twice_the_bytes(grown: Growth) -> None:
    """Rows, and tables with their indexes, grow linearly with the turns."""
    quarter, half, _, whole = grown.sizes
    for before, after in ((quarter, half), (half, whole)):
        assert after.turns == 2 * before.turns
        assert is_linear(before.rows, after.rows)
        assert after.disk / before.disk <= 2.3


def test_bytes_are_the_text_and_constants(grown: Growth) -> None:
    """Rows take the text, 400 bytes a message and 1,300 a step; indexes and pages as much again.

    The text counts four times: the exact message, its readable content, the pending
    write it came in, and, of a human's, the graph's stored input. Measured with texts of
    12 to 1,400 characters: 3.5 times the text, 340 bytes a message and 1,140 a step.
    """
    for size in grown.sizes:
        bound = 4 * size.characters + 400 * size.messages + 1300 * size.checkpoints
        assert size.rows <= bound
        assert size.disk <= 2 * bound + 500_000


def test_each_message_is_one_row(grown: Growth) -> None:
    """Three steps and two messages a turn: as many rows, and as many in the state."""
    for size in grown.sizes:
        assert (size.messages, size.checkpoints) == (2 * size.turns, 3 * size.turns)
    assert len(grown.messages) == 2 * TURNS


def test_whole_lists_would_not_pass(grown: Growth) -> None:
    """The same chat stored as one list per version of the channel fails the test of growth."""
    serde = SafeSerializer()
    lengths = [len(serde.dumps_typed(message)[1]) for message in grown.messages]
    lists = list(itertools.accumulate(itertools.accumulate(lengths)))
    whole, half = lists[2 * TURNS - 1], lists[TURNS - 1]
    assert not is_linear(half, whole)
    assert whole > 10 * grown.sizes[-1].rows
