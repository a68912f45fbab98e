"""Latest is what was written last, whatever the clocks of hosts say: ids only name."""

from __future__ import annotations

import asyncio
import json
import operator
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.base import id as langgraph_ids
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt

from langgraph_pgsaga import Database, PostgresSaver
from langgraph_pgsaga.database import load_migrations, load_statements, render
from langgraph_pgsaga.errors import UnstorableValueError
from langgraph_pgsaga.messages import Messages
from langgraph_pgsaga.sessions import RetentionPolicy
from langgraph_pgsaga.sync import Sessions
from langgraph_pgsaga.takeover import ReadThroughSaver, import_threads
from langgraph_pgsaga.threads import session_id_of
from langgraph_pgsaga.timetravel import branches, history
from tests._cli import answer
from tests.conftest import execute, fetch
from tests.db._puts import checkpoint_of, config_of, put, stored

THREAD: RunnableConfig = {"configurable": {"thread_id": "t"}}


class Host:
    """Makes LangGraph's ids by the clock of a host that is some seconds off."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def is_off_by(self, seconds: float) -> None:
        clock = SimpleNamespace(time_ns=lambda: time.time_ns() + int(seconds * 10**9))
        self._monkeypatch.setattr(langgraph_ids, "time", clock)
        self._monkeypatch.setattr(langgraph_ids, "_last_v6_timestamp", None)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(monkeypatch)


class Chat(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def chat(saver: PostgresSaver) -> Any:
    def reply(state: Chat) -> Any:
        return {"messages": [AIMessage(f"reply to {state['messages'][-1].content}")]}

    builder = StateGraph(Chat)
    builder.add_node("reply", reply)
    builder.add_edge(START, "reply")
    return builder.compile(checkpointer=saver)


def say(graph: Any, text: str) -> None:
    graph.invoke({"messages": [HumanMessage(text)]}, THREAD)


def texts(values: Any) -> list[str]:
    return [message.content for message in values["messages"]]


@pytest.mark.parametrize("offsets", [(0, -10), (3600, 0)], ids=["behind", "ahead then back"])
def test_a_run_of_a_host_whose_clock_is_off_is_the_latest(
    sync_saver: PostgresSaver, dsn: str, host: Host, offsets: tuple[int, int]
) -> None:
    """Its state is the thread's in LangGraph, time travel, views, messages and commands."""
    graph = chat(sync_saver)
    for offset, text in zip(offsets, ("one", "two"), strict=True):
        host.is_off_by(offset)
        say(graph, text)
    said = ["one", "reply to one", "two", "reply to two"]

    latest = graph.get_state(THREAD)
    assert texts(latest.values) == said
    states = list(graph.get_state_history(THREAD))
    assert states[0].config == latest.config
    ids = [state.config["configurable"]["checkpoint_id"] for state in states]
    assert ids != sorted(ids, reverse=True)
    # Each one's parent is the next, as in a thread that one host wrote.
    assert [s.parent_config for s in states[:-1]] == [s.config for s in states[1:]]
    assert [s.checkpoint_id for s in history(graph, THREAD)] == ids
    assert len(branches(graph, THREAD).branches) == 1
    call = sync_saver.db.portal.call
    assert texts({"messages": call(Messages(sync_saver).conversation, "t")}) == said
    shown = call(
        rows_of, sync_saver.db, "select checkpoint_id from agent_state_history where is_current"
    )
    assert [row["checkpoint_id"] for row in shown] == ids[:1]
    shown = call(
        rows_of, sync_saver.db, "select content from agent_conversations order by position"
    )
    assert [row["content"] for row in shown] == said
    listed = answer("history", "t", "--dsn", dsn)
    assert [step["checkpoint_id"] for step in listed["checkpoints"]] == ids

    updated = graph.update_state(THREAD, {"messages": [HumanMessage("by hand")]}, as_node="reply")
    assert graph.get_state(THREAD).config == updated
    say(graph, "three")
    assert texts(graph.get_state(THREAD).values) == [*said, "by hand", "three", "reply to three"]


async def rows_of(db: Database, query: str) -> list[Any]:
    async with db.transaction() as conn:
        return list(await conn.fetch(query))


@pytest.mark.parametrize("is_lasting", [False, True], ids=["of the call", "lasting"])
def test_a_subgraph_that_another_host_resumes_goes_on(
    sync_saver: PostgresSaver, host: Host, is_lasting: bool
) -> None:
    """Namespaces below the root graph's go by the order of writing, too."""

    def ask(state: Chat) -> Any:
        return {"messages": [AIMessage(f"{interrupt('what?')}")]}

    child = StateGraph(Chat)
    child.add_node("greet", lambda state: {"messages": [AIMessage("hello")]})
    child.add_node("ask", ask)
    child.add_edge(START, "greet")
    child.add_edge("greet", "ask")
    parent = StateGraph(Chat)
    parent.add_node("child", child.compile(checkpointer=True if is_lasting else None))
    parent.add_edge(START, "child")
    graph = parent.compile(checkpointer=sync_saver)
    for turn in range(2):
        host.is_off_by(0)
        graph.invoke({"messages": [HumanMessage(f"turn {turn}", id=f"{turn}")]}, THREAD)
        host.is_off_by(-10 - 10 * turn)
        values = graph.invoke(Command(resume=f"answer {turn}"), THREAD)
        assert texts(values)[-1] == f"answer {turn}"
    found = list(sync_saver.list(THREAD))
    positions = {key(one): -place for place, one in enumerate(found)}
    assert len({one.config["configurable"]["checkpoint_ns"] for one in found}) == (
        2 if is_lasting else 3
    )
    for one in found:
        if one.parent_config is not None:
            parent_id = one.parent_config["configurable"]["checkpoint_id"]
            assert positions[key(one)[0], parent_id] < positions[key(one)]
    assert graph.get_state(THREAD).next == ()


def key(found: Any) -> tuple[str, str]:
    configurable = found.config["configurable"]
    return configurable["checkpoint_ns"], configurable["checkpoint_id"]


def put_named(
    saver: PostgresSaver,
    checkpoint_id: str,
    parent_id: str | None = None,
    parents: dict[str, str] | None = None,
    **place: str,
) -> RunnableConfig:
    """Puts a checkpoint of this id."""
    thread_id, namespace = place.get("thread_id", "t"), place.get("namespace", "")
    checkpoint = checkpoint_of(saver, {"a": [checkpoint_id]})
    checkpoint["id"] = checkpoint_id
    more = {} if parent_id is None else {"checkpoint_id": parent_id}
    config = config_of(thread_id, namespace, **more)
    own: Any = {"source": "loop", "step": 1, "parents": parents or {}, "like": "a"}
    return saver.put(config, checkpoint, own, checkpoint["channel_versions"])


def ids(found: Iterator[Any]) -> list[str]:
    return [one.config["configurable"]["checkpoint_id"] for one in found]


def test_a_repeated_put_keeps_its_place(sync_saver: PostgresSaver) -> None:
    """A put that comes again, as after a lost answer, doesn't become the latest."""
    for checkpoint_id in ("5", "3", "4"):
        put_named(sync_saver, checkpoint_id)
    put_named(sync_saver, "5")
    assert ids(sync_saver.list(config_of("t"))) == ["4", "3", "5"]


def test_before_is_by_place_or_by_id(sync_saver: PostgresSaver) -> None:
    """Before a checkpoint of whatever namespace is what was written before it; before one
    that isn't stored, what has a lower id."""
    for checkpoint_id, namespace in [("9", ""), ("2", "n"), ("5", ""), ("1", "n"), ("7", "m")]:
        put_named(sync_saver, checkpoint_id, namespace=namespace)

    def before(checkpoint_id: str, config: RunnableConfig) -> list[str]:
        return ids(
            sync_saver.list(config, before={"configurable": {"checkpoint_id": checkpoint_id}})
        )

    assert before("5", config_of("t", "")) == ["9"]
    assert before("5", config_of("t", "n")) == ["2"]
    assert before("7", config_of("t", "n")) == ["1", "2"]
    assert before("1", config_of("t", "")) == ["5", "9"]
    assert before("5", THREAD) == ["2", "9"]
    assert before("6", THREAD) == ["1", "5", "2"]
    assert before("6", config_of("t", "")) == ["5"]


def test_before_names_the_checkpoint_of_its_own_namespace(sync_saver: PostgresSaver) -> None:
    """Of an id that stands in two namespaces the place is that in the one `before` names, also
    where another one is listed; without one, that in the listed."""
    for checkpoint_id, namespace in [("5", "n"), ("1", "n"), ("2", ""), ("5", ""), ("3", "n")]:
        put_named(sync_saver, checkpoint_id, namespace=namespace)

    def listed(namespace: str, **before: str) -> list[str]:
        place: Any = {"configurable": {"thread_id": "t", "checkpoint_id": "5", **before}}
        return ids(sync_saver.list(config_of("t", namespace), before=place))

    assert listed("n", checkpoint_ns="") == ["1", "5"]
    assert listed("n", checkpoint_ns="n") == listed("n") == []
    assert listed("", checkpoint_ns="n") == []
    assert listed("", checkpoint_ns="") == listed("") == ["2"]


def test_before_a_checkpoint_is_nothing_of_the_superstep_after_it(
    sync_saver: PostgresSaver,
) -> None:
    """A subgraph's checkpoint may be stored before the one that its superstep began at, and that
    before the next: they are no part of what was before these."""

    def inner(checkpoint_id: str, began_at: str) -> None:
        put_named(sync_saver, checkpoint_id, namespace="n", parents={"": began_at})

    put_named(sync_saver, "1")
    inner("2", "1")
    inner("6", "5")
    inner("4", "3")
    put_named(sync_saver, "3")
    put_named(sync_saver, "5")
    inner("8", "7")  # of one that was never stored
    put_named(sync_saver, "9")

    def before(checkpoint_id: str, config: RunnableConfig, **options: Any) -> list[str]:
        place: RunnableConfig = {"configurable": {"checkpoint_id": checkpoint_id}}
        return ids(sync_saver.list(config, before=place, **options))

    inside = config_of("t", "n")
    assert before("1", inside) == []
    assert before("3", inside) == before("3", inside, limit=1) == ["2"]
    assert before("5", inside) == ["4", "2"]
    assert before("9", inside) == ["8", "4", "6", "2"]
    assert before("3", THREAD) == ["2", "1"]
    assert before("5", THREAD) == ["3", "4", "2", "1"]
    assert before("4", inside) == ["6", "2"]


class Asked(TypedDict):
    said: Annotated[list[str], operator.add]


def asking(saver: BaseCheckpointSaver[str]) -> Any:
    """A graph with a subgraph that remembers from call to call, and asks."""
    inner = StateGraph(Asked)
    inner.add_node("first", lambda _: {"said": ["first"]})
    inner.add_node("ask", lambda _: {"said": [interrupt("what?")]})
    inner.add_edge(START, "first")
    inner.add_edge("first", "ask")
    outer = StateGraph(Asked)
    outer.add_node("begin", lambda _: {"said": ["begin"]})
    outer.add_node("inner", inner.compile(checkpointer=True))
    outer.add_edge(START, "begin")
    outer.add_edge("begin", "inner")
    return outer.compile(checkpointer=saver)


@pytest.mark.parametrize("is_swept", [False, True])
def test_a_fork_begins_a_subgraph_as_it_was_before(
    sync_saver: PostgresSaver, is_swept: bool
) -> None:
    """Under "exit", a subgraph's checkpoint is stored before that of the superstep it is of."""

    def run(saver: BaseCheckpointSaver[str]) -> Any:
        graph = asking(saver)
        graph.invoke({"said": ["in"]}, THREAD, durability="exit")
        graph.invoke(Command(resume="one"), THREAD, durability="exit")
        graph.invoke({"said": ["again"]}, THREAD, durability="exit")
        if is_swept and isinstance(saver, PostgresSaver):
            Sessions(saver.db).sweep([RetentionPolicy(keep_last=1)])
        asked = graph.get_state(THREAD)
        fork = graph.update_state(asked.config, {"said": ["fork"]}, as_node="begin")
        graph.invoke(None, fork, durability="exit")
        return graph.invoke(Command(resume="two"), THREAD, durability="exit")

    assert run(sync_saver) == run(InMemorySaver())


@pytest.mark.parametrize("filter_", [None, {"like": "a"}])
def test_all_threads_are_listed_by_the_order_of_writing(
    sync_saver: PostgresSaver, filter_: Any
) -> None:
    """Newest first across threads, and page by page by the last one of each page."""
    written = [("5", "t1"), ("4", "t2"), ("3", "t1"), ("9", "t2"), ("1", "t3")]
    for checkpoint_id, thread_id in written:
        put_named(sync_saver, checkpoint_id, thread_id=thread_id)
    sync_saver.copy_thread("t1", "t4")  # at the places of the original
    found = list(sync_saver.list(None, filter=filter_))
    assert sorted(ids(iter(found))) == ["1", "3", "3", "4", "5", "5", "9"]
    assert list(dict.fromkeys(ids(iter(found)))) == ["1", "9", "3", "4", "5"]
    paged: list[Any] = []
    while page := list(
        sync_saver.list(None, filter=filter_, before=paged[-1].config if paged else None, limit=1)
    ):
        paged += page
    assert [one.config for one in paged] == [one.config for one in found]


def test_copies_and_pruning_go_by_the_order_of_writing(sync_saver: PostgresSaver) -> None:
    """A copy has the order of its source, up to `checkpoint_id` if that is given, and
    pruning keeps what was written last."""
    parent = None
    for checkpoint_id in ("5", "7", "3", "1", "6"):
        put_named(sync_saver, checkpoint_id, parent)
        parent = checkpoint_id
    sync_saver.copy_thread("t", "whole")
    assert ids(sync_saver.list(config_of("whole"))) == ["6", "1", "3", "7", "5"]
    put_named(sync_saver, "2", "6", thread_id="whole")
    assert ids(sync_saver.list(config_of("whole"), limit=2)) == ["2", "6"]
    sync_saver.copy_thread("t", "until", checkpoint_id="3")
    assert ids(sync_saver.list(config_of("until"))) == ["3", "7", "5"]
    sync_saver.prune(["t"])
    assert ids(sync_saver.list(config_of("t"))) == ["6"]


def test_a_subgraphs_checkpoint_belongs_to_its_superstep(sync_saver: PostgresSaver) -> None:
    """A copy has it also where it was stored after the root graph's next one."""
    first = put(sync_saver, config_of("t"), {"a": ["b"]})
    first_id = first["configurable"]["checkpoint_id"]
    second = put(sync_saver, first, {"a": ["c"]})
    put(sync_saver, config_of("t", "child:1"), {"a": ["d"]}, {"parents": {"": first_id}})
    put(sync_saver, second, {"a": ["e"]})
    sync_saver.copy_thread("t", "copy", checkpoint_id=second["configurable"]["checkpoint_id"])
    assert len(list(sync_saver.list(config_of("copy")))) == 2
    assert len(list(sync_saver.list(config_of("copy", "child:1")))) == 1


@pytest.mark.parametrize("values", [{"a": ["b"]}, {"messages": [HumanMessage("new")]}], ids=str)
def test_a_server_whose_clock_went_back_goes_on_upwards(
    sync_saver: PostgresSaver, dsn: str, values: dict[str, Any]
) -> None:
    """After a move to another server, what is written is the latest all the same."""
    config = put(sync_saver, config_of("t"), {"a": ["before"]})
    ahead = 10**15
    asyncio.run(
        execute(
            dsn,
            f"update agent_sessions set last_position = last_position + {ahead}",
            f"update agent_states set position = position + {ahead}",
        )
    )
    for _ in range(2):
        config = put(sync_saver, config, values)
        assert stored(sync_saver, config_of("t")).config == config


def test_the_order_of_a_thread_never_goes_down(sync_saver: PostgresSaver, dsn: str) -> None:
    """By its last position whoever loaded a thread sees that somebody wrote; so a copy into one
    whose checkpoints were all deleted doesn't lower it."""
    put(sync_saver, config_of("t"), {"a": ["b"]})
    put(sync_saver, config_of("copy"), {"a": ["b"]}, {"run_id": "r"})
    sync_saver.delete_for_runs(["r"])
    asyncio.run(
        execute(dsn, "update agent_sessions set last_position = 4e18 where thread_id = 'copy'")
    )
    sync_saver.copy_thread("t", "copy")
    (row,) = fetch(dsn, "select last_position from agent_sessions where thread_id = 'copy'")
    assert row[0] > 4 * 10**18
    assert len(list(sync_saver.list(config_of("copy")))) == 1


def test_the_history_of_a_delta_channel_is_that_of_the_latest(
    sync_saver: PostgresSaver, host: Host
) -> None:
    """Without a checkpoint's id, the latest is what was written last."""
    first = put(sync_saver, config_of("t"), {"a": ["b"]})
    sync_saver.put_writes(first, [("items", [1])], "task")
    host.is_off_by(-10)
    put(sync_saver, first, {"a": ["c"]})
    found = sync_saver.get_delta_channel_history(config=config_of("t"), channels=["items"])
    assert [value for _, _, value in found["items"]["writes"]] == [[1]]


@pytest.fixture
def source_dsn(new_database: Callable[..., str], template_database: str) -> str:
    return new_database(template_database)


@pytest.mark.anyio
async def test_an_import_has_the_order_of_its_source(saver: PostgresSaver, source_dsn: str) -> None:
    """Of a saver that goes by the order of writing that one, of the others that of ids; and
    what the source writes later comes after it."""
    source = PostgresSaver.from_conn_string(source_dsn)
    memory = InMemorySaver()
    for checkpoint_id in ("5", "7", "3", "1", "6"):
        for old, thread_id in ((source, "by place"), (memory, "by id")):
            checkpoint = checkpoint_of(saver, {"a": [checkpoint_id]})
            checkpoint["id"] = checkpoint_id
            versions = checkpoint["channel_versions"]
            await old.aput(config_of(thread_id), checkpoint, {"source": "loop"}, versions)

    async def listed(thread_id: str) -> list[str]:
        return ids(iter([one async for one in saver.alist(config_of(thread_id))]))

    async with source:
        for batch in (2, 50):
            report = await import_threads(source, saver, batch=batch)
            report.raise_first()
            assert await listed("by place") == ["6", "1", "3", "7", "5"]
        reading = ReadThroughSaver(saver, source)
        checkpoint = checkpoint_of(saver, {"a": ["later"]})
        checkpoint["id"] = "2"
        place = config_of("by place", checkpoint_id="6")
        await source.aput(place, checkpoint, {"source": "loop"}, checkpoint["channel_versions"])
        found = await reading.aget_tuple(config_of("by place"))
        assert found is not None
        assert found.checkpoint["id"] == "2"
        (await import_threads(source, saver)).raise_first()
        assert await listed("by place") == ["2", "6", "1", "3", "7", "5"]
    (await import_threads(memory, saver)).raise_first()
    assert await listed("by id") == ["7", "6", "5", "3", "1"]


@pytest.mark.anyio
async def test_a_checkpoint_that_came_later_takes_its_place(
    saver: PostgresSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that couldn't be stored at first isn't the latest once it can be."""
    memory = InMemorySaver()
    config = config_of("t")
    for checkpoint_id in ("1", "2", "3", "4"):
        checkpoint = checkpoint_of(saver, {"a": [checkpoint_id]})
        checkpoint["id"] = checkpoint_id
        memory.put(config, checkpoint, {"source": "loop"}, checkpoint["channel_versions"])
    put = PostgresSaver.aput

    async def refusing(self: PostgresSaver, config: Any, checkpoint: Any, *rest: Any) -> Any:
        if checkpoint["id"] == "2":
            raise UnstorableValueError(where="a", problem="not yet")
        return await put(self, config, checkpoint, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(PostgresSaver, "aput", refusing)
        report = await import_threads(memory, saver)
        assert [type(error) for error in report.threads[0].errors] == [UnstorableValueError]
    (await import_threads(memory, saver)).raise_first()
    found = [one async for one in saver.alist(config)]
    assert ids(iter(found)) == ["4", "3", "2", "1"]


def test_the_past_of_a_thread_that_was_deleted_is_no_order(sync_saver: PostgresSaver) -> None:
    """A thread that is begun anew has an order of its own."""
    put_named(sync_saver, "5")
    sync_saver.delete_thread("t")
    for checkpoint_id in ("4", "3"):
        put_named(sync_saver, checkpoint_id)
    assert ids(sync_saver.list(config_of("t"))) == ["3", "4"]


@pytest.mark.anyio
async def test_existing_checkpoints_get_the_order_of_their_ids(empty_dsn: str) -> None:
    """A database of before has the order that its listings had, at the times of storing."""
    before = [m for m in load_migrations() if m.version < 4]
    async with Database(empty_dsn) as db:
        for migration in before:
            async with db.transaction() as conn:
                await conn.execute(render(migration.sql, None))
        async with db.transaction() as conn:
            await conn.execute(
                "insert into agent_sessions (session_id, thread_id) values "
                "(pgsaga_session_id('t'), 't'), (pgsaga_session_id('empty'), 'empty')"
            )
            data = '{"v": 4, "channel_values": {}, "channel_versions": {}}'
            for namespace, checkpoint_id, second in [
                ("", "2", 0),
                ("", "1", 10),
                ("n", "3", 10),
                ("", "4", 20),
            ]:
                await conn.execute(
                    "insert into agent_states (session_id, checkpoint_ns, checkpoint_id, "
                    "state_data, metadata, created_at) values "
                    "(pgsaga_session_id('t'), $1, $2, $3, '{}', to_timestamp($4::integer))",
                    namespace,
                    checkpoint_id,
                    data,
                    second,
                )
            for migration in load_migrations():
                if migration.version == 4:
                    await conn.execute(render(migration.sql, None))
            rows = await conn.fetch(
                "select checkpoint_id, to_timestamp(position / 1000000.0) as at, position, "
                "(select max(last_position) from agent_sessions) as last "
                "from agent_states order by position"
            )
    assert [row["checkpoint_id"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["at"].second for row in rows] == [10, 10, 10, 20]
    assert rows[-1]["position"] == rows[-1]["last"]


_MANY = 10_000


@pytest.mark.parametrize("name", ["list_namespace", "list_thread", "list_all"])
@pytest.mark.anyio
async def test_before_is_found_and_read_on_from_by_indexes(saver: PostgresSaver, name: str) -> None:
    """Of 10,000 checkpoints, a listing of one before another reads a few rows."""
    config = config_of("t")
    for _ in range(3):
        checkpoint = checkpoint_of(saver, {"a": 1})
        config = await saver.aput(config, checkpoint, {}, checkpoint["channel_versions"])
    session_id = session_id_of("t")
    async with saver.db.transaction() as conn:
        await conn.execute(
            "insert into agent_states (session_id, checkpoint_ns, checkpoint_id, state_data, "
            "metadata, position) select session_id, '', 'x' || n, "
            "jsonb_set(state_data, '{id}', to_jsonb('x' || n)), metadata, "
            "position + n from agent_states, generate_series(1, $1::integer) n "
            "where checkpoint_id = $2".replace("$1", str(_MANY)).replace("$2", "$1"),
            config["configurable"]["checkpoint_id"],
        )
        position = await conn.fetchval(
            "select position from agent_states where checkpoint_id = $1", f"x{_MANY // 2}"
        )
        arguments = {
            "session_id": session_id,
            "checkpoint_ns": "",
            "checkpoint_id": f"x{_MANY // 2}",
            "before_position": position,
            "of_ns": "",
            "of_position": position,
            "page": 1,
        }
        find_place = load_statements("history")["find_place"]
        unknown = {**arguments, "checkpoint_id": "nowhere"}
        for statement, looked_for in (
            (find_place, unknown),
            (find_place, arguments),
            (load_statements("history")[name], arguments),
        ):
            types = ", ".join(sql_type for _, sql_type in statement.params)
            given = {**looked_for, "checkpoint_id": None} if statement.name == name else looked_for
            values = [given.get(param) for param, _ in statement.params]
            await conn.execute(f"prepare {statement.name} ({types}) as {saver.db.text(statement)}")
            literals = ", ".join("null" if v is None else f"'{v}'" for v in values)
            plan = await conn.fetchval(
                f"explain (analyze, format json) execute {statement.name} ({literals})"
            )
            await conn.execute(f"deallocate {statement.name}")
            assert rows_read(json.loads(plan)[0]["Plan"]) < 10, plan
    found = [
        one
        async for one in saver.alist(
            config_of("t"), limit=1, before=config_of("t", checkpoint_id="x5000")
        )
    ]
    assert ids(iter(found)) == ["x4999"]


def rows_read(plan: dict[str, Any]) -> int:
    """The rows that the scans of a plan read, those that filters took away included."""
    read = 0
    if "Scan" in plan["Node Type"] and plan.get("Relation Name") == "agent_states":
        rows = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
        read = int(rows * plan["Actual Loops"])
    return read + sum(rows_read(child) for child in plan.get("Plans", ()))
