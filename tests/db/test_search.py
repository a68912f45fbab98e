"""Messages are found by their words, and shown in snippets."""

from __future__ import annotations

import asyncio
import re
from typing import Literal

import pytest
from langchain_core.messages import (
    HumanMessage,
)

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.database import Connection
from langgraph_pgsaga.errors import (
    InvalidArgumentError,
)
from langgraph_pgsaga.messages import MATCH_END, MATCH_START, Messages
from tests._limits import HANG_SECONDS
from tests.db._said import contents, plain, put_messages, say

pytestmark = pytest.mark.anyio


async def test_search_finds_across_threads(saver: PostgresSaver, messages: Messages) -> None:
    """Hits of all threads, a user's or one thread's; best or newest first; no more than asked."""
    await say(saver, "coffee coffee coffee", "a", user_id="ann")
    await say(saver, "tea and then much later perhaps some coffee", "b", user_id="bob")
    await say(saver, "coffee", "c", user_id="ann")
    assert {h.message.thread_id for h in await messages.search("coffee")} == {"a", "b", "c"}
    own = await messages.search("coffee", user_id="ann")
    assert {(h.message.thread_id, h.user_id) for h in own} == {("a", "ann"), ("c", "ann")}
    best = await messages.search("coffee")
    assert best[0].message.thread_id == "a"
    assert [h.rank for h in best] == sorted((h.rank for h in best), reverse=True)
    newest = await messages.search("coffee", order="newest", limit=1)
    assert [h.message.thread_id for h in newest] == ["c"]
    orders: list[Literal["best", "newest"]] = ["best", "newest"]
    for order in orders:
        assert len(await messages.search("tea", thread_id="b", order=order)) == 2
    assert await messages.search("tea", thread_id="b", user_id="ann") == []
    with pytest.raises(InvalidArgumentError):
        await messages.search("tea", user_id="nul \0")


async def test_snippets_can_be_escaped(saver: PostgresSaver, messages: Messages) -> None:
    """The marks stand around the words found only, even where the text itself has them."""
    text = f"<b>x</b> {MATCH_START}false{MATCH_END} mark & true"
    await put_messages(saver, "t", [HumanMessage(text)])
    (hit,) = await messages.search("true")
    assert hit.snippet.count(MATCH_START) == hit.snippet.count(MATCH_END) == 1
    assert hit.snippet.endswith(f"{MATCH_START}true{MATCH_END}")
    (hit,) = await messages.search("true", thread_id="t")
    assert hit.snippet.endswith(f"{MATCH_START}true{MATCH_END}")


async def words_are_ascii(conn: Connection) -> bool:
    query = "select datctype in ('C', 'POSIX') from pg_database where datname = current_database()"
    return bool(await conn.fetchval(query))


def found_in(snippet: str) -> list[str]:
    return re.findall(f"{MATCH_START}(.*?){MATCH_END}", snippet, re.DOTALL)


@pytest.mark.parametrize(
    ("text", "asked", "words"),
    [
        ("Can you do it to me at Oslo?", "oslo", ["Oslo"]),
        ("I'm 3 of 4; is it a go? No.", "go", ["go"]),
        ("<b>flat</b> &amp; <a href='x'>white</a> x<y", "flat white", ["flat", "white"]),
        ("well-known, re:zero, v1.2.3 -5 3.14", "known -5", ["known"]),
        ("see http://example.org/a?b=1 (a@b.no)", "a@b.no", ["a@b.no"]),
        ("a\n\n  b\tflat \x07\x1b[31m end", "flat", ["flat"]),
        ("我 想 喝 一 杯 白咖啡\uff0c谢谢", "白咖啡", ["白咖啡"]),
        ("“Tea” — «чай»—teas", "tea or чай", ["Tea", "чай"]),
        ("Нет, мне ДВА кофе", "два", ["ДВА"]),
        ("كوب قهوة من فضلك", "قهوة", ["قهوة"]),
        ("मुझे एक चाय दो", "एक", ["एक"]),
        ("tea, TEA and tea", "tea", ["tea", "TEA", "tea"]),
    ],
)
async def test_a_snippet_is_the_text_as_it_is(
    saver: PostgresSaver, messages: Messages, text: str, asked: str, words: list[str]
) -> None:
    """Short words, numbers, tags, punctuation and spaces stay; what was found is marked."""
    if not text.isascii() and await saver.db.run(words_are_ascii):
        pytest.skip("the server's LC_CTYPE takes everything beyond ASCII for letters")
    await put_messages(saver, "t", [HumanMessage(text)])
    for hits in (await messages.search(asked), await messages.search(asked, thread_id="t")):
        (hit,) = hits
        assert plain(hit.snippet) == text
        assert found_in(hit.snippet) == words


async def test_a_long_message_shows_the_parts_that_were_found(
    saver: PostgresSaver, messages: Messages
) -> None:
    """Where the words are together comes before where one of them is; each with its context."""
    some = "It was a day like any other in the city. " * 20
    text = f"{some}The flat is on fire. {some}I had a flat white at noon. {some}"
    await put_messages(saver, "t", [HumanMessage(text)])
    (hit,) = await messages.search('"flat white"')
    assert found_in(hit.snippet) == ["flat", "flat", "white"]
    first, second = plain(hit.snippet).strip("… ").split(" … ")
    assert "The flat is on fire." in first
    assert "I had a flat white at noon." in second
    assert first in text
    assert second in text
    assert len(plain(hit.snippet)) < 200


HOSTILE = [
    "'; drop table agent_messages; --",
    "$1 %s {schema}. \\",
    "a & | ! ( ) <-> :* b",
    '"unclosed',
    "nul \0 and \ud800",
    "",
    "!!!",
    "-",
    "x" * 2000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_any_text_may_be_searched(
    saver: PostgresSaver, messages: Messages, text: str
) -> None:
    """Text is bound, never SQL or an operator that fails; a message is found by its own words."""
    await put_messages(saver, "t", [HumanMessage(text or "empty")])
    expected = 1 if text[:1] in ("'", "$", "a", '"', "n", "x") else 0
    assert len(await messages.search(text)) == expected
    assert len((await messages.rows(text=text)).rows) == expected
    assert len((await messages.rows("t", text=text)).rows) == expected
    assert len((await messages.rows("t")).rows) == 1


@pytest.mark.parametrize(
    "piece",
    ["{} ", "{}-{} ", "a{}.com/{} ", "\U0001d7d8{} ", "é{}@b{}.org ", "İ{}Ⱥ "],
    ids=["words", "hyphens", "urls", "wide", "mail", "growing"],
)
async def test_messages_of_any_length_are_stored_and_found(
    saver: PostgresSaver, messages: Messages, piece: str
) -> None:
    """The index refuses no text, whose beginning is then what is searched."""
    text = "start " + "".join(piece.format(hex(n), hex(n)) for n in range(150_000)) + " end"
    await put_messages(saver, "t", [HumanMessage(text, id="long")])
    assert [h.message.message_id for h in await messages.search("start")] == ["long"]
    assert await messages.search("end") == []
    assert contents(await messages.conversation("t")) == [text]


# Plans


async def test_the_search_reads_its_index(saver: PostgresSaver, messages: Messages) -> None:
    """With the planner settings of every connection the words' index is what finds."""
    await put_messages(saver, "t", [HumanMessage(f"m{n}") for n in range(100)])
    for _ in range(2):
        assert len(await messages.search("m7")) == 1
        assert len((await messages.rows(text="m7")).rows) == 1
    async with saver.db.transaction() as conn:
        # Counts of this transaction's own connection, which ran the same statements.
        await conn.execute("select pg_stat_force_next_flush()")
    deadline = asyncio.get_running_loop().time() + HANG_SECONDS
    query = "select idx_scan from pg_stat_user_indexes where indexrelname = $1"
    while True:
        async with saver.db.transaction() as conn:
            scans = await conn.fetchval(query, "agent_messages_words_idx")
        if scans >= 4:
            break
        assert asyncio.get_running_loop().time() < deadline, "the index was not read"
        await asyncio.sleep(0.05)
