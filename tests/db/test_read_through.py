"""ReadThroughSaver: each thread has one home, and the first write moves it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command

from langgraph_pgsaga import PostgresSaver, timetravel
from langgraph_pgsaga.errors import BlockingCallError, ThreadDivergedError, ThreadExistsError
from langgraph_pgsaga.sessions import RetentionPolicy, Sessions
from langgraph_pgsaga.takeover import ReadThroughSaver, import_threads
from langgraph_pgsaga.takeover.importing import _Takeover
from langgraph_pgsaga.threads import checkpoint_config
from tests._graphs import Saver
from tests.db import _histories as histories
from tests.db._histories import HISTORIES, config_of, resume
from tests.db.test_conformance import assert_conforms

pytestmark = pytest.mark.anyio


SAVERS: list[type[Saver]] = [PostgresSaver, ReadThroughSaver]


class RolledBackError(Exception):
    """What the application changed its mind by."""


class ThreadedReadThrough(ReadThroughSaver):
    """Its async methods call the sync ones on worker threads."""

    def __init__(self, new: PostgresSaver, old: Saver) -> None:
        super().__init__(new, old)
        self._sync = ReadThroughSaver(new, old)

    async def aget_tuple(self, *args: Any, **kwargs: Any) -> CheckpointTuple | None:
        return await asyncio.to_thread(self._sync.get_tuple, *args, **kwargs)

    async def alist(self, *args: Any, **kwargs: Any) -> AsyncIterator[CheckpointTuple]:
        for found in await asyncio.to_thread(lambda: list(self._sync.list(*args, **kwargs))):
            yield found

    async def aput(self, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(self._sync.put, *args, **kwargs)

    async def aput_writes(self, *args: Any, **kwargs: Any) -> None:
        await asyncio.to_thread(self._sync.put_writes, *args, **kwargs)

    async def adelete_thread(self, *args: Any, **kwargs: Any) -> None:
        await asyncio.to_thread(self._sync.delete_thread, *args, **kwargs)

    async def adelete_for_runs(self, *args: Any, **kwargs: Any) -> None:
        await asyncio.to_thread(self._sync.delete_for_runs, *args, **kwargs)

    async def acopy_thread(self, *args: Any, **kwargs: Any) -> None:
        await asyncio.to_thread(self._sync.copy_thread, *args, **kwargs)

    async def aprune(self, *args: Any, **kwargs: Any) -> None:
        await asyncio.to_thread(self._sync.prune, *args, **kwargs)


async def history(saver: Saver, build: Callable[[Saver], Any], thread_id: str) -> list[Any]:
    return [state async for state in build(saver).aget_state_history(config_of(thread_id))]


async def all_of(saver: Saver, config: Any = None, **options: Any) -> list[CheckpointTuple]:
    return [found async for found in saver.alist(config, **options)]


def key(found: CheckpointTuple) -> tuple[str, str, str]:
    configurable = found.config["configurable"]
    return (
        configurable["checkpoint_id"],
        configurable["thread_id"],
        configurable["checkpoint_ns"],
    )


@pytest.mark.parametrize("saver_class", [ReadThroughSaver, ThreadedReadThrough])
async def test_conforms_with_nothing_in_the_old_saver(
    dsn: str, old: Saver, saver_class: type[ReadThroughSaver]
) -> None:
    """All eight capabilities pass, async and sync."""

    @checkpointer_test(name="ReadThroughSaver")
    async def savers() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        async with PostgresSaver.from_conn_string(dsn) as new:
            yield saver_class(new, old)

    assert_conforms(await validate(savers))


@pytest.mark.parametrize("name", HISTORIES)
async def test_reads_show_the_old_saver_and_move_nothing(
    old: Saver, saver: PostgresSaver, name: str
) -> None:
    """Until it is written to, a thread is as the old saver has it, and only there."""
    build, drive = HISTORIES[name]
    await drive(build(old), config_of("t"))
    both = ReadThroughSaver(saver, old)
    if name != "odd values":
        assert await history(both, build, "t") == await history(old, build, "t")
    assert list(map(key, await all_of(both))) == list(map(key, await all_of(old)))
    assert await all_of(saver) == []


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
@pytest.mark.parametrize(
    ("build", "drive", "answer"),
    [
        (histories.approval, histories.ask, Command(resume="one")),
        (histories.approval, histories.overrule, Command(update={"total": ["more"]})),
        (histories.nested, histories.ask, Command(resume="yes")),
        (histories.fan_out, histories.ask, Command(resume=7)),
        (histories.deltas, histories.turns, {"items": ["more"], "turn": 9}),
        (histories.chat, histories.fork, {"messages": [HumanMessage("more", id="m")]}),
    ],
    ids=["interrupt", "overruled", "subgraph", "send", "delta", "fork"],
)
async def test_a_thread_goes_on_in_the_new_saver(
    old: Saver, saver: PostgresSaver, build: Any, drive: Any, answer: Any, is_async: bool
) -> None:
    """The answer is the one that the old saver gives, the past is whole, and the old saver
    gets nothing of it."""
    config = config_of("t")
    await drive(build(old), config)
    past = await history(old, build, "t")
    graph = build(ReadThroughSaver(saver, old))
    if is_async:
        here = await graph.ainvoke(answer, config)
    else:
        here = await asyncio.to_thread(graph.invoke, answer, config)
    assert [s.config for s in await history(old, build, "t")] == [s.config for s in past]
    now = await history(saver, build, "t")
    # The newest of the past has since got the writes of what came after it.
    assert now[-len(past) + 1 :] == past[1:]
    assert now != past
    there = await build(old).ainvoke(answer, config)
    assert _texts(here) == _texts(there)


def _texts(answer: Any) -> Any:
    """The answer without the ids that a run makes."""
    messages = answer.get("messages")
    return answer if messages is None else [(type(m), m.content) for m in messages]


async def test_two_processes_move_one_thread(old: Saver, saver: PostgresSaver, dsn: str) -> None:
    """Both write at once, with pools of one connection: the past is there once, and both writes."""
    await histories.fork(histories.chat(old), config_of("t"))
    past = await all_of(old)
    async with PostgresSaver.from_conn_string(dsn, max_size=1) as other:
        writers = [ReadThroughSaver(one, old) for one in (saver, other, saver)]
        latest = past[0].config
        await asyncio.gather(
            *(
                writer.aput_writes(
                    latest, [("messages", [HumanMessage(str(n), id=str(n))])], f"t{n}"
                )
                for n, writer in enumerate(writers)
                for _ in range(3)
            )
        )
    here = await all_of(saver)
    assert list(map(key, here)) == list(map(key, past))
    assert sorted(task for task, _, _ in here[0].pending_writes or [])[-3:] == ["t0", "t1", "t2"]


class StoppingSaver(PostgresSaver):
    """Stops after a number of checkpoints, as a process that ends; its copies count, too."""

    left = 0

    async def aput(self, *args: Any, **kwargs: Any) -> Any:
        if StoppingSaver.left == 0:
            raise ConnectionAbortedError
        StoppingSaver.left -= 1
        return await super().aput(*args, **kwargs)


async def test_a_move_that_was_interrupted_shows_the_old_thread(
    old: Saver, saver: PostgresSaver, dsn: str
) -> None:
    """Half a thread in the new saver is never shown; the next write completes the move."""
    graph = histories.chat(old)
    await histories.talk(graph, config_of("t"))
    there = await history(old, histories.chat, "t")
    StoppingSaver.left = 3
    async with StoppingSaver.from_conn_string(dsn) as stopping:
        with pytest.raises(ConnectionAbortedError):
            await histories.chat(ReadThroughSaver(stopping, old)).ainvoke(
                {"messages": [HumanMessage("more")]}, config_of("t")
            )
    assert len(await all_of(saver)) == 3
    both = ReadThroughSaver(saver, old)
    assert await history(both, histories.chat, "t") == there
    assert list(map(key, await all_of(both))) == list(map(key, await all_of(old)))
    await histories.chat(both).ainvoke({"messages": [HumanMessage("more")]}, config_of("t"))
    assert (await history(both, histories.chat, "t"))[-len(there) + 1 :] == there[1:]
    assert len(await all_of(saver)) > len(there)


async def test_a_thread_that_cant_be_moved_takes_no_writes(
    old: Saver, saver: PostgresSaver
) -> None:
    """Where each saver has a past of its own, the write raises and changes neither."""
    for one in (old, saver):
        await histories.talk(histories.chat(one), config_of("t"))
    before = [await all_of(one) for one in (old, saver)]
    with pytest.raises(ThreadDivergedError):
        await histories.chat(ReadThroughSaver(saver, old)).ainvoke(
            {"messages": [HumanMessage("more")]}, config_of("t")
        )
    assert [await all_of(one) for one in (old, saver)] == before


async def test_listings_hold_both_newest_first(old: Saver, saver: PostgresSaver) -> None:
    """No checkpoint is missing or there twice, and limit, before and filter count for both."""
    both = ReadThroughSaver(saver, old)
    for thread_id in ("moved", "old"):
        await histories.talk(histories.chat(old), config_of(thread_id))
    for thread_id in ("moved", "new"):
        await histories.talk(histories.chat(both), config_of(thread_id))
    found = list(map(key, await all_of(both)))
    assert found == sorted(set(found), reverse=True)
    ours, theirs = [list(map(key, await all_of(one))) for one in (saver, old)]
    assert set(found) == {*ours, *(one for one in theirs if one[1] == "old")}
    assert list(map(key, await all_of(both, limit=7))) == found[:7]
    before: Any = {"configurable": {"checkpoint_id": found[4][0]}}
    assert list(map(key, await all_of(both, before=before, limit=3))) == found[5:8]
    inputs = await all_of(both, filter={"source": "input"})
    assert [one.metadata["source"] for one in inputs] == ["input"] * 8
    in_threads = await asyncio.to_thread(lambda: list(both.list(None)))
    assert list(map(key, in_threads)) == found
    assert await all_of(both, limit=0) == []


async def test_a_deleted_thread_is_gone_in_both(old: Saver, saver: PostgresSaver) -> None:
    """Moved or not, it doesn't come back."""
    both = ReadThroughSaver(saver, old)
    for thread_id in ("moved", "old"):
        await histories.talk(histories.chat(old), config_of(thread_id))
    await histories.talk(histories.chat(both), config_of("moved"))
    await both.adelete_thread("moved")
    await both.aprune(["old"], strategy="delete")
    for one in (both, old, saver, ReadThroughSaver(saver, old)):
        assert await all_of(one) == []


async def test_what_is_pruned_doesnt_come_back(old: Saver, saver: PostgresSaver) -> None:
    """After prune and delete_for_runs the old saver's copy isn't looked at again, by a new
    object neither."""
    for thread_id in ("pruned", "runs"):
        await histories.talk(histories.chat(old), config_of(thread_id))
    run = "the last run"
    config: Any = {"configurable": {"thread_id": "runs"}, "metadata": {"run_id": run}}
    await histories.chat(old).ainvoke({"messages": [HumanMessage("more")]}, config)
    both = ReadThroughSaver(saver, old)
    await both.aprune(["pruned"])
    await both.adelete_for_runs([run])
    left = await all_of(ReadThroughSaver(saver, old))
    assert left == await all_of(saver)
    assert [key(one)[1] for one in left].count("pruned") == 1
    assert all(one.metadata.get("run_id") != run for one in left)
    assert any(key(one)[1] == "runs" for one in left)


def test_its_methods_take_what_a_savers_do() -> None:
    """So that one can stand where the other does."""
    own = {name for name, value in vars(ReadThroughSaver).items() if inspect.isfunction(value)}
    same = [name for name in own & set(vars(PostgresSaver)) if not name.startswith("_")]
    assert "aput" in same
    for name in same:
        parameters = [list(inspect.signature(getattr(c, name)).parameters) for c in SAVERS]
        assert parameters[0] == parameters[1], name


CALLS: dict[str, Callable[[ReadThroughSaver, CheckpointTuple, Any], Any]] = {
    "put": lambda both, last, conn: both.aput(
        last.config, {**last.checkpoint, "id": "~"}, {"step": 9}, {}, conn=conn
    ),
    "put_writes": lambda both, last, conn: both.aput_writes(
        last.config, [("messages", [])], "~", conn=conn
    ),
    "delete_thread": lambda both, _, conn: both.adelete_thread("t", conn=conn),
    "delete_for_runs": lambda both, last, conn: both.adelete_for_runs(
        [last.metadata["run_id"]], conn=conn
    ),
    "copy_thread": lambda both, _, conn: both.acopy_thread("t", "copy", conn=conn),
    "prune": lambda both, _, conn: both.aprune(["t"], conn=conn),
    "prune all": lambda both, _, conn: both.aprune(["t"], strategy="delete", conn=conn),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_joins_a_transaction(old: Saver, saver: PostgresSaver, name: str) -> None:
    """Rolled back, the thread is as the old saver had it; committed, the call counts."""
    config = {"configurable": {"thread_id": "t"}, "metadata": {"run_id": "r"}}
    await histories.talk(histories.chat(old), config)
    both = ReadThroughSaver(saver, old)
    before = await all_of(old)
    with suppress(RolledBackError):
        async with saver.db.transaction() as conn:
            await CALLS[name](both, before[0], conn)
            raise RolledBackError
    assert [shown(one) for one in await all_of(both)] == [shown(one) for one in before]
    assert await both.ais_imported("t")
    async with saver.db.transaction() as conn:
        await CALLS[name](both, before[0], conn)
    assert [shown(one) for one in await all_of(both)] != [shown(one) for one in before]


def shown(found: CheckpointTuple) -> Any:
    return key(found), found.checkpoint["channel_values"], found.pending_writes


async def test_copies_come_from_the_old_saver_too(old: Saver, saver: PostgresSaver) -> None:
    """A thread that wasn't moved can be copied, and one that wasn't moved isn't overwritten."""
    both = ReadThroughSaver(saver, old)
    for thread_id in ("source", "taken"):
        await histories.talk(histories.chat(old), config_of(thread_id))
    await both.acopy_thread("source", "copy")
    copied = await history(both, histories.chat, "copy")
    assert len(copied) == len(await history(old, histories.chat, "source")) > 0
    with pytest.raises(ThreadExistsError):
        await both.acopy_thread("source", "taken")


async def test_a_thread_that_went_on_here_is_not_asked_for_in_the_old_saver(
    old: Saver, saver: PostgresSaver
) -> None:
    """Whoever still writes to the old saver alone isn't heard any more."""
    await histories.talk(histories.chat(old), config_of("t"))
    assert (await import_threads(old, saver)).failed == ()
    await histories.chat(saver).ainvoke({"messages": [HumanMessage("more")]}, config_of("t"))
    newest = (await all_of(saver))[0]
    await histories.talk(histories.chat(old), config_of("t"))
    found = await ReadThroughSaver(saver, old).aget_tuple(config_of("t"))
    assert found is not None
    assert key(found) == key(newest)


async def test_a_thread_that_went_on_here_on_a_host_that_is_behind_is_here(
    old: Saver, saver: PostgresSaver
) -> None:
    """What was written here counts by when that was: its id may be lower than those that came."""
    await histories.talk(histories.chat(old), config_of("t"))
    assert (await import_threads(old, saver)).failed == ()
    (newest, *_) = await all_of(saver)
    checkpoint: Any = {**newest.checkpoint, "id": "0" + newest.checkpoint["id"][1:]}
    written = await saver.aput(newest.config, checkpoint, newest.metadata, {})
    await histories.talk(histories.chat(old), config_of("t"))
    found = await ReadThroughSaver(saver, old).aget_tuple(config_of("t"))
    assert found is not None
    assert found.config == written


async def test_a_thread_that_is_moved_by_a_write_is_active(
    old: Saver, saver: PostgresSaver
) -> None:
    """A sweep of idle sessions doesn't take it away between its move and that write."""
    await histories.talk(histories.chat(old), config_of("t"))
    (newest, *_) = every = await all_of(old)
    for found in reversed(every):
        checkpoint: Any = {**found.checkpoint, "ts": "2024-05-01T12:00:00+00:00"}
        below = found.parent_config or checkpoint_config("t", "", "")
        await old.aput(below, checkpoint, found.metadata, {})
    both = ReadThroughSaver(saver, old)
    await both._move("t")
    await Sessions(saver.db).sweep([RetentionPolicy(max_idle=timedelta(hours=1))])
    await both.aput_writes(newest.config, [("messages", [])], "task")
    assert list(map(key, await all_of(saver))) == list(map(key, await all_of(old)))


async def test_metadata_that_is_replaced_doesnt_bring_the_old_thread_back(
    old: Saver, saver: PostgresSaver
) -> None:
    """Where a thread is isn't told by what its users may change, for a new object neither."""
    await histories.talk(histories.chat(old), config_of("t"))
    both = ReadThroughSaver(saver, old)
    await histories.chat(both).ainvoke({"messages": [HumanMessage("more")]}, config_of("t"))
    here = await all_of(both)
    await Sessions(saver.db).update("t", metadata={"mine": 1})
    assert await all_of(ReadThroughSaver(saver, old)) == here


async def test_a_thread_that_went_on_in_the_old_saver_after_an_import_is_read_there(
    old: Saver, saver: PostgresSaver
) -> None:
    """An import ahead of the switch doesn't hide what came to the old saver since; the next
    write brings it."""
    graph = histories.chat(old)
    await histories.talk(graph, config_of("t"))
    assert (await import_threads(old, saver)).failed == ()
    await histories.talk(graph, config_of("t"))
    both = ReadThroughSaver(saver, old)
    there = await history(old, histories.chat, "t")
    assert await history(both, histories.chat, "t") == there
    await histories.chat(both).ainvoke({"messages": [HumanMessage("more")]}, config_of("t"))
    assert (await history(saver, histories.chat, "t"))[-len(there) + 1 :] == there[1:]


async def test_a_thread_whose_second_import_ended_halfway_is_read_in_the_old_saver(
    old: Saver, saver: PostgresSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had come over by then isn't taken for a run here, and the next write brings the rest."""
    graph = histories.chat(old)
    await histories.talk(graph, config_of("t"))
    assert (await import_threads(old, saver)).failed == ()
    await histories.talk(graph, config_of("t"))

    async def interrupted(*_: object) -> None:
        raise ConnectionAbortedError

    with monkeypatch.context() as patch:
        patch.setattr(_Takeover, "_set_times", interrupted)
        with pytest.raises(ConnectionAbortedError):
            await import_threads(old, saver, batch=2)
    both = ReadThroughSaver(saver, old)
    there = await history(old, histories.chat, "t")
    assert len(await history(saver, histories.chat, "t")) < len(there)
    assert await history(both, histories.chat, "t") == there
    await histories.chat(both).ainvoke({"messages": [HumanMessage("more")]}, config_of("t"))
    assert (await history(saver, histories.chat, "t"))[-len(there) + 1 :] == there[1:]
    # From then on it is read here.
    assert await history(ReadThroughSaver(saver, old), histories.chat, "t") == await history(
        saver, histories.chat, "t"
    )


async def test_a_sync_call_that_would_wait_for_itself_is_refused(
    old: Saver, saver: PostgresSaver
) -> None:
    """From the old saver's own loop the sync methods raise at once instead of hanging."""
    both = ReadThroughSaver(saver, old)
    with pytest.raises(BlockingCallError, match="get_tuple"):
        both.get_tuple(config_of("t"))
    with pytest.raises(BlockingCallError):
        next(both.list(None))


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
@pytest.mark.parametrize("has_moved", [True, False], ids=["moved", "old"])
async def test_time_travel_is_in_both(
    old: Saver, saver: PostgresSaver, has_moved: bool, is_async: bool
) -> None:
    """Histories, states, names, forks, replays and comparisons, wherever the thread is."""
    config = config_of("t")
    await histories.fork(histories.chat(old), config)
    both = ReadThroughSaver(saver, old)
    graph = histories.chat(both)
    if has_moved:
        await both.aimport_thread("t")
    travel = travelled if is_async else in_threads
    found = await travel(graph, config)
    await PostgresSaver(saver.db).adelete_thread("t")
    assert (await import_threads(old, saver)).failed == ()
    assert found == await travel(histories.chat(saver), config)


async def travelled(graph: Any, config: Any) -> list[Any]:
    """What time travel shows, without ids that are new each time."""
    steps = await timetravel.history(graph, config).load()
    again = await timetravel.history(graph.checkpointer, config).load()
    assert list(again) == list(steps)
    at = await timetravel.aat(graph, config, node="tool")
    tree = await timetravel.abranches(graph, config)
    has_two = await timetravel.abisect(steps, lambda values: len(values.get("messages", [])) > 1)
    listed = [state.values async for state in timetravel.alist_states(graph, config, limit=3)]
    values = await again.avalues(steps[0])
    shown: list[Any] = [list(steps), str(tree), at.values, has_two, listed, values]
    # From here on the thread is written to, and so is the new saver's.
    compared = await timetravel.acompare(at, {"one": None, "other": {"messages": ["?"]}})
    texts = {name: _ended(outcome) for name, outcome in compared.outcomes.items()}
    await compared.adiscard()
    await timetravel.aname_checkpoint(graph, at.config, "good")
    fork = await timetravel.afork(await timetravel.aat(graph, config, name="good"))
    replayed = await timetravel.areplay(fork)
    copy = await timetravel.afork(at, thread_id="copy")
    shown += [texts, _texts(replayed.values), _texts(copy.values), len(timetravel.diff(at, fork))]
    await graph.checkpointer.adelete_thread("copy")
    return shown


def _ended(outcome: timetravel.Outcome) -> Any:
    assert outcome.state is not None
    return _texts(outcome.state.values)


async def in_threads(graph: Any, config: Any) -> list[Any]:
    """The same by its sync functions."""

    def run() -> list[Any]:
        steps = timetravel.history(graph, config)
        again = timetravel.history(graph.checkpointer, config)
        assert list(again) == list(steps)
        at = timetravel.at(graph, config, node="tool")
        tree = timetravel.branches(graph, config)
        has_two = timetravel.bisect(steps, lambda values: len(values.get("messages", [])) > 1)
        listed = [state.values for state in timetravel.list_states(graph, config, limit=3)]
        shown: list[Any] = [list(steps), str(tree), at.values, has_two, listed]
        shown.append(again.values(steps[0]))
        compared = timetravel.compare(at, {"one": None, "other": {"messages": ["?"]}})
        shown.append({name: _ended(outcome) for name, outcome in compared.outcomes.items()})
        compared.discard()
        timetravel.name_checkpoint(graph, at.config, "good")
        fork = timetravel.fork(timetravel.at(graph, config, name="good"))
        copy = timetravel.fork(at, thread_id="copy")
        shown += [_texts(timetravel.replay(fork).values), _texts(copy.values)]
        graph.checkpointer.delete_thread("copy")
        return shown

    return await asyncio.to_thread(run)


def test_sync_savers_and_graphs_work_without_a_loop(
    sync_saver: PostgresSaver, tmp_path: Path
) -> None:
    """An interrupt of a sync-only saver is resumed by `invoke`, with no event loop anywhere."""
    with SqliteSaver.from_conn_string(str(tmp_path / "old.sqlite")) as old:
        histories.approval(old).invoke({"total": ["start"]}, config_of("t"))
        graph = histories.approval(ReadThroughSaver(sync_saver, old))
        assert len(list(graph.get_state_history(config_of("t")))) == 2
        graph.invoke(Command(resume="one"), config_of("t"))
        answer = graph.invoke(Command(resume="two"), config_of("t"))
    assert sorted(answer["total"]) == ["one", "start", "two", "worked"]


async def test_a_saver_in_memory_can_be_the_old_one(saver: PostgresSaver) -> None:
    """Its listings, which are in no common order, are sorted."""
    old = InMemorySaver()
    for thread_id in ("one", "two"):
        await histories.ask(histories.nested(old), config_of(thread_id))
    both = ReadThroughSaver(saver, old)
    await resume(histories.nested(both), config_of("one"), "yes")
    found = list(map(key, await all_of(both)))
    assert found == sorted(set(found), reverse=True)
    assert {thread_id for _, thread_id, _ in found} == {"one", "two"}


async def test_allowed_types_count_for_both(old: Saver, saver: PostgresSaver) -> None:
    """with_allowlist gives a saver of the same two."""
    copy = ReadThroughSaver(saver, old).with_allowlist([("some.module", "Name")])
    assert isinstance(copy, ReadThroughSaver)
    assert copy.new.db is saver.db
    assert copy.get_next_version(f"{7:032}.5", None) > f"{7:032}.9"
