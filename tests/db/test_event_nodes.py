"""Events in graphs: nodes that append them, and nodes that are recorded."""

from __future__ import annotations

from typing import Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, RetryPolicy, interrupt

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import InvalidArgumentError, ServerError
from langgraph_pgsaga.events import AgentEvent, EventStore, EventType, event_node, recorded
from langgraph_pgsaga.threads import session_id_of
from tests._connections import connected
from tests.conftest import execute

pytestmark = pytest.mark.anyio

REFUNDED = EventType("refunded")


class Desk(TypedDict):
    cents: int


def graph_of(saver: PostgresSaver | None, **nodes: Any) -> Any:
    """The nodes one after the other."""
    builder: StateGraph[Any] = StateGraph(Desk)
    before = START
    for name, node in nodes.items():
        builder.add_node(name, node)
        builder.add_edge(before, name)
        before = name
    return builder.compile(checkpointer=saver)


def config_of(thread_id: str = "t", **more: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, **more}}


async def run(graph: Any, mode: str, value: Any, config: Any = None, **more: Any) -> Any:
    """By invoke, which has the loop stand still, or by ainvoke."""
    config = config_of() if config is None else config
    if mode == "invoke":
        return graph.invoke(value, config, **more)
    return await graph.ainvoke(value, config, **more)


both = pytest.mark.parametrize("mode", ["invoke", "ainvoke"])


@both
async def test_a_node_appends_an_event_that_knows_its_run(saver: PostgresSaver, mode: str) -> None:
    """Its thread is aggregate and correlation, its run or checkpoint the cause; none is passed."""
    store = EventStore(saver.db)
    node = event_node(store, REFUNDED, data=lambda state: {"cents": state["cents"]})
    graph = graph_of(saver, tell=node)
    config: Any = {**config_of(), "run_id": None}
    assert await run(graph, mode, {"cents": 5}, config) == {"cents": 5}
    [event] = await store.get_events("t", aggregate_type="session")
    assert (event.event_type, event.event_data) == (REFUNDED, {"cents": 5})
    assert event.correlation_id == "t"
    assert event.session_id == session_id_of("t")
    steps = [one async for one in saver.alist(config_of())]
    ids = {step.config["configurable"]["checkpoint_id"] for step in steps}
    assert event.checkpoint_id in ids
    assert event.causation_id is not None
    page = await store.read_all(correlation_id="t")
    assert page.is_last


@both
async def test_a_nodes_event_is_stored_once_per_task(dsn: str, mode: str) -> None:
    """A node whose result was lost, and that is executed again from its checkpoint, has the event
    that is there, also where its data would be another now."""
    turns: list[int] = []

    def data(state: Any) -> Any:
        turns.append(1)
        return {"turn": len(turns)}

    for turn in range(2):
        async with PostgresSaver.from_conn_string(dsn) as saver, connected(dsn) as conn:
            store = EventStore(saver.db)
            node = event_node(store, "refunded", data=data)
            graph = graph_of(saver, tell=node)
            graph.interrupt_before_nodes = ["tell"]
            if turn == 0:
                await run(graph, mode, {"cents": 1})
                before = await conn.fetch("select checkpoint_id from agent_states")
            graph.interrupt_before_nodes = []
            await run(graph, mode, None)
            assert len(turns) == turn + 1
            assert [e.event_data for e in await store.get_events("t")] == [{"turn": 1}]
            # As in a crash: what came of it isn't there.
            known = [row["checkpoint_id"] for row in before]
            await conn.execute(
                "delete from agent_states where checkpoint_id <> all ($1::text[])", known
            )
            await conn.execute("delete from agent_state_writes")


@both
async def test_aggregates_may_be_named(saver: PostgresSaver, mode: str) -> None:
    """By an id, or by a function of the state; without a thread one has to be."""
    store = EventStore(saver.db)
    named = event_node(store, "refunded", aggregate_id="till", aggregate_type="till")
    found = event_node(store, "refunded", aggregate_id=lambda state: f"till {state['cents']}")
    await run(graph_of(saver, a=named, b=found), mode, {"cents": 7})
    assert len(await store.get_events("till", aggregate_type="till")) == 1
    assert len(await store.get_events("till 7", aggregate_type="session")) == 1
    lone = graph_of(None, a=event_node(store, "refunded"))
    with pytest.raises(InvalidArgumentError, match="no thread"):
        await run(lone, mode, {"cents": 1}, {})


@both
async def test_an_event_is_of_the_runs_tenant(saver: PostgresSaver, mode: str) -> None:
    """The store of no tenant follows the config; one of a tenant stays with it."""
    free, fixed = EventStore(saver.db), EventStore(saver.db, tenant="fixed")
    graph = graph_of(saver, a=event_node(free, "refunded"), b=event_node(fixed, "told"))
    await run(graph, mode, {"cents": 1}, config_of(tenant_id="acme"))
    acme = EventStore(saver.db, tenant="acme")
    [event] = await acme.get_events("t")
    assert event.session_id == session_id_of("t", "acme")
    assert [e.event_type.value for e in await fixed.get_events("t")] == ["told"]  # type: ignore[union-attr]
    assert await free.get_events("t") == []


def told(events: list[AgentEvent]) -> list[tuple[str, Any]]:
    """Each event's type, and what of its data no run changes."""
    kept = ("step_name", "status", "output", "error", "attempt")
    return [
        (str(e.event_type), {k: v for k, v in e.event_data.items() if k in kept}) for e in events
    ]


def nodes_of(kind: str) -> dict[str, Any]:
    """A node that works, one that fails at first, and one that asks; sync or async."""
    failed: list[int] = []

    def works(state: Desk) -> dict[str, int]:
        return {"cents": state["cents"] + 1}

    def fails(state: Desk, config: RunnableConfig) -> dict[str, int]:
        if not failed:
            failed.append(1)
            raise ValueError(f"broken at {config['configurable']['thread_id']}")
        return {"cents": state["cents"] + 1}

    def asks(state: Desk) -> dict[str, int]:
        return {"cents": interrupt("how many?")}

    async def works_async(state: Desk) -> dict[str, int]:
        return works(state)

    async def fails_async(state: Desk, config: RunnableConfig) -> dict[str, int]:
        return fails(state, config)

    async def asks_async(state: Desk) -> dict[str, int]:
        return asks(state)

    if kind == "sync":
        return {"works": works, "fails": fails, "asks": asks}
    return {"works": works_async, "fails": fails_async, "asks": asks_async}


@pytest.mark.parametrize(
    ("kind", "mode"), [("sync", "invoke"), ("sync", "ainvoke"), ("async", "ainvoke")]
)
async def test_a_recorded_node_tells_start_result_and_error(
    saver: PostgresSaver, kind: str, mode: str
) -> None:
    """Each execution its own; one that asks has none yet."""
    store = EventStore(saver.db)
    builder: StateGraph[Any] = StateGraph(Desk)
    for name, node in nodes_of(kind).items():
        policy = RetryPolicy(max_attempts=2, initial_interval=0.01, retry_on=ValueError)
        builder.add_node(name, recorded(node, store), retry_policy=policy)
    builder.add_edge(START, "works").add_edge("works", "fails").add_edge("fails", "asks")
    graph = builder.compile(checkpointer=saver)
    # So that each step is stored before the next one begins, and fails.
    await run(graph, mode, {"cents": 1}, durability="sync")
    assert (await run(graph, mode, Command(resume=9)))["cents"] == 9

    def start(name: str, attempt: int = 1) -> tuple[str, Any]:
        return ("node_started", {"step_name": name, "attempt": attempt})

    def done(name: str, cents: int) -> tuple[str, Any]:
        output = {"cents": cents}
        return ("state_updated", {"step_name": name, "status": "completed", "output": output})

    assert told(await store.get_events("t")) == [
        start("works"),
        done("works", 2),
        start("fails"),
        ("error_occurred", {"step_name": "fails", "error": "ValueError: broken at t"}),
        start("fails", 2),
        done("fails", 3),
        start("asks"),
        done("asks", 9),
    ]


@pytest.mark.parametrize("wrap", ["event_node", "recorded"])
@both
async def test_events_are_there_once_if_and_only_if_the_result_is(
    dsn: str, wrap: str, mode: str
) -> None:
    """A result that is refused has none; the node is executed again, and has them."""
    async with PostgresSaver.from_conn_string(dsn) as saver:
        store = EventStore(saver.db)
        tells = event_node(store, "refunded")
        node: Any = recorded(lambda state: {"cents": 2}, store) if wrap == "recorded" else tells
        graph = graph_of(saver, tell=node, work=lambda state: {"cents": 3})
        await execute(dsn, "alter table agent_state_writes add constraint no check (idx < 0)")
        with pytest.raises(ServerError):
            await run(graph, mode, {"cents": 1})
        assert await store.get_events("t") == []
        await execute(dsn, "alter table agent_state_writes drop constraint no")
        assert await run(graph, mode, None) == {"cents": 3}
        told = ["node_started", "state_updated"] if wrap == "recorded" else ["refunded"]
        assert [str(e.event_type) for e in await store.get_events("t")] == told


async def test_without_a_saver_of_its_database_events_commit_by_themselves(dsn: str) -> None:
    """In a graph with another checkpointer, or none in this part of it."""
    async with PostgresSaver.from_conn_string(dsn) as saver:
        store = EventStore(saver.db)

        def graph(checkpointer: Any) -> Any:
            builder: StateGraph[Any] = StateGraph(Desk)
            builder.add_node("tell", event_node(store, "refunded"))
            builder.add_node("asks", recorded(nodes_of("sync")["asks"], store))
            builder.add_edge(START, "tell").add_edge("tell", "asks")
            return builder.compile(checkpointer=checkpointer)

        elsewhere = graph(InMemorySaver())
        await elsewhere.ainvoke({"cents": 1}, config_of("elsewhere"))
        told = [str(e.event_type) for e in await store.get_events("elsewhere")]
        assert told == ["refunded", "node_started"], "which has asked"
        inner = graph_of(None, tell=event_node(store, "refunded"))
        inner.checkpointer = False
        await graph_of(saver, inner=inner).ainvoke({"cents": 1}, config_of("inner"))
        assert len(await store.get_events("inner")) == 1


async def test_what_a_node_returns_may_be_chosen(saver: PostgresSaver) -> None:
    """By a function; without, what isn't JSON is told by its name."""
    store = EventStore(saver.db)
    chosen = recorded(lambda state: {"cents": 1}, store, data=sorted)
    odd = recorded(lambda state: Command(update={"cents": 2}), store)
    await run(graph_of(saver, a=chosen, b=odd), "ainvoke", {"cents": 0})
    outputs = [
        e.event_data["output"] for e in await store.get_events("t") if "output" in e.event_data
    ]
    assert outputs == [["cents"], "Command"]


async def test_what_cant_be_a_node_is_told(saver: PostgresSaver) -> None:
    """Outside of a run, too."""
    store = EventStore(saver.db)
    for odd in (5, None, graph_of(None, a=lambda state: {}), Desk):
        with pytest.raises(InvalidArgumentError, match="function"):
            recorded(odd, store)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="EventStore"):
        event_node(saver.db, "refunded")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="a graph that runs"):
        await event_node(store, "refunded").ainvoke({})
