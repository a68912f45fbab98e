"""What only LangChain's callbacks see, as events: calls of models and tools."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple
from uuid import NAMESPACE_OID, UUID, uuid5

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult
from langgraph.errors import GraphBubbleUp

from langgraph_pgsaga import _json, _message_text
from langgraph_pgsaga._arguments import (
    checked_flag,
    checked_instance,
    checked_integer,
    checked_seconds,
)
from langgraph_pgsaga._process_bound import ProcessBound
from langgraph_pgsaga.events.batch import of_run, thread_of
from langgraph_pgsaga.events.condition import checked_name
from langgraph_pgsaga.events.event import AgentEvent, EventType
from langgraph_pgsaga.events.events import EventStore
from langgraph_pgsaga.events.outbox import Outbox, Outgoing
from langgraph_pgsaga.events.subjects import check_impersonal
from langgraph_pgsaga.work import RunContext

LLM_STARTED, LLM_ENDED = EventType("llm_started"), EventType("llm_ended")
TOOL_STARTED = EventType("tool_started")
_TOLD_TYPES = (
    *(LLM_STARTED, LLM_ENDED, TOOL_STARTED),
    *(EventType.TOOL_EXECUTED, EventType.ERROR_OCCURRED),
)
_LONGEST_TEXT = 10_000
_LONGEST_ERROR = 2000
# Calls whose ends never came.
_MOST_BEGUN = 10_000


class _Begun(NamedTuple):
    name: str
    at: float
    outgoing: Outgoing


class EventCallbackHandler(ProcessBound, BaseCallbackHandler):
    """Appends an event for each begin, end and error of a model's or a tool's call.

    Pass it as `config={"callbacks": [handler]}`, to `invoke` or `ainvoke`; one serves any number of
    runs at once. Events wait in memory and are appended together in the background, all of
    a run's before its outermost call returns: a killed process loses those that still waited.

    Args:
        store: where to; of a store of no tenant they are the run's tenant's.
        prompts, outputs: whether what went to models and tools, and what came back, is told, each
            text's first 10,000 characters.
        aggregate_id: whose events they are. None is the thread's id; in calls without a thread
            the aggregate is of the type `run`, and of the outermost run's id.
        aggregate_type: the type of that.
        most_waiting: how many events wait in memory at most.
        longest_seconds: how long a call waits where no more may, or, at a run's end, some still
            do. Then it raises, which ends the run, and what waits is tried on.

    Raises:
        InvalidArgumentError: the store has personal fields for a type of these events, and the
            handler can't say whom they are about.
        EventsNotAppendedError: from the run, as `longest_seconds` has it.
    """

    # Nothing is lost in silence.
    raise_error = True

    def __init__(
        self,
        store: EventStore,
        *,
        prompts: bool = False,
        outputs: bool = False,
        aggregate_id: str | None = None,
        aggregate_type: str = "session",
        most_waiting: int = 10_000,
        longest_seconds: float = 30.0,
    ) -> None:
        super().__init__()
        self._store = checked_instance("store", store, EventStore, "Pass EventStore(saver.db)")
        check_impersonal(store.subjects, _TOLD_TYPES, "calls of models and tools")
        checked_flag("prompts", prompts)
        checked_flag("outputs", outputs)
        if aggregate_id is not None:
            checked_name("aggregate_id", aggregate_id)
        self._aggregate = aggregate_id, checked_name("aggregate_type", aggregate_type)
        self._prompts, self._outputs = prompts, outputs
        self._outbox = Outbox(
            store,
            most=checked_integer("most_waiting", most_waiting, least=1),
            longest_seconds=checked_seconds("longest_seconds", longest_seconds, least=0),
        )
        self._begun: OrderedDict[UUID, _Begun] = OrderedDict()
        # The outermost run of each that is going on.
        self._roots: OrderedDict[UUID, UUID] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many events aren't appended yet."""
        return self._outbox.waiting

    def flush(self) -> None:
        """Returns when all events of calls until now are appended; it may be called in a thread.

        Raises:
            EventsNotAppendedError: some couldn't be, for `longest_seconds`.
        """
        self._outbox.flush()

    async def aflush(self) -> None:
        """`flush` for async callers."""
        await asyncio.to_thread(self._outbox.flush)

    # What LangChain calls: in a thread, where the run is async

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A chat model begins."""
        texts = [_said(message) for batch in messages for message in batch] if self._prompts else []
        self._model_begins(serialized, texts, run_id, parent_run_id, metadata or {}, kwargs)

    def on_llm_start(
        self,
        serialized: dict[str, Any],
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A model begins."""
        texts = [_cut(prompt) for prompt in prompts] if self._prompts else []
        self._model_begins(serialized, texts, run_id, parent_run_id, metadata or {}, kwargs)

    def on_llm_end(
        self, response: LLMResult, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """A model has answered."""
        answered = [one for batch in response.generations for one in batch]
        more: dict[str, Any] = {"status": "completed", **_tokens_of(response)}
        if self._outputs:
            messages = [getattr(one, "message", None) for one in answered]
            more["outputs"] = [
                _cut(one.text) if message is None else _said(message)
                for one, message in zip(answered, messages, strict=True)
            ]
        self._ends(LLM_ENDED, run_id, parent_run_id, "step_name", more)

    def on_llm_error(
        self,
        error: BaseException,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """A model failed."""
        more = {"step_id": str(run_id), "error": _told(error)}
        self._ends(EventType.ERROR_OCCURRED, run_id, parent_run_id, "step_name", more)

    def on_tool_start(
        self,
        serialized: dict[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A tool begins."""
        name = _name_of(serialized, kwargs)
        more: dict[str, Any] = {"tool_name": name, "tool_call_id": kwargs.get("tool_call_id")}
        if self._prompts:
            more["input_data"] = _cut(input_str)
        self._begins(TOOL_STARTED, name, more, run_id, parent_run_id, metadata or {})

    def on_tool_end(
        self, output: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """A tool has answered."""
        more: dict[str, Any] = {"status": "completed"}
        if self._outputs:
            is_message = isinstance(output, BaseMessage)
            more["output_data"] = (
                _said(output) if is_message else _json.project(output, longest=_LONGEST_TEXT)
            )
        self._ends(EventType.TOOL_EXECUTED, run_id, parent_run_id, "tool_name", more)

    def on_tool_error(
        self,
        error: BaseException,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """A tool failed, unless it asks."""
        is_question = isinstance(error, GraphBubbleUp)
        more = {"status": "asked"} if is_question else _failed(error)
        self._ends(EventType.TOOL_EXECUTED, run_id, parent_run_id, "tool_name", more)

    def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: dict[str, Any],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """A graph, a node or a chain begins; it is no event."""
        self._note_root(run_id, parent_run_id)

    def on_chain_end(
        self,
        outputs: dict[str, Any],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """It ends: with the outermost one all of the run's events are appended."""
        self._end_run(run_id, parent_run_id)

    def on_chain_error(
        self,
        error: BaseException,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """As on_chain_end."""
        self._end_run(run_id, parent_run_id)

    # Inside

    def _model_begins(
        self,
        serialized: Mapping[str, Any] | None,
        texts: Sequence[Any],
        run_id: UUID,
        parent_run_id: UUID | None,
        metadata: Mapping[str, Any],
        given: Mapping[str, Any],
    ) -> None:
        model = metadata.get("ls_model_name")
        name = _json.shown(model) if model else _name_of(serialized, given)
        more: dict[str, Any] = {"step_name": name}
        if self._prompts:
            more["prompts"] = list(texts)
        self._begins(LLM_STARTED, name, more, run_id, parent_run_id, metadata)

    def _begins(
        self,
        event_type: EventType,
        name: str,
        data: Mapping[str, Any],
        run_id: UUID,
        parent_run_id: UUID | None,
        metadata: Mapping[str, Any],
    ) -> None:
        root = self._note_root(run_id, parent_run_id)
        data = {"run_id": str(run_id), "node": metadata.get("langgraph_node"), **data}
        outgoing = self._outgoing(event_type, run_id, root, data)
        with self._lock:
            self._begun[run_id] = _Begun(name, time.monotonic(), outgoing)
            while len(self._begun) > _MOST_BEGUN:
                self._begun.popitem(last=False)
        self._outbox.add(outgoing)

    def _ends(
        self,
        event_type: EventType,
        run_id: UUID,
        parent_run_id: UUID | None,
        name_key: str,
        more: Mapping[str, Any],
    ) -> None:
        with self._lock:
            begun = self._begun.pop(run_id, None)
        data: dict[str, Any] = {"run_id": str(run_id)}
        if begun is not None:
            data[name_key] = begun.name
            data["execution_time_ms"] = round(1000 * (time.monotonic() - begun.at))
        root = self._note_root(run_id, parent_run_id)
        # Of where it began, also where it ends in another context.
        outgoing = self._outgoing(event_type, run_id, root, {**data, **more}, begun)
        self._outbox.add(outgoing)
        self._end_run(run_id, parent_run_id)

    def _note_root(self, run_id: UUID, parent_run_id: UUID | None) -> UUID:
        with self._lock:
            root = run_id if parent_run_id is None else self._roots.get(parent_run_id)
            self._roots[run_id] = root or parent_run_id or run_id
            while len(self._roots) > 10 * _MOST_BEGUN:
                self._roots.popitem(last=False)
            return self._roots[run_id]

    def _end_run(self, run_id: UUID, parent_run_id: UUID | None) -> None:
        with self._lock:
            self._roots.pop(run_id, None)
        if parent_run_id is None:
            self._outbox.flush()

    def _outgoing(
        self,
        event_type: EventType,
        run_id: UUID,
        root: UUID,
        data: Mapping[str, Any],
        begun: _Begun | None = None,
    ) -> Outgoing:
        """An event that knows its run; its id is that of the call, so that it is stored once."""
        made = AgentEvent(
            event_type=event_type,
            event_id=str(uuid5(NAMESPACE_OID, f"{run_id}:{event_type.value}")),
            event_data=_json.project({k: v for k, v in data.items() if v is not None}),
        )
        if begun is not None:
            first = begun.outgoing.event
            return Outgoing(begun.outgoing.tenant_id, _like(made, first))
        run = RunContext.current()
        thread = None if run is None else thread_of(run)
        aggregate_id, kind = self._aggregate
        if aggregate_id is None:
            aggregate_id, kind = (thread, kind) if thread is not None else (str(root), "run")
        tenant_id = self._store._tenant_id()
        of = of_run(made, run, tenant_id)
        named = replace(
            made,
            aggregate_id=aggregate_id,
            aggregate_type=kind,
            correlation_id=of.correlation_id,
            causation_id=of.causation_id,
            session_id=of.session_id,
            checkpoint_id=of.checkpoint_id,
        )
        return Outgoing(tenant_id, named)


def _like(event: AgentEvent, first: AgentEvent) -> AgentEvent:
    """The end of a call, of which `first` was the begin, and is the cause."""
    return replace(
        event,
        aggregate_id=first.aggregate_id,
        aggregate_type=first.aggregate_type,
        correlation_id=first.correlation_id,
        causation_id=first.event_id,
        session_id=first.session_id,
        checkpoint_id=first.checkpoint_id,
    )


def _name_of(serialized: Mapping[str, Any] | None, given: Mapping[str, Any]) -> str:
    """What the called thing is called: as LangChain says, else its class."""
    name = given.get("name") or (serialized or {}).get("name")
    if not name:
        path = (serialized or {}).get("id") or ["unknown"]
        name = path[-1]
    return _json.shown(name)


def _tokens_of(response: LLMResult) -> dict[str, Any]:
    """input_tokens, output_tokens and total_tokens, and the model that counted them."""
    found: dict[str, Any] = {}
    for one in (one for batch in response.generations for one in batch):
        message = getattr(one, "message", None)
        usage = _mapping(getattr(message, "usage_metadata", None))
        for key in _OF_COMPLETIONS:
            if isinstance(usage.get(key), int):
                found[key] = found.get(key, 0) + usage[key]
        model = _mapping(getattr(message, "response_metadata", None)).get("model_name")
        if isinstance(model, str):
            found["model"] = model
    if "total_tokens" in found:
        return found
    usage = _mapping((response.llm_output or {}).get("token_usage"))
    for key, name in _OF_COMPLETIONS.items():
        if isinstance(usage.get(name), int):
            found[key] = usage[name]
    return found


def _mapping(value: object) -> Mapping[str, Any]:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


# What chat models count, by the names of models that aren't.
_OF_COMPLETIONS = {
    "input_tokens": "prompt_tokens",
    "output_tokens": "completion_tokens",
    "total_tokens": "total_tokens",
}


def _said(message: BaseMessage) -> dict[str, Any]:
    told = {"role": _message_text.role_of(message), "text": _cut(_message_text.text_of(message))}
    calls = _message_text.metadata_of(message).get("tool_calls")
    return told if calls is None else {**told, "tool_calls": calls}


def _cut(text: Any) -> str:
    return _json.clean_text(_json.shown(text)[:_LONGEST_TEXT])


def _failed(error: BaseException) -> dict[str, str]:
    return {"status": "failed", "error_message": _told(error)}


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {_json.clean_text(_json.shown(error))[:_LONGEST_ERROR]}"
