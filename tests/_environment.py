"""What the tests don't take over from the machine, or the shell, that runs them."""

from __future__ import annotations

import os
import signal

# What would lead the package, libpq or psql to another server than the tests' own.
_SERVERS = ("PGSAGA_DSN", "PGSAGA_EMBEDDED_PATH", "PGSAGA_IMPORT_FROM")
# What would send runs to a tracing service, or change how output looks.
_SERVICES = ("LANGCHAIN_", "LANGSMITH_")
_LOOKS = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "PYTHONIOENCODING", "PYTHONWARNINGS")


def forget_the_machine() -> None:
    """Takes all of that out of this process's environment, which its children inherit.

    A server of PGSAGA_TEST_DSN may need libpq's variables (PGPASSWORD); ours needs none.
    """
    libpqs = () if os.environ.get("PGSAGA_TEST_DSN") else ("PG",)
    for name in list(os.environ):
        is_libpqs = name.startswith(libpqs) and not name.startswith("PGSAGA_")
        if name in (*_SERVERS, *_LOOKS) or name.startswith(_SERVICES) or is_libpqs:
            del os.environ[name]
    # A shell's script has Ctrl-C ignored in its background jobs, and their children inherit it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # What tests make and read back must be for other users of the machine where they ask so.
    os.umask(0o022)
