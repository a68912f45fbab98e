"""Steps with effects under leases, of tenants, behind a pooler, and of a thread that moves."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import LeaseError
from langgraph_pgsaga.takeover import ReadThroughSaver
from langgraph_pgsaga.work import step_is_stored, this_step
from tests.db._effects import INSERT, Effects, once
from tests.db._gates import CONFIG, adds, graph_of
from tests.db._steps import DURABILITIES, acts, nested

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_under_a_lease(single: PostgresSaver, effects: Effects, durability: Any) -> None:
    """A run with a lease has its effects, and gives the lease back."""
    graph = nested(single, acts("deep"))
    for n in (1, 2):
        await graph.ainvoke({"items": []}, CONFIG, durability=durability)
        found = await effects.found()
        assert found == dict.fromkeys(once("top", "before0", "first", "deep", "end"), n)


async def test_a_run_that_lost_its_lease_has_no_effects(
    single: PostgresSaver, other: PostgresSaver, effects: Effects
) -> None:
    """Overtaken while its node runs, it is refused, and its effect with it."""

    async def node(state: Any) -> Any:
        this_step().sql(INSERT, "overtaken")
        async with single.db.transaction() as conn:
            await conn.execute(
                "update agent_sessions set lease_expires_at = now() - interval '1 second'"
            )
        graph = graph_of(other, node=acts("winner"))
        await asyncio.create_task(_alone(graph))
        return {"items": ["node"]}

    with pytest.raises(LeaseError):
        await graph_of(single, node=node).ainvoke({"items": []}, CONFIG, durability="sync")
    assert await effects.found() == once("winner")


async def _alone(graph: Any) -> None:
    """Of another run, in a context that knows of none."""
    context = contextvars.Context()
    run = asyncio.get_running_loop().create_task(
        graph.ainvoke({"items": []}, CONFIG), context=context
    )
    await run


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_of_tenants(saver: PostgresSaver, effects: Effects, durability: Any) -> None:
    """Threads of one id and two tenants have each their own steps, in subgraphs, too."""
    graph = nested(saver, acts("deep"))
    for tenant in ("a", "b"):
        config: Any = {"configurable": {"thread_id": "t", "tenant_id": tenant}}
        await graph.ainvoke({"items": []}, config, durability=durability)
    found = await effects.found()
    assert found == dict.fromkeys(once("top", "before0", "first", "deep", "end"), 2)


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_without_named_statements(dsn: str, effects: Effects, durability: Any) -> None:
    """As behind a pooler in transaction mode."""
    async with PostgresSaver.from_conn_string(dsn, pooler=True) as saver:
        graph = nested(saver, acts("deep"))
        await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    assert await effects.found() == once("top", "before0", "first", "deep", "end")


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_of_a_thread_that_moves(
    saver: PostgresSaver, effects: Effects, durability: Any
) -> None:
    """A thread of an old saver is moved by the first write; then its steps have effects."""
    old = InMemorySaver()
    await graph_of(old, node=adds("old")).ainvoke({"items": []}, CONFIG)

    async def waits(state: Any) -> Any:
        if durability != "exit":
            await step_is_stored()
        this_step().sql(INSERT, "waits")
        return {"items": ["waits"]}

    graph = graph_of(ReadThroughSaver(saver, old), node=waits, after=acts("after"))
    answer = await graph.ainvoke({"items": []}, CONFIG, durability=durability)
    assert answer["items"] == ["old", "waits", "after"]
    assert await effects.found() == once("waits", "after")


async def test_a_failed_checkpoint_takes_the_next_steps_effects_with_it(
    saver: PostgresSaver, effects: Effects
) -> None:
    """A step whose checkpoint isn't stored would be found by nobody."""
    async with saver.db.transaction() as conn:
        await conn.execute(
            "alter table agent_states add constraint one check (metadata ->> 'step' <> '1')"
        )
    with pytest.raises(Exception, match=r"constraint|isn't stored"):
        await graph_of(saver, a=acts("a"), b=acts("b")).ainvoke(
            {"items": []}, CONFIG, durability="async"
        )
    assert await effects.found() == once("a")
