"""A worker's figures for Prometheus, by the package prometheus-client (the extra "metrics")."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.work.worker import Worker

if TYPE_CHECKING:
    from prometheus_client.core import Metric

NEEDS_PACKAGE = "needs the package prometheus-client: pip install 'langgraph-pgsaga[metrics]'"
_OUTCOMES = ("done", "failed", "lost", "given_back")


class WorkerMetrics:
    """A worker as a collector of prometheus-client: `REGISTRY.register(WorkerMetrics(worker))`.

    Gauges: `pgsaga_worker_up` (0 or 1), `pgsaga_worker_draining`, `pgsaga_worker_listening`,
    `pgsaga_worker_server_heard_seconds`, and by job `pgsaga_job_running` and `pgsaga_job_refused`
    (how much it doesn't do, such as consumers that have other partitions). Counters since the
    worker began, by job and outcome (done, failed, lost, given_back): `pgsaga_job_runs_total`.

    Raises:
        InvalidArgumentError: the package isn't there.
    """

    def __init__(self, worker: Worker) -> None:
        try:
            import prometheus_client  # noqa: F401
        except ImportError as error:
            raise InvalidArgumentError(argument="worker", problem=NEEDS_PACKAGE) from error
        self._worker = worker

    def collect(self) -> Iterator[Metric]:
        """The figures as they are now."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        status = self._worker.status
        up = "Whether the worker runs."
        yield GaugeMetricFamily("pgsaga_worker_up", up, value=status is not None)
        if status is None:
            return
        for name, told, value in (
            ("draining", "Whether it begins nothing more.", status.is_draining),
            ("listening", "Whether notifications reach it.", status.is_listening),
            ("server_heard_seconds", "Since the server last answered.", status.heard_seconds),
        ):
            yield GaugeMetricFamily(f"pgsaga_worker_{name}", told, value=float(value))
        running = GaugeMetricFamily("pgsaga_job_running", "What is worked at.", labels=["job"])
        refused = GaugeMetricFamily("pgsaga_job_refused", "What isn't done.", labels=["job"])
        told = "What was worked at since the worker began."
        runs = CounterMetricFamily("pgsaga_job_runs", told, labels=["job", "outcome"])
        for job in status.jobs:
            running.add_metric([job.name], job.running)
            refused.add_metric([job.name], len(job.refused))
            for outcome in _OUTCOMES:
                runs.add_metric([job.name, outcome], getattr(job, outcome))
        yield running
        yield refused
        yield runs


def metrics_text(worker: Worker) -> str:
    """The figures in Prometheus' text format.

    Raises: as WorkerMetrics.
    """
    metrics = WorkerMetrics(worker)
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(metrics)
    return generate_latest(registry).decode()
