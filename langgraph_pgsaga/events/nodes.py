"""Events in graphs: a node that appends one; nodes whose starts, results and errors are events."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias
from uuid import NAMESPACE_OID, uuid5

from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.errors import GraphBubbleUp

from langgraph_pgsaga import _json
from langgraph_pgsaga._arguments import checked_instance, shown
from langgraph_pgsaga.errors import EventIdConflictError, InvalidArgumentError
from langgraph_pgsaga.events.batch import thread_of
from langgraph_pgsaga.events.condition import checked_name, checked_type
from langgraph_pgsaga.events.event import AgentEvent, EventType
from langgraph_pgsaga.events.events import EventStore
from langgraph_pgsaga.work import RunContext

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
) -> Runnable[Any, dict[str, Any]]:
    """A node that appends one event, and changes nothing of the state.

    Its event's id comes from the task's: when the node is executed again from a stored checkpoint,
    after a crash or by a retry, the event stays the one that is stored.

    Args:
        data: a function of the state, whose result is `event_data`; without, that is empty.
        aggregate_id: whose event it is: an id or a function of the state; None is the thread's id.
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
        )

    async def append_async(state: Any) -> dict[str, Any]:
        made = event(state)
        try:
            await store.append_event(made)
        except EventIdConflictError:
            _log.info("event %s of this task is stored, with other data: it stays", made.event_id)
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

    A node that is executed again starts again, and says so. Each event is committed by itself: the
    start before the node runs, its result before LangGraph stores it. An interrupt is no error,
    and has none.

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

    async def start(self, state: Any) -> None:
        run = _running()
        await self._append(NODE_STARTED, state, run, attempt=run.attempt)

    async def result(self, state: Any, found: Any) -> None:
        output = _json.project(found) if self._data is None else self._data(found)
        event_type = EventType.STATE_UPDATED
        await self._append(event_type, state, _running(), status="completed", output=output)

    async def error(self, state: Any, error: Exception) -> None:
        said = f"{type(error).__name__}: {_json.clean_text(str(error))[:2000]}"
        try:
            await self._append(EventType.ERROR_OCCURRED, state, _running(), error=said)
        except Exception:
            # The node's own error is what its caller has to hear of.
            _log.exception("the error of a node couldn't be recorded")

    async def _append(
        self, event_type: EventType, state: Any, run: RunContext, **more: Any
    ) -> None:
        event = AgentEvent(
            event_type=event_type,
            aggregate_id=_aggregate_id(self._aggregate_id, state, run),
            aggregate_type=self._aggregate_type,
            event_data={"step_id": run.task_id, "step_name": run.node, **more},
        )
        await self._store.append_event(event)

    def call(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        """One of these, for a sync node."""
        self._store.db.portal.call(function, *args)


def _recorded_async(node: Callable[..., Any], record: _Record) -> Callable[..., Any]:
    @functools.wraps(node)
    async def run(state: Any, *args: Any, **kwargs: Any) -> Any:
        await record.start(state)
        try:
            found = await node(state, *args, **kwargs)
        except GraphBubbleUp:
            raise
        except Exception as error:
            await record.error(state, error)
            raise
        await record.result(state, found)
        return found

    return run


def _recorded_sync(node: Callable[..., Any], record: _Record) -> Callable[..., Any]:
    @functools.wraps(node)
    def run(state: Any, *args: Any, **kwargs: Any) -> Any:
        record.call(record.start, state)
        try:
            found = node(state, *args, **kwargs)
        except GraphBubbleUp:
            raise
        except Exception as error:
            record.call(record.error, state, error)
            raise
        record.call(record.result, state, found)
        return found

    return run


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
