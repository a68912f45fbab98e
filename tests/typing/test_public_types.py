"""The public types, frozen: the type checker reads this file, and a change shows here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from typing import TYPE_CHECKING, assert_type

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    Checkpoint,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.graph import MessagesState, StateGraph

import langgraph_pgsaga
from langgraph_pgsaga import Database, PgSagaError, PostgresSaver, sync
from langgraph_pgsaga.database import Connection
from langgraph_pgsaga.sessions import (
    RetentionPolicy,
    Session,
    SessionPage,
    Sessions,
    SessionStatus,
    SweepResult,
)
from langgraph_pgsaga.takeover import ImportReport, ReadThroughSaver, ThreadReport, import_threads
from langgraph_pgsaga.work import (
    Job,
    Notifier,
    Periodic,
    Retry,
    Watch,
    Worker,
    WorkerInfo,
    WorkerStatus,
    list_workers,
)


def test_the_front_door_is_this_and_no_more() -> None:
    """What `import langgraph_pgsaga` offers changes only on purpose."""
    # Without deepagents there is no FileBackend.
    assert sorted({*langgraph_pgsaga.__all__, "FileBackend"}) == [
        "AgentMemory",
        "Database",
        "EventStore",
        "FileBackend",
        "MemoryStore",
        "Messages",
        "PgSagaError",
        "PostgresSaver",
        "ReadThroughSaver",
        "Sessions",
        "Worker",
        "__version__",
    ]
    assert issubclass(PostgresSaver, BaseCheckpointSaver)
    assert issubclass(PgSagaError, Exception)


if TYPE_CHECKING:

    def constructors(db: Database) -> None:
        assert_type(Database("dsn", schema="s", min_size=0, max_size=5, pooler=True), Database)
        assert_type(Database.embedded("path", schema="s"), Database)
        assert_type(
            PostgresSaver(db, serde=None, allow=[int, ("m", "N")], strict=True), PostgresSaver
        )
        assert_type(PostgresSaver.from_conn_string("dsn", schema="s"), PostgresSaver)
        assert_type(PostgresSaver.embedded("path", max_size=3), PostgresSaver)
        assert_type(
            PostgresSaver.from_conn_string("dsn", lock_timeout_seconds=1, lenient=True),
            PostgresSaver,
        )
        Database("dsn", max_sise=5)  # type: ignore[call-arg]
        Database.embedded(pooler="yes")  # type: ignore[arg-type]
        PostgresSaver.from_conn_string("dsn", strickt=True)  # type: ignore[call-arg]
        PostgresSaver.embedded(max_size="3")  # type: ignore[arg-type]
        assert_type(db.setup(), Awaitable[None])

    def sync_side(saver: PostgresSaver, config: RunnableConfig) -> None:
        with saver as entered:
            assert_type(entered, PostgresSaver)
        assert_type(saver.setup(), Awaitable[None])
        assert_type(saver.get(config), Checkpoint | None)
        assert_type(saver.get_tuple(config), CheckpointTuple | None)
        assert_type(saver.list(config, limit=1), Iterator[CheckpointTuple])
        assert_type(saver.get_next_version(None, None), str)
        assert_type(
            saver.get_delta_channel_history(config=config, channels=["c"]),
            Mapping[str, DeltaChannelHistory],
        )
        assert_type(saver.with_allowlist([("m", "N")]), PostgresSaver)

    async def async_side(saver: PostgresSaver, config: RunnableConfig) -> None:
        async with saver as entered:
            assert_type(entered, PostgresSaver)
        assert_type(await saver.asetup(), None)
        assert_type(await saver.setup(), None)
        assert_type(await saver.aget_tuple(config), CheckpointTuple | None)
        assert_type(saver.alist(config), AsyncIterator[CheckpointTuple])
        assert_type(saver.aget_iter(config), AsyncIterator[CheckpointTuple])
        assert_type(await saver.aput_writes(config, [("c", 1)], "task"), None)
        async with saver.db.transaction() as conn:
            assert_type(conn, Connection)

    async def taking_over(old: BaseCheckpointSaver[str], saver: PostgresSaver) -> None:
        report = await import_threads(old, saver, thread_ids=["t"], batch=9, dry_run=True)
        assert_type(report, ImportReport)
        assert_type(report.failed, tuple[ThreadReport, ...])
        assert_type(report.failed[0].errors, tuple[PgSagaError, ...])
        both = ReadThroughSaver(saver, old)
        assert_type(both.new, PostgresSaver)
        assert_type(both.get_next_version(None, None), str)

    async def async_sessions(sessions: Sessions) -> None:
        assert_type(await sessions.create("t"), Session)
        assert_type(await sessions.get("t"), Session | None)
        assert_type(await sessions.update("t", expires_at=None), Session)
        assert_type(await sessions.set_status("t", SessionStatus.PAUSED), Session)
        assert_type(await sessions.delete("t"), None)
        assert_type(await sessions.list(order="priority", after=None), SessionPage)
        assert_type(await sessions.sweep([RetentionPolicy(keep_last=1)]), SweepResult)

    def sync_sessions(sessions: sync.Sessions) -> None:
        assert_type(sessions.create("t"), Session)
        assert_type(sessions.get("t"), Session | None)
        assert_type(sessions.update("t", expires_at=None), Session)
        assert_type(sessions.set_status("t", SessionStatus.PAUSED), Session)
        assert_type(sessions.delete("t"), None)
        assert_type(sessions.list(order="priority", after=None), SessionPage)
        assert_type(sessions.sweep([RetentionPolicy(keep_last=1)]), SweepResult)

    def compiles(saver: PostgresSaver, graph: StateGraph[MessagesState]) -> None:
        graph.compile(checkpointer=saver)

    async def working(db: Database) -> None:
        job = Sessions(db).job([RetentionPolicy(keep_last=5)], every_seconds=60)
        assert_type(job, Job)
        again = Periodic(name="tidy", every_seconds=60, work=db.asetup)
        async with Worker(db, job, again, grace_seconds=5) as worker:
            assert_type(worker, Worker)
        assert_type(await worker.run(), None)
        assert_type(worker.status, WorkerStatus | None)
        assert_type(await list_workers(db), list[WorkerInfo])
        assert_type(Retry(attempts=3, on=(OSError,)).delay(1), float | None)
        assert_type(Notifier.of(db).watch("topic", worker.stop), Watch)
        Worker(db, "sweep")  # type: ignore[arg-type]
        Retry(atempts=3)  # type: ignore[call-arg]
