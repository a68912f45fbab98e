"""One writer per thread: leases of blocks, and what a fork has of them."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from langchain_core.runnables import RunnableConfig

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.checkpoint import lease, run
from langgraph_pgsaga.checkpoint.lease_block import LeaseBlock
from langgraph_pgsaga.errors import (
    InvalidArgumentError,
    LeaseLostError,
    ThreadExistsError,
    ThreadLeasedError,
)
from langgraph_pgsaga.sessions import Sessions
from tests._forked import assert_succeeds, in_child, needs_fork
from tests._limits import HANG_SECONDS
from tests.db._gates import (
    CONFIG,
    Gate,
    adds,
    end_leases,
    finish,
    graph_of,
    in_the_middle,
    is_one_line,
    until,
    value,
)

pytestmark = pytest.mark.anyio

RUN_ID = str(uuid4())


async def test_a_block_alone_may_write(saver: PostgresSaver, dsn: str) -> None:
    """In the block everything may write, outside it nobody, and afterwards everybody."""
    graph = graph_of(saver, one=adds(1))
    async with PostgresSaver.from_conn_string(dsn) as other:
        elsewhere = graph_of(other, one=adds("elsewhere"))
        async with saver.lease("t"):
            await graph.ainvoke({"items": [0]}, CONFIG)
            with pytest.raises(ThreadLeasedError):
                await elsewhere.ainvoke({"items": []}, CONFIG)
            with pytest.raises(ThreadLeasedError):
                async with other.lease("t"):
                    pass
            await graph.aupdate_state(CONFIG, {"items": ["edit"]}, as_node="one")
            await asyncio.create_task(graph.ainvoke({"items": ["task"]}, CONFIG))
        answer = await elsewhere.ainvoke({"items": []}, CONFIG)
    assert answer["items"] == [0, 1, "edit", "task", 1, "elsewhere"]


async def test_outside_the_block_its_own_saver_is_refused_too(saver: PostgresSaver) -> None:
    """The lease is the block's, not the saver's."""
    graph = graph_of(saver, one=adds(1), two=adds(2))
    has_begun, may_end = asyncio.Event(), asyncio.Event()

    async def block() -> None:
        async with saver.lease("t"):
            await graph.ainvoke({"items": []}, CONFIG, interrupt_before=["two"])
            has_begun.set()
            await may_end.wait()

    task = asyncio.create_task(block())
    await has_begun.wait()
    inputs: list[Any] = [{"items": []}, None]
    for given in inputs:
        with pytest.raises(ThreadLeasedError):
            await graph.ainvoke(given, CONFIG)
    may_end.set()
    await task


async def test_a_block_lasts_longer_than_its_lease(saver: PostgresSaver, dsn: str) -> None:
    """A block's lease is renewed for as long as the block lasts, also while its loop stands."""
    async with saver.lease("t", seconds=3):
        first = await value(dsn, "lease_expires_at")

        async def renewed() -> None:
            async with asyncio.timeout(HANG_SECONDS):
                while await value(dsn, "lease_expires_at") <= first:
                    await asyncio.sleep(0.05)

        other = threading.Thread(target=asyncio.run, args=(renewed(),))
        other.start()
        other.join()  # the loop stands still
        assert await value(dsn, "lease_expires_at") > first
    assert await value(dsn, "lease_expires_at") is None


@pytest.mark.parametrize("distributed", [False, True])
async def test_a_thread_that_is_held_up_holds_up_no_other_lease(
    dsn: str, distributed: bool
) -> None:
    """While a transaction holds some threads, the leases of others are renewed; those it held
    are when it ends, although their time was over."""
    conn = await asyncpg.connect(dsn)
    ends = "select lease_expires_at from agent_sessions where thread_id = $1"
    held = ("a", "b", "c")
    async with (
        PostgresSaver.from_conn_string(dsn, distributed=distributed) as saver,
        AsyncExitStack() as blocks,
    ):
        for thread_id in (*held, "free"):
            await blocks.enter_async_context(saver.lease(thread_id, seconds=1))
        async with conn.transaction():
            await conn.execute("select from agent_sessions where thread_id <> 'free' for update")
            before = {thread_id: await conn.fetchval(ends, thread_id) for thread_id in held}
            over = max(before.values()) + timedelta(seconds=1)
            async with asyncio.timeout(HANG_SECONDS):
                while await conn.fetchval(ends, "free") < over:
                    await asyncio.sleep(0.01)
            assert {t: await conn.fetchval(ends, t) for t in held} == before
        async with asyncio.timeout(HANG_SECONDS):
            for thread_id in held:
                while await conn.fetchval(ends, thread_id) <= before[thread_id]:
                    await asyncio.sleep(0.01)
    await conn.close()


async def test_a_block_that_lost_its_lease_writes_nothing(saver: PostgresSaver, dsn: str) -> None:
    """What somebody else took is lost, and giving it back takes nothing from them."""
    async with PostgresSaver.from_conn_string(dsn) as other:
        async with saver.lease("t"):
            await graph_of(saver, one=adds(1)).ainvoke({"items": []}, CONFIG)
            await end_leases(dsn)
            async with other.lease("t"):
                with pytest.raises(LeaseLostError):
                    await graph_of(saver, one=adds(1)).ainvoke({"items": []}, CONFIG)
                found = await other.aget_tuple(CONFIG)
                assert found is not None
                with pytest.raises(LeaseLostError):
                    await saver.aput_writes(found.config, [("items", [1])], "task")
        with pytest.raises(ThreadLeasedError):
            async with other.lease("t"), saver.lease("t"):
                pass


@pytest.mark.parametrize("joins", [False, True], ids=["alone", "in a transaction"])
async def test_nothing_is_copied_into_a_thread_that_somebody_else_holds(
    saver: PostgresSaver, second: PostgresSaver, joins: bool
) -> None:
    """The block itself may copy into its thread, and goes on from the copy."""
    await graph_of(saver, one=adds(1)).ainvoke({"items": [0]}, {"configurable": {"thread_id": "s"}})

    async def copied(by: PostgresSaver) -> None:
        async with AsyncExitStack() as stack:
            conn = await stack.enter_async_context(by.db.transaction()) if joins else None
            await by.acopy_thread("s", "t", conn=conn)

    async with saver.lease("t"):
        with pytest.raises(ThreadLeasedError) as refused:
            await copied(second)
        assert refused.value.thread_id == "t"
        assert await saver.aget_tuple(CONFIG) is None
        await copied(saver)
        with pytest.raises(ThreadExistsError):
            await copied(second)
        assert (await graph_of(saver, one=adds(2)).ainvoke({"items": []}, CONFIG))["items"] == [
            *(0, 1, 2),
        ]
        await saver.adelete_thread("t")
    await copied(second)


async def test_a_copy_into_a_thread_takes_an_ended_lease_away(
    saver: PostgresSaver, second: PostgresSaver, dsn: str
) -> None:
    """As every write does: the block that had it, and was away for long, writes nothing more."""
    graph = graph_of(saver, one=adds(1))
    await graph.ainvoke({"items": [0]}, {"configurable": {"thread_id": "s"}})
    async with saver.lease("t", seconds=86_400):
        await end_leases(dsn)
        await second.acopy_thread("s", "t")
        assert await value(dsn, "count(lease_id)") == 0
        with pytest.raises(LeaseLostError):
            await graph.ainvoke({"items": []}, CONFIG)
        await second.adelete_thread("t")
        async with second.lease("t"):
            with pytest.raises(LeaseLostError):
                await saver.acopy_thread("s", "t")
        await saver.acopy_thread("s", "t")


async def test_a_run_that_found_a_thread_empty_is_not_stored_beside_a_copy(
    single: PostgresSaver, second: PostgresSaver
) -> None:
    """Also where the thread had checkpoints that are newer than the copied ones, and lost them."""
    gate = Gate()
    graph = graph_of(second, one=adds(1))
    await graph.ainvoke({"items": [0]}, {"configurable": {"thread_id": "s"}})
    await graph.ainvoke({"items": [0]}, {**CONFIG, "metadata": {"run_id": RUN_ID}})
    await second.adelete_for_runs([RUN_ID])
    run = asyncio.create_task(
        graph_of(single, gate=gate).ainvoke({"items": ["run"]}, CONFIG, durability="exit")
    )
    await asyncio.wait_for(gate.reached.wait(), HANG_SECONDS)
    await second.acopy_thread("s", "t")
    with pytest.raises(LeaseLostError):
        await finish(run, gate)
    assert await is_one_line(second)


async def test_a_block_waits_for_its_turn(
    saver: PostgresSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For wait_seconds; without, and after that, it is refused."""
    was_refused = asyncio.Event()
    ask = LeaseBlock._refusal

    async def noted(block: LeaseBlock) -> Any:
        refused = await ask(block)
        was_refused.set()
        return refused

    monkeypatch.setattr(LeaseBlock, "_refusal", noted)

    async def waits(wait_seconds: float = HANG_SECONDS) -> str:
        async with saver.lease("t", wait_seconds=wait_seconds):
            return "had its turn"

    async with saver.lease("t"):
        waiting = asyncio.create_task(waits(), context=contextvars.Context())
        await asyncio.wait_for(was_refused.wait(), HANG_SECONDS)
        with pytest.raises(ThreadLeasedError):
            await asyncio.create_task(waits(0.2), context=contextvars.Context())
        assert not waiting.done()
    assert await asyncio.wait_for(waiting, HANG_SECONDS) == "had its turn"


async def test_a_block_in_a_block_is_the_same(saver: PostgresSaver, other: PostgresSaver) -> None:
    """Of the same thread: it begins at once, in nodes and tasks of the block, too, and leaves the
    lease to the outer one."""
    here = contextvars.ContextVar("here", default=0)

    async def locks(state: Any) -> Any:
        async with saver.lease("t", wait_seconds=HANG_SECONDS):
            here.set(1)
            return {"items": ["locked"]}

    graph = graph_of(saver, locks=locks)
    async with asyncio.timeout(HANG_SECONDS / 2), saver.lease("t"):
        async with saver.lease("t", wait_seconds=HANG_SECONDS), saver.lease("t"):
            await graph.ainvoke({"items": []}, CONFIG)
        await asyncio.create_task(locks(None))
        assert here.get() == 0
        with pytest.raises(ThreadLeasedError):
            async with other.lease("t"):
                pass
        await graph.ainvoke({"items": []}, CONFIG)
        async with saver.lease("u"), other.lease("v"):
            pass
    async with other.lease("t"):
        with pytest.raises(ThreadLeasedError):
            async with saver.lease("t"):
                pass


async def test_a_lease_lasts_as_long_as_the_last_block(
    saver: PostgresSaver, other: PostgresSaver
) -> None:
    """A task that was begun in a block, and is in one of its own, goes on after the outer's end;
    begun after that, its block is another."""
    is_in, may_go_on = asyncio.Event(), asyncio.Event()
    graph = graph_of(saver, one=adds(1))

    async def task() -> None:
        async with saver.lease("t"):
            is_in.set()
            await may_go_on.wait()
            await graph.ainvoke({"items": []}, CONFIG)
        async with other.lease("t"):
            with pytest.raises(ThreadLeasedError):
                async with saver.lease("t"):
                    pass
        async with saver.lease("t"):
            await graph.ainvoke({"items": []}, CONFIG)

    async with saver.lease("t"):
        running = asyncio.create_task(task())
        await asyncio.wait_for(is_in.wait(), HANG_SECONDS)
    with pytest.raises(ThreadLeasedError):
        async with other.lease("t"):
            pass
    may_go_on.set()
    await asyncio.wait_for(running, HANG_SECONDS)
    async with other.lease("t"):
        pass


def test_threads_in_a_block_are_in_it(dsn: str) -> None:
    """Blocks of many threads begin and end at any moment: the lease is theirs to the last."""
    with (
        PostgresSaver.from_conn_string(dsn) as saver,
        PostgresSaver.from_conn_string(dsn) as other,
        ThreadPoolExecutor(8) as pool,
    ):
        graph = graph_of(saver, one=lambda s: {"items": [1]})

        def works(number: int) -> None:
            for _ in range(20):
                with saver.lease("t", wait_seconds=HANG_SECONDS):
                    pass
            with saver.lease("t"):
                graph.update_state(CONFIG, {"items": [number]}, as_node="one")

        with saver.lease("t"):
            contexts = [contextvars.copy_context() for _ in range(8)]
            running = [pool.submit(c.run, works, n) for n, c in enumerate(contexts)]
            for one in running:
                one.result(HANG_SECONDS)
            with pytest.raises(ThreadLeasedError), other.lease("t"):
                pass
        assert len(list(other.list(CONFIG))) == 8
        with other.lease("t"):
            pass


@pytest.mark.parametrize("is_at", ["claim_lease", "release_lease"])
async def test_a_block_that_is_cancelled_at_its_edges_leaves_no_lease(
    saver: PostgresSaver, other: PostgresSaver, monkeypatch: pytest.MonkeyPatch, is_at: str
) -> None:
    """Neither where the server gave it all the same, nor where it wasn't told of the end."""
    fetch, arrived, gate = saver.db.fetch, asyncio.Event(), asyncio.Event()

    async def held_up(statement: Any, *args: Any, **options: Any) -> Any:
        if statement.name != is_at or arrived.is_set():
            return await fetch(statement, *args, **options)
        rows = await fetch(statement, *args, **options) if is_at == "claim_lease" else []
        arrived.set()
        await gate.wait()
        return rows

    monkeypatch.setattr(saver.db, "fetch", held_up)

    async def block() -> None:
        async with saver.lease("t", seconds=600):
            pass

    task = asyncio.ensure_future(block())
    await asyncio.wait_for(arrived.wait(), HANG_SECONDS)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    async with other.lease("t", wait_seconds=HANG_SECONDS):
        pass


def test_a_sync_block(dsn: str) -> None:
    """The same with `with`."""
    with (
        PostgresSaver.from_conn_string(dsn) as saver,
        PostgresSaver.from_conn_string(dsn) as other,
    ):
        graph = graph_of(saver, one=lambda s: {"items": [1]})
        elsewhere = graph_of(other, one=lambda s: {"items": [2]})
        with saver.lease("t"):
            graph.invoke({"items": []}, CONFIG)
            with pytest.raises(ThreadLeasedError):
                elsewhere.invoke({"items": []}, CONFIG)
        assert elsewhere.invoke({"items": []}, CONFIG)["items"] == [1, 2]


async def test_a_lease_makes_the_session_its_first_run_describes(saver: PostgresSaver) -> None:
    """A session that a lease made takes the user and the metadata of its first run."""
    config: RunnableConfig = {
        "configurable": {"thread_id": "t", "user_id": "ann"},
        "metadata": {"plan": "gold"},
    }
    async with saver.lease("t"):
        await graph_of(saver, one=adds(1)).ainvoke({"items": []}, config)
    found = await Sessions(saver.db).get("t")
    assert found is not None
    assert (found.user_id, found.metadata) == ("ann", {"plan": "gold"})


async def test_blocks_refuse_arguments(saver: PostgresSaver) -> None:
    """A lease that is too short to be renewed in time, and no thread."""
    numbers: list[Any] = [0.5, float("nan"), float("inf"), 10**12, 10**400, True, "30", None, -1]
    for number in numbers:
        with pytest.raises(InvalidArgumentError, match="seconds"):
            saver.lease("t", seconds=number)
        with pytest.raises(InvalidArgumentError, match="lease_seconds"):
            PostgresSaver(saver.db, single_writer=True, lease_seconds=number)
    for number in numbers[1:]:
        with pytest.raises(InvalidArgumentError, match="wait_seconds"):
            saver.lease("t", wait_seconds=number)
    with pytest.raises(InvalidArgumentError):
        saver.lease("")
    block = saver.lease("t")
    async with block:
        with pytest.raises(InvalidArgumentError, match="has begun already"):
            await block.__aenter__()
    with pytest.raises(InvalidArgumentError, match="hasn't begun"):
        await block.__aexit__()
    with pytest.raises(InvalidArgumentError, match="lease_seconds"):
        PostgresSaver(saver.db, single_writer=True, lease_seconds=0)


async def test_as_many_blocks_as_you_like(saver: PostgresSaver, single: PostgresSaver) -> None:
    """Each of a hundred blocks that one context is in goes on to be its own."""
    graph = graph_of(saver, one=adds(1))
    configs: list[RunnableConfig] = [{"configurable": {"thread_id": f"t{n}"}} for n in range(100)]
    async with AsyncExitStack() as stack:
        for number in range(100):
            await stack.enter_async_context(saver.lease(f"t{number}"))
        for config in configs:
            await graph.ainvoke({"items": []}, config)
            with pytest.raises(ThreadLeasedError):
                await graph_of(single, one=adds(2)).ainvoke({"items": []}, config)
    for config in configs:
        assert (await graph.ainvoke({"items": []}, config))["items"] == [1, 1]


async def test_as_many_runs_as_you_like(
    single: PostgresSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of whatever a context looked at or ran meanwhile, a run keeps its lease, and memory stays
    with what is under way."""
    monkeypatch.setattr(run, "_FEWEST_REMEMBERED", 10)
    monkeypatch.setattr(run, "_ENDED_SECONDS", 0)
    single._leases._runs.after_fork()
    lease._claimed.after_fork()
    graph = graph_of(single, one=adds(1), two=adds(2))
    stream = graph.astream({"items": []}, CONFIG, durability="sync")
    assert await anext(stream) == {"one": {"items": [1]}}
    for number in range(50):
        config: RunnableConfig = {"configurable": {"thread_id": f"t{number}"}}
        await graph.ainvoke({"items": []}, config)
        await graph.aupdate_state(config, {"items": [3]}, as_node="one")
        if not number % 25:  # whose end isn't told
            await graph.ainvoke(None, config, interrupt_before=["two"])
            await graph.ainvoke({"items": []}, config, interrupt_before=["two"])
    assert [part async for part in stream] == [{"two": {"items": [2]}}]
    assert await is_one_line(single)
    assert len(single._leases._runs._found) < 60
    assert len(lease._claimed._found) < 40


async def test_a_run_that_isnt_known_is_refused(single: PostgresSaver) -> None:
    """Rather than stored without its lease, as if nobody could have come between."""
    gate = Gate()
    run = await in_the_middle(graph_of(single, gate=gate), gate)
    single._leases._runs.after_fork()
    with pytest.raises(LeaseLostError):
        await finish(run, gate)


@needs_fork
def test_a_child_isnt_in_its_parents_block(dsn: str) -> None:
    """After a fork inside a block the parent goes on to have the lease, which is renewed and given
    back by it alone; the child is refused like everybody else, and may have leases of its own."""
    with PostgresSaver.from_conn_string(dsn) as saver:
        graph = graph_of(saver, one=lambda s: {"items": [1]})
        own = "max(lease_expires_at) filter (where thread_id = 'u')"

        def child() -> None:
            for call in (
                lambda: graph.invoke({"items": []}, CONFIG),
                lambda: graph.update_state(CONFIG, {"items": [2]}, as_node="one"),
                saver.lease("t").__enter__,
            ):
                with pytest.raises(ThreadLeasedError):
                    call()
            with saver.lease("u", seconds=3):
                first = asyncio.run(value(dsn, own))
                until(lambda: asyncio.run(value(dsn, own)) > first)
                graph.invoke({"items": []}, {"configurable": {"thread_id": "u"}})

        block = saver.lease("t", seconds=60)
        with block:
            graph.invoke({"items": []}, CONFIG)
            assert_succeeds(in_child(child))

            def leave() -> None:
                block.__exit__(None, None, None)

            assert_succeeds(in_child(leave))
            assert asyncio.run(value(dsn, "max(lease_expires_at)")) is not None
            assert graph.invoke({"items": []}, CONFIG)["items"] == [1, 1]
        assert asyncio.run(value(dsn, "max(lease_expires_at)")) is None


@needs_fork
@pytest.mark.parametrize("kind", ["run", "look"])
def test_a_child_isnt_in_its_parents_run(dsn: str, kind: str) -> None:
    """What a fork in the middle of a run begins is a run of its own."""
    with PostgresSaver.from_conn_string(dsn, single_writer=True) as saver:

        def child() -> None:
            with pytest.raises(ThreadLeasedError):
                inner.invoke({"items": []}, CONFIG)
            assert inner.invoke({"items": []}, {"configurable": {"thread_id": "u"}})["items"] == [1]

        def forks(state: Any) -> Any:
            if kind == "look":
                graph.get_state(CONFIG)
            assert_succeeds(in_child(lambda: contextvars.Context().run(child)))
            return {"items": ["forked"]}

        inner = graph_of(saver, one=lambda s: {"items": [1]})
        graph = graph_of(saver, forks=forks, end=lambda s: {"items": ["end"]})
        answer = graph.invoke({"items": []}, CONFIG, durability="sync")
        assert answer["items"] == ["forked", "end"]


@needs_fork
def test_locks_that_are_held_at_a_fork_arent_in_the_child(dsn: str) -> None:
    """Whatever other threads of the parent were at: the child runs, with leases and without."""
    with PostgresSaver.from_conn_string(dsn, single_writer=True) as saver:
        graph = graph_of(saver, one=lambda s: {"items": [1]})
        graph.invoke({"items": []}, CONFIG)
        held = [
            saver._leases._runs._lock,
            saver._tracker._runs._lock,
            saver._renewals._lock,
            saver._small_values._lock,
            saver._cache._lock,
            saver.db._pools_lock,
            saver.db._portal._lock,
            lease._claimed._lock,
        ]

        def child() -> None:
            with saver.lease("u"):
                graph.invoke({"items": []}, {"configurable": {"thread_id": "u"}})
            graph.invoke({"items": []}, CONFIG)

        with ExitStack() as stack:
            for lock in held:
                stack.enter_context(lock)
            pid = in_child(child)
        assert_succeeds(pid)
