"""Where the server's folder is when nobody says."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from langgraph_pgsaga.embedded._account import likely_account

_HERE = Path(".pgsaga")
_ROOTS_STATE = Path("/var/lib/pgsaga-embedded")


def default_path() -> Path:
    """`PGSAGA_EMBEDDED_PATH`, else `.pgsaga` in the current directory.

    Where no server could have that (as root, below a folder that is private; or where one
    can't write) it is a folder for this directory alone, the same each time: below
    /var/lib/pgsaga-embedded as root, else below ~/.local/state/pgsaga (XDG_STATE_HOME).
    """
    given = os.environ.get("PGSAGA_EMBEDDED_PATH")
    if given:
        return Path(given)
    try:
        return _HERE if _HERE.exists() else _elsewhere(Path.cwd()) or _HERE
    except (OSError, RuntimeError):  # a directory that is gone, a user without a home
        return _HERE


def is_elsewhere(path: Path) -> bool:
    """Whether the default is another folder than people expect."""
    return not os.environ.get("PGSAGA_EMBEDDED_PATH") and path != _HERE


def _elsewhere(directory: Path) -> Path | None:
    """The other folder, where it is there already or the directory can't have one."""
    digest = hashlib.blake2b(os.fsencode(directory.resolve()), digest_size=4).hexdigest()
    path = _state_folder() / f"{directory.name or 'root'}-{digest}"
    if path.exists() or (not _can_hold(directory) and _can_hold(path.parent)):
        return path
    return None


def _state_folder() -> Path:
    if sys.platform != "win32" and os.geteuid() == 0:
        return _ROOTS_STATE
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "pgsaga"


def _can_hold(folder: Path) -> bool:
    """Whether a server's folder can be made in this one, or where this one would be made."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        return False
    account = likely_account()
    return account is None or account.blocked(there) is None
