"""Folders for servers of the tests."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOMY_BYTES = 1 << 30


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def fastest_parent() -> Path:
    """Memory, where it has room for a few servers and may run programs; else the usual place."""
    memory, usual = Path("/dev/shm"), Path(tempfile.gettempdir())
    if sys.platform != "linux" or not memory.is_dir():
        return usual
    no_programs = os.statvfs(memory).f_flag & os.ST_NOEXEC
    return usual if no_programs or shutil.disk_usage(memory).free < ROOMY_BYTES else memory


@contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that other OS users may traverse, unlike tmp_path; its servers end with it."""
    folder = Path(tempfile.mkdtemp(prefix="pgsaga-test-", dir=fastest_parent()))
    folder.chmod(0o755)
    yield folder
    for pid_file in folder.rglob("postmaster.pid"):
        pid = int(pid_file.read_text().split()[0])
        if is_alive(pid) and Path(f"/proc/{pid}/cwd").resolve().is_relative_to(folder):
            os.kill(pid, signal.SIGQUIT)
    shutil.rmtree(folder, ignore_errors=True)
