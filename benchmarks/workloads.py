"""What each contender does in a round, and what is read off while it does.

To add work, write a function that answers Readings and add a Workload.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, TypeAlias

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.checkpoint.base.id import uuid6

from benchmarks import graphs
from benchmarks.contenders import MEMORY, OURS, REFERENCE, SQLITE, Contender, Saver, Stand
from benchmarks.network import delayed
from tests._proxy import Proxy

# What one run of a workload measured, by name. Less is better, but for what is per second.
Readings: TypeAlias = dict[str, float]

_KB = 1000
_CHECKPOINTS_PER_TURN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How much work there is; `turns` are those of the chats, from short to long."""

    rounds: int = 5
    calls: int = 40
    turns: tuple[int, ...] = (150, 300, 600)
    crowd: int = 200
    crowd_turns: int = 5
    steps: int = 50
    network_turns: int = 30
    sync_turns: int = 100


Work: TypeAlias = Callable[[Stand, Options, int], Awaitable[Readings]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What the contenders do, given the number of the round.

    Short work has `times_rounds` as many rounds, for a busy disk has moods of some
    seconds; long work less. `around` is a setting of the server's while it lasts.
    """

    name: str
    run: Work
    contenders: tuple[Contender, ...] = (OURS, REFERENCE)
    floor: Work | None = None
    times_rounds: float = 1
    settings: tuple[tuple[str, str], ...] = ()

    def rounds(self, options: Options) -> int:
        return max(1, round(options.rounds * self.times_rounds))


def thread(name: str) -> RunnableConfig:
    return {"configurable": {"thread_id": name, "checkpoint_ns": ""}}


# Single calls


async def put(stand: Stand, options: Options, round_no: int) -> Readings:
    """Small checkpoints, each the child of the one before."""
    config, times = thread(f"put {round_no}"), []
    for call in range(options.calls):
        checkpoint = _small_checkpoint(stand.saver, call)
        metadata: Any = {"source": "loop", "step": call, "parents": {}}
        versions = checkpoint["channel_versions"]
        begin = time.perf_counter()
        config = await stand.saver.aput(config, checkpoint, metadata, versions)
        times.append(time.perf_counter() - begin)
    return {"put, ms": 1000 * median(times)}


async def put_writes(stand: Stand, options: Options, round_no: int) -> Readings:
    """Two writes by each of many tasks of one checkpoint."""
    config = await _put_one(stand.saver, f"put_writes {round_no}")
    times = []
    for call in range(options.calls):
        writes = [("plan", ["look up", f"page {call}"]), ("branch:to:model", None)]
        begin = time.perf_counter()
        await stand.saver.aput_writes(config, writes, f"task {call}")
        times.append(time.perf_counter() - begin)
    return {"put_writes, ms": 1000 * median(times)}


async def get_tuple(stand: Stand, options: Options, round_no: int) -> Readings:
    """The latest checkpoint of a thread, small, with one task's writes pending."""
    name = f"get_tuple {round_no}"
    config = await _put_one(stand.saver, name)
    await stand.saver.aput_writes(config, [("plan", ["look up"])], "task")
    times = []
    for _ in range(options.calls):
        begin = time.perf_counter()
        found = await stand.saver.aget_tuple(thread(name))
        times.append(time.perf_counter() - begin)
        assert found is not None
        assert found.config == config
    return {"get_tuple, ms": 1000 * median(times)}


async def insert_row(stand: Stand, options: Options, round_no: int) -> float:
    """The milliseconds of a single-row insert through asyncpg, prepared and committed by itself."""
    assert stand.conn is not None
    await stand.conn.execute("create table if not exists floor (n serial primary key, p bytea)")
    insert = await stand.conn.prepare("insert into floor (p) values ($1)")
    payload, times = random.Random(round_no).randbytes(300), []
    for _ in range(options.calls):
        begin = time.perf_counter()
        await insert.fetch(payload)
        times.append(time.perf_counter() - begin)
    return 1000 * median(times)


async def put_floor(stand: Stand, options: Options, round_no: int) -> Readings:
    return {"put, ms": await insert_row(stand, options, round_no)}


async def put_writes_floor(stand: Stand, options: Options, round_no: int) -> Readings:
    return {"put_writes, ms": await insert_row(stand, options, round_no)}


def _small_checkpoint(saver: Saver, step: int) -> Checkpoint:
    versions = {
        channel: saver.get_next_version(None if step == 0 else f"{step:08}.0", None)
        for channel in ("question", "step", "plan")
    }
    values = {"question": "How is the weather?", "step": step, "plan": ["look up", f"page {step}"]}
    return {
        **empty_checkpoint(),
        "id": str(uuid6(clock_seq=step)),
        "channel_values": values,
        "channel_versions": versions,
        "versions_seen": {"model": versions},
        "updated_channels": sorted(versions),
    }


async def _put_one(saver: Saver, name: str) -> RunnableConfig:
    checkpoint = _small_checkpoint(saver, 0)
    metadata: Any = {"source": "loop", "step": 0, "parents": {}}
    return await saver.aput(thread(name), checkpoint, metadata, checkpoint["channel_versions"])


# Conversations


def chat(turns: int, *, reads_all: bool) -> Work:
    """A conversation of so many turns: its time, its size, and the reading of its history."""
    label = f"chat {turns}"

    async def run(stand: Stand, options: Options, round_no: int) -> Readings:
        name, graph = f"{label} {round_no}", graphs.chat(stand.saver)
        usage = await _Usage.begin(stand)
        times = await converse(graph, name, turns)
        taken = await usage.end(label)
        begin = time.perf_counter()
        state = await graph.aget_state(thread(name))
        state_seconds = time.perf_counter() - begin
        assert len(state.values["messages"]) == 4 * turns, "the chat lost messages"
        tenth = max(1, turns // 10)
        found = {
            f"{label}, supersteps per s": _CHECKPOINTS_PER_TURN * turns / sum(times),
            f"{label}, ms per turn in the first tenth": 1000 * fmean(times[:tenth]),
            f"{label}, ms per turn in the last tenth": 1000 * fmean(times[-tenth:]),
            **taken,
            f"{label}, KB of text": sum(len(m.content) for m in state.values["messages"]) / _KB,
            f"{label}, ms of get_state": 1000 * state_seconds,
            f"{label}, ms of a history of 50": await _history_ms(graph, name, 50),
        }
        if reads_all:
            every = _CHECKPOINTS_PER_TURN * turns
            found[f"{label}, ms of all its history"] = await _history_ms(graph, name, every)
        if stand.contender is MEMORY:
            await stand.saver.adelete_thread(name)
        return found

    return run


async def _history_ms(graph: Any, name: str, limit: int) -> float:
    begin = time.perf_counter()
    found = [snapshot async for snapshot in graph.aget_state_history(thread(name), limit=limit)]
    seconds = time.perf_counter() - begin
    every = found[0].metadata["step"] + 2
    assert len(found) == min(limit, every), "the history lost checkpoints"
    return 1000 * seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class _Usage:
    """What the tables and the WAL were when the work began."""

    stand: Stand
    table_bytes: float
    wal_position: float

    @classmethod
    async def begin(cls, stand: Stand) -> _Usage:
        return cls(
            stand=stand,
            table_bytes=await stand.table_bytes(),
            wal_position=await stand.wal_position(),
        )

    async def end(self, label: str) -> Readings:
        if self.stand.contender is MEMORY:
            return {}
        wal_bytes = await self.stand.wal_position() - self.wal_position
        found = {
            f"{label}, KB of tables": (await self.stand.table_bytes() - self.table_bytes) / _KB
        }
        return {**found, f"{label}, KB of WAL": wal_bytes / _KB} if self.stand.conn else found


async def converse(graph: Any, name: str, turns: int) -> list[float]:
    """The seconds of each turn; the conversation follows from its name alone."""
    rng, times = random.Random(name), []
    for _ in range(turns):
        question = graphs.question(rng)
        begin = time.perf_counter()
        await graph.ainvoke(question, thread(name))
        times.append(time.perf_counter() - begin)
    return times


def crowd(label: str) -> Work:
    """Conversations at once, in one process and one event loop."""

    async def run(stand: Stand, options: Options, round_no: int) -> Readings:
        names = [f"{label} {round_no} {place}" for place in range(options.crowd)]
        graph, turns = graphs.chat(stand.saver), options.crowd_turns
        begin = time.perf_counter()
        await asyncio.gather(*(converse(graph, name, turns) for name in names))
        seconds = time.perf_counter() - begin
        supersteps = _CHECKPOINTS_PER_TURN * turns * len(names)
        return {f"{label}, supersteps per s": supersteps / seconds}

    return run


async def sync_chat(stand: Stand, options: Options, round_no: int) -> Readings:
    """The same chat through `invoke`, in a thread of its own as sync callers are."""
    opened = stand.contender.open_sync_saver
    assert opened is not None

    def work() -> float:
        rng, name = random.Random(round_no), f"sync chat {round_no}"
        with opened(stand.place) as saver:
            graph = graphs.chat(saver)
            graph.invoke(graphs.question(rng), thread(f"{name} warm-up"))
            begin = time.perf_counter()
            for _ in range(options.sync_turns):
                graph.invoke(graphs.question(rng), thread(name))
            return time.perf_counter() - begin

    seconds = await asyncio.to_thread(work)
    return {"sync chat, ms per turn": 1000 * seconds / options.sync_turns}


# Other graphs


def steps(label: str, make: Callable[[Any], Any], inputs: Callable[[Options], Any]) -> Work:
    """One run of a graph that goes round many times."""

    async def run(stand: Stand, options: Options, round_no: int) -> Readings:
        graph, name = make(stand.saver), f"{label} {round_no}"
        usage = await _Usage.begin(stand)
        config: RunnableConfig = {**thread(name), "recursion_limit": 10_000}
        begin = time.perf_counter()
        await graph.ainvoke(inputs(options), config)
        seconds = time.perf_counter() - begin
        taken = await usage.end(label)
        latest = await stand.saver.aget_tuple(thread(name))
        assert latest is not None
        supersteps = latest.metadata["step"] + 2
        return {f"{label}, ms per superstep": 1000 * seconds / supersteps, **taken}

    return run


async def send(stand: Stand, options: Options, round_no: int) -> Readings:
    """Every turn sends the whole conversation to four workers."""
    graph, name = graphs.send(stand.saver), f"send {round_no}"
    usage = await _Usage.begin(stand)
    times = await converse(graph, name, options.steps)
    taken = await usage.end("send")
    return {"send, ms per superstep": 1000 * fmean(times) / 4, **taken}


# The network


async def network(stand: Stand, options: Options, round_no: int) -> Readings:
    """A chat with a server that is 2 ms away, there and back."""
    with delayed(stand.place, 0.001) as dsn:
        async with stand.contender.open_saver(dsn) as saver:
            graph, name = graphs.chat(saver), f"network {round_no}"
            await converse(graph, f"{name} warm-up", 2)
            times = await converse(graph, name, options.network_turns)
    return {"network of 2 ms, ms per turn": 1000 * fmean(times)}


async def wire(stand: Stand, options: Options, round_no: int) -> Readings:
    """What a turn of a chat sends, counted on the way: five checkpoints, and the run's start."""
    turns = 10
    with Proxy(stand.place) as proxy:
        async with stand.contender.open_saver(proxy.dsn()) as saver:
            graph, name = graphs.chat(saver), f"wire {round_no}"
            await converse(graph, f"{name} warm-up", 30)
            with proxy.recording() as traffic:
                await converse(graph, name, turns)
    return {
        "chat, statements per turn": traffic.statements / turns,
        "chat, round trips per turn": traffic.round_trips / turns,
    }


_SLOW_FLUSH = (("commit_delay", "1000"), ("commit_siblings", "0"))


def workloads(options: Options) -> list[Workload]:
    """All of them, in the order of the table."""
    both = (OURS, REFERENCE)
    everybody = (OURS, REFERENCE, SQLITE, MEMORY)
    return [
        Workload(name="put", run=put, floor=put_floor, times_rounds=5),
        Workload(name="put_writes", run=put_writes, floor=put_writes_floor, times_rounds=5),
        Workload(name="get_tuple", run=get_tuple, times_rounds=5),
        *(
            Workload(
                name=f"chat {turns}",
                run=chat(turns, reads_all=turns <= 300),
                contenders=everybody,
                times_rounds=0.6 if turns <= 150 else 0.2,
            )
            for turns in options.turns
        ),
        Workload(name="crowd", run=crowd("crowd"), contenders=(OURS, REFERENCE, MEMORY)),
        Workload(
            name="crowd, 1 ms flush",
            run=crowd("crowd at a 1 ms flush"),
            settings=_SLOW_FLUSH,
            times_rounds=0.6,
        ),
        Workload(
            name="fan",
            run=steps("fan", graphs.fan, lambda o: {"left": max(1, o.steps // 3), "found": []}),
            contenders=everybody,
            times_rounds=0.6,
        ),
        Workload(name="send", run=send, contenders=everybody, times_rounds=0.6),
        Workload(
            name="files",
            run=steps(
                "files",
                graphs.files,
                lambda o: {"files": graphs.new_files(random.Random(1)), "left": o.steps},
            ),
            contenders=everybody,
            times_rounds=0.6,
        ),
        Workload(name="network", run=network, times_rounds=0.6),
        Workload(name="wire", run=wire, times_rounds=0.2),
        Workload(name="sync", run=sync_chat, contenders=both, times_rounds=0.6),
    ]
