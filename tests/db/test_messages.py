"""Messages are stored once, come back as they were, and can be read in SQL."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    ToolCall,
    ToolMessage,
    trim_messages,
)
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph.message import REMOVE_ALL_MESSAGES, add_messages
from langgraph.types import StateSnapshot

from langgraph_pgsaga import PostgresSaver
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


class StarredMessage(HumanMessage):
    """A user's own kind of message."""

    stars: int = 0
    notes: list[str] = []  # noqa: RUF012 - pydantic copies defaults


class PlainState(TypedDict, total=False):
    value: Any
    other: Any


def window(left: list[Any], right: list[Any]) -> list[Any]:
    """The last four messages."""
    return list(trim_messages(left + right, max_tokens=4, token_counter=len, strategy="last"))


class WindowState(TypedDict):
    messages: Annotated[list[Any], window]


def keeper(saver: BaseCheckpointSaver[Any]) -> Any:
    """A graph whose channels keep what they are given."""
    return graph_of(PlainState, saver, lambda state: {})


async def history_of(graph: Any) -> list[StateSnapshot]:
    """The snapshots of thread t, newest first."""
    return [snapshot async for snapshot in graph.aget_state_history(CONFIG)]


def identical(left: Any, right: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, BaseMessage):
        return identical(left.__dict__, right.__dict__)
    if isinstance(left, dict):
        return list(left) == list(right) and all(identical(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(identical, left, right))
    return bool(left == right)


# Round trips


CALL = ToolCall(name="look_up", args={"who": "Ann", "deep": {"n": [1, 2.5, None]}}, id="call 1")
USAGE = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
SAME = HumanMessage("one object", id="same")


VALUES: dict[str, Callable[[], Any]] = {
    "plain": lambda: [HumanMessage("hi", id="1"), AIMessage("hello", id="2")],
    "system_and_names": lambda: [SystemMessage("be kind", id="s", name="rules")],
    "no_ids": lambda: [HumanMessage("a"), AIMessage("b"), HumanMessage("a")],
    "one_object_twice": lambda: [SAME, AIMessage("between", id="b"), SAME],
    "equal_messages": lambda: [HumanMessage("x", id="1")] + [HumanMessage("x", id="1")] * 3,
    "one_id_two_contents": lambda: [HumanMessage("x", id="1"), HumanMessage("y", id="1")],
    "one_content_two_types": lambda: [HumanMessage("x", id="1"), AIMessage("x", id="1")],
    "multimodal": lambda: [
        HumanMessage([{"type": "text", "text": "what is this?"}, PICTURE, "a bare string"], id="m")
    ],
    "empty_contents": lambda: [HumanMessage("", id=""), AIMessage([], id="2")],
    "hostile_text": lambda: [HumanMessage("a\0b \ud800 \U0001f600", id="n\0l", name="q'\"%s")],
    "tool_calls": lambda: [
        AIMessage("", id="1", tool_calls=[CALL], usage_metadata=USAGE),
        ToolMessage("42", id="2", tool_call_id="call 1", artifact={"raw": b"\0\xff", "t": (1, 2)}),
        ToolMessage("no", id="3", tool_call_id="call 1", status="error", name="look_up"),
    ],
    "invalid_tool_calls": lambda: [
        AIMessage(
            "",
            id="1",
            invalid_tool_calls=[
                {"name": "f", "args": "{", "id": "i", "error": "bad", "type": "invalid_tool_call"}
            ],
        )
    ],
    "chunks": lambda: [
        AIMessageChunk(content="par", id="c", tool_call_chunks=[], chunk_position="last"),
        HumanMessageChunk(content="tial", id="h"),
        AIMessageChunk(content="a", id="d") + AIMessageChunk(content="b", id="d"),
    ],
    "chat_and_function": lambda: [
        ChatMessage(content="as I see it", role="critic", id="1"),
        FunctionMessage(content="7", name="f", id="2"),
    ],
    "subclass": lambda: [
        StarredMessage(content="good", id="1", stars=5, notes=["n"]),
        HumanMessage("x"),
    ],
    "removals": lambda: [RemoveMessage(id="gone"), HumanMessage("x", id="1")],
    "extra_fields": lambda: [
        AIMessage(
            "x",
            id="1",
            additional_kwargs={"reasoning": {"a": [1]}},
            response_metadata={"model_name": "m", "logprobs": [float("inf"), -0.0]},
            own_field="kept",
        )
    ],
    "empty_list": list,
    "mixed": lambda: [HumanMessage("x", id="1"), "text", 7, None, AIMessage("y", id="2")],
    "nested": lambda: {"by": {"ann": [HumanMessage("x", id="1")]}, "one": AIMessage("y", id="2")},
    "list_of_lists": lambda: [[HumanMessage("x", id="1")], [AIMessage("y", id="2")]],
    "one_message": lambda: HumanMessage("alone", id="1"),
    "long": lambda: [HumanMessage(f"{n} " * 3000, id=str(n)) for n in range(5)],
    "out_of_order": lambda: [HumanMessage(str(n), id=str(n)) for n in (3, 1, 2, 1, 3, 4, 0)],
}


@pytest.mark.parametrize("name", VALUES)
async def test_values_come_back_identical(
    saver: PostgresSaver, second: PostgresSaver, name: str
) -> None:
    """Equal, of the same type all the way down, and to the same bytes, in another process too."""
    await keeper(saver).ainvoke({"value": VALUES[name](), "other": VALUES[name]()}, CONFIG)
    for reader in (saver, second):
        values = (await keeper(reader).aget_state(CONFIG)).values
        listed = (await history_of(keeper(reader)))[0].values
        for found in (values["value"], values["other"], listed["value"]):
            assert identical(found, VALUES[name]())
            assert saver.serde.dumps_typed(found) == saver.serde.dumps_typed(VALUES[name]())


async def test_values_come_back_as_from_memory(saver: PostgresSaver) -> None:
    """Where LangGraph's own serializer changes a value (a tuple becomes a list), so does this."""
    memory = InMemorySaver()
    for n, value in enumerate(
        [(HumanMessage("x", id="1"), AIMessage("y", id="2")), [(HumanMessage("x", id="1"),)]]
    ):
        config: RunnableConfig = {"configurable": {"thread_id": f"t{n}"}}
        states = []
        for each in (memory, saver):
            await keeper(each).ainvoke({"value": value}, config)
            states.append((await keeper(each).aget_state(config)).values)
        assert identical(*states)


async def test_equal_messages_stay_distinct_objects(
    saver: PostgresSaver, second: PostgresSaver
) -> None:
    """A reducer that changes one of several equal messages in place changes no other one."""
    value = [HumanMessage("same"), HumanMessage("same"), AIMessage("x"), HumanMessage("same")]
    await keeper(saver).ainvoke({"value": value, "other": list(value)}, CONFIG)
    values = (await keeper(second).aget_state(CONFIG)).values
    found = values["value"] + values["other"]
    assert len({id(message) for message in found}) == 8
    listed = (await history_of(keeper(second)))[0].values["value"]
    given_ids = {m.id for m in add_messages(listed, [])}  # type: ignore[union-attr]
    assert len(given_ids) == 4


# Reducers


EDITS: dict[str, list[list[Any]]] = {
    "edit_by_id": [[AIMessage("new", id="a1")], [HumanMessage("newer", id="h0")]],
    "edit_to_another_type": [[SystemMessage("was ai", id="a1")]],
    "remove": [[RemoveMessage(id="h1")], [RemoveMessage(id="a0"), RemoveMessage(id="h0")]],
    "remove_all": [[RemoveMessage(id=REMOVE_ALL_MESSAGES), AIMessage("summary", id="s")], []],
    "remove_and_say_again": [
        [RemoveMessage(id="h1")],
        [HumanMessage("question 1", id="h1")],
    ],
    "edit_and_back": [[AIMessage("new", id="a1")], [AIMessage("reply 1", id="a1")]],
    "trim": [[RemoveMessage(id=f"{kind}{n}") for n in range(2) for kind in "ha"]],
    "duplicates_in_one_update": [
        [AIMessage("one", id="d"), AIMessage("two", id="d"), AIMessage("one", id="e")]
    ],
}


@pytest.mark.parametrize("name", EDITS)
async def test_edits_give_what_memory_gives(
    saver: PostgresSaver, second: PostgresSaver, server: Server, name: str
) -> None:
    """After edits, removals and trims every checkpoint shows its own version, as in memory."""
    histories = []
    memory = InMemorySaver()
    for savers in ((memory, memory), (saver, second)):
        replies = [[AIMessage(f"reply {n}", id=f"a{n}")] for n in range(3)] + EDITS[name]
        for n, reply in enumerate(replies):
            said = {"messages": [HumanMessage(f"question {n}", id=f"h{n}")]}
            await chat(savers[n % 2], reply).ainvoke(said, CONFIG)
        history = await history_of(chat(savers[0]))
        histories.append([s.values["messages"] for s in history])
    assert identical(*histories)
    versions = {repr(m) for messages in histories[1] for m in messages}
    assert await server.count("agent_messages") == len(versions)
    latest = [(m.content, m.id) for m in histories[1][0]]
    assert await server.conversation("content", "message_id") == latest


async def test_both_versions_of_an_edit_stay(saver: PostgresSaver, server: Server) -> None:
    """An edit adds one row; the checkpoint before it still shows the old text."""
    await chat(saver, [AIMessage("old", id="a")]).ainvoke({"messages": []}, CONFIG)
    before = (await chat(saver).aget_state(CONFIG)).config
    await chat(saver, [AIMessage("new", id="a")]).ainvoke({"messages": []}, CONFIG)
    assert (await chat(saver).aget_state(before)).values["messages"] == [AIMessage("old", id="a")]
    assert (await chat(saver).aget_state(CONFIG)).values["messages"] == [AIMessage("new", id="a")]
    rows = await server.rows(
        "select message_no, message_id, content from agent_messages order by message_no"
    )
    assert rows == [(1, "a", "old"), (2, "a", "new")]
    assert await server.conversation("content") == [("new",)]


async def test_a_trimmed_conversation_keeps_its_rows(saver: PostgresSaver, server: Server) -> None:
    """A state that keeps a window of the last messages costs no second copy of any."""

    graph = graph_of(
        WindowState, saver, lambda s: {"messages": [AIMessage(f"to {s['messages'][-1].content}")]}
    )
    for n in range(6):
        await graph.ainvoke({"messages": [HumanMessage(f"question {n}")]}, CONFIG)
    assert await server.count("agent_messages") == 12
    texts = [text for n in (4, 5) for text in (f"question {n}", f"to question {n}")]
    assert await server.conversation("content") == [(text,) for text in texts]


# Stored once


def growing(turns: int) -> list[list[BaseMessage]]:
    return [[AIMessage(f"reply {n}", id=f"a{n}")] for n in range(turns)]


async def test_every_process_stores_a_message_once(dsn: str, server: Server) -> None:
    """Turns through one saver after another, each with cold caches, add two rows a turn."""
    for n in range(5):
        async with PostgresSaver.from_conn_string(dsn) as saver:
            said = {"messages": [HumanMessage(f"question {n}", id=f"h{n}")]}
            await chat(saver, growing(5)[n]).ainvoke(said, CONFIG)
    rows = await server.rows(
        "select message_no, message_id from agent_messages order by message_no"
    )
    ids = [f"{kind}{n}" for n in range(5) for kind in "ha"]
    assert rows == list(enumerate(ids, 1))


async def test_a_saver_that_never_read_stores_nothing_twice(
    saver: PostgresSaver, second: PostgresSaver, server: Server
) -> None:
    """A put of a known conversation, by a saver that knows nothing of it, adds only what is new."""
    first = [HumanMessage(f"m {n}", id=str(n)) for n in range(20)]
    await put(saver, first)
    config = await put(second, [*first, AIMessage("new", id="new")])
    assert await server.count("agent_messages") == 21
    assert await messages_at(saver, config) == [*first, AIMessage("new", id="new")]


async def test_subgraphs_share_the_sessions_messages(saver: PostgresSaver, server: Server) -> None:
    """Messages that pass through a subgraph's namespace are the same rows, stored once."""
    inner = graph_of(
        ChatState,
        True,
        lambda s: {"messages": [AIMessage(f"inner {len(s['messages'])}")]},
    )
    graph = graph_of(ChatState, saver, inner)
    for n in range(3):
        await graph.ainvoke({"messages": [HumanMessage(f"question {n}")]}, CONFIG)
    (namespaces,) = await server.rows("select count(distinct checkpoint_ns) from agent_states")
    assert namespaces == (2,)
    assert await server.count("agent_messages") == 6
    assert len(await server.conversation("content")) == 6


async def test_equal_messages_of_two_threads_are_each_threads_own(
    saver: PostgresSaver, server: Server
) -> None:
    """Deleting one thread leaves an equal message of another thread."""
    for thread in ("t", "u"):
        config: RunnableConfig = {"configurable": {"thread_id": thread}}
        await chat(saver).ainvoke({"messages": [HumanMessage("same", id="1")]}, config)
    assert await server.count("agent_messages") == 2
    await saver.adelete_thread("t")
    state = await chat(saver).aget_state({"configurable": {"thread_id": "u"}})
    assert state.values["messages"] == [HumanMessage("same", id="1")]


# In SQL


async def test_sql_says_who_said_what(saver: PostgresSaver, server: Server) -> None:
    """Roles, text, tool call ids, names, usage and order of a conversation, by thread and user."""
    config: RunnableConfig = {"configurable": {"thread_id": "t", "user_id": "ann"}}
    conversation = [
        SystemMessage("be kind", id="1"),
        HumanMessage([{"type": "text", "text": "look:"}, PICTURE], id="2", name="Ann"),
        AIMessage("", id="3", tool_calls=[CALL], usage_metadata=USAGE),
        ToolMessage("42", id="4", tool_call_id="call 1"),
        AIMessageChunk(content="it is 42", id="5"),
        ChatMessage(content="is it?", role="critic", id="6"),
        HumanMessage("nul \0 and \ud800", id="7"),
    ]
    await chat(saver).ainvoke({"messages": conversation}, config)
    assert await server.conversation("position", "role", "content", "message_id") == [
        (1, "system", "be kind", "1"),
        (2, "user", "look:\n[image_url]", "2"),
        (3, "assistant", "", "3"),
        (4, "tool", "42", "4"),
        (5, "assistant", "it is 42", "5"),
        (6, "critic", "is it?", "6"),
        (7, "user", "nul \ufffd and \ufffd", "7"),
    ]
    assert set(await server.conversation("thread_id, user_id, channel")) == {
        ("t", "ann", "messages")
    }
    facts = await server.rows(
        "select metadata ->> 'tool_call_id', metadata -> 'tool_calls' -> 0 -> 'args' ->> 'who',"
        " metadata ->> 'name', (metadata -> 'usage' ->> 'total_tokens')::int"
        " from agent_messages order by message_no"
    )
    assert facts[1] == (None, None, "Ann", None)
    assert facts[2] == (None, "Ann", None, 3)
    assert facts[3] == ("call 1", None, None, None)


async def test_parents_lead_back_through_the_conversation(
    saver: PostgresSaver, second: PostgresSaver, server: Server
) -> None:
    """parent_message_no chains each message to the one before it, and an edit to the same one."""
    for n, reply in enumerate([*growing(3), [AIMessage("edited", id="a1")]]):
        graph = chat([saver, second][n % 2], reply)
        await graph.ainvoke({"messages": [HumanMessage(f"q {n}", id=f"h{n}")]}, CONFIG)
    rows = await server.rows(
        "select m.message_id, p.message_id from agent_messages m"
        " left join agent_messages p"
        " on p.session_id = m.session_id and p.message_no = m.parent_message_no"
        " order by m.message_no"
    )
    ids = ["h0", "a0", "h1", "a1", "h2", "a2", "h3"]
    assert rows == [*zip(ids, [None, *ids], strict=False), ("a1", "h1")]


async def test_conversations_show_the_newest_branch_in_order(
    saver: PostgresSaver, server: Server
) -> None:
    """After a fork, a reordering and a repetition the view lists what the state holds."""
    await put(saver, said("a", "b", "c", "d"))
    await put(saver, [*said("d", "b"), *said("new"), *said("b", "c")])
    rows = await server.conversation("position", "content")
    assert rows == list(enumerate(["d", "b", "new", "b", "c"], 1))


# Large values


class Document(TypedDict, total=False):
    text: str
    copy: str
    parts: Annotated[list[str], operator.add]


def document_graph(saver: BaseCheckpointSaver[Any], text: str) -> Any:
    return graph_of(Document, saver, lambda s: {"text": text, "copy": text, "parts": ["small"]})


async def test_equal_large_values_are_stored_once_a_session(
    saver: PostgresSaver, second: PostgresSaver, server: Server
) -> None:
    """Channels, turns, savers and the pending write share one blob; another thread has its own."""
    text = "large " * 2000
    for n in range(6):
        config: RunnableConfig = {"configurable": {"thread_id": f"thread {n % 2}"}}
        answer = await document_graph([saver, second][n // 2 % 2], text).ainvoke({}, config)
        assert answer["text"] == text
    sizes = await server.rows("select count(*), count(distinct session_id) from agent_state_blobs")
    assert sizes == [(2, 2)]
    # Each run writes the text to two channels: values and pending writes name the blob.
    for table, named in (("agent_state_values", 12), ("agent_state_writes", 12)):
        rows = await server.rows(f"select count(*) from {table} where blob_hashes is not null")
        assert rows == [(named,)]
    state = await document_graph(second, "").aget_state(config)
    assert (state.values["text"], state.values["copy"]) == (text, text)


@pytest.mark.parametrize(("size", "blobs"), [(1000, 0), (2040, 0), (2048, 1), (100_000, 1)])
async def test_values_from_two_kilobytes_on_are_blobs(
    saver: PostgresSaver, server: Server, size: int, blobs: int
) -> None:
    """Below 2 KB a value stays in its row."""
    await document_graph(saver, "x" * size).ainvoke({}, CONFIG)
    assert await server.count("agent_state_blobs") == blobs


# Encrypted


async def test_encrypted_messages_are_stored_once_and_unreadable(
    encrypted: PostgresSaver, server: Server
) -> None:
    """Under encryption content, ids and metadata are empty, yet each message is one row."""
    for n, reply in enumerate(growing(5)):
        config: RunnableConfig = {**CONFIG, "metadata": {"note": "secret"}}
        message = HumanMessage(f"secret {n}", id=f"secret {n}", name="secret")
        await chat(encrypted, reply).ainvoke({"messages": [message]}, config)
    assert await server.count("agent_messages") == 10
    facts = await server.rows(
        "select distinct content, message_id, metadata::text from agent_messages"
    )
    assert facts == [("", None, "{}")]
    found = (await chat(encrypted).aget_state(CONFIG)).values["messages"]
    assert [m.content for m in found if m.type == "human"] == [f"secret {n}" for n in range(5)]
    raw = await server.rows("select string_agg(encode(payload, 'escape'), '') from agent_messages")
    assert "secret" not in raw[0][0]


async def test_encrypted_large_values_are_stored_once(
    encrypted: PostgresSaver, server: Server
) -> None:
    """Equal large values share a blob within a process, under encryption too."""
    text = "secret " * 2000
    for _ in range(3):
        await document_graph(encrypted, text).ainvoke({}, CONFIG)
    assert await server.count("agent_state_blobs") == 1
    state = await document_graph(encrypted, text).aget_state(CONFIG)
    assert state.values["copy"] == text
