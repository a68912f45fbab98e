"""Any number of losses, in any order with what two or three processes do with two threads.

Here the rows are put back to how they were, so that thousands of losses take no longer than
thousands of calls; test_lost_commits puts whole databases back.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple, empty_checkpoint

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga._langgraph import _RUNTIME
from langgraph_pgsaga.errors import (
    CheckpointDeletedError,
    ThreadDeletedError,
    ThreadExistsError,
)

pytestmark = pytest.mark.anyio

_FULL = os.environ.get("PGSAGA_FULL") == "1"
_SEEDS = range(200) if _FULL else range(3)
_STEPS = 150 if _FULL else 50
_TABLES = (
    "agent_sessions",
    "agent_states",
    "agent_state_values",
    "agent_state_blobs",
    "agent_state_writes",
    "agent_messages",
)
_LOST = (CheckpointDeletedError, ThreadDeletedError)
Op = Callable[[], Awaitable[None]]


def document_of(no: int) -> str:
    """A value that is stored as a blob."""
    return f"{no} " * 1_500


def message_of(no: int) -> BaseMessage:
    return AIMessage(f"text {no}", id=f"m{no}")


class Rewound:
    """The tables of a database, which can be put back to how they were."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def __aenter__(self) -> Rewound:
        self._lock = asyncio.Lock()
        self._conn = await asyncpg.connect(self._dsn)
        await self._conn.execute("create schema kept")
        for table in _TABLES:
            await self._conn.execute(f"create table kept.{table} (like public.{table})")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._conn.close()

    async def keep(self) -> None:
        await self._move("public", "kept")

    async def lose(self) -> None:
        await self._move("kept", "public")

    async def _move(self, source: str, target: str) -> None:
        async with self._lock:
            while True:
                with suppress(asyncpg.DeadlockDetectedError):
                    return await self._move_once(source, target)

    async def _move_once(self, source: str, target: str) -> None:
        async with self._conn.transaction():
            # Nothing is written, or half read, meanwhile.
            names = ", ".join(f"public.{table}" for table in _TABLES)
            await self._conn.execute(f"lock table {names} in access exclusive mode")
            for table in _TABLES:
                await self._conn.execute(f"delete from {target}.{table}")
                await self._conn.execute(
                    f"insert into {target}.{table} select * from {source}.{table}"
                )


@dataclass(slots=True)
class Run:
    """A graph's run, or an update of a state: where it is."""

    thread: str
    found: CheckpointTuple | None
    # What LangGraph has in the configs of a run; an update has none.
    runtime: SimpleNamespace | None

    @property
    def config(self) -> RunnableConfig:
        config = config_of(self.thread) if self.found is None else self.found.config
        if self.runtime is None:
            return config
        return {"configurable": {**config["configurable"], _RUNTIME: self.runtime}}


@dataclass(slots=True)
class Process:
    """A saver with what it remembers, and its runs by thread."""

    saver: PostgresSaver
    at: dict[str, Run] = field(default_factory=dict)


class Model:
    """Random calls, and what must be so after each."""

    def __init__(self, processes: list[Process], server: Rewound, seed: int) -> None:
        self.random = random.Random(seed)
        self.processes = processes
        self.server = server
        # By checkpoint: what was put; by task: what was written.
        self.put: dict[str, dict[str, Any]] = {}
        self.written: dict[tuple[str, str], list[tuple[str, Any]]] = {}
        self.threads = ["s", "t"]
        self.log: list[str] = []

    def place(self) -> tuple[Process, str]:
        return self.random.choice(self.processes), self.random.choice(self.threads)

    def name(self, process: Process) -> str:
        return "ABC"[self.processes.index(process)]

    async def step(self) -> None:
        ops: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (10, self.load),
            (22, self.go_on),
            (14, self.write),
            (3, self.list_thread),
            (3, self.load_older),
            (6, self.server_keeps),
            (6, self.server_loses),
            (1, self.prune),
            (2, self.delete_run),
            (1, self.delete_thread),
            (2, self.in_transaction),
            (2, self.copy),
            (2, self.put_again),
            (4, self.at_once),
        ]
        (op,) = self.random.choices([op for _, op in ops], [weight for weight, _ in ops])
        async with asyncio.timeout(20):
            await op()

    async def server_keeps(self) -> None:
        self.log.append("keep")
        await self.server.keep()

    async def server_loses(self) -> None:
        self.log.append("lose")
        await self.server.lose()

    async def at_once(self) -> None:
        self.log.append("at once:")
        ops = [self.load, self.go_on, self.write, self.go_on, self.write, self.list_thread]
        chosen: list[Op] = self.random.choices(ops, k=self.random.choice((2, 3)))
        if self.random.random() < 0.4:
            chosen.append(self.server_loses)
        await asyncio.gather(*(op() for op in chosen))
        self.log.append(".")

    async def load(self) -> None:
        process, thread = self.place()
        await self._begin(process, thread, config_of(thread))

    async def _begin(self, process: Process, thread: str, config: RunnableConfig) -> Run:
        runtime = SimpleNamespace(control=object()) if self.random.random() < 0.8 else None
        asked: RunnableConfig = {"configurable": {**config["configurable"]}}
        if runtime is not None:
            asked["configurable"][_RUNTIME] = runtime
        found = await process.saver.aget_tuple(asked)
        self.log.append(f"{self.name(process)} begins {thread}: {id_of(found)}")
        self.compare(found)
        run = Run(thread, found, runtime)
        if runtime is None:
            process.at.pop(thread, None)
        else:
            process.at[thread] = run
        return run

    async def load_older(self) -> None:
        process, thread = self.place()
        listed = [one async for one in process.saver.anew().alist(config_of(thread))]
        if listed:
            await self._begin(process, thread, self.random.choice(listed).config)

    async def list_thread(self) -> None:
        process, thread = self.place()
        self.log.append(f"{self.name(process)} list {thread}")
        async for found in process.saver.alist(config_of(thread)):
            self.compare(found)

    async def go_on(self) -> None:
        process, thread = self.place()
        await self._go_on(process, thread)

    async def _go_on(self, process: Process, thread: str, **options: Any) -> None:
        run = process.at.get(thread) or await self._begin(process, thread, config_of(thread))
        await self._put(process, run, *self.next_of(process, run.found), **options)

    async def _put(
        self, process: Process, run: Run, put: Any, versions: Any, **options: Any
    ) -> None:
        name = put["id"][4:18]
        self.log.append(f"{self.name(process)} put {run.thread}: {name} below {id_of(run.found)}")
        self.put[put["id"]] = dict(put["channel_values"])
        metadata: Any = {"source": "loop", "step": 1, "parents": {}}
        config: RunnableConfig = {
            **run.config,
            "metadata": {"run_id": f"r{self.random.randrange(4)}"},
        }
        sent = put
        if run.runtime is not None and self.random.random() < 0.2:
            sent = {**put, "channel_values": {c: put["channel_values"][c] for c in versions}}
        try:
            stored = await process.saver.aput(config, sent, metadata, versions, **options)
        except _LOST as error:
            self.log.append(f"  {name}: {type(error).__name__}")
            if process.at.get(run.thread) is run:
                process.at.pop(run.thread, None)
            return
        except BaseException as error:
            self.log.append(f"  {name}: {type(error).__name__} {error}")
            raise
        self.log.append(f"  {name} stored")
        configurable = {k: v for k, v in stored["configurable"].items() if k != _RUNTIME}
        place: RunnableConfig = {"configurable": configurable}
        run.found = CheckpointTuple(place, put, metadata, None)

    def next_of(
        self, process: Process, before: CheckpointTuple | None
    ) -> tuple[Any, dict[str, Any]]:
        """The checkpoint after one, and the versions that are new in it."""
        put: Any = empty_checkpoint()
        put["v"] = 4
        values: dict[str, Any] = {}
        versions: dict[str, Any] = {}
        if before is not None:
            values = dict(before.checkpoint["channel_values"])
            versions = dict(before.checkpoint["channel_versions"])
        new = {}
        channels = ["messages", "document", "big", "small"]
        chosen = self.random.sample(channels, self.random.randint(1, 4)) if before else channels
        for channel in chosen:
            values[channel] = self.value_of(channel, values.get(channel))
            current = versions.get(channel)
            new[channel] = process.saver.get_next_version(current, None)
        put["channel_values"] = values
        put["channel_versions"] = {**versions, **new}
        return put, new

    def value_of(self, channel: str, before: Any = None) -> Any:
        draw = self.random.randrange
        if channel == "messages":
            kept = [m for m in before or () if self.random.random() < 0.9]
            have = {m.id for m in kept}
            fresh = [message_of(draw(12)) for _ in range(draw(3))]
            return kept + [m for m in fresh if m.id not in have] or [message_of(0)]
        if channel == "document":
            return document_of(draw(6))
        if channel == "big":
            return [document_of(draw(6)) for _ in range(1 + draw(4))]
        return draw(1000)

    async def write(self) -> None:
        process, thread = self.place()
        run = process.at.get(thread)
        if run is None or run.found is None:
            return
        before = run.found
        task = f"task{len(self.written)}"
        chosen = self.random.sample(["messages", "document", "big", "other"], k=2)
        values = before.checkpoint["channel_values"]
        writes = [(channel, self.value_of(channel, values.get(channel))) for channel in chosen]
        self.log.append(f"{self.name(process)} write {thread} {task} {chosen}: {id_of(before)}")
        self.written[before.checkpoint["id"], task] = writes
        try:
            await process.saver.aput_writes(run.config, writes, task)
        except _LOST as error:
            self.log.append(f"  {task}: {type(error).__name__}")
            if process.at.get(thread) is run:
                process.at.pop(thread, None)
            return
        self.log.append(f"  {task} stored")
        if self.random.random() < 0.3:
            await self.step_of_server()
        if self.random.random() < 0.7:  # as a loop does: what was written comes into the state
            put, versions = self.next_of(process, run.found)
            for channel, value in writes:
                if channel in versions:
                    put["channel_values"][channel] = value
            await self._put(process, run, put, versions)

    async def step_of_server(self) -> None:
        await self.random.choice([self.server_keeps, self.server_loses])()

    async def put_again(self) -> None:
        """A statement that is repeated after its answer was lost."""
        process, thread = self.place()
        fetch = process.saver.db.fetch
        done: list[bool] = []

        async def twice(statement: Any, *args: Any, **options: Any) -> Any:
            if done or not getattr(statement, "name", "").startswith("write_"):
                return await fetch(statement, *args, **options)
            done.append(True)
            await fetch(statement, *args, **options)
            if self.random.random() < 0.6:
                other = self.random.choice([p for p in self.processes if p is not process])
                ops: list[Op] = [
                    lambda: self._go_on(other, thread),
                    self.load,
                    self.server_keeps,
                    self.server_loses,
                ]
                await self.random.choice(ops)()
            return await fetch(statement, *args, **options)

        self.log.append(f"{self.name(process)} repeats {thread}")
        process.saver.db.fetch = twice  # type: ignore[method-assign]
        try:
            await self._go_on(process, thread)
        finally:
            process.saver.db.fetch = fetch  # type: ignore[method-assign]

    async def in_transaction(self) -> None:
        process, thread = self.place()
        is_kept = self.random.random() < 0.5
        self.log.append(f"transaction, kept: {is_kept}")
        run = process.at.get(thread) or await self._begin(process, thread, config_of(thread))
        with suppress(ZeroDivisionError):
            async with process.saver.db.transaction() as conn:
                await self._put(process, run, *self.next_of(process, run.found), conn=conn)
                if not is_kept:
                    raise ZeroDivisionError
        process.at.pop(thread, None)  # whoever goes on reads what became of it

    async def prune(self) -> None:
        process, thread = self.place()
        self.log.append(f"{self.name(process)} prune {thread}")
        await process.saver.aprune([thread])

    async def delete_run(self) -> None:
        process, _ = self.place()
        run = f"r{self.random.randrange(4)}"
        self.log.append(f"{self.name(process)} delete {run}")
        await process.saver.adelete_for_runs([run])

    async def delete_thread(self) -> None:
        process, thread = self.place()
        self.log.append(f"{self.name(process)} delete {thread}")
        await process.saver.adelete_thread(thread)

    async def copy(self) -> None:
        process, thread = self.place()
        other = "t" if thread == "s" else "s"
        if self.random.random() < 0.5:
            await process.saver.adelete_thread(other)
        self.log.append(f"{self.name(process)} copy {thread}")
        try:
            await process.saver.acopy_thread(thread, other)
        except ThreadExistsError:
            self.log.append("  exists")

    def compare(self, found: CheckpointTuple | None) -> None:
        """What is loaded is what was put."""
        if found is None:
            return
        checkpoint_id = found.checkpoint["id"]
        assert found.checkpoint["channel_values"] == self.put[checkpoint_id], checkpoint_id
        tasks: dict[str, list[tuple[str, Any]]] = {}
        for task, channel, value in found.pending_writes or ():
            tasks.setdefault(task, []).append((channel, value))
        for task, writes in tasks.items():
            assert writes == self.written[checkpoint_id, task]

    async def check(self) -> None:
        """Everybody sees what a new process sees."""
        anew = self.processes[0].saver.anew()
        for thread in self.threads:
            latest = await anew.aget_tuple(config_of(thread))
            async for listed in anew.alist(config_of(thread)):
                self.compare(listed)
            if self.random.random() < 0.2:
                for process in self.processes:
                    found = await process.saver.aget_tuple(config_of(thread))
                    self.compare(found)
                    assert id_of(found) == id_of(latest)


def config_of(thread: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}


def id_of(found: CheckpointTuple | None) -> str | None:
    return None if found is None else found.checkpoint["id"][4:18]


@pytest.mark.parametrize("seed", _SEEDS)
async def test_what_is_left_can_be_loaded(dsn: str, seed: int) -> None:
    """By everybody, and is what was put."""
    savers = [PostgresSaver.from_conn_string(dsn, max_size=4) for _ in range(2 + seed % 2)]
    async with Rewound(dsn) as server:
        model = Model([Process(saver) for saver in savers], server, seed)
        try:
            for _ in range(_STEPS):
                await model.step()
                await model.check()
        except BaseException as error:
            error.add_note("\n".join([f"seed {seed}", *model.log[-60:]]))
            raise
        finally:
            for saver in savers:
                await saver.aclose()
