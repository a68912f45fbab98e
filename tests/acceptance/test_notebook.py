"""The notebook, run as a reader runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests._limits import HANG_SECONDS

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples" / "time_travel.ipynb"


@pytest.fixture(scope="module")
def outputs(public_tmp: Path) -> list[list[dict[str, Any]]]:
    """What each of its code cells gives out, on a server of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(NOTEBOOK), str(public_tmp / "notebook"), str(ROOT)],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    cells: list[dict[str, Any]] = json.loads(done.stdout)["cells"]
    return [cell["outputs"] for cell in cells if cell["cell_type"] == "code"]


# In a process of its own, as `jupyter execute` is one: the kernel gets this environment.
_RUN = """
import json, os, sys
import nbformat
from nbclient import NotebookClient

path, folder, root = sys.argv[1:]
os.environ.update(PGSAGA_EMBEDDED_PATH=folder, PYTHONPATH=root)
notebook = nbformat.read(path, as_version=4)
NotebookClient(notebook, timeout=None).execute()
print(json.dumps(notebook))
"""


def printed(cells: list[list[dict[str, Any]]]) -> str:
    return "".join(o["text"] for cell in cells for o in cell if o["output_type"] == "stream")


def test_the_notebook_finds_the_mistake(outputs: list[list[dict[str, Any]]]) -> None:
    """It prints the totals, the step that was wrong, and what each variant came to."""
    lines = printed(outputs).splitlines()
    assert lines[:8] == [
        "the agent says 2169.79, the bank 3418.54",
        "202 checkpoints",
        "step 118: book",
        "('read',) 1347.61",
        "the agent says 3418.54, the bank 3418.54",
        "as it was: 2169.79",
        "right amount: 3418.54",
        "left to a person: 2168.54",
    ]
    assert lines[8:14] == [
        "●    200  book",
        "┊    … 82 steps",
        "●    117  update",
        "│ ●  200  book  (branch 1)",
        "│ ┊  … 82 steps",
        "│ ●  117  read  (branch 1)",
    ]
    assert "“before the London receipt”" in lines[-3]


def test_its_results_show_themselves(outputs: list[list[dict[str, Any]]]) -> None:
    """Each result is a page of its own: the state, the history, diffs, comparison and tree."""
    pages = [o["data"]["text/html"] for cell in outputs for o in cell if "data" in o]
    kinds = ["state", "history", "diff", "diff", "compare", "diff", "tree"]
    assert len(pages) == len(kinds)
    for page, kind in zip(pages, kinds, strict=True):
        assert f'class="pgsaga-{kind}"' in page
    assert "book(amount=1.25)" in pages[2]
    assert "<script" not in "".join(pages)


def test_it_is_stored_without_results() -> None:
    """Ids and times differ from run to run, so the file has none."""
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]
