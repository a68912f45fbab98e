"""PostgreSQL servers of other versions than the embedded one, for one test run each.

The programs are those of the machine's packages (Debian has one version), else those that
`make test-servers` brings with npm. Nothing here may need an extension: npm's have none.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests._require import require_tool

_PACKAGED = Path("/usr/lib/postgresql")
_FROM_NPM = Path(__file__).resolve().parents[1] / ".postgres" / "node_modules"


def find_programs(version: str | None = None) -> Path:
    """The folder with initdb and pg_ctl of a version; without one, of the packages' oldest.

    The packages' has psql too.
    """
    if version is not None:
        packaged = _PACKAGED / version / "bin"
        return packaged if (packaged / "initdb").exists() else _from_npm(version)
    installed = sorted(_PACKAGED.glob("*/bin/initdb"), key=lambda p: int(p.parents[1].name))
    if not installed:
        require_tool("initdb")
        installed = [Path(shutil.which("initdb") or "initdb").resolve()]
    return installed[0].parent


def _from_npm(version: str) -> Path:
    package = _FROM_NPM / f"postgres-{version}"
    if not package.exists():
        raise FileNotFoundError(f"no PostgreSQL {version} here: `make test-servers` brings it")
    # A package can't hold links, and names those that the libraries need.
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        target, source = package / link["target"], package / link["source"]
        with suppress(FileExistsError):  # another worker's, perhaps made just now
            target.symlink_to(os.path.relpath(source, target.parent))
    return package / "native" / "bin"


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


def _reachable(programs: Path, folder: Path) -> Path:
    """The programs, or a copy of them where the server's user can't reach them."""
    try:
        run(programs / "initdb", "--version")
    except PermissionError:
        shutil.copytree(programs.parent, folder / "programs", symlinks=True)
        return folder / "programs" / programs.name
    return programs


@contextmanager
def postgres_server(folder: Path, version: str | None = None) -> Iterator[str]:
    """The DSN of a new server below `folder`, which the server's user must be able to enter."""
    folder.mkdir()
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody")
    programs = _reachable(find_programs(version), folder)
    data = folder / "data"
    locale = ("-E", "UTF8", "--locale=C.UTF-8")
    run(programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", *locale, "--no-sync")
    settings = f"-c listen_addresses= -c unix_socket_directories={folder}"
    log = folder / "server.log"
    run(programs / "pg_ctl", "-D", data, "-w", "-l", log, "-o", settings, "start")
    try:
        yield f"postgresql://postgres@/postgres?host={folder}"
    finally:
        run(programs / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
