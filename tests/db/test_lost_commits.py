"""Processes that go on after their server lost what it had acknowledged.

That is what an asynchronous standby does that takes over, a server without synchronous_commit that
crashes, and an older copy that is put in place of the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypedDict
from urllib.parse import urlsplit

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import interrupt

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import CheckpointDeletedError
from langgraph_pgsaga.takeover import ReadThroughSaver
from langgraph_pgsaga.threads import session_id_of
from tests.conftest import execute, with_database

pytestmark = pytest.mark.anyio

Graph = CompiledStateGraph[Any, Any, Any, Any]


class Rewound:
    """A database that can be put back to how it was, beneath those who use it."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._name = urlsplit(dsn).path[1:]
        self._copy = f"{self._name}_copy"

    async def keep(self) -> None:
        """How it is now is what will be left of it."""
        await self._alone(f'create database "{self._copy}" template "{self._name}"')

    async def lose(self) -> None:
        """What came since `keep` is gone."""
        await self._alone(
            f'drop database "{self._name}" with (force)',
            f'alter database "{self._copy}" rename to "{self._name}"',
        )

    async def _alone(self, *statements: str) -> None:
        away = (
            "select pg_catalog.pg_terminate_backend(pid, 10000) "
            f"from pg_catalog.pg_stat_activity where datname = '{self._name}'"
        )
        await execute(with_database(self.dsn, "postgres"), away, *statements)


class Chat(MessagesState):
    document: str


def document_of(text: str) -> str:
    """A value that is stored as a blob."""
    return f"{text} " * 1_000


def answer(state: Chat) -> dict[str, Any]:
    asked = state["messages"][-1].content
    return {
        "messages": [AIMessage(f"re {asked}", id=f"re-{asked}")],
        "document": document_of(str(asked)),
    }


def chat(saver: BaseCheckpointSaver[str]) -> Graph:
    builder = StateGraph(Chat)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    return builder.compile(checkpointer=saver)


def asking(text: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(text, id=text)]}


def texts(values: dict[str, Any]) -> list[Any]:
    return [message.content for message in values["messages"]]


THREAD: RunnableConfig = {"configurable": {"thread_id": "t"}}
PLACE: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}


@pytest.fixture
async def savers(dsn: str) -> AsyncIterator[Callable[..., PostgresSaver]]:
    """Makes savers, each with what a process of its own remembers."""
    made: list[PostgresSaver] = []

    def make(**options: Any) -> PostgresSaver:
        made.append(PostgresSaver.from_conn_string(dsn, **options))
        return made[-1]

    yield make
    for saver in made:
        await saver.aclose()


@pytest.fixture
def server(dsn: str) -> Rewound:
    return Rewound(dsn)


async def test_messages_that_were_lost_are_shown_no_more(
    server: Rewound, savers: Callable[..., PostgresSaver]
) -> None:
    """Also where others went on, under the numbers that the lost ones had."""
    one, other = chat(savers()), chat(savers())
    await one.ainvoke(asking("a"), THREAD)
    await server.keep()
    await one.ainvoke(asking("lost"), THREAD)
    await server.lose()
    await other.ainvoke(asking("b"), THREAD)

    stands = ["a", "re a", "b", "re b"]
    assert texts((await one.aget_state(THREAD)).values) == stands
    assert texts(await one.ainvoke(asking("c"), THREAD)) == [*stands, "c", "re c"]
    assert texts((await chat(savers()).aget_state(THREAD)).values) == [*stands, "c", "re c"]


async def test_a_thread_goes_on_from_what_is_left(
    server: Rewound, savers: Callable[..., PostgresSaver]
) -> None:
    """What it says again, and every value that went with it, is stored again."""
    one = chat(savers())
    await one.ainvoke(asking("a"), THREAD)
    await server.keep()
    await one.ainvoke(asking("lost"), THREAD)
    await server.lose()
    await one.ainvoke(asking("lost"), THREAD)

    found = (await chat(savers()).aget_state(THREAD)).values
    assert texts(found) == ["a", "re a", "lost", "re lost"]
    assert found["document"] == document_of("lost")


async def test_values_are_sent_again_by_whoever_loads_nothing(
    server: Rewound, savers: Callable[..., PostgresSaver]
) -> None:
    """The put itself finds that what it counts on isn't there."""
    saver = savers()
    one = chat(saver)
    await one.ainvoke(asking("a"), THREAD)
    kept = await saver.aget_tuple(THREAD)
    assert kept is not None
    await server.keep()
    lost = await one.aupdate_state(kept.config, {"document": document_of("same")})
    await server.lose()
    # Below what is left, with the blob that this process knows to be stored.
    put: Any = {**kept.checkpoint, "id": lost["configurable"]["checkpoint_id"][:-1] + "0"}
    version = saver.get_next_version(str(kept.checkpoint["channel_versions"]["document"]), None)
    put["channel_values"] = {**kept.checkpoint["channel_values"], "document": document_of("same")}
    put["channel_versions"] = {**kept.checkpoint["channel_versions"], "document": version}
    await saver.aput(kept.config, put, {"step": 9}, {"document": version})

    found = await savers().aget_tuple(THREAD)
    assert found is not None
    assert found.checkpoint["channel_values"]["document"] == document_of("same")


class Stop(TypedDict):
    before: str
    after: str


def stopping(saver: PostgresSaver, arrived: asyncio.Event, go: asyncio.Event) -> Graph:
    """A run that waits in its second node."""

    def first(state: Stop) -> dict[str, Any]:
        return {"before": document_of("before")}

    async def second(state: Stop) -> dict[str, Any]:
        arrived.set()
        await go.wait()
        return {"after": "done"}

    builder = StateGraph(Stop)
    builder.add_node("first", first)
    builder.add_node("second", second)
    builder.add_edge(START, "first")
    builder.add_edge("first", "second")
    builder.add_edge("second", END)
    return builder.compile(checkpointer=saver)


@pytest.mark.parametrize("is_looked_at", [False, True])
async def test_a_run_whose_steps_were_lost_ends(
    server: Rewound, savers: Callable[..., PostgresSaver], *, is_looked_at: bool
) -> None:
    """It can't go on from a checkpoint that isn't there; nothing of it is stored.

    Also where the process read the thread meanwhile, and so knows what is left.
    """
    saver = savers()
    arrived, go = asyncio.Event(), asyncio.Event()
    graph = stopping(saver, arrived, go)
    await graph.aupdate_state(THREAD, {"before": "kept"}, as_node="second")
    kept = await graph.aget_state(THREAD)
    await server.keep()
    run = asyncio.create_task(
        graph.ainvoke({"before": "x", "after": ""}, THREAD, durability="sync")
    )
    await arrived.wait()
    await server.lose()
    if is_looked_at:
        assert (await graph.aget_state(THREAD)).values == kept.values
    go.set()
    with pytest.raises(CheckpointDeletedError):
        await run
    left = await stopping(savers(), arrived, go).aget_state(THREAD)
    assert left.values == kept.values == {"before": "kept"}


class Asked(TypedDict):
    note: str


def asks(saver: PostgresSaver, arrived: asyncio.Event, go: asyncio.Event) -> Graph:
    async def ask(state: Asked) -> dict[str, Any]:
        arrived.set()
        await go.wait()
        return {"note": interrupt("really?")}

    builder = StateGraph(Asked)
    builder.add_node("ask", ask)
    builder.add_edge(START, "ask")
    return builder.compile(checkpointer=saver)


async def test_a_question_at_a_lost_checkpoint_is_not_taken_for_asked(
    server: Rewound, savers: Callable[..., PostgresSaver]
) -> None:
    """Nobody could answer it."""
    arrived, go = asyncio.Event(), asyncio.Event()
    graph = asks(savers(), arrived, go)
    await graph.aupdate_state(THREAD, {"note": "kept"}, as_node="ask")
    await server.keep()
    run = asyncio.create_task(graph.ainvoke({"note": "x"}, THREAD, durability="sync"))
    await arrived.wait()
    await server.lose()
    go.set()
    with pytest.raises(CheckpointDeletedError):
        await run


async def test_what_a_task_wrote_is_stored_again_with_the_next_checkpoint(
    server: Rewound, savers: Callable[..., PostgresSaver]
) -> None:
    """Where a checkpoint stayed, and only the pending writes after it were lost."""
    saver = savers()
    graph = chat(saver)
    await graph.ainvoke(asking("a"), THREAD)
    kept = await saver.aget_tuple(THREAD)
    assert kept is not None
    config = kept.config
    await server.keep()
    await saver.aput_writes(config, [("document", document_of("lost"))], "task")
    await server.lose()
    version = saver.get_next_version(str(kept.checkpoint["channel_versions"]["document"]), None)
    put: Any = {
        **kept.checkpoint,
        "id": "1fffffff-ffff-6fff-bfff-ffffffffffff",
        "channel_values": {**kept.checkpoint["channel_values"], "document": document_of("lost")},
        "channel_versions": {**kept.checkpoint["channel_versions"], "document": version},
    }
    await saver.aput(config, put, {"step": 9}, {"document": version})
    found = await savers().aget_tuple(THREAD)
    assert found is not None
    assert found.checkpoint["channel_values"]["document"] == document_of("lost")


async def test_a_thread_that_was_lost_whole_begins_anew(
    server: Rewound, savers: Callable[..., PostgresSaver]
) -> None:
    saver = savers()
    graph = chat(saver)
    await graph.ainvoke(asking("another"), {"configurable": {"thread_id": "other"}})
    await server.keep()
    await graph.ainvoke(asking("lost"), THREAD)
    await server.lose()
    assert (await graph.aget_state(THREAD)).values == {}
    assert texts(await graph.ainvoke(asking("b"), THREAD)) == ["b", "re b"]
    assert texts((await chat(savers()).aget_state(THREAD)).values) == ["b", "re b"]


async def next_put(
    saver: PostgresSaver, below: RunnableConfig, run_id: str = "", **values: Any
) -> RunnableConfig:
    """Puts a checkpoint with these values below one that the saver loads, outside of any run."""
    found = await saver.aget_tuple(below)
    return await put_below(saver, below if found is None else found.config, found, run_id, **values)


async def put_below(
    saver: PostgresSaver,
    config: RunnableConfig,
    found: CheckpointTuple | None,
    run_id: str = "",
    **values: Any,
) -> RunnableConfig:
    put = empty_checkpoint()
    put["v"] = 4
    versions: dict[str, Any] = {}
    if found is not None:
        put["channel_values"] = dict(found.checkpoint["channel_values"])
        versions = dict(found.checkpoint["channel_versions"])
    new: Any = {name: saver.get_next_version(versions.get(name), None) for name in values}
    put["channel_values"] |= values
    put["channel_versions"] = {**versions, **new}
    of_run: RunnableConfig = {**config, "metadata": {"run_id": run_id}}
    return await saver.aput(of_run, put, {"source": "loop", "step": 1, "parents": {}}, new)


async def document_at(saver: PostgresSaver, config: RunnableConfig) -> Any:
    found = await saver.aget_tuple(config)
    assert found is not None
    return found.checkpoint["channel_values"]["document"]


async def test_a_blob_that_others_stored_does_not_tell_that_writes_are_there(
    server: Rewound, savers: Callable[..., PostgresSaver]
) -> None:
    """A task writes a value that is stored since long, and one that isn't."""
    one, other = savers(), savers()
    await next_put(other, PLACE, document=document_of("old"))
    found = await one.aget_tuple(PLACE)
    assert found is not None
    await server.keep()
    for name in "new", "old":
        await one.aput_writes(found.config, [("document", document_of(name))], f"task-{name}")
    await server.lose()
    put = await put_below(one, found.config, found, document=document_of("new"))
    assert await document_at(savers(), put) == document_of("new")


async def test_a_task_that_others_do_again_does_not_tell_that_its_writes_are_there(
    server: Rewound, savers: Callable[..., PostgresSaver]
) -> None:
    """A run ends with its process's task; another process goes on, and then the first again."""
    one, other = savers(), savers()
    await next_put(one, PLACE, document=document_of("old"))
    found = await one.aget_tuple(PLACE)
    assert found is not None
    await server.keep()
    for name in "lost", "same":
        await one.aput_writes(found.config, [("document", document_of(name))], f"task-{name}")
    await server.lose()
    again = await other.aget_tuple(PLACE)
    assert again is not None
    await other.aput_writes(again.config, [("document", document_of("same"))], "task-same")
    put = await next_put(one, PLACE, document=document_of("lost"))
    assert await document_at(savers(), put) == document_of("lost")


@pytest.mark.parametrize("namespace", ["", "inner"])
async def test_a_checkpoint_does_not_tell_what_came_when_its_id_was_put_again(
    server: Rewound, savers: Callable[..., PostgresSaver], namespace: str
) -> None:
    """It is there: what was put under its id, or in another namespace, and was loaded, is lost."""
    one, other = savers(), savers()
    put = empty_checkpoint()

    async def said(
        saver: PostgresSaver, by: PostgresSaver | None, text: str, namespace: str
    ) -> Any:
        """What the saver loads, after somebody said so."""
        place: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": namespace}}
        if by is not None:
            values = {"messages": [HumanMessage(text, id=text)]}
            versions: Any = {"messages": text}
            again: Any = {**put, "channel_values": values, "channel_versions": versions}
            await by.aput(place, again, {"source": "loop", "step": 1, "parents": {}}, versions)
        found = await saver.aget_tuple(place)
        assert found is not None
        return [message.content for message in found.checkpoint["channel_values"]["messages"]]

    await said(one, other, "first", "")
    await server.keep()
    assert await said(one, one if namespace else other, "lost", namespace) == ["lost"]
    await server.lose()
    others = savers()
    assert await said(others, others, "theirs", "") == await said(one, None, "", "") == ["theirs"]


async def test_a_deletion_is_not_taken_for_one_that_was_lost(
    server: Rewound, savers: Callable[..., PostgresSaver]
) -> None:
    """What was read after the one isn't there after the other."""
    one, other = savers(), savers()
    await next_put(other, PLACE, "first", document=document_of("first"))
    second = await next_put(other, PLACE, "second", document=document_of("second"))
    await next_put(other, PLACE, "third", document=document_of("third"))
    await server.keep()
    await other.adelete_for_runs(["first"])
    found = await one.aget_tuple(second)
    assert found is not None
    assert await one.aget_tuple(PLACE) is not None
    await server.lose()
    await other.adelete_for_runs(["second"])
    with pytest.raises(CheckpointDeletedError):
        await put_below(one, found.config, found, "fourth", other=1)


async def test_messages_that_a_deletion_took_are_sent_again_after_another_was_lost(
    server: Rewound, savers: Callable[..., PostgresSaver]
) -> None:
    one, other = savers(), savers()
    said = [AIMessage(text, id=text) for text in ("a", "b", "c")]
    await next_put(other, PLACE, "first", messages=said[:1])
    second = await next_put(other, PLACE, "second", messages=said[1:2])
    await next_put(other, PLACE, "third", messages=said[2:])
    await server.keep()
    await other.adelete_for_runs(["first"])
    for place in second, PLACE:
        assert await one.aget_tuple(place) is not None
    await server.lose()
    await other.adelete_for_runs(["second"])
    found = await other.aget_tuple(PLACE)
    assert found is not None
    put = await put_below(one, found.config, found, messages=said[1:])
    loaded = await savers().aget_tuple(put)
    assert loaded is not None
    assert loaded.checkpoint["channel_values"]["messages"] == said[1:]


async def test_a_repeated_put_is_not_later_than_what_came_between(
    server: Rewound, savers: Callable[..., PostgresSaver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer was lost, and others went on before it was repeated."""
    one, other = savers(), savers()
    await next_put(one, PLACE, document=document_of("a"))
    fetch = one.db.fetch
    between: list[Any] = []

    async def twice(statement: Any, *args: Any, **options: Any) -> Any:
        if between or not statement.name.startswith("write_"):
            return await fetch(statement, *args, **options)
        between.append(statement)
        await fetch(statement, *args, **options)
        await server.keep()
        between.append(await next_put(other, PLACE, document=document_of("between")))
        return await fetch(statement, *args, **options)

    found = await one.aget_tuple(PLACE)
    assert found is not None
    monkeypatch.setattr(one.db, "fetch", twice)
    await put_below(one, found.config, found, document=document_of("repeated"))
    monkeypatch.undo()
    last = await one.aget_tuple(between[-1])
    assert last is not None
    await server.lose()
    with pytest.raises(CheckpointDeletedError):
        await put_below(one, last.config, last, other=1)


async def test_a_checkpoint_that_others_stored_does_not_tell_what_came_when_it_was_put_again(
    server: Rewound, savers: Callable[..., PostgresSaver]
) -> None:
    """It is there as it was before: what came with it the second time isn't."""
    one, other = savers(), savers()
    said = [HumanMessage("a", id="a"), HumanMessage("b", id="b")]
    first = await next_put(other, PLACE, messages=said[:1])
    below = await one.aget_tuple(first)
    assert below is not None
    put: Any = {**empty_checkpoint(), "channel_versions": {"messages": "2", "document": "1"}}

    async def stores(saver: PostgresSaver, **values: Any) -> RunnableConfig:
        again: Any = {**put, "channel_values": values}
        versions: Any = {name: put["channel_versions"][name] for name in values}
        metadata: Any = {"source": "loop", "step": 1, "parents": {}}
        return await saver.aput(first, again, metadata, versions)

    await stores(other, messages=said[:1])
    await server.keep()
    place = await stores(one, messages=said, document=document_of("again"))
    await server.lose()
    values: dict[str, Any] = {"messages": said, "document": document_of("again"), "other": 1}
    last = await put_below(one, place, None, **values)
    loaded = await savers().aget_tuple(last)
    assert loaded is not None
    assert loaded.checkpoint["channel_values"] == values


async def test_an_answer_from_before_a_loss_is_not_taken_for_what_came_after(
    server: Rewound, savers: Callable[..., PostgresSaver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was under way while the loss came, others went on, and another call asked anew."""
    one, other = savers(), savers()
    said = [HumanMessage(text, id=text) for text in "abc"]
    await next_put(other, PLACE, messages=said[:1])
    await server.keep()
    await next_put(other, PLACE, messages=said[:2])
    fetch = one.db.fetch

    async def late(statement: Any, *args: Any, **options: Any) -> Any:
        rows = await fetch(statement, *args, **options)
        if statement.name != "get_checkpoint":
            return rows
        monkeypatch.undo()
        await server.lose()
        await next_put(other, PLACE, messages=[said[0], said[2]])
        assert await one.aget_tuple(PLACE)
        return rows

    monkeypatch.setattr(one.db, "fetch", late)
    assert await one.aget_tuple(PLACE)
    await next_put(one, PLACE, messages=said)
    loaded = await savers().aget_tuple(PLACE)
    assert loaded is not None
    assert loaded.checkpoint["channel_values"] == {"messages": said}


@pytest.mark.parametrize("is_forgotten", [False, True])
async def test_a_run_whose_process_remembers_another_session_ends(
    server: Rewound, savers: Callable[..., PostgresSaver], *, is_forgotten: bool
) -> None:
    """The thread was begun anew, and looked at; or it was one of too many."""
    saver = savers()
    arrived, go = asyncio.Event(), asyncio.Event()
    graph = stopping(saver, arrived, go)
    await graph.aupdate_state(THREAD, {"before": "kept"}, as_node="second")
    await server.keep()
    run = asyncio.create_task(
        graph.ainvoke({"before": "x", "after": ""}, THREAD, durability="sync")
    )
    await arrived.wait()
    if is_forgotten:
        saver.memory.forget(session_id_of("t", ""))
    else:
        await saver.adelete_thread("t")
        await stopping(savers(), arrived, go).aupdate_state(
            THREAD, {"before": "anew"}, as_node="second"
        )
        assert (await graph.aget_state(THREAD)).values == {"before": "anew"}
    await server.lose()
    go.set()
    with pytest.raises(CheckpointDeletedError):
        await run
    left = await stopping(savers(), arrived, go).aget_state(THREAD)
    assert left.values == {"before": "kept"}


@pytest.mark.parametrize("is_listed", [False, True])
async def test_a_move_that_was_lost_is_noticed_by_whoever_loads(
    server: Rewound, savers: Callable[..., PostgresSaver], *, is_listed: bool
) -> None:
    old = InMemorySaver()
    await chat(old).ainvoke(asking("a"), THREAD)
    graph = chat(ReadThroughSaver(savers(), old))
    await server.keep()
    await graph.ainvoke(asking("lost"), THREAD)
    await server.lose()
    if is_listed:
        states = [state async for state in graph.aget_state_history(THREAD)]
    else:
        states = [await graph.aget_state(THREAD)]
    assert texts(states[0].values) == ["a", "re a"]
    assert texts(await graph.ainvoke(asking("b"), THREAD)) == ["a", "re a", "b", "re b"]
    assert texts((await chat(savers()).aget_state(THREAD)).values) == ["a", "re a", "b", "re b"]


async def test_nothing_is_asked_twice_while_nothing_is_lost(
    savers: Callable[..., PostgresSaver],
) -> None:
    """What is known is known under the same generation: no loss is suspected."""
    saver = savers()
    graph = chat(saver)
    session_id = session_id_of("t", "")
    await graph.ainvoke(asking("a"), THREAD)
    generation = saver._cache.generation(session_id)
    assert generation is not None
    for text in ("b", "c"):
        await graph.ainvoke(asking(text), THREAD)
        async for _ in graph.aget_state_history(THREAD):
            pass
        await chat(savers()).ainvoke(asking(f"other {text}"), THREAD)
    assert saver._cache.generation(session_id) == generation
