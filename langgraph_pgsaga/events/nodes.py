"""Events in graphs: a node that appends one; nodes whose starts, results and errors are events."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar
from uuid import NAMESPACE_OID, uuid5

from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.errors import GraphBubbleUp

from langgraph_pgsaga import _json
from langgraph_pgsaga._arguments import checked_instance, shown
from langgraph_pgsaga.database import Connection
from langgraph_pgsaga.errors import EventIdConflictError, InvalidArgumentError
from langgraph_pgsaga.events.batch import ANY, Batch, thread_of
from langgraph_pgsaga.events.condition import checked_name, checked_type
from langgraph_pgsaga.events.event import AgentEvent, EventType
from langgraph_pgsaga.events.events import EventStore
from langgraph_pgsaga.work import RunContext, Step, has_step, this_step

T = TypeVar("T")

_log = logging.getLogger("langgraph_pgsaga.events")
NODE_STARTED = EventType("node_started")
_FROM_A_SAVER = "Pass EventStore(saver.db)"

# What an event is of: an id, or a function of the state; None is the thread.
AggregateId: TypeAlias = str | Callable[[Any], str] | None


def event_node(
    store: EventStore,
    event_type: EventType | str,
    *,
    data: Callable[[Any], Any] | None = None,
    aggregate_id: AggregateId = None,
    aggregate_type: str = "session",
    subject: str | Callable[[Any], str] | None = None,
) -> Runnable[Any, dict[str, Any]]:
    """A node that appends one event, and changes nothing of the state.

    The event is committed with the node's result, by `this_step()`, where the graph's saver is a
    PostgresSaver of the store's database; else by itself, before. Its id comes from the task's:
    when the node is executed again from a stored checkpoint, as after a crash or where a past
    checkpoint is run on from, the event stays the one that is stored.

    Args:
        data: a function of the state, whose result is `event_data`; without, that is empty.
        aggregate_id: whose event it is: an id or a function of the state; None is the thread's id.
        subject: whom its personal fields are about: a name or a function of the state.
    """
    checked_instance("store", store, EventStore, _FROM_A_SAVER)
    name = checked_type("event_type", event_type)
    checked_name("aggregate_type", aggregate_type)
    _check_function("data", data)

    def event(state: Any) -> AgentEvent:
        run = _running()
        return AgentEvent(
            event_id=str(uuid5(NAMESPACE_OID, f"{run.task_id}:{name}")),
            event_type=name,
            aggregate_id=_aggregate_id(aggregate_id, state, run),
            aggregate_type=aggregate_type,
            event_data={} if data is None else data(state),
            subject=subject(state) if callable(subject) else subject,
        )

    async def append_async(state: Any) -> dict[str, Any]:
        made = event(state)
        if has_step(store.db):
            await _append_with_step(store, made)
            return {}
        try:
            await store.append_event(made)
        except EventIdConflictError:
            _log_kept(made)
        return {}

    def append(state: Any) -> dict[str, Any]:
        return store.db.portal.call(append_async, state)

    return RunnableLambda(append, append_async, name=f"append {name}")


def recorded(
    node: Callable[..., Any],
    store: EventStore,
    *,
    data: Callable[[Any], Any] | None = None,
    aggregate_id: AggregateId = None,
    aggregate_type: str = "session",
) -> Callable[..., Any]:
    """The node, each execution of which appends events: node_started, then state_updated or
    error_occurred.

    Start and result are committed with the node's result, by `this_step()`, where the graph's
    saver is a PostgresSaver of the store's database: once, if and only if the result is stored, so
    that a node which asks (`interrupt`) has none yet. Start and error are committed by themselves
    as the node fails. Elsewhere each is, the start before the node runs; a node that is
    executed again then starts again, and says so.

    Args:
        node: a function, sync or async.
        data: a function of what the node returned, whose result is the `output` of the event;
            without, it is what the node returned, with what isn't JSON by its name only.
        aggregate_id: whose events they are: an id or a function of the state; None is the
            thread's id.
    """
    checked_instance("store", store, EventStore, _FROM_A_SAVER)
    checked_name("aggregate_type", aggregate_type)
    _check_function("data", data)
    if not inspect.isroutine(node) and not _is_callable(node):
        problem = f"must be a function, sync or async, not {shown(node)}"
        raise InvalidArgumentError(argument="node", problem=problem)
    record = _Record(store, data, aggregate_id, aggregate_type)
    if inspect.iscoroutinefunction(node) or inspect.iscoroutinefunction(
        getattr(node, "__call__", None)  # noqa: B004
    ):
        return _recorded_async(node, record)
    return _recorded_sync(node, record)


class _Record:
    """What becomes an event, of one node."""

    def __init__(
        self,
        store: EventStore,
        data: Callable[[Any], Any] | None,
        aggregate_id: AggregateId,
        aggregate_type: str,
    ) -> None:
        self._store = store
        self._data = data
        self._aggregate_id = aggregate_id
        self._aggregate_type = aggregate_type

    async def start(self, state: Any) -> _Execution:
        """An execution begins."""
        run = _running()
        aggregate = _aggregate_id(self._aggregate_id, state, run), self._aggregate_type
        execution = _Execution(self._store, aggregate, run)
        execution.add(NODE_STARTED, attempt=run.attempt)
        if not execution.has_step:
            await execution.append()
        return execution

    async def result(self, execution: _Execution, found: Any) -> None:
        """It gave a result."""
        output = _json.project(found) if self._data is None else self._data(found)
        execution.add(EventType.STATE_UPDATED, status="completed", output=output)
        await execution.append(this_step() if execution.has_step else None)

    async def error(self, execution: _Execution, error: Exception) -> None:
        """It failed."""
        said = f"{type(error).__name__}: {_json.clean_text(str(error))[:2000]}"
        try:
            execution.add(EventType.ERROR_OCCURRED, error=said)
            await execution.append()
        except Exception:
            # The node's own error is what its caller has to hear of.
            _log.exception("the error of a node couldn't be recorded")

    def call(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """One of these, for a sync node."""
        return self._store.db.portal.call(function, *args)


class _Execution:
    """One execution of a node, and its events that aren't appended yet."""

    def __init__(self, store: EventStore, aggregate: tuple[str, str], run: RunContext) -> None:
        self._store = store
        self._aggregate_id, self._aggregate_type = aggregate
        self._run = run
        self._events: list[AgentEvent] = []
        self.has_step = has_step(store.db)

    def add(self, event_type: EventType, **more: Any) -> None:
        """An event of now."""
        data = {"step_id": self._run.task_id, "step_name": self._run.node, **more}
        self._events.append(AgentEvent(event_type=event_type, event_data=data))

    async def append(self, conn: Step | None = None) -> None:
        """Appends what isn't yet."""
        events, self._events = self._events, []
        kind = self._aggregate_type
        await self._store.append(self._aggregate_id, events, aggregate_type=kind, conn=conn)


def _recorded_async(node: Callable[..., Any], record: _Record) -> Callable[..., Any]:
    @functools.wraps(node)
    async def run(state: Any, *args: Any, **kwargs: Any) -> Any:
        execution = await record.start(state)
        try:
            found = await node(state, *args, **kwargs)
        except GraphBubbleUp:
            raise
        except Exception as error:
            await record.error(execution, error)
            raise
        await record.result(execution, found)
        return found

    return run


def _recorded_sync(node: Callable[..., Any], record: _Record) -> Callable[..., Any]:
    @functools.wraps(node)
    def run(state: Any, *args: Any, **kwargs: Any) -> Any:
        execution = record.call(record.start, state)
        try:
            found = node(state, *args, **kwargs)
        except GraphBubbleUp:
            raise
        except Exception as error:
            record.call(record.error, execution, error)
            raise
        record.call(record.result, execution, found)
        return found

    return run


async def _append_with_step(store: EventStore, event: AgentEvent) -> None:
    """Has the event stored with the node's result, unless one of its id is there."""
    named = store._tenant_id(), event.aggregate_id, event.aggregate_type
    append = await store._prepared(Batch.of(*named, [event], ANY))

    async def append_once(conn: Connection) -> None:
        try:
            await append(conn)
        except EventIdConflictError:  # which leaves the transaction as it was
            _log_kept(event)

    this_step().at_commit(append_once, db=store.db)


def _log_kept(event: AgentEvent) -> None:
    _log.info("event %s of this task is stored, with other data: it stays", event.event_id)


def _is_callable(node: object) -> bool:
    return callable(node) and not isinstance(node, type | Runnable)


def _running() -> RunContext:
    run = RunContext.current()
    if run is None:
        problem = "this is a node: it can be called by a graph that runs only"
        raise InvalidArgumentError(argument="node", problem=problem)
    return run


def _aggregate_id(given: AggregateId, state: Any, run: RunContext) -> str:
    if callable(given):
        return given(state)
    if given is not None:
        return given
    thread_id = thread_of(run)
    if thread_id is None:
        problem = (
            "the run has no thread, whose id it would be; pass one, or a function of the state"
        )
        raise InvalidArgumentError(argument="aggregate_id", problem=problem)
    return thread_id


def _check_function(argument: str, given: Any) -> None:
    if given is not None and not callable(given):
        problem = f"must be a function, not {shown(given)}"
        raise InvalidArgumentError(argument=argument, problem=problem)
