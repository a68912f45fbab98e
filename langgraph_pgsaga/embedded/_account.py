"""The system user that the server runs as when this process is root's."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from langgraph_pgsaga.errors import EmbeddedServerError

ACCOUNT = "pgsaga"

# Prints the first of its arguments that can't be entered or read.
_FIND_BLOCKED = (
    'for p; do if [ -d "$p" ]; then [ -x "$p" ]; else [ -r "$p" ]; fi '
    '|| { printf %s "$p"; exit; }; done'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Where one is expected, None stands for the user that this process runs as."""

    uid: int
    gid: int

    def own(self, path: Path) -> None:
        """Give it a file or folder, which was made here."""
        if sys.platform != "win32":
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def blocked(self, *targets: Path) -> str | None:
        """The first folder or file towards `targets` that this user can't use.

        Asked of the kernel, as that user, so that access lists count as well.
        """
        steps = dict.fromkeys(p for target in targets for p in (*target.parents[::-1], target))
        result = subprocess.run(
            ["/bin/sh", "-c", _FIND_BLOCKED, "sh", *map(str, steps)],
            capture_output=True,
            check=True,
            cwd="/",
            user=self.uid,
            group=self.gid,
            extra_groups=[],
        )
        return os.fsdecode(result.stdout) or None


def likely_account() -> Account | None:
    """The account for root as far as one can tell without making it; None for everyone else."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    import pwd

    for name in (ACCOUNT, "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(uid=entry.pw_uid, gid=entry.pw_gid)
    return Account(uid=65534, gid=65534)


def server_account(path: Path) -> Account | None:
    """The account for root, made if need be; None for everyone else. `path` is for the error."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    import pwd

    try:
        entry = pwd.getpwnam(ACCOUNT)
    except KeyError:
        _create_account(path)
        entry = pwd.getpwnam(ACCOUNT)
    return Account(uid=entry.pw_uid, gid=entry.pw_gid)


def _create_account(path: Path) -> None:
    command = ["useradd", "--system", "--user-group", "--no-create-home"]
    command += ["--home-dir", "/nonexistent", "--shell", "/bin/false", ACCOUNT]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        code, said = result.returncode, result.stderr.strip()
    except FileNotFoundError:
        code, said = 127, "there is no program useradd"
    if code not in (0, 9):  # 9: the name exists, another process was quicker
        problem = (
            f"PostgreSQL doesn't run as root, and the system user {ACCOUNT} can't be "
            f"created ({said}). Create it, or run as another user"
        )
        raise EmbeddedServerError(path=str(path), problem=problem)
