"""A proxy in front of the server that takes its time, in a process of its own.

    python -m benchmarks.network HOST PORT ONE_WAY_SECONDS

HOST may be the folder of a Unix socket. It prints the port on which it listens, and ends
with its standard input.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

_ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def delayed(dsn: str, one_way_seconds: float) -> Iterator[str]:
    """The DSN of the same server behind so much delay each way."""
    url = urlsplit(dsn)
    options = dict(parse_qsl(url.query))
    host, port = url.hostname or options.get("host"), url.port or options.get("port", "5432")
    command = [sys.executable, "-m", "benchmarks.network"]
    process = subprocess.Popen(
        [*command, str(host or "localhost"), str(port), str(one_way_seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
    )
    with process:
        assert process.stdin
        assert process.stdout
        listening = process.stdout.readline().strip()
        kept = {k: v for k, v in options.items() if k not in ("host", "port", "sslmode")}
        query = urlencode({**kept, "sslmode": "disable"})
        login = url.netloc.rpartition("@")[0]
        yield urlunsplit((url.scheme, f"{login}@127.0.0.1:{listening}", url.path, query, ""))
        process.stdin.close()


async def _serve(host: str, port: int, delay: float) -> None:
    async def connected(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        if host.startswith("/"):
            server, to_server = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            server, to_server = await asyncio.open_connection(host, port)
        ways = (_pass_on(client, to_server, delay), _pass_on(server, to_client, delay))
        with suppress(asyncio.CancelledError):  # at the end, with connections still open
            await asyncio.gather(*ways, return_exceptions=True)

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(listening.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, sys.stdin.read)


async def _pass_on(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, delay: float
) -> None:
    """All that comes, in order, each piece so much later."""
    loop = asyncio.get_running_loop()
    while data := await source.read(1 << 16):
        loop.call_later(delay, target.write, data)
    loop.call_later(delay, target.close)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
