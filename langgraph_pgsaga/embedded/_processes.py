"""Who a process is, which processes use a server, and the lock that they take turns with."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from langgraph_pgsaga.embedded._folder import read
from langgraph_pgsaga.errors import EmbeddedServerError

_LOCK_SECONDS = 150  # more than an initdb and a start take on a slow machine

if sys.platform == "win32":
    import msvcrt

    def _try_lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

    def _unlock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(handle: int) -> None:
        # Explicitly: a process forked meanwhile shares the lock and would keep it.
        fcntl.flock(handle, fcntl.LOCK_UN)


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Keep the other processes from starting and stopping the server meanwhile."""
    handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _wait_for_lock(handle, lock)
        try:
            yield
        finally:
            _unlock(handle)
    finally:
        os.close(handle)


def _wait_for_lock(handle: int, lock: Path) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            return _try_lock(handle)
        except OSError as error:
            if time.monotonic() > deadline:
                problem = (
                    f"another process has been starting or stopping it for {_LOCK_SECONDS} "
                    f"seconds (it holds {lock}). End that process"
                )
                raise EmbeddedServerError(path=str(lock.parent), problem=problem) from error
        time.sleep(0.02)


class Users:
    """The processes that use a server: an empty file in `folder` for each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self) -> None:
        """Count this process."""
        (self.folder / _user_name(os.getpid())).touch()

    def remove(self) -> None:
        """Count this process no more."""
        (self.folder / _user_name(os.getpid())).unlink(missing_ok=True)

    def any_left(self) -> bool:
        """Whether a live process is counted. Forgets the dead ones."""
        for user in self.folder.iterdir():
            pid = user.name.partition("-")[0]
            if not pid.isdecimal() or user.name != _user_name(int(pid)):
                user.unlink()
        return any(self.folder.iterdir())


def _user_name(pid: int) -> str:
    return f"{pid}-{_birth(pid)}"


def _birth(pid: int) -> str | None:
    """When the process started: with the pid, a name no other process has. None if it ended.

    On Linux in ticks since boot, from /proc. psutil turns them into a time of day, which
    moves when the clock is set; a live user would look like another process then.
    """
    if sys.platform != "linux":
        seen = _seen(pid)
        return seen and seen[1]
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in b"ZX" else f"{boot[:8]}-{int(fields[18])}"


def _seen(pid: int) -> tuple[str, str] | None:
    """Name and time of start of a live process, from psutil, which the wheel depends on."""
    psutil = importlib.import_module("psutil")
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process.name(), str(int(process.create_time() * 1000))
    except psutil.NoSuchProcess:
        return None


def is_postgres(pid: int) -> bool:
    """By its name only: in a container even root may not see more of another user's process."""
    seen = _seen(pid)
    return seen is not None and seen[0].startswith("postgres")


def forget_reused_pid(lock_file: Path) -> None:
    """Remove a stale lock file whose pid is another program's now, or a zombie's.

    PostgreSQL itself gets over a pid that is gone, but takes any other for a server.
    Zombies stay where a container's first process doesn't reap them.
    """
    psutil = importlib.import_module("psutil")
    pid = read(lock_file).partition("\n")[0]
    if pid and psutil.pid_exists(int(pid)) and not is_postgres(int(pid)):
        lock_file.unlink()
