"""An update that would be lost is refused: puts with the version that they expect."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langgraph.graph import START, StateGraph
from langgraph.store.base import PutOp
from typing_extensions import TypedDict

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import InvalidArgumentError, ItemConflictError
from langgraph_pgsaga.memory import MemoryStore, StoredItem, VersionedPut
from langgraph_pgsaga.work import this_step

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[MemoryStore]:
    async with MemoryStore.from_conn_string(dsn) as store:
        yield store


async def version_of(store: MemoryStore, key: str = "k") -> int:
    item = await store.aget(("a",), key)
    return item.version if isinstance(item, StoredItem) else 0


async def test_a_put_is_done_at_the_version_that_it_expects(store: MemoryStore) -> None:
    """0 is where there is none."""
    await store.aput(("a",), "k", {"n": 1}, expected_version=0)
    await store.aput(("a",), "k", {"n": 2}, expected_version=1)
    assert await version_of(store) == 2
    await store.adelete(("a",), "k", expected_version=2)
    await store.adelete(("a",), "k", expected_version=0)
    assert await version_of(store) == 0


@pytest.mark.parametrize(("expected", "actual"), [(0, 1), (2, 1), (1, 0), (7, 0)])
async def test_another_version_is_a_conflict(
    store: MemoryStore, expected: int, actual: int
) -> None:
    """It names both, and nothing is changed."""
    if actual:
        await store.aput(("a",), "k", {"n": "old"})
    for value in ({"n": "new"}, None):
        op = VersionedPut(("a",), "k", value, expected_version=expected)
        with pytest.raises(ItemConflictError, match="at version") as caught:
            await store.abatch([op])
        error = pickle.loads(pickle.dumps(caught.value))
        assert (error.namespace, error.key) == (("a",), "k")
        assert (error.expected, error.actual) == (expected, actual)
    assert await version_of(store) == actual


async def test_a_conflict_refuses_the_whole_batch(store: MemoryStore) -> None:
    """Also what stands before it, and in a transaction, which goes on."""
    await store.aput(("a",), "k", {"n": 1})
    ops: list[Any] = [
        PutOp(("a",), "x", {"n": 1}),
        VersionedPut(("a",), "k", {"n": 2}, expected_version=1),
        VersionedPut(("a",), "y", {"n": 1}, expected_version=3),
    ]
    with pytest.raises(ItemConflictError):
        await store.abatch(ops)
    async with store.db.transaction() as conn:
        with pytest.raises(ItemConflictError):
            await store.abatch(ops, conn=conn)
        await store.aput(("a",), "goes on", {}, conn=conn)
    assert {item.key for item in await store.asearch(("a",))} == {"k", "goes on"}
    assert await version_of(store) == 1
    await store.abatch(ops[:2])
    assert (await version_of(store), await version_of(store, "x")) == (2, 1)


@pytest.mark.parametrize("begun", [0, 1])
async def test_of_many_that_expect_one_version_one_wins(store: MemoryStore, begun: int) -> None:
    """Whether there is an item or none yet."""
    if begun:
        await store.aput(("a",), "k", {"who": None})

    async def put(who: int) -> int | None:
        try:
            await store.aput(("a",), "k", {"who": who}, expected_version=begun)
        except ItemConflictError:
            return None
        return who

    (winner,) = [w for w in await asyncio.gather(*map(put, range(50))) if w is not None]
    item = await store.aget(("a",), "k")
    assert item is not None
    assert item.value == {"who": winner}
    assert await version_of(store) == begun + 1


async def test_counting_by_versions_loses_nothing(store: MemoryStore) -> None:
    """Who is refused reads again."""
    await store.aput(("a",), "k", {"n": 0})

    async def add() -> None:
        while True:
            item = await store.aget(("a",), "k")
            assert isinstance(item, StoredItem)
            try:
                await store.aput(
                    ("a",), "k", {"n": item.value["n"] + 1}, expected_version=item.version
                )
            except ItemConflictError:
                continue
            return

    await asyncio.gather(*(add() for _ in range(10)))
    item = await store.aget(("a",), "k")
    assert item is not None
    assert item.value == {"n": 10}


@pytest.mark.parametrize("odd", [-1, 1.5, "1", True])
async def test_what_is_no_version_is_refused(store: MemoryStore, odd: Any) -> None:
    """In a call, and in an operation."""
    with pytest.raises(InvalidArgumentError, match="expected_version"):
        await store.aput(("a",), "k", {}, expected_version=odd)
    with pytest.raises(InvalidArgumentError, match="expected_version"):
        VersionedPut(("a",), "k", {}, expected_version=odd)


class State(TypedDict, total=False):
    n: int


@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])
async def test_a_put_is_stored_with_the_step(store: MemoryStore, fails: bool) -> None:
    """Where the node fails there is none of it."""
    saver = PostgresSaver(store.db)

    async def work(state: State) -> State:
        await store.aput(("a",), "k", {"n": 1}, expected_version=0, conn=this_step())
        await store.adelete(("a",), "old", conn=this_step())
        assert await version_of(store) == 0
        if fails:
            raise ZeroDivisionError
        return {"n": 1}

    await store.aput(("a",), "old", {})
    builder: Any = StateGraph(State)
    graph = builder.add_node("work", work).add_edge(START, "work").compile(checkpointer=saver)
    config = {"configurable": {"thread_id": "t"}}
    if fails:
        with pytest.raises(ZeroDivisionError):
            await graph.ainvoke({}, config)
    else:
        await graph.ainvoke({}, config)
    assert await version_of(store) == (0 if fails else 1)
    assert await version_of(store, "old") == (1 if fails else 0)


def test_a_sync_node_puts_with_its_step(dsn: str) -> None:
    """By the same store, which the graph has as `store=`."""
    with PostgresSaver.from_conn_string(dsn) as saver:
        store = MemoryStore(saver.db)

        def work(state: State) -> State:
            store.put(("a",), "k", {"n": 1}, conn=this_step())
            store.delete(("a",), "none", conn=this_step())
            return {"n": 1}

        builder: Any = StateGraph(State)
        builder.add_node("work", work).add_edge(START, "work")
        graph = builder.compile(checkpointer=saver, store=store)
        graph.invoke({}, {"configurable": {"thread_id": "t"}})
        assert store.get(("a",), "k") is not None
