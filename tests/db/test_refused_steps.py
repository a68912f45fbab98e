"""Effects that are refused end their run, and a `this_step()` that can't be kept says why."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

from langgraph_pgsaga import Database, PostgresSaver
from langgraph_pgsaga.checkpoint import riders
from langgraph_pgsaga.checkpoint.step_places import not_stored
from langgraph_pgsaga.errors import (
    InvalidArgumentError,
    NoStepError,
    ServerError,
    StepEndedError,
    StepNotStoredError,
    TransactionEndedError,
    VersionConflictError,
)
from langgraph_pgsaga.events import AgentEvent, EventStore
from langgraph_pgsaga.sessions import Sessions
from langgraph_pgsaga.work import Step, this_step, written
from tests._connections import connected
from tests.db._effects import INSERT, Effects, once
from tests.db._gates import CONFIG, Log, graph_of
from tests.db._steps import FAST, act, acts, acts_sync, stored_items

pytestmark = pytest.mark.anyio


# What fails


async def test_an_effect_that_fails_ends_its_run_and_no_other(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """Nothing of the call is stored, no later checkpoint has its result, and others go on."""

    async def node(state: Any) -> Any:
        act("bad" if state["items"] == ["bad"] else "fine")
        return {"items": ["node"]}

    graph = graph_of(saver, node=node, after=acts("after"))

    async def run(name: str) -> Any:
        config: Any = {"configurable": {"thread_id": name}}
        return await graph.ainvoke({"items": [name]}, config, durability=durability)

    names = ["bad", "good", "better", "best"]
    answers = await asyncio.gather(*map(run, names), return_exceptions=True)
    assert isinstance(answers[0], ServerError)
    assert answers[0].sqlstate == "23514"
    assert answers[1:] == [{"items": [name, "node", "after"]} for name in names[1:]]
    assert await effects.found() == {"after": 3, "fine": 3}
    async for found in saver.anew().alist({"configurable": {"thread_id": "bad"}}):
        assert found.checkpoint["channel_values"].get("items", []) in ([], ["bad"])
        assert ["node"] not in [value for _, _, value in found.pending_writes or ()]


async def test_a_table_of_ones_own_that_is_missing_is_told_as_that(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """It isn't this package's migrations that are missing; of a transaction's work neither."""

    async def node(state: Any) -> Any:
        this_step().sql("insert into efects (name) values ($1)", "misspelt")
        return {"items": ["node"]}

    with pytest.raises(ServerError, match="efects") as caught:
        await graph_of(saver, node=node).ainvoke({"items": []}, CONFIG, durability=durability)
    assert (caught.value.sqlstate, "migrat" in str(caught.value)) == ("42P01", False)
    with pytest.raises(ServerError, match="efects"):
        await saver.db.run(lambda conn: conn.fetch("select from efects"))
    with pytest.raises(ServerError, match="nosuch"):
        await saver.db.run(lambda conn: conn.fetch("select nosuch()"), once=True)


@pytest.mark.parametrize("ending", ["commit", "rollback"])
async def test_an_effect_that_ends_the_transaction_ends_its_run(
    saver: PostgresSaver, effects: Effects, ending: str
) -> None:
    """What was rolled back isn't taken for stored."""

    async def node(state: Any) -> Any:
        act("node")
        this_step().sql(ending)
        return {"items": ["node"]}

    with pytest.raises(TransactionEndedError):
        await graph_of(saver, node=node).ainvoke({"items": []}, CONFIG, durability="sync")
    assert await effects.found() == ({} if ending == "rollback" else once("node"))


async def test_a_checkpoint_waits_for_a_steps_call_no_longer_than_it_says(
    saver: PostgresSaver, effects: Effects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where somebody holds up an effect. What is stored of the step after all counts, once."""
    monkeypatch.setattr(riders, "_LONGEST_WAIT_SECONDS", 0.2)
    async with connected(effects.dsn) as other:
        await other.execute("begin")
        await other.execute("lock table effects in exclusive mode")
        graph = graph_of(saver, node=acts("node"), after=acts("after"))
        going = []

        def ending(level: Any) -> StepNotStoredError:
            # LangGraph ends a run once all its calls have ended.
            going.append(asyncio.ensure_future(other.execute("rollback")))
            return not_stored(level)

        monkeypatch.setattr(riders, "not_stored", ending)
        with pytest.raises(StepNotStoredError, match="isn't stored"):
            await graph.ainvoke({"items": []}, CONFIG, durability="async")
        await asyncio.gather(*going)
    monkeypatch.undo()
    assert (await graph.ainvoke(None, CONFIG))["items"] == ["node", "after"]
    assert await effects.found() == once("node", "after")


def test_an_effect_that_fails_in_a_sync_run(
    sync_saver: PostgresSaver, dsn: str, durability: Any
) -> None:
    """The same where calls come from several threads, in whatever order."""
    effects = Effects(dsn)
    asyncio.run(effects.make())
    graph = graph_of(sync_saver, node=acts_sync("bad"), after=acts_sync("after"))
    with pytest.raises(ServerError):
        graph.invoke({"items": []}, CONFIG, durability=durability)
    assert effects.found_now() == {}
    found = sync_saver.anew().get_tuple(CONFIG)
    assert found is None or found.checkpoint["channel_values"].get("items", []) == []


async def test_a_value_that_cant_be_stored_takes_the_effect_with_it(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """A result that is refused leaves no effect."""

    async def node(state: Any) -> Any:
        act("node")
        return {"items": [threading.Lock()]}

    with pytest.raises(Exception, match="lock"):
        await graph_of(saver, node=node, after=acts("after")).ainvoke(
            {"items": []}, CONFIG, durability=durability
        )
    assert await effects.found() == {}


# What is said


async def test_outside_of_a_node_it_says_what_to_do() -> None:
    with pytest.raises(NoStepError, match=r"outside of a node.*db.transaction\(\)"):
        this_step()


@pytest.mark.parametrize("checkpointer", [None, InMemorySaver()], ids=["none", "memory"])
async def test_with_another_saver_it_says_which_is_needed(checkpointer: Any) -> None:
    with pytest.raises(NoStepError, match="Compile the graph with a PostgresSaver"):
        await graph_of(checkpointer, node=acts("a")).ainvoke({"items": []}, CONFIG)


async def test_a_subgraph_that_stores_nothing(saver: PostgresSaver, effects: Effects) -> None:
    """With checkpointer=False no step of it is stored, so none takes an effect."""
    builder: StateGraph[Any] = StateGraph(Log)
    builder.add_node("node", acts("a"))
    builder.add_edge(START, "node")
    inner = builder.compile(checkpointer=False)
    with pytest.raises(NoStepError, match="checkpointer=False"):
        await graph_of(saver, sub=inner).ainvoke({"items": []}, CONFIG)
    assert await effects.found() == {}


async def test_of_another_database_it_is_refused(
    saver: PostgresSaver, new_database: Callable[..., str], effects: Effects
) -> None:
    other = Database(await asyncio.to_thread(new_database))
    same = Database(effects.dsn)

    async def insert(conn: Any) -> None:
        await conn.execute(INSERT, "same")

    async def node(state: Any) -> Any:
        with pytest.raises(NoStepError, match="which can't commit what is in"):
            await written(this_step(), other, insert, known=None)
        await written(this_step(), same, insert, known=None)
        return {"items": []}

    await graph_of(saver, node=node).ainvoke({"items": []}, CONFIG)
    assert await effects.found() == once("same")


async def test_where_it_isnt_taken_it_says_so(saver: PostgresSaver, effects: Effects) -> None:
    """A method that needs an answer of the connection refuses it, and does nothing."""

    async def node(state: Any) -> Any:
        step: Any = this_step()
        with pytest.raises(InvalidArgumentError, match=r"this_step\(\) isn't taken here"):
            await Sessions(saver.db).update("t", priority=5, conn=step)
        return {"items": []}

    await graph_of(saver, node=node).ainvoke({"items": []}, CONFIG)


async def test_a_step_that_has_ended_takes_nothing(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """Kept by the node it is refused later, and that of an attempt that failed in the next."""
    kept: list[Step] = []

    async def node(state: Any) -> Any:
        kept.append(this_step())
        if len(kept) == 1:
            raise ValueError
        with pytest.raises(StepEndedError, match="'node'"):
            kept[0].sql(INSERT, "of the first attempt")
        return {"items": ["node"]}

    async def later(state: Any) -> Any:
        with pytest.raises(StepEndedError, match="'node'"):
            kept[1].sql(INSERT, "later")
        return {"items": ["later"]}

    builder: StateGraph[Any] = StateGraph(Log)
    builder.add_node("node", node, retry_policy=FAST)
    builder.add_node("later", later)
    builder.add_edge(START, "node")
    builder.add_edge("node", "later")
    await builder.compile(checkpointer=saver).ainvoke({"items": []}, CONFIG, durability=durability)
    with pytest.raises(StepEndedError):
        kept[1].sql(INSERT, "last")
    assert await effects.found() == {}


async def test_an_event_that_is_refused_ends_the_run(saver: PostgresSaver) -> None:
    """Its typed error is the run's, and nothing of the step is there."""
    store = EventStore(saver.db)

    async def node(state: Any) -> Any:
        event = AgentEvent(event_type="done", event_data={})
        await store.append(
            "order", [event], aggregate_type="o", expected_version=3, conn=this_step()
        )
        return {"items": ["node"]}

    with pytest.raises(VersionConflictError):
        await graph_of(saver, node=node, after=acts("after")).ainvoke({"items": []}, CONFIG)
    assert await stored_items(saver) == []
