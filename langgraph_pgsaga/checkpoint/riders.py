"""What is stored with the steps of a saver's runs: which call it goes with, and in which order.

A step's riders come with the writes of its task (`StepMark`). They go with the call that stores
the task's result, in a transaction of its own:

- `put_writes` of the task; of a subgraph's node that left by `Command(graph=PARENT)`, of the
  task that it is in. The checkpoints below which that stands are stored before: without them
  nobody would find it.
- Under durability "exit" the last `put`, which has the results of all steps before it. Where it
  is a subgraph's, that is stopped in the middle, they wait for what makes it found. So these calls
  go one after the other: of two at once neither would see what the other makes found.

A later checkpoint has the result in it: its `put` waits for that call, and fails if it failed,
or if the server has lost it since (`ActedSteps`). So does the `put_writes` of a task whose result
may be made of it: who calls a `@task` goes on when that has ended, and a node that leaves its
subgraph takes along what others of that gave, before their calls have ended. And so does what may
have heard of the result in what it was given, a subgraph or another `@task` (`HeardSteps`).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from uuid import UUID
from weakref import WeakSet

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata, CheckpointTuple

from langgraph_pgsaga import _fork, _langgraph
from langgraph_pgsaga.checkpoint.acted_steps import ActedSteps, Sign, asking_for, signs_of
from langgraph_pgsaga.checkpoint.call_store import CallStore
from langgraph_pgsaga.checkpoint.encode import EncodedCall
from langgraph_pgsaga.checkpoint.exiting_run import ExitingRun
from langgraph_pgsaga.checkpoint.heard_steps import (
    HeardSteps,
    called_beside,
    heard_by_graph,
    heard_by_task,
    is_dropped,
)
from langgraph_pgsaga.checkpoint.run import ByRun, Remembered
from langgraph_pgsaga.checkpoint.session_cache import SessionCache
from langgraph_pgsaga.checkpoint.step_places import (
    cancelled,
    index_of_task,
    index_until,
    is_at,
    is_counted_on,
    is_of_task,
    may_be_lost,
    not_stored,
)
from langgraph_pgsaga.checkpoint.task_results import TaskResults, refusing_results
from langgraph_pgsaga.database import Database, load_statements
from langgraph_pgsaga.errors import copy_of
from langgraph_pgsaga.tenants import Tenants
from langgraph_pgsaga.threads import Address, stored_namespace
from langgraph_pgsaga.work import Level, StepMark, enter_subgraph

_STATEMENTS = load_statements("checkpoint")
_LONGEST_WAIT_SECONDS = 30.0
# From here on the server is asked, too: a checkpoint on its way is there sooner.
_OWN_PAUSE_SECONDS = 0.03
_LONGEST_PAUSE_SECONDS = 0.25
_REMEMBERED_SECONDS = 3600.0

Writes = Sequence[tuple[str, Any]]


class _Failure:
    """A call that failed: what counts on it must fail, too. `control` keeps its place in memory."""

    __slots__ = ("control", "error", "noted_at")

    def __init__(self, control: object, error: BaseException) -> None:
        self.control = control
        self.error = error
        self.noted_at = time.monotonic()

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self.noted_at + _REMEMBERED_SECONDS


class Riding(NamedTuple):
    """The steps whose riders go with a call.

    `awaited` are the tasks whose checkpoints must be stored before. `held` are steps whose
    result is stored by the call, at this level, and can't be reached yet. `counted_on` tells of
    steps before, whose results the call's checkpoint has. `turn` is to be set when the call has
    ended. `called` are steps whose calls must have ended well before.
    """

    marks: Sequence[StepMark] = ()
    awaited: Sequence[Level] = ()
    held: Sequence[tuple[StepMark, int]] = ()
    counted_on: Collection[Sign] = ()
    turn: Future[None] | None = None
    called: Sequence[StepMark] = ()


class Riders:
    """Those of one saver's runs."""

    def __init__(self, db: Database, cache: SessionCache, tenants: Tenants) -> None:
        self._db = db
        self._cache = cache
        self._tenants = tenants
        self._acted = ActedSteps()
        self._heard = HeardSteps()
        self.results = TaskResults()
        self.after_fork()
        _fork.watch(self)

    def after_fork(self) -> None:
        """Begins anew: the parent's runs aren't the child's."""
        # Until a step asks, calls aren't looked at.
        self.is_used = False
        self._acted.after_fork()
        self._heard.after_fork()
        self.results.after_fork()
        self._open: WeakSet[StepMark] = WeakSet()
        self._exiting: ByRun[ExitingRun] = ByRun()
        self._failures: Remembered[_Failure] = Remembered()
        self._lost: Remembered[_Failure] = Remembered()
        self._refusals: Remembered[_Failure] = Remembered()
        self._lock = threading.Lock()

    # What work.StepKeeper asks for

    @property
    def db(self) -> Database:
        """Where steps are stored."""
        return self._db

    def session_of(self, config: RunnableConfig) -> UUID:
        """The session of a task's config."""
        return Address.of(config, self._tenants).session_id

    def open(self, mark: StepMark) -> None:
        """A step may get riders from here on."""
        with self._lock:
            self.is_used = True
            if mark not in self._open:
                others = self._of_run(mark.control, mark.levels[0].session_id)
                mark.heard = heard_by_task(mark.called_by, others)
                self._open.add(mark)
            if not mark.is_stored_at_exit:
                return
            session_id = mark.levels[0].session_id
            run = self._exiting.get(session_id, mark.control)
            if run is None:
                run = ExitingRun(mark.control)
                self._exiting.set(session_id, run)
            if not any(mark is known for known in run.marks):
                run.marks.append(mark)
                run.noted_at = time.monotonic()

    def enter(self, address: Address, config: RunnableConfig) -> None:
        """A subgraph begins, in the context of the task that runs it."""
        above, callers = enter_subgraph(self, address.checkpoint_ns)
        run = _langgraph.run_key(config)
        if run is not None and self.is_used:
            marks = self._open_of(run.control, address.session_id)
            heard = heard_by_graph(above, callers, marks)
            self._heard.note_begun(address, run.control, heard)

    def note_read(
        self,
        address: Address,
        config: RunnableConfig,
        found: CheckpointTuple,
        *,
        is_replay: bool,
    ) -> None:
        """A graph was given this checkpoint: what has a result there, it knows."""
        if (run := _langgraph.run_key(config)) is not None:
            self.results.note_read(run.control, address, found, is_replay=is_replay)

    async def wait_until_stored(self, levels: Sequence[Level], control: object) -> None:
        """Returns when the checkpoints at which these tasks were planned are stored.

        Raises:
            StepNotStoredError: one couldn't be, or isn't after 30 s.
        """
        for level in reversed(levels):
            await self._wait(level, control)

    async def _wait(self, level: Level, control: object) -> None:
        if self._is_known(level):
            return
        deadline, pause = time.monotonic() + _LONGEST_WAIT_SECONDS, 0.001
        while not (pause > _OWN_PAUSE_SECONDS and await self._is_found(level)):
            if (refusal := self._failure(self._refusals, level, control)) is not None:
                raise _of_another(refusal)
            failure = self._failure(self._failures, level, control)
            if failure is not None or time.monotonic() > deadline:
                raise not_stored(level) from failure
            await asyncio.sleep(pause)
            if self._is_known(level):
                return
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _is_stored(self, level: Level) -> bool:
        return self._is_known(level) or await self._is_found(level)

    def _is_known(self, level: Level) -> bool:
        known = self._cache.known(level.session_id)
        key = stored_namespace(level.checkpoint_ns), level.checkpoint_id
        return known is not None and key in known.states and key not in known.doubtful

    async def _is_found(self, level: Level) -> bool:
        statement = _STATEMENTS["exists_state"].bind(
            session_id=level.session_id,
            checkpoint_ns=stored_namespace(level.checkpoint_ns),
            checkpoint_id=level.checkpoint_id,
        )
        return await self._db.fetch_one(statement) is not None

    # What goes with a call

    def of_writes(
        self,
        address: Address,
        config: RunnableConfig,
        writes: Writes,
        task_id: str,
        task_path: str,
    ) -> tuple[Writes, Riding | None]:
        """What `put_writes` stores, without marks; and what goes with it."""
        marks = [value for _, value in writes if type(value) is StepMark]
        plain = [write for write in writes if type(write[1]) is not StepMark]
        if _langgraph.has_failed(channel for channel, _ in plain):
            return self._of_failed(address, config, marks, plain, task_id), None
        has_answers_alone = all(_langgraph.is_control(channel) for channel, _ in plain)
        if not marks and has_answers_alone:
            return writes, None
        if has_answers_alone:
            plain.append((_langgraph.NO_WRITES, None))
        riding = self._finishing(address, marks, task_id)
        going = riding.marks if riding else ()
        called = self._called(address, config, task_id, going=going)
        if heard := self._heard_by(address, config, going, task_path):
            if any(is_dropped(mark, address) for mark in heard):
                for mark in going:
                    mark.drop()
                return [], None
            called += heard
        if called:
            riding = (riding or Riding())._replace(called=called)
        return plain, riding

    def _heard_by(
        self, address: Address, config: RunnableConfig, going: Sequence[StepMark], task_path: str
    ) -> list[StepMark]:
        """The steps whose results the task may have been given by those that called it."""
        run = _langgraph.run_key(config)
        if going:
            heard = [other for mark in going for other in mark.heard]
            for mark in going:
                mark.heard = ()
            return heard
        if run is None or not _langgraph.is_called(task_path):
            return []
        return called_beside(address, self._open_of(run.control, address.session_id))

    def _of_failed(
        self,
        address: Address,
        config: RunnableConfig,
        marks: Sequence[StepMark],
        plain: Writes,
        task_id: str,
    ) -> Writes:
        """What is stored of a task that failed: nothing that it gave, where it acted for that.

        LangGraph stores what was given before an error, and wouldn't execute the task again.
        """
        called = self._called(address, config, task_id)
        has_acted = any(may_be_lost(mark) for mark in (*marks, *called))
        self._drop_of(address, task_id)
        for mark in marks:
            # What a task of its subgraph gave goes with that task's own call, which may be on its
            # way: a checkpoint that has it waits for that.
            if not mark.is_going and mark.levels[0].goes_on(mark) and mark.held_at is None:
                mark.drop()
        return [write for write in plain if not has_acted or _langgraph.is_control(write[0])]

    def _drop_of(self, address: Address, task_id: str) -> None:
        """What a task wrote that failed, or asked."""
        for mark in self._all_open():
            if not mark.is_closed and is_of_task(mark.levels[0], address, task_id):
                mark.drop()

    def _called(
        self,
        address: Address,
        config: RunnableConfig,
        task_id: str,
        going: Sequence[StepMark] = (),
    ) -> list[StepMark]:
        """The steps whose results this task's may be made of, and whose calls may fail."""
        run = _langgraph.run_key(config)
        return [
            mark
            for mark in self._open_of(run.control if run else None, address.session_id)
            if task_id in mark.callers
            and not any(mark is other for other in going)
            and is_counted_on(mark, address)
        ]

    def _finishing(
        self, address: Address, marks: Iterable[StepMark], task_id: str
    ) -> Riding | None:
        going: list[StepMark] = []
        awaited: tuple[Level, ...] = ()
        for mark in marks:
            index = index_of_task(mark, address, task_id)
            if mark.is_closed or index is None:
                continue
            is_vain = mark.is_empty or self.results.is_done(mark)
            if is_vain or not mark.has_finished_below(index):
                mark.drop()
                continue
            mark.is_going = True
            going.append(mark)
            awaited = mark.levels[index:]
        return Riding(going, awaited) if going else None

    async def of_put(
        self,
        address: Address,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
    ) -> Riding | None:
        """What goes with a `put`, once what its checkpoint holds is stored.

        Raises: as the call failed that had something of it.
        """
        run = _langgraph.run_key(config)
        step = metadata.get("step", _langgraph.STEP_BEFORE_FIRST)
        if run is None or step == _langgraph.STEP_BEFORE_FIRST:
            return None
        try:
            return await self._of_put(address, run.control, checkpoint["id"], step)
        except Exception as error:
            self._refusals.set(_place(address, run.control), _Failure(run.control, error))
            raise

    async def _of_put(
        self, address: Address, control: object, checkpoint_id: str, step: int
    ) -> Riding | None:
        if (lost := self._failure(self._lost, address, control)) is not None:
            raise _of_another(lost)
        for mark in self._heard.of_put(address, control):
            await _wait_for(mark, mark.levels[0])
        for mark in self._open_of(control, address.session_id):
            if not mark.is_stored_at_exit:
                await self._settled(mark, address, step)
        riding = await self._exiting_put(control, address, checkpoint_id, step)
        if counted_on := self._acted.of_put(control, address):
            riding = (riding or Riding())._replace(counted_on=counted_on)
        return riding

    async def _settled(self, mark: StepMark, address: Address, step: int) -> None:
        """Waits for a step that the checkpoint of a superstep has in it."""
        index = index_until(mark, address, step)
        if index is None or mark.settled.done():
            if index is not None and (error := mark.settled.exception()) is not None:
                raise _of_another(error)
            return
        is_coming = mark.is_closed or mark.is_going
        if not is_coming and not mark.has_finished_below(index + 1):
            return  # of an attempt that failed
        await _wait_for(mark, mark.levels[index])

    def exiting_run(self, where: Address | Level, control: object) -> ExitingRun | None:
        """The run's steps, if it is one of those and has any."""
        return self._exiting.get(where.session_id, control)

    async def _exiting_put(
        self, control: object, address: Address, checkpoint_id: str, step: int
    ) -> Riding | None:
        exiting = self.exiting_run(address, control)
        if exiting is None:
            return None
        turn = await exiting.turn()
        try:
            riding = await self._exiting_with(exiting.marks, address, checkpoint_id, step)
        except BaseException:
            turn.set_result(None)
            raise
        return (riding or Riding())._replace(turn=turn)

    async def _exiting_with(
        self, marks: Sequence[StepMark], address: Address, checkpoint_id: str, step: int
    ) -> Riding | None:
        going: list[StepMark] = []
        held: list[tuple[StepMark, int]] = []
        for mark in marks:
            if mark.is_closed or mark.is_empty:
                continue
            if self.results.is_done(mark):
                mark.drop()
                continue
            if await self._is_made_found(mark, address, checkpoint_id):
                going.append(mark)
                continue
            index = index_until(mark, address, step)
            if index is None or not mark.has_finished_below(index + 1):
                continue
            if await self.are_stored(mark.levels[index + 1 :]):
                going.append(mark)
            else:
                held.append((mark, index))
        return Riding(going, held=held) if going or held else None

    async def _is_made_found(self, mark: StepMark, address: Address, checkpoint_id: str) -> bool:
        """Whether this checkpoint is the last that was missing above a result that is stored."""
        if mark.held_at is None:
            return False
        above = mark.levels[mark.held_at + 1 :]
        missing = [level for level in above if not await self._is_stored(level)]
        return len(missing) == 1 and is_at(missing[0], address, checkpoint_id)

    async def are_stored(self, levels: Sequence[Level]) -> bool:
        """Whether the checkpoints at which these tasks were planned are stored."""
        return all([await self._is_stored(level) for level in levels])

    # A call that something goes with

    @asynccontextmanager
    async def ride(
        self, riding: Riding, store: CallStore, address: Address, config: RunnableConfig
    ) -> AsyncIterator[RidingQueue]:
        """A queue that stores the block's call with the steps' riders; tells how that went."""
        run = _langgraph.run_key(config)
        control = None if run is None else run.control
        queue = RidingQueue(self, riding, store, control)
        try:
            yield queue
            self._note_stored(queue, riding, address, control)
        except BaseException as error:
            self._lose(riding, address, control, error)
            raise
        finally:
            queue.end_turn()
            if not address.checkpoint_ns:  # perhaps the run's last
                self._forget_exiting(address, control)

    def _note_stored(
        self, queue: RidingQueue, riding: Riding, address: Address, control: object
    ) -> None:
        if queue.going and riding.awaited:
            self._acted.note_task(control, riding.awaited[0])
        if queue.stored_id is not None and riding.counted_on:
            self._acted.note_put(control, address, queue.stored_id, riding.counted_on)
        for mark in queue.going:
            mark.settle(None)
        for mark, index in queue.held:
            mark.held_at = index
            mark.note_stored()
            self.results.note_stored(control, mark.levels[index])

    def _forget_exiting(self, address: Address, control: object) -> None:
        exiting = self.exiting_run(address, control)
        if exiting is not None and exiting.is_settled:
            self._exiting.drop(address.session_id, control)

    def _lose(
        self, riding: Riding, address: Address, control: object, error: BaseException
    ) -> None:
        """A call with riders failed: no checkpoint may have its result."""
        told = error if isinstance(error, Exception) else cancelled(riding.marks)
        for mark in riding.marks:
            mark.close()
            mark.settle(copy_of(told))
        if riding.marks or riding.called:
            self._lost.set(_place(address, control), _Failure(control, told))

    def note_failed(self, address: Address, config: RunnableConfig, error: BaseException) -> None:
        """A `put` failed: nobody needs to wait for its checkpoint."""
        if (run := _langgraph.run_key(config)) is not None:
            self._failures.set(_place(address, run.control), _Failure(run.control, error))

    def _failure(
        self, among: Remembered[_Failure], where: Address | Level, control: object
    ) -> BaseException | None:
        found = among.get(_place(where, control))
        return found.error if found is not None and found.control is control else None

    def _all_open(self) -> list[StepMark]:
        with self._lock:
            return list(self._open)

    def _open_of(self, control: object, session_id: UUID) -> list[StepMark]:
        """Those of a run in one thread."""
        with self._lock:
            return self._of_run(control, session_id)

    def _of_run(self, control: object, session_id: UUID) -> list[StepMark]:
        return [
            mark
            for mark in self._open
            if mark.control is control and mark.levels[0].session_id == session_id
        ]


class RidingQueue:
    """Stores a call and the riders of steps in one transaction, by the methods of a WriteQueue."""

    def __init__(self, riders: Riders, riding: Riding, store: CallStore, control: object) -> None:
        self._riders = riders
        self._store = store
        self._awaited = riding.awaited
        self._called = riding.called
        self._control = control
        self._counted_on = riding.counted_on
        self.going = list(riding.marks)
        self.held = list(riding.held)
        self.stored_id: str | None = None
        self._turn = riding.turn

    async def turn(self) -> None:
        """Returns when the call will be found by what is stored, as what it is made of is."""
        for mark in self._called:
            await _wait_for(mark, mark.levels[0], is_stored_enough=True)
        if not self._awaited or await self._is_held():
            return
        self.end_turn()  # whoever has it waits for no other call
        await self._riders.wait_until_stored(self._awaited, self._control)

    async def _is_held(self) -> bool:
        """Whether what makes the result of an exiting run's task found comes later."""
        own, *above = self._awaited
        if not above or not any(mark.is_stored_at_exit for mark in self.going):
            return False
        if (exiting := self._riders.exiting_run(own, self._control)) is not None:
            self._turn = await exiting.turn()
        if await self._riders.are_stored(above):
            return False
        self.held += [(mark, mark.levels.index(own)) for mark in self.going]
        self.going = []
        return True

    def end_turn(self) -> None:
        """Lets the run's other calls go on."""
        if self._turn is not None:
            self._turn.set_result(None)
            self._turn = None

    async def store(self, call: EncodedCall) -> None:
        """Returns when the call and the riders are committed."""
        riders = [rider for mark in self.going for rider in mark.close()]
        above = self._awaited[1:] if self.going else ()
        counted_on = [*self._counted_on, *signs_of(above)]
        if counted_on:
            riders.append(asking_for(self._riders.db, counted_on))
        if self.going:
            place = (call.stored_ns, call.checkpoint_id) if self._awaited else None
            asked = self._riders.results.unknown_to(self._control, self.going)
            checks = [refusing_results(self._riders.db, asked)] if asked else []
            await self._store.store_with(call, riders, checks=checks, place=place)
        else:
            await self._store.store_and(call, riders)
        self.stored_id = call.checkpoint_id


def _place(where: Address | Level, control: object) -> tuple[UUID, str, int]:
    """What tells the graphs of all runs apart; a control can be given to runs of many threads."""
    return where.session_id, where.checkpoint_ns, id(control)


async def _wait_for(mark: StepMark, level: Level, *, is_stored_enough: bool = False) -> None:
    """Returns when the step is stored; with what it did, unless its result is enough.

    Raises: as its call failed; StepNotStoredError after 30 s.
    """
    try:
        async with asyncio.timeout(_LONGEST_WAIT_SECONDS):
            if is_stored_enough:
                await asyncio.shield(asyncio.wrap_future(mark.stored))
            if not is_stored_enough or mark.settled.done():
                await asyncio.shield(asyncio.wrap_future(mark.settled))
    except TimeoutError:
        raise not_stored(level) from None
    except Exception as error:
        raise _of_another(error) from error.__cause__


def _of_another(error: BaseException) -> BaseException:
    return copy_of(error) if isinstance(error, Exception) else error
