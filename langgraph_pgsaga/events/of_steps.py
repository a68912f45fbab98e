"""The events of a saver's calls: made here, and appended by the statement that stores the call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from langgraph_pgsaga import _json
from langgraph_pgsaga.events.condition import LONGEST_NAME_BYTES, aggregate_id_of
from langgraph_pgsaga.events.event import EventType
from langgraph_pgsaga.events.handlers import Handlers
from langgraph_pgsaga.events.news import News
from langgraph_pgsaga.threads import SessionStatus
from langgraph_pgsaga.work import (
    NewEvent,
    ToldCall,
    ToldError,
    ToldMessage,
    ToldPut,
)

SESSION = "session"
TOLD_TYPES = (
    *(EventType.SESSION_CREATED, EventType.MESSAGE_RECEIVED),
    *(EventType.STATE_UPDATED, EventType.ERROR_OCCURRED),
)


class StepEvents:
    """A `work.StepRecorder`: what a thread's checkpoints and errors are as events.

    They are of the aggregate `session` that has the thread's id (`aggregate_id_of`), and of the
    thread's tenant. Their ids are derived from those of session, checkpoint and message, so that
    a call that is stored again adds none; an error is one for each time that it is told of.
    """

    def __init__(self, handlers: Handlers, news: News) -> None:
        self._handlers = handlers
        self._news = news

    async def prepare(self, tenant_id: str) -> None:
        """Handlers get what is stored from here on."""
        await self._handlers.prepare(tenant_id)

    def note_stored(self, tenant_ids: Iterable[str]) -> None:
        """Handlers and consumers look at once."""
        self._news.tell()
        for tenant_id in tenant_ids:
            self._handlers.wake(tenant_id)

    def of_put(
        self,
        put: ToldPut,
        status: SessionStatus | None,
        session_no: int,
        messages: Sequence[ToldMessage],
    ) -> list[NewEvent]:
        """Of a checkpoint: session_created where it is the thread's first, a message_received
        for each new message, and state_updated."""
        found: list[NewEvent] = []
        if put.begins_thread:
            said: dict[str, Any] = {"user_id": put.user_id, "agent_type": put.agent_type}
            found.append(_event(put, EventType.SESSION_CREATED, said, f"{session_no}"))
        for message in messages:
            said = {
                "message_no": message.message_no,
                "message_id": message.message_id,
                "message_type": message.message_type,
                "role": message.role,
                "checkpoint_ns": put.checkpoint_ns,
            }
            named = f"{session_no}:{message.digest.hex()}"
            found.append(_event(put, EventType.MESSAGE_RECEIVED, said, named))
        said = {
            "step_id": put.checkpoint_id,
            "step": put.step,
            "source": put.source,
            "status": None if status is None else status.value,
            "channels": put.channels,
            "checkpoint_ns": put.checkpoint_ns,
            "parent_checkpoint_id": put.parent_id,
        }
        named = f"{session_no}:{put.checkpoint_ns}:{put.checkpoint_id}"
        found.append(_event(put, EventType.STATE_UPDATED, said, named))
        return found

    def of_error(self, error: ToldError) -> list[NewEvent]:
        """Of a task that failed: error_occurred."""
        said = {
            "step_id": error.task_id,
            "step_name": error.node,
            "error": error.error,
            "checkpoint_ns": error.checkpoint_ns,
        }
        return [_event(error, EventType.ERROR_OCCURRED, said, error.occurrence)]


def _event(call: ToldCall, event_type: EventType, said: Mapping[str, Any], named: str) -> NewEvent:
    thread = aggregate_id_of(call.thread_id, call.tenant_id)
    data = {key: value for key, value in said.items() if value not in (None, "")}
    return NewEvent(
        tenant_id=call.tenant_id,
        aggregate_id=thread,
        aggregate_type=SESSION,
        event_id=str(uuid5(NAMESPACE_OID, f"{call.session_id}:{event_type.value}:{named}")),
        event_type=event_type.value,
        event_data=_json.dump(_json.project(data)),
        correlation_id=thread,
        causation_id=_cause(call),
        checkpoint_id=call.checkpoint_id,
        happened_at=call.at,
    )


def _cause(call: ToldCall) -> str | None:
    """The run, or the checkpoint before, where an index takes it."""
    found = call.run_id or (call.parent_id if isinstance(call, ToldPut) else call.checkpoint_id)
    return found if found and len(found.encode()) <= LONGEST_NAME_BYTES else None
