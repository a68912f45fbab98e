"""A server of the PostgreSQL that the machine's packages install, for one test run.

It is older than the embedded one, and nothing here may need an extension of it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests._require import require_tool

_ROOT = Path("/usr/lib/postgresql")


def find_programs() -> Path:
    """The folder with initdb, pg_ctl and psql of the oldest version that is installed."""
    installed = sorted(_ROOT.glob("*/bin/initdb"), key=lambda p: int(p.parents[1].name))
    if not installed:
        require_tool("initdb")
        installed = [Path(shutil.which("initdb") or "initdb").resolve()]
    return installed[0].parent


def run(program: Path, *arguments: str | Path) -> None:
    """Runs it to its end, as another user if this one is root, which PostgreSQL refuses."""
    as_root = os.geteuid() == 0
    command = [str(program), *map(str, arguments)]
    # Not a pipe: the server inherits it and would hold it open.
    subprocess.run(
        command,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        cwd="/",
        user="nobody" if as_root else None,
        group=pwd.getpwnam("nobody").pw_gid if as_root else None,
        extra_groups=[] if as_root else None,
    )


@contextmanager
def debian_server(folder: Path) -> Iterator[str]:
    """The DSN of a new server below `folder`, which the server's user must be able to enter."""
    programs = find_programs()
    folder.mkdir()
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody")
    data = folder / "data"
    run(programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
    settings = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
    log = folder / "server.log"
    run(programs / "pg_ctl", "-D", data, "-w", "-l", log, "-o", settings, "start")
    try:
        yield f"postgresql://postgres@/postgres?host={folder}"
    finally:
        run(programs / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
