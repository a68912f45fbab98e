"""Threads of langgraph's Postgres and SQLite savers, taken over: what was there is here."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.types import TASKS
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.checkpoint.versions import next_version
from langgraph_pgsaga.errors import (
    InvalidArgumentError,
    MissingThreadError,
    TakeoverMismatchError,
    ThreadDivergedError,
    UnreadableThreadError,
    UnstorableValueError,
)
from langgraph_pgsaga.takeover import ImportProgress, ReadThroughSaver, import_threads
from tests._connections import connection_of
from tests._graphs import Saver
from tests.db import _histories as histories
from tests.db._histories import HISTORIES, config_of, resume
from tests.db._old_savers import MARK, all_of, rows_of, value_of

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).resolve().parents[2]
ODD_THREAD = 'a "thread", %s; \\ {schema} 線\n'


async def history(graph: Any, thread_id: str) -> list[Any]:
    return [state async for state in graph.aget_state_history(config_of(thread_id))]


def _killed_after(command: list[str], lines: int) -> list[str]:
    """What the command says before it is killed."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
    return said


@pytest.mark.parametrize("name", HISTORIES)
async def test_every_kind_of_history_comes_over_whole(
    old: Saver, saver: PostgresSaver, name: str
) -> None:
    """States, metadata, parents, tasks and interrupts are the source's; a second run has nothing
    to do."""
    build, drive = HISTORIES[name]
    graph = build(old)
    for thread_id in ("t", ODD_THREAD):
        await drive(graph, config_of(thread_id))
    report = await import_threads(old, saver, batch=3)
    assert report.failed == ()
    assert report.checkpoints == report.stored == len(await all_of(old)) > 2
    assert {thread.thread_id for thread in report.threads} == {"t", ODD_THREAD}
    if name != "odd values":  # NaN isn't itself
        for thread_id in ("t", ODD_THREAD):
            taken = await history(build(saver), thread_id)
            assert taken == await history(graph, thread_id)
    before = await rows_of(saver)
    again = await import_threads(old, saver)
    assert (again.failed, again.checkpoints, again.stored, again.writes) == (
        (),
        report.checkpoints,
        0,
        0,
    )
    assert await rows_of(saver) == before


class Wide(TypedDict):
    turn: int
    plan: Any


class Narrow(TypedDict):
    turn: int


@pytest.mark.parametrize(
    "value",
    [["a"], "x" * 300, 1.5, {"a": 1}, [HumanMessage("x", id="1")], b"x"],
    ids=lambda value: type(value).__name__,
)
async def test_a_thread_comes_over_whose_graph_lost_a_channel(
    old: Saver, saver: PostgresSaver, value: Any
) -> None:
    """The savers of langgraph lose a value once a graph without its channel goes on; here it is
    there for as long as its version is."""

    def graph(schema: type, saver: Any) -> Any:
        builder: StateGraph[Any] = StateGraph(schema)
        builder.add_node("count", lambda state: {"turn": state["turn"] + 1})
        builder.add_edge(START, "count")
        return builder.compile(checkpointer=saver)

    config = config_of("t")
    await graph(Wide, old).ainvoke({"turn": 1, "plan": value}, config)
    await graph(Narrow, old).ainvoke({"turn": 5}, config)
    for _ in range(2):
        (await import_threads(old, saver)).raise_first()
        state = await graph(Wide, saver).aget_state(config)
        assert state.values == {"turn": 6, "plan": value}
    graph_here = graph(Wide, ReadThroughSaver(saver, old))
    assert await graph_here.ainvoke({"turn": 8}, config) == {"turn": 9, "plan": value}


async def test_values_that_have_no_version_are_left(tmp_path: Path, saver: PostgresSaver) -> None:
    """Early versions of LangGraph stored what a channel begins with; no graph needs it."""
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "early.sqlite")) as source:
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"turn": 1, "messages": []}
        checkpoint["channel_versions"] = {"turn": "1"}
        config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
        await source.aput(config, checkpoint, {"step": -1}, {"turn": "1"})
        (await import_threads(source, saver)).raise_first()
    found = await saver.aget_tuple(config)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"turn": 1}


@pytest.mark.parametrize(
    ("build", "answers"),
    [
        (histories.approval, ("one", "two")),
        (histories.nested, ("yes",)),
        (histories.fan_out, (7,)),
    ],
)
async def test_an_interrupt_is_resumed_after_the_move(
    old: Saver, saver: PostgresSaver, build: Callable[[Saver], Any], answers: tuple[Any, ...]
) -> None:
    """The run that waits goes on in the new saver as it would have in the old one, without
    running again what was done."""
    config = config_of("t")
    await histories.ask(build(old), config)
    assert (await import_threads(old, saver)).failed == ()
    here = await resume(build(saver), config, *answers)
    there = await resume(build(old), config, *answers)
    assert here == there
    newest = [
        (await build(one).aget_state(config)).config["configurable"]["checkpoint_id"]
        for one in (saver, old)
    ]
    assert newest[0] != newest[1]


async def test_a_thread_half_way_through_its_interrupts_goes_on(
    old: Saver, saver: PostgresSaver
) -> None:
    """An answer that was given before the move isn't asked for again."""
    config = config_of("t")
    await histories.ask(histories.approval(old), config)
    await resume(histories.approval(old), config, "one")
    assert (await import_threads(old, saver)).failed == ()
    result = await resume(histories.approval(saver), config, "two")
    assert sorted(result["total"]) == ["one", "start", "two", "worked"]


async def _executed_again(source: Saver, saver: PostgresSaver, questions: int) -> list[Any]:
    """What is pending in each at a step that is executed again, one of whose two tasks had been
    answered, so many times, when it was moved."""
    config = config_of("t")
    given: dict[str, str] = {}
    graphs = [histories.two_askers(one, questions) for one in (source, saver)]
    await histories.ask(graphs[0], config)
    for _ in range(questions):
        state = await graphs[0].aget_state(config)
        given = {**given, **{i.id: i.value.upper() for i in state.interrupts if i.value != "once?"}}
        await graphs[0].ainvoke(Command(resume=given), config)
    assert (await import_threads(source, saver)).failed == ()
    paused = (await all_of(source))[0].config
    found = []
    for graph in graphs:
        (question,) = (await graph.aget_state(config)).interrupts
        for place in (config, paused):
            await graph.ainvoke(Command(resume={question.id: "ONCE?"}), place)
        again = await graph.checkpointer.aget_tuple(paused)
        found.append(sorted(w for w in again.pending_writes if w[1] == "total"))
    return found


async def test_an_answered_task_is_executed_again_after_the_move(
    old: Saver, saver: PostgresSaver
) -> None:
    """Its writes stand where LangGraph's own call put them, behind the answer: none is doubled."""
    there, here = await _executed_again(old, saver, 1)
    assert here == there
    assert sorted(value for *_, value in here) == [["0?"], ["ONCE?"]]


async def test_a_task_with_several_answers_is_executed_again_after_the_move(
    saver: PostgresSaver,
) -> None:
    """Each answer has a place before its writes, as far as the source knows of them all."""
    there, here = await _executed_again(InMemorySaver(), saver, 3)
    assert here == there
    assert sorted(value for *_, value in here) == [["0?", "1?", "2?"], ["ONCE?"]]


async def test_a_delta_channel_goes_on_after_the_move(old: Saver, saver: PostgresSaver) -> None:
    """It is rebuilt from the writes and snapshots that came over, then and later."""
    config = config_of("t")
    await histories.turns(histories.deltas(old), config)
    assert (await import_threads(old, saver)).failed == ()
    here = await histories.deltas(saver).ainvoke({"items": ["more"], "turn": 9}, config)
    there = await histories.deltas(old).ainvoke({"items": ["more"], "turn": 9}, config)
    assert here == there
    assert len(here["items"]) == 18


async def test_tasks_keep_their_order_without_their_paths(old: Saver, saver: PostgresSaver) -> None:
    """Pending writes come in the order in which the source gives them, not in that of ids."""
    await histories.ask(histories.fan_out(old), config_of("t"))
    assert (await import_threads(old, saver)).failed == ()
    (found,) = [one async for one in saver.alist(config_of("t"), limit=1)]
    expected = await old.aget_tuple(config_of("t"))
    assert expected is not None
    assert found.pending_writes == expected.pending_writes
    ids = [task_id for task_id, _, _ in expected.pending_writes or []]
    assert ids != sorted(ids)


async def test_metadata_is_the_sources_and_the_session_knows_its_user(
    old: Saver, saver: PostgresSaver
) -> None:
    """Nothing is added to any checkpoint's metadata; user_id is also the session's."""
    await histories.talk(histories.chat(old), config_of("t"))
    await import_threads(old, saver)
    there = {one.config["configurable"]["checkpoint_id"]: one.metadata for one in await all_of(old)}
    here = {
        one.config["configurable"]["checkpoint_id"]: one.metadata for one in await all_of(saver)
    }
    assert here == there
    assert await value_of(saver, "select user_id from agent_sessions") == "ada"


async def test_sends_of_formats_before_4_come_over(old: Saver, saver: PostgresSaver) -> None:
    """Sends that such a checkpoint takes from its parent's writes are there, in order."""
    await histories.talk(histories.chat(old), config_of("t"))
    parent = (await all_of(old))[0]
    config: Any = {"configurable": {"thread_id": "v3", "checkpoint_ns": ""}}
    for number in (1, 2):
        checkpoint: Any = {**parent.checkpoint, "v": 3, "id": f"{parent.checkpoint['id']}{number}"}
        versions = checkpoint["channel_versions"]
        config = await old.aput(config, checkpoint, parent.metadata, versions)
        for place, task_id in enumerate(("z", "a", "m")):
            sends = [(TASKS, Send("worker", {"n": place})), (TASKS, Send("worker", number))]
            await old.aput_writes(config, sends, task_id, f"path {place}")
    report = await import_threads(old, saver, thread_ids=["v3"])
    assert report.failed == ()
    here, there = (await saver.aget_tuple(config), await old.aget_tuple(config))
    assert here is not None
    assert there is not None
    if not isinstance(old, AsyncSqliteSaver):  # it leaves them where they are
        assert here.checkpoint == there.checkpoint
    sent = [send.arg for send in here.checkpoint["channel_values"][TASKS]]
    assert sent == [{"n": 0}, 1, {"n": 1}, 1, {"n": 2}, 1]


async def test_an_encrypting_saver_takes_threads_over(old: Saver, dsn: str) -> None:
    """They are compared all the same, and nothing of them is in clear."""
    for name in ("chat", "odd values"):
        build, drive = HISTORIES[name]
        await drive(build(old), config_of(name))
    serde = EncryptedSerializer.from_pycryptodome_aes(key=b"0" * 16)
    async with PostgresSaver.from_conn_string(dsn, serde=serde) as target:
        for _ in range(2):
            assert (await import_threads(old, target)).failed == ()
        there = await history(histories.chat(old), "chat")
        assert await history(histories.chat(target), "chat") == there
        assert await value_of(target, "select count(nullif(content, '')) from agent_messages") == 0
        sealed = "select bool_and(type like '%+aes') from agent_state_values where payload notnull"
        assert await value_of(target, sealed)


async def test_both_savers_may_share_a_database(saver: PostgresSaver, dsn: str) -> None:
    """Their tables are different ones."""
    async with AsyncPostgresSaver.from_conn_string(dsn) as old:
        await old.setup()
        await histories.talk(histories.chat(old), config_of("t"))
        assert (await import_threads(old, saver)).failed == ()
        there = await history(histories.chat(old), "t")
        assert await history(histories.chat(saver), "t") == there


async def test_a_value_is_stored_once_per_version(old: Saver, saver: PostgresSaver) -> None:
    """Messages that stand in many checkpoints, forks too, are one row each."""
    await histories.fork(histories.chat(old), config_of("t"))
    await import_threads(old, saver)
    messages = {
        message.id
        for one in await all_of(old)
        for message in one.checkpoint["channel_values"].get("messages", [])
    }
    assert (await rows_of(saver))[4] == len(messages)


async def test_a_killed_import_is_continued(saver: PostgresSaver, tmp_path: Path, dsn: str) -> None:
    """What was stored before the kill isn't stored again, what wasn't is, and all is there."""
    path = str(tmp_path / "old.sqlite")
    async with AsyncSqliteSaver.from_conn_string(path) as old:
        graph = histories.chat(old)
        for thread_id in ("one", "two"):
            await histories.fork(graph, config_of(thread_id))
        command = [sys.executable, str(ROOT / "tests/db/_killed_import.py"), path, dsn]
        assert await asyncio.to_thread(_killed_after, command, 3) == ["2\n", "4\n", "6\n"]
        half = (await rows_of(saver))[1]
        assert half == 6
        report = await import_threads(old, saver)
        assert report.failed == ()
        assert report.stored == report.checkpoints - half
        for thread_id in ("one", "two"):
            there = await history(graph, thread_id)
            assert await history(histories.chat(saver), thread_id) == there


async def test_two_imports_at_once_do_the_work_once(
    old: Saver, saver: PostgresSaver, dsn: str
) -> None:
    """Between them they store each checkpoint once, and both find everything right."""
    for thread_id in ("one", "two", "three"):
        await histories.fork(histories.chat(old), config_of(thread_id))
    async with PostgresSaver.from_conn_string(dsn, max_size=1) as other:
        reports = await asyncio.gather(import_threads(old, saver), import_threads(old, other))
    assert [report.failed for report in reports] == [(), ()]
    total = len(await all_of(old))
    assert sum(report.stored for report in reports) == total == (await rows_of(saver))[1]


async def test_dry_run_counts_and_writes_nothing(old: Saver, saver: PostgresSaver) -> None:
    """It reports what the import then does, and leaves no row."""
    await histories.ask(histories.approval(old), config_of("t"))
    before = await rows_of(saver)
    seen: list[ImportProgress] = []
    dry = await import_threads(old, saver, dry_run=True, on_progress=seen.append)
    assert await rows_of(saver) == before == [0] * 5
    assert seen[-1].checkpoints_done == dry.checkpoints
    real = await import_threads(old, saver)
    assert dry.threads == real.threads
    assert (dry.dry_run, real.dry_run) == (True, False)
    assert real.writes > 2


async def test_what_cant_be_stored_is_known_before(saver: PostgresSaver) -> None:
    """A dry run names what the import would refuse; the other threads come over."""
    old = InMemorySaver()
    graph = histories.chat(old)
    await graph.ainvoke({"messages": [HumanMessage("hello")]}, config_of("good"))
    await graph.ainvoke({"messages": [HumanMessage("hello")]}, config_of("nul \x00"))
    numbered = await old.aget_tuple(config_of("good"))
    assert numbered is not None
    checkpoint: Any = {**numbered.checkpoint, "channel_versions": {"messages": 1}}
    old.put(
        {"configurable": {"thread_id": "numbers", "checkpoint_ns": ""}},
        checkpoint,
        numbered.metadata,
        {"messages": 1},
    )
    for dry_run in (True, False):
        report = await import_threads(old, saver, dry_run=dry_run)
        errors = {thread.thread_id: [type(e) for e in thread.errors] for thread in report.threads}
        assert errors == {
            "good": [],
            "nul \x00": [InvalidArgumentError],
            "numbers": [UnstorableValueError],
        }
    assert len(await all_of(saver)) == len(await all_of(old, config_of("good")))


async def test_a_thread_that_went_on_in_both_is_refused(old: Saver, saver: PostgresSaver) -> None:
    """Nothing of it is mixed, and the other threads come over; one that went on only here is
    left as it is."""
    graphs = [histories.chat(one) for one in (old, saver)]
    await graphs[0].ainvoke({"messages": [HumanMessage("before")]}, config_of("both"))
    await graphs[0].ainvoke({"messages": [HumanMessage("before")]}, config_of("here"))
    assert (await import_threads(old, saver)).failed == ()
    for graph in graphs:
        await graph.ainvoke({"messages": [HumanMessage("after")]}, config_of("both"))
    await graphs[1].ainvoke({"messages": [HumanMessage("after")]}, config_of("here"))
    await graphs[1].ainvoke({"messages": [HumanMessage("mine")]}, config_of("mine"))
    await graphs[0].ainvoke({"messages": [HumanMessage("theirs")]}, config_of("mine"))
    await graphs[0].ainvoke({"messages": [HumanMessage("new")]}, config_of("new"))
    before = {t: await history(graphs[1], t) for t in ("both", "here", "mine")}
    report = await import_threads(old, saver)
    failed = {t.thread_id: [(type(e), e.thread_id) for e in t.errors] for t in report.failed}  # type: ignore[attr-defined]
    assert failed == {t: [(ThreadDivergedError, t)] for t in ("both", "mine")}
    assert {t: await history(graphs[1], t) for t in ("both", "here", "mine")} == before
    assert await history(graphs[1], "new") == await history(graphs[0], "new")


async def test_a_thread_that_went_on_in_the_old_saver_is_extended(
    old: Saver, saver: PostgresSaver
) -> None:
    """A later import brings what came since: checkpoints, and answers at the last one."""
    config = config_of("t")
    graph = histories.approval(old)
    await histories.ask(graph, config)
    assert (await import_threads(old, saver)).failed == ()
    await resume(graph, config, "one")
    answered = await import_threads(old, saver)
    assert (answered.failed, answered.stored) == ((), 0)
    assert answered.writes > 0
    await resume(graph, config, "two")
    ended = await import_threads(old, saver)
    assert (ended.failed, ended.stored) == ((), 1)
    assert await history(histories.approval(saver), "t") == await history(graph, "t")


async def test_a_write_isnt_doubled_by_what_came_before_it(
    old: Saver, saver: PostgresSaver
) -> None:
    """A special write that a task got since doesn't move its other writes to other places."""
    await histories.talk(histories.chat(old), config_of("t"))
    latest = (await all_of(old))[0].config
    await old.aput_writes(latest, [("messages", []), ("other", 1)], "task")
    await import_threads(old, saver)
    await old.aput_writes(latest, [("__resume__", ["yes"])], "task")
    report = await import_threads(old, saver)
    assert (report.failed, report.stored) == ((), 0)
    here, there = (await saver.aget_tuple(latest), await old.aget_tuple(latest))
    assert here is not None
    assert there is not None
    assert here.pending_writes == there.pending_writes
    assert len(here.pending_writes or []) == 3


async def test_what_was_pruned_since_isnt_brought_back(old: Saver, saver: PostgresSaver) -> None:
    """A later import brings what is new in the source, not what was deleted here."""
    config = config_of("t")
    await histories.talk(histories.chat(old), config)
    await import_threads(old, saver)
    await saver.aprune(["t"])
    again = await import_threads(old, saver)
    assert (again.failed, again.stored, len(await all_of(saver))) == ((), 0, 1)
    await histories.chat(old).ainvoke({"messages": [HumanMessage("more")]}, config)
    more = await import_threads(old, saver)
    assert (more.failed, more.stored) == ((), len(await all_of(saver)) - 1)
    assert await histories.chat(saver).aget_state(config) == await histories.chat(old).aget_state(
        config
    )


async def test_what_differs_is_named_but_not_shown(
    old: Saver, saver: PostgresSaver, dsn: str
) -> None:
    """A checkpoint that was altered here is an entry with its place, without the payload."""
    await histories.talk(histories.chat(old), config_of("t"))
    await import_threads(old, saver)
    async with connection_of(saver.db) as conn:
        await conn.execute(
            'update agent_states set metadata = metadata || \'{"plan": "secret"}\' '
            "where checkpoint_id = (select max(checkpoint_id) from agent_states)"
        )
    (thread,) = (await import_threads(old, saver)).failed
    (error,) = thread.errors
    assert isinstance(error, TakeoverMismatchError)
    assert (error.thread_id, error.checkpoint_ns, error.place) == ("t", "", "metadata 'plan'")
    assert error.checkpoint_id in str(error)
    assert "secret" not in str(error)


class LossySaver(PostgresSaver):
    """Loses what `lose` takes from a checkpoint."""

    async def aput(
        self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any, **_: Any
    ) -> Any:
        fewer = {k: v for k, v in new_versions.items() if k != "messages"}
        return await super().aput(config, checkpoint, metadata, fewer)


async def test_what_was_stored_is_read_back(old: Saver, dsn: str) -> None:
    """A target that loses a value is found out, and the thread isn't marked as whole."""
    await histories.talk(histories.chat(old), config_of("t"))
    async with LossySaver.from_conn_string(dsn) as target:
        (thread,) = (await import_threads(old, target)).failed
        assert await value_of(target, MARK) is None
    assert {type(error) for error in thread.errors} == {TakeoverMismatchError}
    assert "channel 'messages'" in str(thread.errors[0])


async def test_an_unreadable_thread_doesnt_stop_the_others(
    saver: PostgresSaver, tmp_path: Path
) -> None:
    """A checkpoint that the source can't decode fails its thread alone, without a payload."""
    path = tmp_path / "old.sqlite"
    async with AsyncSqliteSaver.from_conn_string(str(path)) as old:
        for thread_id in ("bad", "good"):
            await histories.talk(histories.chat(old), config_of(thread_id))
        with sqlite3.connect(path) as conn:
            conn.execute("update checkpoints set type = 'nonsense' where thread_id = 'bad'")
        conn.close()
        report = await import_threads(old, saver, thread_ids=["bad", "good", "nobody"])
    bad, nobody = report.failed
    assert [type(error) for error in bad.errors] == [UnreadableThreadError]
    assert [type(error) for error in nobody.errors] == [MissingThreadError]
    assert [thread.checkpoints > 0 for thread in report.threads] == [False, True, False]


async def test_savers_with_sync_methods_only_are_read(saver: PostgresSaver, tmp_path: Path) -> None:
    """A saver whose async methods aren't there is read on a worker thread."""
    with SqliteSaver.from_conn_string(str(tmp_path / "old.sqlite")) as old:
        graph = histories.approval(old)
        await asyncio.to_thread(graph.invoke, {"total": ["start"]}, config_of("t"))
        assert (await import_threads(old, saver)).failed == ()
        there = await asyncio.to_thread(lambda: list(graph.get_state_history(config_of("t"))))
    assert await history(histories.approval(saver), "t") == there


async def test_any_order_of_a_listing_will_do(saver: PostgresSaver) -> None:
    """A saver that lists thread by thread loses none, however small the batch."""
    old = InMemorySaver()
    for thread_id in ("one", "two", "three"):
        await histories.ask(histories.nested(old), config_of(thread_id))
    report = await import_threads(old, saver, batch=1)
    assert (report.failed, report.stored) == ((), len(await all_of(old)))


async def test_pages_dont_lose_a_checkpoint_of_the_same_id(
    old: Saver, saver: PostgresSaver
) -> None:
    """One id in several namespaces may stand on both sides of the end of a page."""
    await histories.talk(histories.chat(old), config_of("t"))
    for found in await all_of(old):
        for namespace in ("a", "b", "c"):
            config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": namespace}}
            await old.aput(
                config, found.checkpoint, found.metadata, found.checkpoint["channel_versions"]
            )
    for batch in (1, 2, 5):
        report = await import_threads(old, saver, batch=batch)
        assert (report.failed, report.checkpoints) == ((), len(await all_of(old)))
    assert len(await all_of(saver)) == len(await all_of(old))


async def test_versions_go_on_increasing(old: Saver) -> None:
    """Ours sort after those of the savers that are taken over, and the width stays."""
    version: str | None = None
    for _ in range(12):
        version = old.get_next_version(version, None)
        ours = next_version(version)
        later = next_version(ours)
        assert version < ours < later
        assert len(ours.split(".")[0]) == len(version.split(".")[0]) == 32
    last = f"{'9' * 6:0>32}.0"
    assert last < next_version(last)


async def test_a_batch_is_at_least_one(old: Saver, saver: PostgresSaver) -> None:
    """Zero would never end."""
    with pytest.raises(InvalidArgumentError, match="batch"):
        await import_threads(old, saver, batch=0)
