"""How a worker is, over HTTP: /healthz for what restarts it, /metrics for Prometheus."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.work.metrics import NEEDS_PACKAGE, metrics_text
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
                writer.write(_answered(head.split(b" ")[1].decode(), worker))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, host, port, limit=_LONGEST_REQUEST_BYTES)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


def _answered(path: str, worker: Worker) -> bytes:
    """The response to a request for a path."""
    route = path.partition("?")[0]
    if route == "/healthz":
        status = worker.status
        is_well = status is not None and status.is_working
        return _response(200 if is_well else 503, "application/json", json.dumps(_health(status)))
    if route == "/metrics":
        try:
            return _response(200, _TEXT, metrics_text(worker))
        except InvalidArgumentError:
            return _response(501, _TEXT, f"/metrics {NEEDS_PACKAGE}\n")
    return _response(404, _TEXT, "/healthz and /metrics are what there is\n")


def _response(code: int, kind: str, text: str) -> bytes:
    reason = {200: "OK", 404: "Not Found", 501: "Not Implemented", 503: "Service Unavailable"}[code]
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
        "refused": {job.name: list(job.refused) for job in status.jobs if job.refused},
    }
