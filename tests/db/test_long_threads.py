"""A long thread answers what is asked of it, and the test says how fast."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta

import pytest

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.messages import MessageRow, Messages
from langgraph_pgsaga.sessions import Sessions

pytestmark = pytest.mark.anyio

# Long enough that pages differ from the whole, or, under PGSAGA_FULL, as long as is told.
COUNT = 100_000 if os.environ.get("PGSAGA_FULL") else 5_000
START = datetime(2026, 1, 1, tzinfo=UTC)
# One a second; each thousandth is the system's; the last one was said after the tenth.
MANY = """
insert into agent_messages
  (session_id, message_no, message_id, parent_message_no, message_type, role, content, metadata,
   digest, payload_type, payload, created_at)
select
  pgsaga_session_id('t'), n, 'id ' || n, case when n = $1 then 10 when n > 1 then n - 1 end,
  case when n % 1000 = 0 then 'system' when n % 2 = 0 then 'ai' else 'human' end, 'user',
  repeat('some words ', 12) || n, '{}', decode(md5(n::text), 'hex'), 'msgpack',
  decode(repeat(md5(n::text), 15), 'hex'), $2::timestamptz + n * interval '1 second'
from generate_series(1, $1) n
"""


async def timed(what: str, asked: Awaitable[list[MessageRow]]) -> list[int]:
    """The numbers of the messages."""
    began = time.perf_counter()
    rows = await asked
    print(f"{what}, of {COUNT:,} messages: {(time.perf_counter() - began) * 1000:.0f} ms")
    return [row.message_no for row in rows]


@pytest.mark.slow
async def test_a_long_thread_is_asked_by_type_by_time_and_by_parent(saver: PostgresSaver) -> None:
    """Each answer is exactly what was asked for, wherever in the thread it stands."""
    messages = Messages(saver)
    await Sessions(saver.db).create("t")
    async with saver.db.transaction() as conn:
        await conn.execute(MANY, COUNT, START)

    async def rows(**filters: object) -> list[MessageRow]:
        return (await messages.rows("t", **filters)).rows  # type: ignore[arg-type]

    since = START + timedelta(seconds=COUNT - 2)
    for _ in range(2):
        assert await timed("the first page", rows()) == list(range(1, 101))
        system = await timed("types=['system']", rows(types=["system"]))
        assert system == list(range(1000, COUNT + 1, 1000))
        assert await timed("since=", rows(since=since)) == list(range(COUNT - 2, COUNT + 1))
        assert await timed("children_of", messages.children_of("t", 10)) == [11, COUNT]
