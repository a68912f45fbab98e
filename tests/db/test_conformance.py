"""The saver against langgraph-checkpoint-conformance, in every way it can be driven."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.report import CapabilityReport
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from langgraph_pgsaga import Database, PostgresSaver
from langgraph_pgsaga.tenants import TenantScope
from tests._connections import connected

pytestmark = pytest.mark.anyio
T = TypeVar("T")

CAPABILITIES = {
    "put",
    "put_writes",
    "get_tuple",
    "list",
    "delete_thread",
    "delete_for_runs",
    "copy_thread",
    "prune",
}


class BlockingSaver(PostgresSaver):
    """Its async methods call the sync ones on the running loop, as a notebook cell does."""

    def __init__(self, db: Database, **options: Any) -> None:
        super().__init__(db, **options)
        # The sync methods run the async ones, so this class can't call its own.
        self._sync = PostgresSaver(db, **options)

    async def _drive(self, method: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return method(*args, **kwargs)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return await self._drive(self._sync.get_tuple, config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
        tenant: TenantScope = None,
    ) -> AsyncIterator[CheckpointTuple]:
        options: dict[str, Any] = {"filter": filter, "before": before, "tenant": tenant}

        def listed() -> Sequence[CheckpointTuple]:
            return [*self._sync.list(config, limit=limit, **options)]

        for found in await self._drive(listed):
            yield found

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
        **_: Any,
    ) -> RunnableConfig:
        return await self._drive(self._sync.put, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
        **_: Any,
    ) -> None:
        await self._drive(self._sync.put_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str, **_: Any) -> None:
        await self._drive(self._sync.delete_thread, thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str], **_: Any) -> None:
        await self._drive(self._sync.delete_for_runs, run_ids)

    async def acopy_thread(
        self,
        source_thread_id: str,
        target_thread_id: str,
        *,
        checkpoint_id: str | None = None,
        **_: Any,
    ) -> None:
        await self._drive(
            self._sync.copy_thread, source_thread_id, target_thread_id, checkpoint_id=checkpoint_id
        )

    async def aprune(
        self, thread_ids: Sequence[str], *, strategy: str = "keep_latest", **_: Any
    ) -> None:
        await self._drive(self._sync.prune, thread_ids, strategy=strategy)


class ThreadedSaver(BlockingSaver):
    """Its async methods call the sync ones on worker threads."""

    async def _drive(self, method: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return await asyncio.to_thread(method, *args, **kwargs)


async def conformance_of(
    open_saver: Callable[[], PostgresSaver], setup: Callable[[PostgresSaver], Awaitable[None]]
) -> CapabilityReport:
    """The package's report, with a saver of its own for each capability."""

    @checkpointer_test(name="PostgresSaver")
    async def savers() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        async with open_saver() as saver:
            await setup(saver)
            yield saver

    return await validate(savers)


def assert_conforms(report: CapabilityReport) -> None:
    """All eight capabilities are there and pass; none is skipped."""
    assert set(report.results) == CAPABILITIES
    for name, result in report.results.items():
        assert result.detected, name
        assert result.failures == [], name
        assert result.passed is True, name
        assert (result.tests_failed, result.tests_skipped) == (0, 0), name
        assert result.tests_passed > 0, name


async def already_set_up(_saver: PostgresSaver) -> None:
    """For databases that are migrated."""


async def set_up(saver: PostgresSaver) -> None:
    await saver.asetup()


@pytest.mark.parametrize("saver_class", [PostgresSaver, ThreadedSaver, BlockingSaver])
async def test_conforms_however_it_is_driven(dsn: str, saver_class: type[PostgresSaver]) -> None:
    """Async, sync on worker threads, and sync on the running loop pass all eight capabilities."""
    report = await conformance_of(lambda: saver_class.from_conn_string(dsn), already_set_up)
    assert_conforms(report)


async def test_conforms_in_a_schema_of_an_odd_name(empty_dsn: str) -> None:
    """A schema whose name needs quoting everywhere passes all eight capabilities."""
    schema = 'my "odd" schéma'
    report = await conformance_of(
        lambda: PostgresSaver.from_conn_string(empty_dsn, schema=schema), set_up
    )
    assert_conforms(report)


@pytest.mark.parametrize(
    "options",
    [
        {"pooler": True},
        {"distributed": True},
        {"strict": True},
        {"encrypted": True},
        {"encrypted": True, "strict": True},
    ],
    ids=["pooler", "distributed", "strict", "encrypted", "encrypted-strict"],
)
async def test_conforms_with_each_option(dsn: str, options: dict[str, bool]) -> None:
    """A pooler, distributed tables' statements, strictness and encryption pass all eight."""
    encrypted = "encrypted" in options
    given: dict[str, Any] = {k: v for k, v in options.items() if k != "encrypted"}
    if encrypted:
        given["serde"] = EncryptedSerializer.from_pycryptodome_aes(key=b"0" * 16)
    report = await conformance_of(
        lambda: PostgresSaver.from_conn_string(dsn, **given), already_set_up
    )
    assert_conforms(report)
    async with connected(dsn) as conn:
        types = await conn.fetch("select distinct type from agent_state_values")
    # What the option is about did happen: with the key every value is sealed, without none.
    assert types
    assert all(("+aes" in row["type"]) is encrypted for row in types)
