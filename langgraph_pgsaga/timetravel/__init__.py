"""Looking at what an agent did, after it ran."""

from langgraph_pgsaga.timetravel.diff import Change, ChangeKind, Diff, diff

__all__ = ["Change", "ChangeKind", "Diff", "diff"]
