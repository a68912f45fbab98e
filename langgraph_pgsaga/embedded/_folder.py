"""The server's folder: whether it may be used, and how it is made."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from langgraph_pgsaga.embedded._account import ACCOUNT, Account
from langgraph_pgsaga.errors import EmbeddedServerError

MAJOR = "18"  # of PostgreSQL: the data's, and the programs'
_FORMAT = "1"
_MARKER = "pgsaga-embedded"


def refuse_unfit(path: Path) -> None:
    """Raise, having changed nothing, if the folder isn't one that we may use."""
    if path.exists() and (problem := _unfit(path) or _outdated(path)):
        raise EmbeddedServerError(path=str(path), problem=problem)


def _unfit(path: Path) -> str | None:
    """What speaks against the folder, whatever its version.

    Another OS user who can write to it could replace the socket or the settings.
    """
    if not path.is_dir():
        return "it is a file. Choose another path"
    status = path.stat()
    if sys.platform != "win32" and status.st_uid != os.geteuid():
        return (
            f"the folder belongs to the OS user {status.st_uid}, this process runs as "
            f"{os.geteuid()}. Choose a folder of your own"
        )
    if sys.platform != "win32" and status.st_mode & stat.S_IWOTH:
        return "every OS user may write to the folder. chmod o-w it first"
    # The marker is looked up last, as another process may be putting its own there right now.
    if any(path.iterdir()) and not (path / _MARKER).exists():
        return (
            "the folder isn't empty and wasn't made by langgraph_pgsaga. "
            "Choose an empty or a new folder"
        )
    return None


def _outdated(path: Path) -> str | None:
    """What makes it the folder of another version."""
    layout = read(path / _MARKER) or _FORMAT
    if layout != _FORMAT:
        return (
            f"the folder has layout {layout!r}, this version knows {_FORMAT!r}. "
            "Upgrade langgraph_pgsaga, or choose another path"
        )
    major = read(path / "data" / "PG_VERSION") or MAJOR
    if major != MAJOR:
        return (
            f"its data are of PostgreSQL {major}, this is {MAJOR}. Carry them over with "
            f"pg_dump of version {major}, or move the folder away to begin anew"
        )
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder that `refuse_unfit` let pass, and the account that its server runs as."""

    path: Path
    account: Account | None

    @property
    def run(self) -> Path:
        """Where the socket is, unless the path is too long for one."""
        return self.path / "run"

    @property
    def log(self) -> Path:
        """What PostgreSQL reports."""
        return self.path / "server.log"

    def error(self, problem: str) -> EmbeddedServerError:
        """To be raised."""
        return EmbeddedServerError(path=str(self.path), problem=problem)

    def make(self) -> None:
        """Make it complete, with mode and marker, beside its place and move it there.

        So of several processes none ever sees another's half of it.
        """
        if self.path.exists():
            self.require_reach(self.path)
            (self.path / _MARKER).touch()  # before the lock, as only a marked folder has files
            return
        self._make_parents()
        self.require_reach(self.path.parent)
        fresh = Path(tempfile.mkdtemp(prefix=".pgsaga-new-", dir=self.path.parent))
        try:
            (fresh / _MARKER).write_text(_FORMAT)
            fresh.chmod(0o711 if self.account else 0o700)
            fresh.rename(self.path)
        except OSError:
            shutil.rmtree(fresh)
            if not (self.path / _MARKER).exists():
                raise

    def _make_parents(self) -> None:
        """Those that aren't there, such that the server's user may enter whatever the umask."""
        missing = [folder for folder in self.path.parents if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            if self.account:
                folder.chmod(0o755)

    def lay_out(self) -> None:
        """Make what the server needs in it and isn't there yet. Call it under the lock."""
        (self.path / _MARKER).write_text(_FORMAT)
        (self.path / ".gitignore").write_text("*\n")
        (self.path / "users").mkdir(mode=0o700, exist_ok=True)
        self.make_private(self.run)
        self.log.touch(mode=0o600)
        if self.account:
            self.account.own(self.log)

    def make_private(self, folder: Path) -> None:
        """Make `folder` the server's own, mode 0700, or refuse one that isn't.

        In a shared directory another user may have put a folder or link of that name.
        """
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        if sys.platform == "win32":
            return
        status = folder.lstat()
        if self.account and status.st_uid == 0 and stat.S_ISDIR(status.st_mode):
            self.account.own(folder)
            status = folder.lstat()
        owner = self.account.uid if self.account else os.geteuid()
        private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
        if not private or status.st_uid != owner:
            raise self.error(f"{folder} isn't a private folder of the server's. Remove it")

    def require_reach(self, folder: Path) -> None:
        """Raise if the server's account may not enter `folder`."""
        if self.account and (blocked := self.account.blocked(folder)):
            raise self.error(
                f"as root, the server runs as the system user {ACCOUNT}, which may not enter "
                f"{blocked}. Choose a path outside it (PGSAGA_EMBEDDED_PATH=/var/lib/pgsaga), "
                f"or allow it yourself (chmod o+x {shlex.quote(blocked)})"
            )


def read(path: Path) -> str:
    """The text of a small file without the space around it; empty if there is no file."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""
