"""The server itself: its data, its start and stop, and where it listens."""

from __future__ import annotations

import hashlib
import os
import secrets
import shlex
import shutil
import socket
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from langgraph_pgsaga.embedded._folder import Folder, read
from langgraph_pgsaga.embedded._processes import forget_reused_pid, is_postgres
from langgraph_pgsaga.embedded._programs import READY_SECONDS, Programs

_TCP = sys.platform == "win32"  # a port and a password, where a socket's file can't be private
_PORT = 5432  # names the socket's file; nothing listens on it
_LONGEST_SOCKET = 103  # bytes: macOS's sun_path, the shortest
_LOG_LINES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class _Postmaster:
    """A server, as its postmaster.pid describes it."""

    port: int
    socket_dir: Path
    status: str  # starting, ready, stopping

    def accepts(self) -> bool:
        """Whether its socket or port takes connections; true also if it is only busy."""
        try:
            self._connect()
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except (BlockingIOError, TimeoutError):
            pass
        return True

    def _connect(self) -> None:
        if _TCP:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
            return
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(str(self.socket_dir / f".s.PGSQL.{self.port}"))


class Postgres:
    """The server of one folder. Call its methods under the folder's lock."""

    def __init__(self, folder: Folder, programs: Programs) -> None:
        self._folder = folder
        self._programs = programs
        self._data = folder.path / "data"
        self._password = folder.path / "password"

    def ensure_running(self) -> str:
        """Start the server unless it runs, making its data if need be; return its DSN.

        Waits for one that is starting or stopping.
        """
        self._init_data()
        deadline = time.monotonic() + READY_SECONDS
        while postmaster := self._postmaster():
            if postmaster.status == "ready":
                return self._dsn(postmaster)
            if time.monotonic() > deadline:
                raise self._folder.error(f"still {postmaster.status} after {READY_SECONDS} seconds")
            time.sleep(0.05)
        self._start()
        started = self._postmaster()
        if started is None:
            raise self._folder.error("PostgreSQL ended right after its start" + self._log_tail())
        return self._dsn(started)

    def stop(self) -> None:
        """Stop the server if it runs."""
        postmaster = self._postmaster()
        if postmaster is None:
            return
        code, output = self._pg_ctl("stop", "-m", "fast")
        if code:
            raise self._folder.error(f"PostgreSQL didn't stop: {output}")
        if postmaster.socket_dir != self._folder.run:
            with suppress(OSError):
                postmaster.socket_dir.rmdir()

    def _init_data(self) -> None:
        """Make the cluster, whole or not at all: an initdb cut short leaves only data.new.

        The locale is PostgreSQL's own C.UTF-8, the same on every platform. Only what parts
        words in full-text search is asked of the system's: with its C, which is what stays
        where it has no C.UTF-8, quotation marks and dashes beyond ASCII are letters. Without
        --no-sync: that saves 50 ms once, and a crash soon after could cost the data.
        """
        if self._data.exists():
            return
        code, output = self._initdb("C.UTF-8")
        if code:
            code, output = self._initdb("C")
        if code:
            raise self._folder.error(f"initdb failed:\n{output}")
        (self._folder.path / "data.new").rename(self._data)

    def _initdb(self, character_types: str) -> tuple[int, str]:
        fresh = self._folder.path / "data.new"
        if fresh.exists():
            shutil.rmtree(fresh)
        self._folder.make_private(fresh)
        arguments = ["--pgdata=data.new", "--username=postgres", "--encoding=UTF8"]
        arguments += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        arguments += [f"--lc-ctype={character_types}", "--set=max_connections=200"]
        if _TCP:
            self._password.write_text(secrets.token_hex(24))
            arguments += ["--auth=scram-sha-256", f"--pwfile={self._password.name}"]
        else:
            arguments += ["--auth-local=trust", "--auth-host=reject"]
        return self._programs.run("initdb", *arguments)

    def _start(self) -> None:
        forget_reused_pid(self._data / "postmaster.pid")
        log_size = self._folder.log.stat().st_size
        settings = _port_settings() if _TCP else self._socket_settings()
        options = shlex.join(word for setting in settings for word in ("-c", setting))
        code, output = self._pg_ctl("start", "-l", self._folder.log.name, "-o", options)
        if code:
            raise self._folder.error(f"PostgreSQL didn't start: {output}{self._log_tail(log_size)}")

    def _pg_ctl(self, action: str, *arguments: str) -> tuple[int, str]:
        wait = ("-w", "-t", str(READY_SECONDS))
        return self._programs.run("pg_ctl", action, "-D", self._data.name, *wait, *arguments)

    def _socket_settings(self) -> list[str]:
        folder = self._socket_dir()
        forget_reused_pid(folder / f".s.PGSQL.{_PORT}.lock")
        # A list: quoted, but for run/, which as a relative path stays right if moved.
        own = folder == self._folder.run
        quoted = "../run" if own else '"' + str(folder).replace('"', '""') + '"'
        settings = ["listen_addresses=", f"port={_PORT}", "unix_socket_permissions=0700"]
        return [*settings, f"unix_socket_directories={quoted}"]

    def _socket_dir(self) -> Path:
        """run/, or a private folder for temporary files.

        The latter if the path is longer than a socket's may be, or has a comma, which
        drivers take for the end of a host's name.
        """
        own = self._folder.run
        length = len(os.fsencode(own / f".s.PGSQL.{_PORT}"))
        if length <= _LONGEST_SOCKET and "," not in str(own):
            return own
        path = self._folder.path
        key = f"{path.stat().st_uid}-".encode() + os.fsencode(path)
        name = f"pgsaga-{hashlib.sha256(key).hexdigest()[:24]}"
        folder = Path(tempfile.gettempdir()).resolve() / name
        self._folder.require_reach(folder.parent)
        self._folder.make_private(folder)
        return folder

    def _postmaster(self) -> _Postmaster | None:
        """The server that runs on the data, if any. Its pid file may well be stale."""
        lines = read(self._data / "postmaster.pid").splitlines()
        if len(lines) < 5 or not is_postgres(int(lines[0])):
            return None
        postmaster = _Postmaster(
            port=int(lines[3]),
            socket_dir=(self._data / lines[4]).resolve(),
            status=lines[7].strip() if len(lines) > 7 else "starting",
        )
        return postmaster if postmaster.accepts() else None

    def _log_tail(self, start: int = 0) -> str:
        with self._folder.log.open("rb") as log:
            log.seek(start)
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join([f"\nThe last lines of {self._folder.log}:", *lines[-_LOG_LINES:]])

    def _dsn(self, postmaster: _Postmaster) -> str:
        """With the port spelt out, or a PGPORT in the environment would replace it."""
        if _TCP:
            login = f"postgres:{self._password.read_text()}"
            return f"postgresql://{login}@127.0.0.1:{postmaster.port}/postgres"
        host = quote(str(postmaster.socket_dir))
        return f"postgresql://postgres@/postgres?host={host}&port={postmaster.port}"


def _port_settings() -> list[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return ["listen_addresses=127.0.0.1", f"port={free.getsockname()[1]}"]
