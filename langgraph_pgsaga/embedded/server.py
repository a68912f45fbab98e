"""What an application uses: this process's holds on the servers of folders."""

from __future__ import annotations

import atexit
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

from langgraph_pgsaga._process_bound import ProcessBound
from langgraph_pgsaga.embedded._account import server_account
from langgraph_pgsaga.embedded._default import default_path, is_elsewhere
from langgraph_pgsaga.embedded._folder import Folder, refuse_unfit
from langgraph_pgsaga.embedded._postgres import Postgres
from langgraph_pgsaga.embedded._processes import Users, exclusive
from langgraph_pgsaga.embedded._programs import find_programs, reachable_programs
from langgraph_pgsaga.errors import EmbeddedServerError

_log = logging.getLogger("langgraph_pgsaga.embedded")


class EmbeddedServer(ProcessBound):
    """This process's hold on the server of one folder. Make it with `start`.

    Several holds on one folder, in one process or in many, share one server. A forked
    child inherits no hold: it may use the parent's `dsn`, or `start` its own.
    """

    def __init__(self, cluster: _Cluster, dsn: str) -> None:
        self.path = cluster.path
        self._cluster = cluster
        self._dsn = dsn
        self._pid = os.getpid()
        self._stopped = False

    @classmethod
    def start(cls, path: str | os.PathLike[str]) -> EmbeddedServer:
        """Return once the server of the folder `path` accepts connections.

        Makes the folder and the database cluster if they aren't there; blocks for about
        a second then, and a fifth of that later. The hold ends with `stop`, with the `with`
        block or with the process.

        Raises EmbeddedServerError: the folder holds other things, belongs to someone else,
        is of another PostgreSQL version or out of reach, or the server doesn't start.
        """
        try:
            return cls._start(Path(path).expanduser().resolve())
        except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
            problem = f"{error}. Correct that, or choose another path"
            raise EmbeddedServerError(path=os.fspath(path), problem=problem) from error

    @classmethod
    def start_default(cls) -> EmbeddedServer:
        """`start` of `default_path`; one that is elsewhere is named in the log when it is made."""
        path = default_path()
        is_new = not path.exists()
        server = cls.start(path)
        if is_new and is_elsewhere(path):
            _log.warning("a server can't have .pgsaga in this folder: its data is in %s", path)
        return server

    @classmethod
    def _start(cls, path: Path) -> EmbeddedServer:
        with _here.lock:
            cluster = _here.clusters.get(path) or _Cluster(path)
            dsn = cluster.join()
            cluster.holds += 1
            _here.clusters[path] = cluster
            return cls(cluster, dsn)

    @property
    def dsn(self) -> str:
        """For asyncpg, and for libpq: superuser `postgres`, database `postgres`."""
        return self._dsn

    def stop(self) -> None:
        """End this hold; stop the server if it was the last anywhere. Again: does nothing."""
        with _here.lock:
            if self._stopped or self._pid != os.getpid():
                return
            self._stopped = True
            self._cluster.holds -= 1
            if not self._cluster.holds:
                _here.leave(self._cluster)

    def __enter__(self) -> EmbeddedServer:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


class _Cluster:
    """One folder and the server in it, as this process uses them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.holds = 0
        self._lock = path / "lock"
        self._users = Users(path / "users")
        self._postgres: Postgres | None = None

    def join(self) -> str:
        """Make sure that the server runs, count this process as a user, return the DSN."""
        refuse_unfit(self.path)
        installed = find_programs(self.path)
        folder = Folder(path=self.path, account=server_account(self.path))
        folder.make()
        with exclusive(self._lock):
            folder.lay_out()
            self._postgres = Postgres(folder, reachable_programs(installed, folder))
            dsn = self._postgres.ensure_running()
            self._users.add()
        return dsn

    def leave(self) -> None:
        """Count this process as gone, and stop the server if no other is left."""
        if self._postgres is None or not self._users.folder.is_dir():
            return  # never joined; or deleted, which PostgreSQL notices and ends in a minute
        with exclusive(self._lock):
            self._users.remove()
            if not self._users.any_left():
                self._postgres.stop()


class _Process:
    """The clusters that this process holds."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """A forked child holds nothing, and the lock may be held by a thread it lacks."""
        self.lock = threading.RLock()
        self.clusters: dict[Path, _Cluster] = {}

    def leave(self, cluster: _Cluster) -> None:
        """Gives up this process's hold, which stops the server if it was the last."""
        self.clusters.pop(cluster.path, None)
        try:
            cluster.leave()
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedServerError(path=str(cluster.path), problem=str(error)) from error

    def leave_all(self) -> None:
        with self.lock:
            for cluster in list(self.clusters.values()):
                self.leave(cluster)


_here = _Process()
atexit.register(_here.leave_all)
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_here.forget)
