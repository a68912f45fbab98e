"""What a saver tells of its calls to a log that records them, in the statement that stores them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple, Protocol
from uuid import UUID, uuid4

from langgraph_pgsaga.database import Database
from langgraph_pgsaga.threads import SessionStatus


def _now() -> datetime:
    return datetime.now(UTC)


def _new_id() -> str:
    return uuid4().hex


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldCall:
    """Where a call stores, and when it was made."""

    thread_id: str
    tenant_id: str
    session_id: UUID
    checkpoint_ns: str
    checkpoint_id: str
    run_id: str | None
    at: datetime = field(default_factory=_now)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldPut(ToldCall):
    """A checkpoint. `channels` are the parts of the graph's state that are new in it."""

    parent_id: str | None
    source: str | None
    step: int | None
    channels: Sequence[str]
    user_id: str
    agent_type: str

    @property
    def begins_thread(self) -> bool:
        """Whether it is the graph's own, and below none."""
        return self.parent_id is None and not self.checkpoint_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldError(ToldCall):
    """A task that failed. `node` is None where LangGraph doesn't say it.

    `occurrence` tells it from other errors of the task, which is executed again at the same
    checkpoint.
    """

    task_id: str
    node: str | None
    error: str
    occurrence: str = field(default_factory=_new_id)


class ToldMessage(NamedTuple):
    """A message that is new to its session; of an encrypted one only its number and digest."""

    message_no: int
    digest: bytes
    message_id: str | None
    message_type: str
    role: str


class NewEvent(NamedTuple):
    """A row of pgsaga_new_event, behind the two columns that are the saver's."""

    tenant_id: str
    aggregate_id: str
    aggregate_type: str
    event_id: str
    event_type: str
    event_data: str
    correlation_id: str | None
    causation_id: str | None
    checkpoint_id: str
    happened_at: datetime


class StepRecorder(Protocol):
    """Makes the events of calls. Told the same again it makes the same: a statement that was
    repeated, or made anew, adds none."""

    async def prepare(self, tenant_id: str) -> None:
        """What has to be done before events of a tenant are stored."""

    def note_stored(self, tenant_ids: Iterable[str]) -> None:
        """Events of these tenants are committed."""

    def of_put(
        self,
        put: ToldPut,
        status: SessionStatus | None,
        session_no: int,
        messages: Sequence[ToldMessage],
    ) -> Sequence[NewEvent]:
        """Those of a checkpoint, which leaves its thread at `status`.

        `session_no` is the same for as long as the session isn't deleted.
        """

    def of_error(self, error: ToldError) -> Sequence[NewEvent]:
        """Those of a task that failed."""


class RecordsSteps(Protocol):
    """A log that a saver's calls can be recorded in, such as an EventStore."""

    @property
    def db(self) -> Database:
        """Where the log is."""

    @property
    def step_recorder(self) -> StepRecorder:
        """What makes its events."""
