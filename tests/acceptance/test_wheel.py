"""The wheel that users install: built from the sdist, and installed where the checkout isn't.

The environment is fresh, but its dependencies are those of the one that runs the tests: a
.pth file there names that site-packages folder. Folders named so are searched last, and
.pth files in them are not read, so the editable installation stays out of sight.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ("migrations", "langgraph_pgsaga/sql", "langgraph_pgsaga/py.typed")

LIST_MIGRATIONS = """
import json
import langgraph_pgsaga
from langgraph_pgsaga.database import load_migrations

print(json.dumps({
    "package": langgraph_pgsaga.__file__,
    "migrations": {f"{migration.name}.sql": migration.sha256 for migration in load_migrations()},
}))
"""

MIGRATE = """
import asyncio
import json
import sys
from langgraph_pgsaga import Database
from langgraph_pgsaga.database import migrate

async def main():
    async with Database(sys.argv[1]) as database:
        first, again = await migrate(database), await migrate(database)
    print(json.dumps([[f"{migration.name}.sql" for migration in done] for done in (first, again)]))

asyncio.run(main())
"""


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def data_files() -> list[Path]:
    """The files of the checkout that aren't Python and have to be in the wheel."""
    paths = (ROOT / name for name in DATA)
    found = [f for path in paths for f in ([path] if path.is_file() else sorted(path.iterdir()))]
    return [path.relative_to(ROOT) for path in found]


def name_in_wheel(path: Path) -> str:
    posix = path.as_posix()
    return f"langgraph_pgsaga/{posix}" if posix.startswith("migrations/") else posix


def run(*command: str | Path, cwd: Path) -> str:
    """The command's output; its errors are in the failure's message."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    result = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("built")
    # Without --sdist or --wheel, build makes the wheel from the sdist it has just made.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fresh environment's programs, with the wheel installed."""
    home = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=home)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home)
    (Path(site.strip()) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


def test_every_data_file_is_in_the_wheel_unchanged(wheel: Path) -> None:
    """Migrations, statements and the typing marker are in the wheel, byte for byte."""
    files = data_files()
    with zipfile.ZipFile(wheel) as archive:
        packed = {name: digest(archive.read(name)) for name in archive.namelist()}
    expected = {name_in_wheel(file): digest((ROOT / file).read_bytes()) for file in files}
    assert {name: packed.get(name) for name in expected} == expected
    assert any(name.startswith("langgraph_pgsaga/migrations/") for name in expected)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """Neither tests nor a top-level migrations folder land in a user's site-packages."""
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"langgraph_pgsaga"}


def test_the_sdist_holds_what_its_tests_need(built: Path) -> None:
    """From an unpacked sdist one can install, run the tests, and build the wheel."""
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"pyproject.toml", "Makefile", "README.md", "LICENSE", "tests/lowest.txt"}
    wanted |= {"CONTRIBUTING.md", "SECURITY.md", ".pre-commit-config.yaml", ".ci/run"}
    wanted |= {path.as_posix() for path in data_files()}
    wanted |= {path.relative_to(ROOT).as_posix() for path in ROOT.glob("tests/**/*.py")}
    assert wanted - names == set()


def test_the_installed_command_shows_its_help(installed: Path, tmp_path: Path) -> None:
    """`pgsaga --help` works where only the wheel is installed."""
    assert "pgsaga" in run(installed / "pgsaga", "--help", cwd=tmp_path)


def test_the_installed_package_finds_its_migrations(installed: Path, tmp_path: Path) -> None:
    """The wheel's migrations are the checkout's, and come from the wheel."""
    answer = json.loads(run(installed / "python", "-c", LIST_MIGRATIONS, cwd=tmp_path))
    assert Path(answer["package"]).is_relative_to(installed.parent)
    expected = {path.name: digest(path.read_bytes()) for path in ROOT.glob("migrations/*.sql")}
    assert answer["migrations"] == expected


def test_the_installed_package_migrates(installed: Path, tmp_path: Path, empty_dsn: str) -> None:
    """From the wheel alone an empty database gets every migration, once."""
    answer = json.loads(run(installed / "python", "-c", MIGRATE, empty_dsn, cwd=tmp_path))
    expected = sorted(path.name for path in ROOT.glob("migrations/*.sql"))
    assert answer == [expected, []]
