"""Forked children of a test."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable

import pytest

from tests._limits import HANG_SECONDS

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system can't fork")


def in_child(work: Callable[[], None]) -> int:
    """The pid of a forked child that does the work and ends, with 0 if it succeeded."""
    with warnings.catch_warnings():
        # Python 3.12 on: "multi-threaded, use of fork() may lead to deadlocks"
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.alarm(int(HANG_SECONDS))
        work()
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def assert_succeeds(pid: int) -> None:
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
