"""Events in graphs: nodes that append them, and nodes that are recorded."""

from __future__ import annotations

from typing import Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph
from langgraph.types import Command, RetryPolicy, interrupt

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.events import AgentEvent, EventStore, EventType, event_node, recorded
from langgraph_pgsaga.threads import session_id_of
from tests._connections import connected

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


async def run(graph: Any, mode: str, value: Any, config: Any = None) -> Any:
    """By invoke, which has the loop stand still, or by ainvoke."""
    config = config_of() if config is None else config
    if mode == "invoke":
        return graph.invoke(value, config)
    return await graph.ainvoke(value, config)


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
    """Each execution its own; an interrupt is no error, and what runs again starts again."""
    store = EventStore(saver.db)
    builder: StateGraph[Any] = StateGraph(Desk)
    for name, node in nodes_of(kind).items():
        policy = RetryPolicy(max_attempts=2, initial_interval=0.01, retry_on=ValueError)
        builder.add_node(name, recorded(node, store), retry_policy=policy)
    builder.add_edge(START, "works").add_edge("works", "fails").add_edge("fails", "asks")
    graph = builder.compile(checkpointer=saver)
    await run(graph, mode, {"cents": 1})
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
        start("asks"),
        done("asks", 9),
    ]


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
