"""The rules of leases as a small model, and every way through it taken against a real server.

The model is the table of `checkpoint/lease.py` in a few lines. All its states that a few events
lead to are enumerated, and in each of them every event is tried: what the code answers, and how
the session's row stands then, has to be what the model says.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from langchain_core.runnables import RunnableConfig

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga._langgraph import run_key
from langgraph_pgsaga.checkpoint.lease_block import LeaseBlock
from langgraph_pgsaga.errors import LeaseLostError, ThreadLeasedError
from langgraph_pgsaga.threads import session_id_of
from tests._limits import HANG_SECONDS
from tests.db._puts import checkpoint_of, config_of

pytestmark = pytest.mark.anyio

# The first two are runs of a saver with single_writer, the third is a block.
RUNS = ("a", "b")
BLOCK = "x"
EVENTS = (
    *(
        f"{run} {what}"
        for run in RUNS
        for what in ("begins", "writes", "joins", "ends", "is cancelled")
    ),
    *(
        f"{BLOCK} {what}"
        for what in ("begins", "writes", "nests", "renews", "ends", "is inherited")
    ),
    "somebody writes",
    "time passes",
)
# Paths of six events are three times as many.
DEPTH = 6 if os.environ.get("PGSAGA_FULL") == "1" else 5
AT_ONCE = 100
# No lease ends or is renewed by itself, however long a way takes on a busy machine.
LEASE_SECONDS = 86_400.0


# The model


@dataclass(frozen=True)
class Party:
    """A run, or the block: how its lease looks to its own process.

    `found` is who had written last when it began, and how many checkpoints there were.
    """

    has_begun: bool = False
    is_gone: bool = False
    found: tuple[str | None, int] | None = None
    is_claimed: bool = False
    is_superseding: bool = False
    is_inherited: bool = False


@dataclass(frozen=True)
class Model:
    """The session's row, and those who write. `time` is the lease's: none, running or over."""

    holder: str | None = None
    time: str = "none"
    count: int = 0
    parties: tuple[Party, ...] = (Party(), Party(), Party())

    @property
    def row(self) -> tuple[str | None, str, int]:
        return self.holder, self.time, self.count

    def of(self, name: str) -> Party:
        return self.parties["abx".index(name)]

    def but(self, name: str, **changes: Any) -> Model:
        parties = [
            dataclasses.replace(party, **changes) if letter == name else party
            for letter, party in zip("abx", self.parties, strict=True)
        ]
        return dataclasses.replace(self, parties=tuple(parties))

    def stored(self, holder: str | None, time: str) -> Model:
        return dataclasses.replace(self, holder=holder, time=time, count=self.count + 1)

    def refusal(self, name: str | None) -> str | None:
        """Why somebody may not write; None is who knows of no leases."""
        party = None if name is None else self.of(name)
        if party and party.is_inherited:
            party = name = None
        if name is not None and self.holder == name:
            return None
        if party and party.is_claimed:
            return "lost"
        supersedes = party and party.is_superseding and party.found == (self.holder, self.count)
        if self.time == "running" and not supersedes:
            return "leased"
        if party and name != BLOCK and party.found != (self.holder, self.count):
            return "lost"
        return None

    def can(self, event: str) -> bool:
        """Whether it makes sense here."""
        name, _, what = event.partition(" ")
        if name == "time":
            return self.time == "running"
        if name == "somebody":
            return True
        party = self.of(name)
        if what == "begins":
            # What one of the runs can do, the other could in its place.
            return not party.has_begun and (name != "b" or self.of("a").has_begun)
        return (
            party.has_begun
            and not party.is_gone
            and not (party.is_inherited and what in ("is inherited", "nests"))
        )

    def after(self, event: str) -> tuple[Model, str | None]:
        """The next state, and why the call was refused, if it was."""
        name, _, what = event.partition(" ")
        if name == "time":
            return dataclasses.replace(self, time="over"), None
        if name == "somebody":
            refused = self.refusal(None)
            return (self if refused else self.stored(None, "none")), refused
        if name == BLOCK:
            return self._after_block(what)
        return self._after_run(name, what)

    def _after_run(self, name: str, what: str) -> tuple[Model, str | None]:
        if what == "begins":
            found = (self.holder, self.count)
            is_superseding = self.holder in RUNS and self.of(self.holder or "").is_gone
            return self.but(name, has_begun=True, found=found, is_superseding=is_superseding), None
        if what == "is cancelled":
            return self.but(name, is_gone=True), None
        if refused := self.refusal(name):
            return self, refused
        stored = self.stored(name, "none" if what == "ends" else "running")
        # Of what joined a transaction the process remembers nothing.
        return (stored if what == "joins" else stored.but(name, is_claimed=True)), None

    def _after_block(self, what: str) -> tuple[Model, str | None]:
        is_held = self.holder == BLOCK and not self.of(BLOCK).is_inherited
        if what == "begins":
            if self.time == "running":
                return self, "leased"
            taken = dataclasses.replace(self, holder=BLOCK, time="running")
            return taken.but(BLOCK, has_begun=True, is_claimed=True), None
        if what == "nests":
            return self, None
        if what == "is inherited":
            return self.but(BLOCK, is_inherited=True), None
        if what == "renews":
            return (dataclasses.replace(self, time="running") if is_held else self), None
        if what == "ends":
            left = dataclasses.replace(self, holder=None, time="none") if is_held else self
            return left.but(BLOCK, is_gone=True), None
        if refused := self.refusal(BLOCK):
            return self, refused
        return (self.stored(BLOCK, "running") if is_held else self.stored(None, "none")), None

    @property
    def key(self) -> Any:
        """What tells it from other states: of numbers, only whether they are still the same."""
        now = (self.holder, self.count)
        parties = [
            dataclasses.replace(party, found=("as found", 0) if party.found == now else None)
            for party in self.parties
        ]
        founds = [party.found and party.found[0] for party in self.parties]
        return self.holder, self.time, tuple(parties), tuple(founds)


def ways() -> list[tuple[str, ...]]:
    """The shortest way to each state within the depth, and from each of them by every event;
    those that others go on from are left out."""
    seen, found = {Model().key: ()}, set()
    waiting: deque[tuple[Model, tuple[str, ...]]] = deque([(Model(), ())])
    while waiting:
        state, way = waiting.popleft()
        for event in (event for event in EVENTS if state.can(event)):
            following, _ = state.after(event)
            found.add((*way, event))
            if following.key not in seen and len(way) + 1 < DEPTH:
                seen[following.key] = ()
                waiting.append((following, (*way, event)))
    prefixes = {way[:length] for way in found for length in range(len(way))}
    return sorted(found - prefixes)


# The code


class Actor:
    """A task, in whose context a run or a block makes its calls."""

    def __init__(self) -> None:
        self._calls: asyncio.Queue[tuple[Callable[[], Awaitable[Any]], Any]] = asyncio.Queue()
        self._task = asyncio.ensure_future(self._go())

    async def _go(self) -> None:
        while True:
            call, done = await self._calls.get()
            try:
                done.set_result(await call())
            except Exception as error:
                done.set_exception(error)

    async def do(self, call: Callable[[], Awaitable[Any]]) -> Any:
        done = asyncio.get_running_loop().create_future()
        await self._calls.put((call, done))
        return await asyncio.wait_for(done, HANG_SECONDS)

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


@dataclass
class Savers:
    runs: PostgresSaver
    blocks: PostgresSaver
    plain: PostgresSaver
    conn: asyncpg.Pool[asyncpg.Record]
    seen: set[tuple[str, ...]] = field(default_factory=set)


@dataclass
class Real:
    """One thread, and who writes to it."""

    savers: Savers
    thread_id: str
    actors: dict[str, Actor] = field(default_factory=dict)
    configs: dict[str, RunnableConfig] = field(default_factory=dict)
    lease_ids: dict[Any, str] = field(default_factory=dict)
    block: LeaseBlock | None = None

    async def run(self, event: str) -> str | None:
        """Why it was refused, if it was."""
        name, _, what = event.partition(" ")
        call = {"time": self.time_passes, "somebody": self.somebody_writes}.get(name)
        if call is None:
            method = "block_" if name == BLOCK else "run_"
            call = getattr(self, method + what.replace(" ", "_"))
            if what == "begins":
                self.actors.setdefault(name, Actor())
        actor = self.actors.get(name) or Actor()
        try:
            if what in ("is cancelled", "is inherited"):
                await call(name)
            else:
                await actor.do(lambda: call(name))
        except ThreadLeasedError:
            return "leased"
        except LeaseLostError:
            return "lost"
        finally:
            if name not in self.actors:
                await actor.end()
        return None

    async def put(
        self, saver: PostgresSaver, config: RunnableConfig, *, is_last: bool, conn: Any = None
    ) -> RunnableConfig:
        checkpoint = checkpoint_of(saver, {"__start__": None, "branch:to:n": None})
        checkpoint["channel_values"] = {} if is_last else {"branch:to:n": None}
        metadata: Any = {"source": "loop", "step": 1}
        versions = checkpoint["channel_versions"]
        stored = await saver.aput(config, checkpoint, metadata, versions, conn=conn)
        return {"configurable": {**config["configurable"], **stored["configurable"]}}

    async def run_begins(self, name: str) -> None:
        runtime = SimpleNamespace(control=object())
        config = config_of(self.thread_id, __pregel_runtime=runtime)
        found = await self.savers.runs.aget_tuple(config)
        own = found.config["configurable"] if found else {}
        held = self.savers.runs._leases._lease_of(session_id_of(self.thread_id), run_key(config))
        assert held is not None
        self.lease_ids[held.lease_id] = name
        self.configs[name] = {"configurable": {**config["configurable"], **own}}

    async def run_writes(self, name: str, *, is_last: bool = False, conn: Any = None) -> None:
        config = self.configs[name]
        self.configs[name] = await self.put(self.savers.runs, config, is_last=is_last, conn=conn)

    async def run_ends(self, name: str) -> None:
        await self.run_writes(name, is_last=True)

    async def run_joins(self, name: str) -> None:
        async with self.savers.runs.db.transaction() as conn:
            await self.run_writes(name, conn=conn)

    async def run_is_cancelled(self, name: str) -> None:
        await self.actors[name].end()

    async def block_begins(self, name: str) -> None:
        self.block = self.savers.blocks.lease(self.thread_id, seconds=LEASE_SECONDS)
        await self.block.__aenter__()
        assert self.block._lease is not None
        self.lease_ids[self.block._lease.lease_id] = name

    async def block_writes(self, _: str) -> None:
        assert self.block is not None
        assert self.block._lease is not None
        found = await self.savers.blocks.aget_tuple(config_of(self.thread_id))
        config = config_of(self.thread_id) if found is None else found.config
        await self.put(self.savers.blocks, config, is_last=False)

    async def block_nests(self, _: str) -> None:
        async with self.savers.blocks.lease(self.thread_id, wait_seconds=HANG_SECONDS):
            pass

    async def block_renews(self, _: str) -> None:
        assert self.block is not None
        assert self.block._lease is not None
        if not self.block._lease.is_inherited:  # the parent's aren't renewed
            await self.savers.blocks._renewals._renew([self.block._lease])

    async def block_ends(self, _: str) -> None:
        assert self.block is not None
        await self.block.__aexit__()

    async def block_is_inherited(self, _: str) -> None:
        assert self.block is not None
        assert self.block._lease is not None
        self.block._lease.process = object()  # as in a forked child

    async def somebody_writes(self, _: str) -> None:
        found = await self.savers.plain.aget_tuple(config_of(self.thread_id))
        config = config_of(self.thread_id) if found is None else found.config
        await self.put(self.savers.plain, config, is_last=False)

    async def time_passes(self, _: str) -> None:
        ends = "update agent_sessions set lease_expires_at = now() where thread_id = $1"
        await self.savers.conn.execute(ends, self.thread_id)

    async def row(self, *, is_looked_at: bool) -> tuple[str | None, str, int] | None:
        """Who has the lease, whether it runs, and how many checkpoints there are."""
        if not is_looked_at:
            return None
        found = await self.savers.conn.fetchrow(
            "select s.lease_id, case when s.lease_expires_at is null then 'none'"
            " when s.lease_expires_at > now() then 'running' else 'over' end,"
            " (select count(*) from agent_states a where a.session_id = s.session_id)"
            " from agent_sessions s where s.thread_id = $1",
            self.thread_id,
        )
        if found is None:
            return None, "none", 0
        lease_id, time, count = found
        return self.lease_ids.get(lease_id), time, count

    async def is_one_line(self) -> bool:
        """Whether each checkpoint has one that follows it, at most."""
        return not await self.savers.conn.fetchval(
            "select exists (select from agent_states a join agent_sessions s using (session_id)"
            " where s.thread_id = $1 group by a.parent_checkpoint_id having count(*) > 1)",
            self.thread_id,
        )


async def take(savers: Savers, way: tuple[str, ...], number: int) -> list[str]:
    """What differs from the model on this way."""
    model, real = Model(), Real(savers, f"thread {number}")
    wrong: list[str] = []
    for place, event in enumerate(way):
        model, expected = model.after(event)
        here = way[: place + 1]
        answer = await real.run(event), await real.row(is_looked_at=here not in savers.seen)
        savers.seen.add(here)  # other ways begin with the same events
        if answer[0] != expected or answer[1] not in (None, model.row):
            wrong.append(f"{here}: {answer}; the model says {expected}, {model}")
            break
    if not await real.is_one_line():
        wrong.append(f"{way}: two checkpoints follow one")
    for actor in real.actors.values():
        await actor.end()
    return wrong


async def test_every_event_in_every_state_does_what_the_table_says(dsn: str) -> None:
    """Of two runs, a block and somebody without leases, in whatever order: who may write, who has
    the lease then, and that no two runs go on from one checkpoint."""
    found = ways()
    left = asyncio.Semaphore(AT_ONCE)
    async with (
        PostgresSaver.from_conn_string(
            dsn, single_writer=True, lease_seconds=LEASE_SECONDS
        ) as runs,
        PostgresSaver.from_conn_string(dsn) as blocks,
        PostgresSaver.from_conn_string(dsn) as plain,
        asyncpg.create_pool(dsn, max_size=10) as conn,
    ):
        savers = Savers(runs, blocks, plain, conn)

        async def taken(way: tuple[str, ...], number: int) -> list[str]:
            async with left:
                return await take(savers, way, number)

        wrong = await asyncio.gather(*(taken(way, number) for number, way in enumerate(found)))
    assert [one for some in wrong for one in some][:5] == []
