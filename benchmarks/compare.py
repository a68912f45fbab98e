"""Times this package's saver against langgraph-checkpoint-postgres, on one server, in one run.

Each contender has a database of its own. In every round each of them does the same work,
one after the other, so that what else the machine does meets all alike: trust the ratios.
The floor is what no saver can beat: for a put one row inserted, for a chat InMemorySaver.

To add a saver, add a Contender; to add work, a function that answers Readings, and a
Workload. In every reading less is better.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, median
from typing import Any, TypeAlias
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from psycopg import AsyncConnection, Capabilities
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.embedded import EmbeddedServer

Saver: TypeAlias = BaseCheckpointSaver[Any]
# What one run of a workload measured, by name; less is better.
Readings: TypeAlias = dict[str, float]

_POOL_SIZE = 10
_KB = 1000
_PACKAGES = ("langgraph-checkpoint-postgres", "langgraph", "asyncpg", "psycopg")
_SETTINGS = ("server_version", "fsync", "synchronous_commit", "full_page_writes")
_USER_TABLES = """
select coalesce(sum(pg_total_relation_size(relid)), 0)::bigint
from pg_catalog.pg_stat_user_tables
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How much work a round is."""

    turns: int
    rounds: int
    crowd: int
    calls: int

    @property
    def crowd_turns(self) -> int:
        return max(1, self.turns // 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A saver to time. `bytes_query` answers what its tables take, indexes and toast included."""

    name: str
    open_saver: Callable[[str], AbstractAsyncContextManager[Saver]]
    bytes_query: str = _USER_TABLES


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """A contender at work: its open saver, and a connection of ours to its database."""

    contender: Contender
    saver: Saver
    conn: asyncpg.Connection[asyncpg.Record]

    async def table_bytes(self) -> float:
        return float(await self.conn.fetchval(self.contender.bytes_query))

    async def wal_position(self) -> float:
        """Of the whole server: nothing else may write to it meanwhile."""
        since = "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8"
        return float(await self.conn.fetchval(since))


Work: TypeAlias = Callable[[Stand, Options, int], Awaitable[Readings]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What each contender does, given the number of the round, and what the floor does.

    Short work has `times_rounds` as many rounds: a busy disk has moods of some seconds.
    """

    run: Work
    floor: Work | None = None
    times_rounds: int = 1


# Contenders


@asynccontextmanager
async def open_pgsaga(dsn: str) -> AsyncIterator[Saver]:
    async with PostgresSaver.from_conn_string(dsn, max_size=_POOL_SIZE) as saver:
        await saver.asetup()
        yield saver


@asynccontextmanager
async def open_reference(dsn: str) -> AsyncIterator[Saver]:
    """As its documentation advises; on a pool it uses a pipeline wherever libpq has them."""
    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    pool: AsyncConnectionPool[AsyncConnection[DictRow]] = AsyncConnectionPool(
        dsn, min_size=_POOL_SIZE, max_size=_POOL_SIZE, kwargs=options, open=False
    )
    async with pool:
        saver = AsyncPostgresSaver(pool)
        await saver.setup()
        yield saver


@asynccontextmanager
async def open_memory(_: str) -> AsyncIterator[Saver]:
    yield InMemorySaver()


OURS = Contender(name="pgsaga", open_saver=open_pgsaga)
REFERENCE = Contender(name="reference", open_saver=open_reference)
FLOOR = Contender(name="floor", open_saver=open_memory)
CONTENDERS = (OURS, REFERENCE)


# Work: single calls


async def put(stand: Stand, options: Options, round_no: int) -> Readings:
    """Small checkpoints, each the child of the one before."""
    config, times = _thread(f"put {round_no}"), []
    for call in range(options.calls):
        checkpoint = _small_checkpoint(stand.saver, call)
        arguments = (config, checkpoint, {"source": "loop", "step": call, "parents": {}})
        begin = time.perf_counter()
        config = await stand.saver.aput(*arguments, checkpoint["channel_versions"])  # type: ignore[arg-type]
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
        found = await stand.saver.aget_tuple(_thread(name))
        times.append(time.perf_counter() - begin)
        assert found is not None
        assert found.config == config
    return {"get_tuple, ms": 1000 * median(times)}


async def insert_row(stand: Stand, options: Options, round_no: int) -> list[float]:
    """The milliseconds of single-row inserts, each prepared and committed by itself."""
    await stand.conn.execute(
        "create table if not exists floor (round int, call int, payload bytea, primary key"
        " (round, call))"
    )
    await stand.conn.execute("delete from floor where round = $1", round_no)
    insert = await stand.conn.prepare("insert into floor values ($1, $2, $3)")
    payload, times = random.Random(round_no).randbytes(300), []
    for call in range(options.calls):
        begin = time.perf_counter()
        await insert.fetch(round_no, call, payload)
        times.append(1000 * (time.perf_counter() - begin))
    return times


async def put_floor(stand: Stand, options: Options, round_no: int) -> Readings:
    return {"put, ms": median(await insert_row(stand, options, round_no))}


async def put_writes_floor(stand: Stand, options: Options, round_no: int) -> Readings:
    return {"put_writes, ms": median(await insert_row(stand, options, round_no))}


def _thread(name: str) -> RunnableConfig:
    return {"configurable": {"thread_id": name, "checkpoint_ns": ""}}


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
    return await saver.aput(_thread(name), checkpoint, metadata, checkpoint["channel_versions"])


# Work of many calls: conversations


async def chat(stand: Stand, options: Options, round_no: int) -> Readings:
    """One conversation: its time, its size, and the reading of all of its history."""
    name, graph = f"chat {round_no}", new_graph(stand.saver)
    bytes_before, wal_before = await stand.table_bytes(), await stand.wal_position()
    times = await converse(graph, name, options.turns)
    wal_bytes = await stand.wal_position() - wal_before
    table_bytes = await stand.table_bytes() - bytes_before
    begin = time.perf_counter()
    snapshots = [snapshot async for snapshot in graph.aget_state_history(_thread(name))]
    history_seconds = time.perf_counter() - begin
    messages = snapshots[0].values["messages"]
    assert len(messages) == 4 * options.turns, "the chat lost messages"
    assert len(snapshots) == 5 * options.turns, "the history lost checkpoints"
    tenth = max(1, options.turns // 10)
    return {
        "chat, s": sum(times),
        "chat, ms per turn in the first tenth": 1000 * fmean(times[:tenth]),
        "chat, ms per turn in the last tenth": 1000 * fmean(times[-tenth:]),
        "chat, KB of text": sum(len(m.content) for m in messages) / _KB,
        "chat, KB of tables": table_bytes / _KB,
        "chat, KB of WAL": wal_bytes / _KB,
        "chat, s to read its history": history_seconds,
    }


async def chat_floor(stand: Stand, options: Options, round_no: int) -> Readings:
    """The conversation alone. Memory decodes its history anew, so that is no floor."""
    name = f"chat {round_no}"
    times = await converse(new_graph(stand.saver), name, options.turns)
    await stand.saver.adelete_thread(name)
    return {"chat, s": sum(times)}


async def crowd(stand: Stand, options: Options, round_no: int) -> Readings:
    """Conversations at once."""
    names = [f"crowd {round_no} {place}" for place in range(options.crowd)]
    graph, turns = new_graph(stand.saver), options.crowd_turns
    begin = time.perf_counter()
    await asyncio.gather(*(converse(graph, name, turns) for name in names))
    seconds = time.perf_counter() - begin
    return {"crowd, ms per turn": 1000 * seconds / (turns * len(names))}


async def converse(graph: Any, name: str, turns: int) -> list[float]:
    """The seconds of each turn; the conversation follows from its name alone."""
    texts, times = random.Random(name), []
    for _ in range(turns):
        question = {"messages": [HumanMessage(_text(texts, 5, 40))]}
        begin = time.perf_counter()
        await graph.ainvoke(question, _thread(name))
        times.append(time.perf_counter() - begin)
    return times


def new_graph(saver: Saver) -> Any:
    """A model that calls a tool and then answers, at every turn."""
    workflow = StateGraph(MessagesState)
    workflow.add_node("model", _model)
    workflow.add_node("tools", _tools)
    workflow.add_edge(START, "model")
    workflow.add_conditional_edges("model", _next_node, ["tools", END])
    workflow.add_edge("tools", "model")
    return workflow.compile(checkpointer=saver)


def _model(state: MessagesState) -> dict[str, Any]:
    last = state["messages"][-1]
    texts = random.Random(str(last.content))
    if isinstance(last, ToolMessage):
        return {"messages": [AIMessage(_text(texts, 20, 150))]}
    arguments = {"query": _text(texts, 2, 8), "limit": texts.randint(1, 20)}
    call = {"name": "search", "args": arguments, "id": f"call_{texts.getrandbits(64):x}"}
    return {"messages": [AIMessage("", tool_calls=[call])]}


def _tools(state: MessagesState) -> dict[str, Any]:
    (call,) = state["messages"][-1].tool_calls  # type: ignore[union-attr]
    found = _text(random.Random(call["args"]["query"]), 20, 200)
    return {"messages": [ToolMessage(found, tool_call_id=call["id"])]}


def _next_node(state: MessagesState) -> str:
    return "tools" if state["messages"][-1].tool_calls else END  # type: ignore[union-attr]


def _vocabulary() -> list[str]:
    rng = random.Random(1)
    return ["".join(rng.choices("etaoinshrdlucmfwyp", k=rng.randint(2, 10))) for _ in range(4000)]


_WORDS = _vocabulary()


def _text(rng: random.Random, fewest: int, most: int) -> str:
    return " ".join(rng.choices(_WORDS, k=rng.randint(fewest, most)))


WORKLOADS = (
    Workload(run=put, floor=put_floor, times_rounds=5),
    Workload(run=put_writes, floor=put_writes_floor, times_rounds=5),
    Workload(run=get_tuple, times_rounds=5),
    Workload(run=chat, floor=chat_floor),
    Workload(run=crowd, floor=crowd),
)


# Rounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was measured, round by round. `ratio` is the median of reference over ours."""

    measure: str
    ours: list[float]
    reference: list[float]
    floor: list[float]

    @property
    def ratio(self) -> float | None:
        """None where nothing was measured, as the growth of tables by a tiny chat."""
        pairs = zip(self.reference, self.ours, strict=True)
        ratios = [theirs / ours for theirs, ours in pairs if ours > 0]
        return median(ratios) if ratios else None


async def compare(dsn: str, options: Options) -> tuple[dict[str, str], list[Result]]:
    """The environment, and the results in the order of the workloads."""
    async with AsyncExitStack() as stack:
        stands = [await stack.enter_async_context(_stand(dsn, c)) for c in (*CONTENDERS, FLOOR)]
        small = replace(options, turns=min(options.turns, 3), calls=min(options.calls, 20))
        for workload in WORKLOADS:
            await _round(workload, stands, small, -1)
        results: list[Result] = []
        for workload in WORKLOADS:
            numbers = range(options.rounds * workload.times_rounds)
            results += _results([await _round(workload, stands, options, n) for n in numbers])
        return await _environment(stands[0].conn), results


async def _round(
    workload: Workload, stands: list[Stand], options: Options, round_no: int
) -> dict[str, Readings]:
    found: dict[str, Readings] = {}
    for stand in stands:
        run = workload.floor if stand.contender is FLOOR else workload.run
        gc.collect()
        found[stand.contender.name] = await run(stand, options, round_no) if run else {}
    return found


def _results(rounds: list[dict[str, Readings]]) -> Iterator[Result]:
    for measure in rounds[0][OURS.name]:
        yield Result(
            measure=measure,
            ours=[r[OURS.name][measure] for r in rounds],
            reference=[r[REFERENCE.name][measure] for r in rounds],
            floor=[r[FLOOR.name][measure] for r in rounds if measure in r[FLOOR.name]],
        )


@asynccontextmanager
async def _stand(server_dsn: str, contender: Contender) -> AsyncIterator[Stand]:
    """The contender at work in a database that exists for as long."""
    name = f"pgsaga_bench_{os.getpid()}_{contender.name}"
    dsn = urlunsplit(urlsplit(server_dsn)._replace(path=f"/{name}"))
    admin = await asyncpg.connect(server_dsn)
    try:
        await admin.execute(f'create database "{name}"')
        try:
            async with contender.open_saver(dsn) as saver:
                conn = await asyncpg.connect(dsn)
                yield Stand(contender=contender, saver=saver, conn=conn)
                await conn.close()
        finally:
            await admin.execute(f'drop database "{name}" with (force)')
    finally:
        await admin.close()


async def _environment(conn: asyncpg.Connection[asyncpg.Record]) -> dict[str, str]:
    settings = {name: await conn.fetchval("select current_setting($1)", name) for name in _SETTINGS}
    return {
        "langgraph-pgsaga": version("langgraph-pgsaga"),
        **{package: version(package) for package in _PACKAGES},
        "pipeline of libpq": "yes" if Capabilities().has_pipeline() else "no",
        "python": platform.python_version(),
        "cores": str(os.cpu_count()),
        **settings,
    }


# The command


def shown(environment: dict[str, str], options: Options, results: list[Result]) -> str:
    """The table and what it was measured with."""
    lines = [f"{'':<38}{OURS.name:>10}{REFERENCE.name:>11}{'ratio':>8}{FLOOR.name:>9}"]
    for result in results:
        ours, reference, floor = map(_middle, (result.ours, result.reference, result.floor))
        ratio = _number(result.ratio)
        lines.append(f"{result.measure:<38}{ours:>10}{reference:>11}{ratio:>8}{floor:>9}")
    work = (
        f"{options.rounds} rounds of 5 times {options.calls} calls, a chat of {options.turns} turns"
        f" and a crowd of {options.crowd} chats of {options.crowd_turns}"
    )
    legend = "Medians. Ratio: the median of each round's reference/pgsaga, so more is better."
    details = "\n".join(f"  {name}: {value}" for name, value in environment.items())
    return "\n".join([*lines, "", legend, work, details])


def _middle(readings: list[float]) -> str:
    return _number(median(readings) if readings else None)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _json(environment: dict[str, str], options: Options, results: list[Result]) -> str:
    found = [{**asdict(result), "ratio": result.ratio} for result in results]
    whole = {"environment": environment, "options": asdict(options), "results": found}
    return json.dumps(whole, indent=2) + "\n"


@contextmanager
def _server(dsn: str | None) -> Iterator[str]:
    """The DSN of the server to use: the one given, else a new one of our own."""
    if dsn is not None:
        yield dsn
        return
    folder = Path(tempfile.mkdtemp(prefix="pgsaga-bench-"))
    try:
        folder.chmod(0o755)  # run by root, the server is another user's
        with EmbeddedServer.start(folder / "server") as server:
            yield server.dsn
    finally:
        shutil.rmtree(folder)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} isn't above zero")
    return number


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--turns", type=_positive, default=100, help="of the chat (100)")
    parser.add_argument("--rounds", type=_positive, default=5, help="of every workload (5)")
    parser.add_argument("--crowd", type=_positive, default=20, help="chats at once (20)")
    parser.add_argument(
        "--calls",
        type=_positive,
        default=40,
        help="of put and the like in each of five times the rounds (40)",
    )
    parser.add_argument(
        "--dsn", help="a URL of a server to make databases on (a new embedded one, fsync on)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="every round's readings")
    return parser.parse_args()


def main() -> int:
    given = _arguments()
    options = Options(turns=given.turns, rounds=given.rounds, crowd=given.crowd, calls=given.calls)
    gc.freeze()  # what was imported needn't be looked through between the rounds
    with _server(given.dsn) as dsn:
        environment, results = asyncio.run(compare(dsn, options))
    print(shown(environment, options, results))
    if given.json is not None:
        given.json.write_text(_json(environment, options, results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
