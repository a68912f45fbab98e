"""The checkpoints of a thread, without their values: what ran, what changed, what came next."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import (
    Any,
    NamedTuple,
    Protocol,
    TypeAlias,
    TypeVar,
    overload,
    runtime_checkable,
)

import asyncpg
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT
from langgraph.pregel import Pregel
from langgraph.types import StateSnapshot

from langgraph_pgsaga._arguments import (
    checked_instance,
    checked_integer,
    checked_limit,
    checked_text,
    checked_time,
)
from langgraph_pgsaga._langgraph import (
    INPUT,
    is_trigger,
    next_nodes,
    open_errors,
    own_values,
    sent_nodes,
    shown_name,
)
from langgraph_pgsaga._times import in_utc, time_of
from langgraph_pgsaga.checkpoint import (
    Contents,
    PostgresSaver,
    StateData,
    decode_state,
    placed,
    starter_keys,
)
from langgraph_pgsaga.database import Connection, Database, load_statements
from langgraph_pgsaga.errors import (
    InvalidArgumentError,
    MissingCheckpointError,
    NameTakenError,
)
from langgraph_pgsaga.tenants import Tenants
from langgraph_pgsaga.threads import Address
from langgraph_pgsaga.timetravel import _history_html, _text

T = TypeVar("T")


@runtime_checkable
class ReadThrough(Protocol):
    """ReadThroughSaver: some threads are another saver's until they are written to."""

    new: PostgresSaver
    tenants: Tenants

    async def ais_imported(self, thread_id: str, *, tenant: str | None = None) -> bool: ...
    async def aimport_thread(self, thread_id: str, *, tenant: str | None = None) -> None: ...
    def call(self, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T: ...
    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None: ...
    def alist(self, config: RunnableConfig) -> AsyncIterator[CheckpointTuple]: ...
    async def adelete_thread(self, thread_id: str, *, tenant: str | None = None) -> None: ...
    def copy_thread(
        self,
        source: str,
        target: str,
        *,
        checkpoint_id: str | None = None,
        tenant: str | None = None,
    ) -> None: ...
    async def acopy_thread(
        self,
        source: str,
        target: str,
        *,
        checkpoint_id: str | None = None,
        tenant: str | None = None,
    ) -> None: ...


Saver: TypeAlias = PostgresSaver | ReadThrough
# A compiled graph, also that of an entrypoint. Or the saver alone.
Graph: TypeAlias = Pregel[Any, Any, Any, Any]
Source: TypeAlias = Graph | Saver

_STATEMENTS = load_statements("timetravel")
_HISTORY = load_statements("history")
_RETENTION = load_statements("retention")
_FIRST_PAGE = 64
_LARGEST_PAGE = 1024
_MOST_SHOWN = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A checkpoint of a history, without its values: `graph.get_state(step.config)` has them.

    `nodes` are those that ran to make it, or in whose name a state was updated; `changed`
    the graph's channels that have another value than in the parent; `next` the nodes that
    its run goes on with. `branch` is 0 for the way to the latest checkpoint, and one
    number more for each other end, the more recent first.
    """

    config: RunnableConfig
    checkpoint_id: str
    parent_checkpoint_id: str | None
    step: int | None
    source: str | None
    created_at: datetime | None
    name: str | None
    nodes: tuple[str, ...]
    changed: tuple[str, ...]
    next: tuple[str, ...]
    is_interrupted: bool
    has_error: bool
    branch: int


class History(Sequence[Step]):
    """A thread's checkpoints, newest first, fetched in pages as they are asked for.

    `history[0]` is the latest; `len(history)` and negative indexes fetch all, which takes
    no values and so is quick. Checkpoints saved after the first page was fetched aren't
    in it. In async code use `async for`, or `await history.load()` first: the other ways
    block the loop while a page is fetched.
    """

    def __init__(self, graph: Source, config: RunnableConfig) -> None:
        self._graph = graph
        self._saver = saver = saver_of(graph)
        self._address = Address.of(config, saver.tenants)
        first = _first_node(graph)
        self._pages = (
            _Pages(saver, self._address, first)
            if isinstance(saver, PostgresSaver)
            else _HomePages(saver, self._address, first)
        )

    @overload
    def __getitem__(self, index: int) -> Step: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Step]: ...

    def __getitem__(self, index: int | slice) -> Step | Sequence[Step]:
        stop = index.stop if isinstance(index, slice) else index
        start = index.start if isinstance(index, slice) else 0
        is_open = stop is None or stop < 0 or (start or 0) < 0
        self._fetch(None if is_open else stop + 1)
        return self._pages.steps[index]

    def __len__(self) -> int:
        self._fetch(None)
        return len(self._pages.steps)

    def __iter__(self) -> Iterator[Step]:
        place = 0
        while True:
            self._fetch(place + 1)
            if place == len(self._pages.steps):
                return
            yield self._pages.steps[place]
            place += 1

    async def __aiter__(self) -> AsyncIterator[Step]:
        place = 0
        while True:
            await self._pages.fetch(place + 1)
            if place == len(self._pages.steps):
                return
            yield self._pages.steps[place]
            place += 1

    async def load(self) -> History:
        """Fetches all of it, after which nothing blocks; returns itself."""
        await self._pages.fetch(None)
        return self

    def values(self, step: Step) -> Any:
        """The state's values at a step, as `graph.get_state(step.config).values`.

        Of a history of the saver alone: the values of its channels.

        Raises:
            MissingCheckpointError: it was deleted since the history was fetched, or is one of
                another thread.
        """
        checked_instance("step", step, Step, "Pass one of this history")
        if not isinstance(self._graph, PostgresSaver | ReadThrough):
            return self._values_of(self._graph.get_state(self._config_of(step)))
        return call(self._saver, self.avalues, step)

    async def avalues(self, step: Step) -> Any:
        """`values` for async callers."""
        checked_instance("step", step, Step, "Pass one of this history")
        if not isinstance(self._graph, PostgresSaver | ReadThrough):
            return self._values_of(await self._graph.aget_state(self._config_of(step)))
        found = await self._saver.aget_tuple(self._config_of(step))
        if found is None:
            raise MissingCheckpointError(thread_id=self._address.thread_id)
        return own_values(found.checkpoint["channel_values"])

    def _config_of(self, step: Step) -> RunnableConfig:
        """That of the step in this thread, whichever history it comes from."""
        return self._address.config(step.checkpoint_id)

    def _values_of(self, snapshot: StateSnapshot) -> Any:
        if snapshot.metadata is None:  # LangGraph's state of nothing
            raise MissingCheckpointError(thread_id=self._address.thread_id)
        return snapshot.values

    def at(
        self,
        *,
        step: int | None = None,
        checkpoint_id: str | None = None,
        name: str | None = None,
        node: str | None = None,
        time: datetime | None = None,
    ) -> Step:
        """The latest checkpoint that fits all that is given, of branch 0 if one of it does.

        Args:
            step: LangGraph's number of the superstep; -1 is the input.
            checkpoint_id: its id.
            name: what `name_checkpoint` called it.
            node: a node that ran to make it.
            time: the moment (with a time zone) whose state it was: the last saved by then.

        Raises:
            MissingCheckpointError: none fits.
            InvalidArgumentError: nothing is given, or `time` has no time zone.
        """
        wanted = {
            key: value
            for key, value in {"step": step, "checkpoint_id": checkpoint_id, "name": name}.items()
            if value is not None
        }
        if not wanted and node is None and time is None:
            problem = "needs something to look for: step, checkpoint_id, name, node or time"
            raise InvalidArgumentError(argument="at", problem=problem)
        time = checked_time("time", time)
        if step is not None:
            checked_integer("step", step)
        for argument, text in (("checkpoint_id", checkpoint_id), ("name", name), ("node", node)):
            checked_text(argument, text)
        found: Step | None = None
        for candidate in self:
            if (
                all(getattr(candidate, key) == value for key, value in wanted.items())
                and (node is None or node in candidate.nodes)
                and (time is None or (candidate.created_at and candidate.created_at <= time))
            ):
                if candidate.branch == 0:
                    return candidate
                found = found or candidate
        if found is None:
            raise MissingCheckpointError(thread_id=self._address.thread_id)
        return found

    def __str__(self) -> str:
        lines = [_line(step) for step in self[:_MOST_SHOWN]]
        return "\n".join([*lines, "…and more"] if self._has_more() else lines)

    def __repr__(self) -> str:
        return f"<History of thread {self._address.thread_id!r}>"

    def _repr_html_(self) -> str:
        return _history_html.table([_cells(s) for s in self[:_MOST_SHOWN]], self._has_more())

    def _has_more(self) -> bool:
        return len(self[_MOST_SHOWN : _MOST_SHOWN + 1]) > 0

    def _fetch(self, count: int | None) -> None:
        if not self._pages.has(count):
            call(self._saver, self._pages.fetch, count)


def history(graph: Source, config: RunnableConfig) -> History:
    """The checkpoints of the thread (and namespace) that `config` names, newest first.

    Takes no round trip until it is looked at. `graph` may be the saver alone.

    Raises:
        InvalidArgumentError: the graph has no PostgresSaver.
    """
    return History(graph, config)


def name_checkpoint(
    graph: Source,
    config: RunnableConfig,
    name: str | None,
) -> RunnableConfig:
    """`aname_checkpoint` for sync callers."""
    return call(saver_of(graph), aname_checkpoint, graph, config, name)


async def aname_checkpoint(
    graph: Source,
    config: RunnableConfig,
    name: str | None,
    *,
    conn: Connection | None = None,
) -> RunnableConfig:
    """Names the checkpoint of `config`, or the thread's latest; None takes its name away.

    With `conn`, a connection of `db.transaction()`, it joins that, which then holds the thread
    until it ends. An error leaves it usable.

    Returns the checkpoint's config. `history(...).at(name=...)` finds it again.

    Raises:
        MissingCheckpointError: there is no such checkpoint.
        NameTakenError: another checkpoint of the thread has this name.
        InvalidArgumentError: the name is empty, or holds what PostgreSQL text can't.
    """
    saver = saver_of(graph)
    address = Address.of(config, saver.tenants)
    checked_text("name", name)
    if name == "":
        raise InvalidArgumentError(argument="name", problem="is empty; None takes a name away")
    if not isinstance(saver, PostgresSaver):
        await saver.aimport_thread(address.thread_id, tenant=address.tenant_id)
        saver = saver.new
    db = saver.db
    if conn is not None:
        return await _name(db, address, name, conn)
    return await db.run(lambda own: _name(db, address, name, own))


async def _name(
    db: Database, address: Address, name: str | None, conn: Connection
) -> RunnableConfig:
    """Names it. What names others waits meanwhile, so that the server has nothing to refuse."""
    lock = _RETENTION["lock_session"].bind(session_id=address.session_id)
    await db.fetch(lock, conn=conn)
    place = {
        "session_id": address.session_id,
        "checkpoint_ns": address.stored_ns,
        "checkpoint_id": address.checkpoint_id,
    }
    naming = _STATEMENTS["name_checkpoint"].bind(**place, checkpoint_name=name)
    row = await db.fetch_one(naming, conn=conn)
    if row is not None:
        return address.config(row["checkpoint_id"])
    (found,) = await db.fetch(_STATEMENTS["exists_checkpoint_to_name"].bind(**place), conn=conn)
    if name is None or not found["is_there"]:
        raise MissingCheckpointError(thread_id=address.thread_id)
    raise NameTakenError(thread_id=address.thread_id, name=name)


async def aopen_errors(saver: PostgresSaver, found: CheckpointTuple) -> list[Any]:
    """The errors that a checkpoint's tasks ended with: no handler took them, and no caller."""
    checked_instance("saver", saver, PostgresSaver, "Pass the saver that gave the tuple")
    checked_instance("found", found, CheckpointTuple, "Pass what its get_tuple gives")
    address = Address.of(found.config, saver.tenants)
    asked = _STATEMENTS["list_failed_calls"].bind(
        session_id=address.session_id,
        checkpoint_ns=address.stored_ns,
        checkpoint_id=address.checkpoint_id,
    )
    called = {row["task_id"] for row in await saver.db.fetch(asked)}
    return open_errors([w for w in found.pending_writes or () if w[0] not in called])


async def anamespaces(
    saver: PostgresSaver, config: RunnableConfig, limit: int | None = None
) -> list[str]:
    """The namespaces in which the config's thread has checkpoints, '' first; `limit` at most."""
    checked_instance("saver", saver, PostgresSaver, "Pass the saver that has the thread")
    count = checked_limit(limit)
    address = Address.of(config, saver.tenants)
    asked = _STATEMENTS["list_namespaces"].bind(session_id=address.session_id, count=count)
    return [row["checkpoint_ns"] for row in await saver.db.fetch(asked)]


def call(saver: Saver, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
    """What `await function(...)` gives, for sync callers."""
    run = saver.db.portal.call if isinstance(saver, PostgresSaver) else saver.call
    return run(function, *args, **kwargs)


def saver_of(graph: Source) -> Saver:
    """The graph's saver; InvalidArgumentError where it isn't one of this package's."""
    is_saver = isinstance(graph, PostgresSaver | ReadThrough)
    saver = graph if is_saver else getattr(graph, "checkpointer", None)
    if not isinstance(saver, PostgresSaver | ReadThrough):
        problem = "needs a graph that was compiled with checkpointer=PostgresSaver, or the saver"
        raise InvalidArgumentError(argument="graph", problem=problem)
    return saver


def _first_node(graph: Source) -> str:
    """The node that an input starts: the function of an entrypoint, else LangGraph's own."""
    nodes = graph.nodes if isinstance(graph, Pregel) else {}
    return next((name for name, node in nodes.items() if INPUT in node.triggers), INPUT)


class _Page(NamedTuple):
    """Rows of list_steps; their states and their parents' by id; what says which nodes are next."""

    rows: Sequence[asyncpg.Record | Mapping[str, Any]]
    states: Mapping[str, StateData]
    started: Mapping[str, Mapping[str, Any]]


class _Pages:
    """The steps fetched so far, and how to go on."""

    def __init__(self, saver: PostgresSaver, address: Address, first_node: str) -> None:
        self.steps: list[Step] = []
        self._first_node = first_node
        self._saver = saver
        self._address = address
        # Steps hold no values: what can't be loaded of them hides no history.
        self._codec = saver.codec.lenient()
        self._page = _FIRST_PAGE
        self._last_position: int | None = None
        self._done = False
        # Children are newer than their parents, so they are seen first.
        self._branches: dict[str, int] = {}
        self._ends = 0

    def has(self, count: int | None) -> bool:
        return self._done or (count is not None and len(self.steps) >= count)

    async def fetch(self, count: int | None) -> None:
        """Fetches until there are `count` steps, or all."""
        while not self.has(count):
            page = await self._saver.db.snapshot(self._fetch_page)
            self._done = len(page.rows) < self._page
            self._page = min(2 * self._page, _LARGEST_PAGE)
            for row in page.rows:
                self.steps.append(self._step(row, page))
                self._last_position = row["position"]

    async def _fetch_page(self, conn: Connection) -> _Page:
        """The next steps, with what tells what each changed and led to."""
        db = self._saver.db
        place = {
            "session_id": self._address.session_id,
            "checkpoint_ns": self._address.stored_ns,
        }
        start = {"before_position": self._last_position, "page": self._page}
        rows = await db.fetch(_STATEMENTS["list_steps"].bind(**place, **start), conn=conn)
        states = {row["checkpoint_id"]: self._state(row) for row in rows}
        parents = {row["parent_checkpoint_id"] for row in rows} - states.keys() - {None}
        if parents:
            statement = _HISTORY["select_states"].bind(**place, checkpoint_ids=list(parents))
            older = await db.fetch(statement, conn=conn)
            states.update({row["checkpoint_id"]: self._state(row) for row in older})
        contents = Contents(db, self._codec)
        keys = {key: starter_keys(self._address, state) for key, state in states.items()}
        await contents.fetch([key for some in keys.values() for key in some], conn)
        started = {checkpoint_id: contents.values(some) for checkpoint_id, some in keys.items()}
        return _Page(rows, states, started)

    def _state(self, row: asyncpg.Record) -> StateData:
        columns = row["state_data"], row["metadata"], row["exact_type"], row["exact"]
        address = self._address
        with placed(address.given_thread_id, address.stored_ns, row["checkpoint_id"]):
            return decode_state(self._codec.values, row["checkpoint_id"], *columns)

    def _step(self, row: asyncpg.Record | Mapping[str, Any], page: _Page) -> Step:
        checkpoint_id = row["checkpoint_id"]
        state, parent = page.states[checkpoint_id], page.states.get(row["parent_checkpoint_id"])
        metadata: Mapping[str, Any] = state.metadata
        before = parent.checkpoint if parent else {}
        step, source = metadata.get("step"), metadata.get("source")
        return Step(
            config=self._address.config(checkpoint_id),
            checkpoint_id=checkpoint_id,
            parent_checkpoint_id=row["parent_checkpoint_id"],
            # Whoever puts a checkpoint may say anything there.
            step=step if type(step) is int else None,
            source=source if isinstance(source, str) else None,
            created_at=time_of(state.checkpoint.get("ts")),
            name=row["checkpoint_name"],
            nodes=_nodes(before, state.checkpoint, self._sent(row, page, source)),
            changed=_changed(before, state.checkpoint),
            next=self._next(state, page.started[checkpoint_id]),
            is_interrupted=INTERRUPT in row["marks"],
            has_error=ERROR in row["marks"],
            branch=self._branch(checkpoint_id, row["parent_checkpoint_id"]),
        )

    def _sent(self, row: Any, page: _Page, source: Any) -> tuple[str, ...]:
        """The nodes that the parent's Sends started, which the step ran."""
        parent_id = row["parent_checkpoint_id"]
        if source != "loop" or parent_id not in page.states:
            return ()
        return sent_nodes({**page.states[parent_id].inline, **page.started[parent_id]})

    def _next(self, state: StateData, started: Mapping[str, Any]) -> tuple[str, ...]:
        nodes = next_nodes(state.checkpoint, {**state.inline, **started})
        return tuple(self._first_node if node == INPUT else node for node in nodes)

    def _branch(self, checkpoint_id: str, parent_id: str | None) -> int:
        branch = self._branches.pop(checkpoint_id, None)
        if branch is None:
            branch, self._ends = self._ends, self._ends + 1
        if parent_id is not None:
            self._branches[parent_id] = min(branch, self._branches.get(parent_id, branch))
        return branch


class _HomePages(_Pages):
    """Those of a thread that may be another saver's: then what its listing gives, in one go."""

    def __init__(self, saver: ReadThrough, address: Address, first_node: str) -> None:
        super().__init__(saver.new, address, first_node)
        self._both = saver
        self._has_moved: bool | None = None

    async def fetch(self, count: int | None) -> None:
        if self._has_moved is None:
            address = self._address
            self._has_moved = await self._both.ais_imported(
                address.thread_id, tenant=address.tenant_id
            )
        if self._has_moved:
            await super().fetch(count)
        elif not self.has(count):
            await self._list()
            self._done = True

    async def _list(self) -> None:
        address = self._address
        place = {
            "thread_id": address.thread_id,
            "checkpoint_ns": address.checkpoint_ns,
            "tenant_id": address.tenant_id,
        }
        found = [one async for one in self._both.alist({"configurable": place})]
        states = {one.checkpoint["id"]: _state_of(one) for one in found}
        went_on = {_parent_id(one) for one in found if one.metadata.get("source") == "loop"}
        rows = [_row_of(one, went_on=one.checkpoint["id"] in went_on) for one in found]
        page = _Page(rows, states, {key: {} for key in states})
        self.steps.extend(self._step(row, page) for row in rows)


def _row_of(found: CheckpointTuple, *, went_on: bool) -> dict[str, Any]:
    """What a row of list_steps says, of a checkpoint of another saver."""
    return {
        "checkpoint_id": found.checkpoint["id"],
        "parent_checkpoint_id": _parent_id(found),
        "checkpoint_name": None,
        "marks": _marks_of(found, went_on=went_on),
    }


def _parent_id(found: CheckpointTuple) -> str | None:
    parent = found.parent_config
    return parent["configurable"]["checkpoint_id"] if parent else None


def _state_of(found: CheckpointTuple) -> StateData:
    values = found.checkpoint["channel_values"]
    triggers = {channel: value for channel, value in values.items() if is_trigger(channel)}
    return StateData({**found.checkpoint}, found.metadata, triggers, None)


def _marks_of(found: CheckpointTuple, *, went_on: bool) -> set[str]:
    """Other savers don't give the paths of tasks, which tell what another task called.

    But a run that `went_on` from here did so without errors; and at an input, where there is
    one task, that one hasn't failed if it asks.
    """
    writes = found.pending_writes or ()
    marks = {channel for _, channel, _ in writes if channel != ERROR}
    asks_at_input = INTERRUPT in marks and found.metadata.get("source") == "input"
    return marks if went_on or asks_at_input or not open_errors(writes) else marks | {ERROR}


def _cells(step: Step) -> _history_html.Cells:
    marks = ["interrupted"] * step.is_interrupted + ["failed"] * step.has_error
    return _history_html.Cells(
        step="" if step.step is None else str(step.step),
        source=step.source or "",
        time=in_utc(step.created_at),
        nodes=", ".join(step.nodes),
        changed=", ".join(step.changed),
        next=", ".join([*step.next, *marks]),
        branch=step.branch,
        name=step.name or "",
    )


def _line(step: Step) -> str:
    cells = _cells(step)
    parts = [
        f"{cells.step:>4} {cells.source:<6} {cells.time}{' UTC' if cells.time else ''}",
        f"{cells.nodes or '-'} changed {cells.changed or 'nothing'}",
        f"next {cells.next}" if cells.next else "",
        f"branch {cells.branch}" if cells.branch else "",
        f"“{cells.name}”" if cells.name else "",
    ]
    return _text.one_line("; ".join(filter(None, parts)))


def _nodes(
    before: Mapping[str, Any], after: Mapping[str, Any], sent: Sequence[str]
) -> tuple[str, ...]:
    """The nodes that have seen other versions of their channels than before, or were `sent` to.

    A Send has no channel of which its node could see a version.
    """
    seen, seen_before = after.get("versions_seen") or {}, before.get("versions_seen") or {}
    ran = [node for node, versions in seen.items() if versions != seen_before.get(node)]
    return tuple(node for node in dict.fromkeys([*ran, *sent]) if not node.startswith("__"))


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """The graph's own channels at another version than before."""
    versions, old = after["channel_versions"], before.get("channel_versions") or {}
    names = (shown_name(c) for c, version in versions.items() if version != old.get(c))
    return tuple(name for name in names if name is not None)
