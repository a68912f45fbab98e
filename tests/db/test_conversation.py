"""Conversations can be read: as messages, as rows, as a tree, in SQL and by sync callers."""

from __future__ import annotations

import asyncio
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    RemoveMessage,
)
from langgraph.graph import START, MessagesState, StateGraph

from langgraph_pgsaga import PostgresSaver, sync
from langgraph_pgsaga.errors import (
    InvalidArgumentError,
    MissingCheckpointError,
    MissingThreadError,
)
from langgraph_pgsaga.messages import MessageRow, Messages, MessageTree
from tests.db._puts import config_of
from tests.db._said import USAGE, chat, contents, loaded, put_messages, say

pytestmark = pytest.mark.anyio


async def latest(saver: PostgresSaver, thread: str = "t") -> str:
    found = await saver.aget_tuple(config_of(thread))
    assert found is not None
    return str(found.config["configurable"]["checkpoint_id"])


async def test_a_conversation_is_what_the_graph_has(
    saver: PostgresSaver, messages: Messages
) -> None:
    """After turns, an edit and a removal the messages are those of get_state, types and all."""
    for n in range(3):
        await say(saver, f"q{n}")
    graph, config = chat(saver), config_of("t")
    await graph.aupdate_state(config, {"messages": [AIMessage("edited", id="a-q1")]})
    await graph.aupdate_state(config, {"messages": [RemoveMessage(id="q0")]})
    expected = (await graph.aget_state(config)).values["messages"]
    found = await messages.conversation("t")
    assert found == expected
    assert [type(m) for m in found] == [type(m) for m in expected]
    assert contents(found) == ["re: q0", "q1", "edited", "q2", "re: q2"]


async def test_a_checkpoint_id_chooses_the_state_of_its_branch(
    saver: PostgresSaver, messages: Messages
) -> None:
    """Each end of a fork gives its own conversation, and the fork point the common one."""
    await say(saver, "one")
    fork = await latest(saver)
    await say(saver, "two")
    left = await latest(saver)
    await say(saver, "three", checkpoint_id=fork)
    right = await latest(saver)
    common = ["one", "re: one"]
    for checkpoint_id, more in ((fork, []), (left, ["two", "re: two"]), (right, ["three"])):
        found = contents(await messages.conversation("t", checkpoint_id=checkpoint_id))
        assert found[: 2 + len(more)] == [*common, *more]
    assert contents(await messages.conversation("t")) == [*common, "three", "re: three"]


async def test_a_subgraph_has_a_conversation_of_its_namespace(
    saver: PostgresSaver, messages: Messages
) -> None:
    """A subgraph's messages are read by its namespace, the root's by none."""

    def whisper(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("inside", id="i")]}

    inner: Any = StateGraph(MessagesState)
    inner.add_node("whisper", whisper)
    inner.add_edge(START, "whisper")

    def forget(state: MessagesState) -> dict[str, Any]:
        return {"messages": [RemoveMessage(id="i")]}

    outer: Any = StateGraph(MessagesState)
    outer.add_node("inner", inner.compile(True))
    outer.add_node("forget", forget)
    outer.add_edge(START, "inner")
    outer.add_edge("inner", "forget")
    await outer.compile(saver).ainvoke({"messages": [HumanMessage("hi", id="h")]}, config_of("t"))
    assert contents(await messages.conversation("t")) == ["hi"]
    assert contents(await messages.conversation("t", checkpoint_ns="inner")) == ["hi", "inside"]


async def test_what_is_not_there_is_said(saver: PostgresSaver, messages: Messages) -> None:
    """A missing thread, checkpoint or namespace raises; a channel without a value is empty."""
    await say(saver, "hi")
    with pytest.raises(MissingThreadError):
        await messages.conversation("other")
    with pytest.raises(MissingThreadError):
        await messages.tree("other")
    with pytest.raises(MissingCheckpointError):
        await messages.conversation("t", checkpoint_id="1f0")
    with pytest.raises(MissingCheckpointError):
        await messages.conversation("t", checkpoint_ns="sub")
    with pytest.raises(MissingCheckpointError):
        await messages.rows("t", checkpoint_id="1f0")
    assert await messages.conversation("t", channel="nothing") == []
    await put_messages(saver, "odd", [], notes="text")
    with pytest.raises(InvalidArgumentError, match="notes"):
        await messages.conversation("odd", channel="notes")


# Rows


async def test_rows_are_every_version_in_order(saver: PostgresSaver, messages: Messages) -> None:
    """Edited and removed messages are still rows, each with all that SQL shows of it."""
    before = datetime.now(UTC) - timedelta(minutes=1)
    await say(saver, "hi", user_id="ann")
    graph, config = chat(saver), config_of("t")
    await graph.aupdate_state(config, {"messages": [AIMessage("edited", id="a-hi")]})
    await graph.aupdate_state(config, {"messages": [RemoveMessage(id="hi")]})
    page = await messages.rows("t")
    assert page.next_cursor is None
    assert [(r.message_no, r.message_id, r.role, r.content) for r in page.rows] == [
        (1, "hi", "user", "hi"),
        (2, "a-hi", "assistant", "re: hi"),
        (3, "a-hi", "assistant", "edited"),
    ]
    row = page.rows[1]
    assert (row.thread_id, row.parent_message_no, row.message_type) == ("t", 1, "ai")
    assert row.metadata == {"usage": USAGE}
    assert before < row.created_at < before + timedelta(minutes=5)


async def test_filters_narrow_rows(saver: PostgresSaver, messages: Messages) -> None:
    """Types, roles, times, text and branch each leave out what doesn't fit, together or alone."""
    await say(saver, "red apple")
    fork = await latest(saver)
    await say(saver, "green pear")
    now = datetime.now(UTC)

    async def found(**filters: Any) -> list[str]:
        return contents((await messages.rows("t", **filters)).rows)

    assert await found(types=["human"]) == ["red apple", "green pear"]
    assert await found(roles=["assistant"]) == ["re: red apple", "re: green pear"]
    assert await found(roles=["assistant"], text="PEAR") == ["re: green pear"]
    assert await found(text='"apple red"') == []
    assert await found(text="red or pear -re") == ["red apple", "re: red apple", "green pear"]
    assert await found(checkpoint_id=fork) == ["red apple", "re: red apple"]
    assert await found(checkpoint_id=fork, text="pear") == []
    assert await found(since=now + timedelta(hours=1)) == []
    assert await found(until=now - timedelta(hours=1)) == []
    assert len(await found(since=now - timedelta(hours=1), until=now + timedelta(hours=1))) == 4
    assert await found(types=[]) == []


async def test_a_branch_has_each_message_once(saver: PostgresSaver, messages: Messages) -> None:
    """A message that stands twice in a state, and in a second channel, is one row of it."""
    hi, yes = HumanMessage("hi", id="1"), AIMessage("yes", id="2")
    await put_messages(saver, "t", [hi, yes, hi], notes=[yes])
    page = await messages.rows("t", checkpoint_id=await latest(saver))
    assert contents(page.rows) == ["hi", "yes"]


@pytest.mark.parametrize("which", ["thread", "all", "text", "branch"])
async def test_pages_give_each_row_once(
    saver: PostgresSaver, messages: Messages, which: str
) -> None:
    """Pages of two, also while messages are added, are the whole listing in the same order."""
    for n in range(3):
        await say(saver, f"word {n}", "t")
        await say(saver, f"word {n}", "u")
    arguments: dict[str, Any] = {
        "thread": {"thread_id": "t"},
        "all": {},
        "text": {"text": "word"},
        "branch": {"thread_id": "t", "checkpoint_id": await latest(saver)},
    }[which]
    whole = (await messages.rows(**arguments)).rows
    assert len(whole) == (6 if which in ("thread", "branch") else 12)
    paged: list[MessageRow] = []
    cursor: str | None = None
    while True:
        page = await messages.rows(**arguments, limit=2, after=cursor)
        paged += page.rows
        assert len(page.rows) == 2
        if (cursor := page.next_cursor) is None:
            break
        if len(paged) == 2:
            await say(saver, "elsewhere", "v")
    assert [r for r in paged if r.thread_id != "v"] == whole


async def test_cursors_are_for_their_filters_only(saver: PostgresSaver, messages: Messages) -> None:
    """A cursor of other filters, of another thread, cut, or made up is refused."""
    for thread in ("t", "u"):
        await say(saver, "hi", thread)
    cursor = (await messages.rows("t", limit=1)).next_cursor
    assert cursor is not None
    others: list[tuple[str | None, dict[str, Any]]] = [
        ("u", {}),
        ("t", {"roles": ["user"]}),
        (None, {}),
    ]
    for other, filters in others:
        with pytest.raises(InvalidArgumentError, match="after"):
            await messages.rows(other, **filters, after=cursor)
    for broken in ("", "x", cursor[:-4], cursor + "AAAA", "é" * 38, "A" * 38, f"{cursor}\0"):
        with pytest.raises(InvalidArgumentError, match="after"):
            await messages.rows("t", after=broken)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("limit", 0),
        ("limit", 1001),
        ("since", datetime(2020, 1, 1)),  # noqa: DTZ001 - naive on purpose
        ("until", datetime(2020, 1, 1)),  # noqa: DTZ001
        ("types", "human"),
        ("roles", [1]),
        ("text", "x" * 2001),
        ("checkpoint_id", ""),
    ],
)
async def test_arguments_are_checked(messages: Messages, argument: str, value: Any) -> None:
    """What can't be meant is refused, by name."""
    with pytest.raises(InvalidArgumentError, match=argument):
        await messages.rows("t", **{argument: value})
    with pytest.raises(InvalidArgumentError, match="checkpoint_id"):
        await messages.rows(checkpoint_id="1f0")


async def test_other_threads_never_show(saver: PostgresSaver, messages: Messages) -> None:
    """Whatever is asked of one thread, equal ids and texts of another stay out."""
    for thread in ("t", "u"):
        await say(saver, "secret", thread)
    own = await latest(saver, "t")
    with pytest.raises(MissingCheckpointError):
        await messages.rows("u", checkpoint_id=own)
    with pytest.raises(MissingCheckpointError):
        await messages.conversation("u", checkpoint_id=own)
    buffer = io.StringIO()
    await messages.export(buffer, thread_id="t")
    lines = [json.loads(line) for line in buffer.getvalue().splitlines()]
    tree = await messages.tree("t")
    found = [
        *(r.thread_id for r in (await messages.rows("t", text="secret")).rows),
        *(r.thread_id for r in (await messages.rows("t", checkpoint_id=own)).rows),
        *(h.message.thread_id for h in await messages.search("secret", thread_id="t")),
        *(line["thread_id"] for line in lines),
        *(n.row.thread_id for n in tree.nodes.values()),
    ]
    assert found == ["t"] * 10


# Trees


async def test_edits_and_forks_branch_the_tree(saver: PostgresSaver, messages: Messages) -> None:
    """An edit and a fork stand beside what they replace; paths lead from the root."""
    await say(saver, "one")
    fork = await latest(saver)
    await say(saver, "two")
    await say(saver, "three", checkpoint_id=fork)
    edit = {"messages": [AIMessage("edited", id="a-one")]}
    await chat(saver).aupdate_state(config_of("t"), edit)
    tree = await messages.tree("t")
    numbers = {node.row.content: number for number, node in tree.nodes.items()}
    assert [tree.nodes[n].row.content for n in tree.roots] == ["one"]

    def children(content: str) -> list[str]:
        return [tree.nodes[n].row.content for n in tree.nodes[numbers[content]].children]

    assert children("one") == ["re: one", "edited"]
    assert children("re: one") == ["two", "three"]
    assert [n.row.content for n in tree.leaves] == ["re: two", "re: three", "edited"]
    path = tree.path(numbers["re: three"])
    assert [n.row.content for n in path] == ["one", "re: one", "three", "re: three"]
    assert [n.depth for n in path] == [0, 1, 2, 3]
    walked = [n.row.content for n in tree.walk()]
    assert walked == ["one", "re: one", "two", "re: two", "three", "re: three", "edited"]


async def test_children_are_those_of_the_tree(saver: PostgresSaver, messages: Messages) -> None:
    """What was said after a message: once where nothing branched, and none at an end."""
    await say(saver, "one")
    fork = await latest(saver)
    await say(saver, "two")
    await say(saver, "three", checkpoint_id=fork)
    tree = await messages.tree("t")
    for number, node in tree.nodes.items():
        found = await messages.children_of("t", number)
        assert found == [tree.nodes[n].row for n in node.children]
    assert [row.content for row in await messages.children_of("t", 2)] == ["two", "three"]
    assert await messages.children_of("t", 99) == await messages.children_of("other", 2) == []


async def test_deep_trees_need_no_recursion(saver: PostgresSaver, messages: Messages) -> None:
    """A conversation of 3000 messages is a tree 3000 deep, walked, shown and compared."""
    await put_messages(saver, "t", [HumanMessage(f"m{n}") for n in range(3000)])
    tree = await messages.tree("t")
    (leaf,) = tree.leaves
    assert leaf.depth == 2999
    assert len(tree.path(leaf.row.message_no)) == len(list(tree.walk())) == 3000
    assert tree == await messages.tree("t")
    assert "m2999" in repr(tree)


def row(number: int, parent: int | None) -> MessageRow:
    return MessageRow(
        thread_id="t",
        message_no=number,
        message_id=None,
        parent_message_no=parent,
        message_type="human",
        role="user",
        content=str(number),
        metadata={},
        created_at=datetime.now(UTC),
    )


def test_parents_that_are_not_there_make_roots() -> None:
    """A pruned, later or circular parent leaves a root; no node is lost or met twice."""
    tree = MessageTree.of("t", [row(2, 1), row(3, 9), row(4, 4), row(5, 2), row(9, 5)])
    assert tree.roots == (2, 3, 4)
    assert sorted(n.row.message_no for n in tree.walk()) == [2, 3, 4, 5, 9]
    assert [n.row.message_no for n in tree.path(9)] == [2, 5, 9]
    assert [n.row.message_no for n in tree.path(3)] == [3]


# Encrypted


async def test_encrypted_messages_are_read_with_the_key_only(encrypted: PostgresSaver) -> None:
    """Rows, search and export show nothing; conversations and full exports have it all."""
    await say(encrypted, "secret")
    messages = Messages(encrypted)
    assert contents(await messages.conversation("t")) == ["secret", "re: secret"]
    rows = (await messages.rows("t")).rows
    assert [(r.message_id, r.role, r.content, r.metadata) for r in rows] == [(None, "", "", {})] * 2
    assert await messages.search("secret") == []
    plain, full = io.StringIO(), io.StringIO()
    await messages.export(plain)
    await messages.export(full, full=True)
    assert "secret" not in plain.getvalue()
    found = [loaded(line) for line in full.getvalue().splitlines()]
    assert found == await messages.conversation("t")


# Views


async def test_statistics_count_each_message_once(
    saver: PostgresSaver, encrypted: PostgresSaver
) -> None:
    """Per thread: messages by role and tokens, an edit not again; odd metadata fails nothing."""
    await say(saver, "one", user_id="ann")
    edited = AIMessage("edited", id="a-one", usage_metadata=USAGE)
    await chat(saver).aupdate_state(config_of("t"), {"messages": [edited]})
    await put_messages(saver, "nameless", [HumanMessage("a"), HumanMessage("b")])
    await say(encrypted, "secret", "dark")
    async with saver.db.transaction() as conn:
        await conn.execute(
            """update agent_messages set metadata = '{"usage": {"total_tokens": "x"},
               "tool_calls": 3}' where session_id = pgsaga_session_id('nameless')"""
        )
        rows = await conn.fetch(
            "select thread_id, user_id, messages, versions, user_messages, assistant_messages,"
            " other_messages, tool_calls, total_tokens"
            " from agent_message_statistics order by thread_id"
        )
        logged = await conn.fetch("select thread_id, count(*) from agent_message_log group by 1")
    assert [tuple(r) for r in rows] == [
        ("dark", "", 2, 2, 0, 0, 2, 0, 0),
        ("nameless", "", 2, 2, 2, 0, 0, 0, 0),
        ("t", "ann", 2, 3, 1, 1, 0, 0, 7),
    ]
    assert dict(map(tuple, logged)) == {"t": 3, "nameless": 2, "dark": 2}


async def test_views_say_what_they_are(saver: PostgresSaver) -> None:
    """Each view for people has a comment that psql's \\d+ shows."""
    async with saver.db.transaction() as conn:
        found = await conn.fetch(
            "select c.relname, obj_description(c.oid) from pg_class c where c.relname = any($1)",
            ["agent_conversations", "agent_message_log", "agent_message_statistics"],
        )
    assert len(found) == 3
    assert all(text for _, text in found)


# Sync callers


def test_sync_callers_read_the_same(sync_saver: PostgresSaver) -> None:
    """Every method answers what its async twin does, without a loop."""
    config = config_of("t")
    chat(sync_saver).invoke({"messages": [HumanMessage("hi", id="hi")]}, config)
    here, there = sync.Messages(sync_saver), Messages(sync_saver)
    assert here.conversation("t") == asyncio.run(there.conversation("t"))
    assert here.rows("t", limit=1) == asyncio.run(there.rows("t", limit=1))
    assert here.search("hi", order="newest") == asyncio.run(there.search("hi", order="newest"))
    assert here.tree("t") == asyncio.run(there.tree("t"))
    assert here.children_of("t", 1) == asyncio.run(there.children_of("t", 1)) != []
    one, other = io.StringIO(), io.StringIO()
    assert here.export(one, full=True) == asyncio.run(there.export(other, full=True)) == 2
    assert one.getvalue() == other.getvalue()
