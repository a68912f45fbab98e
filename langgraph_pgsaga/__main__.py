"""The console script, and `python -m langgraph_pgsaga`."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line. Ctrl-C ends it quietly also while it is still being imported."""
    try:
        from langgraph_pgsaga import cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
