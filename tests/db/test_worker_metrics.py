"""A worker's figures: in a registry of the application's, and on the worker's own port."""

from __future__ import annotations

import asyncio
import sys
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from langgraph_pgsaga import Database
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.work import Worker, WorkerMetrics, serve_health
from tests import _chores
from tests._chores import Chores
from tests._limits import HANG_SECONDS

pytestmark = pytest.mark.anyio


def got(port: int) -> tuple[int, str]:
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=HANG_SECONDS) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


async def test_an_application_adds_them_to_its_own(dsn: str) -> None:
    """As they are when they are asked for, also once the worker has ended."""
    await _chores.make(dsn, 3)
    registry = CollectorRegistry()
    outcome = {"job": "chores", "outcome": "done"}
    async with Database(dsn) as db:
        worker = Worker(db, Chores())
        registry.register(WorkerMetrics(worker))
        assert registry.get_sample_value("pgsaga_worker_up") == 0
        async with worker:
            assert registry.get_sample_value("pgsaga_worker_up") == 1
            await _chores.all_done(dsn)
            async with asyncio.timeout(HANG_SECONDS):
                while registry.get_sample_value("pgsaga_job_runs_total", outcome) != 3:
                    await asyncio.sleep(0.01)
            assert registry.get_sample_value("pgsaga_job_running", {"job": "chores"}) == 0
            assert registry.get_sample_value("pgsaga_worker_draining") == 0
        assert registry.get_sample_value("pgsaga_worker_up") == 0


async def test_a_name_of_a_job_is_a_label_whatever_is_in_it(dsn: str) -> None:
    odd = 'a "b"\\ \n c'
    async with Database(dsn) as db:
        chores = Chores()
        chores.name = odd
        worker = Worker(db, chores)
        async with worker, serve_health(worker, "127.0.0.1", 0) as port:
            status, text = await asyncio.to_thread(got, port)
    assert status == 200
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {sample.labels["job"] for sample in families["pgsaga_job_runs"].samples} == {odd}


async def test_without_the_package_it_is_told_what_to_install(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    async with Database(dsn) as db:
        worker: Any = Worker(db, Chores())
        with pytest.raises(InvalidArgumentError, match=r"langgraph-pgsaga\[metrics\]"):
            WorkerMetrics(worker)
        async with worker, serve_health(worker, "127.0.0.1", 0) as port:
            status, text = await asyncio.to_thread(got, port)
    assert (status, "[metrics]" in text) == (501, True)
