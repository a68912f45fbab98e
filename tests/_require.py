"""What a test needs of the machine beyond the Python packages."""

from __future__ import annotations

import os
import shutil

import pytest


def require_tool(name: str) -> str:
    """The path of a program; where it isn't installed the test is skipped.

    With PGSAGA_REQUIRE_ALL=1, as on a machine that is there to run everything, it fails.
    """
    path = shutil.which(
        name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
    )
    if path is not None:
        return path
    reason = f"the program {name} isn't installed"
    if os.environ.get("PGSAGA_REQUIRE_ALL") == "1":
        pytest.fail(f"{reason}, and PGSAGA_REQUIRE_ALL=1 asks for every test")
    pytest.skip(reason)
