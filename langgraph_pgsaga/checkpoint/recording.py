"""What a saver tells of its calls, and the rows of the events that come of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, CheckpointMetadata
from langgraph.checkpoint.serde.types import ERROR

from langgraph_pgsaga import _json, _langgraph
from langgraph_pgsaga.checkpoint.run_tracker import CANCELLED
from langgraph_pgsaga.database import Database
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.threads import Address, configurable_of
from langgraph_pgsaga.work import NewEvent, StepRecorder, ToldError, ToldPut

# The channel whose messages are told of.
MESSAGES_CHANNEL = "messages"
_LONGEST_ERROR = 2000


def checked_log(events: Any, db: Database) -> StepRecorder | None:
    """The recorder of `PostgresSaver(events=...)`."""
    if events is None:
        return None
    recorder: StepRecorder | None = getattr(events, "step_recorder", None)
    of_log = getattr(events, "db", None)
    if recorder is None or not isinstance(of_log, Database):
        problem = f"must be an EventStore, not {_json.shown(type(events).__name__)}"
        raise InvalidArgumentError(argument="events", problem=problem)
    if not of_log.has_tables_of(db):
        problem = (
            f"are in {of_log!r}, and the checkpoints in {db!r}: one commit has both only in one "
            "database. Pass EventStore(db) of the saver's own"
        )
        raise InvalidArgumentError(argument="events", problem=problem)
    if db.distributed:
        problem = "can't be stored with checkpoints where the tables are on several servers"
        raise InvalidArgumentError(argument="events", problem=problem)
    return recorder


def told_put(
    address: Address,
    config: RunnableConfig,
    checkpoint_id: str,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
    session: Sequence[Any],
) -> ToldPut:
    """A `put`, whose session's user and type of agent come first in `session`."""
    names = {_langgraph.shown_name(channel) for channel in new_versions}
    step = metadata.get("step")
    return ToldPut(
        **_place(address, config, checkpoint_id),
        parent_id=address.checkpoint_id,
        source=metadata.get("source"),
        step=step if isinstance(step, int) else None,
        channels=sorted(name for name in names if name is not None),
        user_id=session[0],
        agent_type=session[1],
    )


def told_error(
    address: Address,
    config: RunnableConfig,
    checkpoint_id: str,
    writes: Sequence[tuple[str, Any]],
    task_id: str,
    task_path: str,
    *,
    readable: bool,
) -> ToldError | None:
    """The error among a `put_writes`; None where there is none, or it was cancelled.

    Only its type is told where nothing may stand in clear.
    """
    error = next((value for channel, value in writes if channel == ERROR), None)
    if error is None or isinstance(error, CANCELLED):
        return None
    said = type(error).__name__
    if readable:
        said = f"{said}: {_json.clean_text(_json.shown(error))[:_LONGEST_ERROR]}"
    return ToldError(
        **_place(address, config, checkpoint_id),
        task_id=task_id,
        node=_langgraph.node_of_path(task_path),
        error=said,
    )


def _place(address: Address, config: RunnableConfig, checkpoint_id: str) -> dict[str, Any]:
    run_id = _run_id(config)
    return {
        "thread_id": address.thread_id,
        "tenant_id": address.tenant_id,
        "session_id": address.session_id,
        "checkpoint_ns": address.stored_ns,
        "checkpoint_id": checkpoint_id,
        "run_id": None if run_id is None else _json.shown(run_id),
    }


def _run_id(config: RunnableConfig) -> Any:
    given: tuple[Mapping[str, Any], ...] = (
        configurable_of(config),
        config.get("metadata") or {},
        config,
    )
    return next((one["run_id"] for one in given if one.get("run_id") is not None), None)


def sorted_rows(
    found: Iterable[tuple[UUID, bool, Sequence[NewEvent]]],
) -> list[tuple[Any, ...]]:
    """The events of calls (session, whether it has to be as expected, events) as rows.

    By aggregate, so that no two statements wait for each other; one's in their order.
    """
    rows = [
        (session_id, depends, *event) for session_id, depends, events in found for event in events
    ]
    rows.sort(key=lambda row: row[2:5])
    return rows
