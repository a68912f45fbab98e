"""Reads of several statements see one moment, and nothing goes on from what was deleted."""

from __future__ import annotations

import asyncio
import functools
import importlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.serde.types import TASKS
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Send

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import (
    CheckpointDeletedError,
    CorruptValueError,
    MissingThreadError,
    ThreadDeletedError,
)
from langgraph_pgsaga.messages import Messages
from langgraph_pgsaga.timetravel import history
from tests.db._puts import checkpoint_of, config_of

pytestmark = pytest.mark.anyio

THREAD: RunnableConfig = {"configurable": {"thread_id": "t"}}
CHANNELS = ["items"]


def joined(state: list[int], writes: Any) -> list[int]:
    return state + [number for write in writes for number in write]


class Notes(TypedDict, total=False):
    # Large enough not to stand in the checkpoint's row.
    notes: list[str]
    messages: Annotated[list[Any], add_messages]
    items: Annotated[list[int], DeltaChannel(joined, list, snapshot_frequency=2)]
    # Without a snapshot for as long as a test lasts.
    all_items: Annotated[list[int], DeltaChannel(joined, list)]


def graph_of(saver: PostgresSaver, channel: str = "items") -> Any:
    """One node, which adds to a delta channel."""

    def work(state: Notes) -> Any:
        found: Any = state.get(channel, [])
        number = len(found)
        said = HumanMessage(f"message {number}", id=f"{number}")
        return {"notes": [f"note {number}" * 50], "messages": [said], channel: [number]}

    builder = StateGraph(Notes)
    builder.add_node("work", work)
    builder.add_edge(START, "work")
    return builder.compile(checkpointer=saver)


async def filled(saver: PostgresSaver, turns: int = 5) -> Any:
    graph = graph_of(saver)
    for turn in range(turns):
        await graph.ainvoke({"notes": []}, {**THREAD, "metadata": {"run_id": f"r{turn}"}})
    return graph


def after(
    saver: PostgresSaver,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    act: Callable[[], Awaitable[Any]],
    *,
    number: int = 1,
) -> None:
    """Runs `act` once, when the saver's statement of this name and number is answered."""
    fetch, answered = saver.db.fetch, 0

    async def fetching(statement: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal answered
        rows = await fetch(statement, *arguments, **options)
        answered += statement.name == name
        if statement.name == name and answered == number:
            await act()
        return rows

    monkeypatch.setattr(saver.db, "fetch", fetching)


DELETIONS: dict[str, Callable[[PostgresSaver], Awaitable[Any]]] = {
    "prune": lambda other: other.aprune(["t"]),
    "delete": lambda other: other.adelete_thread("t"),
    "runs": lambda other: other.adelete_for_runs(["r1", "r2"]),
}


@pytest.mark.parametrize("deletion", DELETIONS)
@pytest.mark.parametrize(
    "name", ["list_namespace", "list_thread", "select_values", "select_messages"]
)
async def test_a_page_of_checkpoints_is_of_one_moment(
    saver: PostgresSaver, dsn: str, monkeypatch: pytest.MonkeyPatch, name: str, deletion: str
) -> None:
    """A deletion between its statements takes nothing from it."""
    await filled(saver)
    config = THREAD if name == "list_thread" else config_of("t")
    whole = [found async for found in saver.alist(config)]
    async with PostgresSaver.from_conn_string(dsn) as other:
        after(saver, monkeypatch, name, lambda: DELETIONS[deletion](other))
        assert [found async for found in saver.alist(config)] == whole
        assert len([found async for found in other.alist(config)]) < len(whole)


async def test_a_checkpoint_and_the_sends_of_its_parent_are_of_one_moment(
    saver: PostgresSaver, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint of a format that keeps its Sends elsewhere isn't read without them."""
    parent = await put_below(saver, config_of("t"))
    await saver.aput_writes(parent, [(TASKS, Send("work", 1))], "task")
    state = checkpoint_of(saver, {"a": ["b"]})
    state["v"] = 3
    child = await saver.aput(parent, state, {"source": "loop"}, state["channel_versions"])
    whole = await saver.aget_tuple(child)
    assert whole is not None
    assert whole.checkpoint["channel_values"][TASKS] == [Send("work", 1)]
    async with PostgresSaver.from_conn_string(dsn) as other:
        # The first look says what format it is.
        delete = functools.partial(other.adelete_thread, "t")
        after(saver, monkeypatch, "get_checkpoint", delete, number=2)
        assert await saver.aget_tuple(child) == whole
        assert await other.aget_tuple(child) is None


async def test_pages_of_a_thread_that_was_begun_anew_dont_mix(
    saver: PostgresSaver, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages that a page of before had under the same numbers aren't taken for the new ones."""
    monkeypatch.setattr("langgraph_pgsaga.checkpoint.listing._FIRST_PAGE", 1)
    await filled(saver)
    listed = saver.alist(config_of("t"))
    assert "message" in str((await anext(listed)).checkpoint["channel_values"]["messages"])
    async with PostgresSaver.from_conn_string(dsn) as other:
        await other.adelete_thread("t")
        state = checkpoint_of(other, {"messages": [HumanMessage("another", id="0")]})
        await other.aput(config_of("t"), state, {}, state["channel_versions"])
        async with other.db.transaction() as conn:
            # As of a server whose clock went back, so that it is on the next page.
            await conn.execute("update agent_states set position = 1")
    found = [one.checkpoint["channel_values"] async for one in listed]
    assert [values["messages"][0].content for values in found] == ["another"]


@pytest.mark.parametrize("name", ["list_steps", "select_states"])
async def test_a_page_of_a_history_is_of_one_moment(
    saver: PostgresSaver, dsn: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """What each step changed and led to is told as of when the steps were there."""
    module = importlib.import_module("langgraph_pgsaga.timetravel.steps")
    monkeypatch.setattr(module, "_FIRST_PAGE", 4)
    await filled(saver)
    whole = [step async for step in history(saver, THREAD)][:4]
    async with PostgresSaver.from_conn_string(dsn) as other:
        after(saver, monkeypatch, name, lambda: other.aprune(["t"]))
        steps = history(saver, THREAD)
        assert [step async for step in steps][:4] == whole


@pytest.mark.parametrize("name", ["walk_delta_channels", "select_values"])
async def test_the_history_of_a_delta_channel_is_of_one_moment(
    saver: PostgresSaver, dsn: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A deletion between its statements takes nothing from it."""
    graph = await filled(saver)
    whole = (await graph.aget_state(THREAD)).values
    async with PostgresSaver.from_conn_string(dsn) as other:
        after(saver, monkeypatch, name, lambda: other.adelete_thread("t"))
        assert (await graph.aget_state(THREAD)).values == whole


async def test_a_state_whose_thread_was_deleted_meanwhile_is_no_empty_one(
    saver: PostgresSaver, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LangGraph asks for delta channels in a second call: that says what happened."""
    graph = await filled(saver)
    async with PostgresSaver.from_conn_string(dsn) as other:
        after(saver, monkeypatch, "get_checkpoint", lambda: other.adelete_thread("t"))
        with pytest.raises(CheckpointDeletedError, match="thread 't'"):
            await graph.aget_state(THREAD)


@pytest.mark.parametrize("deletion", ["prune", "runs"])
async def test_states_that_are_deleted_meanwhile_are_no_empty_ones(
    saver: PostgresSaver, dsn: str, monkeypatch: pytest.MonkeyPatch, deletion: str
) -> None:
    """A history's delta channels are asked for after its page: those that are gone raise,
    and so do those that are built on a run that is gone."""
    graph = await filled(saver, 3)
    seen: list[Any] = []
    whole = [state.values["items"] async for state in graph.aget_state_history(THREAD)]

    async def read() -> None:
        async for state in graph.aget_state_history(THREAD):
            seen.append(state.values["items"])  # noqa: PERF401 - as far as it comes

    async with PostgresSaver.from_conn_string(dsn) as other:
        after(saver, monkeypatch, "select_writes", lambda: DELETIONS[deletion](other))
        with pytest.raises(CheckpointDeletedError):
            await read()
    assert seen == whole[: len(seen)]


async def test_a_delta_channel_that_lost_an_ancestor_is_no_shorter_one(
    saver: PostgresSaver, dsn: str
) -> None:
    """Where a run in the middle is deleted, what was read before isn't put together without it;
    who reads the thread anew gets what is left."""
    graph = graph_of(saver, "all_items")
    for turn in range(3):
        await graph.ainvoke({"notes": []}, {**THREAD, "metadata": {"run_id": f"r{turn}"}})
    latest = await graph.aget_state(THREAD)
    channels = {"config": latest.config, "channels": ["all_items"]}
    assert latest.values["all_items"] == [0, 1, 2]
    async with PostgresSaver.from_conn_string(dsn) as other:
        await other.adelete_for_runs(["r1"])
    with pytest.raises(CheckpointDeletedError):
        await saver.aget_delta_channel_history(**channels)
    assert (await graph.aget_state(THREAD)).values["all_items"] == [2]


async def test_a_checkpoint_that_never_was_has_no_history(saver: PostgresSaver) -> None:
    """As with the in-memory saver: of what nobody stored, nothing is found."""
    await filled(saver, 1)
    for config in (config_of("new"), config_of("t", checkpoint_id="x"), config_of("t", "sub")):
        found = await saver.aget_delta_channel_history(config=config, channels=CHANNELS)
        assert found == {"items": {"writes": []}}


async def test_an_update_of_a_state_that_was_deleted_is_refused(
    saver: PostgresSaver, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It doesn't become the thread's latest state, without the values that were deleted."""
    graph = await filled(saver)
    old = [state async for state in graph.aget_state_history(THREAD)][4]
    latest = await graph.aget_state(THREAD)
    async with PostgresSaver.from_conn_string(dsn) as other:
        after(saver, monkeypatch, "select_channel_writes", lambda: other.aprune(["t"]))
        with pytest.raises(CheckpointDeletedError) as raised:
            await graph.aupdate_state(old.config, {"notes": ["x"]}, as_node="work")
    assert raised.value.checkpoint_id == old.config["configurable"]["checkpoint_id"]
    assert await graph.aget_state(THREAD) == latest
    await graph.aupdate_state(THREAD, {"notes": ["x"]}, as_node="work")


async def put_below(
    saver: PostgresSaver, parent: RunnableConfig, values: dict[str, Any] | None = None
) -> RunnableConfig:
    state = checkpoint_of(saver, values or {"a": ["b"]})
    return await saver.aput(parent, state, {"source": "loop"}, state["channel_versions"])


@pytest.mark.parametrize(
    "values", [{"a": ["c"]}, {"messages": [HumanMessage("new")]}], ids=["values", "messages"]
)
async def test_a_put_below_a_deleted_checkpoint_is_refused(
    saver: PostgresSaver, dsn: str, values: dict[str, Any]
) -> None:
    """Whoever deleted it, and however long ago; what else is written goes on."""
    first = await put_below(saver, config_of("t"))
    second = await put_below(saver, first)
    async with PostgresSaver.from_conn_string(dsn) as other:
        await other.aprune(["t"])
        third = await put_below(saver, second)
        assert await saver.aget_tuple(third)  # learns how the session stands now
        with pytest.raises(CheckpointDeletedError):
            await put_below(saver, first, values)
        # A process that never saw it can't tell it from one that never was.
        await put_below(other, first)
    await saver.aprune(["t"])
    with pytest.raises(CheckpointDeletedError):
        await put_below(saver, third, values)


async def test_a_deletion_that_takes_messages_is_no_new_beginning(
    saver: PostgresSaver, dsn: str
) -> None:
    """Numbers of messages are learned anew then; that the deleted checkpoint was there isn't
    forgotten."""
    first = await put_below(saver, config_of("t"), {"messages": [HumanMessage("old")]})
    second = await put_below(saver, first, {"messages": [HumanMessage("new")]})
    async with PostgresSaver.from_conn_string(dsn) as other:
        await other.aprune(["t"])
    assert await saver.aget_tuple(await put_below(saver, second))
    with pytest.raises(CheckpointDeletedError):
        await put_below(saver, first)


async def test_what_was_listed_was_read(saver: PostgresSaver, dsn: str) -> None:
    """A put below a checkpoint that came in a listing, and is deleted since, is refused."""
    async with PostgresSaver.from_conn_string(dsn) as other:
        first = await put_below(other, config_of("t"))
        await put_below(other, first)
        assert len([found async for found in saver.alist(THREAD)]) == 2
        await other.aprune(["t"])
    with pytest.raises(CheckpointDeletedError):
        await put_below(saver, first)


async def test_of_puts_at_once_each_goes_by_its_own_parent(saver: PostgresSaver, dsn: str) -> None:
    """Beside one whose parent is there, one whose parent was deleted is refused all the same."""
    first = await put_below(saver, config_of("t"))
    second = await put_below(saver, first)
    async with PostgresSaver.from_conn_string(dsn) as other:
        await other.aprune(["t"])
    third = await put_below(saver, second)
    for parents in ((first, third), (third, first)):
        puts = [put_below(saver, parent) for parent in parents]
        results = await asyncio.gather(*puts, return_exceptions=True)
        refused = [isinstance(result, CheckpointDeletedError) for result in results]
        assert refused == [parent is first for parent in parents]


async def test_a_parent_that_never_was_is_accepted(saver: PostgresSaver) -> None:
    """As with every saver, a checkpoint may be put below one that nobody stored."""
    await put_below(saver, config_of("t"))
    await put_below(saver, await put_below(saver, config_of("t", checkpoint_id="never stored")))
    await saver.aprune(["t"])
    await put_below(saver, config_of("t", checkpoint_id="never stored"))


async def test_a_put_beside_prunes_that_leave_its_parent_is_stored(
    saver: PostgresSaver, dsn: str
) -> None:
    """What was deleted elsewhere in the thread is no concern of it."""
    parent = await put_below(saver, config_of("t"))
    async with PostgresSaver.from_conn_string(dsn) as other:
        for _ in range(5):
            parent = await put_below(saver, parent)
            await other.aprune(["t"])
    assert [one.config async for one in saver.alist(config_of("t"))] == [parent]


async def test_a_thread_begun_anew_by_another_is_told_from_a_pruned_one(
    saver: PostgresSaver, dsn: str
) -> None:
    """The whole thread was deleted, and the error says that."""
    first = await put_below(saver, config_of("t"))
    async with PostgresSaver.from_conn_string(dsn) as other:
        await other.adelete_thread("t")
        await put_below(other, config_of("t"))
    with pytest.raises(ThreadDeletedError):
        await put_below(saver, first)


async def test_an_export_of_a_branch_that_is_deleted_meanwhile_fails(
    saver: PostgresSaver, dsn: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It isn't taken for one that ends there; a page of it is of one moment."""
    monkeypatch.setattr("langgraph_pgsaga.messages.messages._EXPORT_PAGE", 2)
    await filled(saver)
    branch = (await saver.aget_tuple(THREAD)).config["configurable"]["checkpoint_id"]  # type: ignore[union-attr]
    file = tmp_path / "messages.jsonl"
    assert await Messages(saver).export(file, thread_id="t", checkpoint_id=branch) == 5
    assert [json.loads(line)["message_no"] for line in file.read_text().splitlines()] == [
        1,
        2,
        3,
        4,
        5,
    ]
    async with PostgresSaver.from_conn_string(dsn) as other:
        name = "list_checkpoint_messages"
        after(saver, monkeypatch, name, lambda: other.adelete_thread("t"))
        with pytest.raises(MissingThreadError):
            await Messages(saver).export(file, thread_id="t", checkpoint_id=branch)
    assert len(file.read_text().splitlines()) == 5


@pytest.mark.parametrize("round_", [1, 2, 4])
async def test_a_checkpoint_that_is_its_own_ancestor_ends_every_walk(
    saver: PostgresSaver, round_: int
) -> None:
    """Delta channels say so, pruning ends, and what needs no ancestor is read."""
    graph = graph_of(saver, "all_items")
    for _ in range(3):
        await graph.ainvoke({"notes": []}, THREAD)
    latest = (await graph.aget_state(THREAD)).config
    found = [one async for one in saver.alist(config_of("t"))]
    places = [one.config["configurable"]["checkpoint_id"] for one in found]
    async with saver.db.transaction() as conn:
        await conn.execute(
            "update agent_states set parent_checkpoint_id = $2 where checkpoint_id = $1",
            places[round_ - 1],
            places[0],
        )
    with pytest.raises(CorruptValueError, match="its own ancestor"):
        await graph.aget_state(latest)
    assert await saver.aget_tuple(latest)
    assert len([step async for step in history(saver, THREAD)]) == len(found)
    await saver.aprune(["t"])
    assert len([one async for one in saver.alist(config_of("t"))]) == round_
