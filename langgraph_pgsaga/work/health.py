"""How a worker is, over HTTP: /healthz for what restarts it, /metrics for Prometheus."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from langgraph_pgsaga.work.worker import Worker, WorkerStatus

_REQUEST_SECONDS = 5.0
_LONGEST_REQUEST_BYTES = 8192
# What is no request, or one whose sender has gone.
_NO_REQUEST = (
    OSError,
    TimeoutError,
    ValueError,
    IndexError,
    asyncio.IncompleteReadError,
    asyncio.LimitOverrunError,
)
_TEXT = "text/plain; version=0.0.4; charset=utf-8"


@asynccontextmanager
async def serve_health(worker: Worker, host: str, port: int) -> AsyncIterator[int]:
    """Answers on the port (0: one that is free, which it gives) for as long as the block lasts."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(*_NO_REQUEST):
            async with asyncio.timeout(_REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_answered(head.split(b" ")[1].decode(), worker.status))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, host, port, limit=_LONGEST_REQUEST_BYTES)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


def _answered(path: str, status: WorkerStatus | None) -> bytes:
    """The response to a request for a path."""
    route = path.partition("?")[0]
    if route == "/healthz":
        is_well = status is not None and status.is_working
        return _response(200 if is_well else 503, "application/json", json.dumps(_health(status)))
    if route == "/metrics":
        return _response(200, _TEXT, _metrics(status))
    return _response(404, _TEXT, "/healthz and /metrics are what there is\n")


def _response(code: int, kind: str, text: str) -> bytes:
    reason = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}[code]
    body = text.encode()
    head = f"HTTP/1.1 {code} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}"
    return f"{head}\r\nConnection: close\r\n\r\n".encode() + body


def _health(status: WorkerStatus | None) -> dict[str, object]:
    if status is None:
        return {"status": "ended"}
    word = "draining" if status.is_draining else "working" if status.is_working else "stuck"
    return {
        "status": word,
        "worker_id": str(status.worker_id),
        "heard_seconds": round(status.heard_seconds, 1),
    }


def _metrics(status: WorkerStatus | None) -> str:
    """Prometheus' text format."""
    lines = ["# TYPE pgsaga_worker_up gauge", f"pgsaga_worker_up {int(status is not None)}"]
    if status is not None:
        for name, value in (
            ("pgsaga_worker_draining", int(status.is_draining)),
            ("pgsaga_worker_listening", int(status.is_listening)),
            ("pgsaga_worker_server_heard_seconds", round(status.heard_seconds, 3)),
        ):
            lines += [f"# TYPE {name} gauge", f"{name} {value}"]
        lines.append("# TYPE pgsaga_job_running gauge")
        lines += [f"pgsaga_job_running{{{_label(j.name)}}} {j.running}" for j in status.jobs]
        lines.append("# TYPE pgsaga_job_runs_total counter")
        for job in status.jobs:
            for outcome in ("done", "failed", "lost", "given_back"):
                labels = f'{_label(job.name)},outcome="{outcome}"'
                lines.append(f"pgsaga_job_runs_total{{{labels}}} {getattr(job, outcome)}")
    return "\n".join(lines) + "\n"


def _label(job: str) -> str:
    escaped = job.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'job="{escaped}"'
